/** What every verb about a target begins with: the base model, its tokenizer and device, the features, and ways to sample and to score. */

import { runtimeError, usageError } from "../base/errors.ts";
import { type Key, keyOf } from "../base/random.ts";
import { adoptInTurns, type Device, disposeAll, type PlacedTensors } from "../engine/runtime/device.ts";
import { type CausalModel, createCausalModel, isLarge } from "../models/causal-model.ts";
import { loadModelDirectory, type ModelDirectory } from "../models/directory.ts";
import type { DeviceTensors } from "../optim/adam.ts";
import { createGenerator, type Generator, type Sampling } from "../sampling/generate.ts";
import { createScorer, defaultMicroBatch, type Scorer } from "../sampling/log-prob.ts";
import { type Samples, sequencesOf } from "../sampling/samples.ts";
import { createFeature, type Feature, type FeatureMatrix, featureMatrix } from "../targets/feature.ts";
import { createReward, withReward } from "../targets/reward.ts";
import { type RunConfig, rewardOf } from "./config.ts";
import type { RunContext } from "./context.ts";

/** The model itself: what the proposal and every divergence are sampled with. */
export const exactSampling: Sampling = { kind: "full", temperature: 1 };

export interface Setup {
  readonly config: RunConfig;
  readonly base: Omit<ModelDirectory, "weights">;
  /** The base's weights, on the device: nothing else holds them. */
  readonly baseWeights: DeviceTensors;
  readonly model: CausalModel;
  readonly device: Device;
  /** Token ids every sequence is conditioned on, the start token first. */
  readonly prompt: readonly number[];
  readonly features: readonly Feature[];
  keyFor(purpose: "fit" | "train" | "shuffle" | "proposal" | "evaluate"): Key;
  generatorOf(weights: PlacedTensors, sampling?: Sampling): Promise<Generator>;
  /** Weights on the device must not be given back before the scorer is. @param probe coefficients of a probe to be read in the same pass */
  scorerOf(weights: PlacedTensors, probe?: readonly number[]): Promise<Scorer>;
  /** phi(x) of every sequence, and as a last column "reward" r(x), where the config has one. */
  measure(samples: Samples): Promise<FeatureMatrix>;
  /** Gives the base's weights back. */
  dispose(): Promise<void>;
}

/** Tokens that a context of `contextLength` leaves for a text after its prompt. @throws TiltError (usage) when it leaves none */
export const roomAfter = (prompt: readonly number[], contextLength: number, where: string): number => {
  if (prompt.length > contextLength) {
    throw usageError({
      where,
      expected: `at most ${contextLength} tokens with the start token, the model's context`,
      got: String(prompt.length),
      fix: "shorten it",
    });
  }
  return contextLength - prompt.length + 1;
};

/** The samples, once it is known that their model gave them probabilities. @throws TiltError (runtime) when it gave none: its weights are no numbers */
export const withProbabilities = (samples: Samples, where: string): Samples => {
  const bad = samples.logProbs.find((value) => !Number.isFinite(value));
  if (bad === undefined) return samples;
  throw runtimeError({
    where,
    expected: "a finite log-probability of every text that it writes",
    got: String(bad),
    fix: "its weights are damaged or have diverged: take others, or train with a lower learning rate",
  });
};

/** How many lanes a model is to be run on: one with all threads where its weights are large, for each has a copy of them; else what the machine has. */
export const lanesFor = (model: CausalModel): { readonly lanes?: number } => (isLarge(model) ? { lanes: 1 } : {});

/** @throws TiltError for a base that cannot be read, or a prompt that does not fit */
export const openSetup = async (config: RunConfig, context: Pick<RunContext, "files" | "openDevice">): Promise<Setup> => {
  const { weights, ...base } = await loadModelDirectory(context.files, config.base);
  const model = createCausalModel(base.config);
  const device = context.openDevice(config.device, lanesFor(model));
  const prompt = [base.startId, ...base.tokenizer.encode(config.sequence.prompt)];
  const { maxTokens } = config.sequence;
  const room = roomAfter(prompt, base.config.contextLength, "sequence.prompt");
  if (maxTokens > room) {
    throw usageError({
      where: "sequence.maxTokens",
      expected: `at most ${room}, what the model's context of ${base.config.contextLength} leaves after the prompt`,
      got: String(maxTokens),
      fix: "lower it",
    });
  }
  const features = Object.entries(config.features).map(([name, spec]) => createFeature(name, spec));
  const rewardSpec = rewardOf(config);
  const reward = rewardSpec === undefined ? undefined : createReward(rewardSpec, features);
  const baseWeights = await adoptInTurns(device, weights);
  return {
    config,
    base,
    baseWeights,
    model,
    device,
    prompt,
    features,
    keyFor: (purpose) => keyOf(config.seed, purpose),
    generatorOf: (weights, sampling = exactSampling) =>
      createGenerator(device, model, weights, { sampling, prompt, maxTokens, endIds: base.endIds, tokenizer: base.tokenizer }),
    scorerOf: (weights, probe) => createScorer(device, model, weights, defaultMicroBatch, probe),
    measure: async (samples) => {
      const sequences = sequencesOf(samples);
      const matrix = await featureMatrix(features, sequences);
      return reward === undefined ? matrix : withReward(matrix, await reward.values(sequences, matrix));
    },
    dispose: async () => disposeAll(baseWeights),
  };
};

/** The model, once it is known that the base's graph can run it. @throws TiltError (runtime) naming the first weight that differs */
export const likeBase = (model: ModelDirectory, { baseWeights }: Setup): ModelDirectory => {
  for (const [name, { shape }] of Object.entries(baseWeights)) {
    const found = model.weights[name]?.shape;
    if (found?.join() === shape.join()) continue;
    throw runtimeError({
      where: model.path,
      expected: `weights like those of the base (${name} of [${shape.join(", ")}])`,
      got: found === undefined ? "none" : `[${found.join(", ")}]`,
      fix: "take a model that was tuned from this base",
    });
  }
  return model;
};

/** Uses something that must be given back. */
export const using = async <R extends { dispose(): Promise<void> }, T>(
  resource: Promise<R>,
  work: (resource: R) => Promise<T>,
): Promise<T> => {
  const held = await resource;
  try {
    return await work(held);
  } finally {
    await held.dispose();
  }
};

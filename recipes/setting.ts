/** What every recipe stands on, and nothing of any method: the base opened, texts measured, the target fitted, a step told. */

import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import {
  createCausalModel,
  createFeature,
  createGenerator,
  createReward,
  createScorer,
  emptyPartition,
  type FeatureMatrix,
  type FeatureSpec,
  featureMatrix,
  fitTarget,
  type Generator,
  hasMass,
  keyOf,
  klTargetPolicy,
  loadModelDirectory,
  logTargetOf,
  logWeights,
  momentEstimates,
  type PlacedTensors,
  partitionEstimate,
  type RewardSpec,
  type RunConfig,
  type Samples,
  type ScoredSamples,
  type StepReport,
  sequencesOf,
  type TargetSpec,
  updatePartition,
  withReward,
} from "tiltlm";
import { nodeFiles, openDevice } from "tiltlm/node";

/** What is chosen before a method is, under the keys of a config: `{ ...choices, method, steps }` is that of the same run. */
export interface Choices {
  readonly base: string;
  readonly sequence: { readonly maxTokens: number; readonly prompt: string };
  readonly features: Readonly<Record<string, FeatureSpec>>;
  /** r(x). Methods that go for a target do not look at it. */
  readonly reward: RewardSpec;
  /** p(x), fitted from so many texts of the base. Methods that go for a reward are only measured against it. */
  readonly target: TargetSpec & { readonly samples: number };
  /** Texts of a step, and texts computed at once. */
  readonly batch: { readonly samples: number; readonly microBatch: number };
  readonly optimizer: RunConfig["optimizer"];
  readonly seed: number;
}

const adam = { name: "adam", beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 2.5 } as const;

/** The embedded model writes about women in 8% of its biographies; half is wanted. As a reward: 1 for a text about a woman. */
export const biographies: Choices = {
  base: fileURLToPath(new URL("../models/biographies-mini", import.meta.url)),
  sequence: { maxTokens: 48, prompt: "" },
  features: { women: { kind: "pronouns", label: "female" }, amazing: { kind: "word", word: "amazing" } },
  reward: { features: { women: 1 } },
  target: { moments: { women: 0.5 }, samples: 2048 },
  batch: { samples: 512, microBatch: 16 },
  optimizer: { ...adam, learningRate: 3e-4, warmupSteps: 2, schedule: "linear" },
  seed: 12,
};

export type Setting = Awaited<ReturnType<typeof openSetting>>;
export const openSetting = async (choices: Choices, device = openDevice("cpu")) => {
  const base = await loadModelDirectory(nodeFiles, choices.base);
  const model = createCausalModel(base.config);
  const { maxTokens, prompt } = choices.sequence;
  const { tokenizer, startId, endIds } = base;
  const given = [startId, ...tokenizer.encode(prompt)];
  const texts = { sampling: { kind: "full", temperature: 1 }, prompt: given, maxTokens, endIds, tokenizer } as const;
  const features = Object.entries(choices.features).map(([name, spec]) => createFeature(name, spec));
  const reward = createReward(choices.reward, features);
  const opened = { choices, device, model, base };
  return {
    ...opened,
    /** Randomness has a key per purpose, and under it a number per text: no draw depends on what was drawn before. */
    keyFor: (purpose: "fit" | "train" | "proposal" | "shuffle") => keyOf(choices.seed, purpose),
    /** Draws from these weights, the full softmax: the log q(x) that comes with a text is exactly that of how it was drawn. */
    generatorOf: (weights: PlacedTensors) => createGenerator(device, model, weights, texts),
    /** log-probabilities of given texts under these weights. */
    scorerOf: (weights: PlacedTensors) => createScorer(device, model, weights),
    /** phi(x) of each text, and as a last column r(x). */
    measure: async (samples: Samples): Promise<FeatureMatrix> => {
      const sequences = sequencesOf(samples);
      const matrix = await featureMatrix(features, sequences);
      return withReward(matrix, await reward.values(sequences, matrix));
    },
  };
};

/** Texts from weights that will not be drawn from again. */
export const drawOnce = async (setting: Setting, weights: PlacedTensors, request: Parameters<Generator["generate"]>[0]) => {
  const generator = await setting.generatorOf(weights);
  return generator.generate(request).finally(() => generator.dispose());
};

/** log P(x)/q(x) of each text: the mean of the ratio is Z, whatever q is (M9). */
export const logRatiosOf = ({ logTarget, samples }: Batch): Float64Array =>
  logTarget.map((value, i) => value - samples.logProbs[i]!);

/** The target, from texts of the base, which are also the first to say what Z is, and what a method may expect of the base. */
export const fitToBase = async (setting: Setting) => {
  const { samples: count, ...spec } = setting.choices.target;
  const samples = await drawOnce(setting, setting.base.weights, { count, key: setting.keyFor("fit") });
  const matrix = await setting.measure(samples);
  const { target } = fitTarget(matrix, spec);
  const partition = updatePartition(emptyPartition(), logWeights(target, matrix));
  const [logBase, logZ] = [samples.logProbs, partitionEstimate(partition).logZ.value];
  return { target, partition, ofBase: { samples, logBase, logTarget: logTargetOf(target, matrix, logBase), logZ } };
};

export type Batch = ScoredSamples & { readonly matrix: FeatureMatrix; readonly logTarget: Float64Array };
export type Step = ReturnType<typeof told>;

/** What a step has to say for itself. @throws Error where its numbers are not finite, and the tuner has refused it */
export const told = (step: number, { samples, matrix, logTarget }: Batch, report: StepReport, proposalUpdated: boolean) => {
  const { loss, gradNorm, logPolicy, measures, finite } = report;
  if (!finite) throw new Error(`step ${step}: loss ${loss}, gradient norm ${gradNorm}; lower optimizer.learningRate`);
  const kl = hasMass(logTarget) ? klTargetPolicy({ logTarget, logProposal: samples.logProbs, logPolicy }) : undefined;
  return { step, loss, moments: momentEstimates(matrix), klTargetPolicy: kl, proposalUpdated, measures };
};

/** Prints the steps of a recipe that is run as a script, `jiti recipes/x.ts [spec] [steps]`; of one that is imported, nothing. */
export const play = async <S>(
  url: string,
  recipe: (setting: Setting, steps: number, spec: S) => AsyncIterable<Step>,
  specs: Readonly<Record<string, S>>,
): Promise<void> => {
  if (fileURLToPath(url) !== argv[1]) return;
  const [name = Object.keys(specs)[0]!, steps = "12"] = argv.slice(2);
  if (specs[name] === undefined) throw new Error(`expected one of ${Object.keys(specs).join(", ")}, got ${name}`);
  for await (const { step, loss, moments, klTargetPolicy: kl } of recipe(await openSetting(biographies), +steps, specs[name])) {
    const means = Object.entries(moments).map(([feature, { value }]) => `${feature} ${value.toFixed(3)}`);
    const distance = kl === undefined ? "unknown" : `${kl.value.toFixed(3)} ± ${kl.stdError.toFixed(3)}`;
    console.log(`${step}: loss ${loss.toFixed(4)}, ${means.join(", ")}, KL(p, pi) ${distance}`);
  }
};

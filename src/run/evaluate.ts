/** Every measure of one model against a target, from samples of that model (docs/math.md, divergences). */

import { runtimeError } from "../base/errors.ts";
import type { NamedTensors } from "../base/tensor.ts";
import { loadModelDirectory } from "../models/directory.ts";
import { samplingOf } from "../sampling/generate.ts";
import type { Samples } from "../sampling/samples.ts";
import { entropy, jsTargetPolicy, klPolicyBase, klTargetPolicy, perplexity, tvTargetPolicy } from "../targets/divergence.ts";
import { hasMass, logWeights, type Target } from "../targets/ebm.ts";
import { columnOf, type FeatureMatrix, momentEstimates } from "../targets/feature.ts";
import { effectiveSampleSize, logPartition } from "../targets/partition.ts";
import { distinct, selfBleus } from "../targets/text-metrics.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { fitFrom } from "./fit.ts";
import type { Evaluation, FitReport } from "./metrics.ts";
import { likeBase, openSetup, type Setup, using, withProbabilities } from "./setup.ts";

/** The measures, without what only a run knows: step, samples so far, seconds. */
export type Measures = Omit<Evaluation, "kind" | "step" | "samples" | "seconds" | "averaged">;

export interface Measured {
  readonly measures: Measures;
  /** The texts behind moments and text measures, with their features and log-probabilities under the policy and the base. */
  readonly samples: Samples;
  readonly matrix: FeatureMatrix;
  readonly logBase: Float64Array;
  /** Sequences drawn. */
  readonly drawn: number;
}

/** What a target says of samples of a model. @throws TiltError (runtime) where it gives none of them any mass */
const targetMeasures = (logTarget: Float64Array, logPolicy: Float64Array, where: string) => {
  if (!hasMass(logTarget)) {
    throw runtimeError({
      where,
      expected: "at least one text with P(x) > 0",
      got: `none in ${logTarget.length}`,
      fix: "raise evaluate.samples, or loosen the hard constraints",
    });
  }
  const scores = { logTarget, logProposal: logPolicy, logPolicy };
  const logRatios = logTarget.map((value, i) => value - logPolicy[i]!);
  return {
    klTargetPolicy: klTargetPolicy(scores),
    tvTargetPolicy: tvTargetPolicy(scores),
    jsTargetPolicy: jsTargetPolicy(scores),
    logZ: logPartition(logRatios),
    ess: effectiveSampleSize(logRatios),
  };
};

/**
 * Measures a model of the base's architecture. Divergences always rest on the full softmax; texts and moments on the nucleus that is asked for.
 * @throws TiltError (runtime) for a model that gives no probabilities, or no text that the target allows
 */
export const measureModel = async (
  setup: Setup,
  target: Target | undefined,
  weights: NamedTensors,
  model: Measures["model"],
  context: RunContext,
): Promise<Measured> => {
  const { samples: count, topP } = setup.config.evaluate;
  const draws = topP < 1 ? 2 : 1;
  return inPhase(context, `evaluating the ${model}`, count * (draws + 1), "texts", async (progress) => {
    const key = setup.keyFor("evaluate");
    const drawn = await using(setup.generatorOf(weights), (generator) =>
      generator.generate({ count, key, onProgress: progress }),
    );
    const samples = withProbabilities(drawn, `evaluation of the ${model}`);
    const shown =
      topP < 1
        ? await using(setup.generatorOf(weights, samplingOf(1, topP)), (generator) =>
            generator.generate({ count, key, onProgress: (done) => progress(count + done) }),
          )
        : samples;
    const scored = await using(setup.scorerOf(setup.base.weights), async (scorer) => ({
      logBase: (await scorer.score(samples, (done) => progress(count * draws + done))).logProbs,
      shownLogBase: topP < 1 ? (await scorer.score(shown)).logProbs : undefined,
    }));
    const matrix = await setup.measure(shown);
    const logPolicy = samples.logProbs;
    const ofTarget =
      target === undefined
        ? {}
        : targetMeasures(
            logWeights(target, topP < 1 ? await setup.measure(samples) : matrix).map((value, i) => value + scored.logBase[i]!),
            logPolicy,
            `evaluation of the ${model}`,
          );
    const words = selfBleus(shown.texts, "words");
    const characters = selfBleus(shown.texts, "characters");
    const measures: Measures = {
      model,
      n: count,
      topP,
      moments: momentEstimates(matrix),
      klPolicyBase: klPolicyBase(logPolicy, scored.logBase),
      ...ofTarget,
      entropy: entropy(logPolicy),
      perplexity: perplexity(scored.shownLogBase ?? scored.logBase, shown.lengths),
      distinct1: distinct(shown.texts, 1),
      distinct2: distinct(shown.texts, 2),
      distinct3: distinct(shown.texts, 3),
      selfBleu3: words[3],
      selfBleu4: words[4],
      selfBleu5: words[5],
      selfBleuCharacters3: characters[3],
      selfBleuCharacters4: characters[4],
      selfBleuCharacters5: characters[5],
    };
    return { measures, samples: shown, matrix, logBase: scored.shownLogBase ?? scored.logBase, drawn: count * draws };
  });
};

/** The evaluated texts as lines of samples.jsonl. */
export const sampleLines = ({ samples, matrix, logBase, measures }: Measured, step: number): string => {
  const columns = matrix.names.map((name, f) => [name, columnOf(matrix, f)] as const);
  return samples.texts
    .map((text, b) => {
      const features = Object.fromEntries(columns.map(([name, values]) => [name, values[b]!]));
      return `${JSON.stringify({ step, model: measures.model, text, features, logProb: samples.logProbs[b]!, logBase: logBase[b]! })}\n`;
    })
    .join("");
};

/** The verb `evaluate`: a model directory against the config's target, which is fitted first. */
export const evaluateDirectory = async (
  config: RunConfig,
  model: string,
  context: RunContext,
): Promise<{ evaluation: Evaluation; fit?: FitReport }> => {
  const start = context.clock();
  const setup = await openSetup(config, context);
  const policy = likeBase(await loadModelDirectory(context.files, model), setup.base);
  const fitted = config.target === undefined ? undefined : await fitFrom(setup, context);
  const { measures, drawn } = await measureModel(setup, fitted?.target, policy.weights, "policy", context);
  const evaluation: Evaluation = {
    kind: "evaluation",
    step: 0,
    samples: (config.target?.samples ?? 0) + drawn,
    seconds: (context.clock() - start) / 1000,
    ...measures,
  };
  context.onEvent({ type: "evaluation", evaluation, targetMoments: fitted?.report.targetMoments ?? {} });
  return { evaluation, ...(fitted === undefined ? {} : { fit: fitted.report }) };
};

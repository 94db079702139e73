/** Every measure of one model: of its own texts, and against a target of its texts and the base's together (docs/math.md M12 to M20, M49). */

import { runtimeError } from "../base/errors.ts";
import type { PlacedTensors } from "../engine/runtime/device.ts";
import { loadModelDirectory } from "../models/directory.ts";
import { generatorBatch, samplingOf } from "../sampling/generate.ts";
import { firstOf, type Samples } from "../sampling/samples.ts";
import { entropy, jsTargetPolicy, klPolicyBase, klTargetPolicy, perplexity, tvTargetPolicy } from "../targets/divergence.ts";
import { hasMass, logTargetOf, type Target } from "../targets/ebm.ts";
import { columnOf, type FeatureMatrix, momentEstimates } from "../targets/feature.ts";
import { type MixedScores, mixtureScores } from "../targets/mixture.ts";
import { effectiveSampleSize, logPartition } from "../targets/partition.ts";
import { distinct, selfBleus } from "../targets/text-metrics.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { type Fit, fitFrom } from "./fit.ts";
import type { Evaluation, FitReport } from "./metrics.ts";
import { likeBase, openSetup, type Setup, using, withProbabilities } from "./setup.ts";

/** The measures, without what only a run knows: step, samples so far, seconds. */
export type Measures = Omit<Evaluation, "kind" | "step" | "samples" | "seconds" | "averaged">;

/** Texts of the base, and what a target says of them: what the policy should write, seen from where it began. */
export interface Reference {
  readonly samples: Samples;
  /** log P(x) [n] nats. */
  readonly logTarget: Float64Array;
}

/** The first `count` texts of the base, as the fit drew them. */
export const referenceOf = (
  { samples, matrix, target }: Pick<Fit, "samples" | "matrix" | "target">,
  count: number,
): Reference => {
  const logTarget = logTargetOf(target, matrix, samples.logProbs);
  return { samples: firstOf(samples, count), logTarget: logTarget.slice(0, count) };
};

/** The same texts drawn again, for a run that was resumed. Whole batches of the generator: then they are the same to the bit. */
export const redrawReference = async (setup: Setup, target: Target, context: RunContext): Promise<Reference> => {
  const { config } = setup;
  const wanted = config.evaluate.samples;
  const count = Math.min(config.target!.samples, Math.ceil(wanted / generatorBatch) * generatorBatch);
  const samples = await inPhase(context, "sampling the base", count, "texts", (onProgress) =>
    using(setup.generatorOf(setup.baseWeights), (generator) =>
      generator.generate({ count, key: setup.keyFor("fit"), onProgress }),
    ),
  );
  return referenceOf({ samples, matrix: await setup.measure(samples), target }, wanted);
};

export interface Measured {
  readonly measures: Measures;
  /** The texts behind moments and text measures, with their features and log-probabilities under the policy and the base. */
  readonly samples: Samples;
  readonly matrix: FeatureMatrix;
  readonly logBase: Float64Array;
  /** Sequences drawn. */
  readonly drawn: number;
}

/** What a target says of a model, from its own texts and the base's as texts of their mixture. */
const targetMeasures = (ofBase: MixedScores, ofPolicy: MixedScores, where: string) => {
  const scores = mixtureScores(ofBase, ofPolicy);
  if (!hasMass(scores.logTarget)) {
    throw runtimeError({
      where,
      expected: "at least one text with P(x) > 0",
      got: `none in ${ofPolicy.logTarget.length} of the model and ${ofBase.logTarget.length} of the base`,
      fix: "raise evaluate.samples, or loosen the hard constraints",
    });
  }
  const logRatios = scores.logTarget.map((value, i) => value - scores.logProposal[i]!);
  return {
    klTargetPolicy: klTargetPolicy(scores),
    tvTargetPolicy: tvTargetPolicy(scores),
    jsTargetPolicy: jsTargetPolicy(scores),
    logZ: logPartition(logRatios, scores.strata),
    ess: effectiveSampleSize(logRatios, scores.strata),
  };
};

/**
 * Measures a model of the base's architecture. Divergences always rest on the full softmax; texts and moments on the nucleus that is asked for.
 * @param against the target, and texts of the base that are judged by it; without it nothing of a target is measured
 * @throws TiltError (runtime) for a model that gives no probabilities
 */
export const measureModel = async (
  setup: Setup,
  against: { readonly target: Target; readonly reference: Reference } | undefined,
  weights: PlacedTensors,
  model: Measures["model"],
  context: RunContext,
): Promise<Measured> => {
  const { samples: count, topP } = setup.config.evaluate;
  const draws = topP < 1 ? 2 : 1;
  // What a model was drawn with is its log-probability: of the base's own texts nothing is left to score.
  const isBase = weights === setup.baseWeights;
  const scored = isBase ? 0 : count + (against?.reference.samples.count ?? 0);
  const total = count * draws + scored + (topP < 1 ? count : 0);
  return inPhase(context, `evaluating the ${model}`, total, "texts", async (progress) => {
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
    let done = count * draws;
    const scoresUnder = async (of: PlacedTensors, texts: Samples): Promise<Float64Array> => {
      const before = done;
      const scored = await using(setup.scorerOf(of), (scorer) => scorer.score(texts, (more) => progress(before + more)));
      done += texts.count;
      return scored.logProbs;
    };
    const logPolicy = samples.logProbs;
    const logBase = isBase ? logPolicy : await scoresUnder(setup.baseWeights, samples);
    const shownLogBase = topP < 1 ? await scoresUnder(setup.baseWeights, shown) : logBase;
    const matrix = await setup.measure(shown);
    const ofTarget = async (target: Target, reference: Reference) => {
      const referenceLogPolicy = isBase ? reference.samples.logProbs : await scoresUnder(weights, reference.samples);
      const ofBase = { logTarget: reference.logTarget, logBase: reference.samples.logProbs, logPolicy: referenceLogPolicy };
      const own = topP < 1 ? await setup.measure(samples) : matrix;
      const logTarget = logTargetOf(target, own, logBase);
      return targetMeasures(ofBase, { logTarget, logBase, logPolicy }, `evaluation of the ${model}`);
    };
    const measuredTarget = against === undefined ? {} : await ofTarget(against.target, against.reference);
    const words = selfBleus(shown.texts, "words");
    const characters = selfBleus(shown.texts, "characters");
    const measures: Measures = {
      model,
      n: count,
      topP,
      moments: momentEstimates(matrix),
      klPolicyBase: klPolicyBase(logPolicy, logBase),
      ...measuredTarget,
      entropy: entropy(logPolicy),
      perplexity: perplexity(shownLogBase, shown.lengths),
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
    return { measures, samples: shown, matrix, logBase: shownLogBase, drawn: count * draws };
  });
};

/** The evaluated texts as lines of samples.jsonl. */
export const sampleLines = ({ samples, matrix, logBase, measures }: Measured, step: number, averaged?: true): string => {
  const columns = matrix.names.map((name, f) => [name, columnOf(matrix, f)] as const);
  return samples.texts
    .map((text, b) => {
      const features = Object.fromEntries(columns.map(([name, values]) => [name, values[b]!]));
      const source = { step, model: measures.model, ...(averaged ? { averaged } : {}) };
      return `${JSON.stringify({ ...source, text, features, logProb: samples.logProbs[b]!, logBase: logBase[b]! })}\n`;
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
  return using(openSetup(config, context), (setup) => evaluateIn(setup, model, start, context));
};

const evaluateIn = async (
  setup: Setup,
  model: string,
  start: number,
  context: RunContext,
): Promise<{ evaluation: Evaluation; fit?: FitReport }> => {
  const { config } = setup;
  const policy = likeBase(await loadModelDirectory(context.files, model), setup);
  const fitted = config.target === undefined ? undefined : await fitFrom(setup, context);
  const against = fitted && { target: fitted.target, reference: referenceOf(fitted, config.evaluate.samples) };
  const { measures, drawn } = await measureModel(setup, against, policy.weights, "policy", context);
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

/** The verb `sample --target`: texts of a config's target without training, by quasi-rejection sampling (docs/math.md M30 to M34). */

import { runtimeError, usageError } from "../base/errors.ts";
import type { Estimate } from "../base/numeric.ts";
import { type Key, keyOf, uniformAt } from "../base/random.ts";
import { loadModelDirectory } from "../models/directory.ts";
import { type Samples, sequencesOf } from "../sampling/samples.ts";
import { logWeights } from "../targets/ebm.ts";
import { columnOf, type FeatureMatrix } from "../targets/feature.ts";
import {
  accepts,
  checkedAcceptance,
  chooseLogBeta,
  type QuasiRejectionReport,
  quasiRejectionReport,
} from "../targets/quasi-rejection.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { fitFrom } from "./fit.ts";
import type { SampledText } from "./generate.ts";
import { likeBase, openSetup, type Setup, using, withProbabilities } from "./setup.ts";

export interface TargetSampleOptions {
  /** A model directory, of the base's architecture and vocabulary; the config's base where absent. */
  readonly proposal?: string;
  /** Texts wanted. */
  readonly count: number;
  /** Share of the proposal's texts to keep, in (0, 1]; the smaller, the nearer to the target. */
  readonly acceptance: number;
  /** Of the texts and their acceptance; the fit of the target has the config's. */
  readonly seed: number;
  /** Trials after which it gives up; default 100 count / acceptance. */
  readonly maxTrials?: number;
  /** Trials drawn together at most; texts do not depend on it. Default 256. */
  readonly batch?: number;
}

/** An accepted text. Its log-probability is log q(x), under the proposal. */
export interface TargetText extends SampledText {
  readonly features: Readonly<Record<string, number>>;
}

export interface TargetSampleReport {
  /** The acceptance that was asked for, and got from the pilot. */
  readonly requested: number;
  /** Accepted texts over trials, with the binomial's standard error. */
  readonly achieved: Estimate;
  /** Texts of the proposal up to the last accepted one. */
  readonly trials: number;
  /** log(beta/Z), nats: texts whose P/(Zq) is above beta/Z are too rare among the accepted. */
  readonly logBetaOverZ: number;
  /** What the samples that beta was chosen from tell of it. What they did not show is not in it. */
  readonly pilot: QuasiRejectionReport;
}

export interface TargetSample {
  readonly texts: readonly TargetText[];
  readonly report: TargetSampleReport;
}

/** Texts of the proposal, and what decides about them. */
interface Drawn {
  readonly samples: Samples;
  readonly matrix: FeatureMatrix;
  /** log P(x) - log q(x) [B] nats. */
  readonly logRatios: Float64Array;
}

type Draw = (request: {
  readonly count: number;
  readonly key: Key;
  readonly firstIndex?: number;
  /** Hears texts drawn and texts scored, added up. */
  readonly onProgress?: (done: number) => void;
}) => Promise<Drawn>;

const textOf = ({ samples, matrix }: Drawn, b: number): TargetText => {
  const { text, ids, ended } = sequencesOf(samples)[b]!;
  const features = Object.fromEntries(matrix.names.map((name, f) => [name, columnOf(matrix, f)[b]!]));
  return { text, ids: Array.from(ids), logProb: samples.logProbs[b]!, ended, features };
};

/** As many trials again as are expected to be needed, and half of that: more rounds cost more than texts that nobody needs. */
const spare = 1.5;

/**
 * Draws texts from the target of a config, which is fitted first.
 * @throws TiltError (usage) for a config without a target, or options out of range
 * @throws TiltError (runtime) for a target that cannot be had, an acceptance that hard constraints rule out, or too many trials in vain
 * @throws the signal's reason when it is aborted
 */
export const sampleTarget = async (
  config: RunConfig,
  options: TargetSampleOptions,
  context: RunContext,
): Promise<TargetSample> => {
  if (config.target === undefined) {
    const fix = "add target, or sample a model without --target";
    throw usageError({ where: "sample --target", expected: "a config with a target", got: "none", fix });
  }
  const { count, batch = 256 } = options;
  if (!(Number.isInteger(count) && count >= 1)) {
    const fix = "say how many texts are wanted";
    throw usageError({ where: "count", expected: "a whole number of at least 1", got: String(count), fix });
  }
  const acceptance = checkedAcceptance(options.acceptance);
  const maxTrials = options.maxTrials ?? Math.ceil((100 * count) / acceptance);
  return using(openSetup(config, context), (setup) => sampleIn(setup, { ...options, batch, acceptance, maxTrials }, context));
};

const sampleIn = async (
  setup: Setup,
  {
    count,
    seed,
    batch,
    acceptance,
    maxTrials,
    proposal,
  }: TargetSampleOptions & Required<Pick<TargetSampleOptions, "batch" | "maxTrials">>,
  context: RunContext,
): Promise<TargetSample> => {
  const { config } = setup;
  const other = proposal === undefined ? undefined : likeBase(await loadModelDirectory(context.files, proposal), setup);
  const fitted = await fitFrom(setup, context);

  const work = async (draw: Draw): Promise<TargetSample> => {
    context.signal?.throwIfAborted();
    // The base's own texts have been drawn: the fit rests on them.
    const pilotRatios =
      other === undefined
        ? logWeights(fitted.target, fitted.matrix)
        : await inPhase(context, "sampling the proposal", 2 * config.target!.samples, "texts", async (onProgress) => {
            const pilot = await draw({ count: config.target!.samples, key: keyOf(seed, "pilot"), onProgress });
            return pilot.logRatios;
          });
    const logBeta = chooseLogBeta(pilotRatios, acceptance);
    const pilot = quasiRejectionReport(pilotRatios, logBeta);

    const key = keyOf(seed, "quasi-rejection");
    const uniformKey = keyOf(seed, "acceptance");
    const texts: TargetText[] = [];
    let drawn = 0;
    let trials = 0;
    await inPhase(context, "sampling the target", count, "texts", async (progress) => {
      while (texts.length < count) {
        context.signal?.throwIfAborted();
        if (drawn >= maxTrials) {
          throw runtimeError({
            where: "sampling the target",
            expected: `${count} accepted texts within ${maxTrials} trials`,
            got: String(texts.length),
            fix: "raise target.samples, so that more is known of the proposal, or ask for another acceptance",
          });
        }
        const needed = Math.ceil((spare * (count - texts.length)) / acceptance);
        const more = await draw({ count: Math.min(batch, needed, maxTrials - drawn), key, firstIndex: drawn });
        for (let b = 0; b < more.samples.count && texts.length < count; b++) {
          trials = drawn + b + 1;
          if (accepts(more.logRatios[b]!, logBeta, uniformAt(uniformKey, drawn + b))) texts.push(textOf(more, b));
        }
        drawn += more.samples.count;
        progress(texts.length);
      }
    });
    const share = count / trials;
    const achieved: Estimate = { value: share, stdError: Math.sqrt((share * (1 - share)) / trials), n: trials };
    const logBetaOverZ = logBeta - pilot.logZ.value;
    return { texts, report: { requested: acceptance, achieved, trials, logBetaOverZ, pilot } };
  };

  return using(setup.generatorOf(other?.weights ?? setup.baseWeights), async (generator) => {
    const generate = async (request: Parameters<Draw>[0], where: string) => {
      const samples = withProbabilities(await generator.generate(request), where);
      const matrix = await setup.measure(samples);
      return { samples, matrix, logRatios: logWeights(fitted.target, matrix) };
    };
    // Of the base's own texts P/q = P/a, which needs no model.
    if (other === undefined) return work((request) => generate(request, config.base));
    return using(setup.scorerOf(setup.baseWeights), (scorer) =>
      work(async (request) => {
        const { samples, matrix, logRatios } = await generate(request, other.path);
        const { logProbs } = await scorer.score(samples, (done) => request.onProgress?.(request.count + done));
        return { samples, matrix, logRatios: logRatios.map((value, b) => value + logProbs[b]! - samples.logProbs[b]!) };
      }),
    );
  });
};

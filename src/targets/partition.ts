/**
 * The partition function Z = E_q[P(x)/q(x)] from samples of any proposal, in log space (docs/math.md M9 to M11).
 *
 *   log Z = log mean_i exp(log P(x_i) - log q(x_i))
 *
 * A running estimate takes batches of any size and proposal; its rule says how much each of them counts.
 */

import { runtimeError, usageError } from "../base/errors.ts";
import { type Estimate, logMeanExp, logSumExp, meanEstimate, type Strata, sum } from "../base/numeric.ts";

/**
 * How batches add up to one estimate (docs/math.md M10):
 *
 *   cumulative  every sample so far with equal weight; unbiased. With checks of equal size, the authors' mean over checks.
 *   windowed    the same of the last `window` batches: forgets what was drawn from proposals long gone, and is noisier
 *   ess         each batch weighted by its effective sample size, so that one huge ratio counts n times less, n being the size
 *               of its batch; biased, upwards where few samples have mass
 */
export type PartitionRule =
  | { readonly rule: "cumulative" }
  | { readonly rule: "windowed"; readonly window: number }
  | { readonly rule: "ess" };

/** Sums over ratios R = P/q, in units of exp(logScale). */
interface RatioSums {
  /** Samples, those without mass among them. */
  readonly count: number;
  /** The largest log R; nats. */
  readonly logScale: number;
  /** sum of R exp(-logScale); 0 until a sample has P(x) > 0. */
  readonly sum: number;
  /** sum of R^2 exp(-2 logScale). */
  readonly sumSquares: number;
}

/** Sums over batches k of n samples, mean ratio Z_k and effective sample size e_k, in units of exp(logScale). */
interface WeightedSums {
  /** Samples, those of batches without mass among them. */
  readonly count: number;
  readonly logScale: number;
  /** sum of e_k. */
  readonly weight: number;
  /** sum of e_k Z_k. */
  readonly sum: number;
  /** sum of e_k Z_k^2: that of the squares of all ratios, each counted e_k/n times. */
  readonly sumSquares: number;
  /** sum of e_k^2 Var(Z_k). */
  readonly variance: number;
}

/** What a rule keeps of the batches so far. Finite numbers only: JSON keeps them exactly. Of bounded size. */
export type PartitionState =
  | ({ readonly rule: "cumulative" } & RatioSums)
  | { readonly rule: "windowed"; readonly window: number; readonly batches: readonly RatioSums[] }
  | ({ readonly rule: "ess" } & WeightedSums);

const nothing: RatioSums = { count: 0, logScale: 0, sum: 0, sumSquares: 0 };

/** @throws TiltError (usage) for a window that is not a whole number of batches */
export const emptyPartition = (rule: PartitionRule = { rule: "cumulative" }): PartitionState => {
  switch (rule.rule) {
    case "cumulative":
      return { rule: "cumulative", ...nothing };
    case "windowed":
      if (!(Number.isInteger(rule.window) && rule.window > 0)) {
        const fix = "give the number of latest batches to keep";
        throw usageError({ where: "partition", expected: "a window of at least 1 batch", got: `${rule.window}`, fix });
      }
      return { rule: "windowed", window: rule.window, batches: [] };
    case "ess":
      return { rule: "ess", ...nothing, weight: 0, variance: 0 };
  }
};

const checked = (logRatios: Float64Array): Float64Array => {
  const bad = logRatios.findIndex((value) => !(value < Number.POSITIVE_INFINITY));
  if (bad >= 0) {
    const fix = "check the log-probabilities: a sample must have q(x) > 0";
    throw runtimeError({
      where: "partition",
      expected: "log P(x) - log q(x) below infinity",
      got: `${logRatios[bad]} at sample ${bad}`,
      fix,
    });
  }
  return logRatios;
};

const noMass = (count: number, widen = "") =>
  runtimeError({
    where: "partition",
    expected: "at least one sample with P(x) > 0",
    got: `none in ${count}`,
    fix: `draw more samples, ${widen}or choose a less rare hard constraint`,
  });

type Scaled = Pick<RatioSums, "logScale" | "sum">;

/** The scale of sums when ratios as large as exp(logMax) join them. */
const joinedScale = (sums: Scaled, logMax: number): number => (sums.sum > 0 ? Math.max(sums.logScale, logMax) : logMax);

/** What sums are multiplied by to be in units of exp(logScale). */
const rescaling = (sums: Scaled, logScale: number): number => (sums.sum > 0 ? Math.exp(sums.logScale - logScale) : 0);

const withRatios = (sums: RatioSums, logRatios: Float64Array): RatioSums => {
  const count = sums.count + logRatios.length;
  const logMax = checked(logRatios).reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (logMax === Number.NEGATIVE_INFINITY) return { ...sums, count };
  const logScale = joinedScale(sums, logMax);
  const terms = logRatios.map((logRatio) => Math.exp(logRatio - logScale));
  const keep = rescaling(sums, logScale);
  return {
    count,
    logScale,
    sum: sums.sum * keep + sum(terms),
    sumSquares: sums.sumSquares * keep * keep + sum(terms.map((term) => term * term)),
  };
};

const pooled = (a: RatioSums, b: RatioSums): RatioSums => {
  const count = a.count + b.count;
  if (b.sum === 0) return { ...a, count };
  const logScale = joinedScale(a, b.logScale);
  const [keep, join] = [rescaling(a, logScale), rescaling(b, logScale)];
  return {
    count,
    logScale,
    sum: a.sum * keep + b.sum * join,
    sumSquares: a.sumSquares * keep * keep + b.sumSquares * join * join,
  };
};

const essOf = (sums: Pick<RatioSums, "sum" | "sumSquares">): number => (sums.sum * sums.sum) / sums.sumSquares;

/** Var(mean R)/(mean R)^2. */
const relativeVariance = (sums: RatioSums): number =>
  // Var(R)/mean(R)^2 = n/ess - 1 (divisor n); rounding may take it below zero when all ratios are equal.
  Math.max(0, sums.count / essOf(sums) - 1) / Math.max(1, sums.count - 1);

const withBatch = (sums: WeightedSums, batch: RatioSums): WeightedSums => {
  const count = sums.count + batch.count;
  if (batch.sum === 0) return { ...sums, count };
  const logScale = joinedScale(sums, batch.logScale);
  const keep = rescaling(sums, logScale);
  const ess = essOf(batch);
  const ratio = (batch.sum / batch.count) * rescaling(batch, logScale);
  return {
    count,
    logScale,
    weight: sums.weight + ess,
    sum: sums.sum * keep + ess * ratio,
    sumSquares: sums.sumSquares * keep * keep + ess * ratio ** 2,
    variance: sums.variance * keep * keep + (ess * ratio) ** 2 * relativeVariance(batch),
  };
};

/**
 * The state after another batch.
 * @param logRatios log P(x) - log q(x), q being the distribution that x was drawn from [B] nats; -Infinity where P(x) = 0
 * @throws TiltError (runtime) on NaN or +Infinity
 */
export const updatePartition = (state: PartitionState, logRatios: Float64Array): PartitionState => {
  switch (state.rule) {
    case "cumulative":
      return { rule: state.rule, ...withRatios(state, logRatios) };
    case "windowed":
      return { ...state, batches: [...state.batches, withRatios(nothing, logRatios)].slice(-state.window) };
    case "ess":
      return { rule: state.rule, ...withBatch(state, withRatios(nothing, logRatios)) };
  }
};

export interface PartitionEstimate {
  /** n counts all samples that the rule has not forgotten. */
  readonly logZ: Estimate;
  /** Effective sample size of the ratios, each counted as often as the estimate counts it: (sum R)^2 / sum R^2, samples. */
  readonly ess: number;
}

/**
 * log Z with its delta-method standard error, and the effective sample size.
 * @throws TiltError (runtime) while no sample that the rule keeps has P(x) > 0
 */
export const partitionEstimate = (state: PartitionState): PartitionEstimate => {
  const sums = state.rule === "windowed" ? state.batches.reduce(pooled, nothing) : state;
  if (sums.sum === 0) throw noMass(sums.count, state.rule === "windowed" ? "widen the window, " : "");
  const [weight, variance] =
    state.rule === "ess" ? [state.weight, state.variance / state.sum ** 2] : [sums.count, relativeVariance(sums)];
  return {
    logZ: { value: sums.logScale + Math.log(sums.sum / weight), stdError: Math.sqrt(variance), n: sums.count },
    ess: essOf(sums),
  };
};

/**
 * log Z from one set of samples.
 * @param strata where they come from the parts of a mixture, one part after the other
 * @throws TiltError (runtime) as the functions above
 */
export const logPartition = (logRatios: Float64Array, strata?: Strata): Estimate => {
  const { logZ } = partitionEstimate(updatePartition(emptyPartition(), logRatios));
  if (strata === undefined) return logZ;
  return {
    ...logZ,
    stdError: meanEstimate(
      logRatios.map((logRatio) => Math.exp(logRatio - logZ.value)),
      strata,
    ).stdError,
  };
};

/**
 * How many equally weighted samples the weights are worth: (sum w)^2 / sum w^2, with its delta-method standard error.
 * @param logWeights log w up to a constant [n] nats
 * @param strata     where the samples come from the parts of a mixture, one part after the other
 * @throws TiltError (runtime) if every weight is zero
 */
export const effectiveSampleSize = (logWeights: Float64Array, strata?: Strata): Estimate => {
  const n = logWeights.length;
  const logMean = logMeanExp(checked(logWeights));
  if (!(logMean > Number.NEGATIVE_INFINITY)) throw noMass(n);
  const value = Math.exp(2 * logSumExp(logWeights) - logSumExp(logWeights.map((logWeight) => 2 * logWeight)));
  const weights = logWeights.map((logWeight) => Math.exp(logWeight - logMean));
  const meanSquare = n / value;
  const influence = weights.map((w) => 2 * w - (w * w) / meanSquare);
  return { value, stdError: value * meanEstimate(influence, strata).stdError, n };
};

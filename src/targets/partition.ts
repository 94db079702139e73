/**
 * The partition function Z = E_q[P(x)/q(x)] from samples of any proposal, in log space (docs/math.md M9 to M11).
 *
 *   log Z = log mean_i exp(log P(x_i) - log q(x_i))
 *
 * The running estimate pools batches of any size and proposal with equal weight per sample.
 */

import { runtimeError } from "../base/errors.ts";
import { type Estimate, logMeanExp, logSumExp, meanEstimate, sum } from "../base/numeric.ts";

/** Sums over every ratio R = P/q so far, in units of exp(logScale). Finite numbers only: JSON keeps them exactly. */
export interface PartitionState {
  /** Samples so far. */
  readonly count: number;
  /** nats */
  readonly logScale: number;
  /** sum of R exp(-logScale); 0 until a sample has P(x) > 0. */
  readonly sum: number;
  /** sum of R^2 exp(-2 logScale). */
  readonly sumSquares: number;
}

export const emptyPartition: PartitionState = { count: 0, logScale: 0, sum: 0, sumSquares: 0 };

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

const noMass = (count: number) =>
  runtimeError({
    where: "partition",
    expected: "at least one sample with P(x) > 0",
    got: `none in ${count}`,
    fix: "draw more samples, or choose a less rare hard constraint",
  });

/**
 * The state after another batch.
 * @param logRatios log P(x) - log q(x), q being the distribution that x was drawn from [B] nats; -Infinity where P(x) = 0
 * @throws TiltError (runtime) on NaN or +Infinity
 */
export const updatePartition = (state: PartitionState, logRatios: Float64Array): PartitionState => {
  const count = state.count + logRatios.length;
  const batchMax = checked(logRatios).reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (batchMax === Number.NEGATIVE_INFINITY) return { ...state, count };
  const logScale = state.sum > 0 ? Math.max(state.logScale, batchMax) : batchMax;
  const terms = logRatios.map((logRatio) => Math.exp(logRatio - logScale));
  const keep = Math.exp(state.logScale - logScale);
  return {
    count,
    logScale,
    sum: (state.sum > 0 ? state.sum * keep : 0) + sum(terms),
    sumSquares: (state.sum > 0 ? state.sumSquares * keep * keep : 0) + sum(terms.map((term) => term * term)),
  };
};

export interface PartitionEstimate {
  readonly logZ: Estimate;
  /** Effective sample size (sum R)^2 / sum R^2, samples. */
  readonly ess: number;
}

/**
 * log Z with its delta-method standard error, and the effective sample size.
 * @throws TiltError (runtime) while no sample has had P(x) > 0; `state.sum > 0` tells
 */
export const partitionEstimate = ({ count, logScale, sum: total, sumSquares }: PartitionState): PartitionEstimate => {
  if (!(total > 0)) throw noMass(count);
  const ess = (total * total) / sumSquares;
  // Var(R)/mean(R)^2 = n/ess - 1 (divisor n); rounding may take it below zero when all ratios are equal.
  const relativeVariance = Math.max(0, count / ess - 1) / Math.max(1, count - 1);
  return { logZ: { value: logScale + Math.log(total / count), stdError: Math.sqrt(relativeVariance), n: count }, ess };
};

/** log Z from one set of samples. @throws TiltError (runtime) as the functions above */
export const logPartition = (logRatios: Float64Array): Estimate =>
  partitionEstimate(updatePartition(emptyPartition, logRatios)).logZ;

/**
 * How many equally weighted samples the weights are worth: (sum w)^2 / sum w^2, with its delta-method standard error.
 * @param logWeights log w up to a constant [n] nats
 * @throws TiltError (runtime) if every weight is zero
 */
export const effectiveSampleSize = (logWeights: Float64Array): Estimate => {
  const n = logWeights.length;
  const logMean = logMeanExp(checked(logWeights));
  if (!(logMean > Number.NEGATIVE_INFINITY)) throw noMass(n);
  const value = Math.exp(2 * logSumExp(logWeights) - logSumExp(logWeights.map((logWeight) => 2 * logWeight)));
  const weights = logWeights.map((logWeight) => Math.exp(logWeight - logMean));
  const meanSquare = n / value;
  return { value, stdError: value * meanEstimate(weights.map((w) => 2 * w - (w * w) / meanSquare)).stdError, n };
};

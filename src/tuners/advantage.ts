/**
 * Baselines and advantages that are worked out on the host, in float64, from a whole batch (docs/math.md M41, M44).
 * What is subtracted from the reward of a sample must not depend on that sample, or the update is biased; each function says whether it does.
 */

import { mean, sum, variance } from "../base/numeric.ts";

/** none: 0. mean: the batch's mean, the sample's own reward included, which shrinks the update by 1 - 1/n and does not turn it. leave-one-out: of the others. */
export type BatchBaseline = "none" | "mean" | "leave-one-out";

const baselines: Readonly<Record<BatchBaseline, (rewards: Float64Array) => Float64Array>> = {
  none: (rewards) => new Float64Array(rewards.length),
  mean: (rewards) => new Float64Array(rewards.length).fill(mean(rewards)),
  "leave-one-out": (rewards) => {
    const total = sum(rewards);
    return rewards.map((reward) => (rewards.length < 2 ? 0 : (total - reward) / (rewards.length - 1)));
  },
};

/** B of each sample [B], in units of the reward. */
export const batchBaseline = (name: BatchBaseline, rewards: Float64Array): Float64Array => baselines[name](rewards);

/** Small against any spread that means something; keeps equal rewards from a division by zero. */
const epsilon = 1e-8;

/** (values - mean) / sd over all of them: mean 0, variance 1. */
export const standardize = (values: Float64Array): Float64Array => {
  const centre = mean(values);
  const deviation = Math.sqrt(variance(values) + epsilon);
  return values.map((value) => (value - centre) / deviation);
};

/** GRPO's advantage of a group of texts of one prompt (arXiv 2402.03300): r - mean, over the standard deviation or not (arXiv 2503.20783). */
export const groupAdvantage = (rewards: Float64Array, scaleByDeviation: boolean): Float64Array => {
  if (scaleByDeviation) return standardize(rewards);
  const centre = mean(rewards);
  return rewards.map((reward) => reward - centre);
};

export interface TokenAdvantages {
  /** A_t [T] */
  readonly advantages: Float64Array;
  /** A_t + V_t, what the value head should have said [T]. */
  readonly returns: Float64Array;
}

/**
 * Generalised advantage estimation of one sequence (arXiv 1506.02438), with nothing to come after its last token:
 *
 *   delta_t = r_t + discount V_{t+1} - V_t        A_t = delta_t + discount lambda A_{t+1}
 *
 * @param rewards r_t [T]
 * @param values  V_t, before each token [T]
 * @param lambda  0: A_t = delta_t; 1: the discounted sum of rewards from t on, less V_t
 */
export const generalizedAdvantages = (
  rewards: ArrayLike<number>,
  values: ArrayLike<number>,
  discount: number,
  lambda: number,
): TokenAdvantages => {
  const T = rewards.length;
  const advantages = new Float64Array(T);
  for (let t = T - 1; t >= 0; t--) {
    const delta = rewards[t]! + (t + 1 < T ? discount * values[t + 1]! : 0) - values[t]!;
    advantages[t] = delta + (t + 1 < T ? discount * lambda * advantages[t + 1]! : 0);
  }
  return { advantages, returns: advantages.map((advantage, t) => advantage + values[t]!) };
};

/** How much of the variance of the returns the values explain: 1 is all, 0 is no more than a constant would. 0 where the returns do not vary. */
export const explainedVariance = (returns: Float64Array, values: Float64Array): number => {
  const spread = variance(returns);
  return spread === 0 ? 0 : 1 - variance(returns.map((value, i) => value - values[i]!)) / spread;
};

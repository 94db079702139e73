/**
 * Float64 numerics in log space, and estimates with standard errors.
 * Everything built from log-probabilities is accumulated here, in nats.
 */

/** An estimated number: its value, the standard error of that value, and how many samples it rests on. */
export interface Estimate {
  readonly value: number;
  readonly stdError: number;
  readonly n: number;
}

/** Sum without the loss of low-order bits (Neumaier's compensated summation). */
export const sum = (values: ArrayLike<number>): number => {
  let total = 0;
  let compensation = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    const next = total + value;
    compensation += Math.abs(total) >= Math.abs(value) ? total - next + value : value - next + total;
    total = next;
  }
  return Number.isFinite(compensation) ? total + compensation : total;
};

/** log sum_i exp(values_i); -Infinity when empty or when every term is zero. */
export const logSumExp = (values: ArrayLike<number>): number => {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) if (values[i]! > max) max = values[i]!;
  if (!Number.isFinite(max)) return max;
  const terms = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) terms[i] = Math.exp(values[i]! - max);
  return max + Math.log(sum(terms));
};

/** log of the mean of exp(values_i). */
export const logMeanExp = (values: ArrayLike<number>): number => logSumExp(values) - Math.log(values.length);

export const mean = (values: ArrayLike<number>): number => sum(values) / values.length;

/** Unbiased sample variance (divisor n - 1); 0 for fewer than two values. */
export const variance = (values: ArrayLike<number>): number => {
  if (values.length < 2) return 0;
  const centre = mean(values);
  return sum(Float64Array.from(values, (value) => (value - centre) ** 2)) / (values.length - 1);
};

/** How many samples came from each part of a mixture, one part after the other: n_k, in fixed numbers. */
export type Strata = readonly number[];

/** sum_k n_k Var_k: what lies between the parts is no noise. */
const stratifiedVariance = (values: ArrayLike<number>, strata: Strata): number => {
  let start = 0;
  return sum(
    strata.map((count) => {
      const part = Array.from({ length: count }, (_, i) => values[start + i]!);
      start += count;
      return count * variance(part);
    }),
  );
};

/** The mean of independent values, with its standard error. @param strata where they come from the parts of a mixture */
export const meanEstimate = (values: ArrayLike<number>, strata?: Strata): Estimate => ({
  value: mean(values),
  stdError:
    strata === undefined
      ? Math.sqrt(variance(values) / values.length)
      : Math.sqrt(stratifiedVariance(values, strata)) / values.length,
  n: values.length,
});

/** a * b, where 0 * anything is 0: the convention 0 log 0 = 0. */
export const timesOrZero = (a: number, b: number): number => (a === 0 ? 0 : a * b);

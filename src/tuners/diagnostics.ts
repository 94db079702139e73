/**
 * How noisy a gradient is, from the gradients g_i of single samples (docs/math.md M47):
 *
 *   variance      tr Cov(g)           = ( sum |g_i|^2 - |S|^2/m ) / (m - 1),     S = sum g_i
 *   squared norm  |E g|^2             = ( |S|^2 - sum |g_i|^2 ) / (m (m - 1)),   unbiased, so it may come out below 0
 *   signal to noise                     the second over the first
 *
 * Everything follows from |g_i|^2 and g_i . S, two numbers a sample: no gradient is ever kept. Standard errors are the jackknife's,
 * which needs no more than these.
 */

import { type Estimate, meanEstimate, sum } from "../base/numeric.ts";
import type { HostTensor } from "../base/tensor.ts";
import { disposeAll } from "../engine/runtime/device.ts";
import type { DeviceTensors } from "../optim/adam.ts";

export interface GradientDiagnostics {
  /** Trace of the covariance of one sample's gradient. */
  readonly gradientVariance: Estimate;
  /** Squared norm of the mean gradient. */
  readonly gradientSquaredNorm: Estimate;
  /** Squared norm over variance: of one sample. That of a batch is larger by its size. */
  readonly gradientSignalToNoise: Estimate;
  readonly advantageMean?: Estimate;
  readonly advantageMeanAbs?: Estimate;
  /** With the error that it has for independent samples of any distribution. */
  readonly advantageVariance?: Estimate;
}

/** Statistics of m gradients from their squared norms, their products with the sum, and the sum's own squared norm. */
const statistics = (squaredNorms: number, squaredSum: number, m: number) => {
  const variance = (squaredNorms - squaredSum / m) / (m - 1);
  const squaredNorm = (squaredSum - squaredNorms) / (m * (m - 1));
  return { variance, squaredNorm, signalToNoise: variance > 0 ? squaredNorm / variance : 0 };
};

/**
 * The estimates from what is known of m >= 3 gradients.
 * @param squaredNorms |g_i|^2 [m]
 * @param dots         g_i . S [m]
 */
export const gradientStatistics = (squaredNorms: Float64Array, dots: Float64Array) => {
  const m = squaredNorms.length;
  if (m < 3) throw new RangeError(`gradient diagnostics: expected at least 3 samples, got ${m}`);
  const total = sum(squaredNorms);
  const squaredSum = sum(dots);
  const all = statistics(total, squaredSum, m);
  // |S - g_i|^2 = |S|^2 - 2 g_i . S + |g_i|^2
  const without = Array.from(squaredNorms, (square, i) => statistics(total - square, squaredSum - 2 * dots[i]! + square, m - 1));
  const estimate = (pick: (one: typeof all) => number): Estimate => {
    const { stdError } = meanEstimate(without.map(pick));
    return { value: pick(all), stdError: (m - 1) * stdError, n: m };
  };
  return {
    gradientVariance: estimate((one) => one.variance),
    gradientSquaredNorm: estimate((one) => one.squaredNorm),
    gradientSignalToNoise: estimate((one) => one.signalToNoise),
  };
};

/** The variance of independent values with the standard error that their fourth moment gives. */
const varianceEstimate = (values: Float64Array): Estimate => {
  const centre = meanEstimate(values).value;
  const squares = values.map((value) => (value - centre) ** 2);
  const { value, stdError, n } = meanEstimate(squares);
  return { value: (value * n) / (n - 1), stdError, n };
};

type Pass = (
  b: number,
  sofar: DeviceTensors,
) => Promise<{ readonly gradients: DeviceTensors; readonly outputs: Readonly<Record<string, HostTensor>> }>;

/**
 * Two passes over the first `count` samples, one by one: the first adds the gradients up, the second multiplies each with the sum.
 * @param zeros where adding up begins; given back
 * @param pass  accumulates the gradient of sample b onto `sofar`, with the outputs `squaredNorm` and `dot`
 */
export const gradientDiagnostics = async (count: number, zeros: DeviceTensors, pass: Pass): Promise<GradientDiagnostics> => {
  const squaredNorms = new Float64Array(count);
  const dots = new Float64Array(count);
  const advantages: number[] = [];
  let total = zeros;
  for (let b = 0; b < count; b++) {
    const { gradients, outputs } = await pass(b, total);
    disposeAll(total);
    total = gradients;
    squaredNorms[b] = outputs["squaredNorm"]!.data[0]!;
    if (outputs["advantage"] !== undefined) advantages.push(outputs["advantage"].data[0]!);
  }
  for (let b = 0; b < count; b++) {
    const { gradients, outputs } = await pass(b, total);
    disposeAll(gradients);
    dots[b] = outputs["dot"]!.data[0]!;
  }
  disposeAll(total);
  const list = Float64Array.from(advantages);
  return {
    ...gradientStatistics(squaredNorms, dots),
    ...(list.length === 0
      ? {}
      : {
          advantageMean: meanEstimate(list),
          advantageMeanAbs: meanEstimate(list.map(Math.abs)),
          advantageVariance: varianceEstimate(list),
        }),
  };
};

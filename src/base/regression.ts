/** Least squares from its normal equations, and logistic regression on a few features. */

import { createPauses } from "./pause.ts";

/** Of the residual's norm to that of the right side: far below what the data of a regression determine. */
const tolerance = 1e-9;

/**
 * Minimises w . A w - 2 w . b + penalty sum_k A_kk w_k^2 by conjugate gradients, scaled by the diagonal: ridge regression on features of size 1,
 * whatever their scale is. Gives way to other work on the way.
 * @param gram    A = X^T X, row-major [n, n]; a feature that is always 0 gets no coefficient
 * @param moment  b = X^T y [n]
 * @param penalty of each feature [n], as a share of its own A_kk
 * @returns w [n]; after n iterations at most, where rounding left less than the tolerance to gain or not
 */
export const ridge = async (gram: Float64Array, moment: Float64Array, penalty: Float64Array): Promise<Float64Array> => {
  const n = moment.length;
  const pause = createPauses();
  const diagonal = Float64Array.from(moment, (_, k) => gram[k * n + k]!);
  const dot = (a: Float64Array, b: Float64Array): number => {
    let total = 0;
    for (let k = 0; k < n; k++) total += a[k]! * b[k]!;
    return total;
  };
  const scaled = (vector: Float64Array): Float64Array =>
    vector.map((value, k) => (diagonal[k] === 0 ? 0 : value / (diagonal[k]! * (1 + penalty[k]!))));
  const solution = new Float64Array(n);
  const residual = moment.map((value, k) => (diagonal[k] === 0 ? 0 : value));
  const enough = tolerance ** 2 * dot(residual, scaled(residual));
  let direction = scaled(residual);
  let left = dot(residual, direction);
  for (let iteration = 0; iteration < n && left > enough; iteration++) {
    const image = direction.map((value, i) => {
      let total = penalty[i]! * diagonal[i]! * value;
      for (let k = 0; k < n; k++) total += gram[i * n + k]! * direction[k]!;
      return total;
    });
    const step = left / dot(direction, image);
    for (let k = 0; k < n; k++) {
      solution[k]! += step * direction[k]!;
      residual[k]! -= step * image[k]!;
    }
    const next = scaled(residual);
    const remaining = dot(residual, next);
    direction = next.map((value, k) => value + (remaining / left) * direction[k]!);
    left = remaining;
    await pause();
  }
  return solution;
};

const logistic = (z: number): number => 1 / (1 + Math.exp(-z));

/** Far above what it takes from 0: the loss is convex, and each step doubles the digits. */
const newtonSteps = 50;

/**
 * Minimises the mean cross-entropy of wishes between 0 and 1 and logistic(w . x), by Newton's method with halved steps where a whole one would not
 * lower it. What it says is right in the mean: sum (wish - logistic) x = 0 for each feature.
 * @param features rows of n numbers, one row after the other
 * @param wishes   one per row, 0 to 1
 * @returns w [n]; from features that tell wishes apart without fault, large but finite
 */
export const logisticRegression = async (features: Float64Array, wishes: Float64Array, n: number): Promise<Float64Array> => {
  const score = (w: Float64Array, row: number): number => {
    let total = 0;
    for (let k = 0; k < n; k++) total += w[k]! * features[row * n + k]!;
    return total;
  };
  // log(1 + e^z) - wish z, without overflow.
  const loss = (w: Float64Array): number => {
    let total = 0;
    for (let row = 0; row < wishes.length; row++) {
      const z = score(w, row);
      total += Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - wishes[row]! * z;
    }
    return total / wishes.length;
  };
  let w: Float64Array = new Float64Array(n);
  let best = loss(w);
  for (let step = 0; step < newtonSteps; step++) {
    const slope = new Float64Array(n);
    const curvature = new Float64Array(n * n);
    for (let row = 0; row < wishes.length; row++) {
      const p = logistic(score(w, row));
      for (let i = 0; i < n; i++) {
        const x = features[row * n + i]!;
        slope[i]! += (wishes[row]! - p) * x;
        for (let k = 0; k < n; k++) curvature[i * n + k]! += p * (1 - p) * x * features[row * n + k]!;
      }
    }
    const direction = await ridge(curvature, slope, new Float64Array(n).fill(1e-9));
    const at = (share: number): Float64Array => w.map((value, k) => value + share * direction[k]!);
    let size = 1;
    let next = at(size);
    let found = loss(next);
    // NaN, from a curvature that has vanished, is no improvement either.
    while (size > 1e-6 && !(found < best)) {
      size /= 2;
      next = at(size);
      found = loss(next);
    }
    if (!(found < best - 1e-12)) break;
    w = next;
    best = found;
  }
  return w;
};

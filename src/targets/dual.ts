/**
 * Coefficients of an exponential tilt by Newton's method on the convex dual (docs/math.md M3, M4, M6):
 *
 *   minimise  D(lambda) = log sum_c m_c exp(lambda . (phi_c - mu))
 *
 * over cells c: the distinct feature vectors phi_c that were seen, with masses m_c. Its gradient is E_w[phi] - mu and its
 * Hessian Cov_w(phi), with w_c proportional to m_c exp(lambda . phi_c). Everything stays in log space.
 */

import { logSumExp } from "../base/numeric.ts";
import { dot, type Eigen, symmetricEigen } from "./eigen.ts";

export interface DualProblem {
  /** log m_c [C]; all finite, of any scale. */
  readonly logMasses: Float64Array;
  /** phi_c [C][S]. */
  readonly points: readonly Float64Array[];
  /** mu [S]. */
  readonly moments: Float64Array;
}

const maxIterations = 500;
/** Directions in which the cells spread less than this (as a share of the largest variance) are taken as dependent. */
const rankFloor = 1e-10;

const largest = (values: Float64Array): number => values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
const smallest = (values: Float64Array): number => values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);

/** sum_c weight_c point_c point_c^T, row-major [n, n]. */
const secondMoments = (points: readonly Float64Array[], weights: Float64Array, n: number): Float64Array => {
  const matrix = new Float64Array(n * n);
  for (const [c, point] of points.entries()) {
    const weight = weights[c]!;
    if (weight === 0) continue;
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) matrix[i * n + j]! += weight * point[i]! * point[j]!;
  }
  return matrix;
};

/**
 * The cells in coordinates where they have unit variance in every direction and mu is the origin, dependent directions left
 * out, with the map back to coefficients. Undefined where mu is outside the affine hull of the cells.
 */
const whiten = ({ points, moments }: DualProblem) => {
  const S = moments.length;
  const C = points.length;
  const centre = Float64Array.from(moments, (_, j) => points.reduce((total, point) => total + point[j]!, 0) / C);
  const column = (j: number) => Float64Array.from(points, (point) => point[j]!);
  const scale = Float64Array.from(centre, (_, j) => largest(column(j)) - smallest(column(j)) || 1);
  const standardise = (point: Float64Array) => point.map((value, j) => (value - centre[j]!) / scale[j]!);
  const standard = points.map(standardise);
  const { values, vectors } = symmetricEigen(secondMoments(standard, new Float64Array(C).fill(1 / C), S), S);
  const floor = rankFloor * largest(values);
  const kept = vectors.flatMap((vector, k) => (values[k]! > floor ? [{ vector, spread: Math.sqrt(values[k]!) }] : []));
  const target = standardise(moments);
  const outside = Float64Array.from(target);
  for (const { vector } of kept) for (let j = 0; j < S; j++) outside[j]! -= dot(vector, target) * vector[j]!;
  // Decimal moments such as 0.1 + 0.2 and 0.3 differ by rounding only: 1e-9 of a feature's range is far above it.
  if (outside.some((rest) => Math.abs(rest) > 1e-9)) return undefined;
  const coordinates = (point: Float64Array) => Float64Array.from(kept, ({ vector, spread }) => dot(vector, point) / spread);
  const origin = coordinates(target);
  return {
    offsets: standard.map((point) => coordinates(point).map((value, r) => value - origin[r]!)),
    rank: kept.length,
    coefficients: (eta: Float64Array): Float64Array =>
      Float64Array.from(
        scale,
        (unit, j) => kept.reduce((total, { vector, spread }, r) => total + (vector[j]! * eta[r]!) / spread, 0) / unit,
      ),
  };
};

/** -H^-1 g, curvature below rounding counted as rounding: where all weight is on one cell, the slope still points the way. */
const newtonStep = ({ values, vectors }: Eigen, gradient: Float64Array): Float64Array => {
  const floor = Math.max(1e-15 * largest(values), 1e-200);
  const step = new Float64Array(gradient.length);
  for (const [k, vector] of vectors.entries()) {
    const size = -dot(vector, gradient) / Math.max(values[k]!, floor);
    for (let r = 0; r < step.length; r++) step[r]! += size * vector[r]!;
  }
  return step;
};

/**
 * The minimiser lambda [S]; the one of least norm (features in units of their range) where features depend on each other.
 *
 * @returns undefined where there is no finite one: no reweighting of the cells that keeps each of them has these moments (mu is
 *   outside the convex hull of the cells, or on its edge)
 */
export const solveDual = (problem: DualProblem): Float64Array | undefined => {
  if (problem.points.length === 0) return undefined;
  const space = whiten(problem);
  if (space === undefined) return undefined;
  const { offsets, rank, coefficients } = space;
  const logMassTotal = logSumExp(problem.logMasses);
  const logMasses = problem.logMasses.map((logMass) => logMass - logMassTotal);
  const along = (direction: Float64Array): Float64Array => Float64Array.from(offsets, (offset) => dot(direction, offset));

  let eta: Float64Array = new Float64Array(rank);
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const logTerms = along(eta).map((exponent, c) => logMasses[c]! + exponent);
    const dual = logSumExp(logTerms);
    const weights = logTerms.map((logTerm) => Math.exp(logTerm - dual));
    const gradient = Float64Array.from(eta, (_, r) => offsets.reduce((total, offset, c) => total + weights[c]! * offset[r]!, 0));
    const centred = offsets.map((offset) => offset.map((value, r) => value - gradient[r]!));
    const downhill = newtonStep(symmetricEigen(secondMoments(centred, weights, rank), rank), gradient);
    const moves = along(downhill);
    const [rise, fall] = [largest(moves), -smallest(moves)];
    // No log-weight moves any more. One last full step: convergence is quadratic, so it ends at rounding.
    if (!(Math.max(rise, fall) > 1e-8)) return coefficients(eta.map((value, r) => value + downhill[r]!));
    // A direction along which no cell gains: D falls along it for ever, so there is no minimum. That proves mu is outside the
    // hull, or within 1e-8 of its edge (relative to the cells' extent).
    if (rise <= 1e-8 * fall) return undefined;
    // No weight may grow by more than e^20 in one step, so that a nearly flat D is not left for the far side.
    const scale = Math.min(1, 20 / rise);
    const step = downhill.map((value) => value * scale);
    const slope = dot(gradient, step);
    let accepted: Float64Array | undefined;
    for (let size = 1; size > 1e-12 && accepted === undefined; size /= 2) {
      const trial = eta.map((value, r) => value + size * step[r]!);
      const value = logSumExp(along(trial).map((exponent, c) => logMasses[c]! + exponent));
      // The slack is rounding: near the minimum D no longer tells better from worse.
      if (value <= dual + 1e-4 * size * slope + 1e-14 * (1 + Math.abs(dual))) accepted = trial;
    }
    if (accepted === undefined) return undefined;
    eta = accepted;
  }
  return undefined;
};

/** Eigenvalues and eigenvectors of a small symmetric matrix, by Jacobi's rotations. */

export interface Eigen {
  /** [n], in no order. */
  readonly values: Float64Array;
  /** vectors[k] belongs to values[k]; orthonormal. */
  readonly vectors: readonly Float64Array[];
}

/** @param matrix symmetric, row-major [n, n]; left as it is */
export const symmetricEigen = (matrix: Float64Array, n: number): Eigen => {
  const a = Float64Array.from(matrix);
  const vectors = Array.from({ length: n }, (_, k) => Float64Array.from({ length: n }, (_, i) => (i === k ? 1 : 0)));
  // Each sweep squares the off-diagonal's size once it is small: 8 sweeps are usual, 60 are never reached.
  for (let sweep = 0; sweep < 60; sweep++) {
    let rotated = false;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const apq = a[p * n + q]!;
        const app = a[p * n + p]!;
        const aqq = a[q * n + q]!;
        if (apq === 0 || Math.abs(apq) < 1e-17 * Math.sqrt(Math.abs(app * aqq))) continue;
        rotated = true;
        const theta = (aqq - app) / (2 * apq);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1);
        const s = t * c;
        for (let i = 0; i < n; i++) {
          const [x, y] = [a[i * n + p]!, a[i * n + q]!];
          a[i * n + p] = c * x - s * y;
          a[i * n + q] = s * x + c * y;
        }
        for (let i = 0; i < n; i++) {
          const [x, y] = [a[p * n + i]!, a[q * n + i]!];
          a[p * n + i] = c * x - s * y;
          a[q * n + i] = s * x + c * y;
        }
        const [vp, vq] = [vectors[p]!, vectors[q]!];
        for (let i = 0; i < n; i++) {
          const [x, y] = [vp[i]!, vq[i]!];
          vp[i] = c * x - s * y;
          vq[i] = s * x + c * y;
        }
      }
    }
    if (!rotated) break;
  }
  return { values: Float64Array.from({ length: n }, (_, i) => a[i * n + i]!), vectors };
};

/** sum_i a_i b_i */
export const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
};

/** A+ y, the pseudo-inverse: directions with an eigenvalue of at most `relativeFloor` times the largest count as none. */
export const pseudoSolve = ({ values, vectors }: Eigen, y: Float64Array, relativeFloor: number): Float64Array => {
  const floor = relativeFloor * Math.max(0, ...values);
  const solution = new Float64Array(y.length);
  for (const [k, vector] of vectors.entries()) {
    if (values[k]! <= floor) continue;
    const along = dot(vector, y) / values[k]!;
    for (let i = 0; i < y.length; i++) solution[i]! += along * vector[i]!;
  }
  return solution;
};

import fc from "fast-check";
import { expect, test } from "vitest";
import { solveDual } from "./dual.ts";
import { dot, pseudoSolve, symmetricEigen } from "./eigen.ts";

const solve = (points: readonly (readonly number[])[], masses: readonly number[], moments: readonly number[]) =>
  solveDual({
    points: points.map((point) => Float64Array.from(point)),
    logMasses: Float64Array.from(masses, Math.log),
    moments: Float64Array.from(moments),
  });

/** The moments of the tilted cells. */
const tilted = (points: readonly (readonly number[])[], masses: readonly number[], coefficients: Float64Array): number[] => {
  const exponents = points.map((point) => dot(point, coefficients));
  const max = Math.max(...exponents);
  const weights = masses.map((mass, c) => mass * Math.exp(exponents[c]! - max));
  const total = weights.reduce((a, b) => a + b);
  return points[0]!.map((_, j) => points.reduce((sum, point, c) => sum + (weights[c]! / total) * point[j]!, 0));
};

const exclusive = [
  [0, 0],
  [1, 0],
  [0, 1],
] as const;

test("eigenvectors rebuild the matrix", () => {
  const matrix = Float64Array.of(4, 1, -2, 1, 3, 0.5, -2, 0.5, 1);
  const { values, vectors } = symmetricEigen(matrix, 3);
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 3; j++) {
      const rebuilt = vectors.reduce((total, vector, k) => total + values[k]! * vector[i]! * vector[j]!, 0);
      // A dozen rotations of entries up to 4: rounding stays near 12 * 4 * 2^-53.
      expect(Math.abs(rebuilt - matrix[i * 3 + j]!)).toBeLessThan(1e-14);
    }
  }
});

test("the pseudo-inverse leaves null directions alone", () => {
  const solution = pseudoSolve(symmetricEigen(Float64Array.of(1, 1, 1, 1), 2), Float64Array.of(4, 2), 1e-12);
  // [[1, 1], [1, 1]] has the inverse [[1/4, 1/4], [1/4, 1/4]] on its range; 1e-14 is rounding of a few operations.
  for (const value of solution) expect(Math.abs(value - 1.5)).toBeLessThan(1e-14);
});

test("dependent features share the least-norm coefficients", () => {
  const [first, second] = solve(
    [
      [0, 0],
      [1, 1],
    ],
    [0.9, 0.1],
    [0.5, 0.5],
  )!;
  // Together they must be log odds ln 9; 1e-12 is Newton's end at rounding.
  expect(Math.abs(first! - Math.log(9) / 2)).toBeLessThan(1e-12);
  expect(Math.abs(second! - Math.log(9) / 2)).toBeLessThan(1e-12);
});

test.each<[string, readonly (readonly number[])[], readonly number[]]>([
  [
    "a copy with another moment",
    [
      [0, 0],
      [1, 1],
    ],
    [0.5, 0.4],
  ],
  ["the edge of the hull", exclusive, [0.5, 0.5]],
  ["just outside", exclusive, [0.5, 0.5 + 1e-7]],
  ["far outside", exclusive, [0.9, 0.9]],
  ["a corner", exclusive, [1, 0]],
  ["below a range", [[1], [2], [40]], [0.99]],
  ["one cell", [[1, 1]], [0.5, 1]],
])("there is no solution at %s", (_, points, moments) => {
  expect(
    solve(
      points,
      points.map(() => 1),
      moments,
    ),
  ).toBeUndefined();
});

test("there is no solution without cells, and nothing to solve without features", () => {
  expect(solve([], [], [0.5])).toBeUndefined();
  expect(solve([[], []], [0.5, 0.5], [])).toEqual(new Float64Array(0));
});

test("a solution is found close to the edge, far from the base and among outliers", () => {
  const close = [0.5, 0.5 - 1e-5];
  const cases: [readonly (readonly number[])[], number[], number[]][] = [
    [exclusive, [0.3, 0.4, 0.3], close],
    [[[0], [1]], [1, 1e-12], [0.5]],
    [[[0], [1], [2], [1e6]], [0.5, 0.3, 0.2, 1e-4], [0.5]],
  ];
  for (const [points, masses, moments] of cases) {
    const found = tilted(points, masses, solve(points, masses, moments)!);
    // 1e-15 of the range of the features is what float64 leaves of a mean: 1e-9 for the outlier at 1e6.
    for (const [j, moment] of moments.entries())
      expect(Math.abs(found[j]! - moment)).toBeLessThan(points.length === 4 ? 1e-9 : 1e-12);
  }
});

const cells = fc.integer({ min: 1, max: 4 }).chain((S) =>
  fc.record({
    points: fc.uniqueArray(fc.array(fc.integer({ min: -3, max: 3 }), { minLength: S, maxLength: S }), {
      minLength: 1,
      maxLength: 12,
      selector: (point) => point.join(),
    }),
    seeds: fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 24, maxLength: 24 }),
    direction: fc.array(fc.integer({ min: -5, max: 5 }), { minLength: S, maxLength: S }),
  }),
);

test("any moments inside the hull are met, on random cells with dependent features", () => {
  fc.assert(
    fc.property(cells, ({ points, seeds }) => {
      const masses = points.map((_, c) => seeds[c]!);
      const mixture = points.map((_, c) => seeds[12 + c]!);
      const total = mixture.reduce((a, b) => a + b);
      const moments = points[0]!.map((_, j) => points.reduce((sum, point, c) => sum + (mixture[c]! / total) * point[j]!, 0));
      const found = tilted(points, masses, solve(points, masses, moments)!);
      // Mixtures keep at least 1/12000 of every cell, so the Hessian is no worse than about 1e-4; 1e-10 leaves room for it.
      for (const [j, moment] of moments.entries()) expect(Math.abs(found[j]! - moment)).toBeLessThan(1e-10);
    }),
  );
});

test("no moments outside the hull are met", () => {
  fc.assert(
    fc.property(cells, ({ points, seeds, direction }) => {
      fc.pre(direction.some((value) => value !== 0));
      // Beyond the farthest cell in some direction, by 0.1 of that direction's length.
      const farthest = points.reduce((a, b) => (dot(a, direction) > dot(b, direction) ? a : b));
      const moments = farthest.map((value, j) => value + (0.1 * direction[j]!) / Math.hypot(...direction));
      expect(
        solve(
          points,
          points.map((_, c) => seeds[c]!),
          moments,
        ),
      ).toBeUndefined();
    }),
  );
});

import { describe, expect, test } from "vitest";
import { keyOf, streamOf } from "./random.ts";
import { logisticRegression, ridge } from "./regression.ts";

const stream = streamOf(keyOf(1, "least squares"), 0);
const normal = (): number => {
  let total = -6;
  for (let i = 0; i < 12; i++) total += stream.uniform();
  return total;
};
const rows = 40;
/** Features of very different scales, and the constant. */
const features = Array.from({ length: rows }, () => [1000 * normal(), normal(), 0.01 * normal() + 0.05, 1]);
const truth = [0.002, -1.5, 30, 0.7];
const normalEquations = (lists: readonly (readonly number[])[], wanted: readonly number[]) => {
  const n = lists[0]!.length;
  const gram = new Float64Array(n * n);
  const moment = new Float64Array(n);
  for (const [r, row] of lists.entries()) {
    for (let i = 0; i < n; i++) {
      moment[i]! += row[i]! * wanted[r]!;
      for (let k = 0; k < n; k++) gram[i * n + k]! += row[i]! * row[k]!;
    }
  }
  return { gram, moment };
};
const predicted = (row: readonly number[], w: ArrayLike<number>): number =>
  row.reduce((total, value, k) => total + value * w[k]!, 0);

test("finds the coefficients that made the data, whatever the scales", async () => {
  const { gram, moment } = normalEquations(
    features,
    features.map((row) => predicted(row, truth)),
  );
  const found = await ridge(gram, moment, new Float64Array(4));
  // The tolerance, times the condition of the scaled equations (below 100).
  for (const [k, value] of truth.entries()) expect(found[k]! / value).toBeCloseTo(1, 6);
});

test("solves its own equation with a penalty, which leaves the constant alone", async () => {
  const wanted = features.map((row) => predicted(row, truth) + normal());
  const { gram, moment } = normalEquations(features, wanted);
  const penalty = Float64Array.of(0.5, 0.5, 0.5, 0);
  const found = await ridge(gram, moment, penalty);
  for (let i = 0; i < 4; i++) {
    const left = predicted([...gram.subarray(4 * i, 4 * i + 4)], found) + penalty[i]! * gram[5 * i]! * found[i]! - moment[i]!;
    expect(Math.abs(left)).toBeLessThan(1e-6 * Math.sqrt(gram[5 * i]!));
  }
  const free = await ridge(gram, moment, new Float64Array(4));
  expect(Math.abs(found[1]!)).toBeLessThan(Math.abs(free[1]!));
});

test("a feature that is always 0 gets no coefficient, and two that are the same share one", async () => {
  const lists = features.map(([, x]) => [x!, 0, x!]);
  const { gram, moment } = normalEquations(
    lists,
    lists.map(([x]) => 3 * x!),
  );
  const found = await ridge(gram, moment, Float64Array.of(0, 0, 0));
  expect(found[1]).toBe(0);
  expect(found[0]).toBeCloseTo(1.5, 9);
  expect(found[2]).toBeCloseTo(1.5, 9);
});

test("nothing to explain: all 0", async () => {
  const { gram, moment } = normalEquations(
    features,
    features.map(() => 0),
  );
  expect([...(await ridge(gram, moment, new Float64Array(4)))]).toEqual([0, 0, 0, 0]);
});

describe("logistic regression", () => {
  const count = 400;
  const weights = [1.5, -2];
  const list = Array.from({ length: count }, () => [normal(), 1]);
  const flat = Float64Array.from(list.flat());
  const chances = Float64Array.from(list, (row) => 1 / (1 + Math.exp(-predicted(row, weights))));

  test("finds the coefficients behind chances", async () => {
    const found = await logisticRegression(flat, chances, 2);
    // It stops where a step gains less than 1e-12 of the loss, which is quadratic around its minimum.
    for (const [k, value] of weights.entries()) expect(found[k]).toBeCloseTo(value, 4);
  });

  test("what it says of rare things that are or are not is right in the mean, by each feature", async () => {
    const wishes = chances.map((chance) => Number(stream.uniform() < chance / 5));
    const found = await logisticRegression(flat, wishes, 2);
    for (const k of [0, 1]) {
      const left = list.reduce((total, row, r) => total + (wishes[r]! - 1 / (1 + Math.exp(-predicted(row, found)))) * row[k]!, 0);
      expect(Math.abs(left) / count).toBeLessThan(1e-5);
    }
  });

  test("ends with numbers where wishes can be told apart without fault, or are all alike", async () => {
    const parted = await logisticRegression(
      flat,
      Float64Array.from(list, ([x]) => Number(x! > 0)),
      2,
    );
    expect(parted[0]).toBeGreaterThan(5);
    for (const value of [...parted, ...(await logisticRegression(flat, new Float64Array(count), 2))])
      expect(value).toSatisfy(Number.isFinite);
  });
});

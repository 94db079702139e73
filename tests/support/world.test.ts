import { expect, test } from "vitest";
import { logSumExp } from "../../src/base/numeric.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { createWorld, drawSequences, gradLogProb, logProb, logProbs, prefixIndex, prefixRows, randomTable } from "./world.ts";

const world = createWorld(4, 3, 1);

test("a world lists every sequence once", () => {
  // Ended after 1, 2, 3 tokens: 1 + 3 + 9; cut at 3: 27. Prefixes of 0, 1, 2 tokens: 1 + 3 + 9.
  expect(world.sequences.length).toBe(40);
  expect(world.prefixes).toBe(13);
  expect(new Set(world.sequences.map((ids) => ids.join())).size).toBe(40);
});

test("prefixes are numbered from 0 to P - 1, each with a row of its own", () => {
  const rows = new Map<string, number>();
  for (const ids of world.sequences)
    for (let t = 0; t < ids.length; t++) rows.set(ids.slice(0, t).join(), prefixIndex(world, ids, t));
  expect([...rows.values()].sort((a, b) => a - b)).toEqual(Array.from({ length: 13 }, (_, i) => i));
  expect([...prefixRows(world, Int32Array.of(3, 1))]).toEqual([0, 3, 0]);
});

test("the probabilities of a model sum to one", () => {
  // 40 terms below 1: rounding stays within 40 * 2^-53.
  expect(Math.abs(logSumExp(logProbs(world, randomTable(world, 3, 2))))).toBeLessThan(1e-14);
});

test("the gradient of log pi is the slope of log pi", () => {
  const table = randomTable(world, 4);
  const ids = world.sequences.at(-1)!;
  const step = 1e-5;
  gradLogProb(world, table, ids).forEach((slope, k) => {
    const moved = (by: number) =>
      logProb(
        world,
        table.map((value, j) => (j === k ? value + by : value)),
        ids,
      );
    // Central differences: truncation step^2 = 1e-10, rounding 1e-16 / step = 1e-11.
    expect(Math.abs((moved(step) - moved(-step)) / (2 * step) - slope)).toBeLessThan(1e-9);
  });
});

test("sequences are drawn as often as they are likely", () => {
  const logP = logProbs(world, randomTable(world, 5));
  const n = 20_000;
  const counts = new Float64Array(logP.length);
  for (const i of drawSequences(logP, n, streamOf(keyOf(1, "draw")))) counts[i]!++;
  const chiSquare = logP.reduce((total, value, i) => total + (counts[i]! - n * Math.exp(value)) ** 2 / (n * Math.exp(value)), 0);
  // 39 degrees of freedom: 82.5 is exceeded with probability 6e-5 (Wilson-Hilferty); the seed is fixed.
  expect(chiSquare).toBeLessThan(82.5);
});

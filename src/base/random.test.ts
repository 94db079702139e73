import { expect, test } from "vitest";
import { keyOf, permutation, philox, streamOf, uniformAt } from "./random.ts";

// Known answers published with the Random123 library (kat_vectors, philox4x32 with 10 rounds).
test.each([
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
] as const)("philox gives the published answer", (counter, key, answer) => {
  expect(philox(counter, key)).toEqual([...answer]);
});

test("uniforms lie strictly inside (0, 1), are exact in float32 and have mean 1/2", () => {
  const key = keyOf(12, "test");
  const draws = Array.from({ length: 20_000 }, (_, i) => uniformAt(key, i, 3));
  expect(draws.every((u) => u > 0 && u < 1 && Math.fround(u) === u)).toBe(true);
  // Standard error of the mean is 0.00204; 5 of them is a false alarm in 1 of 1.7 million seeds.
  expect(Math.abs(draws.reduce((a, b) => a + b) / draws.length - 0.5)).toBeLessThan(0.0102);
});

test("streams of other purposes, seeds or coordinates differ; the same one repeats", () => {
  const take = (seed: number, purpose: string, a: number) => {
    const stream = streamOf(keyOf(seed, purpose), a);
    return Array.from({ length: 8 }, () => stream.uniform());
  };
  const first = take(1, "a", 0);
  expect(take(1, "a", 0)).toEqual(first);
  for (const other of [take(2, "a", 0), take(1, "b", 0), take(1, "a", 1)]) expect(other).not.toEqual(first);
});

test("a permutation holds each number once", () => {
  const order = permutation(100, streamOf(keyOf(5, "shuffle")));
  expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect([...order]).not.toEqual(Array.from({ length: 100 }, (_, i) => i));
});

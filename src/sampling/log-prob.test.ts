import { describe, expect, test } from "vitest";
import { placeTokens, takeTokens, teacherForcing } from "./log-prob.ts";
import type { Samples } from "./samples.ts";

/** Four sequences of up to four tokens. Token t of sequence b has the id 10 b + t + 1, and the number 10 b + t + 1 goes with it. */
const samplesAfter = (prompt: readonly number[]): Samples => {
  const lengths = Int32Array.of(2, 4, 1, 3);
  const ids = Int32Array.from({ length: 16 }, (_, i) => {
    const [b, t] = [Math.floor(i / 4), i % 4];
    return t < lengths[b]! ? 10 * b + t + 1 : 0;
  });
  return {
    count: 4,
    maxTokens: 4,
    prompt,
    ids,
    lengths,
    ended: new Uint8Array(4),
    tokenLogProbs: new Float32Array(16),
    logProbs: new Float64Array(4),
    texts: ["", "", "", ""],
  };
};
/** What a caller has: the numbers, and nonsense beyond the length. */
const numbers = ({ ids }: Samples): Float32Array => Float32Array.from(ids, (id) => (id === 0 ? 99 : id));

describe.each([[[7]], [[7, 8, 9]]])("after the prompt %j", (prompt) => {
  const samples = samplesAfter(prompt);

  test.each([[[0, 1, 2, 3]], [[3, 0]], [[2]]])("sequences %j: each number stands where its token is the label", (chosen) => {
    const indices = Int32Array.from(chosen);
    const batch = teacherForcing(samples, indices);
    const placed = placeTokens(numbers(samples), samples, indices, batch);
    expect(placed.length).toBe(batch.count * batch.length);
    // A prompt is a label too, but no token of x: 0 there and at padding.
    expect([...placed]).toEqual(Array.from(batch.mask, (mask, place) => mask * batch.labels.data[place]!));
    expect(placed.filter((value) => value !== 0).length).toBe(chosen.reduce((total, b) => total + samples.lengths[b]!, 0));
  });
  test("and comes back to where it was, leaving everything else alone", () => {
    const indices = Int32Array.of(3, 0);
    const batch = teacherForcing(samples, indices);
    const into = new Float32Array(16).fill(-1);
    takeTokens(placeTokens(numbers(samples), samples, indices, batch), samples, indices, batch, into);
    expect([...into]).toEqual([1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 31, 32, 33, -1]);
  });
});

test("by hand: two prompt tokens, two sequences out of order", () => {
  const samples = samplesAfter([7, 8]);
  const indices = Int32Array.of(1, 0);
  const batch = teacherForcing(samples, indices);
  // Five places: what follows the first prompt token is the second, so x begins at place 1.
  expect(batch.length).toBe(5);
  expect([...placeTokens(numbers(samples), samples, indices, batch)]).toEqual([0, 11, 12, 13, 14, 0, 1, 2, 0, 0]);
});

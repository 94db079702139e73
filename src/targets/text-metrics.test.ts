import { expect, test } from "vitest";
import { distinct } from "./text-metrics.ts";

test("distinct-n is n-grams over words, averaged over texts", () => {
  // "the cat the cat": 2 words, 2 pairs (the cat, cat the), 2 triples, of 4 words.
  expect(distinct(["the cat, the cat"], 1).value).toBe(2 / 4);
  expect(distinct(["the cat, the cat"], 2).value).toBe(2 / 4);
  expect(distinct(["a b c d"], 3).value).toBe(2 / 4);
});

test("short and empty texts count 0, and the mean has a standard error", () => {
  expect(distinct(["one", ""], 2)).toEqual({ value: 0, stdError: 0, n: 2 });
  // Values 1 and 0: the standard deviation is sqrt(1/2), over sqrt(2).
  expect(distinct(["one", ""], 1)).toEqual({ value: 0.5, stdError: expect.closeTo(0.5, 14), n: 2 });
});

test("words are told apart by case, n-grams by more than their letters", () => {
  expect(distinct(["The the"], 1).value).toBe(1);
  expect(distinct(["ab c a bc"], 2).value).toBe(3 / 4);
});

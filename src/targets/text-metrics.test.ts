import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keyOf, streamOf } from "../base/random.ts";
import { wordsOf } from "./features/words.ts";
import { bleuOfEach, distinct, type SelfBleuOrder, selfBleus, selfBleuTexts } from "./text-metrics.ts";

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

const orders = [3, 4, 5] as const;
/** BLEU of order 5 at most: five logs of numbers of order 1, averaged, and exp: some 10 roundings of 1e-16, with a margin of a thousand. */
const rounding = 1e-12;

describe("self-BLEU", () => {
  /** What NLTK computed, and how: tests/golden/self-bleu/make.py. */
  interface Golden {
    readonly texts: readonly string[];
    readonly words: GoldenUnit;
    readonly characters: GoldenUnit;
  }
  type GoldenUnit = { readonly tokens: readonly number[] } & Readonly<
    Record<SelfBleuOrder, { readonly perText: readonly number[]; readonly mean: number }>
  >;
  const golden: Golden = JSON.parse(readFileSync(new URL("../../tests/golden/self-bleu/golden.json", import.meta.url), "utf8"));

  test.each(["words", "characters"] as const)("is NLTK's, text by text and on average, in %s", (unit) => {
    expect(golden.texts.map((text) => (unit === "words" ? wordsOf(text) : [...text]).length)).toEqual(golden[unit].tokens);
    const [each, estimates] = [bleuOfEach(golden.texts, unit), selfBleus(golden.texts, unit)];
    for (const n of orders) {
      const { perText, mean } = golden[unit][n];
      expect(each[n].length).toBe(perText.length);
      for (const [i, score] of perText.entries()) expect(Math.abs(each[n][i]! - score), `${n}, text ${i}`).toBeLessThan(rounding);
      expect(Math.abs(estimates[n].value - mean)).toBeLessThan(rounding);
    }
  });

  /** By the definition: every text against every other, n-grams as strings. */
  const bleuByDefinition = (texts: readonly (readonly string[])[], i: number, n: number): number => {
    const countsOf = (text: readonly string[], k: number): Record<string, number> => {
      const counts: Record<string, number> = {};
      for (let at = 0; at + k <= text.length; at++) {
        const gram = JSON.stringify(text.slice(at, at + k));
        counts[gram] = (counts[gram] ?? 0) + 1;
      }
      return counts;
    };
    const text = texts[i]!;
    const others = texts.filter((_, j) => j !== i);
    let product = 1;
    for (let k = 1; k <= n; k++) {
      const inOthers = others.map((other) => countsOf(other, k));
      let matches = 0;
      for (const [gram, count] of Object.entries(countsOf(text, k)))
        matches += Math.min(count, Math.max(...inOthers.map((counts) => counts[gram] ?? 0)));
      if (k === 1 && matches === 0) return 0;
      product *= ((matches === 0 ? 0.1 : matches) / Math.max(1, text.length - k + 1)) ** (1 / n);
    }
    const [closest] = others
      .map(({ length }) => length)
      .sort((a, b) => Math.abs(a - text.length) - Math.abs(b - text.length) || a - b);
    return product * Math.min(1, Math.exp(1 - closest! / text.length));
  };

  test("is the definition, whatever the texts", () => {
    // Two letters and short texts: many shared n-grams, equal counts, equal lengths, empty texts.
    const text = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 9 });
    fc.assert(
      fc.property(fc.array(text, { minLength: 2, maxLength: 6 }), (texts) => {
        const each = bleuOfEach(texts, "characters");
        const units = texts.map((text) => [...text]);
        for (const n of orders)
          for (const i of texts.keys()) expect(Math.abs(each[n][i]! - bleuByDefinition(units, i, n))).toBeLessThan(rounding);
      }),
    );
  });

  test.each<[string, string[], number[]]>([
    // Counts are clipped at the largest of the others: 2 of 3 "a"; the pair aa once of 2; the triple aaa never of 1.
    ["clips at the most that any one other has", ["aaa", "aa", "ab"], [((2 / 3) * (1 / 2) * 0.1) ** (1 / 3)]],
    // The twin is the closest, and has everything.
    ["is 1 with a twin", ["abcd", "abcd", "abcdefg"], [1, 1]],
    // 3 units, the closest of the others 5: exp(1 - 5/3).
    ["punishes brevity", ["abc", "abcde"], [Math.exp(1 - 5 / 3), ((3 / 5) * (2 / 4) * (1 / 3)) ** (1 / 3)]],
    // 3 and 5 are as close to 4 as each other: the shorter counts, so nothing is punished.
    ["takes the shorter of two references as close", ["abcd", "abc", "abcde"], [1]],
    // The longest has no longer neighbour, the shortest no shorter one.
    ["takes the closest above where nothing is below", ["ab", "abc"], [Math.exp(1 - 3 / 2) * 0.1 ** (1 / 3)]],
    ["is 0 without a unit in common, however little smoothing says", ["abc", "xyz", ""], [0, 0, 0]],
    ["is not a number short of numbers", ["", ""], [0, 0]],
    // One character each, in two UTF-16 units.
    ["counts code points", ["🐈🐕🐈", "🐈🐕🐈"], [1, 1]],
  ])("%s", (_, texts, scores) => {
    for (const [i, score] of scores.entries())
      expect(Math.abs(bleuOfEach(texts, "characters")[3][i]! - score)).toBeLessThan(rounding);
  });

  test("takes words without punctuation, and characters with everything between", () => {
    expect(selfBleus(["one, two; three", "one two three"], "words")[3]).toEqual({ value: 1, stdError: 0, n: 2 });
    expect(selfBleus(["a b", "ab "], "characters")[3].value).toBeLessThan(1);
    expect(selfBleus(["ab c", "a bc"], "words")[3].value).toBe(0);
  });

  test("is an estimate: the scores' mean, its standard error, their number", () => {
    const texts = ["ab", "abc", "xyz"];
    const scores = bleuOfEach(texts, "characters");
    for (const n of orders) {
      const [a, b, c] = scores[n] as [number, number, number];
      const middle = (a + b + c) / 3;
      const spread = Math.sqrt(((a - middle) ** 2 + (b - middle) ** 2 + (c - middle) ** 2) / 2);
      const { value, stdError, n: count } = selfBleus(texts, "characters")[n];
      expect(Math.abs(value - middle)).toBeLessThan(rounding);
      expect(Math.abs(stdError - spread / Math.sqrt(3))).toBeLessThan(rounding);
      expect(count).toBe(3);
      expect(value).toBeGreaterThan(0);
    }
  });

  test("looks at the first 500 texts and no more", () => {
    const texts = Array.from({ length: selfBleuTexts }, (_, i) => `text ${i} of these`);
    expect(selfBleuTexts).toBe(500);
    const estimate = selfBleus(texts, "words");
    expect(estimate[4].n).toBe(500);
    expect(selfBleus([...texts, "text 0 of these", "something else"], "words")).toEqual(estimate);
  });

  test("compares no text with every other: 500 texts of 150 random characters take well under a second", () => {
    const stream = streamOf(keyOf(1, "self-bleu"));
    const alphabet = "abcdefghijklmnopqrstuvwxyz    ";
    const texts = Array.from({ length: 500 }, () => Array.from({ length: 150 }, () => alphabet[stream.integer(30)]).join(""));
    const start = performance.now();
    for (const unit of ["words", "characters"] as const) expect(selfBleus(texts, unit)[5].n).toBe(500);
    // On an AMD EPYC 0.1 s; text against text, with all counts at hand, 9 s.
    expect(performance.now() - start).toBeLessThan(2000);
  });

  test.each([[[]], [["alone"]]])("of %j is refused", (texts) => {
    expect(() => selfBleus(texts, "words")).toThrow(
      `self-BLEU: expected at least 2 texts, got ${texts.length}; draw more samples: a single text has nothing to be compared with`,
    );
  });
});

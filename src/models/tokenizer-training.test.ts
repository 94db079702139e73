import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createTokenizer } from "./tokenizer.ts";
import { trainByteLevelBpe } from "./tokenizer-training.ts";

const goldenFile = (name: string) => readFileSync(new URL(`../../tests/golden/tokenizer/${name}`, import.meta.url), "utf8");
const corpus = goldenFile("corpus.txt").split("\n");
const specialTokens = ["<|endoftext|>", "<pad>"];

interface Model {
  readonly vocab: Record<string, number>;
  readonly merges: readonly string[];
}
const modelOf = ({ tokenizerJson }: { tokenizerJson: object }): Model => (tokenizerJson as { model: Model }).model;

const trained = trainByteLevelBpe(corpus, { vocabularySize: 380, specialTokens });
const tokenizer = createTokenizer(trained.tokenizerJson, trained.tokenizerConfig, "trained");

test("gives the vocabulary and the merges of the reference implementation, which make.py compared with this file", () => {
  expect(trained.tokenizerJson).toEqual(JSON.parse(goldenFile("byte-level.json")));
});

test("special tokens come first, then the bytes, then the merges", () => {
  expect([tokenizer.idOf("<|endoftext|>"), tokenizer.idOf("<pad>"), tokenizer.idOf("!")]).toEqual([0, 1, 2]);
  expect(tokenizer.vocabularySize).toBe(380);
  expect(tokenizer.tokenOf(258)).toBe(modelOf(trained).merges[0]!.replace(" ", ""));
});

// Whole characters: half a surrogate pair is no Unicode text, and has no UTF-8.
const unicode = fc.string({ unit: "binary" });
const mixed = fc
  .array(fc.oneof(unicode, fc.constantFrom(...corpus, " ", "\n", "  \n ", "'ll", "<pad", "\ufeff", "\u0085")), { maxLength: 6 })
  .map((parts) => parts.join(""));

test("any Unicode text comes back", () => {
  fc.assert(
    fc.property(
      mixed.filter((text) => !specialTokens.some((token) => text.includes(token))),
      (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      },
    ),
    { numRuns: 500 },
  );
});

/** Byte-pair encoding by definition: while a learnt pair is left, join the leftmost occurrence of the one learnt first. */
const directBpe = (word: string, { vocab, merges }: Model): number[] => {
  const characters = Object.keys(vocab).filter((token) => token.length === 1);
  // The byte alphabet, from its description: visible Latin-1 stands for itself, the other bytes for U+0100 onwards in order.
  const visible = characters.filter((character) => character < "\u0100").map((character) => character.charCodeAt(0));
  const others = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !visible.includes(byte));
  let tokens = [...Buffer.from(word, "utf8")].map((byte) =>
    String.fromCharCode(visible.includes(byte) ? byte : 256 + others.indexOf(byte)),
  );
  for (;;) {
    const ranks = tokens.slice(1).map((right, i) => merges.indexOf(`${tokens[i]} ${right}`));
    const learnt = ranks.filter((rank) => rank >= 0);
    if (learnt.length === 0) return tokens.map((token) => vocab[token]!);
    const at = ranks.indexOf(Math.min(...learnt));
    tokens = [...tokens.slice(0, at), tokens[at]! + tokens[at + 1]!, ...tokens.slice(at + 2)];
  }
};

test("the library encodes words as the merges say", () => {
  // Letters alone are one word to the pre-tokenizer, so that only the merges are in question.
  const letters = fc
    .array(fc.constantFrom(..."theriverfoxüßçêd狐川"), { minLength: 1, maxLength: 12 })
    .map((parts) => parts.join(""));
  fc.assert(
    fc.property(letters, fc.boolean(), (word, spaced) => {
      const text = spaced ? ` ${word}` : word;
      expect(tokenizer.encode(text)).toEqual(directBpe(text, modelOf(trained)));
    }),
    { numRuns: 300 },
  );
});

/** The definition of the training, with nothing incremental: count all pairs anew for each merge. */
const naiveMerges = (words: readonly string[], wanted: number): string[] => {
  let spelled = words.map((word) => [...word]);
  const order = [...new Set(words.join(""))].sort();
  const merges: string[] = [];
  while (merges.length < wanted) {
    const counts = new Map<string, number>();
    for (const tokens of spelled)
      for (let i = 1; i < tokens.length; i++)
        counts.set(`${tokens[i - 1]} ${tokens[i]}`, (counts.get(`${tokens[i - 1]} ${tokens[i]}`) ?? 0) + 1);
    const place = (pair: string) => pair.split(" ").map((token) => order.indexOf(token)) as [number, number];
    const candidates = [...counts].filter(([pair, count]) => count >= 2 && !order.includes(pair.replace(" ", "")));
    candidates.sort(([a, m], [b, n]) => n - m || place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]);
    if (candidates.length === 0) return merges;
    const [left, right] = candidates[0]![0].split(" ") as [string, string];
    merges.push(`${left} ${right}`);
    order.push(left + right);
    spelled = spelled.map((tokens) => {
      const next: string[] = [];
      for (const token of tokens) {
        // A token that was itself just joined must not be joined again: "aaa" is "aa a", never "aaa" in one merge.
        if (token === right && next.at(-1) === left) next.splice(-1, 1, left + right);
        else next.push(token);
      }
      return next;
    });
  }
  return merges;
};

test("incremental counts find the merges that counting anew finds", () => {
  // Runs of one letter are where pairs overlap: "aaa" holds "aa" twice, but only one can be merged.
  const runs = fc.integer({ min: 1, max: 14 }).map((length) => "a".repeat(length));
  const word = fc.oneof(
    runs,
    fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 9 }).map((letters) => letters.join("")),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), (words) => {
      const { merges } = modelOf(trainByteLevelBpe(words, { vocabularySize: 276, specialTokens: [] }));
      expect(merges).toEqual(naiveMerges(words, 20));
    }),
    { numRuns: 300 },
  );
});

test("the order of the texts does not matter, and neither does how they are cut at special tokens", () => {
  const reversed = trainByteLevelBpe([...corpus].reverse(), { vocabularySize: 380, specialTokens });
  expect(reversed.tokenizerJson).toEqual(trained.tokenizerJson);
  const joined = trainByteLevelBpe([corpus.join("<|endoftext|>")], { vocabularySize: 380, specialTokens });
  expect(joined.tokenizerJson).toEqual(trained.tokenizerJson);
});

test("stops early where no pair occurs twice, and tells its progress", () => {
  const calls: [number, number][] = [];
  const small = trainByteLevelBpe(["abab", "xy"], {
    vocabularySize: 300,
    specialTokens: [],
    onProgress: (...call) => calls.push(call),
  });
  expect(modelOf(small).merges).toEqual(["a b"]);
  expect(calls).toEqual([[1, 44]]);
});

test("no merge takes the name of a special token", () => {
  const clash = trainByteLevelBpe([" a a ab ab"], { vocabularySize: 300, specialTokens: ["Ġa"] });
  const { vocab, merges } = modelOf(clash);
  expect(vocab["Ġa"]).toBe(0);
  expect(merges).toEqual(["a b", "Ġ ab"]);
});

describe("one clear error for", () => {
  test.each<[string, number, string[], RegExp]>([
    [
      "a vocabulary smaller than the bytes",
      257,
      ["<s>", "</s>"],
      /tokenizer training: expected a vocabulary of 258 .* got 257; choose/,
    ],
    ["a fraction", 300.5, [], /expected a vocabulary of 256/],
    ["a special token twice", 300, ["<s>", "<s>"], /expected special tokens that are distinct.*got "<s>"/],
    ["an empty special token", 300, [""], /got ""/],
    ["a special token that is a byte", 300, ["Ġ"], /got "Ġ"/],
  ])("%s", (_, vocabularySize, tokens, message) => {
    expect(() => trainByteLevelBpe([], { vocabularySize, specialTokens: tokens })).toThrow(message);
  });
});

import fc from "fast-check";
import { afterEach, expect, test, vi } from "vitest";
import type { Sequence } from "../sampling/samples.ts";
import { createFeature, type FeatureSpec, featureMatrix, momentEstimates } from "./feature.ts";
import { wordsOf } from "./features/words.ts";

const sequence = (text: string, length = 0): Sequence => ({ text, ids: new Int32Array(length), ended: false });
const valuesOf = async (spec: FeatureSpec, ...texts: string[]) => [
  ...(await createFeature("f", spec).values(texts.map((text) => sequence(text)))),
];

test("words are runs of letters and digits, joined by inner apostrophes and hyphens", () => {
  expect(wordsOf(`"Don't," said Lily's twenty-one-year-old – naïve Ærø, 3rd 'time' -- no.`)).toEqual([
    "Don't",
    "said",
    "Lily's",
    "twenty-one-year-old",
    "naïve",
    "Ærø",
    "3rd",
    "time",
    "no",
  ]);
  expect(wordsOf("don’t")).toEqual(["don't"]);
  expect(wordsOf(" -'- ")).toEqual([]);
});

test("splitting the joined words gives them back", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(wordsOf(wordsOf(text).join(" "))).toEqual(wordsOf(text));
    }),
  );
});

test("word: an exact word, in its case unless told otherwise", async () => {
  const texts = ["Lily ran.", "lily ran", "Lily's dog", "waterlily", ""];
  expect(await valuesOf({ kind: "word", word: "Lily" }, ...texts)).toEqual([1, 0, 0, 0, 0]);
  expect(await valuesOf({ kind: "word", word: "Lily", caseSensitive: false }, ...texts)).toEqual([1, 1, 0, 0, 0]);
});

test("words: any of a list", async () => {
  const spec = { kind: "words", words: ["king", "Queen", "don't"] } as const;
  expect(await valuesOf(spec, "the king", "working", "a queen", "Queen!", "I don’t")).toEqual([1, 0, 0, 1, 1]);
});

test("an entry that could never match is refused", () => {
  expect(() => createFeature("art", { kind: "words", words: ["poet", "author "] })).toThrow(
    'feature "art": expected single words of letters, digits, inner apostrophes and hyphens, got "author "; ' +
      "write one word without spaces, or use kind: regex",
  );
  expect(() => createFeature("none", { kind: "words", words: [] })).toThrow('feature "none": expected at least one word');
});

test("regex: matches anywhere, and alike each time", async () => {
  expect(await valuesOf({ kind: "regex", pattern: "\\bkings?\\b", flags: "i" }, "Kings rule", "Kings rule", "viking")).toEqual([
    1, 1, 0,
  ]);
  expect(() => createFeature("r", { kind: "regex", pattern: "a", flags: "gi" })).toThrow(
    'expected flags without g and y, got "gi"',
  );
  expect(() => createFeature("r", { kind: "regex", pattern: "(" })).toThrow(
    'feature "r": expected a JavaScript regular expression',
  );
});

const labels = ["male", "female", "other"] as const;
test.each([
  ["He saw him and her.", "male"],
  ["She's hers; HE IS NOT.", "female"],
  ["he and she", "other"],
  ["Nobody. There, hero, sheep.", "other"],
  ["his", "male"],
] as const)("pronouns: %j is %s", async (text, label) => {
  for (const wanted of labels)
    expect(await valuesOf({ kind: "pronouns", label: wanted }, text)).toEqual([wanted === label ? 1 : 0]);
});

test("pronouns: the papers' definition counts lower-case words of shorter lists", async () => {
  const papers = { caseSensitive: true, male: ["he", "him", "himself"], female: ["she", "her", "herself"] };
  const texts = ["He He he her her", "his hers", "he's", "his she"];
  expect(await valuesOf({ kind: "pronouns", label: "female", ...papers }, ...texts)).toEqual([1, 0, 0, 1]);
  expect(await valuesOf({ kind: "pronouns", label: "male", ...papers }, ...texts)).toEqual([0, 0, 1, 0]);
});

test("length: tokens or words, or whether they lie in a range", async () => {
  const sequences = [sequence("one two", 5), sequence("", 1)];
  const of = async (spec: FeatureSpec) => [...(await createFeature("n", spec).values(sequences))];
  expect(await of({ kind: "length" })).toEqual([5, 1]);
  expect(await of({ kind: "length", unit: "words" })).toEqual([2, 0]);
  expect(await of({ kind: "length", min: 5, max: 5 })).toEqual([1, 0]);
  expect(await of({ kind: "length", unit: "words", max: 1 })).toEqual([0, 1]);
  expect(createFeature("n", { kind: "length" }).binary).toBe(false);
  expect(createFeature("n", { kind: "length", min: 2 }).binary).toBe(true);
  expect(() => createFeature("n", { kind: "length", min: 3, max: 2 })).toThrow("expected min <= max, got min 3, max 2");
});

test("functions: per sample or per batch, sync or async, numbers or booleans", async () => {
  const texts = ["a", "bb"];
  expect(await valuesOf({ kind: "function", perSample: ({ text }) => text === "a" }, ...texts)).toEqual([1, 0]);
  expect(await valuesOf({ kind: "function", perSample: async ({ text }) => text.length - 1 }, ...texts)).toEqual([0, 1]);
  const perBatch = (all: readonly Sequence[]) => Float64Array.from(all, ({ text }) => text.length);
  expect(await valuesOf({ kind: "function", binary: false, perBatch }, ...texts)).toEqual([1, 2]);
  expect(await valuesOf({ kind: "function", binary: false, perBatch: async (all) => perBatch(all) }, ...texts)).toEqual([1, 2]);
});

test.each<[string, FeatureSpec, string]>([
  [
    "throws",
    {
      kind: "function",
      perSample: () => {
        throw new Error("no model");
      },
    },
    'feature "toxic": expected values, got an exception: no model; correct the function, or catch what it may meet',
  ],
  [
    "gives NaN",
    { kind: "function", perSample: () => Number.NaN },
    'feature "toxic": expected finite numbers or booleans, got NaN for sequence 0; check the function on that sequence',
  ],
  [
    "gives too few",
    { kind: "function", perBatch: () => [1] },
    'feature "toxic": expected 2 values, one per sequence, got 1; return an array in the order of the sequences',
  ],
  [
    "is not binary",
    { kind: "function", perSample: ({ text }) => text.length },
    'feature "toxic": expected 0 or 1, got 2 for sequence 1; declare binary: false if it is meant to be real-valued',
  ],
])("a function that %s is one error that names the feature", async (_, spec, message) => {
  await expect(createFeature("toxic", spec).values([sequence("a"), sequence("bb")])).rejects.toThrow(message);
});

afterEach(() => {
  vi.useRealTimers();
});

const never = () => new Promise<never>(() => {});
test.each<[string, FeatureSpec, string]>([
  [
    "one sequence",
    { kind: "function", perSample: ({ text }) => (text === "bb" ? never() : 1), timeoutSeconds: 5 },
    'feature "slow": expected values within 5 s, got none for sequence 1; make the function faster, or raise timeoutSeconds',
  ],
  ["a batch", { kind: "function", perBatch: never, timeoutSeconds: 5 }, "within 5 s, got none for a batch of 2 sequences;"],
  [
    "a batch, without a limit of its own",
    { kind: "function", perBatch: never },
    "within 60 s, got none for a batch of 2 sequences;",
  ],
])("a function that is never done with %s is one error that names the feature, at its time limit", async (_, spec, message) => {
  vi.useFakeTimers();
  let outcome: unknown;
  const values = createFeature("slow", spec).values([sequence("a"), sequence("bb")]);
  const settled = values.catch((error: unknown) => {
    outcome = error;
  });
  await vi.advanceTimersByTimeAsync((spec as { timeoutSeconds?: number }).timeoutSeconds === 5 ? 4999 : 59_999);
  expect(outcome).toBeUndefined();
  await vi.advanceTimersByTimeAsync(1);
  await settled;
  expect((outcome as Error).message).toContain(message);
  expect(outcome).toMatchObject({ name: "TiltError", kind: "runtime" });
});

test("a time limit is of each call, and leaves no timer behind", async () => {
  vi.useFakeTimers();
  const perSample = ({ text }: Sequence) => new Promise<number>((resolve) => setTimeout(() => resolve(text.length - 1), 700));
  const values = createFeature("slow", { kind: "function", perSample, timeoutSeconds: 1 }).values([
    sequence("a"),
    sequence("bb"),
  ]);
  await vi.advanceTimersByTimeAsync(1400);
  expect([...(await values)]).toEqual([0, 1]);
  expect(vi.getTimerCount()).toBe(0);
  const failing = createFeature("f", { kind: "function", perBatch: () => Promise.reject(new Error("down")) }).values([]);
  await expect(failing).rejects.toThrow('feature "f": expected values, got an exception: down;');
  expect(vi.getTimerCount()).toBe(0);
});

test("a function that returns at once costs no timer", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout");
  await createFeature("quick", { kind: "function", perSample: () => true }).values([sequence("a"), sequence("bb")]);
  expect(timers).not.toHaveBeenCalled();
  await createFeature("promised", { kind: "function", perSample: async () => true }).values([sequence("a"), sequence("bb")]);
  expect(timers).toHaveBeenCalledTimes(2);
  timers.mockRestore();
});

test("a limit beyond what a timer can hold is long, not short", async () => {
  const perSample = async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return true;
  };
  const feature = createFeature("patient", { kind: "function", perSample, timeoutSeconds: 1e9 });
  expect([...(await feature.values([sequence("a")]))]).toEqual([1]);
});

test("a function feature has exactly one function", () => {
  expect(() => createFeature("f", { kind: "function" })).toThrow("expected one function, perSample or perBatch, got neither");
  expect(() => createFeature("f", { kind: "function", perSample: () => 1, perBatch: () => [1] })).toThrow("got both");
});

test("an unknown kind is named with the known ones", () => {
  expect(() => createFeature("f", { kind: "topic" } as unknown as FeatureSpec)).toThrow(
    'feature "f": expected a kind among word, words, regex, pronouns, length, function, got "topic"',
  );
});

test("the matrix holds sequence after sequence, and its moments are the columns' means", async () => {
  const features = [createFeature("a", { kind: "word", word: "a" }), createFeature("n", { kind: "length", unit: "words" })];
  const matrix = await featureMatrix(features, [sequence("a b"), sequence("b"), sequence("a")]);
  expect(matrix).toEqual({ names: ["a", "n"], binary: [true, false], count: 3, values: Float64Array.of(1, 2, 0, 1, 1, 1) });
  const { a, n } = momentEstimates(matrix);
  expect([a?.value, n?.value]).toEqual([2 / 3, 4 / 3]);
});

/** What benchmarks are worked out with: the work, the summary of a few times, the synthetic tokenizer, the table in a text, the agreement of peers. */

import { expect, test } from "vitest";
import { paced } from "../../bench/figures.ts";
import { passFlops } from "../../bench/flops.ts";
import { type Entry, figuresTable, replaceBetween, verdict } from "../../bench/history.ts";
import { disagreement } from "../../bench/peers/agreement.ts";
import { firstReaching } from "../../bench/quality.ts";
import { shapes, syntheticTokenizer } from "../../bench/shapes.ts";
import { spreadOf, summarize } from "../../bench/statistics.ts";
import { createTokenizer } from "../../src/index.ts";

test("GPT-2 small: 2 FLOPs per weight of a product and token, and attention", () => {
  const small = { width: 768, layers: 12, innerWidth: 3072, vocabularySize: 50257 };
  // 85 million weights in the blocks, 38.6 million in the head: 247 MFLOP, 1.5 MFLOP of attention over 40 places.
  const perToken = 2 * (12 * 12 * 768 ** 2 + 768 * 50257) + 12 * 4 * 768 * 40;
  expect(passFlops.scoring(small, 3, 40)).toBe(120 * perToken);
  expect(passFlops.training(small, 3, 40)).toBe(360 * perToken);
  // Token t of a cache looks at t places, 20.5 in the mean.
  const perPlace = 12 * 4 * 768;
  expect(passFlops.generation(small, 3, 40)).toBe(120 * (perToken - 19.5 * perPlace));
});

test("a slower machine measures less of the same, in whole micro-batches, and a faster one not more", () => {
  expect(paced(shapes.M, 9e11)).toEqual(shapes.M);
  expect(paced(shapes.M, 2e11)).toEqual({ ...shapes.M, training: 256, scoring: 256, n: 3, run: { count: 256, steps: 5 } });
  expect(paced(shapes.S, 1e10)).toEqual({ ...shapes.S, training: 128, n: 2 });
});

test("a summary", () => {
  expect(summarize([3, 1, 2])).toEqual({ n: 3, median: 2, minimum: 1, maximum: 3 });
  expect(summarize([4, 1, 2, 3]).median).toBe(2.5);
  expect(spreadOf(summarize([1, 2, 4]))).toBe(1.5);
  expect(() => summarize([])).toThrow(RangeError);
  expect(() => summarize([1, Number.NaN])).toThrow(RangeError);
});

test.each([300, 4096, 50257])("a synthetic tokenizer of %i tokens reads back what it writes", (size) => {
  const tokenizer = createTokenizer(syntheticTokenizer(size), {}, "tokenizer.json");
  expect(tokenizer.vocabularySize).toBe(size);
  expect(tokenizer.idOf("<|endoftext|>")).toBe(size - 1);
  expect(tokenizer.decode(tokenizer.encode("Ein alter Baum – stood there, abcd!"))).toBe("Ein alter Baum – stood there, abcd!");
  // Every id has a token of its own.
  const tokens = Array.from({ length: size }, (_, id) => tokenizer.tokenOf(id));
  expect(new Set(tokens).size).toBe(size);
  expect(tokens).not.toContain(undefined);
});

test("between markers, and nowhere else", () => {
  expect(replaceBetween("a\n<!-- x -->\nold\n<!-- /x -->\nb", "x", "new")).toBe("a\n<!-- x -->\nnew\n<!-- /x -->\nb");
  expect(() => replaceBetween("a", "x", "new")).toThrow("put them back");
});

test("the table has the newest of each figure, and no quick one", () => {
  const entry = (date: string, median: number, quick: boolean): Entry => ({
    date,
    commit: "abc",
    dirty: false,
    kind: "bench",
    command: "npm run bench",
    machine: { cpu: "x", cores: 2, memory: 1, platform: "linux x64", node: "20", onnxruntime: "1", load: 0 },
    quick,
    seconds: 1,
    results: [{ figure: "training", shape: "M", n: 1, median, minimum: median, maximum: median }],
  });
  const history = [entry("2026-01-01", 0.5, false), entry("2026-01-02", 0.8, false), entry("2026-01-03", 0.1, true)];
  const rows = figuresTable(history).split("\n").slice(2);
  expect(rows).toHaveLength(1);
  expect(rows[0]).toContain("| M | 0.8 | ≥ 0.75 ✓ | 0.8 | 0% | 1 | abc, 2026-01-02 |");
  expect(verdict({ rises: false }, 6, 5)).toBe("≤ 5 ✗");
});

test("the first line with the wanted share", () => {
  const line = (step: number, women: number) => ({ kind: "step", step, seconds: step, moments: { women: { value: women } } });
  expect(firstReaching([line(0, 0.1), line(1, 0.45), line(2, 0.5)])?.step).toBe(1);
  expect(firstReaching([line(0, 0.1)])).toBeUndefined();
});

test("peers that compute something else are told apart from those that round otherwise", () => {
  const ours = { logProbs: [-400, -410], loss: 3 };
  expect(disagreement(ours, { logProbs: [-400.0005, -410.001], loss: 3.001 })).toBeUndefined();
  expect(disagreement(ours, { logProbs: [-400, -410.01], loss: 3 })).toContain("log p of text 1 is -410.01");
  expect(disagreement(ours, { logProbs: [-400, -410], loss: 3.01 })).toContain("the loss");
  expect(disagreement(ours, { logProbs: [-400], loss: 3 })).toContain("1 log-probabilities of 2 texts");
  expect(disagreement(ours, { logProbs: [-400, Number.NaN], loss: 3 })).toContain("NaN");
});

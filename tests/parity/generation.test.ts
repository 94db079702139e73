/** The sampler against the scorer, and both against exact probabilities: q is exactly what was sampled. */

import { describe, expect, test } from "vitest";
import { keyOf } from "../../src/base/random.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { createCausalModel } from "../../src/models/causal-model.ts";
import { createGenerator, type GeneratorOptions, samplingOf } from "../../src/sampling/generate.ts";
import { createScorer, forceRows } from "../../src/sampling/log-prob.ts";
import { createKeep } from "../support/keep.ts";
import { tinyConfigs, tinyWeights, numberTokenizer as tokenizer } from "../support/tiny-model.ts";

const device = cpuDevice({ threads: 1 });
const keep = createKeep();

const generatorOf = async (family: "gpt2" | "llama", options: Partial<GeneratorOptions> = {}, config = tinyConfigs[family]) => {
  const generator = await createGenerator(device, createCausalModel(config), tinyWeights(config, 1), {
    sampling: samplingOf(1, 1),
    prompt: [0],
    maxTokens: 20,
    endIds: [0, 7],
    tokenizer,
    ...options,
  });
  keep(generator);
  return generator;
};
const key = keyOf(3, "parity");

describe.each(["gpt2", "llama"] as const)("%s", (family) => {
  const config = tinyConfigs[family];
  const model = createCausalModel(config);
  const weights = tinyWeights(config, 1);

  test.each([[[0]], [[0, 5, 9, 2]]])(
    "log q of sampling with a cache = log q of scoring the whole text, after prompt %j",
    async (prompt) => {
      const samples = await (await generatorOf(family, { prompt })).generate({ count: 40, key });
      const scorer = await createScorer(device, model, weights, 16);
      keep(scorer);
      const { logProbs, tokenLogProbs } = await scorer.score(samples);
      expect(samples.lengths.some((length) => length < 20) && samples.lengths.some((length) => length === 20)).toBe(true);
      // Two float32 passes in different orders over 2 layers of width 16: about 1e-6 a token; an error of logic shows as 0.01 or more.
      tokenLogProbs.forEach((value, i) => {
        expect(Math.abs(value - samples.tokenLogProbs[i]!)).toBeLessThan(2e-5);
      });
      logProbs.forEach((value, b) => {
        expect(Math.abs(value - samples.logProbs[b]!)).toBeLessThan(2e-4);
      });
    },
  );

  test("scoring on the CPU = the float64 reference", async () => {
    const rows = [
      [0, 4, 9, 2, 11],
      [0, 299, 1],
    ];
    const [cpu, reference] = await Promise.all(
      [device, referenceDevice].map(async (each) => (await createScorer(each, model, weights)).scoreForced(forceRows(rows, 1))),
    );
    cpu!.forEach((value, i) => {
      if (forceRows(rows, 1).mask[i] === 1) expect(Math.abs(value - reference![i]!)).toBeLessThan(2e-5);
    });
  });

  test("texts do not depend on how they are batched, and a stream goes on where it was left", async () => {
    const whole = await (await generatorOf(family)).generate({ count: 12, key });
    const small = await generatorOf(family, { batch: 5 });
    expect((await small.generate({ count: 12, key })).ids).toEqual(whole.ids);
    const rest = await small.generate({ count: 4, key, firstIndex: 8 });
    expect(rest.ids).toEqual(whole.ids.slice(8 * 20));
    expect((await small.generate({ count: 12, key: keyOf(4, "parity") })).ids).not.toEqual(whole.ids);
  });

  test("an end token stops a text and belongs to it; nothing follows", async () => {
    const samples = await (await generatorOf(family)).generate({ count: 60, key });
    for (let b = 0; b < samples.count; b++) {
      const ids = samples.ids.subarray(b * 20, (b + 1) * 20);
      const length = samples.lengths[b]!;
      expect(ids.subarray(0, length - 1).some((id) => id === 0 || id === 7)).toBe(false);
      expect([0, 7].includes(ids[length - 1]!)).toBe(samples.ended[b] === 1);
      expect(samples.ended[b] === 1 || length === 20).toBe(true);
      expect(ids.subarray(length).every((id) => id === 0)).toBe(true);
      expect(samples.texts[b]!.split(" ").filter(Boolean).length).toBe(length - samples.ended[b]!);
    }
  });

  test("greedy takes the most probable token of the scorer each time", async () => {
    const greedy = await (await generatorOf(family, { sampling: samplingOf(0, 1), maxTokens: 6 })).generate({ count: 2, key });
    const scorer = await createScorer(device, model, weights);
    keep(scorer);
    const prefix = [0];
    for (let t = 0; t < greedy.lengths[0]!; t++) {
      const scores = await scorer.scoreForced(
        forceRows(
          Array.from({ length: config.vocabularySize }, (_, token) => [...prefix, token]),
          prefix.length,
        ),
      );
      let best = 0;
      for (let v = 1; v < config.vocabularySize; v++)
        if (scores[v * prefix.length + t]! > scores[best * prefix.length + t]!) best = v;
      expect(greedy.ids[t]).toBe(best);
      prefix.push(best);
    }
  });
});

describe("frequencies", () => {
  const config = { ...tinyConfigs.gpt2, vocabularySize: 5 };
  const weights = tinyWeights(config, 2);
  const n = 20_000;

  /** Probability of every text of at most two tokens, by scoring them all in float64. */
  const exact = async (): Promise<Map<string, number>> => {
    const scorer = await createScorer(referenceDevice, createCausalModel(config), weights);
    const rows = Array.from({ length: 5 }, (_, a) =>
      a === 0 ? [[0, 0]] : Array.from({ length: 5 }, (_, b) => [0, a, b]),
    ).flat();
    const forced = forceRows(rows, 1);
    const scores = await scorer.scoreForced(forced);
    return new Map(
      rows.map((row, i) => [
        row.slice(1).join(" "),
        Math.exp(row.slice(1).reduce((total, _, t) => total + scores[i * forced.length + t]!, 0)),
      ]),
    );
  };

  const frequencies = async (sampling: ReturnType<typeof samplingOf>) => {
    const generator = await createGenerator(device, createCausalModel(config), weights, {
      sampling,
      prompt: [0],
      maxTokens: 2,
      endIds: [0],
      tokenizer,
      batch: 5000,
    });
    keep(generator);
    const samples = await generator.generate({ count: n, key: keyOf(11, "frequencies") });
    const seen = new Map<string, number>();
    for (let b = 0; b < n; b++) {
      const text = samples.ids.subarray(b * 2, b * 2 + samples.lengths[b]!).join(" ");
      seen.set(text, (seen.get(text) ?? 0) + 1);
    }
    return { seen, samples };
  };

  /** Pearson's statistic. With 20 degrees of freedom, 52.4 is passed by 1 honest seed in 10,000. */
  const chiSquared = (seen: Map<string, number>, probabilities: Map<string, number>): number =>
    [...probabilities].reduce((total, [text, p]) => total + ((seen.get(text) ?? 0) - n * p) ** 2 / (n * p), 0);

  test("of the full softmax are the model's probabilities", async () => {
    const probabilities = await exact();
    expect([...probabilities.values()].reduce((a, b) => a + b)).toBeCloseTo(1, 6);
    const { seen } = await frequencies(samplingOf(1, 1));
    expect(chiSquared(seen, probabilities)).toBeLessThan(52.4);
    // The test can fail: probabilities that are off by a twentieth are found out.
    const off = new Map([...probabilities].map(([text, p], i) => [text, p * (i % 2 === 0 ? 1.1 : 0.9)]));
    expect(chiSquared(seen, off)).toBeGreaterThan(52.4);
  });

  test("of a nucleus are the kept probabilities, renormalised, and the log-probability says so", async () => {
    const { seen, samples } = await frequencies(samplingOf(1, 0.6));
    const probabilities = await exact();
    // First tokens: p of each by adding up; the nucleus keeps the largest until 0.6 is reached.
    const first = Array.from({ length: 5 }, (_, a) =>
      [...probabilities].filter(([text]) => text.split(" ")[0] === String(a)).reduce((total, [, p]) => total + p, 0),
    );
    const order = first.map((p, a) => [p, a] as const).sort((x, y) => y[0] - x[0]);
    let mass = 0;
    const kept: number[] = [];
    for (const [p, a] of order) {
      if (mass >= 0.6) break;
      kept.push(a);
      mass += p;
    }
    expect(kept.length).toBeGreaterThan(1);
    expect(kept.length).toBeLessThan(5);
    const firstSeen = new Set([...seen.keys()].map((text) => Number(text.split(" ")[0])));
    expect([...firstSeen].sort()).toEqual([...kept].sort());
    samples.ids.forEach((id, i) => {
      if (i % 2 === 0) expect(samples.tokenLogProbs[i]!).toBeCloseTo(Math.log(first[id]! / mass), 4);
    });
  });

  test("at temperature 2 are flatter, and the log-probability is that of the flatter distribution", async () => {
    const { seen, samples } = await frequencies(samplingOf(2, 1));
    const share = [...seen].map(([, count]) => count / n);
    const entropyOf = (p: number[]) => -p.reduce((total, value) => total + (value > 0 ? value * Math.log(value) : 0), 0);
    expect(entropyOf(share)).toBeGreaterThan(entropyOf([...(await exact()).values()]));
    // E[-log q] is the entropy; 0.05 is many standard errors of 20,000 draws.
    const mean = -samples.logProbs.reduce((a, b) => a + b) / n;
    expect(Math.abs(mean - entropyOf(share))).toBeLessThan(0.05);
  });
});

test("a prompt and text that do not fit the context are refused before anything is compiled", async () => {
  await expect(generatorOf("gpt2", { prompt: [0, 1, 2], maxTokens: 23 })).rejects.toThrow(
    "sequence.maxTokens: expected prompt and text to fit the model's context of 24 tokens, got 3 + 23; set sequence.maxTokens to at most 22",
  );
  await expect(generatorOf("gpt2", { prompt: [0, 1, 2], maxTokens: 22 })).resolves.toBeDefined();
});

test.each([
  [-1, 1, "temperature"],
  [Number.NaN, 1, "temperature"],
  [1, 0, "topP"],
  [1, 1.5, "topP"],
])("temperature %d and topP %d are refused", (temperature, topP, where) => {
  expect(() => samplingOf(temperature, topP)).toThrow(where);
});

/** Fast paths against plain ones: lanes on worker threads against this thread, batches that shrink against whole ones, runs of micro-batches against one. */

import { describe, expect, test } from "vitest";
import { keyOf } from "../../src/base/random.ts";
import { zeros } from "../../src/base/tensor.ts";
import type { Value } from "../../src/engine/graph.ts";
import { input, matmul, sum } from "../../src/engine/ops/index.ts";
import { type Device, readAll, uploadAll } from "../../src/engine/runtime/device.ts";
import { cpuLanes } from "../../src/engine/runtime/lane.node.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { createCausalModel } from "../../src/models/causal-model.ts";
import { createGenerator, samplingOf } from "../../src/sampling/generate.ts";
import { createScorer } from "../../src/sampling/log-prob.ts";
import { methodOf } from "../../src/tuners/method.ts";
import { fitPrefixValue } from "../../src/tuners/prefix-value.ts";
import { createTuner } from "../../src/tuners/tuner.ts";
import { createKeep } from "../support/keep.ts";
import { tinyConfigs, tinyWeights, numberTokenizer as tokenizer } from "../support/tiny-model.ts";

const plain = cpuDevice({ threads: 1 });
const lanes = cpuLanes(2, 1);
const config = tinyConfigs.gpt2;
const model = createCausalModel(config);
const weights = tinyWeights(config, 1);
const keep = createKeep();

/** Texts of 1 to 24 tokens: most have ended before the last does, so that their batch shrinks more than once. */
const draw = async (device: Device, batch: number) =>
  keep(
    await createGenerator(device, model, weights, {
      sampling: samplingOf(1, 1),
      prompt: [0],
      maxTokens: 24,
      endIds: Array.from({ length: 40 }, (_, i) => i * 7),
      tokenizer,
      batch,
    }),
  ).generate({ count: 70, key: keyOf(5, "lanes") });

const samples = await draw(plain, 1);

describe("generation", () => {
  test.each<[string, Device, number]>([
    ["on one thread, in batches that shrink", plain, 70],
    ["on two lanes", lanes, 16],
  ])("%s writes the texts that one at a time gives, with their log-probabilities", async (_title, device, batch) => {
    const found = await draw(device, batch);
    expect(new Set(samples.lengths).size).toBeGreaterThan(5);
    expect(found.texts).toEqual(samples.texts);
    expect([found.ids, found.lengths, found.ended]).toEqual([samples.ids, samples.lengths, samples.ended]);
    // Products of other sizes are added up in other orders: float32 rounding over two layers.
    found.tokenLogProbs.forEach((value, i) => {
      expect(Math.abs(value - samples.tokenLogProbs[i]!)).toBeLessThan(2e-5);
    });
  });
});

test("scoring on two lanes, sorted by length, is scoring one by one", async () => {
  const [one, two] = await Promise.all([createScorer(plain, model, weights, 1), createScorer(lanes, model, weights, 8)]);
  keep(one);
  keep(two);
  const [wanted, found] = [await one.score(samples), await two.score(samples)];
  found.tokenLogProbs.forEach((value, i) => {
    expect(Math.abs(value - wanted.tokenLogProbs[i]!)).toBeLessThan(2e-5);
  });
});

describe("what prefixes promise", () => {
  const ratios = samples.logProbs.map((_, i) => 0.4 + (i % 3));
  const probe = Array.from({ length: 2 * model.width + 1 }, (_, k) => Math.cos(k) / model.width);

  test("a probe is read in the same pass as the scores, on lanes as in float64", async () => {
    const [wanted, found] = await Promise.all(
      [referenceDevice, lanes].map(async (device) => keep(await createScorer(device, model, weights, 8, probe)).score(samples)),
    );
    expect(found!.probed!.some((value) => value !== 0)).toBe(true);
    // Sums of 33 products of numbers of order one in float32.
    found!.probed!.forEach((value, i) => {
      expect(Math.abs(value - wanted!.probed![i]!)).toBeLessThan(2e-5);
    });
    const plainly = await keep(await createScorer(lanes, model, weights, 8)).score(samples);
    expect(plainly.tokenLogProbs).toEqual(found!.tokenLogProbs);
    expect(plainly).not.toHaveProperty("probed");
  });

  test("they are fitted to the same bits each time, whichever lane is first", async () => {
    const [once, again] = [
      await fitPrefixValue(lanes, model, weights, samples, ratios),
      await fitPrefixValue(lanes, model, weights, samples, ratios),
    ];
    expect(again).toEqual(once);
    const one = await fitPrefixValue(plain, model, weights, samples, ratios);
    // Rounding of float32 in the normal equations, times what a penalty of 1e-3 leaves of their condition.
    expect(Math.abs(one.explained - once.explained)).toBeLessThan(1e-3);
  });
});

describe("training", () => {
  const logTarget = samples.logProbs.map((value, i) => value + (i % 3));
  const step = async (device: Device, microBatch: number) => {
    const tuner = keep(
      await createTuner(device, model, methodOf({ name: "gdc++", baseline: "z" }), {
        adam: { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
        microBatch,
      }),
    );
    const batch = { samples, logBase: samples.logProbs, logTarget, logZ: 0.5 };
    const start = tuner.start(uploadAll(device, weights));
    const { state, report } = await tuner.step(start, batch, 1e-3);
    const moments = await readAll(state.adam.first);
    return { moments, report, first: await readAll(start.weights), again: (await tuner.step(start, batch, 1e-3)).report };
  };

  test("on two lanes, many micro-batches at once, is the step of one sequence after the other; the state that went in is as it was", async () => {
    const [wanted, found] = [await step(plain, 1), await step(lanes, 8)];
    expect(found.report.loss / wanted.report.loss).toBeCloseTo(1, 4);
    expect(found.report.gradNorm / wanted.report.gradNorm).toBeCloseTo(1, 4);
    found.report.logPolicy.forEach((value, b) => {
      expect(Math.abs(value - wanted.report.logPolicy[b]!)).toBeLessThan(2e-4);
    });
    // The first moments are a tenth of the clipped gradient, whose norm is 1: what rounding leaves of 70 sequences is far below a thousandth of it.
    for (const [name, { data }] of Object.entries(found.moments))
      data.forEach((value, i) => {
        expect(Math.abs(value - wanted.moments[name]!.data[i]!)).toBeLessThan(2e-6);
      });
    expect(found.first).toEqual(weights);
  });

  test("in place it takes the same steps, and what went in is gone; a step that is refused leaves it", async () => {
    const run = async (inPlace: boolean, epochs: number) => {
      const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
      const method = methodOf({ name: "gdc++", baseline: "z" });
      const tuner = keep(await createTuner(lanes, model, method, { adam, microBatch: 8, epochs, inPlace }));
      const batch = { samples, logBase: samples.logProbs, logTarget, logZ: 0.5 };
      const start = tuner.start(uploadAll(lanes, weights));
      const { state: first } = await tuner.step(start, batch, 1e-3);
      const refused = await tuner.step(first, { ...batch, logZ: Number.NEGATIVE_INFINITY }, 1e-3);
      expect([refused.report.finite, refused.state === first]).toEqual([false, true]);
      const { state } = await tuner.step(first, batch, 1e-3);
      const gone = (await Promise.allSettled([readAll(start.weights), readAll(first.adam.second)])).map(({ status }) => status);
      return { weights: await readAll(state.weights), moments: await readAll(state.adam.second), gone };
    };
    for (const epochs of [1, 2]) {
      const [apart, inPlace] = [await run(false, epochs), await run(true, epochs)];
      expect(apart.gone).toEqual(["fulfilled", "fulfilled"]);
      expect(inPlace.gone).toEqual(["rejected", "rejected"]);
      expect([inPlace.weights, inPlace.moments]).toEqual([apart.weights, apart.moments]);
    }
  });

  test("the same lanes do the same to the bit", async () => {
    const { report, again } = await step(lanes, 8);
    expect(again).toEqual(report);
  });
});

test("this thread goes on ticking while a lane works", async () => {
  // Forty products in one run: what would block the thread that makes it, for most of a second.
  const x = input("x", "f32", [1024, 1024]);
  const product = Array.from({ length: 40 }).reduce<Value>((y) => matmul(y, x), x);
  const program = keep(await lanes.lanes![0]!.compile({ inputs: { x }, outputs: { y: sum(product) } }));
  const given = { x: zeros("f32", [1024, 1024]) };
  const start = performance.now();
  let [longest, last] = [0, start];
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 5);
  await program.run(given);
  clearInterval(timer);
  const end = performance.now();
  longest = Math.max(longest, end - last);
  // What a Ctrl-C has to wait for at most; and far from the whole run, so that the run was long enough to tell.
  expect(longest).toBeLessThan(200);
  expect(longest).toBeLessThan((end - start) / 2);
});

test("a tensor that was given back, and a graph that fails, are errors and not the end of the lane", async () => {
  const [lane] = lanes.lanes!;
  const held = lane!.upload(weights["transformer.wte.weight"]!);
  held.dispose();
  await expect(held.read()).rejects.toThrow("was given back");
  const next = lane!.upload(weights["transformer.wpe.weight"]!);
  expect(await next.read()).toEqual(weights["transformer.wpe.weight"]);
});

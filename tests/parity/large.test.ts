/**
 * Models above the line (isLarge) are held as few times as possible: weights are read where they lie, gradients are added up in place, one
 * micro-batch at a time. It has to be what small ones do, who do none of it.
 */

import { expect, test } from "vitest";
import { keyOf } from "../../src/base/random.ts";
import { f32, scalar } from "../../src/base/tensor.ts";
import { lanesOf, type PlacedTensors, readAll, uploadAll } from "../../src/engine/runtime/device.ts";
import { openDevice } from "../../src/engine/runtime/open.node.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { createCausalModel, isLarge } from "../../src/models/causal-model.ts";
import { parseModelConfig } from "../../src/models/config.ts";
import { zerosOn } from "../../src/optim/adam.ts";
import { lanesFor } from "../../src/run/setup.ts";
import { createGenerator, samplingOf } from "../../src/sampling/generate.ts";
import { createScorer, teacherForcing } from "../../src/sampling/log-prob.ts";
import { methodOf } from "../../src/tuners/method.ts";
import { fitPrefixValue } from "../../src/tuners/prefix-value.ts";
import { createLaneTraining, createTraining } from "../../src/tuners/training.ts";
import { createKeep } from "../support/keep.ts";
import { tinyWeights, numberTokenizer as tokenizer } from "../support/tiny-model.ts";

// Nearly all of it is vocabulary, which is quick to multiply: 256 * 32,768 numbers are the line, and a layer is above it.
const sizes = { model_type: "gpt2", n_embd: 256, n_layer: 1, n_head: 4, n_positions: 16, vocab_size: 32_768 };
const config = parseModelConfig(sizes, "large");
const model = createCausalModel(config);
const weights = tinyWeights(config, 1, 0.05);
const device = openDevice("cpu", lanesFor(model));
const placed = uploadAll(device, weights);
const keep = createKeep();

const draw = async (from: PlacedTensors) =>
  keep(
    await createGenerator(device, model, from, {
      sampling: samplingOf(1, 1),
      prompt: [0],
      maxTokens: 8,
      endIds: Array.from({ length: 4000 }, (_, i) => i * 7),
      tokenizer,
      batch: 16,
    }),
  ).generate({ count: 20, key: keyOf(5, "large") });
const samples = await draw(weights);

test("the model is above the line, and has one lane", () => {
  expect(isLarge(model)).toBe(true);
  expect(lanesOf(device)).toHaveLength(1);
});

test("weights that lie on the device give the texts and scores of those that are passed to it", async () => {
  expect(new Set(samples.lengths).size).toBeGreaterThan(2);
  expect(await draw(placed)).toEqual(samples);
  const [given, read] = [keep(await createScorer(device, model, weights, 8)), await createScorer(device, model, placed, 8)];
  const scores = await given.score(samples);
  expect(await read.score(samples)).toEqual(scores);
  // Drawing and scoring multiply in other orders: float32 rounding.
  scores.logProbs.forEach((value, b) => {
    expect(Math.abs(value - samples.logProbs[b]!)).toBeLessThan(1e-4);
  });
  // They are not the scorer's to give back.
  await read.dispose();
  expect(await placed["transformer.ln_f.bias"]!.read()).toEqual(weights["transformer.ln_f.bias"]);
});

test("what prefixes promise is fitted to the same bits from weights that lie on the device and from those that are passed to it", async () => {
  const ratios = samples.logProbs.map((_, b) => 0.5 + (b % 2));
  const [found, wanted] = [
    await fitPrefixValue(device, model, placed, samples, ratios),
    await fitPrefixValue(device, model, weights, samples, ratios),
  ];
  expect(found).toEqual(wanted);
  expect(found.probe).toHaveLength(2 * model.width + 1);
  expect(found.probe.every(Number.isFinite)).toBe(true);
});

test("gradients that are added up in place are those that are not", async () => {
  const { objective } = methodOf({ name: "reinforce", baseline: "none" });
  const numberOf: Readonly<Record<string, (b: number) => number>> = {
    logProposal: (b) => samples.logProbs[b]!,
    reward: (b) => (b % 3) - 1,
  };
  const inputsOf = (indices: Int32Array) =>
    Object.fromEntries(
      Object.entries(objective.inputs).map(([name, { shape }]) => [
        name,
        shape.length === 0 ? scalar(1) : f32([indices.length], Float32Array.from(indices, numberOf[name]!)),
      ]),
    );
  const pieceOf = (indices: Int32Array) => ({ batch: teacherForcing(samples, indices), inputs: inputsOf(indices) });
  const inPlace = keep(await createLaneTraining(device, model, objective));
  const { gradients, pieces } = await inPlace.gradients(placed, samples.lengths, 6, pieceOf);
  expect(pieces.map(({ indices }) => indices.length)).toEqual([6, 6, 6, 2]);
  const plain = cpuDevice({ threads: 1 });
  const apart = keep(await createTraining(plain, model, objective));
  let sum = zerosOn(plain, model.parameterShapes);
  for (const { indices } of pieces) {
    const { batch, inputs } = pieceOf(indices);
    sum = (await apart.accumulate(uploadAll(plain, weights), sum, batch, inputs)).gradients;
  }
  const [found, wanted] = [await readAll(gradients[0]!), await readAll(sum)];
  for (const [name, held] of Object.entries(wanted)) {
    const data = held.data as Float32Array;
    const largest = data.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
    expect(largest).toBeGreaterThan(0);
    const farthest = data.reduce((top, value, i) => Math.max(top, Math.abs(value - found[name]!.data[i]!)), 0);
    // The same sums in the same order, by two threads and by one: float32 rounding at most.
    expect(farthest / largest).toBeLessThan(1e-5);
  }
});

/**
 * Models, gradients and optimizers against PyTorch: directories that transformers saved, and what torch makes of them in float64
 * (make.py, which also says what was computed how). The float64 reference device shares the formulas with the ONNX graphs,
 * so that it must agree almost to the last digit, and the CPU to float32's rounding.
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { tensor } from "../../src/base/tensor.ts";
import type { Device } from "../../src/engine/runtime/device.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { createCausalModel } from "../../src/models/causal-model.ts";
import { loadModelDirectory, type ModelDirectory, saveModelDirectory } from "../../src/models/directory.ts";
import { type AdamOptions, createOptimizer, type DeviceTensors, zerosOn } from "../../src/optim/adam.ts";
import { learningRateAt, type Schedule } from "../../src/optim/schedule.ts";
import { createScorer, forceRows } from "../../src/sampling/log-prob.ts";
import { likelihoodObjective } from "../../src/tuners/likelihood.ts";
import { createTraining } from "../../src/tuners/training.ts";

/** Weights after the steps: the first few of a tensor, and the mean of values[i] cos(i), which sees every value and its place. */
interface Digest {
  readonly first: readonly number[];
  readonly checksum: number;
}

interface GoldenSteps {
  readonly options: AdamOptions & { readonly learningRate: number };
  /** Before each step. */
  readonly loss: readonly number[];
  readonly gradNorm: readonly number[];
  readonly weights: Readonly<Record<string, Digest>>;
}

interface Golden {
  readonly rows: readonly number[][];
  readonly tokenLogProbs: readonly number[][];
  readonly loss: number;
  readonly optimizers: Readonly<Record<"adam" | "adamw" | "adamw-clipped", GoldenSteps>>;
}

const folder = fileURLToPath(new URL("models/", import.meta.url));
const readJson = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

/** The tensors of a safetensors file of F64, which src/models does not read: no model is stored so. */
const readFloat64 = (path: string): Record<string, Float64Array> => {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__, ...entries } = JSON.parse(bytes.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  return Object.fromEntries(
    Object.entries(entries).map(
      ([
        name,
        {
          dtype,
          data_offsets: [from, to],
        },
      ]) => {
        expect(dtype).toBe("F64");
        return [name, new Float64Array(bytes.buffer.slice(bytes.byteOffset + start + from, bytes.byteOffset + start + to))];
      },
    ),
  );
};

const largest = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
/** Largest |a - b|; NaN where a number is none, so that no bound holds. */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

const digestOf = (values: ArrayLike<number>): Digest => ({
  first: Array.from({ length: 4 }, (_, i) => values[i]!),
  checksum: Array.from(values).reduce((total, value, i) => total + value * Math.cos(i), 0) / values.length,
});

/** The log-probabilities of all tokens of the rows but the first of each, in one padded batch. */
const scoreRows = async (device: Device, { config, weights }: ModelDirectory, rows: readonly number[][]): Promise<number[][]> => {
  const scorer = await createScorer(device, createCausalModel(config), weights);
  const batch = forceRows(rows, 1);
  const scores = await scorer.scoreForced(batch);
  await scorer.dispose();
  return rows.map((row, i) => Array.from({ length: row.length - 1 }, (_, t) => scores[i * batch.length + t]!));
};

/** Loss in nats per token and its gradient, in two micro-batches of unequal padding. */
const createLossGradient = async (device: Device, { config }: ModelDirectory, rows: readonly number[][]) => {
  const model = createCausalModel(config);
  const training = await createTraining(device, model, likelihoodObjective);
  // In float64, so that the reference gets it unrounded.
  const scale = tensor("f64", [], [1 / rows.reduce((total, row) => total + row.length - 1, 0)]);
  return {
    dispose: () => training.dispose(),
    at: async (weights: DeviceTensors): Promise<{ loss: number; gradients: DeviceTensors }> => {
      let gradients = zerosOn(device, model.parameterShapes);
      let loss = 0;
      for (const part of [rows.slice(0, 1), rows.slice(1)]) {
        const { gradients: next, outputs } = await training.accumulate(weights, gradients, forceRows(part, 1), { scale });
        gradients = next;
        loss += outputs["loss"]!.data[0]!;
      }
      return { loss, gradients };
    },
  };
};

const upload = (device: Device, { weights }: ModelDirectory): DeviceTensors =>
  Object.fromEntries(Object.entries(weights).map(([name, held]) => [name, device.upload(held)]));

/** Largest deviations allowed, with what was seen. For scale: one GELU for the other moves log-probabilities by 4e-4 nats. */
const devices = [
  {
    device: referenceDevice,
    // The same float64 formulas in another order of sums: 3e-15 seen. Rotary tables are float32 numbers on both sides.
    nats: 1e-12,
    // Of the largest number of each tensor, 5e-15 seen.
    gradient: 1e-12,
    // The learning rate and the bias corrections reach the graph as float32, each 6e-8 off at most, in steps of 0.01: 2e-9 seen.
    weight: 1e-8,
    // What those weights change in the next loss and norm, 2e-8 seen.
    afterSteps: 2e-7,
  },
  {
    device: cpuDevice({ threads: 1 }),
    // float32 with logits of order 10, 2e-6 seen; transformers' own float32 pass is off by as much (float32Deviation in golden.json).
    nats: 2e-5,
    // Sums of float32 products of both signs, 4e-6 seen.
    gradient: 1e-4,
    // Adam divides the gradient by its own size, so that rounding counts relative to each number, not to the largest: 2e-7 seen.
    weight: 2e-6,
    afterSteps: 2e-5,
  },
];

let temporary = "";
beforeAll(() => {
  temporary = mkdtempSync(join(tmpdir(), "tiltlm-golden-"));
  return () => rmSync(temporary, { recursive: true, force: true });
});

describe.each(["gpt2", "gpt2-gelu", "llama", "llama-tied-bias"])("%s, saved by transformers", (name) => {
  const path = join(folder, name);
  const golden = readJson(join(path, "golden.json")) as Golden;
  let directory: ModelDirectory;
  beforeAll(async () => {
    directory = await loadModelDirectory(nodeFiles, path);
  });

  test("is saved again with the same log-probabilities, bit for bit", async () => {
    const copy = join(temporary, name);
    await saveModelDirectory(nodeFiles, copy, directory);
    const again = await loadModelDirectory(nodeFiles, copy);
    const scores = await scoreRows(referenceDevice, again, golden.rows);
    expect(scores).toEqual(await scoreRows(referenceDevice, directory, golden.rows));
    expect(largest(scores.flat())).toBeGreaterThan(1);
  });

  describe.each(devices)("on $device.name", ({ device, nats, gradient, weight, afterSteps }) => {
    let lossGradient: Awaited<ReturnType<typeof createLossGradient>>;
    beforeAll(async () => {
      lossGradient = await createLossGradient(device, directory, golden.rows);
      return () => lossGradient.dispose();
    });

    test("log-probabilities of tokens", async () => {
      const scores = await scoreRows(device, directory, golden.rows);
      expect(distance(scores.flat(), golden.tokenLogProbs.flat())).toBeLessThan(nats);
    });

    test("the gradient of each weight", async () => {
      const wanted = readFloat64(join(path, "gradient.safetensors"));
      const { loss, gradients } = await lossGradient.at(upload(device, directory));
      expect(Math.abs(loss - golden.loss)).toBeLessThan(nats);
      expect(Object.keys(gradients).sort()).toEqual(Object.keys(wanted).sort());
      for (const [weightName, values] of Object.entries(wanted)) {
        const found = (await gradients[weightName]!.read()).data;
        expect(distance(found, values) / largest(values), weightName).toBeLessThan(gradient);
      }
    });

    test.each(["adam", "adamw", "adamw-clipped"] as const)("three steps of %s", async (optimizerName) => {
      const { options, loss, gradNorm, weights } = golden.optimizers[optimizerName];
      const optimizer = await createOptimizer(device, createCausalModel(directory.config).parameterShapes, options);
      let current = upload(device, directory);
      let state = optimizer.start();
      for (let step = 0; step < loss.length; step++) {
        const found = await lossGradient.at(current);
        const norm = await optimizer.norm([found.gradients]);
        const { learningRate } = options;
        const updated = await optimizer.update(current, [found.gradients], state, { learningRate, gradNorm: norm });
        current = updated.weights;
        state = updated.state;
        expect(Math.abs(found.loss - loss[step]!)).toBeLessThan(afterSteps);
        expect(Math.abs(norm - gradNorm[step]!)).toBeLessThan(afterSteps);
      }
      await optimizer.dispose();
      expect(Object.keys(current).sort()).toEqual(Object.keys(weights).sort());
      for (const [weightName, { first, checksum }] of Object.entries(weights)) {
        const digest = digestOf((await current[weightName]!.read()).data);
        expect(distance(digest.first, first), weightName).toBeLessThan(weight);
        // A bias of all keys shifts all scores of a query alike, so that its gradient is zero; rounded to float32 it is not,
        // and Adam makes whole steps of it. They are a third of this tensor, which its checksum can see to no better than that.
        const isJointBias = weightName.endsWith("attn.c_attn.bias") && device.name === "cpu";
        expect(Math.abs(digest.checksum - checksum), weightName).toBeLessThan(isJointBias ? options.learningRate : weight);
      }
    });
  });
});

describe("learning rates by the schedulers of transformers", () => {
  const { schedules } = readJson(join(folder, "schedules.json")) as { schedules: Record<string, Schedule & { rates: number[] }> };
  test.each(Object.values(schedules))("$schedule, $warmupSteps of $steps steps to warm up", ({ rates, ...schedule }) => {
    expect(rates.length).toBe(schedule.steps);
    const found = rates.map((_, i) => learningRateAt(i + 1, schedule));
    // A few float64 operations; the cosine near zero loses what it subtracts from 1, hence relative to the peak.
    expect(distance(found, rates) / schedule.learningRate).toBeLessThan(1e-14);
  });
});

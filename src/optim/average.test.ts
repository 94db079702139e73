import { describe, expect, test } from "vitest";
import { mean } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { f32 } from "../base/tensor.ts";
import { type Device, uploadAll } from "../engine/runtime/device.ts";
import { cpuDevice } from "../engine/runtime/ort.node.ts";
import { referenceDevice } from "../engine/runtime/reference.ts";
import type { DeviceTensors } from "./adam.ts";
import { type AverageKind, averageStep, createAverager } from "./average.ts";

test("Polyak's share is 1/k, whatever the decay", () => {
  for (const decay of [0, 0.5, 0.99])
    expect([1, 2, 3, 1000].map((k) => averageStep("polyak", decay, k))).toEqual([1, 1 / 2, 1 / 3, 1 / 1000]);
});
test("the EMA's share is 1/k until that is less than 1 - decay", () => {
  expect([1, 2, 3, 4, 5, 100].map((k) => averageStep("ema", 0.75, k))).toEqual([1, 1 / 2, 1 / 3, 1 / 4, 1 / 4, 1 / 4]);
  // It never starts above its share: without memory it is the last weights.
  expect([1, 2, 3].map((k) => averageStep("ema", 0, k))).toEqual([1, 1, 1]);
});

const shapes = { matrix: [2, 3], vector: [4] };
const stream = streamOf(keyOf(1, "average"));
const steps = Array.from({ length: 12 }, () => ({
  matrix: f32(
    [2, 3],
    Float32Array.from({ length: 6 }, () => stream.normal()),
  ),
  vector: f32(
    [4],
    Float32Array.from({ length: 4 }, () => 5 + stream.normal()),
  ),
}));
const devices: readonly (readonly [string, Device])[] = [
  ["reference", referenceDevice],
  ["cpu", cpuDevice({ threads: 1 })],
];

describe.each(devices)("on %s", (_, device) => {
  /** The average after each step, flat; it begins with the first weights, as a run does. */
  const averages = async (kind: AverageKind, decay: number) => {
    const averager = await createAverager(device, shapes);
    const history: number[][] = [];
    let average: DeviceTensors = uploadAll(device, steps[0]!);
    for (const [i, weights] of steps.entries()) {
      average = await averager.include(average, uploadAll(device, weights), averageStep(kind, decay, i + 1));
      expect(Object.keys(average)).toEqual(Object.keys(shapes));
      history.push([...(await average["matrix"]!.read()).data, ...(await average["vector"]!.read()).data]);
    }
    await averager.dispose();
    return history;
  };
  const flat = steps.map(({ matrix, vector }) => [...matrix.data, ...vector.data]);
  // A dozen roundings of float32, of numbers up to 7: 5e-7 each at most. The share is float32 on every device.
  const close = (found: readonly number[], wanted: readonly number[]) => {
    expect(found.length).toBe(wanted.length);
    for (const [k, value] of wanted.entries()) expect(Math.abs(found[k]! - value)).toBeLessThan(5e-6);
  };
  const meanOf = (k: number) => flat[0]!.map((_value, j) => mean(flat.slice(0, k).map((weights) => weights[j]!)));

  test("Polyak is the plain mean of the weights so far, at every step", async () => {
    const found = await averages("polyak", 0.9);
    for (const [i, average] of found.entries()) close(average, meanOf(i + 1));
  });
  test("EMA is the plain mean for the first 1/(1 - decay) steps, then decay of what it was and the rest of what is new", async () => {
    const found = await averages("ema", 0.8);
    for (let k = 1; k <= 5; k++) close(found[k - 1]!, meanOf(k));
    let wanted = meanOf(5);
    for (let k = 6; k <= steps.length; k++) {
      wanted = wanted.map((value, j) => 0.8 * value + 0.2 * flat[k - 1]![j]!);
      close(found[k - 1]!, wanted);
    }
    // Which is not the mean of all.
    expect(Math.max(...wanted.map((value, j) => Math.abs(value - meanOf(steps.length)[j]!)))).toBeGreaterThan(0.05);
  });
  test("changes neither the average nor the weights that go in", async () => {
    const averager = await createAverager(device, shapes);
    const [average, weights] = [uploadAll(device, steps[0]!), uploadAll(device, steps[1]!)];
    const copies = [...steps[0]!.matrix.data, ...steps[1]!.matrix.data];
    await averager.include(average, weights, 0.25);
    expect([...(await average["matrix"]!.read()).data, ...(await weights["matrix"]!.read()).data]).toEqual(copies);
    await averager.dispose();
  });
});

test("gives its program back", async () => {
  let open = 0;
  const counting: Device = {
    ...referenceDevice,
    compile: async (graph, options) => {
      open++;
      const program = await referenceDevice.compile(graph, options);
      return {
        ...program,
        dispose: async () => {
          open--;
        },
      };
    },
  };
  const averager = await createAverager(counting, shapes);
  expect(open).toBe(1);
  await averager.dispose();
  expect(open).toBe(0);
});

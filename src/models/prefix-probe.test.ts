import { expect, test } from "vitest";
import { f32 } from "../base/tensor.ts";
import { evaluate } from "../engine/evaluate.ts";
import { input, mul, sum } from "../engine/ops/index.ts";
import { probeFeatures, probeSize, readProbe } from "./prefix-probe.ts";

const [batch, length, width] = [2, 3, 2];
const data = Float32Array.from({ length: batch * length * width }, (_, i) => Math.sin(1 + 2.3 * i));
const states = input("states", "f32", ["B", "T", width]);
const probe = input("probe", "f32", [probeSize(width)]);
const coefficients = Float32Array.of(0.5, -1, 2, 0.25, 0.75);
const found = evaluate(
  {
    inputs: { states, probe },
    outputs: {
      features: probeFeatures(states),
      read: readProbe(states, probe),
      linear: sum(mul(probeFeatures(states), probe), -1),
    },
  },
  { states: f32([batch, length, width], data), probe: f32([probeSize(width)], coefficients) },
);

test("the features of a place are its state, the mean of the states so far, and 1", () => {
  const { shape, data: features } = found["features"]!;
  expect(shape).toEqual([batch, length, probeSize(width)]);
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < length; t++) {
      const stateAt = (s: number) => [...data.subarray((b * length + s) * width, (b * length + s + 1) * width)];
      const mean = [0, 1].map(
        (k) => Array.from({ length: t + 1 }, (_, s) => stateAt(s)[k]!).reduce((x, y) => x + y, 0) / (t + 1),
      );
      const row = features.subarray((b * length + t) * probeSize(width), (b * length + t + 1) * probeSize(width));
      for (const [k, value] of [...stateAt(t), ...mean, 1].entries()) expect(row[k]).toBeCloseTo(value, 14);
    }
});

test("what a probe reads is linear in them", () => {
  expect(found["read"]!.shape).toEqual([batch, length]);
  for (const [i, value] of [...found["linear"]!.data].entries()) expect(found["read"]!.data[i]).toBeCloseTo(value, 13);
});

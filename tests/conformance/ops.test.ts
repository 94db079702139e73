/** Every op case on every device against the float64 interpreter: the result and the gradients, with named axes and with fixed ones. */

import { describe, expect, test } from "vitest";
import { type HostTensor, sizeOf, tensor } from "../../src/base/tensor.ts";
import { gradients } from "../../src/engine/autodiff.ts";
import { evaluate } from "../../src/engine/evaluate.ts";
import type { Graph } from "../../src/engine/graph.ts";
import { input, mul, sum } from "../../src/engine/ops/index.ts";
import type { Device } from "../../src/engine/runtime/device.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { resolveShape } from "../../src/engine/shape.ts";
import { buildCase, cases, dataOf, type OpCase } from "../support/op-cases.ts";

type Sizes = OpCase["sizes"][number];

/** Each device with its tolerance, relative to the larger of 1 and the value. */
const devices: readonly { readonly device: Device; readonly tolerance: number }[] = [
  // float32 rounds by 6e-8; the cases chain up to about ten roundings of numbers of order 1, and kernels of tanh, erf and exp add a few.
  { device: cpuDevice({ threads: 1 }), tolerance: 1e-6 },
];

/** The case's result and its gradients under a weighted sum. */
const graphOf = (spec: OpCase, sizes?: Sizes): Graph => {
  const { inputs, result } = buildCase(spec, sizes);
  if (spec.differentiable.length === 0) return { inputs, outputs: { result } };
  const weighting = input("weighting", "f32", result.shape);
  const slopes = gradients(
    sum(mul(result, weighting)),
    spec.differentiable.map((name) => inputs[name]!),
  );
  return {
    inputs: { ...inputs, weighting },
    outputs: { result, ...Object.fromEntries(slopes.map((slope, i) => [`d ${spec.differentiable[i]}`, slope])) },
  };
};

const feedsOf = (spec: OpCase, graph: Graph, sizes: Sizes): Record<string, HostTensor> => {
  const data = dataOf(spec, sizes);
  const weighting = graph.inputs["weighting"];
  if (weighting === undefined) return data;
  const shape = resolveShape(weighting.shape, new Map(Object.entries(sizes)));
  return {
    ...data,
    weighting: tensor(
      "f32",
      shape,
      Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.cos(i + 0.5)),
    ),
  };
};

const expectClose = (name: string, got: HostTensor, want: HostTensor, tolerance: number): void => {
  expect({ name, dtype: got.dtype, shape: got.shape }).toEqual({
    name,
    dtype: want.dtype === "f64" ? "f32" : want.dtype,
    shape: want.shape,
  });
  want.data.forEach((number, i) => {
    const other = got.data[i]!;
    if (want.dtype !== "f64" || !Number.isFinite(number)) expect(other, `${name}[${i}]`).toBe(number);
    else
      expect(
        Math.abs(other - number) / Math.max(1, Math.abs(number)),
        `${name}[${i}]: ${other}, not ${number}`,
      ).toBeLessThanOrEqual(tolerance);
  });
};

describe.each(devices.map((entry) => [entry.device.name, entry] as const))("%s", (_name, { device, tolerance }) => {
  test.each(cases.map((spec) => [spec.op, spec.title, spec] as const))("%s, %s", async (_op, _title, spec) => {
    const named = { graph: graphOf(spec), settings: spec.sizes };
    const fixed = { graph: graphOf(spec, spec.sizes[0]), settings: spec.sizes.slice(0, 1) };
    for (const { graph, settings } of [named, fixed]) {
      const program = await device.compile(graph);
      for (const sizes of settings) {
        const feeds = feedsOf(spec, graph, sizes);
        const got = await program.run(feeds);
        const want = evaluate(graph, feeds);
        expect(Object.keys(got)).toEqual(Object.keys(graph.outputs));
        for (const [name, held] of Object.entries(got)) expectClose(name, await held.read(), want[name]!, tolerance);
      }
      await program.dispose();
    }
  });
});

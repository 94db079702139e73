/**
 * Each op's gradient rule against differences of the float64 interpreter.
 * The loss is L = Σ w ⊙ op(x) with fixed unequal weights w, so that dL/dx tells all entries of the Jacobian apart.
 */

import { describe, expect, test } from "vitest";
import { type HostTensor, sizeOf, tensor } from "../../src/base/tensor.ts";
import { gradients } from "../../src/engine/autodiff.ts";
import { evaluate } from "../../src/engine/evaluate.ts";
import { ancestors, type Value } from "../../src/engine/graph.ts";
import { cast, input, mul, records, sum } from "../../src/engine/ops/index.ts";
import { resolveShape } from "../../src/engine/shape.ts";
import { buildCase, cases, dataOf } from "../support/op-cases.ts";

/** Step of the differences; data of the cases keep at least 1/10 away from kinks or are drawn once and for all. */
const step = 1e-4;

/**
 * The five-point stencil errs by step^4/30 times the fifth derivative (at most 1e8 here: 1/x at 0.1), relative to a gradient of 100,
 * and by rounding of about 1e-16/step times the loss (of order 10).
 */
const tolerance = 1e-10;

/** dL/dx at one element of an input: (L(-2h) - 8 L(-h) + 8 L(h) - L(2h)) / 12h. */
const difference = (loss: (x: HostTensor) => number, x: HostTensor, at: number): number => {
  const moved = (steps: number): number => {
    const data = Float64Array.from(x.data);
    data[at] = data[at]! + steps * step;
    return loss(tensor("f64", x.shape, data));
  };
  return (moved(-2) - 8 * moved(-1) + 8 * moved(1) - moved(2)) / (12 * step);
};

const weightsOf = (shape: readonly number[]): HostTensor =>
  tensor(
    "f64",
    shape,
    Float64Array.from({ length: sizeOf(shape) }, (_, i) => Math.cos(i + 0.5)),
  );

test.each(Object.keys(records))("op %s has a case", (name) => {
  const own = cases.filter(({ op }) => op === name);
  expect(own.some((spec) => ancestors([buildCase(spec).result]).some((value) => value.op === records[name]))).toBe(true);
  if (records[name]!.gradient !== "none") expect(own.some(({ differentiable }) => differentiable.length > 0)).toBe(true);
});

test("no two op records share a name, no two cases a title", () => {
  expect(new Set(cases.map(({ op, title }) => `${op}, ${title}`)).size).toBe(cases.length);
  expect(Object.entries(records).every(([name, op]) => op.name === name)).toBe(true);
});

describe("gradient rule", () => {
  const differentiable = cases.filter((spec) => spec.differentiable.length > 0 && records[spec.op]!.gradient !== "none");
  test.each(differentiable.map((spec) => [spec.op, spec.title, spec] as const))("%s, %s", (_op, _title, spec) => {
    const { inputs, result } = buildCase(spec);
    const weighting = input("weighting", "f32", result.shape);
    const loss = sum(mul(result, weighting));
    const named = { ...inputs, weighting };
    const wanted = spec.differentiable.map((name) => inputs[name]!);
    const slopes = gradients(loss, wanted);
    slopes.forEach((slope, i) => {
      expect({ dtype: slope.dtype, shape: slope.shape }).toEqual({ dtype: wanted[i]!.dtype, shape: wanted[i]!.shape });
    });
    for (const sizes of spec.sizes) {
      const data: Record<string, HostTensor> = {
        ...dataOf(spec, sizes),
        weighting: weightsOf(resolveShape(result.shape, new Map(Object.entries(sizes)))),
      };
      const computed = evaluate(
        { inputs: named, outputs: Object.fromEntries(slopes.map((slope, i) => [spec.differentiable[i]!, slope])) },
        data,
      );
      for (const name of spec.differentiable) {
        const x = data[name]!;
        const lossAt = (moved: HostTensor): number =>
          evaluate({ inputs: named, outputs: { loss } }, { ...data, [name]: moved })["loss"]!.data[0]!;
        x.data.forEach((_, at) => {
          const numeric = difference(lossAt, x, at);
          const error = Math.abs(computed[name]!.data[at]! - numeric) / Math.max(1, Math.abs(numeric));
          expect(error, `d ${name}[${at}]: ${computed[name]!.data[at]}, by differences ${numeric}`).toBeLessThanOrEqual(
            tolerance,
          );
        });
      }
    }
  });
});

describe("ops without a gradient", () => {
  const names = Object.keys(records).filter((name) => records[name]!.gradient === "none");

  test("are those known to be", () => {
    const leaves = ["input", "constant", "iota"];
    const steps = ["sign", "equal", "less", "lessOrEqual", "and", "not", "argMax", "cast"];
    expect(names.sort()).toEqual([...leaves, ...steps, "stopGradient", "count", "sortDescending"].sort());
  });

  test.each(
    cases
      .filter(({ op, title }) => names.includes(op) && title !== "fixed axes only")
      .map((spec) => [spec.op, spec.title, spec] as const),
  )("%s passes nothing back (%s)", (op, _title, spec) => {
    const { inputs, result } = buildCase(spec);
    const own = ancestors([result]).find((value) => value.op.name === op)!;
    const asked: readonly Value[] = own.inputs;
    const slopes = gradients(sum(own.dtype === "f32" ? own : cast(own, "f32")), asked);
    const outputs = Object.fromEntries(slopes.map((slope, i) => [`slope${i}`, slope]));
    const computed = evaluate({ inputs, outputs }, dataOf(spec, spec.sizes[0]));
    expect(Object.values(computed).every(({ data }) => data.every((number) => number === 0))).toBe(true);
  });
});

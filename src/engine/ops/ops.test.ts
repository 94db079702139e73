/** What ops refuse, and the interpreter's own numbers where it is the only oracle. Gradients and devices: tests/gradient, tests/conformance. */

import { describe, expect, test } from "vitest";
import { f32, type HostTensor, i32, tensor } from "../../base/tensor.ts";
import { evaluate } from "../evaluate.ts";
import type { Value } from "../graph.ts";
import * as ops from "./index.ts";
import { constant, input, table } from "./index.ts";

const x = input("x", "f32", ["B", 3]);
const k = input("k", "i32", ["B"]);
const flags = input("flags", "bool", ["B", 3]);

test.each<[() => Value, string]>([
  [() => ops.exp(k), "exp: expected inputs of dtype f32, got i32"],
  [() => ops.add(x, k), "add: expected two inputs of one dtype, got f32 and i32"],
  [() => ops.add(flags, flags), "add: expected inputs of dtype f32 or i32, got bool"],
  [() => ops.add(x, table([2], [1, 2])), "add: expected axes that are equal or 1, got [B, 3] and [2]"],
  [() => ops.and(x, x), "and: expected inputs of dtype bool, got f32"],
  [() => ops.not(x), "not: expected inputs of dtype bool, got f32"],
  [() => ops.where(x, x, x), "where: expected a bool and two inputs of one dtype, got f32, f32, f32"],
  [() => ops.where(flags, x, k), "where: expected a bool and two inputs of one dtype, got bool, f32, i32"],
  [() => ops.reshape(x, ["B", 4]), "reshape: expected as many elements as [B, 3], got [B, 4]"],
  [() => ops.reshape(x, ["T", 3]), "reshape: expected as many elements as [B, 3], got [T, 3]"],
  [() => ops.expand(x, ["B", 6]), "expand: expected axes that are equal or 1, got [B, 3] and [B, 6]"],
  [() => ops.expand(x, [3]), "expand: expected [3], got [B, 3]"],
  [() => ops.sum(x, 2), "sum: expected an axis below 2, got 2"],
  [() => ops.sum(flags), "sum: expected inputs of dtype f32 or i32, got bool"],
  [() => ops.mean(k), "mean: expected inputs of dtype f32, got i32"],
  [() => ops.max(flags), "max: expected inputs of dtype f32 or i32, got bool"],
  [() => ops.transpose(x, [0, 0]), "transpose: expected a permutation of the axes of [B, 3], got [0, 0]"],
  [() => ops.transpose(x, [0]), "transpose: expected a permutation of the axes of [B, 3], got [0]"],
  [() => ops.concat([x, table([1, 4], [1, 2, 3, 4])], 0), "concat: expected the shape [B, 3] but for axis 0, got [1, 4]"],
  [() => ops.concat([x, flags], 0), "concat: expected the shape [B, 3] but for axis 0, got [B, 3]"],
  [() => ops.slice(x, 1, 2, 4), "slice: expected a range within axis 1 of [B, 3], got 2..4"],
  [() => ops.slice(x, 1, 2, 1), "slice: expected a range within axis 1 of [B, 3], got 2..1"],
  [() => ops.slice(x, 0, -1, 1), "slice: expected a range within axis 0 of [B, 3], got -1..1"],
  [() => ops.pad(x, 1, -1, 0), "pad: expected non-negative amounts, got -1 and 0"],
  [() => ops.argMax(constant(1)), "argMax: expected at least one axis, got a scalar"],
  [() => ops.cumulativeSum(constant(1)), "cumulativeSum: expected at least one axis, got a scalar"],
  [() => ops.softmax(constant(1)), "softmax: expected at least one axis, got a scalar"],
  [() => ops.matmul(x, x), "matmul: expected equal batch axes and matching inner axes, got [B, 3] and [B, 3]"],
  [() => ops.matmul(k, k), "matmul: expected inputs of dtype f32, got i32"],
  [() => ops.gemm(x, x), "gemm: expected matching inner axes, got [B, 3] and [B, 3]"],
  [() => ops.gemm(x, x, table([3], [1, 2, 3]), { transposeB: true }), "gemm: expected a bias of shape [B] or [B, B], got [3]"],
  [() => ops.gatherRows(x, x), "gatherRows: expected integer indices, got f32"],
  [() => ops.scatterAddRows(x, input("k", "i32", ["T"]), 4), "addRows: expected updates of shape [T, 3], got [B, 3]"],
  [() => ops.addRows(k, x, k), "addRows: expected inputs of dtype f32, got i32"],
  [() => ops.takeLast(x, input("k", "i32", ["T"])), "takeLast: expected indices of shape [B], got [T]"],
  [() => ops.putLast(x, k, 4), "addLast: expected updates and indices of shape [B, 3], got [B]"],
  [() => ops.layerNorm(x, table([3], [1, 1, 1]), table([2], [0, 0]), 1e-5), "layerNorm: expected weights of shape [3], got [2]"],
  [() => ops.rmsNorm(x, table([1], [1]), 1e-5), "rmsNorm: expected weights of shape [3], got [1]"],
  [
    () => ops.linearLogProb(x, input("head", "f32", ["V", 3]), k),
    "linearLogProb: expected hidden [N, D] and a head [V, D] of fixed size, got [B, 3] and [V, 3]",
  ],
  [
    () => ops.linearLogProb(x, table([1, 3], [1, 2, 3]), x),
    "linearLogProb: expected integer labels of shape [B], got f32 [B, 3]",
  ],
])("refused while building: case %#", (build, message) => {
  expect(build).toThrow(message);
});

const valuesOf = (
  result: Value,
  inputs: Readonly<Record<string, Value>> = {},
  data: Readonly<Record<string, HostTensor>> = {},
): number[] => [...evaluate({ inputs, outputs: { result } }, data)["result"]!.data];

test("erf to 15 digits (values of Abramowitz and Stegun's function to 16 digits)", () => {
  const known = [
    [0, 0],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2, 0.9953222650189527],
    [3, 0.9999779095030014],
    [-1, -0.8427007929497149],
    [7, 1],
  ] as const;
  const got = valuesOf(
    ops.erf(
      constant(
        tensor(
          "f64",
          [known.length],
          Float64Array.from(known, ([at]) => at),
        ),
      ),
    ),
  );
  // The alternating series loses up to two digits below 2.5.
  for (const [i, number] of got.entries()) expect(Math.abs(number - known[i]![1])).toBeLessThan(2e-15);
  const [below, above] = valuesOf(ops.erf(constant(tensor("f64", [2], Float64Array.of(2.5 - 1e-12, 2.5 + 1e-12)))));
  // The two formulas meet: the slope at 2.5 is 0.0022, so the values differ by 4.4e-15 and what is left is rounding.
  expect(above! - below!).toBeGreaterThanOrEqual(-2e-14);
  expect(above! - below!).toBeLessThan(3e-14);
});

/** Equal to 14 decimals: numbers of order 1, a few roundings of 1e-16 each. */
const near = (got: readonly number[], want: readonly number[]): void => {
  expect(got.length).toBe(want.length);
  for (const [i, number] of got.entries()) expect(number).toBeCloseTo(want[i]!, 14);
};

test("composites by their formulas, written out", () => {
  const row = [0.5, -1, 2];
  const held = table([1, 3], row);
  const total = row.reduce((a, b) => a + Math.exp(b), 0);
  near(
    valuesOf(ops.softmax(held)),
    row.map((a) => Math.exp(a) / total),
  );
  near(
    valuesOf(ops.logSoftmax(held)),
    row.map((a) => a - Math.log(total)),
  );
  near(valuesOf(ops.logSumExp(held)), [Math.log(total)]);
  near(
    valuesOf(ops.silu(held)),
    row.map((a) => a / (1 + Math.exp(-a))),
  );
  near(
    valuesOf(ops.rmsNorm(held, table([3], [1, 2, 3]), 0.25)),
    row.map((a, i) => (a * (i + 1)) / Math.sqrt(5.25 / 3 + 0.25)),
  );
  near(
    valuesOf(ops.layerNorm(held, table([3], [1, 2, 3]), table([3], [4, 5, 6]), 0.25)),
    row.map((a, i) => ((a - 0.5) * (i + 1)) / Math.sqrt(4.5 / 3 + 0.25) + 4 + i),
  );
});

test("linearLogProb is log softmax(hidden · headᵀ) at the labels, whatever the chunk", () => {
  const hidden = table([2, 2], [1, -1, 0.5, 2]);
  const head = table([3, 2], [0.25, 1, -1, 0.5, 2, 0]);
  const labels = constant(i32([2], [2, 0]));
  const direct = valuesOf(ops.takeLast(ops.logSoftmax(ops.gemm(hidden, head, undefined, { transposeB: true })), labels));
  for (const chunk of [1, 2, 3, 4096]) near(valuesOf(ops.linearLogProb(hidden, head, labels, chunk)), direct);
});

describe("the interpreter refuses", () => {
  const rows = input("rows", "f32", ["R", 2]);
  const at = input("at", "i32", ["N"]);
  const data = { rows: f32([2, 2], [1, 2, 3, 4]), at: i32([2], [0, -1]) };

  test.each<[string, Value, string]>([
    ["a negative row", ops.gatherRows(rows, at), "gatherRows: expected indices within 0..1, got -1"],
    [
      "a negative row to add to",
      ops.scatterAddRows(table([2, 1], [1, 2]), constant(i32([2], [0, -1])), 5),
      "addRows: expected indices within 0..4, got -1",
    ],
    ["a slice past a named axis", ops.slice(rows, 0, 1, 3), "slice: expected a range within axis 0 of [2, 2], got 1..3"],
  ])("%s", (_what, result, message) => {
    expect(() => valuesOf(result, { rows, at }, data)).toThrow(message);
  });

  test("an input that the graph does not name", () => {
    expect(() => valuesOf(ops.neg(rows))).toThrow(
      'evaluate: expected every input to be named in the graph, got a free input "rows"; list it among the graph\'s inputs',
    );
  });
});

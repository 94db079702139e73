import { expect, test } from "vitest";
import { f32, i32, scalar } from "../base/tensor.ts";
import { gradients } from "./autodiff.ts";
import { evaluate } from "./evaluate.ts";
import { apply, type Graph, type Value } from "./graph.ts";
import * as ops from "./ops/index.ts";
import { abs, add, input, max, maximum, mul, relu, stopGradient, sum } from "./ops/index.ts";

/** The gradients' numbers. */
const slopesOf = (
  output: Value,
  inputs: Readonly<Record<string, Value>>,
  data: Parameters<typeof evaluate>[1],
  of: readonly Value[] = Object.values(inputs),
) => {
  const graph: Graph = { inputs, outputs: Object.fromEntries(gradients(output, of).map((slope, i) => [String(i), slope])) };
  return Object.values(evaluate(graph, data)).map(({ data }) => [...data]);
};

test("gradients add up over all uses of a value", () => {
  const x = input("x", "f32", []);
  // d/dx (x + x² + x · x³) = 1 + 2x + 4x³
  const cube = mul(mul(x, x), x);
  expect(slopesOf(add(add(x, mul(x, x)), mul(x, cube)), { x }, { x: scalar(2) })).toEqual([[1 + 4 + 32]]);
});

test("a value inside the graph can be differentiated by, and so can the output", () => {
  const x = input("x", "f32", [2]);
  const square = mul(x, x);
  const loss = sum(mul(square, 3));
  expect(slopesOf(loss, { x }, { x: f32([2], [1, -2]) }, [square, x, loss])).toEqual([[3, 3], [6, -12], [1]]);
});

test("what the output does not depend on gets zeros of its shape", () => {
  const x = input("x", "f32", []);
  const y = input("y", "f32", ["B", 2]);
  const k = input("k", "i32", [2]);
  const slopes = slopesOf(mul(x, x), { x, y, k }, { x: scalar(3), y: f32([3, 2], [1, 2, 3, 4, 5, 6]), k: i32([2], [1, 2]) });
  expect(slopes).toEqual([[6], [0, 0, 0, 0, 0, 0], [0, 0]]);
});

test("an output with axes is refused", () => {
  const x = input("x", "f32", ["B", 2]);
  expect(() => gradients(x, [x])).toThrow("gradients: expected a scalar output, got shape [B, 2]; sum it first");
});

test("stopGradient blocks its own path only", () => {
  const x = input("x", "f32", []);
  // x · stop(x²): the derivative is x², not 3x²
  expect(slopesOf(mul(x, stopGradient(mul(x, x))), { x }, { x: scalar(3) })).toEqual([[9]]);
});

test("a gradient does not pass through integers", () => {
  const x = input("x", "f32", [2]);
  const rounded = ops.cast(ops.cast(x, "i32"), "f32");
  expect(slopesOf(sum(mul(rounded, x)), { x }, { x: f32([2], [1.5, 2.5]) })).toEqual([[1, 2]]);
});

test("where sends exactly 0 to what it did not choose, even from an infinite gradient", () => {
  const x = input("x", "f32", [2]);
  const negative = ops.less(x, 0);
  // √ has slope 1/0 at the place where 0 was chosen; 0 times that would be NaN.
  for (const chosen of [ops.where(negative, 0, x), ops.where(ops.not(negative), x, 0)]) {
    expect(slopesOf(sum(ops.sqrt(chosen)), { x }, { x: f32([2], [-1, 4]) })).toEqual([[0, 0.25]]);
  }
});

test("a path that is not asked for is not built", () => {
  const calls: string[] = [];
  const gradient = (g: Value) => {
    calls.push("exp");
    return [g];
  };
  const spied = apply({ ...ops.expOp, gradient }, [input("y", "f32", [])], null);
  const x = input("x", "f32", []);
  gradients(mul(x, spied), [x]);
  expect(calls).toEqual([]);
  gradients(mul(x, spied), [spied.inputs[0]!]);
  expect(calls).toEqual(["exp"]);
});

test("second derivatives: the gradient of a gradient", () => {
  const x = input("x", "f32", []);
  const [first] = gradients(ops.exp(mul(x, x)), [x]);
  // d²/dx² exp(x²) = (2 + 4x²) exp(x²)
  expect(slopesOf(first!, { x }, { x: scalar(0.5) })[0]![0]).toBeCloseTo(3 * Math.exp(0.25), 12);
});

test("a chain as long as a deep model does not exhaust the stack", () => {
  const x = input("x", "f32", []);
  let y: Value = x;
  for (let i = 0; i < 20_000; i++) y = add(y, 1);
  expect(slopesOf(y, { x }, { x: scalar(0) })).toEqual([[1]]);
});

test("at kinks and ties: relu and abs send 0, maximum sends all to the first, max shares", () => {
  const x = input("x", "f32", [3]);
  const y = input("y", "f32", [3]);
  const data = { x: f32([3], [0, 1, 1]), y: f32([3], [0, 1, 2]) };
  expect(slopesOf(sum(add(relu(x), abs(x))), { x, y }, data)[0]).toEqual([0, 2, 2]);
  expect(slopesOf(sum(maximum(x, y)), { x, y }, data)).toEqual([
    [1, 1, 0],
    [0, 0, 1],
  ]);
  expect(slopesOf(max(x), { x, y }, data)[0]).toEqual([0, 0.5, 0.5]);
});

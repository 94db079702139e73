import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { f32, type HostTensor, i32, tensor } from "../base/tensor.ts";
import { gradients } from "./autodiff.ts";
import { evaluate } from "./evaluate.ts";
import { ancestors, type Graph, type Value } from "./graph.ts";
import * as ops from "./ops/index.ts";
import { add, constant, div, expand, input, iota, mul, neg, stopGradient, sub, sum, table } from "./ops/index.ts";
import type { Shape } from "./shape.ts";
import { simplify } from "./simplify.ts";

const x = input("x", "f32", ["B", 3]);
const y = input("y", "f32", ["B", 3]);
const s = input("s", "f32", []);
const k = input("k", "i32", [3]);
const inputs = { x, y, s, k };

/** What the result has become. */
const simplified = (result: Value): Value => simplify({ inputs, outputs: { result } }).outputs["result"]!;
const stepsOf = (graph: Graph): string[] => ancestors(Object.values(graph.outputs)).map((value) => value.op.name);
const steps = (...results: Value[]): string[] =>
  stepsOf(simplify({ inputs, outputs: Object.fromEntries(results.map((result, i) => [String(i), result])) }));
const count = (names: readonly string[], name: string): number => names.filter((other) => other === name).length;

describe("sums that a kernel makes on its way", () => {
  const w = input("w", "f32", [3, 3]);
  const given = { ...inputs, w };
  const stepsWith = (...results: Value[]): string[] =>
    stepsOf(simplify({ inputs: given, outputs: Object.fromEntries(results.map((result, i) => [String(i), result])) }));
  const product = ops.gemm(x, w);
  const scattered = ops.scatterAddRows(x, input("at", "i32", ["B"]), 3);

  test("x + a b is one product, on either side", () => {
    expect(stepsWith(add(y, product))).not.toContain("add");
    expect(stepsWith(add(product, y))).not.toContain("add");
  });

  test("rows added to zeros are added to the table instead", () => {
    expect(stepsWith(add(w, scattered))).not.toContain("expand");
    expect(stepsWith(add(w, scattered))).not.toContain("add");
  });

  test.each<[string, Value[]]>([
    ["a product that is used elsewhere too", [add(y, product), neg(product)]],
    ["a product that is an output", [add(y, product), product]],
    ["a product that has a bias", [add(y, ops.gemm(x, w, table([3], [1, 2, 3])))]],
    ["a product that is repeated for the sum", [add(input("z", "f32", [2, 3]), ops.gemm(table([1, 3], [1, 2, 3]), w))]],
    ["rows added to something else", [add(w, ops.addRows(w, x, input("at", "i32", ["B"])))]],
  ])("%s stays", (_title, results) => {
    expect(stepsWith(...results)).toContain("add");
  });
});

describe("what was cut is put together, not padded and added", () => {
  const [a, b, c] = [ops.slice(x, 1, 0, 1), ops.slice(x, 1, 1, 2), ops.slice(y, 1, 2, 3)];
  const padded = (part: Value, before: number): Value => ops.pad(part, 1, before, 2 - before);
  test.each<[string, Value]>([
    ["in order", add(add(padded(a, 0), padded(b, 1)), padded(c, 2))],
    ["the last first", add(add(padded(c, 2), padded(b, 1)), padded(a, 0))],
  ])("three slices, %s", (_title, value) => {
    const names = steps(value);
    expect([count(names, "concat"), count(names, "pad"), count(names, "add")]).toEqual([1, 0, 0]);
  });
  test.each<[string, Value]>([
    ["that overlap", add(padded(ops.slice(x, 1, 0, 1), 0), ops.pad(ops.slice(y, 1, 0, 2), 1, 0, 1))],
    ["with a gap between", add(padded(a, 0), padded(c, 2))],
  ])("slices %s stay", (_title, value) => {
    expect(count(steps(value), "add")).toBe(1);
  });
});

describe("operations that change nothing are dropped", () => {
  test.each<[string, Value]>([
    ["x * 1", mul(x, 1)],
    ["1 * x", mul(1, x)],
    ["x / 1", div(x, 1)],
    ["x + 0", add(x, 0)],
    ["0 + x", add(0, x)],
    ["x - 0", sub(x, 0)],
    ["-(-x)", neg(neg(x))],
    ["stopGradient(x)", stopGradient(x)],
    ["x * expand(1)", mul(x, expand(constant(1), ["B", 3]))],
    ["x + expand(0), of fixed size", add(x, expand(constant(0), [1, 3]))],
    ["all of them", neg(neg(add(mul(stopGradient(x), 1), 0)))],
  ])("%s", (_title, value) => {
    expect(simplified(value)).toBe(x);
  });

  test("the same on integers", () => {
    expect(simplified(add(mul(k, constant(i32([], [1]))), constant(i32([], [0]))))).toBe(k);
  });
});

describe("operations that change something stay", () => {
  test.each<[string, Value, string]>([
    ["0 - x", sub(0, x), "sub"],
    ["1 / x", div(1, x), "div"],
    ["x + 0, where broadcasting gives x an axis", add(x, table([1, 1, 1], [0])), "add"],
    ["s * 1, where broadcasting makes s a matrix", mul(s, expand(constant(1), [2, 3])), "expand"],
    ["s * 1, where broadcasting gives s two axes", mul(s, table([1, 1], [1])), "mul"],
    ["1 * s, where broadcasting gives s two axes", mul(table([1, 1], [1]), s), "mul"],
    ["s / 1, where broadcasting gives s two axes", div(s, table([1, 1], [1])), "div"],
    ["x * 0, which is NaN at infinity", mul(x, 0), "mul"],
    ["x - x, which is NaN at infinity", sub(x, x), "sub"],
    ["x + (0, 0, 1)", add(x, table([3], [0, 0, 1])), "add"],
    ["-x", neg(x), "neg"],
  ])("%s", (_title, value, name) => {
    expect(simplified(value).shape).toEqual(value.shape);
    expect(stepsOf({ inputs, outputs: { value: simplified(value) } })).toContain(name);
  });
});

describe("repetition that broadcasting does anyway is dropped", () => {
  test("on either side", () => {
    const row = sum(x, -1, { keep: true });
    expect(steps(mul(expand(row, x.shape), y))).not.toContain("expand");
    expect(steps(sub(y, expand(row, x.shape)))).not.toContain("expand");
  });

  test("on both sides when the shape still comes out", () => {
    const column = input("column", "f32", ["B", 1]);
    const row = input("row", "f32", [3]);
    const both = simplify({
      inputs: { column, row },
      outputs: { both: ops.maximum(expand(column, ["B", 3]), expand(row, ["B", 3])) },
    });
    expect(stepsOf(both)).toEqual(["input", "input", "maximum"]);
  });

  test("but not where it makes the shape", () => {
    const result = add(expand(s, [2, 3]), expand(s, [2, 3]));
    expect(simplified(result).shape).toEqual([2, 3]);
    expect(count(steps(result), "expand")).toBe(1);
  });
});

describe("equal values become one", () => {
  test.each<[string, Value, Value]>([
    ["ops", mul(x, y), mul(x, y)],
    ["attributes", sum(x, 1), sum(x, 1)],
    ["small constants", add(x, 2.5), add(x, constant(2.5))],
    ["whole chains", neg(add(x, mul(y, 3))), neg(add(x, mul(y, 3)))],
  ])("equal %s", (_title, a, b) => {
    const { outputs } = simplify({ inputs, outputs: { a, b } });
    expect(outputs["a"]).toBe(outputs["b"]);
  });

  const numbers = Array.from({ length: 17 }, (_, i) => i);
  test.each<[string, Value, Value]>([
    ["order of inputs", sub(x, y), sub(y, x)],
    ["axes", sum(x, 0), sum(x, 1)],
    ["kept axes", sum(x, 1), sum(x, 1, { keep: true })],
    ["dtypes", ops.cast(k, "f32"), k],
    ["constants", add(x, 2), add(x, 3)],
    ["constants of other shapes", add(x, table([1], [2])), add(x, table([1, 1, 1], [2]))],
    ["constants of other dtypes", constant(i32([], [1])), constant(1)],
    ["zeros of other signs", div(1, constant(0)), div(1, constant(-0))],
    [
      "large constants",
      add(table([17], numbers), s),
      add(
        table(
          [17],
          numbers.map((i) => i + 1),
        ),
        s,
      ),
    ],
    ["named axes", iota("B"), iota("T")],
  ])("other %s stay apart", (_title, a, b) => {
    const { outputs } = simplify({ inputs, outputs: { a, b } });
    expect(outputs["a"]).not.toBe(outputs["b"]);
  });

  test("inputs stay apart, whatever they are called", () => {
    const again = input("x", "f32", ["B", 3]);
    const graph = simplify({ inputs: { x, again }, outputs: { result: sub(x, again) } });
    expect(stepsOf(graph)).toEqual(["input", "input", "sub"]);
  });
});

describe("constants are worked out", () => {
  test("numbers, tables and integers", () => {
    expect(steps(mul(x, ops.exp(mul(add(2, 3), 0.5))))).toEqual(["input", "constant", "mul"]);
    const integers = simplified(sum(mul(constant(i32([3], [1, 2, 3])), constant(i32([], [2]))), 0));
    expect(integers.attributes).toEqual({ tensor: i32([], [12]) });
    expect(integers.dtype).toBe("i32");
    const compared = simplified(ops.less(constant(1), constant(2)));
    expect(compared.attributes).toEqual({ tensor: tensor("bool", [], [1]) });
  });

  test("in float64: a third of three is one, and goes away", () => {
    expect(simplified(mul(x, mul(div(1, constant(3)), 3)))).toBe(x);
  });

  test("but not into large or unknown sizes", () => {
    expect(steps(ops.pad(table([1], [1]), 0, 0, 5000))).toEqual(["constant", "pad"]);
    expect(steps(expand(constant(1), ["B", 2]))).toEqual(["constant", "expand"]);
  });
});

test("dead code goes, inputs keep their names", () => {
  const graph = { inputs, outputs: { result: mul(x, y) } };
  const { inputs: kept, outputs } = simplify(graph);
  expect(kept).toBe(inputs);
  expect(stepsOf({ inputs, outputs })).toEqual(["input", "input", "mul"]);
});

test("a gradient loses its needless steps", () => {
  const [slope] = gradients(sum(mul(x, y)), [x]);
  expect(simplified(slope!)).toBe(y);
});

/** Random expressions over shapes that broadcast with each other. Division is by constants only, so that the sign of zero cannot show. */
const shapes: readonly Shape[] = [[], [1], [3], [2, 1], [2, 3]];
const leaves = (): Value[] => [
  ...shapes.map((shape, i) => input(`f${i}`, "f32", shape)),
  ...[0, 1, 2, -1].map((number) => constant(number)),
  table([3], [0, 0, 0]),
  table([2, 1], [1, 1]),
  table([1, 1], [0]),
  table([1, 1], [1]),
  constant(Number.NEGATIVE_INFINITY),
];
const rules: readonly ((a: Value, b: Value) => Value)[] = [
  add,
  sub,
  mul,
  ops.maximum,
  ops.minimum,
  (a) => div(a, 1),
  (a) => div(a, -2),
  (a) => neg(a),
  (a) => neg(neg(a)),
  (a) => stopGradient(a),
  (a) => ops.tanh(a),
  (a) => expand(a, [2, 3]),
  (a, b) => ops.where(ops.less(a, b), a, b),
  (a, b) => ops.cast(ops.equal(a, b), "f32"),
  (a) => (a.shape.length === 0 ? a : sum(a, -1, { keep: true })),
  (a) => (a.shape.length === 0 ? a : ops.max(a, 0, { keep: true })),
  (a) => ops.mean(a),
  (a) => ops.reshape(ops.transpose(expand(a, [2, 3]), [1, 0]), [2, 3]),
  (a, b) => ops.slice(ops.concat([expand(a, [2, 3]), expand(b, [2, 3])], 1), 1, 1, 4),
];

test("property: a random graph computes the same as before, in no more steps", () => {
  const program = fc.array(fc.tuple(fc.nat(rules.length - 1), fc.nat(1000), fc.nat(1000)), { minLength: 1, maxLength: 24 });
  fc.assert(
    fc.property(program, fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 15, maxLength: 15 }), (lines, numbers) => {
      const values = leaves();
      const given = Object.fromEntries(values.slice(0, shapes.length).map((value, i) => [`f${i}`, value]));
      for (const [rule, a, b] of lines) values.push(rules[rule]!(values[a % values.length]!, values[b % values.length]!));
      const last = values.slice(-3);
      const graph: Graph = {
        inputs: given,
        outputs: {
          ...Object.fromEntries(last.map((value, i) => [`r${i}`, value])),
          slope: gradients(sum(last[2]!), [values[4]!])[0]!,
        },
      };
      const data: Record<string, HostTensor> = Object.fromEntries(
        shapes.map((shape, i) => [
          `f${i}`,
          f32(
            shape as number[],
            numbers.slice(i, i + shape.reduce<number>((n, size) => n * (size as number), 1)).map((number) => number / 2),
          ),
        ]),
      );
      const before = evaluate(graph, data);
      const smaller = simplify(graph);
      const after = evaluate(smaller, data);
      expect(stepsOf(smaller).length).toBeLessThanOrEqual(stepsOf(graph).length);
      for (const [name, { shape, data: wanted }] of Object.entries(before)) {
        expect(after[name]!.shape).toEqual(shape);
        // Exactly, but for the sign of zero: x + 0 is taken for x, which turns 0 into -0 where x is -0.
        expect(Array.from(after[name]!.data, (number) => number + 0)).toEqual(Array.from(wanted, (number) => number + 0));
      }
      expect(stepsOf(simplify(smaller)).length).toBeLessThanOrEqual(stepsOf(smaller).length);
    }),
    { numRuns: 300 },
  );
});

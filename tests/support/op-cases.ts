/**
 * One small graph per op and per way of using it: what the gradient and the conformance tests go through.
 * Shapes are written with named axes; `sizes` says what the names stand for, and every case is run with both settings, once with
 * names in its graph and once with the numbers put in.
 */

import { keyOf, type Stream, streamOf } from "../../src/base/random.ts";
import { type DType, f32, type HostTensor, i32, sizeOf, tensor } from "../../src/base/tensor.ts";
import type { Value } from "../../src/engine/graph.ts";
import * as ops from "../../src/engine/ops/index.ts";
import { count } from "../../src/engine/ops/index.ts";
import { type Axis, resolveAxis, type Shape } from "../../src/engine/shape.ts";

/** Draws the data of an input of the given concrete shape. */
type Fill = (shape: readonly number[], stream: Stream) => HostTensor;

interface InputCase {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly fill: Fill;
}

/** Replaces the names of axes by numbers, or leaves them: for shapes that are attributes. */
type At = <A extends Axis | Shape>(axes: A) => A;

export interface OpCase {
  /** Name of the op record that the case is about. */
  readonly op: string;
  readonly title: string;
  readonly inputs: Readonly<Record<string, InputCase>>;
  /** Inputs that the result depends on smoothly around the data: their gradients are compared. */
  readonly differentiable: readonly string[];
  /** Two settings of the named axes. */
  readonly sizes: readonly [Readonly<Record<string, number>>, Readonly<Record<string, number>>];
  build(inputs: Readonly<Record<string, Value>>, at: At): Value;
}

/** A case with its graph. */
export interface BuiltCase {
  readonly inputs: Readonly<Record<string, Value>>;
  readonly result: Value;
}

/** The case's values: with named axes, or with the numbers of `sizes` in their place. */
export const buildCase = (spec: OpCase, sizes?: Readonly<Record<string, number>>): BuiltCase => {
  const bindings = new Map(Object.entries(sizes ?? {}));
  const place = (axis: Axis): Axis => (sizes === undefined ? axis : resolveAxis(axis, bindings));
  const at = ((axes: Axis | Shape) => (typeof axes === "object" ? axes.map(place) : place(axes))) as At;
  const inputs = Object.fromEntries(
    Object.entries(spec.inputs).map(([name, { dtype, shape }]) => [name, ops.input(name, dtype, at(shape))]),
  );
  return { inputs, result: spec.build(inputs, at) };
};

/** Data for the case's inputs, the same every time. */
export const dataOf = (spec: OpCase, sizes: Readonly<Record<string, number>>): Record<string, HostTensor> => {
  const bindings = new Map(Object.entries(sizes));
  return Object.fromEntries(
    Object.entries(spec.inputs).map(([name, { shape, fill }]) => [
      name,
      fill(
        shape.map((axis) => resolveAxis(axis, bindings)),
        streamOf(keyOf(12, `${spec.op}, ${spec.title}: ${name}`)),
      ),
    ]),
  );
};

const drawn =
  (draw: (stream: Stream) => number): Fill =>
  (shape, stream) =>
    f32(
      shape,
      Float32Array.from({ length: sizeOf(shape) }, () => draw(stream)),
    );

const normal = (...shape: Axis[]): InputCase => ({ dtype: "f32", shape, fill: drawn((stream) => stream.normal()) });
/** Between 0.5 and 2. */
const positive = (...shape: Axis[]): InputCase => ({
  dtype: "f32",
  shape,
  fill: drawn((stream) => 0.5 + 1.5 * stream.uniform()),
});
/** Between -2 and 2 but at least 0.1 away from 0, where abs and relu have a kink. */
const awayFromZero = (...shape: Axis[]): InputCase => ({
  dtype: "f32",
  shape,
  fill: drawn((stream) => (stream.uniform() < 0.5 ? -1 : 1) * (0.1 + 1.9 * stream.uniform())),
});
/** Multiples of 1/2: exact in float32, with many ties. */
const halves = (...shape: Axis[]): InputCase => ({ dtype: "f32", shape, fill: drawn((stream) => (stream.integer(9) - 4) / 2) });
/** All different, at least 1/4 apart. */
const distinct = (...shape: Axis[]): InputCase => ({
  dtype: "f32",
  shape,
  fill: (concrete, stream) => {
    const size = sizeOf(concrete);
    const order = Array.from({ length: size }, (_, i) => ({ i, by: stream.uniform() })).sort((a, b) => a.by - b.by);
    return f32(
      concrete,
      Float32Array.from(order, ({ i }) => i / 4 - size / 8),
    );
  },
});
/** From -bound + 1 to bound - 1. */
const signed = (bound: number, ...shape: Axis[]): InputCase => ({
  dtype: "i32",
  shape,
  fill: (concrete, stream) =>
    i32(
      concrete,
      Int32Array.from({ length: sizeOf(concrete) }, () => stream.integer(2 * bound - 1) - bound + 1),
    ),
});
/** Indices below `bound`. */
const indices = (bound: number, ...shape: Axis[]): InputCase => ({
  dtype: "i32",
  shape,
  fill: (concrete, stream) =>
    i32(
      concrete,
      Int32Array.from({ length: sizeOf(concrete) }, () => stream.integer(bound)),
    ),
});
const booleans = (...shape: Axis[]): InputCase => ({
  dtype: "bool",
  shape,
  fill: (concrete, stream) =>
    tensor(
      "bool",
      concrete,
      Uint8Array.from({ length: sizeOf(concrete) }, () => stream.integer(2)),
    ),
});
/** These numbers, over and over. */
const repeating = (values: readonly number[], ...shape: Axis[]): InputCase => ({
  dtype: "f32",
  shape,
  fill: (concrete) =>
    f32(
      concrete,
      Float32Array.from({ length: sizeOf(concrete) }, (_, i) => values[i % values.length]!),
    ),
});

interface CaseOptions {
  readonly differentiable?: readonly string[];
  readonly sizes?: OpCase["sizes"];
}

const usualSizes = [
  { B: 2, T: 3, N: 4 },
  { B: 5, T: 1, N: 7 },
] as const;

/** A case. All float inputs are differentiable unless it says otherwise. */
const of = (op: string, title: string, inputs: OpCase["inputs"], build: OpCase["build"], options: CaseOptions = {}): OpCase => ({
  op,
  title,
  inputs,
  build,
  sizes: options.sizes ?? usualSizes,
  differentiable:
    options.differentiable ??
    Object.entries(inputs)
      .filter(([, { dtype }]) => dtype === "f32")
      .map(([name]) => name),
});

const none = { differentiable: [] } as const;

const sources: readonly OpCase[] = [
  of("input", "passes through", { x: normal("B", 3) }, ({ x }) => x!),
  of("constant", "a number", { x: normal("B") }, ({ x }) => ops.add(x!, ops.constant(2.5))),
  of("constant", "a table", { x: normal("B", 3) }, ({ x }) => ops.mul(x!, ops.table([3], [1, -2, 0.25]))),
  of("constant", "integers", { x: signed(9, "B", 2) }, ({ x }) => ops.add(x!, ops.constant(i32([2], [7, -1])))),
  of("constant", "booleans", { x: booleans("B", 2) }, ({ x }) => ops.and(x!, ops.constant(tensor("bool", [2], [1, 0])))),
  of("constant", "zero elements", { x: normal("B", 3) }, ({ x }) => ops.concat([x!, ops.table([0, 3], [])], 0), none),
  of("iota", "a fixed axis", { x: signed(9, 4) }, ({ x }) => ops.add(x!, ops.iota(4))),
  of("iota", "a named axis", { x: signed(9, "T") }, ({ x }, at) => ops.add(x!, ops.iota(at("T")))),
  of("iota", "a product of axes", { x: signed(9, "B", "T") }, ({ x }, at) =>
    ops.add(ops.reshape(x!, at(["B*T"])), ops.iota(at("B*T"))),
  ),
  of(
    "iota",
    "an axis and one more",
    { x: normal("T") },
    ({ x }, at) => ops.mul(ops.pad(x!, 0, 1, 0), ops.cast(ops.iota(at("T+1")), "f32")),
    {
      differentiable: [],
    },
  ),
];

const layouts: readonly OpCase[] = [
  of("reshape", "split and join named axes", { x: normal("B", "T", 4) }, ({ x }, at) => ops.reshape(x!, at(["B*T", 2, 2]))),
  of("reshape", "a product apart", { x: normal("B*T", 4), y: normal("B", "T") }, ({ x, y }, at) =>
    ops.mul(ops.reshape(x!, at(["B", "T", 4])), ops.reshape(y!, at(["B", "T", 1]))),
  ),
  of("reshape", "two names swap places", { x: normal("B", 2, "T") }, ({ x }, at) => ops.reshape(x!, at(["T", 2, "B"]))),
  of("reshape", "one number to and from a scalar", { x: normal(1, 1) }, ({ x }) =>
    ops.reshape(ops.exp(ops.reshape(x!, [])), [1]),
  ),
  of("reshape", "zero elements", { x: normal("B", 0, 3) }, ({ x }, at) => ops.reshape(x!, at([3, 0, "B"]))),
  of("reshape", "a named axis of size zero", { x: normal("B", "T", 6) }, ({ x }, at) => ops.reshape(x!, at(["B", "T", 2, 3])), {
    sizes: [
      { B: 2, T: 3 },
      { B: 2, T: 0 },
    ],
  }),
  of("reshape", "integers", { x: signed(9, "B", 4) }, ({ x }, at) => ops.reshape(x!, at(["B", 2, 2]))),
  of("expand", "new and repeated axes", { x: normal("B", 1), y: normal("T", 1, 1) }, ({ x, y }, at) =>
    ops.mul(ops.expand(x!, at(["T", "B", 3])), y!),
  ),
  of("expand", "a scalar", { x: normal() }, ({ x }) => ops.expand(x!, [2, 3])),
  of("expand", "a named axis of size one", { x: normal("B", 1, 2), y: normal("T") }, ({ x, y }, at) =>
    ops.add(ops.expand(x!, at(["B", "T", 2])), ops.reshape(y!, at(["T", 1]))),
  ),
  of("expand", "booleans", { x: booleans("B", 1) }, ({ x }, at) => ops.expand(x!, at(["B", 3]))),
  of("sum", "all axes", { x: normal("B", 3) }, ({ x }) => ops.sum(x!)),
  of("sum", "the last axis, kept", { x: normal("B", "T", 3) }, ({ x }) => ops.sum(x!, -1, { keep: true })),
  of("sum", "two axes of three", { x: normal("B", "T", 3) }, ({ x }) => ops.sum(x!, [-1, 0])),
  of("sum", "an axis named twice", { x: normal("B", 3) }, ({ x }) => ops.sum(x!, [1, -1])),
  of("sum", "a scalar", { x: normal() }, ({ x }) => ops.sum(x!)),
  of("sum", "integers", { x: signed(9, "B", 3) }, ({ x }) => ops.div(ops.sum(x!, 1), ops.constant(i32([], [2])))),
  of("sum", "an empty axis", { x: normal("B", "T") }, ({ x }) => ops.sum(x!, 1), {
    sizes: [
      { B: 2, T: 3 },
      { B: 2, T: 0 },
    ],
  }),
  of("transpose", "two axes", { x: normal("B", 3) }, ({ x }) => ops.transpose(x!, [1, 0])),
  of("transpose", "a cycle of four", { x: normal("B", "T", 2, 3) }, ({ x }) => ops.transpose(x!, [2, 0, 3, 1])),
  of("transpose", "integers", { x: signed(9, "B", 3) }, ({ x }) => ops.transpose(x!, [1, 0])),
  of("concat", "three parts along the last axis", { x: normal("B", 2), y: normal("B", 1), z: normal("B", 3) }, ({ x, y, z }) =>
    ops.concat([x!, y!, z!], -1),
  ),
  of("concat", "named axes add up", { x: normal("T", 2), y: normal("N", 2) }, ({ x, y }) => ops.concat([x!, y!, x!], 0), none),
  of("concat", "an empty part", { x: normal("T", 2), y: normal("B", 2) }, ({ x, y }) => ops.concat([x!, y!], 0), {
    ...none,
    sizes: [
      { T: 0, B: 2 },
      { T: 3, B: 1 },
    ],
  }),
  of("concat", "integers, the first axis", { x: signed(9, 2, "B"), y: signed(9, 1, "B") }, ({ x, y }) => ops.concat([x!, y!], 0)),
  of("slice", "the middle of an axis", { x: normal("B", 5, 2) }, ({ x }) => ops.slice(x!, -2, 1, 3)),
  of("slice", "the first of a named axis", { x: normal("T", 2) }, ({ x }) => ops.slice(x!, 0, 0, 1), none),
  of("slice", "nothing", { x: normal("B", 3) }, ({ x }) => ops.slice(x!, 1, 2, 2)),
  of("slice", "booleans", { x: booleans("B", 3) }, ({ x }) => ops.slice(x!, 1, 1, 3)),
  of("pad", "both sides", { x: normal("B", 3) }, ({ x }) => ops.pad(x!, 1, 2, 1)),
  of("pad", "a named axis", { x: normal("T", 2) }, ({ x }) => ops.pad(x!, 0, 0, 2), none),
  of("pad", "integers", { x: signed(9, "B", 2) }, ({ x }) => ops.pad(x!, -1, 1, 0)),
  of("count", "fixed and named axes", { x: normal("B", 3, "T") }, ({ x }) => ops.mul(x!, count(x!, [0, 1, 2]))),
  of("count", "fixed axes only", { x: normal("B", 3, 2) }, ({ x }) => ops.mul(x!, count(x!, [1, 2]))),
  of(
    "count",
    "a product and a sum of axes",
    { x: normal("B*T", "T+1"), y: normal("B", "T") },
    ({ x, y }) => ops.mul(y!, count(x!, [0, 1])),
    {
      differentiable: ["y"],
    },
  ),
];

/** Unary ops over numbers that suit them. */
const unary = (
  op: string,
  f: (x: Value) => Value,
  input: (...shape: Axis[]) => InputCase,
  options: CaseOptions = {},
): readonly OpCase[] => [
  of(op, "a matrix", { x: input("B", 3) }, ({ x }) => f(x!), options),
  of(op, "a scalar", { x: input() }, ({ x }) => f(x!), options),
];

/** The ways in which two inputs broadcast. */
const binary = (
  op: string,
  f: (a: Value, b: Value) => Value,
  a: (...shape: Axis[]) => InputCase,
  b: (...shape: Axis[]) => InputCase,
  options: CaseOptions = {},
): readonly OpCase[] => [
  of(op, "equal shapes", { a: a("B", 3), b: b("B", 3) }, ({ a, b }) => f(a!, b!), options),
  of(op, "a row and a column", { a: a("B", 1), b: b("T") }, ({ a, b }) => f(a!, b!), options),
  of(op, "a scalar on the left", { a: a(), b: b("B", 2) }, ({ a, b }) => f(a!, b!), options),
  of(op, "the right one has more axes of size one", { a: a("B", 3), b: b(1, "T", 1, 3) }, ({ a, b }) => f(a!, b!), options),
];

const integerPair = { a: signed(9, "B", 3), b: signed(9, 3) };

const elementwise: readonly OpCase[] = [
  ...unary("neg", ops.neg, normal),
  ...unary("exp", ops.exp, normal),
  of("exp", "minus infinity", { x: repeating([Number.NEGATIVE_INFINITY, 0, -200], "B", 3) }, ({ x }) => ops.exp(x!), none),
  ...unary("log", ops.log, positive),
  of("log", "zero", { x: repeating([0, 1], "B", 2) }, ({ x }) => ops.log(x!), none),
  ...unary("sqrt", ops.sqrt, positive),
  ...unary("reciprocal", ops.reciprocal, awayFromZero),
  ...unary("tanh", ops.tanh, normal),
  of("tanh", "far out", { x: repeating([-80, -12, 12, 80], "B", 4) }, ({ x }) => ops.tanh(x!)),
  ...unary("sigmoid", ops.sigmoid, normal),
  of("sigmoid", "far out", { x: repeating([-80, -20, 20, 80], "B", 4) }, ({ x }) => ops.sigmoid(x!)),
  ...unary("abs", ops.abs, awayFromZero),
  ...unary("sign", ops.sign, awayFromZero, none),
  of("sign", "zero", { x: repeating([0, 3, -3], "B", 3) }, ({ x }) => ops.sign(x!), none),
  ...unary("erf", ops.erf, normal),
  of("erf", "small and far out", { x: repeating([-5, -2.6, -2.4, 0, 1e-3, 2.4, 2.6, 5], "B", 8) }, ({ x }) => ops.erf(x!)),
  ...unary("relu", ops.relu, awayFromZero),
  ...unary("sin", ops.sin, normal),
  ...unary("cos", ops.cos, normal),
  ...unary("stopGradient", ops.stopGradient, normal, none),
  ...binary("add", ops.add, normal, normal),
  of("add", "integers", integerPair, ({ a, b }) => ops.add(a!, b!)),
  of("add", "twice the same", { x: normal("B") }, ({ x }) => ops.add(x!, x!)),
  ...binary("sub", ops.sub, normal, normal),
  of("sub", "integers", integerPair, ({ a, b }) => ops.sub(a!, b!)),
  ...binary("mul", ops.mul, normal, normal),
  of("mul", "integers", integerPair, ({ a, b }) => ops.mul(a!, b!)),
  of("mul", "twice the same", { x: normal("B") }, ({ x }) => ops.mul(x!, x!)),
  ...binary("div", ops.div, normal, awayFromZero),
  of("div", "integers, towards zero", { a: signed(9, "B", 3) }, ({ a }) => ops.div(a!, ops.constant(i32([3], [2, -2, 3])))),
  ...binary("maximum", ops.maximum, halves, normal),
  of("maximum", "ties go to the first", { a: halves("B", 8), b: halves("B", 8) }, ({ a, b }) => ops.maximum(a!, b!), none),
  of("maximum", "integers", integerPair, ({ a, b }) => ops.maximum(a!, b!)),
  ...binary("minimum", ops.minimum, halves, normal),
  of("minimum", "integers", integerPair, ({ a, b }) => ops.minimum(a!, b!)),
  ...binary("equal", ops.equal, halves, halves, none),
  of("equal", "integers", integerPair, ({ a, b }) => ops.equal(a!, b!)),
  of("equal", "booleans", { a: booleans("B", 4), b: booleans(4) }, ({ a, b }) => ops.equal(a!, b!)),
  ...binary("less", ops.less, halves, halves, none),
  of("less", "integers", integerPair, ({ a, b }) => ops.less(a!, b!)),
  ...binary("lessOrEqual", ops.lessOrEqual, halves, halves, none),
  of("lessOrEqual", "integers", integerPair, ({ a, b }) => ops.lessOrEqual(a!, b!)),
  of("and", "broadcast", { a: booleans("B", 1), b: booleans("T") }, ({ a, b }) => ops.and(a!, b!)),
  of("not", "a matrix", { x: booleans("B", 3) }, ({ x }) => ops.not(x!)),
  of("where", "equal shapes", { c: booleans("B", 3), a: normal("B", 3), b: normal("B", 3) }, ({ c, a, b }) =>
    ops.where(c!, a!, b!),
  ),
  of("where", "all three broadcast", { c: booleans("B", 1, 1), a: normal("T", 1), b: normal(3) }, ({ c, a, b }) =>
    ops.where(c!, a!, b!),
  ),
  of(
    "where",
    "a mask of minus infinity",
    { c: booleans("B", 4), a: normal("B", 4) },
    ({ c, a }) => ops.where(c!, a!, Number.NEGATIVE_INFINITY),
    none,
  ),
  of(
    "where",
    "infinities and NaN that are not chosen",
    {
      c: {
        ...booleans("B", 4),
        fill: (shape) =>
          tensor(
            "bool",
            shape,
            Uint8Array.from({ length: sizeOf(shape) }, (_, i) => i % 2),
          ),
      },
      a: repeating([Number.POSITIVE_INFINITY, 2, Number.NaN, 3], "B", 4),
    },
    ({ c, a }) => ops.where(c!, a!, 0.5),
  ),
  of("where", "integers", { c: booleans("B", 3), a: signed(9, "B", 3), b: signed(9, 3) }, ({ c, a, b }) => ops.where(c!, a!, b!)),
  of("cast", "integers to floats", { x: signed(99, "B", 3) }, ({ x }) => ops.cast(x!, "f32")),
  of("cast", "booleans to floats", { x: booleans("B", 3) }, ({ x }) => ops.cast(x!, "f32")),
  of("cast", "booleans to integers", { x: booleans("B", 3) }, ({ x }) => ops.cast(x!, "i32")),
  of(
    "cast",
    "floats to integers, towards zero",
    { x: repeating([-1.75, -0.5, 0.5, 1.75, 3], "B", 5) },
    ({ x }) => ops.cast(x!, "i32"),
    none,
  ),
];

const reductions: readonly OpCase[] = [
  of("max", "the last axis, kept", { x: distinct("B", "T", 3) }, ({ x }) => ops.max(x!, -1, { keep: true })),
  of("max", "two axes of three", { x: distinct("B", "T", 3) }, ({ x }) => ops.max(x!, [0, 2])),
  of("max", "all axes", { x: distinct("B", 3) }, ({ x }) => ops.max(x!)),
  of("max", "ties share", { x: halves("B", 8) }, ({ x }) => ops.max(x!, -1), none),
  of(
    "max",
    "minus infinity",
    { x: repeating([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 0], "B", 2, 3) },
    ({ x }) => ops.max(x!, 1),
    none,
  ),
  of("max", "integers", { x: signed(99, "B", 3) }, ({ x }) => ops.max(x!, 0)),
  of("max", "no axes", { x: normal("B", 3) }, ({ x }) => ops.max(x!, [])),
  of("mean", "all axes", { x: normal("B", 3) }, ({ x }) => ops.mean(x!)),
  of("mean", "a named axis", { x: normal("B", "T", 3) }, ({ x }) => ops.mean(x!, 1)),
  of("mean", "two axes, kept", { x: normal("B", "T", 3) }, ({ x }) => ops.mean(x!, [-1, -3], { keep: true })),
  of("mean", "no axes", { x: normal("B", 3) }, ({ x }) => ops.mean(x!, [])),
  of("mean", "an axis named twice", { x: normal("B", 3) }, ({ x }) => ops.mean(x!, [1, -1])),
  of("mean", "a scalar", { x: normal() }, ({ x }) => ops.mean(x!)),
  of("argMax", "the first of ties", { x: halves("B", "T", 16) }, ({ x }) => ops.argMax(x!), none),
  of("argMax", "one of one", { x: normal("B", 1) }, ({ x }) => ops.argMax(x!), none),
  of("cumulativeSum", "forwards", { x: normal("B", "T", 4) }, ({ x }) => ops.cumulativeSum(x!)),
  of("cumulativeSum", "backwards along a named axis", { x: normal("B", "T") }, ({ x }) =>
    ops.cumulativeSum(x!, { reverse: true }),
  ),
  of("cumulativeSum", "integers", { x: signed(9, "B", 5) }, ({ x }) => ops.cumulativeSum(x!)),
  of("sortDescending", "with ties", { x: halves("B", 9) }, ({ x }) => ops.sortDescending(x!), none),
  of("sortDescending", "a named axis", { x: normal(2, "T") }, ({ x }) => ops.sortDescending(x!), none),
  of("sortDescending", "integers", { x: signed(9, "B", 5) }, ({ x }) => ops.sortDescending(x!)),
];

/** Axes [rows, inner] of a and [inner, columns] of b, swapped where they are to be transposed. */
const swapIf = (swap: boolean, [first, second]: readonly [Axis, Axis]): Axis[] => (swap ? [second, first] : [first, second]);

const transposes = [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
] as const;

const products: readonly OpCase[] = [
  ...transposes.flatMap(([transposeA, transposeB]) => {
    const title = `${transposeA ? "aᵀ" : "a"} ${transposeB ? "bᵀ" : "b"}`;
    const options = { transposeA, transposeB };
    const a = swapIf(transposeA, ["B", 4]);
    const b = swapIf(transposeB, [4, 3]);
    return [
      of("gemm", `${title} and a bias`, { a: normal(...a), b: normal(...b), bias: normal(3) }, ({ a, b, bias }) =>
        ops.gemm(a!, b!, bias, options),
      ),
      of("gemm", `${title} and a matrix`, { a: normal(...a), b: normal(...b), more: normal("B", 3) }, ({ a, b, more }) =>
        ops.gemm(a!, b!, more, options),
      ),
      of("gemm", title, { a: normal(...a), b: normal(...b) }, ({ a, b }) => ops.gemm(a!, b!, undefined, options)),
      of("matmul", `${title}, matrices`, { a: normal(...a), b: normal(...b) }, ({ a, b }) => ops.matmul(a!, b!, options)),
      of("matmul", `${title}, one batch axis`, { a: normal("T", ...a), b: normal("T", ...b) }, ({ a, b }) =>
        ops.matmul(a!, b!, options),
      ),
      of(
        "matmul",
        `${title}, two batch axes`,
        { a: normal("B", 2, ...swapIf(transposeA, ["T", 3])), b: normal("B", 2, ...swapIf(transposeB, [3, "T"])) },
        ({ a, b }) => ops.matmul(a!, b!, options),
      ),
    ];
  }),
  of("matmul", "a named inner axis", { a: normal("B", 2, "T"), b: normal("B", "T", 3) }, ({ a, b }) => ops.matmul(a!, b!)),
  of("matmul", "a scaled product", { a: normal("B", 2, 3), b: normal("B", "T", 3) }, ({ a, b }) =>
    ops.mul(ops.matmul(a!, b!, { transposeB: true }), 0.5),
  ),
  of("matmul", "scaled by itself", { a: normal("B", 2, 3), b: normal("B", 3, "T") }, ({ a, b }) =>
    ops.matmul(a!, b!, { scale: 0.5 }),
  ),
  of("matmul", "an empty inner axis", { a: normal("B", 0), b: normal(0, 3) }, ({ a, b }) => ops.matmul(a!, b!)),
  of("gemm", "a row", { a: normal(1, 4), b: normal(4, 2), bias: normal(2) }, ({ a, b, bias }) => ops.gemm(a!, b!, bias)),
];

const lookups: readonly OpCase[] = [
  of("gatherRows", "an embedding", { rows: normal(5, 3), at: indices(5, "B", "T") }, ({ rows, at }) =>
    ops.gatherRows(rows!, at!),
  ),
  of("gatherRows", "a vector", { rows: normal(5), at: indices(5, "N") }, ({ rows, at }) => ops.gatherRows(rows!, at!)),
  of("gatherRows", "one index", { rows: normal("N", 2, 3), at: indices(4, 1) }, ({ rows, at }) =>
    ops.gatherRows(rows!, ops.reshape(at!, [])),
  ),
  of("gatherRows", "integers", { rows: signed(9, 5, 2), at: indices(5, "B") }, ({ rows, at }) => ops.gatherRows(rows!, at!)),
  of("addRows", "rows that meet", { updates: normal("N", 3), at: indices(2, "N") }, ({ updates, at }) =>
    ops.scatterAddRows(updates!, at!, 4),
  ),
  of("addRows", "two index axes", { updates: normal("B", "T", 2, 2), at: indices(3, "B", "T") }, ({ updates, at }) =>
    ops.scatterAddRows(updates!, at!, 3),
  ),
  of("addRows", "numbers into a vector", { updates: normal("N"), at: indices(3, "N") }, ({ updates, at }) =>
    ops.scatterAddRows(updates!, at!, 3),
  ),
  of("addRows", "one index", { updates: normal(3), at: indices(4, 1) }, ({ updates, at }) =>
    ops.scatterAddRows(updates!, ops.reshape(at!, []), 4),
  ),
  of(
    "addRows",
    "a named number of rows",
    { updates: normal("B", 3), at: indices(2, "B"), like: normal("N") },
    ({ updates, at }, axes) => ops.scatterAddRows(updates!, at!, axes("N")),
    {
      differentiable: ["updates"],
    },
  ),
  of("addRows", "to a table", { table: normal(4, 3), updates: normal("N", 3), at: indices(2, "N") }, ({ table, updates, at }) =>
    ops.addRows(table!, updates!, at!),
  ),
  of("takeLast", "a matrix", { x: normal("B", 4), at: indices(4, "B") }, ({ x, at }) => ops.takeLast(x!, at!)),
  of("takeLast", "two axes before", { x: normal("B", "T", 4), at: indices(4, "B", "T") }, ({ x, at }) => ops.takeLast(x!, at!)),
  of("takeLast", "a vector", { x: normal(4), at: indices(4, 1) }, ({ x, at }) => ops.takeLast(x!, ops.reshape(at!, []))),
  of("takeLast", "integers", { x: signed(9, "B", 4), at: indices(4, "B") }, ({ x, at }) => ops.takeLast(x!, at!)),
  of(
    "addLast",
    "a named width",
    { x: normal("B"), at: indices(3, "B"), like: normal("N") },
    ({ x, at }, axes) => ops.putLast(x!, at!, axes("N")),
    {
      differentiable: ["x"],
    },
  ),
  of("addLast", "to numbers", { x: normal("B", "T", 4), more: normal("B", "T"), at: indices(4, "B", "T") }, ({ x, more, at }) =>
    ops.addLast(x!, more!, at!),
  ),
  of("addLast", "a vector", { x: normal("B"), at: indices(4, "B") }, ({ x, at }) => ops.putLast(x!, at!, 4)),
  of("addLast", "a matrix", { x: normal("B", "T"), at: indices(1, "B", "T") }, ({ x, at }) => ops.putLast(x!, at!, 1)),
];

const head = (v: number, n: Axis = "N"): OpCase["inputs"] => ({
  hidden: normal(n, 3),
  head: normal(v, 3),
  labels: indices(v, n),
});

const composites: readonly OpCase[] = [
  of("softmax", "a matrix", { x: normal("B", 4) }, ({ x }) => ops.softmax(x!)),
  of("softmax", "three axes", { x: normal("B", "T", 5) }, ({ x }) => ops.softmax(x!)),
  of("softmax", "a named last axis", { x: normal("B", "T") }, ({ x }) => ops.softmax(x!)),
  of(
    "softmax",
    "large numbers and minus infinity",
    { x: repeating([900, 901, Number.NEGATIVE_INFINITY, -900], "B", 4) },
    ({ x }) => ops.softmax(x!),
    none,
  ),
  of("gelu", "a matrix", { x: normal("B", 5) }, ({ x }) => ops.gelu(x!)),
  of("gelu", "far out", { x: repeating([-30, -6, -2, 0, 2, 6, 30], "B", 7) }, ({ x }) => ops.gelu(x!)),
  of("layerNorm", "two axes before", { x: normal("B", "T", 6), scale: normal(6), bias: normal(6) }, ({ x, scale, bias }) =>
    ops.layerNorm(x!, scale!, bias!, 1e-5),
  ),
  of("layerNorm", "a large epsilon", { x: normal("B", 4), scale: normal(4), bias: normal(4) }, ({ x, scale, bias }) =>
    ops.layerNorm(x!, scale!, bias!, 0.5),
  ),
  of("layerNorm", "one column", { x: normal("B", 1), scale: normal(1), bias: normal(1) }, ({ x, scale, bias }) =>
    ops.layerNorm(x!, scale!, bias!, 0.1),
  ),
  of("rmsNorm", "two axes before", { x: normal("B", "T", 6), scale: normal(6) }, ({ x, scale }) => ops.rmsNorm(x!, scale!, 1e-5)),
  of("rmsNorm", "a large epsilon", { x: normal("B", 4), scale: normal(4) }, ({ x, scale }) => ops.rmsNorm(x!, scale!, 0.5)),
  of("linearLogProb", "one chunk", head(7), ({ hidden, head, labels }) => ops.linearLogProb(hidden!, head!, labels!)),
  of("linearLogProb", "a last chunk that is smaller", head(7), ({ hidden, head, labels }) =>
    ops.linearLogProb(hidden!, head!, labels!, 3),
  ),
  of(
    "linearLogProb",
    "chunks that fit, a product of axes",
    { ...head(6, "B*T"), weights: normal("B", "T") },
    ({ hidden, head, labels, weights }, at) =>
      ops.mul(ops.reshape(ops.linearLogProb(hidden!, head!, labels!, 2), at(["B", "T"])), weights!),
  ),
  of("linearLogProb", "one word", head(1), ({ hidden, head, labels }) => ops.linearLogProb(hidden!, head!, labels!, 1)),
];

export const cases: readonly OpCase[] = [
  ...sources,
  ...layouts,
  ...elementwise,
  ...reductions,
  ...products,
  ...lookups,
  ...composites,
];

/** Ops on single elements, with NumPy broadcasting for two and three inputs. */

import { allocate, type DType, type HostTensor, sizeOf } from "../../base/tensor.ts";
import { apply, defineOp, type Op, type Value } from "../graph.ts";
import { broadcastShapes, needDTypes, shapeError } from "../shape.ts";
import { broadcastStrides, offsetsOf, sumTo } from "./layout.ts";
import { constant } from "./source.ts";

export type Operand = Value | number;
const lift = (x: Operand): Value => (typeof x === "number" ? constant(x) : x);

const computed = (dtype: DType): DType => (dtype === "f32" ? "f64" : dtype);

const map = (x: HostTensor, dtype: DType, f: (a: number) => number): HostTensor => {
  const data = allocate(dtype, x.data.length);
  for (let i = 0; i < data.length; i++) data[i] = f(x.data[i]!);
  return { dtype, shape: x.shape, data };
};

const zip = (
  inputs: readonly HostTensor[],
  shape: readonly number[],
  dtype: DType,
  f: (...xs: number[]) => number,
): HostTensor => {
  const offsets = inputs.map((x) => offsetsOf(shape, broadcastStrides(x.shape, shape)));
  const data = allocate(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = f(...inputs.map((x, k) => x.data[offsets[k]![i]!]!));
  return { dtype, shape, data };
};

interface Unary {
  readonly name: string;
  readonly onnx: string;
  readonly f: (a: number) => number;
  /** Gradient sent back, from that of the result g, the input x and the result y. */
  readonly gradient: ((g: Value, x: Value, y: Value) => Value) | "none";
}

const unary = ({ name, onnx, f, gradient }: Unary): Op<null> =>
  defineOp<null>({
    name,
    infer: ([x]) => {
      needDTypes(name, [x!], ["f32"]);
      return { dtype: "f32", shape: x!.shape };
    },
    gradient: gradient === "none" ? "none" : (g, value) => [gradient(g, value.inputs[0]!, value)],
    evaluate: ([x]) => map(x!, "f64", f),
    lower: (emit, inputs) => emit.node(onnx, inputs),
  });

interface Binary {
  readonly name: string;
  readonly onnx: string;
  readonly f: (a: number, b: number) => number;
  readonly gradient: ((g: Value, a: Value, b: Value, y: Value) => readonly [Value, Value]) | "none";
  readonly result?: "bool";
  /** Numbers unless said otherwise. */
  readonly operands?: readonly DType[];
}

const binary = ({ name, onnx, f, gradient, result, operands = ["f32", "i32"] }: Binary): Op<null> =>
  defineOp<null>({
    name,
    infer: ([a, b]) => {
      needDTypes(name, [a!, b!], operands);
      if (a!.dtype !== b!.dtype) throw shapeError(name, "two inputs of one dtype", `${a!.dtype} and ${b!.dtype}`);
      return { dtype: result ?? a!.dtype, shape: broadcastShapes(name, a!.shape, b!.shape) };
    },
    gradient:
      gradient === "none"
        ? "none"
        : (g, value) => {
            const [a, b] = value.inputs as [Value, Value];
            const [toA, toB] = gradient(g, a, b, value);
            return [sumTo(toA, a.shape), sumTo(toB, b.shape)];
          },
    evaluate: ([a, b], _, shape) => zip([a!, b!], shape, result ?? computed(a!.dtype), f),
    lower: (emit, inputs) => emit.node(onnx, inputs),
  });

/** Error function by its Taylor series or continued fraction, to about 1e-15. */
const erfOf = (x: number): number => {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let total = a;
    for (let n = 1; Math.abs(term) > 1e-17 * total && n < 200; n++) {
      term *= (-a * a) / n;
      total += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + fraction)));
};

const sigmoidOf = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

export const negOp = unary({ name: "neg", onnx: "Neg", f: (x) => -x, gradient: (g) => neg(g) });
export const expOp = unary({ name: "exp", onnx: "Exp", f: Math.exp, gradient: (g, _x, y) => mul(g, y) });
export const logOp = unary({ name: "log", onnx: "Log", f: Math.log, gradient: (g, x) => div(g, x) });
export const sqrtOp = unary({ name: "sqrt", onnx: "Sqrt", f: Math.sqrt, gradient: (g, _x, y) => div(mul(g, 0.5), y) });
export const reciprocalOp = unary({
  name: "reciprocal",
  onnx: "Reciprocal",
  f: (x) => 1 / x,
  gradient: (g, _x, y) => neg(mul(g, mul(y, y))),
});
export const tanhOp = unary({ name: "tanh", onnx: "Tanh", f: Math.tanh, gradient: (g, _x, y) => mul(g, sub(1, mul(y, y))) });
export const sigmoidOp = unary({
  name: "sigmoid",
  onnx: "Sigmoid",
  f: sigmoidOf,
  gradient: (g, _x, y) => mul(g, mul(y, sub(1, y))),
});
export const absOp = unary({ name: "abs", onnx: "Abs", f: Math.abs, gradient: (g, x) => mul(g, sign(x)) });
export const signOp = unary({ name: "sign", onnx: "Sign", f: Math.sign, gradient: "none" });
export const erfOp = unary({
  name: "erf",
  onnx: "Erf",
  f: erfOf,
  gradient: (g, x) => mul(g, mul(2 / Math.sqrt(Math.PI), exp(neg(mul(x, x))))),
});
export const reluOp = unary({
  name: "relu",
  onnx: "Relu",
  f: (x) => Math.max(x, 0),
  gradient: (g, x) => mul(g, cast(less(constant(0), x), "f32")),
});
export const sinOp = unary({ name: "sin", onnx: "Sin", f: Math.sin, gradient: (g, x) => mul(g, cos(x)) });
export const cosOp = unary({ name: "cos", onnx: "Cos", f: Math.cos, gradient: (g, x) => neg(mul(g, sin(x))) });
/** The identity, through which no gradient flows. */
export const stopGradientOp = unary({ name: "stopGradient", onnx: "Identity", f: (x) => x, gradient: "none" });

const on1 =
  (op: Op<null>) =>
  (x: Operand): Value =>
    apply(op, [lift(x)], null);
export const neg = on1(negOp);
export const exp = on1(expOp);
export const log = on1(logOp);
export const sqrt = on1(sqrtOp);
export const reciprocal = on1(reciprocalOp);
export const tanh = on1(tanhOp);
export const sigmoid = on1(sigmoidOp);
export const abs = on1(absOp);
export const sign = on1(signOp);
export const erf = on1(erfOp);
export const relu = on1(reluOp);
export const sin = on1(sinOp);
export const cos = on1(cosOp);
export const stopGradient = on1(stopGradientOp);

export const addOp = binary({ name: "add", onnx: "Add", f: (a, b) => a + b, gradient: (g) => [g, g] });
export const subOp = binary({ name: "sub", onnx: "Sub", f: (a, b) => a - b, gradient: (g) => [g, neg(g)] });
export const mulOp = binary({ name: "mul", onnx: "Mul", f: (a, b) => a * b, gradient: (g, a, b) => [mul(g, b), mul(g, a)] });
export const divOp = binary({
  name: "div",
  onnx: "Div",
  f: (a, b) => a / b,
  gradient: (g, _a, b, y) => [div(g, b), neg(div(mul(g, y), b))],
});
/** At a tie the whole gradient goes to the first input. */
export const maximumOp = binary({
  name: "maximum",
  onnx: "Max",
  f: Math.max,
  gradient: (g, a, b) => [mul(g, cast(lessOrEqual(b, a), "f32")), mul(g, cast(less(a, b), "f32"))],
});
export const minimumOp = binary({
  name: "minimum",
  onnx: "Min",
  f: Math.min,
  gradient: (g, a, b) => [mul(g, cast(lessOrEqual(a, b), "f32")), mul(g, cast(less(b, a), "f32"))],
});
export const equalOp = binary({
  name: "equal",
  onnx: "Equal",
  f: (a, b) => Number(a === b),
  gradient: "none",
  result: "bool",
  operands: ["f32", "i32", "bool"],
});
export const lessOp = binary({ name: "less", onnx: "Less", f: (a, b) => Number(a < b), gradient: "none", result: "bool" });
export const lessOrEqualOp = binary({
  name: "lessOrEqual",
  onnx: "LessOrEqual",
  f: (a, b) => Number(a <= b),
  gradient: "none",
  result: "bool",
});
export const andOp = binary({
  name: "and",
  onnx: "And",
  f: (a, b) => a & b,
  gradient: "none",
  result: "bool",
  operands: ["bool"],
});

const on2 =
  (op: Op<null>) =>
  (a: Operand, b: Operand): Value =>
    apply(op, [lift(a), lift(b)], null);
export const add = on2(addOp);
export const sub = on2(subOp);
export const mul = on2(mulOp);
export const div = on2(divOp);
export const maximum = on2(maximumOp);
export const minimum = on2(minimumOp);
export const equal = on2(equalOp);
export const less = on2(lessOp);
export const lessOrEqual = on2(lessOrEqualOp);
export const and = on2(andOp);

export const notOp = defineOp<null>({
  name: "not",
  infer: ([x]) => {
    needDTypes("not", [x!], ["bool"]);
    return { dtype: "bool", shape: x!.shape };
  },
  gradient: "none",
  evaluate: ([x]) => map(x!, "bool", (a) => 1 - a),
  lower: (emit, inputs) => emit.node("Not", inputs),
});
export const not = (x: Value): Value => apply(notOp, [x], null);

export const whereOp = defineOp<null>({
  name: "where",
  infer: ([condition, a, b]) => {
    if (condition!.dtype !== "bool" || a!.dtype !== b!.dtype)
      throw shapeError("where", "a bool and two inputs of one dtype", [condition, a, b].map((x) => x!.dtype).join(", "));
    return { dtype: a!.dtype, shape: broadcastShapes("where", condition!.shape, broadcastShapes("where", a!.shape, b!.shape)) };
  },
  gradient: (g, { inputs: [condition, a, b] }) => [
    undefined,
    sumTo(where(condition!, g, 0), a!.shape),
    sumTo(where(condition!, 0, g), b!.shape),
  ],
  evaluate: ([condition, a, b], _, shape) => zip([condition!, a!, b!], shape, computed(a!.dtype), (c, x, y) => (c === 1 ? x : y)),
  lower: (emit, inputs) => emit.node("Where", inputs),
});

/** a where the condition holds, else b. A value that is not chosen gets a gradient of exactly 0, be it infinite or NaN. */
export const where = (condition: Value, a: Operand, b: Operand): Value => apply(whereOp, [condition, lift(a), lift(b)], null);

export const castOp = defineOp<{ readonly dtype: "f32" | "i32" }>({
  name: "cast",
  infer: ([x], { dtype }) => ({ dtype, shape: x!.shape }),
  // From floats it only goes to integers.
  gradient: "none",
  evaluate: ([x], { dtype }) => map(x!, dtype === "f32" ? "f64" : "i32", dtype === "i32" ? Math.trunc : (a) => a),
  lower: (emit, inputs, { attributes: { dtype } }) => emit.node("Cast", inputs, { to: emit.type(dtype) }),
});
export const cast = (x: Value, dtype: "f32" | "i32"): Value => (x.dtype === dtype ? x : apply(castOp, [x], { dtype }));

/**
 * The same computation with less work: dead code goes (only ancestors of outputs are kept), equal values become one, values of constants become
 * constants, and operations that change nothing (x + 0, x * 1, repeating what broadcasting repeats anyway) are dropped.
 */

import type { HostTensor } from "../base/tensor.ts";
import { ancestors, apply, type Graph, type Value } from "./graph.ts";
import { addOp, divOp, maximumOp, minimumOp, mulOp, negOp, stopGradientOp, subOp } from "./ops/elementwise.ts";
import { expandOp } from "./ops/layout.ts";
import { constant, constantNumber, isConstant, isInput } from "./ops/source.ts";
import { broadcastShapes, sameShape } from "./shape.ts";

const is = (value: Value, op: { readonly name: string }): boolean => (value.op as unknown) === op;

/** Constants up to this many elements are worked out while building. */
const foldLimit = 4096;

const fold = (value: Value): Value => {
  // A repeated constant stays a repetition: dropExpands can still take it out, an array full of copies it could not.
  if (value.inputs.length === 0 || is(value, expandOp) || !value.inputs.every(isConstant)) return value;
  if (
    !value.shape.every((axis) => typeof axis === "number") ||
    value.shape.reduce<number>((a, b) => a * (b as number), 1) > foldLimit
  )
    return value;
  const inputs = value.inputs.map((source) => source.op.evaluate([], source.attributes, source.shape as number[]));
  const result: HostTensor = value.op.evaluate(inputs, value.attributes, value.shape as number[]);
  return constant(result);
};

const broadcasting: readonly { readonly name: string }[] = [addOp, subOp, mulOp, divOp, maximumOp, minimumOp];

/** The value with needless repetition of its inputs taken out. */
const dropExpands = (value: Value): Value => {
  if (!broadcasting.some((op) => is(value, op))) return value;
  const [a, b] = value.inputs as [Value, Value];
  const bare = (x: Value): Value => (is(x, expandOp) ? x.inputs[0]! : x);
  for (const [left, right] of [
    [bare(a), bare(b)],
    [bare(a), b],
    [a, bare(b)],
  ] as const) {
    if ((left !== a || right !== b) && sameShape(broadcastShapes("simplify", left.shape, right.shape), value.shape))
      return apply(value.op, [left, right], value.attributes);
  }
  return value;
};

/** The value itself, or the simpler one it equals. */
const reduceAlgebra = (value: Value): Value => {
  const [a, b] = value.inputs;
  const same = (x: Value): boolean => sameShape(x.shape, value.shape) && x.dtype === value.dtype;
  const number = (x: Value | undefined): number | undefined => (x === undefined ? undefined : constantNumber(x));
  if (is(value, stopGradientOp)) return a!;
  if (is(value, negOp) && is(a!, negOp)) return a!.inputs[0]!;
  if (is(value, mulOp) && number(b) === 1 && same(a!)) return a!;
  if (is(value, mulOp) && number(a) === 1 && same(b!)) return b!;
  if (is(value, divOp) && number(b) === 1 && same(a!)) return a!;
  if ((is(value, addOp) || is(value, subOp)) && number(b) === 0 && same(a!)) return a!;
  if (is(value, addOp) && number(a) === 0 && same(b!)) return b!;
  return value;
};

/** 0 and -0 differ: their reciprocals do. */
const written = (number: number): string => (Object.is(number, -0) ? "-0" : String(number));

/** What makes two values equal: op, attributes and inputs. Constants are equal when their data are. */
const keyOf = (value: Value, idOf: (value: Value) => number): string => {
  const attributes = isConstant(value)
    ? `${value.attributes.tensor.dtype}:${value.attributes.tensor.shape.join(",")}:${value.attributes.tensor.data.length <= 16 ? Array.from(value.attributes.tensor.data, written).join(",") : `#${value.id}`}`
    : JSON.stringify(value.attributes);
  return `${value.op.name}(${value.inputs.map(idOf).join(",")})${attributes}`;
};

/** An equal graph with fewer values. Inputs keep their names. */
export const simplify = (graph: Graph): Graph => {
  const replaced = new Map<Value, Value>();
  const unique = new Map<string, Value>();
  const idOf = (value: Value): number => value.id;
  const intern = (value: Value): Value => {
    if (isInput(value)) return value;
    const key = keyOf(value, idOf);
    const known = unique.get(key);
    if (known !== undefined) return known;
    unique.set(key, value);
    return value;
  };
  for (const value of ancestors(Object.values(graph.outputs))) {
    const inputs = value.inputs.map((source) => replaced.get(source)!);
    const rebuilt = inputs.every((source, i) => source === value.inputs[i]) ? value : apply(value.op, inputs, value.attributes);
    replaced.set(value, intern(fold(reduceAlgebra(dropExpands(rebuilt)))));
  }
  return {
    inputs: graph.inputs,
    outputs: Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, replaced.get(value)!])),
  };
};

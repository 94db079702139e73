/**
 * The same computation with less work: dead code goes (only ancestors of outputs are kept), equal values become one, values of constants become
 * constants, and operations that change nothing (x + 0, x * 1, repeating what broadcasting repeats anyway) are dropped.
 */

import type { HostTensor } from "../base/tensor.ts";
import { ancestors, apply, type Graph, type Value } from "./graph.ts";
import { addOp, divOp, maximumOp, minimumOp, mulOp, negOp, stopGradientOp, subOp } from "./ops/elementwise.ts";
import { addRowsOp } from "./ops/gather.ts";
import { concat, expandOp, isConcat, isPad, pad } from "./ops/layout.ts";
import { gemmOp } from "./ops/matmul.ts";
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

/** What is repeated, where x is a repetition. */
const bare = (x: Value): Value => (is(x, expandOp) ? x.inputs[0]! : x);

/** The value with needless repetition of its inputs taken out. */
const dropExpands = (value: Value): Value => {
  if (!broadcasting.some((op) => is(value, op))) return value;
  const [a, b] = value.inputs as [Value, Value];
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

/**
 * Sums that a kernel makes on its way, where the term is used nowhere else: x + a b is one product that starts from x,
 * and a table plus rows added to zeros is rows added to the table.
 */
const addOnTheWay = (value: Value, usedOnce: (x: Value) => boolean): Value => {
  if (!is(value, addOp)) return value;
  const [a, b] = value.inputs as [Value, Value];
  for (const [x, term] of [
    [a, b],
    [b, a],
  ] as const) {
    if (!sameShape(x.shape, term.shape) || !usedOnce(term)) continue;
    if (is(term, gemmOp) && term.inputs.length === 2) return apply(term.op, [...term.inputs, x], term.attributes);
    if (is(term, addRowsOp) && constantNumber(bare(term.inputs[0]!)) === 0)
      return apply(term.op, [x, ...term.inputs.slice(1)], term.attributes);
  }
  return value;
};

/** A sum of two that are padded to lie side by side is the two put together: the gradient of a value that was cut into slices. */
const joinPads = (value: Value): Value => {
  if (!is(value, addOp)) return value;
  const [a, b] = value.inputs as [Value, Value];
  if (!isPad(a) || !isPad(b) || a.attributes.axis !== b.attributes.axis) return value;
  const { axis } = a.attributes;
  const [first, second] = a.attributes.before < b.attributes.before ? [a, b] : [b, a];
  const size = first.inputs[0]!.shape[axis]!;
  if (typeof size !== "number" || first.attributes.before + size !== second.attributes.before) return value;
  const parts = [first, second].flatMap(({ inputs: [x] }) => (isConcat(x!) && x.attributes.axis === axis ? x.inputs : [x!]));
  return pad(concat(parts, axis), axis, first.attributes.before, second.attributes.after);
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

/** The value on what its inputs became. */
const withInputs = (value: Value, replaced: ReadonlyMap<Value, Value>): Value => {
  const inputs = value.inputs.map((source) => replaced.get(source)!);
  return inputs.every((source, i) => source === value.inputs[i]) ? value : apply(value.op, inputs, value.attributes);
};

/** The graph with addOnTheWay done everywhere: last, once it is known how often each value is used. */
const joinSums = (graph: Graph): Graph => {
  const outputs = Object.values(graph.outputs);
  const order = ancestors(outputs);
  const uses = new Map<Value, number>();
  for (const used of [...outputs, ...order.flatMap((value) => value.inputs)]) uses.set(used, (uses.get(used) ?? 0) + 1);
  const replaced = new Map<Value, Value>();
  for (const value of order) {
    const rebuilt = withInputs(value, replaced);
    const single = new Set(value.inputs.filter((source) => uses.get(source) === 1).map((source) => replaced.get(source)!));
    replaced.set(
      value,
      addOnTheWay(rebuilt, (x) => single.has(x)),
    );
  }
  return {
    inputs: graph.inputs,
    outputs: Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, replaced.get(value)!])),
  };
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
  for (const value of ancestors(Object.values(graph.outputs)))
    replaced.set(value, intern(fold(reduceAlgebra(joinPads(dropExpands(withInputs(value, replaced)))))));
  return joinSums({
    inputs: graph.inputs,
    outputs: Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, replaced.get(value)!])),
  });
};

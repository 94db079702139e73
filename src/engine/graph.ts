/**
 * A computation as data: values that remember the op and the inputs they come from.
 * Building a value checks its shape; nothing is computed until a device runs a graph.
 */

import type { DType, HostTensor } from "../base/tensor.ts";
import type { Axis, Shape } from "./shape.ts";

export interface TypeOf {
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface Value<A = unknown> extends TypeOf {
  /** Grows with construction: inputs always have smaller ids. */
  readonly id: number;
  readonly op: Op<A>;
  readonly inputs: readonly Value[];
  readonly attributes: A;
}

/** A gradient rule. Written as a method so that an op on its own attributes is also an op on unknown ones. */
type GradientRule<A> = { rule(gradient: Value, value: Value<A>): readonly (Value | undefined)[] }["rule"];

/**
 * Everything there is to know about an op. All four rules are required, so an op without one does not compile.
 */
export interface Op<A = unknown> {
  readonly name: string;
  /** Type of the result. @throws TiltError when the inputs do not fit */
  infer(inputs: readonly TypeOf[], attributes: A): TypeOf;
  /** Gradients with respect to each input, given that of the result; "none" where the result does not depend smoothly on any input. */
  readonly gradient: GradientRule<A> | "none";
  /** The result in float64, from float64 (or integer, boolean) inputs; `shape` is the concrete shape of the result. */
  evaluate(inputs: readonly HostTensor[], attributes: A, shape: readonly number[]): HostTensor;
  /** Emits ONNX nodes and returns the name of the result. */
  lower(emit: Emitter, inputs: readonly string[], value: Value<A>): string;
}

/** Where graphs run. */
export type DeviceName = "reference" | "cpu" | "webgpu" | "cuda";

export type Attribute = number | readonly number[] | string | { readonly float: number };

export interface NodeOptions {
  /** Operator set other than ONNX's own. */
  readonly domain?: "com.microsoft";
  /** How many outputs the operator has; the name of the first is returned. */
  readonly outputs?: number;
}

/** What an op's lowering rule may ask for while a graph is written as ONNX. */
export interface Emitter {
  /** Where the graph will run: kernels differ. */
  readonly device: DeviceName;
  /** ONNX's number for a dtype. */
  type(dtype: DType): number;
  readonly int64Type: number;
  /** Adds a node and returns the name of its first output. */
  node(
    operator: string,
    inputs: readonly string[],
    attributes?: Readonly<Record<string, Attribute>>,
    options?: NodeOptions,
  ): string;
  /** Adds a constant tensor. Float64 is stored as float32. */
  initializer(tensor: HostTensor): string;
  /** Adds a constant list of 64-bit integers. */
  int64(values: readonly number[]): string;
  /** The size of an axis as a list of one 64-bit integer, measured from an input where it is symbolic. */
  axis(axis: Axis): string;
  /** A shape as a list of 64-bit integers. */
  shape(shape: Shape): string;
  /** Lowers what `build` makes of the inputs. */
  inline(inputs: readonly string[], build: (...inputs: Value[]) => Value): string;
}

let nextId = 0;

/** The value of an op on inputs. */
export const apply = <A>(op: Op<A>, inputs: readonly Value[], attributes: A): Value<A> => ({
  id: nextId++,
  op,
  inputs,
  attributes,
  ...op.infer(inputs, attributes),
});

/** Fixes the attribute type of an op record. */
export const defineOp = <A>(op: Op<A>): Op<A> => op;

/** A computation with named inputs and outputs: what a device compiles. */
export interface Graph {
  readonly inputs: Readonly<Record<string, Value>>;
  readonly outputs: Readonly<Record<string, Value>>;
}

/** The values that `roots` depend on, each after its inputs. */
export const ancestors = (roots: readonly Value[]): Value[] => {
  const seen = new Set<Value>();
  const order: Value[] = [];
  for (const root of roots) {
    const stack: { readonly value: Value; next: number }[] = [];
    const push = (value: Value) => {
      if (seen.has(value)) return;
      seen.add(value);
      stack.push({ value, next: 0 });
    };
    push(root);
    while (stack.length > 0) {
      const top = stack[stack.length - 1]!;
      const input = top.value.inputs[top.next++];
      if (input !== undefined) push(input);
      else {
        order.push(top.value);
        stack.pop();
      }
    }
  }
  return order;
};

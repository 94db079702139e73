/** Values that come from nowhere: inputs, constants, and the integers along an axis. */

import { type DType, f32, type HostTensor, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type Value } from "../graph.ts";
import type { Axis, Shape } from "../shape.ts";

interface InputAttributes {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

export const inputOp = defineOp<InputAttributes>({
  name: "input",
  infer: (_, { dtype, shape }) => ({ dtype, shape }),
  gradient: "none",
  evaluate: (_, { name }) => {
    throw new Error(`input "${name}" has no value`);
  },
  lower: (_emit, _inputs, { attributes }) => attributes.name,
});

/** A value given at run time. Its plain axis names are bound by the tensor that is passed. */
export const input = (name: string, dtype: DType, shape: Shape): Value<InputAttributes> =>
  apply(inputOp, [], { name, dtype, shape });

export const isInput = (value: Value): value is Value<InputAttributes> => value.op === (inputOp as unknown);

interface ConstantAttributes {
  readonly tensor: HostTensor;
}

export const constantOp = defineOp<ConstantAttributes>({
  name: "constant",
  infer: (_, { tensor: { dtype, shape } }) => ({ dtype: dtype === "f64" ? "f32" : dtype, shape }),
  gradient: "none",
  evaluate: (_, { tensor: held }) => (held.dtype === "f32" ? tensor("f64", held.shape, Float64Array.from(held.data)) : held),
  lower: (emit, _inputs, { attributes }) => emit.initializer(attributes.tensor),
});

/** A constant tensor; a number makes a float scalar (kept in float64 until it is lowered). */
export const constant = (value: number | HostTensor): Value =>
  apply(constantOp, [], { tensor: typeof value === "number" ? tensor("f64", [], [value]) : value });

export const isConstant = (value: Value): value is Value<ConstantAttributes> => value.op === (constantOp as unknown);

/** The number of a constant that holds one element only, else undefined. */
export const constantNumber = (value: Value): number | undefined =>
  isConstant(value) && sizeOf(value.attributes.tensor.shape) === 1 ? value.attributes.tensor.data[0] : undefined;

export const iotaOp = defineOp<{ readonly axis: Axis }>({
  name: "iota",
  infer: (_, { axis }) => ({ dtype: "i32", shape: [axis] }),
  gradient: "none",
  evaluate: (_inputs, _attributes, shape) =>
    tensor(
      "i32",
      shape,
      Int32Array.from({ length: shape[0]! }, (_, i) => i),
    ),
  lower: (emit, _inputs, { attributes: { axis } }) => {
    if (typeof axis === "number")
      return emit.initializer(
        tensor(
          "i32",
          [axis],
          Int32Array.from({ length: axis }, (_, i) => i),
        ),
      );
    const limit = emit.node("Cast", [emit.node("Squeeze", [emit.axis(axis)])], { to: emit.type("i32") });
    return emit.node("Range", [emit.initializer(tensor("i32", [], [0])), limit, emit.initializer(tensor("i32", [], [1]))]);
  },
});

/** 0, 1, ..., n - 1 along an axis, as integers. */
export const iota = (axis: Axis): Value => apply(iotaOp, [], { axis });

/** A float constant of the given shape and data. */
export const table = (shape: readonly number[], data: Float32Array | readonly number[]): Value => constant(f32(shape, data));

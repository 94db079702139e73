/** Ops that look up by index, and their gradients, which add up by index. */

import { allocate, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type TypeOf, type Value } from "../graph.ts";
import { type Axis, needDTypes, sameShape, shapeError, showShape } from "../shape.ts";
import { expand } from "./layout.ts";
import { constant, iota } from "./source.ts";

const needIntegers = (name: string, indices: TypeOf): void => {
  if (indices.dtype !== "i32") throw shapeError(name, "integer indices", indices.dtype);
};

const checked = (name: string, index: number, size: number): number => {
  if (index < 0 || index >= size) throw shapeError(name, `indices within 0..${size - 1}`, String(index));
  return index;
};

export const gatherRowsOp = defineOp<null>({
  name: "gatherRows",
  infer: ([rows, indices]) => {
    needIntegers("gatherRows", indices!);
    return { dtype: rows!.dtype, shape: [...indices!.shape, ...rows!.shape.slice(1)] };
  },
  gradient: (g, { inputs }) => {
    const [rows, indices] = inputs as [Value, Value];
    return [scatterAddRows(g, indices, rows.shape[0]!), undefined];
  },
  evaluate: ([rows, indices], _, shape) => {
    const width = sizeOf(rows!.shape.slice(1));
    const data = allocate(rows!.dtype, sizeOf(shape));
    indices!.data.forEach((index, i) => {
      const row = checked("gatherRows", index, rows!.shape[0]!);
      for (let j = 0; j < width; j++) data[i * width + j] = rows!.data[row * width + j]!;
    });
    return { dtype: rows!.dtype, shape, data };
  },
  lower: (emit, inputs) => emit.node("Gather", inputs, { axis: 0 }),
});

/** Rows of a table [R, ...] at integer indices [...]: an embedding. */
export const gatherRows = (rows: Value, indices: Value): Value => apply(gatherRowsOp, [rows, indices], null);

export const addRowsOp = defineOp<null>({
  name: "addRows",
  infer: ([table, updates, indices]) => {
    needDTypes("addRows", [table!, updates!], ["f32"]);
    needIntegers("addRows", indices!);
    const expected = [...indices!.shape, ...table!.shape.slice(1)];
    if (!sameShape(updates!.shape, expected))
      throw shapeError("addRows", `updates of shape ${showShape(expected)}`, showShape(updates!.shape));
    return { dtype: "f32", shape: table!.shape };
  },
  gradient: (g, { inputs: [, , indices] }) => [g, gatherRows(g, indices!), undefined],
  evaluate: ([table, updates, indices], _, shape) => {
    const width = sizeOf(shape.slice(1));
    const data = Float64Array.from(table!.data);
    indices!.data.forEach((index, i) => {
      const row = checked("addRows", index, shape[0]!);
      for (let j = 0; j < width; j++) data[row * width + j] = data[row * width + j]! + updates!.data[i * width + j]!;
    });
    return tensor("f64", shape, data);
  },
  lower: (emit, [table, updates, indices], { shape, inputs }) => {
    if (emit.device !== "cpu") {
      const places = emit.node("Unsqueeze", [
        emit.node("Cast", [indices!], { to: emit.int64Type }),
        emit.int64([inputs[2]!.shape.length]),
      ]);
      return emit.node("ScatterND", [table!, places, updates!], { reduction: "add" });
    }
    // On the CPU ONNX Runtime's ScatterND adds from several threads without a lock and loses updates to equal indices
    // (microsoft/onnxruntime#18048). Its ScatterElements is serial: right, and the same every time.
    const width = shape.slice(1);
    const flat = inputs[2]!.shape.length === 1;
    const rows = flat ? updates! : emit.node("Reshape", [updates!, emit.shape([-1, ...width])]);
    const row = flat ? indices! : emit.node("Reshape", [indices!, emit.int64([-1])]);
    if (width.length === 0) return emit.node("ScatterElements", [table!, row, rows], { axis: 0, reduction: "add" });
    const column = emit.node("Unsqueeze", [row, emit.int64(width.map((_, i) => i + 1))]);
    return emit.node("ScatterElements", [table!, emit.node("Expand", [column, emit.node("Shape", [rows])]), rows], {
      axis: 0,
      reduction: "add",
    });
  },
});

/** A table [R, ...] with each update [..., ...] added to the row that its index [...] names. */
export const addRows = (table: Value, updates: Value, indices: Value): Value => apply(addRowsOp, [table, updates, indices], null);

/** A zero table [R, ...] with each update added to the row that its index names. */
export const scatterAddRows = (updates: Value, indices: Value, rows: Axis): Value =>
  addRows(expand(constant(0), [rows, ...updates.shape.slice(indices.shape.length)]), updates, indices);

export const takeLastOp = defineOp<null>({
  name: "takeLast",
  infer: ([x, indices]) => {
    needIntegers("takeLast", indices!);
    if (!sameShape(x!.shape.slice(0, -1), indices!.shape))
      throw shapeError("takeLast", `indices of shape ${showShape(x!.shape.slice(0, -1))}`, showShape(indices!.shape));
    return { dtype: x!.dtype, shape: indices!.shape };
  },
  gradient: (g, { inputs }) => {
    const [x, indices] = inputs as [Value, Value];
    return [putLast(g, indices, x.shape[x.shape.length - 1]!), undefined];
  },
  evaluate: ([x, indices], _, shape) => {
    const width = x!.shape[x!.shape.length - 1]!;
    const data = allocate(x!.dtype, sizeOf(shape));
    indices!.data.forEach((index, i) => {
      data[i] = x!.data[i * width + checked("takeLast", index, width)]!;
    });
    return { dtype: x!.dtype, shape, data };
  },
  lower: (emit, [x, indices], { shape }) => {
    const axis = emit.int64([shape.length]);
    return emit.node("Squeeze", [
      emit.node("GatherElements", [x!, emit.node("Unsqueeze", [indices!, axis])], { axis: -1 }),
      axis,
    ]);
  },
});

/** x[..., i] for an index i at each place: one element of every last-axis row. */
export const takeLast = (x: Value, indices: Value): Value => apply(takeLastOp, [x, indices], null);

export const addLastOp = defineOp<null>({
  name: "addLast",
  infer: ([x, updates, indices]) => {
    needDTypes("addLast", [x!, updates!], ["f32"]);
    needIntegers("addLast", indices!);
    for (const given of [updates!, indices!]) {
      if (!sameShape(x!.shape.slice(0, -1), given.shape))
        throw shapeError("addLast", `updates and indices of shape ${showShape(x!.shape.slice(0, -1))}`, showShape(given.shape));
    }
    return { dtype: "f32", shape: x!.shape };
  },
  gradient: (g, { inputs: [, , indices] }) => [g, takeLast(g, indices!), undefined],
  evaluate: ([x, updates, indices], _, shape) => {
    const width = shape[shape.length - 1]!;
    const data = Float64Array.from(x!.data);
    indices!.data.forEach((index, i) => {
      const at = i * width + checked("addLast", index, width);
      data[at] = data[at]! + updates!.data[i]!;
    });
    return tensor("f64", shape, data);
  },
  lower: (emit, [x, updates, indices], { shape }) => {
    const axis = emit.int64([shape.length - 1]);
    const [update, index] = [updates!, indices!].map((given) => emit.node("Unsqueeze", [given, axis])) as [string, string];
    if (emit.device === "cpu") return emit.node("ScatterElements", [x!, index, update], { axis: -1, reduction: "add" });
    // A comparison with 0..width-1 is a one-hot row; it runs on every device, unlike ScatterElements.
    const hit = emit.node("Equal", [index, emit.inline([], () => iota(shape[shape.length - 1]!))]);
    return emit.node("Add", [x!, emit.node("Where", [hit, update, emit.initializer(tensor("f32", [], [0]))])]);
  },
});

/** x with an update added to one element of every last-axis row: x[..., i] += update for an index i at each place. */
export const addLast = (x: Value, updates: Value, indices: Value): Value => apply(addLastOp, [x, updates, indices], null);

/** Zero rows of the given width, each with its update at its index. */
export const putLast = (updates: Value, indices: Value, width: Axis): Value =>
  addLast(expand(constant(0), [...updates.shape, width]), updates, indices);

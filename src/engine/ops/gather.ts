/** Ops that look up by index, and their gradients, which add up by index. */

import { allocate, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type TypeOf, type Value } from "../graph.ts";
import { type Axis, needDTypes, sameShape, shapeError, showShape } from "../shape.ts";
import { iota } from "./source.ts";

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

export const scatterAddRowsOp = defineOp<{ readonly rows: Axis }>({
  name: "scatterAddRows",
  infer: ([updates, indices], { rows }) => {
    needDTypes("scatterAddRows", [updates!], ["f32"]);
    needIntegers("scatterAddRows", indices!);
    const depth = indices!.shape.length;
    if (!sameShape(updates!.shape.slice(0, depth), indices!.shape))
      throw shapeError("scatterAddRows", `updates that begin with ${showShape(indices!.shape)}`, showShape(updates!.shape));
    return { dtype: "f32", shape: [rows, ...updates!.shape.slice(depth)] };
  },
  gradient: (g, { inputs: [, indices] }) => [gatherRows(g, indices!), undefined],
  evaluate: ([updates, indices], _, shape) => {
    const width = sizeOf(shape.slice(1));
    const data = allocate("f64", sizeOf(shape));
    indices!.data.forEach((index, i) => {
      const row = checked("scatterAddRows", index, shape[0]!);
      for (let j = 0; j < width; j++) data[row * width + j] = data[row * width + j]! + updates!.data[i * width + j]!;
    });
    return tensor("f64", shape, data);
  },
  lower: (emit, [updates, indices], { shape, inputs }) => {
    const zero = emit.node("Expand", [emit.initializer(tensor("f32", [], [0])), emit.shape(shape)]);
    if (emit.device !== "cpu") {
      const places = emit.node("Unsqueeze", [
        emit.node("Cast", [indices!], { to: emit.int64Type }),
        emit.int64([inputs[1]!.shape.length]),
      ]);
      return emit.node("ScatterND", [zero, places, updates!], { reduction: "add" });
    }
    // On the CPU ONNX Runtime's ScatterND adds from several threads without a lock and loses updates to equal indices
    // (microsoft/onnxruntime#18048). Its ScatterElements is serial: right, and the same every time.
    const width = shape.slice(1);
    const flat = inputs[1]!.shape.length === 1;
    const rows = flat ? updates! : emit.node("Reshape", [updates!, emit.shape([-1, ...width])]);
    const row = flat ? indices! : emit.node("Reshape", [indices!, emit.int64([-1])]);
    if (width.length === 0) return emit.node("ScatterElements", [zero, row, rows], { axis: 0, reduction: "add" });
    const column = emit.node("Unsqueeze", [row, emit.int64(width.map((_, i) => i + 1))]);
    return emit.node("ScatterElements", [zero, emit.node("Expand", [column, emit.node("Shape", [rows])]), rows], {
      axis: 0,
      reduction: "add",
    });
  },
});

/** A zero table [R, ...] with each update added to the row that its index names. */
export const scatterAddRows = (updates: Value, indices: Value, rows: Axis): Value =>
  apply(scatterAddRowsOp, [updates, indices], { rows });

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

export const putLastOp = defineOp<{ readonly width: Axis }>({
  name: "putLast",
  infer: ([updates, indices], { width }) => {
    needDTypes("putLast", [updates!], ["f32"]);
    needIntegers("putLast", indices!);
    if (!sameShape(updates!.shape, indices!.shape))
      throw shapeError("putLast", `updates of shape ${showShape(indices!.shape)}`, showShape(updates!.shape));
    return { dtype: "f32", shape: [...updates!.shape, width] };
  },
  gradient: (g, { inputs: [, indices] }) => [takeLast(g, indices!), undefined],
  evaluate: ([updates, indices], _, shape) => {
    const width = shape[shape.length - 1]!;
    const data = allocate("f64", sizeOf(shape));
    indices!.data.forEach((index, i) => {
      data[i * width + checked("putLast", index, width)] = updates!.data[i]!;
    });
    return tensor("f64", shape, data);
  },
  lower: (emit, [updates, indices], { shape, attributes: { width } }) => {
    // A comparison with 0..width-1 is a one-hot row; it runs on every device, unlike ScatterElements.
    const axis = emit.int64([shape.length - 1]);
    const places = emit.inline([updates!, indices!], () => iota(width));
    const hit = emit.node("Equal", [emit.node("Unsqueeze", [indices!, axis]), places]);
    return emit.node("Where", [hit, emit.node("Unsqueeze", [updates!, axis]), emit.initializer(tensor("f32", [], [0]))]);
  },
});

/** Zero rows of the given width, each with its update at its index. */
export const putLast = (updates: Value, indices: Value, width: Axis): Value => apply(putLastOp, [updates, indices], { width });

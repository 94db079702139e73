/** Ops that move numbers without changing them, and sum, which is the gradient of repeating them. */

import { allocate, type HostTensor, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type Value } from "../graph.ts";
import {
  type Axis,
  axisIndex,
  broadcastShapes,
  namesIn,
  needDTypes,
  plusAxes,
  type Shape,
  sameShape,
  shapeError,
  showShape,
} from "../shape.ts";
import { constant } from "./source.ts";

/** Row-major strides, in elements. */
export const stridesOf = (shape: readonly number[]): number[] => {
  const strides = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
};

/** For each element of `shape` in row-major order, the offset that the given strides (0 to repeat) lead to. */
export const offsetsOf = (shape: readonly number[], strides: readonly number[]): Int32Array => {
  let offsets = Int32Array.of(0);
  shape.forEach((size, axis) => {
    const next = new Int32Array(offsets.length * size);
    const stride = strides[axis]!;
    for (let i = 0; i < offsets.length; i++) for (let j = 0; j < size; j++) next[i * size + j] = offsets[i]! + j * stride;
    offsets = next;
  });
  return offsets;
};

/** The elements of `source` at `offsets`, as a tensor of the given shape. */
export const pick = (source: HostTensor, shape: readonly number[], offsets: Int32Array): HostTensor => {
  const data = allocate(source.dtype, offsets.length);
  for (let i = 0; i < offsets.length; i++) data[i] = source.data[offsets[i]!]!;
  return { dtype: source.dtype, shape, data };
};

/** Strides with which a tensor of `shape` is read as the larger `target` by broadcasting. */
export const broadcastStrides = (shape: readonly number[], target: readonly number[]): number[] => {
  const strides = stridesOf(shape);
  const shift = target.length - shape.length;
  return target.map((_, i) => (i < shift || shape[i - shift] === 1 ? 0 : strides[i - shift]!));
};

const elements = (shape: Shape): string => {
  let number = 1;
  const names: string[] = [];
  for (const axis of shape) {
    if (typeof axis === "number") number *= axis;
    else if (axis.includes("+")) names.push(axis);
    else {
      for (const term of axis.split("*")) {
        if (/^\d+$/.test(term)) number *= Number(term);
        else names.push(term);
      }
    }
  }
  return [number, ...names.sort()].join("*");
};

export const reshapeOp = defineOp<{ readonly shape: Shape }>({
  name: "reshape",
  infer: ([x], { shape }) => {
    if (elements(x!.shape) !== elements(shape))
      throw shapeError("reshape", `as many elements as ${showShape(x!.shape)}`, showShape(shape));
    return { dtype: x!.dtype, shape };
  },
  gradient: (gradient, { inputs: [x] }) => [reshape(gradient, x!.shape)],
  evaluate: ([x], _, shape) => tensor(x!.dtype, shape, x!.data),
  lower: (emit, [x], { inputs, attributes: { shape } }) => {
    const from = inputs[0]!.shape;
    // ONNX's own notation first: 0 copies the axis at the same place, one -1 is worked out. Else every symbolic axis is computed.
    const sizes = shape.map((axis, i) => (typeof axis === "number" ? axis : axis === from[i] ? 0 : -1));
    if (sizes.filter((size) => size === -1).length <= 1 && !shape.includes(0))
      return emit.node("Reshape", [x!, emit.int64(sizes)]);
    return emit.node("Reshape", [x!, emit.shape(shape)], { allowzero: 1 });
  },
});

/** The same elements in another shape. One reshape after another is one: what comes between is not looked at. */
export const reshape = (x: Value, shape: Shape): Value => {
  if (sameShape(x.shape, shape)) return x;
  const isReshape = (x.op as unknown) === reshapeOp;
  return isReshape ? reshape(x.inputs[0]!, shape) : apply(reshapeOp, [x], { shape });
};

export const expandOp = defineOp<{ readonly shape: Shape }>({
  name: "expand",
  infer: ([x], { shape }) => {
    if (!sameShape(broadcastShapes("expand", x!.shape, shape), shape))
      throw shapeError("expand", showShape(shape), showShape(x!.shape));
    return { dtype: x!.dtype, shape };
  },
  gradient: (gradient, { inputs: [x] }) => [sumTo(gradient, x!.shape)],
  evaluate: ([x], _, shape) => pick(x!, shape, offsetsOf(shape, broadcastStrides(x!.shape, shape))),
  lower: (emit, [x], { attributes: { shape } }) => emit.node("Expand", [x!, emit.shape(shape)]),
});

/** Repeats x by broadcasting to a shape. */
export const expand = (x: Value, shape: Shape): Value => (sameShape(x.shape, shape) ? x : apply(expandOp, [x], { shape }));

const reducedShape = (shape: Shape, axes: readonly number[], keep: boolean): Shape =>
  keep ? shape.map((axis, i) => (axes.includes(i) ? 1 : axis)) : shape.filter((_, i) => !axes.includes(i));

export interface ReduceAttributes {
  readonly axes: readonly number[];
  readonly keep: boolean;
}

export const inferReduced = (shape: Shape, { axes, keep }: ReduceAttributes): Shape => reducedShape(shape, axes, keep);

/** Folds the elements that fall on one result; `fold` gets the running value (starting at `start`) and the next element. */
export const reduceHost = (
  x: HostTensor,
  { axes }: ReduceAttributes,
  shape: readonly number[],
  start: number,
  fold: (a: number, b: number) => number,
): HostTensor => {
  const kept = reducedShape(x.shape, axes, true) as number[];
  const targets = offsetsOf(x.shape, broadcastStrides(kept, x.shape));
  const data = new Float64Array(sizeOf(shape)).fill(start);
  for (let i = 0; i < targets.length; i++) data[targets[i]!] = fold(data[targets[i]!]!, x.data[i]!);
  return x.dtype === "i32" ? tensor("i32", shape, Int32Array.from(data)) : tensor("f64", shape, data);
};

/** The axes in order, each once, none negative; all of them when none are named. */
export const normalizeAxes = (where: string, x: Value, axes: number | readonly number[] = x.shape.map((_, i) => i)): number[] =>
  [...new Set([axes].flat().map((axis) => axisIndex(where, axis as number, x.shape.length)))].sort((a, b) => a - b);

export const sumOp = defineOp<ReduceAttributes>({
  name: "sum",
  infer: ([x], attributes) => {
    needDTypes("sum", [x!], ["f32", "i32"]);
    return { dtype: x!.dtype, shape: inferReduced(x!.shape, attributes) };
  },
  gradient: (gradient, { inputs: [x], attributes: { axes } }) => [
    expand(reshape(gradient, reducedShape(x!.shape, axes, true)), x!.shape),
  ],
  evaluate: ([x], attributes, shape) => reduceHost(x!, attributes, shape, 0, (a, b) => a + b),
  lower: (emit, [x], { attributes: { axes, keep } }) =>
    emit.node("ReduceSum", [x!, emit.int64(axes)], { keepdims: keep ? 1 : 0 }),
});

/** Sum over axes (all of them when none are named). */
export const sum = (x: Value, axes?: number | readonly number[], options: { readonly keep?: boolean } = {}): Value => {
  const list = normalizeAxes("sum", x, axes);
  return list.length === 0 ? x : apply(sumOp, [x], { axes: list, keep: options.keep ?? false });
};

/** Sums x down to a shape that broadcasts to x's: the gradient of broadcasting. */
export const sumTo = (x: Value, shape: Shape): Value => {
  const shift = x.shape.length - shape.length;
  const axes = x.shape.map((_, i) => i).filter((i) => i < shift || (shape[i - shift] === 1 && x.shape[i] !== 1));
  return reshape(axes.length === 0 ? x : sum(x, axes, { keep: true }), shape);
};

export const transposeOp = defineOp<{ readonly permutation: readonly number[] }>({
  name: "transpose",
  infer: ([x], { permutation }) => {
    const sorted = [...permutation].sort((a, b) => a - b);
    if (permutation.length !== x!.shape.length || sorted.some((axis, i) => axis !== i)) {
      throw shapeError("transpose", `a permutation of the axes of ${showShape(x!.shape)}`, `[${permutation.join(", ")}]`);
    }
    return { dtype: x!.dtype, shape: permutation.map((axis) => x!.shape[axis]!) };
  },
  gradient: (gradient, { attributes: { permutation } }) => [
    transpose(
      gradient,
      permutation.map((_, i) => permutation.indexOf(i)),
    ),
  ],
  evaluate: ([x], { permutation }, shape) => {
    const strides = stridesOf(x!.shape);
    return pick(
      x!,
      shape,
      offsetsOf(
        shape,
        permutation.map((axis) => strides[axis]!),
      ),
    );
  },
  lower: (emit, [x], { attributes: { permutation } }) => emit.node("Transpose", [x!], { perm: [...permutation] }),
});

/** Axis i of the result is axis permutation[i] of x. */
export const transpose = (x: Value, permutation: readonly number[]): Value => apply(transposeOp, [x], { permutation });

interface ConcatAttributes {
  readonly axis: number;
}

export const concatOp = defineOp<ConcatAttributes>({
  name: "concat",
  infer: (inputs, { axis }) => {
    const [first] = inputs;
    for (const other of inputs) {
      const fits =
        other.shape.length === first!.shape.length && other.shape.every((size, i) => i === axis || size === first!.shape[i]);
      if (!fits || other.dtype !== first!.dtype)
        throw shapeError("concat", `the shape ${showShape(first!.shape)} but for axis ${axis}`, showShape(other.shape));
    }
    const total = inputs.map((x) => x.shape[axis]!).reduce(plusAxes);
    return { dtype: first!.dtype, shape: first!.shape.map((size, i) => (i === axis ? total : size)) };
  },
  gradient: (gradient, { inputs, attributes: { axis } }) => {
    let start = 0;
    return inputs.map((x) => {
      const size = x.shape[axis]!;
      if (typeof size !== "number")
        throw shapeError("concat", "fixed sizes along the axis, to be differentiated", showShape(x.shape));
      const part = slice(gradient, axis, start, start + size);
      start += size;
      return part;
    });
  },
  evaluate: (inputs, { axis }, shape) => {
    const inner = sizeOf(shape.slice(axis + 1));
    const outer = sizeOf(shape.slice(0, axis));
    const data = allocate(inputs[0]!.dtype, sizeOf(shape));
    let at = 0;
    for (let o = 0; o < outer; o++) {
      for (const x of inputs) {
        const length = x.shape[axis]! * inner;
        data.set(x.data.subarray(o * length, (o + 1) * length) as never, at);
        at += length;
      }
    }
    return { dtype: inputs[0]!.dtype, shape, data };
  },
  lower: (emit, inputs, { attributes }) => emit.node("Concat", inputs, { axis: attributes.axis }),
});

export const isConcat = (value: Value): value is Value<ConcatAttributes> => value.op === (concatOp as unknown);

export const concat = (parts: readonly Value[], axis: number): Value =>
  parts.length === 1 ? parts[0]! : apply(concatOp, parts, { axis: axisIndex("concat", axis, parts[0]!.shape.length) });

interface RangeAttributes {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
}

export const sliceOp = defineOp<RangeAttributes>({
  name: "slice",
  infer: ([x], { axis, start, end }) => {
    const size = x!.shape[axis]!;
    if (start < 0 || end < start || (typeof size === "number" && end > size))
      throw shapeError("slice", `a range within axis ${axis} of ${showShape(x!.shape)}`, `${start}..${end}`);
    return { dtype: x!.dtype, shape: x!.shape.map((old, i) => (i === axis ? end - start : old)) };
  },
  gradient: (gradient, { inputs: [x], attributes: { axis, start, end } }) => {
    const size = x!.shape[axis]!;
    if (typeof size !== "number")
      throw shapeError("slice", "a fixed size along the axis, to be differentiated", showShape(x!.shape));
    return [pad(gradient, axis, start, size - end)];
  },
  evaluate: ([x], { axis, start, end }, shape) => {
    if (end > x!.shape[axis]!)
      throw shapeError("slice", `a range within axis ${axis} of ${showShape(x!.shape)}`, `${start}..${end}`);
    const strides = stridesOf(x!.shape);
    return pick(
      x!,
      shape,
      offsetsOf(shape, strides).map((offset) => offset + start * strides[axis]!),
    );
  },
  lower: (emit, [x], { attributes: { axis, start, end } }) =>
    emit.node("Slice", [x!, emit.int64([start]), emit.int64([end]), emit.int64([axis])]),
});

/** x[start .. end - 1] along an axis. */
export const slice = (x: Value, axis: number, start: number, end: number): Value => {
  const index = axisIndex("slice", axis, x.shape.length);
  return start === 0 && end === x.shape[index] ? x : apply(sliceOp, [x], { axis: index, start, end });
};

interface PadAttributes {
  readonly axis: number;
  readonly before: number;
  readonly after: number;
}

export const padOp = defineOp<PadAttributes>({
  name: "pad",
  infer: ([x], { axis, before, after }) => {
    if (before < 0 || after < 0) throw shapeError("pad", "non-negative amounts", `${before} and ${after}`);
    return { dtype: x!.dtype, shape: x!.shape.map((size, i) => (i === axis ? plusAxes(size, before + after) : size)) };
  },
  gradient: (gradient, { inputs: [x], attributes: { axis, before } }) => {
    const size = x!.shape[axis]!;
    if (typeof size !== "number")
      throw shapeError("pad", "a fixed size along the axis, to be differentiated", showShape(x!.shape));
    return [slice(gradient, axis, before, before + size)];
  },
  evaluate: ([x], { axis, before }, shape) => {
    const strides = stridesOf(shape);
    const targets = offsetsOf(x!.shape, strides);
    const data = allocate(x!.dtype, sizeOf(shape));
    for (let i = 0; i < targets.length; i++) data[targets[i]! + before * strides[axis]!] = x!.data[i]!;
    return { dtype: x!.dtype, shape, data };
  },
  lower: (emit, [x], { shape, attributes: { axis, before, after } }) => {
    const amounts = [...shape.map((_, i) => (i === axis ? before : 0)), ...shape.map((_, i) => (i === axis ? after : 0))];
    return emit.node("Pad", [x!, emit.int64(amounts)]);
  },
});

export const isPad = (value: Value): value is Value<PadAttributes> => value.op === (padOp as unknown);

/** Zeros before and after, along an axis. */
export const pad = (x: Value, axis: number, before: number, after: number): Value =>
  before === 0 && after === 0 ? x : apply(padOp, [x], { axis: axisIndex("pad", axis, x.shape.length), before, after });

/** Number of elements along axes as a float scalar: a constant when they are fixed, else measured at run time. */
export const countOp = defineOp<{ readonly axes: readonly Axis[] }>({
  name: "count",
  infer: () => ({ dtype: "f32", shape: [] }),
  gradient: "none",
  // The concrete sizes come in as the shape of the (only) input.
  evaluate: ([x], { axes }) => tensor("f64", [], [axes.reduce<number>((total, axis) => total * x!.shape[axis as number]!, 1)]),
  lower: (emit, _inputs, { inputs: [x], attributes: { axes } }) => {
    const sizes = axes.map((axis) => x!.shape[axis as number]!);
    const fixed = sizes.filter((size) => typeof size === "number").reduce((total, size) => total * size, 1);
    const product = sizes
      .filter((size) => namesIn(size).length > 0)
      .reduce<string>((name, size) => emit.node("Mul", [name, emit.axis(size)]), emit.int64([fixed]));
    return emit.node("Cast", [emit.node("Squeeze", [product])], { to: emit.type("f32") });
  },
});

/** How many elements x has along the axes, as a float scalar. */
export const count = (x: Value, axes: readonly number[]): Value => {
  const sizes = axes.map((axis) => x.shape[axis]!);
  return sizes.every((size) => typeof size === "number")
    ? constant(sizes.reduce((product, size) => product * size, 1))
    : apply(countOp, [x], { axes });
};

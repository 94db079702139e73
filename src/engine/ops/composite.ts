/**
 * Larger steps with a kernel of their own: softmax, normalisation, GELU, and the log-probability of labels under a linear softmax head.
 * Each has a gradient rule that keeps little: what can be worked out again from the inputs is.
 */

import { allocate, type HostTensor, i32, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type TypeOf, type Value } from "../graph.ts";
import { needDTypes, sameShape, shapeError, showShape } from "../shape.ts";
import { add, div, equal, exp, log, maximum, minimum, mul, neg, reciprocal, sigmoid, sqrt, sub, where } from "./elementwise.ts";
import { addLast, gatherRows } from "./gather.ts";
import { concat, reshape, slice, sum, sumTo } from "./layout.ts";
import { gemm } from "./matmul.ts";
import { logSumExp, max, mean } from "./reduce.ts";
import { constant } from "./source.ts";

/** A float64 tensor made row by row over the last axis. */
const byRows = (x: HostTensor, write: (row: Float64Array, result: Float64Array) => void): HostTensor => {
  const width = x.shape[x.shape.length - 1]!;
  const source = Float64Array.from(x.data);
  const data = allocate("f64", source.length);
  for (let start = 0; start < data.length; start += width)
    write(source.subarray(start, start + width), data.subarray(start, start + width));
  return tensor("f64", x.shape, data);
};

export const softmaxOp = defineOp<null>({
  name: "softmax",
  infer: ([x]) => {
    needDTypes("softmax", [x!], ["f32"]);
    if (x!.shape.length === 0) throw shapeError("softmax", "at least one axis", "a scalar");
    return { dtype: "f32", shape: x!.shape };
  },
  gradient: (g, y) => {
    const scaled = mul(g, y);
    return [sub(scaled, mul(y, sum(scaled, -1, { keep: true })))];
  },
  evaluate: ([x]) =>
    byRows(x!, (row, result) => {
      const top = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const total = row.reduce((a, b) => a + Math.exp(b - top), 0);
      for (let i = 0; i < row.length; i++) result[i] = Math.exp(row[i]! - top) / total;
    }),
  lower: (emit, inputs) => emit.node("Softmax", inputs, { axis: -1 }),
});

/** Probabilities along the last axis. */
export const softmax = (x: Value): Value => apply(softmaxOp, [x], null);

/** Log-probabilities along the last axis. */
export const logSoftmax = (x: Value): Value => sub(x, logSumExp(x));

const geluScale = Math.sqrt(2 / Math.PI);
const geluCubic = 0.044715;

export const geluOp = defineOp<null>({
  name: "gelu",
  infer: ([x]) => {
    needDTypes("gelu", [x!], ["f32"]);
    return { dtype: "f32", shape: x!.shape };
  },
  gradient: (g, { inputs }) => {
    const x = inputs[0]!;
    const square = mul(x, x);
    // gelu(x) = x s with s = sigmoid(u), u = 2√(2/π) (x + 0.044715 x³); so d/dx = s + x s (1 - s) u' = s (1 + (1 - s) x u').
    const s = sigmoid(mul(x, add(mul(square, 2 * geluScale * geluCubic), 2 * geluScale)));
    const slope = mul(x, add(mul(square, 6 * geluScale * geluCubic), 2 * geluScale));
    return [mul(g, mul(s, add(mul(sub(1, s), slope), 1)))];
  },
  evaluate: ([x]) => ({
    dtype: "f64",
    shape: x!.shape,
    data: Float64Array.from(x!.data, (a) => 0.5 * a * (1 + Math.tanh(geluScale * (a + geluCubic * a * a * a)))),
  }),
  lower: (emit, inputs) => emit.node("FastGelu", inputs, {}, { domain: "com.microsoft" }),
});

/** GELU by its tanh approximation ("gelu_new", arXiv 1606.08415): x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2. */
export const gelu = (x: Value): Value => apply(geluOp, [x], null);

/** x sigmoid(x), the "swish" of SwiGLU (arXiv 2002.05202). */
export const silu = (x: Value): Value => mul(x, sigmoid(x));

interface NormAttributes {
  readonly epsilon: number;
}

const checkNorm = (name: string, x: TypeOf, weights: readonly TypeOf[]): void => {
  needDTypes(name, [x, ...weights], ["f32"]);
  for (const weight of weights) {
    if (weight.shape.length !== 1 || weight.shape[0] !== x.shape[x.shape.length - 1]) {
      throw shapeError(name, `weights of shape [${x.shape[x.shape.length - 1]}]`, `[${weight.shape.join(", ")}]`);
    }
  }
};

export const layerNormOp = defineOp<NormAttributes>({
  name: "layerNorm",
  infer: ([x, scale, bias]) => {
    checkNorm("layerNorm", x!, [scale!, bias!]);
    return { dtype: "f32", shape: x!.shape };
  },
  gradient: (g, { inputs, attributes: { epsilon } }) => {
    const [x, scale, bias] = inputs as [Value, Value, Value];
    const centred = sub(x, mean(x, -1, { keep: true }));
    const inverse = reciprocal(sqrt(add(mean(mul(centred, centred), -1, { keep: true }), epsilon)));
    const normal = mul(centred, inverse);
    const toNormal = mul(g, scale);
    const toX = mul(
      inverse,
      sub(sub(toNormal, mean(toNormal, -1, { keep: true })), mul(normal, mean(mul(toNormal, normal), -1, { keep: true }))),
    );
    return [toX, sumTo(mul(g, normal), scale.shape), sumTo(g, bias.shape)];
  },
  evaluate: ([x, scale, bias], { epsilon }) =>
    byRows(x!, (row, result) => {
      const centre = row.reduce((a, b) => a + b, 0) / row.length;
      const spread = Math.sqrt(row.reduce((a, b) => a + (b - centre) ** 2, 0) / row.length + epsilon);
      for (let i = 0; i < row.length; i++) result[i] = ((row[i]! - centre) / spread) * scale!.data[i]! + bias!.data[i]!;
    }),
  lower: (emit, inputs, { attributes: { epsilon } }) =>
    emit.node("LayerNormalization", inputs, { axis: -1, epsilon: { float: epsilon } }),
});

/** (x - mean) / √(variance + epsilon) · scale + bias along the last axis (arXiv 1607.06450). */
export const layerNorm = (x: Value, scale: Value, bias: Value, epsilon: number): Value =>
  apply(layerNormOp, [x, scale, bias], { epsilon });

export const rmsNormOp = defineOp<NormAttributes>({
  name: "rmsNorm",
  infer: ([x, scale]) => {
    checkNorm("rmsNorm", x!, [scale!]);
    return { dtype: "f32", shape: x!.shape };
  },
  gradient: (g, { inputs, attributes: { epsilon } }) => {
    const [x, scale] = inputs as [Value, Value];
    const inverse = reciprocal(sqrt(add(mean(mul(x, x), -1, { keep: true }), epsilon)));
    const normal = mul(x, inverse);
    const toNormal = mul(g, scale);
    return [
      mul(inverse, sub(toNormal, mul(normal, mean(mul(toNormal, normal), -1, { keep: true })))),
      sumTo(mul(g, normal), scale.shape),
    ];
  },
  evaluate: ([x, scale], { epsilon }) =>
    byRows(x!, (row, result) => {
      const size = Math.sqrt(row.reduce((a, b) => a + b * b, 0) / row.length + epsilon);
      for (let i = 0; i < row.length; i++) result[i] = (row[i]! / size) * scale!.data[i]!;
    }),
  lower: (emit, inputs, { attributes: { epsilon } }) =>
    emit.device === "cpu" || emit.device === "cuda"
      ? emit.node("SimplifiedLayerNormalization", inputs, { axis: -1, epsilon: { float: epsilon }, stash_type: 1 })
      : emit.inline(inputs, (x, scale) => mul(div(x!, sqrt(add(mean(mul(x!, x!), -1, { keep: true }), epsilon))), scale!)),
});

/** x / √(mean(x²) + epsilon) · scale along the last axis (arXiv 1910.07467). */
export const rmsNorm = (x: Value, scale: Value, epsilon: number): Value => apply(rmsNormOp, [x, scale], { epsilon });

/**
 * Columns of the head that are multiplied out at a time. What a chunk of logits goes through then finds it in the cache, and products that
 * fit there run faster (247 against 220 GFLOP/s for 640 tokens and a width of 256, docs/performance.md).
 */
const headChunk = 1024;

interface HeadAttributes {
  /** Rows of the head table in each chunk. */
  readonly chunk: number;
}

const chunksOf = (head: Value, chunk: number): { readonly start: number; readonly part: Value }[] => {
  const vocabulary = head.shape[0] as number;
  return Array.from({ length: Math.ceil(vocabulary / chunk) }, (_, i) => ({
    start: i * chunk,
    part: slice(head, 0, i * chunk, Math.min((i + 1) * chunk, vocabulary)),
  }));
};

const integer = (value: number): Value => constant(i32([], [value]));

/** h·W[label] for each row. */
const labelLogits = (hidden: Value, head: Value, labels: Value): Value => sum(mul(hidden, gatherRows(head, labels)), -1);

/** Probabilities within a chunk of the vocabulary [N, C], and the log of their normaliser [N, 1]: one kernel, and two looks for a maximum. */
const withinChunk = (hidden: Value, part: Value): { readonly probabilities: Value; readonly logNormalizer: Value } => {
  const logits = gemm(hidden, part, undefined, { transposeB: true });
  const probabilities = softmax(logits);
  // The largest logit and its probability belong together: log Σ exp = logit - log probability, and that probability is at least 1/C.
  const top = (x: Value): Value => max(x, -1, { keep: true });
  return { probabilities, logNormalizer: sub(top(logits), log(top(probabilities))) };
};

export const linearLogProbOp = defineOp<HeadAttributes>({
  name: "linearLogProb",
  infer: ([hidden, head, labels]) => {
    needDTypes("linearLogProb", [hidden!, head!], ["f32"]);
    const fits =
      hidden!.shape.length === 2 &&
      head!.shape.length === 2 &&
      typeof head!.shape[0] === "number" &&
      hidden!.shape[1] === head!.shape[1];
    if (!fits)
      throw shapeError(
        "linearLogProb",
        "hidden [N, D] and a head [V, D] of fixed size",
        `${showShape(hidden!.shape)} and ${showShape(head!.shape)}`,
      );
    if (labels!.dtype !== "i32" || !sameShape(labels!.shape, hidden!.shape.slice(0, 1))) {
      throw shapeError(
        "linearLogProb",
        `integer labels of shape ${showShape(hidden!.shape.slice(0, 1))}`,
        `${labels!.dtype} ${showShape(labels!.shape)}`,
      );
    }
    return { dtype: "f32", shape: labels!.shape };
  },
  // d/dlogits = g (onehot - softmax). Written with the very values that lower() writes, so that a runtime which merges equal nodes keeps
  // the probabilities of the forward pass; one that does not works them out again, chunk by chunk.
  gradient: (g, value) => {
    const [hidden, head, labels] = value.inputs as [Value, Value, Value];
    const column = reshape(g, [...g.shape, 1]);
    const logTotal = reshape(sub(labelLogits(hidden, head, labels), value), column.shape);
    const toHidden: Value[] = [];
    const toHead: Value[] = [];
    for (const { start, part } of chunksOf(head, value.attributes.chunk)) {
      const { probabilities, logNormalizer } = withinChunk(hidden, part);
      const place = sub(labels, integer(start));
      const within = minimum(maximum(place, integer(0)), integer((part.shape[0] as number) - 1));
      const toLogits = addLast(
        mul(probabilities, neg(mul(column, exp(sub(logNormalizer, logTotal))))),
        where(equal(place, within), g, 0),
        within,
      );
      toHidden.push(gemm(toLogits, part));
      toHead.push(gemm(toLogits, hidden, undefined, { transposeA: true }));
    }
    return [toHidden.reduce(add), concat(toHead, 0), undefined];
  },
  evaluate: ([hidden, head, labels], _, shape) => {
    const [vocabulary, width] = head!.shape as [number, number];
    const data = allocate("f64", sizeOf(shape));
    for (let n = 0; n < data.length; n++) {
      const logits = Float64Array.from({ length: vocabulary }, (_, v) => {
        let total = 0;
        for (let d = 0; d < width; d++) total += hidden!.data[n * width + d]! * head!.data[v * width + d]!;
        return total;
      });
      const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      data[n] = logits[labels!.data[n]!]! - top - Math.log(logits.reduce((total, logit) => total + Math.exp(logit - top), 0));
    }
    return tensor("f64", shape, data);
  },
  lower: (emit, inputs, { attributes: { chunk } }) =>
    emit.inline(inputs, (hidden, head, labels) => {
      const parts = chunksOf(head!, chunk).map(({ part }) => withinChunk(hidden!, part).logNormalizer);
      const logNormalizer = parts.length === 1 ? parts[0]! : logSumExp(concat(parts, 1));
      return sub(labelLogits(hidden!, head!, labels!), reshape(logNormalizer, labels!.shape));
    }),
});

/**
 * log softmax(hidden · headᵀ) at the labels, without ever holding [N, V] whole.
 *
 * @param hidden final states [N, D]
 * @param head   output embedding [V, D]
 * @param labels token ids [N], integers
 * @param chunk  rows of the head multiplied out at a time
 * @returns log-probabilities [N], nats
 */
export const linearLogProb = (hidden: Value, head: Value, labels: Value, chunk: number = headChunk): Value =>
  apply(linearLogProbOp, [hidden, head, labels], { chunk });

/** Matrix products. */

import { allocate, type HostTensor, sizeOf, tensor } from "../../base/tensor.ts";
import { apply, defineOp, type Emitter, type Value } from "../graph.ts";
import { type Axis, needDTypes, sameShape, shapeError, showShape } from "../shape.ts";
import { sumTo } from "./layout.ts";

interface Transposes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

/** result += op(a) op(b) for one pair of row-major matrices. */
const multiply = (
  result: Float64Array,
  a: HostTensor["data"],
  b: HostTensor["data"],
  [rows, inner, columns]: readonly [number, number, number],
  { transposeA, transposeB }: Transposes,
): void => {
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let total = result[i * columns + j]!;
      for (let k = 0; k < inner; k++)
        total += a[transposeA ? k * rows + i : i * inner + k]! * b[transposeB ? j * inner + k : k * columns + j]!;
      result[i * columns + j] = total;
    }
  }
};

interface MatmulAttributes extends Transposes {
  /** The product is multiplied by it. */
  readonly scale: number;
}

export const matmulOp = defineOp<MatmulAttributes>({
  name: "matmul",
  infer: ([a, b], { transposeA, transposeB }) => {
    needDTypes("matmul", [a!, b!], ["f32"]);
    const rank = a!.shape.length;
    const batch = a!.shape.slice(0, -2);
    const [rows, innerA] = transposeA ? [a!.shape[rank - 1]!, a!.shape[rank - 2]!] : [a!.shape[rank - 2]!, a!.shape[rank - 1]!];
    const [innerB, columns] = transposeB
      ? [b!.shape[rank - 1]!, b!.shape[rank - 2]!]
      : [b!.shape[rank - 2]!, b!.shape[rank - 1]!];
    if (rank < 2 || b!.shape.length !== rank || innerA !== innerB || !sameShape(batch, b!.shape.slice(0, -2))) {
      throw shapeError(
        "matmul",
        "equal batch axes and matching inner axes",
        `${showShape(a!.shape)}${transposeA ? "ᵀ" : ""} and ${showShape(b!.shape)}${transposeB ? "ᵀ" : ""}`,
      );
    }
    return { dtype: "f32", shape: [...batch, rows, columns] };
  },
  gradient: (g, { inputs, attributes: { transposeA, transposeB, scale } }) => {
    const [a, b] = inputs as [Value, Value];
    return [
      transposeA
        ? matmul(b, g, { transposeA: transposeB, transposeB: true, scale })
        : matmul(g, b, { transposeB: !transposeB, scale }),
      transposeB
        ? matmul(g, a, { transposeA: true, transposeB: transposeA, scale })
        : matmul(a, g, { transposeA: !transposeA, scale }),
    ];
  },
  evaluate: ([a, b], attributes, shape) => {
    const rows = shape[shape.length - 2]!;
    const columns = shape[shape.length - 1]!;
    const inner = a!.shape[a!.shape.length - (attributes.transposeA ? 2 : 1)]!;
    const data = allocate("f64", sizeOf(shape));
    for (let n = 0; n < sizeOf(shape.slice(0, -2)); n++) {
      multiply(
        data.subarray(n * rows * columns, (n + 1) * rows * columns),
        a!.data.subarray(n * rows * inner, (n + 1) * rows * inner),
        b!.data.subarray(n * inner * columns, (n + 1) * inner * columns),
        [rows, inner, columns],
        attributes,
      );
    }
    return tensor(
      "f64",
      shape,
      data.map((value) => value * attributes.scale),
    );
  },
  lower: (emit, inputs, { inputs: [a], attributes: { transposeA, transposeB, scale } }) => {
    if (!transposeA && !transposeB && scale === 1) return emit.node("MatMul", inputs);
    if (emit.device === "cpu" || emit.device === "cuda") {
      return emit.node(
        "FusedMatMul",
        inputs,
        { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0, alpha: { float: scale } },
        { domain: "com.microsoft" },
      );
    }
    const swapped = a!.shape.map((_, i) => i);
    swapped.splice(-2, 2, swapped.length - 1, swapped.length - 2);
    const product = emit.node(
      "MatMul",
      inputs.map((x, i) => ((i === 0 ? transposeA : transposeB) ? emit.node("Transpose", [x], { perm: swapped }) : x)),
    );
    return scale === 1 ? product : emit.node("Mul", [product, emit.initializer(tensor("f32", [], [scale]))]);
  },
});

/** Products of matrices in the last two axes, times a number; the axes before are a batch. */
export const matmul = (a: Value, b: Value, options: Partial<MatmulAttributes> = {}): Value =>
  apply(matmulOp, [a, b], {
    transposeA: options.transposeA ?? false,
    transposeB: options.transposeB ?? false,
    scale: options.scale ?? 1,
  });

/**
 * Whether a product has so many columns that its left operand is better transposed before than on the way: ONNX Runtime's product does that anew for each
 * block of columns, a fifth of its time (docs/log.md).
 */
const isWide = (columns: Axis): boolean => typeof columns === "number" && columns >= 256;

/** a [N, M] transposed, as a matrix of three axes: a transpose of two would be merged back into the product. */
const turnedApart = (emit: Emitter, a: string, rows: number): string => {
  const three = emit.node("Reshape", [a, emit.int64([1, -1, rows])]);
  return emit.node("Reshape", [emit.node("Transpose", [three], { perm: [0, 2, 1] }), emit.int64([rows, -1])]);
};

export const gemmOp = defineOp<Transposes>({
  name: "gemm",
  infer: (inputs, { transposeA, transposeB }) => {
    needDTypes("gemm", inputs, ["f32"]);
    const [a, b, bias] = inputs;
    if (a!.shape.length !== 2 || b!.shape.length !== 2)
      throw shapeError("gemm", "two matrices", `${showShape(a!.shape)} and ${showShape(b!.shape)}`);
    const [rows, innerA] = transposeA ? [a!.shape[1]!, a!.shape[0]!] : [a!.shape[0]!, a!.shape[1]!];
    const [innerB, columns] = transposeB ? [b!.shape[1]!, b!.shape[0]!] : [b!.shape[0]!, b!.shape[1]!];
    if (innerA !== innerB)
      throw shapeError(
        "gemm",
        "matching inner axes",
        `${showShape(a!.shape)}${transposeA ? "ᵀ" : ""} and ${showShape(b!.shape)}${transposeB ? "ᵀ" : ""}`,
      );
    if (bias !== undefined && !sameShape(bias.shape, [columns]) && !sameShape(bias.shape, [rows, columns]))
      throw shapeError("gemm", `a bias of shape ${showShape([columns])} or ${showShape([rows, columns])}`, showShape(bias.shape));
    return { dtype: "f32", shape: [rows, columns] };
  },
  gradient: (g, { inputs, attributes: { transposeA, transposeB } }) => {
    const [a, b, bias] = inputs as [Value, Value, Value | undefined];
    const toA = transposeA
      ? gemm(b, g, undefined, { transposeA: transposeB, transposeB: true })
      : gemm(g, b, undefined, { transposeB: !transposeB });
    const toB = transposeB
      ? gemm(g, a, undefined, { transposeA: true, transposeB: transposeA })
      : gemm(a, g, undefined, { transposeA: !transposeA });
    return bias === undefined ? [toA, toB] : [toA, toB, sumTo(g, bias.shape)];
  },
  evaluate: ([a, b, bias], attributes, shape) => {
    const [rows, columns] = shape as [number, number];
    const inner = a!.shape[attributes.transposeA ? 0 : 1]!;
    const data = allocate("f64", rows * columns);
    if (bias !== undefined) for (let i = 0; i < data.length; i++) data[i] = bias.data[i % bias.data.length]!;
    multiply(data, a!.data, b!.data, [rows, inner, columns], attributes);
    return tensor("f64", shape, data);
  },
  lower: (emit, inputs, { shape, attributes: { transposeA, transposeB } }) => {
    const [rows, columns] = shape;
    const turned = emit.device === "cpu" && transposeA && isWide(columns!) && typeof rows === "number";
    const left = turned ? turnedApart(emit, inputs[0]!, rows) : inputs[0]!;
    return emit.node("Gemm", [left, ...inputs.slice(1)], { transA: transposeA && !turned ? 1 : 0, transB: transposeB ? 1 : 0 });
  },
});

/** op(a) op(b) + bias for two matrices: a linear layer in one kernel. The bias is a row [M] for every row of the product [N, M], or as large as it. */
export const gemm = (a: Value, b: Value, bias?: Value, options: Partial<Transposes> = {}): Value =>
  apply(gemmOp, bias === undefined ? [a, b] : [a, b, bias], {
    transposeA: options.transposeA ?? false,
    transposeB: options.transposeB ?? false,
  });

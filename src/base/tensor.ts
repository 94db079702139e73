/**
 * Host tensors: a dtype, a shape and a flat row-major typed array.
 * Axis letters are those of docs/glossary.md (B sequences, T tokens, V vocabulary, D width, H heads, K head width, L layers).
 */

/** f64 exists only in the reference interpreter; devices compute in f32. bool is stored as 0 or 1. */
export type DType = "f32" | "f64" | "i32" | "bool";

export interface DataOf {
  f32: Float32Array;
  f64: Float64Array;
  i32: Int32Array;
  bool: Uint8Array;
}

export interface HostTensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: DataOf[D];
}

/** Number of elements of a shape; 1 for a scalar. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, axis) => product * axis, 1);

const constructors = { f32: Float32Array, f64: Float64Array, i32: Int32Array, bool: Uint8Array } as const;

/** A zero-filled flat array of the dtype. */
export const allocate = <D extends DType>(dtype: D, length: number): DataOf[D] => new constructors[dtype](length) as DataOf[D];

/** A tensor over the given data (not copied when it already is the right typed array). @throws RangeError on a length mismatch */
export const tensor = <D extends DType>(
  dtype: D,
  shape: readonly number[],
  data: DataOf[D] | readonly number[],
): HostTensor<D> => {
  const array = Array.isArray(data) ? (constructors[dtype].from(data as number[]) as DataOf[D]) : (data as DataOf[D]);
  if (array.length !== sizeOf(shape)) {
    throw new RangeError(`tensor: expected ${sizeOf(shape)} elements for shape [${shape.join(", ")}], got ${array.length}`);
  }
  return { dtype, shape, data: array };
};

/** A zero-filled tensor. */
export const zeros = <D extends DType>(dtype: D, shape: readonly number[]): HostTensor<D> =>
  tensor(dtype, shape, allocate(dtype, sizeOf(shape)));

export const f32 = (shape: readonly number[], data: Float32Array | readonly number[]): HostTensor<"f32"> =>
  tensor("f32", shape, data);
export const i32 = (shape: readonly number[], data: Int32Array | readonly number[]): HostTensor<"i32"> =>
  tensor("i32", shape, data);
export const scalar = (value: number): HostTensor<"f32"> => tensor("f32", [], Float32Array.of(value));

/** Named weights of a model; the names are those of its Hugging Face file. */
export type NamedTensors = Readonly<Record<string, HostTensor<"f32">>>;

/** The same record with `prefix.` before each name: how weights, gradients and moments are told apart among a graph's inputs. */
export const prefixed = <T>(prefix: string, record: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [`${prefix}.${name}`, value]));

/**
 * The safetensors format: 8 bytes header length (little-endian), a JSON header, then the tensors' bytes back to back.
 * https://github.com/huggingface/safetensors#format
 *
 * A file is somebody else's claim: everything in the header is checked against the file before a byte is allocated for it.
 * F32, F16 and BF16 are read, all as float32. Typed arrays are little-endian on every platform Node runs on here, as the format is.
 */

import { messageOf, runtimeError, type TiltError } from "../../base/errors.ts";
import { type Files, joinPath } from "../../base/files.ts";
import { f32, type HostTensor, type NamedTensors, sizeOf } from "../../base/tensor.ts";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./float16.ts";

export type WeightDType = "F32" | "F16" | "BF16";

export interface Safetensors {
  /** All as float32, in the order of the file. */
  readonly tensors: NamedTensors;
  /** The header's `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** What each tensor was stored as. */
  readonly dtypes: Readonly<Record<string, WeightDType>>;
}

export interface ReadOptions {
  /** Which tensors to read; the others are checked, whatever their dtype, but not loaded. All by default. */
  readonly select?: (name: string) => boolean;
}

interface Entry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bytes from the start of the data, which follows the header. */
  readonly begin: number;
  readonly end: number;
}

interface Header {
  readonly entries: readonly Entry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes from the start of the file to the data. */
  readonly dataOffset: number;
}

/** Bytes an element of each of the format's dtypes that have a whole number of them. */
const elementSizes = new Map<string, number>(
  Object.entries({
    BOOL: 1,
    U8: 1,
    I8: 1,
    F8_E5M2: 1,
    F8_E4M3: 1,
    I16: 2,
    U16: 2,
    F16: 2,
    BF16: 2,
    I32: 4,
    U32: 4,
    F32: 4,
    F64: 8,
    I64: 8,
    U64: 8,
  }),
);

/** The limit of the reference implementation; a header of 100 MB would describe about a million tensors. */
const largestHeader = 100_000_000;

const damaged = "the file is damaged or incomplete: download or save it again";

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A natural number that float64 holds exactly. */
const isNatural = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** A value as it reads in JSON, cut to fit in a message. */
const shown = (value: unknown): string => {
  try {
    const text = JSON.stringify(value) ?? "nothing";
    return text.length > 80 ? `${text.slice(0, 77)}...` : text;
  } catch {
    return "something nested too deeply to show";
  }
};

const parseEntry = (path: string, name: string, value: unknown): Entry => {
  const complain = (expected: string, got: string, fix = damaged): TiltError =>
    runtimeError({ where: `${path}: tensor ${shown(name)}`, expected, got, fix });
  if (!isObject(value)) throw complain("an object with dtype, shape and data_offsets", shown(value));
  const { dtype, shape, data_offsets: offsets } = value;
  const elementSize = typeof dtype === "string" ? elementSizes.get(dtype) : undefined;
  if (elementSize === undefined)
    throw complain("the dtype F32, F16 or BF16", shown(dtype), "convert the weights to one of these");
  if (!Array.isArray(shape) || !shape.every(isNatural)) throw complain("a shape of non-negative integers", shown(shape));
  const bytes = sizeOf(shape) * elementSize;
  if (!isNatural(bytes)) throw complain("a shape whose size can be counted", shown(shape));
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isNatural)) {
    throw complain("data_offsets of two non-negative integers", shown(offsets));
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== bytes)
    throw complain(`${bytes} bytes for ${dtype} ${shown(shape)}`, `data_offsets ${shown(offsets)}, which are ${end - begin}`);
  return { name, dtype: dtype as string, shape: shape as number[], begin, end };
};

/** The tensors must tile the data exactly: no overlap, no hole, nothing before the first or after the last. */
const checkTiling = (path: string, entries: readonly Entry[], dataBytes: number): void => {
  let position = 0;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    const where = `${path}: tensor ${shown(name)}`;
    if (begin !== position) {
      const got = `byte ${begin}, which ${begin < position ? "overlaps the tensor before" : "leaves a hole"}`;
      throw runtimeError({ where, expected: `its data to begin at byte ${position}`, got, fix: damaged });
    }
    if (end > dataBytes)
      throw runtimeError({
        where,
        expected: `data up to byte ${end}`,
        got: `a file with ${dataBytes} bytes of data`,
        fix: damaged,
      });
    position = end;
  }
  if (position !== dataBytes) {
    throw runtimeError({ where: path, expected: `${position} bytes of data`, got: `${dataBytes}`, fix: damaged });
  }
};

const readHeader = async (files: Files, path: string): Promise<Header> => {
  const complain = (expected: string, got: string, fix = damaged): TiltError => runtimeError({ where: path, expected, got, fix });
  const info = await files.info(path);
  if (info === undefined || info.isDirectory) {
    throw complain("a safetensors file", info === undefined ? "nothing there" : "a directory", "check the path");
  }
  if (info.size < 8) throw complain("a safetensors file, which has at least 8 bytes", `${info.size} bytes`);
  const prefix = await files.readRange(path, 0, 8);
  if (new TextDecoder().decode(prefix) === "version ") {
    throw complain("a safetensors file", "what looks like a git-lfs pointer to one", "fetch the real file with `git lfs pull`");
  }
  const headerBytes = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
  const longest = Math.min(info.size - 8, largestHeader);
  if (headerBytes > longest) throw complain(`a header of at most ${longest} bytes`, `one that claims ${headerBytes}`);
  const bytes = await files.readRange(path, 8, headerBytes);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw complain("a header of JSON", messageOf(error).replace(/\s+/g, " ").slice(0, 120));
  }
  if (!isObject(header)) throw complain("a JSON object as header", shown(header));
  const { __metadata__: metadata = {}, ...claims } = header;
  if (!isObject(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw complain("__metadata__ of strings", shown(metadata));
  }
  const entries = Object.entries(claims).map(([name, value]) => parseEntry(path, name, value));
  checkTiling(path, entries, info.size - 8 - headerBytes);
  return { entries, metadata: metadata as Record<string, string>, dataOffset: 8 + headerBytes };
};

/** A view of the bytes as elements of a wider type; a copy only where they are not aligned to it. */
const aligned = (bytes: Uint8Array, elementSize: number): Uint8Array =>
  bytes.byteOffset % elementSize === 0 ? bytes : bytes.slice();

const widen = (dtype: WeightDType, bytes: Uint8Array): Float32Array => {
  if (dtype === "F32") {
    const { buffer, byteOffset } = aligned(bytes, 4);
    return new Float32Array(buffer, byteOffset, bytes.length / 4);
  }
  const { buffer, byteOffset } = aligned(bytes, 2);
  const halves = new Uint16Array(buffer, byteOffset, bytes.length / 2);
  return dtype === "F16" ? float16ToFloat32(halves) : bfloat16ToFloat32(halves);
};

const readFile = async (
  files: Files,
  path: string,
  select: (name: string) => boolean,
): Promise<Safetensors & { names: readonly string[] }> => {
  const { entries, metadata, dataOffset } = await readHeader(files, path);
  const tensors: [string, HostTensor<"f32">][] = [];
  const dtypes: [string, WeightDType][] = [];
  for (const { name, dtype, shape, begin, end } of entries) {
    if (!select(name)) continue;
    if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
      const fix = "convert the weights to one of these";
      throw runtimeError({
        where: `${path}: tensor ${shown(name)}`,
        expected: "the dtype F32, F16 or BF16",
        got: shown(dtype),
        fix,
      });
    }
    tensors.push([name, f32(shape, widen(dtype, await files.readRange(path, dataOffset + begin, end - begin)))]);
    dtypes.push([name, dtype]);
  }
  // fromEntries defines own properties, so that a tensor named "__proto__" is only a tensor.
  const names = entries.map(({ name }) => name);
  return { tensors: Object.fromEntries(tensors), metadata, dtypes: Object.fromEntries(dtypes), names };
};

/** The shard of each tensor, from the `weight_map` of an index file. */
const readIndex = async (files: Files, path: string): Promise<Map<string, string>> => {
  const fix = "the index is damaged: download or save it again";
  let index: unknown;
  try {
    index = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await files.read(path)));
  } catch (error) {
    throw runtimeError(
      { where: path, expected: "an index in JSON", got: messageOf(error).replace(/\s+/g, " ").slice(0, 120), fix },
      error,
    );
  }
  const map = isObject(index) ? index["weight_map"] : undefined;
  if (!isObject(map)) throw runtimeError({ where: path, expected: "an object with a weight_map", got: shown(map ?? index), fix });
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    // A shard lies beside its index: a name with a separator could point at any file of the machine.
    if (typeof shard !== "string" || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      const expected = `a file name ending in .safetensors, without a path, for ${shown(name)}`;
      throw runtimeError({ where: path, expected, got: shown(shard), fix });
    }
    shards.set(name, shard);
  }
  return shards;
};

/**
 * The tensors of a safetensors file, or of all the shards of a `*.safetensors.index.json`, as float32.
 *
 * @throws TiltError (runtime) on anything in a header or an index that is not so, naming file and tensor
 */
export const readSafetensors = async (
  files: Files,
  path: string,
  { select = () => true }: ReadOptions = {},
): Promise<Safetensors> => {
  if (!path.endsWith(".index.json")) {
    const { tensors, metadata, dtypes } = await readFile(files, path, select);
    return { tensors, metadata, dtypes };
  }
  const shardOf = await readIndex(files, path);
  const directory = path.replace(/[^/\\]*$/, "");
  const found: Safetensors[] = [];
  const seen = new Set<string>();
  for (const shard of [...new Set(shardOf.values())].sort()) {
    const shardPath = directory === "" ? shard : joinPath(directory, shard);
    const { names, ...read } = await readFile(files, shardPath, select);
    for (const name of names) {
      if (shardOf.get(name) === shard) seen.add(name);
      else {
        const expected = `only the tensors that ${path} lists for it`;
        throw runtimeError({ where: shardPath, expected, got: `also ${shown(name)}`, fix: "download or save all shards again" });
      }
    }
    found.push(read);
  }
  for (const [name, shard] of shardOf) {
    if (seen.has(name)) continue;
    throw runtimeError({
      where: path,
      expected: `tensor ${shown(name)} in ${shard}`,
      got: "none there",
      fix: "download or save all shards again",
    });
  }
  const merged = <T>(part: (read: Safetensors) => Readonly<Record<string, T>>): Record<string, T> =>
    Object.fromEntries(found.flatMap((read) => Object.entries(part(read))));
  return {
    tensors: merged((read) => read.tensors),
    metadata: merged((read) => read.metadata),
    dtypes: merged((read) => read.dtypes),
  };
};

const byteView = (array: Float32Array | Uint16Array): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

const narrow: Readonly<Record<WeightDType, (values: Float32Array) => Uint8Array>> = {
  F32: byteView,
  F16: (values) => byteView(float32ToFloat16(values)),
  BF16: (values) => byteView(float32ToBfloat16(values)),
};

export interface WriteOptions {
  /** What to store every tensor as; F32 by default. */
  readonly dtype?: WeightDType;
  /** `{ format: "pt" }` by default, without which some versions of transformers refuse the file. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The parts of a safetensors file, one at a time, to hand to `files.write`: the header, then each tensor's bytes in the order of their names. */
export function* safetensorsParts(
  tensors: NamedTensors,
  { dtype = "F32", metadata = { format: "pt" } }: WriteOptions = {},
): Iterable<Uint8Array> {
  const elementSize = dtype === "F32" ? 4 : 2;
  const named = Object.entries(tensors).sort(([a], [b]) => (a < b ? -1 : 1));
  const header: [string, unknown][] = [["__metadata__", metadata]];
  let position = 0;
  for (const [name, { shape }] of named) {
    if (name === "__metadata__") {
      const got = "one named __metadata__, which the format keeps for itself";
      throw runtimeError({ where: "safetensors", expected: "tensors", got, fix: "rename the tensor" });
    }
    const end = position + sizeOf(shape) * elementSize;
    header.push([name, { dtype, shape, data_offsets: [position, end] }]);
    position = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  // Spaces up to a multiple of 8, so that the data is aligned for whoever maps the file into memory.
  const prefix = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(prefix.length - 8), true);
  prefix.set(json, 8);
  yield prefix;
  for (const [, { data }] of named) yield narrow[dtype](data);
}

/** One ONNX Runtime session: host tensors in, host tensors out. Inputs are passed without a copy. Runs on the thread that calls it. */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { messageOf, runtimeError } from "../../base/errors.ts";
import { type DType, type HostTensor, sizeOf, tensor, zeros } from "../../base/tensor.ts";
import { outputName, rawBytes } from "../onnx/model.ts";
import type { SessionSpec } from "./cpu-model.ts";
import type { RunOptions } from "./device.ts";
import { freeBuffer } from "./memory.node.ts";
import { createRowCaches } from "./row-cache.ts";
import { runTimes } from "./scan.ts";

const ortTypes = { f32: "float32", f64: "float32", i32: "int32", bool: "bool" } as const;
const dtypes: Readonly<Record<string, DType>> = { float32: "f32", int32: "i32", bool: "bool" };

const toOrt = ({ dtype, shape, data }: HostTensor): Tensor =>
  new Tensor(ortTypes[dtype], (dtype === "f64" ? Float32Array.from(data) : data) as Float32Array, shape as number[]);

const fromOrt = (held: Tensor): HostTensor => tensor(dtypes[held.type] ?? "f32", held.dims, held.data as Float32Array);

export interface Session {
  /**
   * @param batch   sequences in this run, for caches that are empty
   * @param options with `overwrite`, arrays among the inputs are written over
   */
  run(inputs: Readonly<Record<string, HostTensor>>, batch: number, options?: RunOptions): Promise<Record<string, HostTensor>>;
  /** Lets go of the caches. */
  clear(): void;
  dispose(): Promise<void>;
}

/** Elements of a piece: a megabyte of each tensor. */
const pieceSize = 2 ** 18;

/**
 * @param outside what the model names and does not hold. The runtime copies what it needs of it: it is not looked at any more afterwards
 * @throws TiltError (runtime) when ONNX Runtime refuses the model
 */
export const openSession = async (
  model: Uint8Array,
  outside: Readonly<Record<string, HostTensor>>,
  { outputs, caches, cacheRows, scan, piecewise, threads }: SessionSpec,
): Promise<Session> => {
  const session = await InferenceSession.create(model, {
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
    // A plan of the first run's memory would be allocated beside that memory: twice as much, no faster (docs/log.md).
    enableMemPattern: false,
    externalData: Object.entries(outside).map(([path, held]) => ({ path, data: rawBytes(held) })),
    // Errors are thrown, with the same words.
    logSeverityLevel: 4,
    ...(threads > 0 ? { intraOpNumThreads: threads } : {}),
  }).catch((error: unknown) => {
    throw runtimeError(
      {
        where: "cpu",
        expected: "ONNX Runtime to accept the graph",
        got: messageOf(error),
        fix: "report it with the model's config.json",
      },
      error,
    );
  });
  const cacheNames = Object.keys(caches);
  const store = createRowCaches(caches, "f32", cacheRows);
  const runOnce = async (
    inputs: Readonly<Record<string, HostTensor>>,
    overwrite = false,
  ): Promise<Record<string, HostTensor>> => {
    const feeds = Object.fromEntries(Object.entries(inputs).map(([name, held]) => [name, toOrt(held)]));
    const isOver = (name: string): boolean => overwrite && name in inputs;
    const fetches = Object.fromEntries(outputs.map((name) => [outputName(name), isOver(name) ? feeds[name]! : null]));
    const results = await session.run(feeds, fetches).catch((error: unknown) => {
      throw runtimeError(
        {
          where: "cpu",
          expected: "ONNX Runtime to run the graph",
          got: messageOf(error),
          fix: "check the values of the inputs",
        },
        error,
      );
    });
    return Object.fromEntries(
      outputs.map((name) => {
        const found = fromOrt(results[outputName(name)] as Tensor);
        if (!isOver(name)) return [name, found];
        // A copy is handed out of what was written in its place.
        freeBuffer(found.data);
        return [name, inputs[name]!];
      }),
    );
  };
  const runPieces = async (
    inputs: Readonly<Record<string, HostTensor>>,
    overwrite: boolean,
  ): Promise<Record<string, HostTensor>> => {
    const { shape } = Object.values(inputs).find((held) => held.shape.length > 0)!;
    const size = sizeOf(shape);
    const whole = Object.fromEntries(outputs.map((name) => [name, (overwrite && inputs[name]) || zeros("f32", shape)]));
    for (let start = 0; start < size; start += pieceSize) {
      const end = Math.min(start + pieceSize, size);
      const piece = Object.entries(inputs).map(([name, held]) => [
        name,
        held.shape.length === 0 ? held : tensor(held.dtype, [end - start], held.data.subarray(start, end) as HostTensor["data"]),
      ]);
      for (const [name, { data }] of Object.entries(await runOnce(Object.fromEntries(piece))))
        whole[name]!.data.set(data as Float32Array, start);
    }
    return whole;
  };
  const clear = (): void => {
    for (const buffer of store.clear()) freeBuffer(buffer);
  };
  return {
    run: async (inputs, batch, options) => {
      if (piecewise) return runPieces(inputs, options?.overwrite ?? false);
      if (cacheNames.length === 0) return runOnce(inputs, options?.overwrite);
      if (options?.caches === "empty") store.empty();
      else if (options?.caches !== undefined) store.keep(options.caches);
      const once = async (own: Readonly<Record<string, HostTensor>>) => {
        const found = await runOnce({ ...own, ...store.tensors(batch) });
        store.append(found);
        return Object.fromEntries(Object.entries(found).filter(([name]) => !(name in caches)));
      };
      return scan === undefined ? once(inputs) : runTimes(scan, inputs, once);
    },
    clear,
    dispose: () => {
      clear();
      return session.release();
    },
  };
};

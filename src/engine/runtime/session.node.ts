/** One ONNX Runtime session: host tensors in, host tensors out. Inputs are passed without a copy. Runs on the thread that calls it. */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { messageOf, runtimeError } from "../../base/errors.ts";
import { type DType, type HostTensor, tensor } from "../../base/tensor.ts";
import type { TypeOf } from "../graph.ts";
import { outputName } from "../onnx/model.ts";
import type { RunOptions } from "./device.ts";
import { createRowCaches } from "./row-cache.ts";

const ortTypes = { f32: "float32", f64: "float32", i32: "int32", bool: "bool" } as const;
const dtypes: Readonly<Record<string, DType>> = { float32: "f32", int32: "i32", bool: "bool" };

const toOrt = ({ dtype, shape, data }: HostTensor): Tensor =>
  new Tensor(ortTypes[dtype], (dtype === "f64" ? Float32Array.from(data) : data) as Float32Array, shape as number[]);

const fromOrt = (held: Tensor): HostTensor => tensor(dtypes[held.type] ?? "f32", held.dims, held.data as Float32Array);

export interface SessionSpec {
  /** The outputs of the graph, by its own names. */
  readonly outputs: readonly string[];
  /** Inputs that the session keeps itself, as CompileOptions.caches. */
  readonly caches: Readonly<Record<string, TypeOf>>;
  /** Threads that work on one run; 0 is one per core. */
  readonly threads: number;
}

export interface Session {
  /** @param batch sequences in this run, for caches that are empty */
  run(inputs: Readonly<Record<string, HostTensor>>, batch: number, options?: RunOptions): Promise<Record<string, HostTensor>>;
  dispose(): Promise<void>;
}

/** @throws TiltError (runtime) when ONNX Runtime refuses the model */
export const openSession = async (model: Uint8Array, { outputs, caches, threads }: SessionSpec): Promise<Session> => {
  const session = await InferenceSession.create(model, {
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
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
  const store = createRowCaches(caches);
  return {
    run: async (inputs, batch, options) => {
      if (options?.caches === "empty") store.empty();
      else if (options?.caches !== undefined) store.keep(options.caches);
      const given = cacheNames.length === 0 ? inputs : { ...inputs, ...store.tensors(batch) };
      const feeds = Object.fromEntries(Object.entries(given).map(([name, held]) => [name, toOrt(held)]));
      const results = await session.run(feeds).catch((error: unknown) => {
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
      const found = Object.fromEntries(outputs.map((name) => [name, fromOrt(results[outputName(name)] as Tensor)]));
      if (cacheNames.length === 0) return found;
      store.append(found);
      return Object.fromEntries(Object.entries(found).filter(([name]) => !(name in caches)));
    },
    dispose: () => session.release(),
  };
};

/**
 * Devices on worker threads. A lane is ONNX Runtime on a thread of its own: the thread that asks is never blocked, and several lanes work at
 * the same time. Two lanes of one thread each do more than one lane of two threads: nothing waits for the other core, and what
 * ONNX Runtime does on one thread only (transposing, concatenating, scattering) is done on both (docs/decisions/0008-lanes.md).
 */

import { Worker } from "node:worker_threads";
import { runtimeError, TiltError } from "../../base/errors.ts";
import { createPauses } from "../../base/pause.ts";
import type { HostTensor } from "../../base/tensor.ts";
import { bindInputs } from "../shape.ts";
import { cpuModel, flattened, type SessionSpec } from "./cpu-model.ts";
import { type Device, type DeviceTensor, onHost, type RunOptions } from "./device.ts";

/** A tensor on its way to or from a lane; or the number under which the lane holds it. */
export type Passed = HostTensor | { readonly held: number };

/** A tensor that a lane goes on holding. */
export interface Held {
  readonly held: number;
  readonly dtype: HostTensor["dtype"];
  readonly shape: readonly number[];
}

/** What a lane is asked. Those with an `id` are answered. */
export type Request =
  | {
      readonly kind: "compile";
      readonly id: number;
      readonly program: number;
      /** The model; and by their names in it, the numbers of tensors that the lane holds and the model does not. */
      readonly bytes: Uint8Array;
      readonly outside: Readonly<Record<string, number>>;
      readonly spec: SessionSpec;
    }
  | {
      readonly kind: "run";
      readonly id: number;
      readonly program: number;
      readonly inputs: Readonly<Record<string, Passed>>;
      readonly batch: number;
      readonly options: RunOptions | undefined;
      /** Outputs that stay, and the numbers they are to be held under. */
      readonly keep: Readonly<Record<string, number>>;
    }
  | { readonly kind: "hold"; readonly held: number; readonly tensor: HostTensor }
  | { readonly kind: "zeros"; readonly held: number; readonly shape: readonly number[] }
  /** `last`: it is not held any longer. */
  | { readonly kind: "read"; readonly id: number; readonly held: number; readonly last: boolean }
  | { readonly kind: "drop"; readonly held: number }
  | { readonly kind: "clear"; readonly id: number; readonly program: number }
  | { readonly kind: "dispose"; readonly id: number; readonly program: number };

export type Answer =
  | { readonly id: number; readonly outputs: Readonly<Record<string, HostTensor | Held>> }
  | { readonly id: number; readonly error: string };

/** Only the part of a buffer that a tensor looks at is passed on: a clone of a view would carry the whole buffer along. */
const compact = (held: HostTensor): HostTensor =>
  held.data.byteLength === held.data.buffer.byteLength ? held : { ...held, data: held.data.slice() as HostTensor["data"] };

/** The worker's file has this one's ending: TypeScript where the sources run as they are, by the same loader. */
const startWorker = (): Worker => {
  const ending = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new Worker(new URL(`./lane-worker.node.${ending}`, import.meta.url), {
    execArgv: ending === "ts" ? ["--import", import.meta.resolve("jiti/register")] : [],
  });
};

/** One lane. It starts with the first thing it is asked, and does not keep the process alive. `threads` as for cpuDevice. */
export const laneDevice = ({ threads = 1 }: { readonly threads?: number } = {}): Device => {
  const waiting = new Map<
    number,
    { resolve(outputs: Readonly<Record<string, HostTensor | Held>>): void; reject(error: unknown): void }
  >();
  let started: Worker | undefined;
  let numbers = 0;

  const fail = (worker: Worker, error: unknown): void => {
    if (started === worker) started = undefined;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  const start = (): Worker => {
    const worker = startWorker();
    worker.unref();
    worker.on("message", (answer: Answer) => {
      const asked = waiting.get(answer.id);
      waiting.delete(answer.id);
      if (waiting.size === 0) worker.unref();
      if ("error" in answer) asked?.reject(new TiltError("runtime", answer.error));
      else asked?.resolve(answer.outputs);
    });
    worker.on("error", (error) => fail(worker, error));
    worker.on("exit", (code) =>
      fail(
        worker,
        runtimeError({
          where: "cpu",
          expected: "the worker thread to answer",
          got: `its end (code ${code})`,
          fix: "free some memory",
        }),
      ),
    );
    return worker;
  };
  const tell = (request: Request, transfer: readonly ArrayBuffer[] = []): void => {
    started ??= start();
    started.postMessage(request, transfer as ArrayBuffer[]);
  };
  type Asked = Request extends infer R ? (R extends { id: number } ? Omit<R, "id"> : never) : never;
  const ask = (request: Asked, transfer?: readonly ArrayBuffer[]): Promise<Readonly<Record<string, HostTensor | Held>>> =>
    new Promise((resolve, reject) => {
      const id = numbers++;
      waiting.set(id, { resolve, reject });
      tell({ ...request, id } as Request, transfer);
      started!.ref();
    });

  /** Which numbers belong to this lane's tensors. */
  const places = new WeakMap<DeviceTensor, number>();
  const heldTensor = ({ held, dtype, shape }: Held): DeviceTensor => {
    const read = async (last: boolean): Promise<HostTensor> => {
      if (!places.has(result)) throw new TiltError("runtime", `cpu: tensor ${held} [${shape.join(", ")}] was given back`);
      if (last) places.delete(result);
      return (await ask({ kind: "read", held, last }))["tensor"] as HostTensor;
    };
    const result: DeviceTensor = {
      dtype,
      shape,
      read: () => read(false),
      take: () => read(true),
      dispose: () => {
        if (places.delete(result)) tell({ kind: "drop", held });
      },
    };
    places.set(result, held);
    return result;
  };

  const hold = (tensor: HostTensor, transfer: boolean): DeviceTensor => {
    const held = numbers++;
    const own = compact(tensor);
    tell({ kind: "hold", held, tensor: own }, transfer ? [own.data.buffer as ArrayBuffer] : []);
    return heldTensor({ held, dtype: tensor.dtype, shape: tensor.shape });
  };

  return {
    name: "cpu",
    upload: (tensor) => hold(tensor, false),
    adopt: (tensor) => hold(tensor, true),
    zeros: (shape) => {
      const held = numbers++;
      tell({ kind: "zeros", held, shape });
      return heldTensor({ held, dtype: "f32", shape });
    },
    compile: async (graph, options = {}) => {
      const { bytes, outside, fed, spec } = await cpuModel(graph, options, threads);
      const kept = options.kept ?? [];
      const program = numbers++;
      const pause = createPauses();
      /** Tensors that are not on this lane yet are, for as long as it takes to compile. */
      const visitors: DeviceTensor[] = [];
      const visit = async (tensor: HostTensor | DeviceTensor): Promise<DeviceTensor> => {
        const visitor = hold("read" in tensor ? await tensor.read() : tensor, false);
        visitors.push(visitor);
        await pause();
        return visitor;
      };
      try {
        const found: Record<string, number> = {};
        for (const [name, tensor] of Object.entries(outside))
          found[name] = places.get("read" in tensor && places.has(tensor) ? tensor : await visit(tensor))!;
        await ask({ kind: "compile", program, bytes, outside: found, spec }, [bytes.buffer as ArrayBuffer]);
      } finally {
        for (const visitor of visitors) visitor.dispose();
      }
      return {
        run: async (inputs, runOptions) => {
          const bindings = bindInputs("cpu", fed, spec.piecewise ? flattened(inputs) : inputs);
          const given: Record<string, Passed> = {};
          for (const name of Object.keys(fed)) {
            const input = inputs[name]!;
            const held = "read" in input ? places.get(input) : undefined;
            if (held !== undefined) given[name] = { held };
            else given[name] = compact("read" in input ? await input.read() : input);
          }
          if (runOptions?.overwrite)
            for (const name of kept) {
              const input = inputs[name];
              if (input !== undefined && "read" in input) places.delete(input);
            }
          const outputs = await ask({
            kind: "run",
            program,
            inputs: given,
            batch: bindings.get("B") ?? 1,
            options: runOptions,
            keep: Object.fromEntries(kept.map((name) => [name, numbers++])),
          });
          return Object.fromEntries(
            Object.entries(outputs).map(([name, output]) => [name, "held" in output ? heldTensor(output) : onHost(output)]),
          );
        },
        clear: async () => {
          await ask({ kind: "clear", program });
        },
        dispose: async () => {
          await ask({ kind: "dispose", program });
        },
      };
    },
  };
};

/** Several lanes as one device. Who asks it without caring for lanes is served by the first. */
export const cpuLanes = (lanes: number, threads: number): Device => {
  const all = Array.from({ length: lanes }, () => laneDevice({ threads }));
  return { ...all[0]!, lanes: all };
};

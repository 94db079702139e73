/**
 * The runtime port. A device compiles graphs and owns the tensors that its programs pass to each other:
 * state goes in and comes out as device tensors, so that a worker thread or a GPU can keep weights and optimizer state to itself.
 */

import type { DType, HostTensor } from "../../base/tensor.ts";
import type { DeviceName, Graph } from "../graph.ts";
import type { Scan } from "../onnx/model.ts";

export type { DeviceName } from "../graph.ts";

/** A tensor where a device keeps it. */
export interface DeviceTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** A copy or a view on the host. */
  read(): Promise<HostTensor>;
  /** Gives the memory back; the tensor must not be used afterwards. */
  dispose(): void;
}

export interface CompileOptions {
  /** Inputs that never change, to be built in (weights of frozen models): the runtime can pack them once. */
  readonly frozen?: Readonly<Record<string, HostTensor>>;
  /** Runs the graph several times over in one go; see Scan. */
  readonly scan?: Scan;
  /** Outputs that stay where they are until they are read, given to a later run or disposed: all that is large. The others come to the host. */
  readonly kept?: readonly string[];
  /** Inputs [B, ..., C, K] that the program keeps itself and that each run adds a row to: its output of the same name (row-cache.ts). */
  readonly caches?: readonly string[];
  /**
   * The graph works element by element along its one axis N: it is run over pieces of that axis that fit the cache. Tensors for inputs [N] may have
   * any shape, and all of one run the same; so have its outputs.
   */
  readonly piecewise?: boolean;
}

export interface RunOptions {
  /** What becomes of the caches before the run: they are emptied, or keep these sequences only. */
  readonly caches?: "empty" | Int32Array;
}

export interface Program {
  /**
   * Runs once. Inputs may lie on the host or on this device; outputs lie on the device. Runs of one program are made in the order they were asked for.
   * @throws TiltError on a missing or misshapen input
   */
  run(inputs: Readonly<Record<string, HostTensor | DeviceTensor>>, options?: RunOptions): Promise<Record<string, DeviceTensor>>;
  dispose(): Promise<void>;
}

export interface Device {
  readonly name: DeviceName;
  /** Where there are several: devices that run at the same time, this one as the first. Each has tensors and programs of its own. */
  readonly lanes?: readonly Device[];
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  upload(tensor: HostTensor): DeviceTensor;
  /** A float tensor of zeros, made where it is needed. */
  zeros(shape: readonly number[]): DeviceTensor;
}

/** Devices that run at the same time; one, where a device has no lanes. */
export const lanesOf = (device: Device): readonly Device[] => device.lanes ?? [device];

/**
 * Does every job on whichever lane is free next. Jobs must not depend on which lane does them.
 * @param resources one per lane
 */
export const shareOut = async <R, J>(
  resources: readonly R[],
  jobs: readonly J[],
  work: (resource: R, job: J) => Promise<void>,
): Promise<void> => {
  let next = 0;
  await Promise.all(
    resources.map(async (resource) => {
      while (next < jobs.length) await work(resource, jobs[next++]!);
    }),
  );
};

/** A host tensor as the device tensor of a device whose memory is the host's. */
export const onHost = (tensor: HostTensor): DeviceTensor => ({
  dtype: tensor.dtype,
  shape: tensor.shape,
  read: async () => tensor,
  dispose: () => {},
});

/** Reads several named tensors. */
export const readAll = async (tensors: Readonly<Record<string, DeviceTensor>>): Promise<Record<string, HostTensor>> =>
  Object.fromEntries(await Promise.all(Object.entries(tensors).map(async ([name, held]) => [name, await held.read()] as const)));

/** Puts several named tensors on a device. */
export const uploadAll = (device: Device, tensors: Readonly<Record<string, HostTensor>>): Record<string, DeviceTensor> =>
  Object.fromEntries(Object.entries(tensors).map(([name, held]) => [name, device.upload(held)]));

/** Gives back several named tensors, but for those that `still` holds. */
export const disposeAll = (
  tensors: Readonly<Record<string, DeviceTensor>>,
  still: readonly Readonly<Record<string, DeviceTensor>>[] = [],
): void => {
  const inUse = new Set(still.flatMap((record) => Object.values(record)));
  for (const held of Object.values(tensors)) if (!inUse.has(held)) held.dispose();
};

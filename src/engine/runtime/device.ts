/**
 * The runtime port. A device compiles graphs and owns the tensors that its programs pass to each other:
 * state goes in and comes out as device tensors, so that a worker thread or a GPU can keep weights and optimizer state to itself.
 */

import { createPauses } from "../../base/pause.ts";
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
  /** Reads it and gives it back: no copy is made of what lies in the host's memory. */
  take(): Promise<HostTensor>;
  /** Gives the memory back; the tensor must not be used afterwards. */
  dispose(): void;
}

/** Named tensors, each on the host or on a device. */
export type PlacedTensors = Readonly<Record<string, HostTensor | DeviceTensor>>;

export interface CompileOptions {
  /** Inputs that never change, to be built in (weights of frozen models): the runtime can pack them once. */
  readonly frozen?: PlacedTensors;
  /** Runs the graph several times over in one go; see Scan. Caches get a row each time. */
  readonly scan?: Scan;
  /** Outputs that stay where they are until they are read, given to a later run or disposed: all that is large. The others come to the host. */
  readonly kept?: readonly string[];
  /** Inputs [B, ..., C, K] that the program keeps itself and that each run adds a row to: its output of the same name (row-cache.ts). */
  readonly caches?: readonly string[];
  /** Rows that caches will have, as far as is known: room is taken for so many at once. There may be more. */
  readonly cacheRows?: number;
  /**
   * The graph works element by element along its one axis N: it is run over pieces of that axis that fit the cache. Tensors for inputs [N] may have
   * any shape, and all of one run the same; so have its outputs.
   */
  readonly piecewise?: boolean;
}

export interface RunOptions {
  /** What becomes of the caches before the run: they are emptied, or keep these sequences only. */
  readonly caches?: "empty" | Int32Array;
  /**
   * Inputs on this device that a kept output is named after may be written over with it, and must not be used any more. Of a program that is not
   * piecewise nothing but such an output may read such an input, and at its own place only: x + y does, x times a matrix does not.
   * What was uploaded and lies in the host's memory stays as it is.
   */
  readonly overwrite?: boolean;
}

export interface Program {
  /**
   * Runs once. Inputs may lie on the host or on this device; outputs lie on the device. Runs of one program are made in the order they were asked for.
   * @throws TiltError on a missing or misshapen input
   */
  run(inputs: PlacedTensors, options?: RunOptions): Promise<Record<string, DeviceTensor>>;
  /** Empties the caches and gives their memory back, until the next run. */
  clear(): Promise<void>;
  dispose(): Promise<void>;
}

export interface Device {
  readonly name: DeviceName;
  /** Where there are several: devices that run at the same time, this one as the first. Each has tensors and programs of its own. */
  readonly lanes?: readonly Device[];
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  upload(tensor: HostTensor): DeviceTensor;
  /** As upload, but the tensor's memory may become the device's: it must not be used any more. */
  adopt(tensor: HostTensor): DeviceTensor;
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
  take: async () => tensor,
  dispose: () => {},
});

type Named<T> = Readonly<Record<string, T>>;

const forAll = <T, R>(tensors: Named<T>, work: (tensor: T) => R): Record<string, R> =>
  Object.fromEntries(Object.entries(tensors).map(([name, held]) => [name, work(held)]));

const awaitAll = async <T>(promised: Named<Promise<T>>): Promise<Record<string, T>> =>
  Object.fromEntries(await Promise.all(Object.entries(promised).map(async ([name, value]) => [name, await value] as const)));

/** Reads several named tensors; those on the host are as they are. */
export const readAll = (tensors: PlacedTensors): Promise<Record<string, HostTensor>> =>
  awaitAll(forAll(tensors, async (held) => ("read" in held ? held.read() : held)));

/** Whether all of them are on a device. */
export const isPlaced = (tensors: PlacedTensors): tensors is Named<DeviceTensor> =>
  Object.values(tensors).every((held) => "read" in held);

/** Puts several named tensors on a device. */
export const uploadAll = (device: Device, tensors: Named<HostTensor>): Record<string, DeviceTensor> =>
  forAll(tensors, (held) => device.upload(held));

const placeInTurns = async (
  place: (tensor: HostTensor) => DeviceTensor,
  tensors: Named<HostTensor>,
): Promise<Record<string, DeviceTensor>> => {
  const pause = createPauses();
  const placed: Record<string, DeviceTensor> = {};
  for (const [name, held] of Object.entries(tensors)) {
    placed[name] = place(held);
    await pause();
  }
  return placed;
};

/** As uploadAll, in turns: large tensors take a while to be passed to a worker thread. */
export const uploadInTurns = (device: Device, tensors: Named<HostTensor>): Promise<Record<string, DeviceTensor>> =>
  placeInTurns(device.upload, tensors);

/** As uploadInTurns, but the tensors' memory may become the device's: they must not be used any more. */
export const adoptInTurns = (device: Device, tensors: Named<HostTensor>): Promise<Record<string, DeviceTensor>> =>
  placeInTurns(device.adopt, tensors);

/** Moves several named tensors to another lane of their device. */
export const moveAll = (device: Device, tensors: Named<DeviceTensor>): Promise<Record<string, DeviceTensor>> =>
  awaitAll(forAll(tensors, async (held) => device.adopt(await held.take())));

/** Copies several named tensors, to another lane of their device or on the same. */
export const copyAll = (device: Device, tensors: Named<DeviceTensor>): Promise<Record<string, DeviceTensor>> =>
  awaitAll(forAll(tensors, async (held) => device.adopt(await held.read())));

/** Gives back several named tensors, but for those that `still` holds. */
export const disposeAll = (
  tensors: Readonly<Record<string, DeviceTensor>>,
  still: readonly Readonly<Record<string, DeviceTensor>>[] = [],
): void => {
  const inUse = new Set(still.flatMap((record) => Object.values(record)));
  for (const held of Object.values(tensors)) if (!inUse.has(held)) held.dispose();
};

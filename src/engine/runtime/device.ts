/**
 * The runtime port. A device compiles graphs and owns the tensors that its programs pass to each other:
 * state goes in and comes out as device tensors, so that a GPU can keep weights and optimizer state on itself without its callers knowing.
 */

import type { DType, HostTensor } from "../../base/tensor.ts";
import type { DeviceName, Graph } from "../graph.ts";

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
}

export interface Program {
  /** Runs once. Inputs may lie on the host or on this device; outputs lie on the device. @throws TiltError on a missing or misshapen input */
  run(inputs: Readonly<Record<string, HostTensor | DeviceTensor>>): Promise<Record<string, DeviceTensor>>;
  dispose(): Promise<void>;
}

export interface Device {
  readonly name: DeviceName;
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  upload(tensor: HostTensor): DeviceTensor;
}

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

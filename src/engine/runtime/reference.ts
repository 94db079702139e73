/** The float64 interpreter as a device: slow and right. */

import type { HostTensor } from "../../base/tensor.ts";
import { evaluate } from "../evaluate.ts";
import { type Device, type DeviceTensor, onHost } from "./device.ts";

const onHostNow = async (held: HostTensor | DeviceTensor): Promise<HostTensor> => ("read" in held ? held.read() : held);

export const referenceDevice: Device = {
  name: "reference",
  upload: onHost,
  compile: async (graph, { frozen = {} } = {}) => ({
    run: async (inputs) => {
      const given: Record<string, HostTensor> = { ...frozen };
      for (const [name, held] of Object.entries(inputs)) given[name] = await onHostNow(held);
      return Object.fromEntries(Object.entries(evaluate(graph, given)).map(([name, result]) => [name, onHost(result)]));
    },
    dispose: async () => {},
  }),
};

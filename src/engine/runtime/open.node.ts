/** Devices by name. */

import { availableParallelism } from "node:os";
import { usageError } from "../../base/errors.ts";
import type { Device, DeviceName } from "./device.ts";
import { cpuLanes } from "./lane.node.ts";
import { referenceDevice } from "./reference.ts";

export interface DeviceOptions {
  /** Worker threads that run programs at the same time; one per core where absent. */
  readonly lanes?: number;
  /** Threads that share one program's run; as many as leave no core idle where absent. */
  readonly threads?: number;
}

/** The device of that name: on the CPU, worker threads that leave this one free. @throws TiltError (usage) when this build cannot open it */
export const openDevice = (name: DeviceName, options: DeviceOptions = {}): Device => {
  const cores = availableParallelism();
  const lanes = options.lanes ?? cores;
  if (name === "cpu") return cpuLanes(lanes, options.threads ?? Math.max(1, Math.floor(cores / lanes)));
  if (name === "reference") return referenceDevice;
  throw usageError({
    where: `device ${name}`,
    expected: "cpu or reference",
    got: name,
    fix: "GPU devices are not in this version yet; use device: cpu",
  });
};

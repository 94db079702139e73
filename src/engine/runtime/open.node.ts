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

/** Lanes by their numbers of lanes and threads: starting them takes longer than a short run, and they do not end before the process. */
const opened = new Map<string, Device>();

/**
 * The device of that name: on the CPU, worker threads that leave this one free, and the same ones each time.
 * @throws TiltError (usage) when this build cannot open it
 */
export const openDevice = (name: DeviceName, options: DeviceOptions = {}): Device => {
  const cores = availableParallelism();
  const lanes = options.lanes ?? cores;
  if (name === "cpu") {
    const threads = options.threads ?? Math.max(1, Math.floor(cores / lanes));
    const key = `${lanes} ${threads}`;
    const device = opened.get(key) ?? cpuLanes(lanes, threads);
    opened.set(key, device);
    return device;
  }
  if (name === "reference") return referenceDevice;
  throw usageError({
    where: `device ${name}`,
    expected: "cpu or reference",
    got: name,
    fix: "GPU devices are not in this version yet; use device: cpu",
  });
};

/** What a run is given from outside: files, a clock, someone who listens, a way to be stopped. */

import type { Files } from "../base/files.ts";
import type { Device, DeviceName } from "../engine/runtime/device.ts";
import type { Listener } from "./events.ts";

export interface RunContext {
  readonly files: Files;
  readonly onEvent: Listener;
  /** Once aborted, a run stops after its current step, with a checkpoint. */
  readonly signal?: AbortSignal;
  /** Milliseconds; only differences count. */
  readonly clock: () => number;
  /** `lanes` is how many programs are to run at the same time, where that is not left to the machine. */
  readonly openDevice: (name: DeviceName, options?: { readonly lanes?: number }) => Device;
}

/** Runs `work` as a phase of `total` units; it is given a function that tells how many are done. */
export const inPhase = async <T>(
  { onEvent, clock }: Pick<RunContext, "onEvent" | "clock">,
  name: string,
  total: number,
  unit: string,
  work: (progress: (done: number) => void) => Promise<T>,
): Promise<T> => {
  const start = clock();
  onEvent({ type: "phase", name, total, unit });
  const result = await work((done) => onEvent({ type: "progress", done }));
  onEvent({ type: "phase-end", name, seconds: (clock() - start) / 1000 });
  return result;
};

/**
 * What a library user needs of Node beside the public API: the disk, the devices of ONNX Runtime, and configs from files.
 *
 *   import { parseRunConfig, tune } from "tiltlm";
 *   import { nodeContext, readConfig } from "tiltlm/node";
 *
 *   const config = parseRunConfig(await readConfig("run.yaml"), "run.yaml");
 *   const { summary } = await tune(config, { out: "runs/first", resume: false }, nodeContext({ onEvent: console.log }));
 */

import { nodeFiles } from "./base/files.node.ts";
import { openDevice } from "./engine/runtime/open.node.ts";
import type { RunContext } from "./run/context.ts";

export { nodeFiles } from "./base/files.node.ts";
export { openDevice } from "./engine/runtime/open.node.ts";
export { cpuDevice } from "./engine/runtime/ort.node.ts";
export { applyOverrides, loadConfigFile, readConfig } from "./run/config-file.node.ts";

/** The surroundings of a run in Node: its disk, its devices, its clock. Nobody listens unless `onEvent` is given. */
export const nodeContext = (given: Partial<RunContext> = {}): RunContext => ({
  files: nodeFiles,
  onEvent: () => {},
  clock: () => performance.now(),
  openDevice,
  ...given,
});

/** ONNX Runtime in Node as a device, on the thread that calls it: runs block it. For a thread that must answer others, see lane.node.ts. */

import { type HostTensor, zeros } from "../../base/tensor.ts";
import { bindInputs } from "../shape.ts";
import { cpuModel, flattened } from "./cpu-model.ts";
import { type Device, onHost, readAll } from "./device.ts";
import { openSession } from "./session.node.ts";

/** ONNX Runtime on the CPU. `threads` 0 lets it take one per core. */
export const cpuDevice = (options: { readonly threads?: number } = {}): Device => ({
  name: "cpu",
  upload: onHost,
  adopt: onHost,
  zeros: (shape) => onHost(zeros("f32", shape)),
  compile: async (graph, compileOptions = {}) => {
    const { bytes, outside, fed, spec } = await cpuModel(graph, compileOptions, options.threads ?? 0);
    const session = await openSession(bytes, await readAll(outside), spec);
    return {
      run: async (inputs, runOptions) => {
        const bindings = bindInputs("cpu", fed, spec.piecewise ? flattened(inputs) : inputs);
        const given: Record<string, HostTensor> = {};
        for (const name of Object.keys(fed)) {
          const held = inputs[name]!;
          given[name] = "read" in held ? await held.read() : held;
        }
        const results = await session.run(given, bindings.get("B") ?? 1, { ...runOptions, overwrite: false });
        return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, onHost(result)]));
      },
      clear: async () => session.clear(),
      dispose: () => session.dispose(),
    };
  },
});

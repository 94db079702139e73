/** The float64 interpreter as a device: slow and right. */

import { type HostTensor, zeros } from "../../base/tensor.ts";
import { evaluate } from "../evaluate.ts";
import { scannedInputs } from "../onnx/model.ts";
import { bindInputs } from "../shape.ts";
import { flattened } from "./cpu-model.ts";
import { type Device, onHost, readAll } from "./device.ts";
import { createRowCaches } from "./row-cache.ts";
import { runTimes } from "./scan.ts";

export const referenceDevice: Device = {
  name: "reference",
  upload: onHost,
  adopt: onHost,
  zeros: (shape) => onHost(zeros("f32", shape)),
  compile: async (graph, { frozen = {}, scan, caches = [], piecewise } = {}) => {
    const store = createRowCaches(Object.fromEntries(caches.map((name) => [name, graph.inputs[name]!])), "f64");
    return {
      run: async (inputs, options) => {
        const given = await readAll({ ...frozen, ...inputs });
        if (piecewise) {
          const { shape } = Object.values(given).find((held) => held.shape.length > 0)!;
          const flat = evaluate(graph, flattened(given));
          return Object.fromEntries(
            Object.entries(flat).map(([name, { dtype, data }]) => [name, onHost({ dtype, shape, data })]),
          );
        }
        if (options?.caches === "empty") store.empty();
        else if (options?.caches !== undefined) store.keep(options.caches);
        const types = scannedInputs(graph.inputs, scan);
        const fed = Object.fromEntries(Object.entries(types).filter(([name]) => !caches.includes(name)));
        const batch = bindInputs("reference", fed, given).get("B") ?? 1;
        const once = async (own: Readonly<Record<string, HostTensor>>) => {
          const found = evaluate(graph, { ...own, ...store.tensors(batch) });
          store.append(found);
          return Object.fromEntries(Object.entries(found).filter(([name]) => !caches.includes(name)));
        };
        const results = scan === undefined ? await once(given) : await runTimes(scan, given, once);
        return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, onHost(result)]));
      },
      clear: async () => {
        store.clear();
      },
      dispose: async () => {},
    };
  },
};

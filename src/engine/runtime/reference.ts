/** The float64 interpreter as a device: slow and right. */

import { type HostTensor, sizeOf, tensor, zeros } from "../../base/tensor.ts";
import { evaluate } from "../evaluate.ts";
import type { Graph } from "../graph.ts";
import { type Scan, scannedInputs } from "../onnx/model.ts";
import { bindInputs } from "../shape.ts";
import { flattened } from "./cpu-model.ts";
import { type Device, type DeviceTensor, onHost } from "./device.ts";
import { createRowCaches } from "./row-cache.ts";

const onHostNow = async (held: HostTensor | DeviceTensor): Promise<HostTensor> => ("read" in held ? held.read() : held);

/** Part `i` of a tensor along its first axis. */
const partOf = ({ dtype, shape, data }: HostTensor, i: number): HostTensor => {
  const size = sizeOf(shape.slice(1));
  return tensor(dtype, shape.slice(1), data.subarray(i * size, (i + 1) * size));
};

/** Equal tensors as parts along a new first axis. */
const stack = (parts: readonly HostTensor[]): HostTensor => ({
  dtype: parts[0]!.dtype,
  shape: [parts.length, ...parts[0]!.shape],
  data: Float64Array.from(parts.flatMap((part) => Array.from(part.data))),
});

/** What Scan means, in so many words. */
const evaluateTimes = (graph: Graph, inputs: Readonly<Record<string, HostTensor>>, { carried, sliced }: Scan) => {
  bindInputs("reference", scannedInputs(graph.inputs, { carried, sliced }), inputs);
  let state = Object.fromEntries(carried.map((name) => [name, inputs[name]!]));
  const rest = Object.keys(graph.outputs).filter((name) => !carried.includes(name));
  const results = Array.from({ length: inputs[sliced[0]!]!.shape[0]! }, (_, time) => {
    const own = Object.fromEntries(sliced.map((name) => [name, partOf(inputs[name]!, time)]));
    const result = evaluate(graph, { ...inputs, ...state, ...own });
    state = Object.fromEntries(carried.map((name) => [name, result[name]!]));
    return result;
  });
  return { ...state, ...Object.fromEntries(rest.map((name) => [name, stack(results.map((result) => result[name]!))])) };
};

export const referenceDevice: Device = {
  name: "reference",
  upload: onHost,
  adopt: onHost,
  zeros: (shape) => onHost(zeros("f32", shape)),
  compile: async (graph, { frozen = {}, scan, caches = [], piecewise } = {}) => {
    const store = createRowCaches(Object.fromEntries(caches.map((name) => [name, graph.inputs[name]!])), "f64");
    return {
      run: async (inputs, options) => {
        const given: Record<string, HostTensor> = { ...frozen };
        for (const [name, held] of Object.entries(inputs)) given[name] = await onHostNow(held);
        if (piecewise) {
          const { shape } = Object.values(given).find((held) => held.shape.length > 0)!;
          const flat = evaluate(graph, flattened(given));
          return Object.fromEntries(
            Object.entries(flat).map(([name, { dtype, data }]) => [name, onHost({ dtype, shape, data })]),
          );
        }
        if (options?.caches === "empty") store.empty();
        else if (options?.caches !== undefined) store.keep(options.caches);
        if (caches.length > 0) {
          const others = Object.fromEntries(Object.entries(graph.inputs).filter(([name]) => !caches.includes(name)));
          Object.assign(given, store.tensors(bindInputs("reference", others, given).get("B") ?? 1));
        }
        const results = scan === undefined ? evaluate(graph, given) : evaluateTimes(graph, given, scan);
        if (caches.length > 0) store.append(results);
        return Object.fromEntries(
          Object.entries(results)
            .filter(([name]) => !caches.includes(name))
            .map(([name, result]) => [name, onHost(result)]),
        );
      },
      clear: async () => {
        store.clear();
      },
      dispose: async () => {},
    };
  },
};

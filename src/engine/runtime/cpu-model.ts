/** What ONNX Runtime on the CPU is given of a graph, on whichever thread it runs. */

import { giveWay } from "../../base/pause.ts";
import { sizeOf, zeros } from "../../base/tensor.ts";
import type { Graph, TypeOf } from "../graph.ts";
import { onnxModel, type Scan, scannedInputs } from "../onnx/model.ts";
import { bindInputs } from "../shape.ts";
import { simplify } from "../simplify.ts";
import type { CompileOptions, PlacedTensors } from "./device.ts";

export interface SessionSpec {
  /** The outputs of the graph, by its own names. */
  readonly outputs: readonly string[];
  /** Inputs that the session keeps itself, as CompileOptions.caches. */
  readonly caches: Readonly<Record<string, TypeOf>>;
  /** As CompileOptions.cacheRows. */
  readonly cacheRows: number;
  /** What is left of CompileOptions.scan for the session to do: that of programs with caches. */
  readonly scan?: Scan;
  /** As CompileOptions.piecewise. */
  readonly piecewise: boolean;
  /** Threads that work on one run; 0 is one per core. */
  readonly threads: number;
}

export interface CpuModel {
  readonly bytes: Uint8Array;
  /** Tensors that the model names and does not hold: the frozen ones. */
  readonly outside: PlacedTensors;
  /** What a run must be given. */
  readonly fed: Readonly<Record<string, TypeOf>>;
  readonly spec: SessionSpec;
}

/** A graph made ready for ONNX Runtime on the CPU. @throws TiltError when a frozen tensor does not fit */
export const cpuModel = async (
  graph: Graph,
  { frozen = {}, scan, caches = [], cacheRows = 0, piecewise = false }: CompileOptions,
  threads: number,
): Promise<CpuModel> => {
  bindInputs("cpu", Object.fromEntries(Object.entries(graph.inputs).filter(([name]) => name in frozen)), frozen);
  const types = scannedInputs(graph.inputs, scan);
  // Large graphs take a tenth of a second to build, to simplify and to write.
  await giveWay();
  const simplified = simplify(graph);
  await giveWay();
  const given = scan === undefined ? {} : { scan };
  const [inModel, inSession] = caches.length === 0 ? [given, {}] : [{}, given];
  const needed = Object.entries(frozen).filter(([name]) => name in graph.inputs);
  // ONNX Runtime takes nothing for a missing tensor: what is empty is told in the model.
  const isEmpty = ({ shape }: { readonly shape: readonly number[] }): boolean => sizeOf(shape) === 0;
  const named = needed.map(([name, held]) => [
    name,
    isEmpty(held) ? zeros(held.dtype, held.shape) : { dtype: held.dtype, shape: held.shape },
  ]);
  return {
    bytes: onnxModel(simplified, { device: "cpu", frozen: Object.fromEntries(named), ...inModel }),
    outside: Object.fromEntries(needed.filter(([, held]) => !isEmpty(held))),
    fed: Object.fromEntries(Object.entries(types).filter(([name]) => !(name in frozen) && !caches.includes(name))),
    spec: {
      outputs: Object.keys(graph.outputs),
      caches: Object.fromEntries(caches.map((name) => [name, types[name]!])),
      cacheRows,
      ...inSession,
      piecewise,
      threads,
    },
  };
};

/** Tensors for a piecewise program, seen along the one axis that its graph has. */
export const flattened = <T extends { readonly shape: readonly number[] }>(
  inputs: Readonly<Record<string, T>>,
): Readonly<Record<string, T>> =>
  Object.fromEntries(
    Object.entries(inputs).map(([name, held]) => [
      name,
      held.shape.length === 0 ? held : { ...held, shape: [sizeOf(held.shape)] },
    ]),
  );

/**
 * Averages of a policy's weights over steps: what is left at the end of a run is a noise floor set by step size and batch, and averaging lowers it
 * (Polyak and Juditsky 1992; docs/math.md M48).
 *
 *   average <- average + c_k (weights - average),      c_k = 1/k  (Polyak: the plain mean of k weights),  or  max(1/k, 1 - decay)  (EMA)
 *
 * The EMA starts as a plain mean, so that it never leans on the weights it began with.
 */

import { prefixed, scalar } from "../base/tensor.ts";
import type { Graph } from "../engine/graph.ts";
import { add, input, mul, sub } from "../engine/ops/index.ts";
import type { Device } from "../engine/runtime/device.ts";
import type { DeviceTensors, Shapes } from "./adam.ts";

export type AverageKind = "polyak" | "ema";

/** c_k, the share of the k-th weights (k from 1) in the new average. */
export const averageStep = (kind: AverageKind, decay: number, k: number): number =>
  kind === "polyak" ? 1 / k : Math.max(1 / k, 1 - decay);

const averageGraph = (shapes: Shapes): Graph => {
  const names = Object.keys(shapes);
  const take = (kind: string) =>
    Object.fromEntries(names.map((name) => [name, input(`${kind}.${name}`, "f32", shapes[name]!)] as const));
  const [average, weight] = [take("average"), take("weight")];
  const share = input("share", "f32", []);
  return {
    inputs: { ...prefixed("average", average), ...prefixed("weight", weight), share },
    outputs: Object.fromEntries(
      names.map((name) => [`average.${name}`, add(average[name]!, mul(sub(weight[name]!, average[name]!), share))]),
    ),
  };
};

export interface Averager {
  /** The average with one more set of weights in it, of which `share` is the part. */
  include(average: DeviceTensors, weights: DeviceTensors, share: number): Promise<DeviceTensors>;
  dispose(): Promise<void>;
}

export const createAverager = async (device: Device, shapes: Shapes): Promise<Averager> => {
  const kept = Object.keys(shapes).map((name) => `average.${name}`);
  const program = await device.compile(averageGraph(shapes), { kept });
  return {
    include: async (average, weights, share) => {
      const result = await program.run({
        ...prefixed("average", average),
        ...prefixed("weight", weights),
        share: scalar(share),
      });
      return Object.fromEntries(Object.keys(shapes).map((name) => [name, result[`average.${name}`]!]));
    },
    dispose: () => program.dispose(),
  };
};

/** A graph over a model whose weights do not change, on every lane of a device. */

import type { HostTensor } from "../base/tensor.ts";
import type { Graph } from "../engine/graph.ts";
import {
  type Device,
  type DeviceTensor,
  disposeAll,
  isPlaced,
  lanesOf,
  type PlacedTensors,
  readAll,
  uploadInTurns,
} from "../engine/runtime/device.ts";
import { isLarge, type SequenceModel, underInputNames } from "./causal-model.ts";

/** The graph on one lane. */
export interface FrozenLane {
  /** @param inputs all but the weights */
  run(inputs: Readonly<Record<string, HostTensor>>): Promise<Record<string, DeviceTensor>>;
}

export interface FrozenProgram {
  readonly lanes: readonly FrozenLane[];
  dispose(): Promise<void>;
}

/**
 * @param weights those of the graph's inputs `weight.*`; large ones that lie on the device already are read there, and must not be given back
 *                before the program is
 * @param inputs  others that do not change
 */
export const freeze = async (
  device: Device,
  model: SequenceModel,
  weights: PlacedTensors,
  graph: Graph,
  inputs: Readonly<Record<string, HostTensor>> = {},
): Promise<FrozenProgram> => {
  const given = underInputNames(weights);
  // Built-in weights are packed once and read faster, by a twentieth; large ones are not worth the second copy that this is.
  const placed = async (lane: Device, first: boolean) => {
    if (!isLarge(model)) return { program: await lane.compile(graph, { frozen: { ...given, ...inputs } }), held: {}, own: {} };
    const program = await lane.compile(graph, { frozen: inputs });
    if (first && isPlaced(given)) return { program, held: given, own: {} };
    const own = await uploadInTurns(lane, await readAll(given));
    return { program, held: own, own };
  };
  const lanes = await Promise.all(lanesOf(device).map((lane, i) => placed(lane, i === 0)));
  return {
    lanes: lanes.map(({ program, held }) => ({ run: (batch) => program.run({ ...held, ...batch }) })),
    dispose: async () => {
      for (const { program, own } of lanes) {
        await program.dispose();
        disposeAll(own);
      }
    },
  };
};

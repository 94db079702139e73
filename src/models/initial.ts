/** Weights to start pretraining from, as GPT-2 and Llama were: small normal matrices, ones in norms, zeros in biases. */

import { type Key, streamOf } from "../base/random.ts";
import { f32, type NamedTensors, sizeOf } from "../base/tensor.ts";
import { type ModelConfig, parameterShapes } from "./config.ts";

const spread = 0.02;

/** Matrices that write to the residual stream: they start smaller the deeper the model, so that the stream's variance does not grow with depth. */
const writesToStream = (name: string): boolean => /\.(c_proj|o_proj|down_proj)\.weight$/.test(name);

/** @returns canonical names to tensors; the same key gives the same weights */
export const initialWeights = (config: ModelConfig, key: Key): NamedTensors =>
  Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape], index) => {
      const stream = streamOf(key, index);
      const scale = writesToStream(name) ? spread / Math.sqrt(2 * config.layers) : spread;
      const value = (): number => (shape.length >= 2 ? scale * stream.normal() : name.endsWith(".bias") ? 0 : 1);
      return [name, f32(shape, Float32Array.from({ length: sizeOf(shape) }, value))];
    }),
  );

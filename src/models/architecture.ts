/** What a model family has to say for itself: the parts that layers are made of. */

import type { Value } from "../engine/graph.ts";
import type { Projections } from "./attention.ts";

/** Weights as graph values, by their Hugging Face names. */
export type Parameters = Readonly<Record<string, Value>>;

/** What distinguishes one family from another. Tokens are flattened: N of them, each of width D. */
export interface Architecture {
  /** Token ids [...] and their positions (of a shape that broadcasts to the ids') -> embeddings [..., D]. */
  embed(parameters: Parameters, tokens: Value, positions: Value): Value;
  /** [N, D] -> normalised and projected. */
  project(parameters: Parameters, layer: number, x: Value): Projections;
  /** Attended [N, H*K] -> [N, D], to be added to the stream. */
  merge(parameters: Parameters, layer: number, attended: Value): Value;
  /** [N, D] -> [N, D], to be added to the stream. */
  feedForward(parameters: Parameters, layer: number, x: Value): Value;
  /** Last normalisation, [N, D] -> [N, D]. */
  finish(parameters: Parameters, x: Value): Value;
  /** Output embedding [V, D]. */
  head(parameters: Parameters): Value;
}

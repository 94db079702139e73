/**
 * Causal language models as graphs. An architecture says what its layers compute; this file says how layers make a model,
 * once for whole sequences and once for a single new token, from the same description.
 */

import { usageError } from "../base/errors.ts";
import { prefixed, sizeOf } from "../base/tensor.ts";
import type { Value } from "../engine/graph.ts";
import { add, gemm, input, iota, linearLogProb, reshape } from "../engine/ops/index.ts";
import { type Axis, timesAxes } from "../engine/shape.ts";
import type { Architecture, Parameters } from "./architecture.ts";
import { type Attend, cachedAttention, fullAttention, type LayerCache } from "./attention.ts";
import { type ModelConfig, parameterShapes } from "./config.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";

/** Anything that gives sequences a log-probability as a graph: a language model, or a table in an exact test. */
export interface SequenceModel {
  readonly parameterShapes: Readonly<Record<string, readonly number[]>>;
  /** D, the width of a state. */
  readonly width: number;
  /**
   * What the model knows after the tokens up to each place: what its own head reads, and any other head may.
   * @param tokens what the model reads [B, T], integers
   * @returns [B, T, D]
   */
  states(parameters: Parameters, tokens: Value): Value;
  /**
   * log-probability of each label after the tokens up to its place.
   * @param states of those tokens [B, T, D]
   * @param labels what comes next at each place [B, T], integers
   * @returns [B, T] nats
   */
  tokenLogProbs(parameters: Parameters, states: Value, labels: Value): Value;
  /** V(x_<t) at each place [B, T], where there is a value head (value-head.ts). */
  readonly tokenValues?: (parameters: Parameters, states: Value) => Value;
}

/** One decoding step as values. */
export interface DecodingStep {
  /** Next-token logits [B, V]. */
  readonly logits: Value;
  /** Keys and values of the token that was read, per layer [B, J, K]. */
  readonly rows: readonly LayerCache[];
}

export interface CausalModel extends SequenceModel {
  readonly config: ModelConfig;
  /**
   * Reads one token per sequence, given a cache of those before.
   * @param tokens   [B]
   * @param position [1], the place of these tokens, which is also how many the cache holds
   */
  decode(parameters: Parameters, tokens: Value, position: Value, caches: readonly LayerCache[]): DecodingStep;
  /** The shape of one layer's keys (and of its values) for a batch and a capacity. */
  cacheShape: readonly [batch: "B", groups: number, capacity: "C", headWidth: number];
}

const architectures: Readonly<Record<ModelConfig["family"], (config: ModelConfig) => Architecture>> = { gpt2, llama };

const runLayers = (
  config: ModelConfig,
  architecture: Architecture,
  parameters: Parameters,
  embedded: Value,
  attend: Attend,
): Value => {
  let stream = embedded;
  for (let layer = 0; layer < config.layers; layer++) {
    const attended = attend(layer, architecture.project(parameters, layer, stream));
    stream = add(stream, architecture.merge(parameters, layer, attended));
    stream = add(stream, architecture.feedForward(parameters, layer, stream));
  }
  return architecture.finish(parameters, stream);
};

/** A model of the given configuration. @throws TiltError (usage) for a family that is not known */
export const createCausalModel = (config: ModelConfig): CausalModel => {
  const create = architectures[config.family];
  if (create === undefined)
    throw usageError({
      where: "config.json",
      expected: Object.keys(architectures).join(" or "),
      got: String(config.family),
      fix: "convert the model or choose another",
    });
  const architecture = create(config);
  return {
    config,
    parameterShapes: parameterShapes(config),
    cacheShape: ["B", config.keyValueHeads, "C", config.headWidth],
    width: config.width,
    states: (parameters, tokens) => {
      const [batch, length] = tokens.shape as [Axis, Axis];
      const embedded = architecture.embed(parameters, tokens, iota(length));
      const flat = reshape(embedded, [timesAxes([batch, length]), config.width]);
      const hidden = runLayers(config, architecture, parameters, flat, fullAttention(config, batch, length));
      return reshape(hidden, [batch, length, config.width]);
    },
    tokenLogProbs: (parameters, states, labels) => {
      const flat = timesAxes(labels.shape);
      const hidden = reshape(states, [flat, config.width]);
      return reshape(linearLogProb(hidden, architecture.head(parameters), reshape(labels, [flat])), labels.shape);
    },
    decode: (parameters, tokens, position, caches) => {
      const rows: LayerCache[] = [];
      const hidden = runLayers(
        config,
        architecture,
        parameters,
        architecture.embed(parameters, tokens, position),
        cachedAttention(config, position, caches, rows),
      );
      return { logits: gemm(hidden, architecture.head(parameters), undefined, { transposeB: true }), rows };
    },
  };
};

/** Bytes of weights above which one copy more matters more than a few percent of speed. */
const largeWeights = 32 * 2 ** 20;

/** Whether a model's weights are so large that they are held as few times as possible. */
export const isLarge = ({ parameterShapes: shapes }: SequenceModel): boolean =>
  Object.values(shapes).reduce((total, shape) => total + 4 * sizeOf(shape), 0) > largeWeights;

/** Graph inputs for a model's weights, named `weight.*`. */
export const parameterInputs = (model: SequenceModel): Record<string, Value> =>
  Object.fromEntries(Object.entries(model.parameterShapes).map(([name, shape]) => [name, input(`weight.${name}`, "f32", shape)]));

/** The same record under its graph input names. */
export const underInputNames = <T>(record: Readonly<Record<string, T>>): Record<string, T> => prefixed("weight", record);

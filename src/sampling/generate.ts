/**
 * Batched ancestral generation with a key/value cache. A token is drawn inside the graph by inverting the cumulative distribution at one uniform number
 * per sequence, and its log-probability under the distribution it was drawn from comes with it, so log q(x) is exact (docs/math.md, sampling).
 * The uniform of sequence i, token t is keyed by (key, i, t): texts do not depend on how they are batched.
 */

import { usageError } from "../base/errors.ts";
import { type Key, uniformAt } from "../base/random.ts";
import { f32, type HostTensor, i32, type NamedTensors } from "../base/tensor.ts";
import type { Graph, Value } from "../engine/graph.ts";
import {
  argMax,
  cast,
  constant,
  cumulativeSum,
  div,
  input,
  less,
  lessOrEqual,
  log,
  minimum,
  mul,
  reshape,
  slice,
  softmax,
  sortDescending,
  sub,
  sum,
  takeLast,
  where,
} from "../engine/ops/index.ts";
import type { Device } from "../engine/runtime/device.ts";
import { type CausalModel, parameterInputs, underInputNames } from "../models/causal-model.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import type { Samples } from "./samples.ts";

/** How a token is chosen. `full` at temperature 1 is the model itself; the others are for display and for published protocols. */
export type Sampling =
  /** The whole softmax of logits / temperature. */
  | { readonly kind: "full"; readonly temperature: number }
  /** The smallest set of tokens that holds at least `topP` of the mass, renormalised (arXiv 1904.09751). */
  | { readonly kind: "nucleus"; readonly temperature: number; readonly topP: number }
  /** The most probable token. Its log-probability is the model's. */
  | { readonly kind: "greedy" };

/** The sampling that a temperature and a nucleus ask for: temperature 0 is greedy. @throws TiltError (usage) outside their ranges */
export const samplingOf = (temperature: number, topP: number): Sampling => {
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    throw usageError({
      where: "temperature",
      expected: "a number of at least 0",
      got: String(temperature),
      fix: "1 is the model itself, 0 is greedy",
    });
  if (!(topP > 0 && topP <= 1))
    throw usageError({ where: "topP", expected: "a number in (0, 1]", got: String(topP), fix: "1 is the full softmax" });
  if (temperature === 0) return { kind: "greedy" };
  return topP < 1 ? { kind: "nucleus", temperature, topP } : { kind: "full", temperature };
};

/** Draws a token per row of logits [B, V]: the token [B] and its log-probability [B]. */
export const drawToken = (
  logits: Value,
  sampling: Sampling,
  uniform: Value,
): { readonly token: Value; readonly logProb: Value } => {
  const vocabulary = logits.shape[1] as number;
  if (sampling.kind === "greedy") {
    const token = argMax(logits);
    return { token, logProb: log(takeLast(softmax(logits), token)) };
  }
  const probabilities = softmax(sampling.temperature === 1 ? logits : div(logits, sampling.temperature));
  const kept = sampling.kind === "full" ? probabilities : nucleus(probabilities, sampling.topP);
  const running = cumulativeSum(kept);
  // The last running sum is 1 up to rounding; scaling by it keeps every uniform below it.
  const total = slice(running, 1, vocabulary - 1, vocabulary);
  const below = lessOrEqual(running, mul(reshape(uniform, [...uniform.shape, 1]), total));
  const token = cast(minimum(sum(cast(below, "f32"), 1), vocabulary - 1), "i32");
  return { token, logProb: log(div(takeLast(kept, token), reshape(total, token.shape))) };
};

/** Probabilities outside the nucleus set to zero. Tokens as probable as the last one inside are kept with it. */
const nucleus = (probabilities: Value, topP: number): Value => {
  const sorted = sortDescending(probabilities);
  const before = sub(cumulativeSum(sorted), sorted);
  const last = cast(sub(sum(cast(less(before, constant(topP)), "f32"), 1), 1), "i32");
  const threshold = takeLast(sorted, last);
  return where(less(probabilities, reshape(threshold, [...threshold.shape, 1])), 0, probabilities);
};

/** The graph of one decoding step: `token`, `position`, `uniform`, caches in; `token`, `logProb` and the new cache rows out. */
export const decodingGraph = (model: CausalModel, sampling: Sampling): Graph => {
  const parameters = parameterInputs(model);
  const token = input("token", "i32", ["B"]);
  const position = input("position", "i32", [1]);
  const uniform = input("uniform", "f32", ["B"]);
  const caches = Array.from({ length: model.config.layers }, (_, layer) => ({
    key: input(`key.${layer}`, "f32", model.cacheShape),
    value: input(`value.${layer}`, "f32", model.cacheShape),
  }));
  const { logits, rows } = model.decode(parameters, token, position, caches);
  const drawn = drawToken(logits, sampling, uniform);
  const cacheInputs = Object.fromEntries(
    caches.flatMap(({ key, value }, layer) => [
      [`key.${layer}`, key],
      [`value.${layer}`, value],
    ]),
  );
  const cacheRows = Object.fromEntries(
    rows.flatMap(({ key, value }, layer) => [
      [`key.${layer}`, key],
      [`value.${layer}`, value],
    ]),
  );
  return {
    inputs: { ...underInputNames(parameters), token, position, uniform, ...cacheInputs },
    outputs: { token: drawn.token, logProb: drawn.logProb, ...cacheRows },
  };
};

export interface Generator {
  /**
   * Draws `count` sequences.
   * @param firstIndex number of the first one under the key: a later call with the next numbers continues the same stream
   * @param onProgress hears the number of finished sequences (fractions while a batch is under way)
   */
  generate(request: {
    readonly count: number;
    readonly key: Key;
    readonly firstIndex?: number;
    readonly onProgress?: (done: number) => void;
  }): Promise<Samples>;
  dispose(): Promise<void>;
}

/** Sequences that are drawn together unless told otherwise. */
export const generatorBatch = 256;

export interface GeneratorOptions {
  readonly sampling: Sampling;
  /** Tokens to condition on, the start token first. */
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly endIds: readonly number[];
  readonly tokenizer: Tokenizer;
  /** Sequences per batch; `generatorBatch` where absent. */
  readonly batch?: number;
}

/** Cache room is taken in pieces of this many tokens: reading room that is not filled yet costs time. */
const capacityStep = 16;

type Cache = HostTensor<"f32">;

const grow = (cache: Cache, capacity: number): Cache => {
  const [batch, groups, old, width] = cache.shape as [number, number, number, number];
  const grown = new Float32Array(batch * groups * capacity * width);
  for (let row = 0; row < batch * groups; row++)
    grown.set(cache.data.subarray(row * old * width, (row + 1) * old * width), row * capacity * width);
  return f32([batch, groups, capacity, width], grown);
};

/** Writes rows [B, J, K] at a position of the cache [B, J, C, K]. */
const store = (cache: Cache, rows: HostTensor, position: number): void => {
  const [batch, groups, capacity, width] = cache.shape as [number, number, number, number];
  for (let row = 0; row < batch * groups; row++) {
    const to = (row * capacity + position) * width;
    for (let k = 0; k < width; k++) cache.data[to + k] = rows.data[row * width + k]!;
  }
};

/** @throws TiltError (usage) when prompt and text do not fit the model's context */
export const createGenerator = async (
  device: Device,
  model: CausalModel,
  weights: NamedTensors,
  options: GeneratorOptions,
): Promise<Generator> => {
  const { sampling, prompt, maxTokens, endIds, tokenizer, batch: batchSize = generatorBatch } = options;
  const room = model.config.contextLength;
  if (prompt.length + maxTokens - 1 > room) {
    throw usageError({
      where: "sequence.maxTokens",
      expected: `prompt and text to fit the model's context of ${room} tokens`,
      got: `${prompt.length} + ${maxTokens}`,
      fix: `set sequence.maxTokens to at most ${room - prompt.length + 1}`,
    });
  }
  const program = await device.compile(decodingGraph(model, sampling), { frozen: underInputNames(weights) });
  const cacheNames = Array.from({ length: model.config.layers }, (_, layer) => [`key.${layer}`, `value.${layer}`]).flat();

  /** Fills rows first .. first + count - 1 of the result. */
  const fillBatch = async (
    samples: Samples,
    first: number,
    count: number,
    key: Key,
    firstIndex: number,
    onProgress: (done: number) => void,
  ): Promise<void> => {
    const [, groups, , headWidth] = model.cacheShape;
    let capacity = Math.min(capacityStep, room);
    const caches: Record<string, Cache> = Object.fromEntries(
      cacheNames.map((name) => [
        name,
        f32([count, groups, capacity, headWidth], new Float32Array(count * groups * capacity * headWidth)),
      ]),
    );
    const current = new Int32Array(count);
    const finished = new Uint8Array(count);
    let running = count;
    for (let position = 0; position < prompt.length + maxTokens - 1 && running > 0; position++) {
      if (position < prompt.length) current.fill(prompt[position]!);
      const t = position - prompt.length + 1;
      const uniform = new Float32Array(count).fill(0.5);
      if (t >= 0) for (let i = 0; i < count; i++) if (finished[i] === 0) uniform[i] = uniformAt(key, firstIndex + first + i, t);
      const result = await program.run({
        token: i32([count], current),
        position: i32([1], [position]),
        uniform: f32([count], uniform),
        ...caches,
      });
      if (position === capacity) {
        capacity = Math.min(capacity + capacityStep, room);
        for (const name of cacheNames) caches[name] = grow(caches[name]!, capacity);
      }
      for (const name of cacheNames) store(caches[name]!, await result[name]!.read(), position);
      if (t < 0) continue;
      const tokens = (await result["token"]!.read()).data;
      const logProbs = (await result["logProb"]!.read()).data;
      for (let i = 0; i < count; i++) {
        if (finished[i] === 1) continue;
        const b = first + i;
        const token = tokens[i]!;
        samples.ids[b * maxTokens + t] = token;
        samples.tokenLogProbs[b * maxTokens + t] = logProbs[i]!;
        samples.logProbs[b]! += logProbs[i]!;
        samples.lengths[b] = t + 1;
        current[i] = token;
        if (endIds.includes(token)) {
          samples.ended[b] = 1;
          finished[i] = 1;
          running--;
        }
      }
      onProgress(first + (count * (t + 1)) / maxTokens);
    }
  };

  return {
    generate: async ({ count, key, firstIndex = 0, onProgress = () => {} }) => {
      const samples: Samples = {
        count,
        maxTokens,
        prompt,
        ids: new Int32Array(count * maxTokens),
        lengths: new Int32Array(count),
        ended: new Uint8Array(count),
        tokenLogProbs: new Float32Array(count * maxTokens),
        logProbs: new Float64Array(count),
        texts: [],
      };
      for (let first = 0; first < count; first += batchSize) {
        await fillBatch(samples, first, Math.min(batchSize, count - first), key, firstIndex, onProgress);
        onProgress(Math.min(first + batchSize, count));
      }
      const texts = Array.from({ length: count }, (_, b) => {
        const textLength = samples.lengths[b]! - samples.ended[b]!;
        return tokenizer.decode(samples.ids.subarray(b * maxTokens, b * maxTokens + textLength));
      });
      return { ...samples, texts };
    },
    dispose: () => program.dispose(),
  };
};

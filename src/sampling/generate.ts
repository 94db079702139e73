/**
 * Batched ancestral generation with a key/value cache. A token is drawn inside the graph by inverting the cumulative distribution at one uniform number
 * per sequence, and its log-probability under the distribution it was drawn from comes with it, so log q(x) is exact (docs/math.md, sampling).
 * The uniform of sequence i, token t is keyed by (key, i, t): texts do not depend on how they are batched.
 */

import { usageError } from "../base/errors.ts";
import { type Key, uniformAt } from "../base/random.ts";
import { f32, i32 } from "../base/tensor.ts";
import type { Graph, Value } from "../engine/graph.ts";
import {
  add,
  argMax,
  cast,
  constant,
  cumulativeSum,
  div,
  gatherRows,
  input,
  iota,
  less,
  lessOrEqual,
  log,
  maximum,
  minimum,
  mul,
  pad,
  reshape,
  slice,
  softmax,
  sortDescending,
  sub,
  sum,
  takeLast,
  where,
} from "../engine/ops/index.ts";
import { type Device, lanesOf, type PlacedTensors, type Program, type RunOptions, shareOut } from "../engine/runtime/device.ts";
import { type Axis, timesAxes } from "../engine/shape.ts";
import { type CausalModel, parameterInputs, underInputNames } from "../models/causal-model.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { everyIndex, microBatches } from "./log-prob.ts";
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
  if (sampling.kind === "greedy") {
    const token = argMax(logits);
    return { token, logProb: log(takeLast(softmax(logits), token)) };
  }
  const probabilities = softmax(sampling.temperature === 1 ? logits : div(logits, sampling.temperature));
  const kept = sampling.kind === "full" ? probabilities : nucleus(probabilities, sampling.topP);
  const { token, total } = invertCumulative(kept, uniform);
  return { token, logProb: log(div(takeLast(kept, token), total)) };
};

/**
 * The first place of each row [B, V] where its running sum passes `uniform` [B] times its total [B], which is also returned.
 * Found in two steps, first the block and then the place in it: of the whole row only the sums of blocks are needed, and no running sum.
 */
const invertCumulative = (weights: Value, uniform: Value): { readonly token: Value; readonly total: Value } => {
  const [batch, vocabulary] = weights.shape as [Axis, number];
  const size = Math.min(vocabulary, 2 ** Math.ceil(Math.log2(Math.sqrt(vocabulary))));
  const blocks = Math.ceil(vocabulary / size);
  const column = (x: Value): Value => reshape(x, [batch, 1]);
  const last = (x: Value, width: number): Value => reshape(slice(x, 1, width - 1, width), [batch]);
  /** How many of a row are at most `level`. */
  const countUpTo = (row: Value, level: Value): Value => cast(sum(cast(lessOrEqual(row, column(level)), "f32"), 1), "i32");
  const parts = reshape(pad(weights, 1, 0, blocks * size - vocabulary), [batch, blocks, size]);
  const sums = sum(parts, -1);
  const running = cumulativeSum(sums);
  const total = last(running, blocks);
  const level = mul(uniform, total);
  const block = minimum(countUpTo(running, level), constant(i32([], [blocks - 1])));
  const rows = gatherRows(
    reshape(parts, [timesAxes([batch, blocks]), size]),
    add(mul(iota(batch), constant(i32([], [blocks]))), block),
  );
  const within = cumulativeSum(rows);
  const inBlock = last(within, size);
  // The share of the block that lies below the level, of a running sum that was added up in another order: held between 0 and just under
  // all of it, so that the place found always has some weight of its own.
  const blockSum = takeLast(sums, block);
  const share = div(sub(level, sub(takeLast(running, block), blockSum)), blockSum);
  const place = countUpTo(within, mul(minimum(maximum(share, 0), 1 - 2 ** -22), inBlock));
  return { token: add(mul(block, constant(i32([], [size]))), place), total };
};

/** Probabilities outside the nucleus set to zero. Tokens as probable as the last one inside are kept with it. */
const nucleus = (probabilities: Value, topP: number): Value => {
  const sorted = sortDescending(probabilities);
  const before = sub(cumulativeSum(sorted), sorted);
  const last = cast(sub(sum(cast(less(before, constant(topP)), "f32"), 1), 1), "i32");
  const threshold = takeLast(sorted, last);
  return where(less(probabilities, reshape(threshold, [...threshold.shape, 1])), 0, probabilities);
};

/** The graph of one decoding step: `token`, `position`, `uniform`, caches in; `token` to go on with, and `drawn`, which is the same, `logProb` and the new cache rows out. */
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
    outputs: { token: drawn.token, drawn: drawn.token, logProb: drawn.logProb, ...cacheRows },
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

/** Tokens of a sequence that are drawn in one go, without asking which sequences have ended: a message to a lane and back costs as much as a tenth of one. */
const tokensAtOnce = 8;

/** Bytes of caches up to which a lane keeps their memory for the next batch: larger ones are room for training. Taking it anew costs a twentieth of the time. */
const keptCaches = 64 * 2 ** 20;

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

/** @throws TiltError (usage) when prompt and text do not fit the model's context */
export const createGenerator = async (
  device: Device,
  model: CausalModel,
  weights: PlacedTensors,
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
  const caches = Array.from({ length: model.config.layers }, (_, layer) => [`key.${layer}`, `value.${layer}`]).flat();
  const graph = decodingGraph(model, sampling);
  const scan = { carried: ["token"], sliced: ["position", "uniform"] };
  const cacheRows = prompt.length + maxTokens - 1;
  const programs = await Promise.all(
    lanesOf(device).map((lane) => lane.compile(graph, { frozen: underInputNames(weights), caches, cacheRows, scan })),
  );

  /** Draws these sequences. `onTokens` hears how many sequences got a token or need none any more. */
  const fillBatch = async (
    program: Program,
    samples: Samples,
    sequences: Int32Array,
    uniformOf: (b: number, t: number) => number,
    onTokens: (count: number) => void,
  ): Promise<void> => {
    /** The sequences that are being drawn, of which some may have ended. */
    let rows = sequences;
    let options: RunOptions = { caches: "empty" };
    /** Reads a token of each row at `position`, and goes on by itself, `times` in all. */
    const decode = async (position: number, times: number, token: ArrayLike<number>, uniform: Float32Array) => {
      const found = await program.run(
        {
          token: i32([rows.length], Int32Array.from(token)),
          position: i32(
            [times, 1],
            Int32Array.from({ length: times }, (_, k) => position + k),
          ),
          uniform: f32([times, rows.length], uniform),
        },
        options,
      );
      options = {};
      return found;
    };
    for (let position = 0; position < prompt.length - 1; position++)
      await decode(position, 1, new Int32Array(rows.length).fill(prompt[position]!), new Float32Array(rows.length));
    let token: ArrayLike<number> = new Int32Array(rows.length).fill(prompt.at(-1)!);
    for (let start = 0; start < maxTokens; start += tokensAtOnce) {
      const times = Math.min(tokensAtOnce, maxTokens - start);
      const uniform = new Float32Array(times * rows.length);
      for (let k = 0; k < times; k++)
        rows.forEach((b, i) => {
          uniform[k * rows.length + i] = uniformOf(b, start + k);
        });
      const found = await decode(prompt.length - 1 + start, times, token, uniform);
      const tokens = (await found["drawn"]!.read()).data;
      const logProbs = (await found["logProb"]!.read()).data;
      let running = 0;
      rows.forEach((b, i) => {
        for (let k = 0; k < times && samples.ended[b] === 0; k++) {
          const drawn = tokens[k * rows.length + i]!;
          const logProb = logProbs[k * rows.length + i]!;
          samples.ids[b * maxTokens + start + k] = drawn;
          samples.tokenLogProbs[b * maxTokens + start + k] = logProb;
          samples.logProbs[b]! += logProb;
          samples.lengths[b] = start + k + 1;
          if (endIds.includes(drawn)) samples.ended[b] = 1;
        }
        running += 1 - samples.ended[b]!;
      });
      onTokens(sequences.length * times);
      if (running === 0) {
        onTokens(sequences.length * (maxTokens - start - times));
        break;
      }
      token = tokens.subarray((times - 1) * rows.length);
      if (running <= rows.length / 2) {
        // Half of the work would be for sequences that have ended: they leave. Sooner, moving the caches would cost more than it saves.
        const staying = Int32Array.from([...rows.keys()].filter((i) => samples.ended[rows[i]!] === 0));
        rows = staying.map((i) => rows[i]!);
        const last = token;
        token = staying.map((i) => last[i]!);
        options = { caches: staying };
      }
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
      const size = Math.min(batchSize, Math.ceil(count / programs.length));
      const texts = new Array<string>(count);
      let tokens = 0;
      await shareOut(programs, microBatches(everyIndex(count), size), async (program, batch) => {
        await fillBatch(
          program,
          samples,
          batch,
          (b, t) => uniformAt(key, firstIndex + b, t),
          (more) => {
            tokens += more;
            onProgress(tokens / maxTokens);
          },
        );
        // Decoded on this thread while the lanes go on.
        for (const b of batch)
          texts[b] = tokenizer.decode(
            samples.ids.subarray(b * maxTokens, b * maxTokens + samples.lengths[b]! - samples.ended[b]!),
          );
      });
      const perToken = 2 * model.config.layers * model.config.keyValueHeads * model.config.headWidth;
      if (4 * perToken * size * cacheRows > keptCaches) await Promise.all(programs.map((program) => program.clear()));
      return { ...samples, texts };
    },
    dispose: async () => {
      await Promise.all(programs.map((program) => program.dispose()));
    },
  };
};

/**
 * Scoring: the log-probability of given tokens by teacher forcing, log pi(x) = sum_t log pi(x_t | prompt, x_<t).
 * The same graph, with the same head, is what training differentiates.
 */

import { f32, type HostTensor, i32 } from "../base/tensor.ts";
import type { Graph } from "../engine/graph.ts";
import { input } from "../engine/ops/index.ts";
import { type Device, type PlacedTensors, readAll, shareOut } from "../engine/runtime/device.ts";
import { parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
import { type FrozenLane, freeze } from "../models/frozen.ts";
import { probeSize, readProbe } from "../models/prefix-probe.ts";
import type { Samples } from "./samples.ts";

/** What a sequence model reads of a batch: inputs, what comes next, and which places count. T here is prompt length + maxTokens - 1. */
export interface TeacherForcing {
  /** [B, T] */
  readonly tokens: HostTensor<"i32">;
  /** [B, T] */
  readonly labels: HostTensor<"i32">;
  /** 1 where a label belongs to x, 0 on prompt and padding [B, T] */
  readonly mask: Float32Array;
  readonly count: number;
  readonly length: number;
  /** Places before the first label of x: prompt length - 1. */
  readonly offset: number;
}

/**
 * Sequences laid out for teacher forcing, padded on the right to the longest.
 * @param rows  token ids of each sequence, in full
 * @param given how many of its first tokens are conditioned on and not scored, at least 1
 */
export const forceRows = (rows: readonly ArrayLike<number>[], given: number): TeacherForcing => {
  const count = rows.length;
  const offset = given - 1;
  const length = Math.max(given, ...rows.map((row) => row.length - 1));
  const tokens = new Int32Array(count * length);
  const labels = new Int32Array(count * length);
  const mask = new Float32Array(count * length);
  rows.forEach((row, i) => {
    for (let t = 0; t < row.length; t++) {
      if (t < length) tokens[i * length + t] = row[t]!;
      if (t > 0) labels[i * length + t - 1] = row[t]!;
      if (t >= given) mask[i * length + t - 1] = 1;
    }
  });
  return { tokens: i32([count, length], tokens), labels: i32([count, length], labels), mask, count, length, offset };
};

/** The sequences `indices` of a batch, prompt and all, for teacher forcing. */
export const teacherForcing = ({ prompt, ids, maxTokens, lengths }: Samples, indices: Int32Array): TeacherForcing =>
  forceRows(
    Array.from(indices, (b) => [...prompt, ...ids.subarray(b * maxTokens, b * maxTokens + lengths[b]!)]),
    prompt.length,
  );

/** Visits each generated token of the sequences: its place in [B, T] of the samples, and in the laid-out micro-batch. */
const forTokens = (
  { maxTokens, lengths }: Samples,
  indices: Int32Array,
  { length, offset }: TeacherForcing,
  visit: (at: number, place: number) => void,
): void => {
  for (const [i, b] of indices.entries()) for (let t = 0; t < lengths[b]!; t++) visit(b * maxTokens + t, i * length + offset + t);
};

/** Numbers per token [B, T] of the samples, cut to some sequences and laid out as teacher forcing lays out their tokens; 0 elsewhere. */
export const placeTokens = (values: Float32Array, samples: Samples, indices: Int32Array, batch: TeacherForcing): Float32Array => {
  const placed = new Float32Array(batch.count * batch.length);
  forTokens(samples, indices, batch, (at, place) => {
    placed[place] = values[at]!;
  });
  return placed;
};

/** The way back: numbers of a laid-out micro-batch into [B, T] of the samples. */
export const takeTokens = (
  placed: ArrayLike<number>,
  samples: Samples,
  indices: Int32Array,
  batch: TeacherForcing,
  into: Float32Array,
): void => {
  forTokens(samples, indices, batch, (at, place) => {
    into[at] = placed[place]!;
  });
};

/** 0 .. count - 1 */
export const everyIndex = (count: number): Int32Array => Int32Array.from({ length: count }, (_, b) => b);

/** The indices of sequences from the shortest to the longest: neighbours of one length need little padding between them. */
export const byLength = (lengths: ArrayLike<number>): Int32Array =>
  everyIndex(lengths.length).sort((a, b) => lengths[a]! - lengths[b]! || a - b);

/** Consecutive parts of at most `size`. */
export const microBatches = (indices: Int32Array, size: number): Int32Array[] =>
  Array.from({ length: Math.ceil(indices.length / size) }, (_, i) => indices.slice(i * size, (i + 1) * size));

export interface Scores {
  /** [B] nats */
  readonly logProbs: Float64Array;
  /** [B, T], T = samples.maxTokens; 0 beyond the length. Nats. */
  readonly tokenLogProbs: Float32Array;
  /** What the probe said before each token [B, T]; absent where the scorer has none. */
  readonly probed?: Float32Array;
}

export interface Scorer {
  /** log-probabilities of a batch under these weights; `onProgress` hears the number done. */
  score(samples: Samples, onProgress?: (done: number) => void): Promise<Scores>;
  /** log-probability of each label of one micro-batch [B, T] nats, of use where its mask is 1. */
  scoreForced(batch: TeacherForcing): Promise<Float32Array>;
  dispose(): Promise<void>;
}

/** The graph of scoring: weights, tokens and labels in, `tokenLogProbs` [B, T] out; with a probe also its coefficients in and `probed` [B, T] out. */
export const scoringGraph = (model: SequenceModel, options: { readonly probed?: boolean } = {}): Graph => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const labels = input("labels", "i32", ["B", "T"]);
  const parameters = parameterInputs(model);
  const states = model.states(parameters, tokens);
  const scoring: Graph = {
    inputs: { ...underInputNames(parameters), tokens, labels },
    outputs: { tokenLogProbs: model.tokenLogProbs(parameters, states, labels) },
  };
  if (!options.probed) return scoring;
  const probe = input("probe", "f32", [probeSize(model.width)]);
  return { inputs: { ...scoring.inputs, probe }, outputs: { ...scoring.outputs, probed: readProbe(states, probe) } };
};

/** Sequences of one pass. Of 40 tokens they are 640 rows of every activation, which then mostly stay in the cache (docs/performance.md). */
export const defaultMicroBatch = 16;

/**
 * A scorer with frozen weights. Large ones that lie on the device already are read there, and must not be given back before the scorer is.
 * @param probe coefficients of a probe to be read in the same pass [2 D + 1]
 */
export const createScorer = async (
  device: Device,
  model: SequenceModel,
  weights: PlacedTensors,
  microBatch = defaultMicroBatch,
  probe?: readonly number[],
): Promise<Scorer> => {
  const coefficients = probe === undefined ? {} : { probe: f32([probe.length], Float32Array.from(probe)) };
  const program = await freeze(device, model, weights, scoringGraph(model, { probed: probe !== undefined }), coefficients);
  const forcedBy = async (lane: FrozenLane, { tokens, labels }: TeacherForcing): Promise<Record<string, Float32Array>> =>
    Object.fromEntries(
      Object.entries(await readAll(await lane.run({ tokens, labels }))).map(([name, { data }]) => [name, data as Float32Array]),
    );
  return {
    scoreForced: async (batch) => (await forcedBy(program.lanes[0]!, batch))["tokenLogProbs"]!,
    score: async (samples, onProgress) => {
      const logProbs = new Float64Array(samples.count);
      const perToken = () => new Float32Array(samples.count * samples.maxTokens);
      const taken: Record<string, Float32Array> = {
        tokenLogProbs: perToken(),
        ...(probe === undefined ? {} : { probed: perToken() }),
      };
      let done = 0;
      await shareOut(program.lanes, microBatches(byLength(samples.lengths), microBatch), async (lane, indices) => {
        const batch = teacherForcing(samples, indices);
        const found = await forcedBy(lane, batch);
        for (const [name, into] of Object.entries(taken)) takeTokens(found[name]!, samples, indices, batch, into);
        for (const b of indices) {
          for (let t = 0; t < samples.lengths[b]!; t++) logProbs[b]! += taken["tokenLogProbs"]![b * samples.maxTokens + t]!;
        }
        done += indices.length;
        onProgress?.(done);
      });
      return { logProbs, tokenLogProbs: taken["tokenLogProbs"]!, ...(probe === undefined ? {} : { probed: taken["probed"]! }) };
    },
    dispose: () => program.dispose(),
  };
};

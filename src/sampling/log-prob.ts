/**
 * Scoring: the log-probability of given tokens by teacher forcing, log pi(x) = sum_t log pi(x_t | prompt, x_<t).
 * The same graph, with the same head, is what training differentiates.
 */

import { type HostTensor, i32, type NamedTensors } from "../base/tensor.ts";
import type { Graph, Value } from "../engine/graph.ts";
import { input } from "../engine/ops/index.ts";
import type { Device } from "../engine/runtime/device.ts";
import { parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
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

/** The rows `indices` of a batch, laid out for teacher forcing, cut to their longest. */
export const teacherForcing = (samples: Samples, indices: ArrayLike<number>): TeacherForcing => {
  const count = indices.length;
  const offset = samples.prompt.length - 1;
  let longest = 1;
  for (let i = 0; i < count; i++) longest = Math.max(longest, samples.lengths[indices[i]!]!);
  const length = offset + longest;
  const tokens = new Int32Array(count * length);
  const labels = new Int32Array(count * length);
  const mask = new Float32Array(count * length);
  for (let i = 0; i < count; i++) {
    const b = indices[i]!;
    const size = samples.lengths[b]!;
    const at = (t: number): number => (t <= offset ? samples.prompt[t]! : t - offset - 1 < size ? samples.ids[b * samples.maxTokens + t - offset - 1]! : 0);
    for (let t = 0; t < length; t++) {
      tokens[i * length + t] = at(t);
      labels[i * length + t] = at(t + 1);
      mask[i * length + t] = t >= offset && t - offset < size ? 1 : 0;
    }
  }
  return { tokens: i32([count, length], tokens), labels: i32([count, length], labels), mask, count, length, offset };
};

/** Consecutive index ranges of at most `size`. */
export const microBatches = (count: number, size: number): Int32Array[] =>
  Array.from({ length: Math.ceil(count / size) }, (_, i) => Int32Array.from({ length: Math.min(size, count - i * size) }, (_, j) => i * size + j));

export interface Scores {
  /** [B] nats */
  readonly logProbs: Float64Array;
  /** [B, T], T = samples.maxTokens; 0 beyond the length. Nats. */
  readonly tokenLogProbs: Float32Array;
}

export interface Scorer {
  /** log-probabilities of a batch under these weights; `onProgress` hears the number done. */
  score(samples: Samples, onProgress?: (done: number) => void): Promise<Scores>;
  dispose(): Promise<void>;
}

/** The graph of scoring: weights, tokens and labels in, `tokenLogProbs` [B, T] out. */
export const scoringGraph = (model: SequenceModel): Graph => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const labels = input("labels", "i32", ["B", "T"]);
  const parameters = parameterInputs(model);
  return { inputs: { ...underInputNames(parameters), tokens, labels }, outputs: { tokenLogProbs: model.tokenLogProbs(parameters, tokens, labels) as Value } };
};

/** A scorer with frozen weights. */
export const createScorer = async (device: Device, model: SequenceModel, weights: NamedTensors, microBatch = 64): Promise<Scorer> => {
  const program = await device.compile(scoringGraph(model), { frozen: underInputNames(weights) });
  return {
    score: async (samples, onProgress) => {
      const logProbs = new Float64Array(samples.count);
      const tokenLogProbs = new Float32Array(samples.count * samples.maxTokens);
      for (const indices of microBatches(samples.count, microBatch)) {
        const { tokens, labels, length, offset } = teacherForcing(samples, indices);
        const result = await (await program.run({ tokens, labels }))["tokenLogProbs"]!.read();
        indices.forEach((b, i) => {
          let total = 0;
          for (let t = 0; t < samples.lengths[b]!; t++) {
            const value = result.data[i * length + offset + t]!;
            tokenLogProbs[b * samples.maxTokens + t] = value;
            total += value;
          }
          logProbs[b] = total;
        });
        onProgress?.(indices[indices.length - 1]! + 1);
      }
      return { logProbs, tokenLogProbs };
    },
    dispose: () => program.dispose(),
  };
};

/**
 * A model that is nothing but a table of logits, one row per prefix: any distribution over short sequences, exactly.
 * For tests and for reading; rows are numbered like the digits of a number in base V, shorter prefixes first.
 */

import {
  add,
  cast,
  equal,
  gatherRows,
  gemm,
  iota,
  logSoftmax,
  matmul,
  reshape,
  table,
  takeLast,
  transpose,
} from "../engine/ops/index.ts";
import { timesAxes } from "../engine/shape.ts";
import type { SequenceModel } from "./causal-model.ts";

/** Number of prefixes shorter than `length` tokens over V tokens: 1 + V + V² + ... */
export const prefixesShorterThan = (length: number, vocabulary: number): number => {
  let total = 0;
  for (let n = 0; n < length; n++) total += vocabulary ** n;
  return total;
};

/** The table's row for a prefix. */
export const prefixRow = (prefix: ArrayLike<number>, vocabulary: number): number => {
  let digits = 0;
  for (let i = 0; i < prefix.length; i++) digits = digits * vocabulary + prefix[i]!;
  return prefixesShorterThan(prefix.length, vocabulary) + digits;
};

/**
 * A tabular model of sequences of at most `maxTokens` tokens. It reads [start, x_1, ..., x_{T-1}] like any other model:
 * the start token is not part of the prefix. Its one parameter is `logits` [P, V]; a state is the prefix itself, as a one-hot [P], so that a
 * linear head on states is a table too.
 */
export const createTabularModel = (vocabulary: number, maxTokens: number): SequenceModel => {
  const prefixes = prefixesShorterThan(maxTokens, vocabulary);
  return {
    parameterShapes: { logits: [prefixes, vocabulary] },
    width: prefixes,
    states: (_, tokens) => {
      // Row at place t = (prefixes shorter than t) + sum over s of x_s V^(t-s): a product with a fixed matrix, exact in float32 for small worlds.
      const powers = Float32Array.from({ length: maxTokens * maxTokens }, (_, i) => {
        const from = Math.floor(i / maxTokens);
        const at = i % maxTokens;
        return from >= 1 && from <= at ? vocabulary ** (at - from) : 0;
      });
      const offsets = Float32Array.from({ length: maxTokens }, (_, at) => prefixesShorterThan(at, vocabulary));
      const places = iota(tokens.shape[1]!);
      const used = gatherRows(transpose(gatherRows(table([maxTokens, maxTokens], powers), places), [1, 0]), places);
      const rows = add(matmul(cast(tokens, "f32"), used, { transposeB: true }), gatherRows(table([maxTokens], offsets), places));
      return cast(equal(reshape(rows, [...tokens.shape, 1]), cast(iota(prefixes), "f32")), "f32");
    },
    tokenLogProbs: (parameters, states, labels) => {
      const logits = gemm(reshape(states, [timesAxes(labels.shape), prefixes]), parameters["logits"]!);
      return takeLast(logSoftmax(reshape(logits, [...labels.shape, vocabulary])), labels);
    },
  };
};

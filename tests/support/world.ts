/**
 * An enumerable world for exact tests: V tokens, one of which ends a sequence, and at most T steps. Every sequence is listed, so an
 * expectation is a finite sum. A model is a table of logits [P, V], one row per prefix; a sequence's probability is the product of
 * softmax entries along its path, in float64.
 */

import { logSumExp, sum, timesOrZero } from "../../src/base/numeric.ts";
import { keyOf, type Stream, streamOf } from "../../src/base/random.ts";
import type { Sequence } from "../../src/sampling/samples.ts";
import type { FeatureMatrix } from "../../src/targets/feature.ts";

export interface World {
  /** V, the end token included. */
  readonly vocabulary: number;
  /** T. */
  readonly maxTokens: number;
  readonly endToken: number;
  /** P, the prefixes that a next token is drawn after: of 0 .. T - 1 tokens, none of them the end token. */
  readonly prefixes: number;
  /** Every sequence, as ids: those that end within T tokens, and those cut at T. */
  readonly sequences: readonly Int32Array[];
}

/** @param endToken default 0 */
export const createWorld = (vocabulary: number, maxTokens: number, endToken = 0): World => {
  const sequences: Int32Array[] = [];
  let open: number[][] = [[]];
  let prefixes = 0;
  for (let t = 0; t < maxTokens; t++) {
    prefixes += open.length;
    const longer = open.flatMap((prefix) => Array.from({ length: vocabulary }, (_, token) => [...prefix, token]));
    open = longer.filter((ids) => ids.at(-1) !== endToken);
    sequences.push(...longer.filter((ids) => ids.at(-1) === endToken || t === maxTokens - 1).map((ids) => Int32Array.from(ids)));
  }
  return { vocabulary, maxTokens, endToken, prefixes, sequences };
};

/** Row of the table [P, V] that token t of the sequence is drawn from: the number of the prefix x_0 .. x_{t-1}, shortest first. */
export const prefixIndex = (world: World, ids: ArrayLike<number>, t: number): number => {
  const digits = world.vocabulary - 1;
  let shorter = 0;
  let number = 0;
  for (let s = 0; s < t; s++) {
    shorter += digits ** s;
    number = number * digits + (ids[s]! > world.endToken ? ids[s]! - 1 : ids[s]!);
  }
  return shorter + number;
};

/** `prefixIndex` of every step [T]; 0 beyond the sequence's length. */
export const prefixRows = (world: World, ids: ArrayLike<number>): Int32Array =>
  Int32Array.from({ length: world.maxTokens }, (_, t) => (t < ids.length ? prefixIndex(world, ids, t) : 0));

/** Normal logits of a random tabular model [P, V]. */
export const randomTable = (world: World, seed: number, scale = 1): Float64Array => {
  const stream = streamOf(keyOf(seed, "world"));
  return Float64Array.from({ length: world.prefixes * world.vocabulary }, () => scale * stream.normal());
};

const rowOf = ({ vocabulary }: World, table: Float64Array, row: number): Float64Array =>
  table.subarray(row * vocabulary, (row + 1) * vocabulary);

/** log pi(x), nats. */
export const logProb = (world: World, table: Float64Array, ids: ArrayLike<number>): number => {
  let total = 0;
  for (let t = 0; t < ids.length; t++) {
    const logits = rowOf(world, table, prefixIndex(world, ids, t));
    total += logits[ids[t]!]! - logSumExp(logits);
  }
  return total;
};

/** log pi(x) of every sequence of the world [N], nats. */
export const logProbs = (world: World, table: Float64Array): Float64Array =>
  Float64Array.from(world.sequences, (ids) => logProb(world, table, ids));

/** Gradient of log pi(x) with respect to the table [P, V]: one-hot minus softmax in each row along the path. */
export const gradLogProb = (world: World, table: Float64Array, ids: ArrayLike<number>): Float64Array => {
  const gradient = new Float64Array(table.length);
  for (let t = 0; t < ids.length; t++) {
    const row = prefixIndex(world, ids, t);
    const logits = rowOf(world, table, row);
    const logTotal = logSumExp(logits);
    for (const [v, logit] of logits.entries()) gradient[row * world.vocabulary + v]! -= Math.exp(logit - logTotal);
    gradient[row * world.vocabulary + ids[t]!]! += 1;
  }
  return gradient;
};

/** sum_x exp(logProbs(x)) values(x), where a sequence without probability adds nothing. */
export const expectation = (logProbs: Float64Array, values: ArrayLike<number>): number =>
  sum(logProbs.map((logProb, i) => timesOrZero(Math.exp(logProb), values[i]!)));

/** sum_x exp(logProbs(x)) weights(x) vectors(x). */
export const vectorExpectation = (
  logProbs: Float64Array,
  weights: ArrayLike<number>,
  vectors: readonly Float64Array[],
): Float64Array =>
  vectors[0]!.map((_, k) => sum(logProbs.map((logProb, i) => Math.exp(logProb) * weights[i]! * vectors[i]![k]!)));

/** KL(p, pi) for log P of each sequence, in nats. */
export const klTo = (world: World, logTarget: Float64Array, table: Float64Array): number => {
  const logZ = logSumExp(logTarget);
  const logPi = logProbs(world, table);
  return sum(logTarget.map((value, n) => timesOrZero(Math.exp(value - logZ), value - logZ - logPi[n]!)));
};

/** A policy on the way from a table to a target, with a share of its KL(p, pi) left: gradient steps of size 0.5. */
export const towards = (world: World, logTarget: Float64Array, from: Float64Array, share: number): Float64Array => {
  const [logZ, goal] = [logSumExp(logTarget), klTo(world, logTarget, from) * share];
  const weights = new Float64Array(logTarget.length).fill(Math.exp(-logZ));
  let table = from;
  while (klTo(world, logTarget, table) > goal) {
    const scores = world.sequences.map((ids) => gradLogProb(world, table, ids));
    const ascent = vectorExpectation(logTarget, weights, scores);
    table = table.map((value, k) => value + 0.5 * ascent[k]!);
  }
  return table;
};

/** log of the probability of each sequence's prefixes [B, T]: of all sequences that begin so. */
export const prefixMass = (world: World, logs: Float64Array): Float64Array => {
  const { sequences, maxTokens } = world;
  const masses = new Map<number, number>();
  for (const [n, ids] of sequences.entries())
    for (let t = 0; t < ids.length; t++) {
      const row = prefixIndex(world, ids, t);
      masses.set(row, (masses.get(row) ?? 0) + Math.exp(logs[n]!));
    }
  const placed = new Float64Array(sequences.length * maxTokens);
  for (const [n, ids] of sequences.entries())
    for (let t = 0; t < ids.length; t++) placed[n * maxTokens + t] = Math.log(masses.get(prefixIndex(world, ids, t))!);
  return placed;
};

/** log-probability of each token of each sequence [B, T]: how much less the longer prefix weighs. 0 beyond the length. */
export const tokenLogProbsOf = (world: World, logs: Float64Array): Float32Array => {
  const { sequences, maxTokens } = world;
  const masses = prefixMass(world, logs);
  const placed = new Float32Array(masses.length);
  for (const [n, ids] of sequences.entries())
    for (let t = 0; t < ids.length; t++) {
      const at = n * maxTokens + t;
      placed[at] = (t + 1 < ids.length ? masses[at + 1]! : logs[n]!) - masses[at]!;
    }
  return placed;
};

/** Indices of n sequences drawn independently, by inverting the cumulative distribution. */
export const drawSequences = (logProbs: Float64Array, n: number, stream: Stream): Int32Array => {
  let total = 0;
  const cumulative = logProbs.map((logProb) => {
    total += Math.exp(logProb);
    return total;
  });
  return Int32Array.from({ length: n }, () => {
    const u = stream.uniform() * total;
    let low = 0;
    let high = cumulative.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! > u) high = middle;
      else low = middle + 1;
    }
    return low;
  });
};

/** What a feature sees: tokens as words "t1 t2", the end token left out. */
export const sequenceOf = (world: World, ids: Int32Array): Sequence => ({
  text: [...ids]
    .filter((id) => id !== world.endToken)
    .map((id) => `t${id}`)
    .join(" "),
  ids,
  ended: ids.at(-1) === world.endToken,
});

/** Features of the chosen sequences (all of them by default) as a matrix; a function that returns booleans makes a binary column. */
export const worldMatrix = (
  world: World,
  features: Readonly<Record<string, (ids: Int32Array) => number | boolean>>,
  chosen: ArrayLike<number> = world.sequences.map((_, i) => i),
): FeatureMatrix => {
  const columns = Object.values(features);
  const rows = Array.from(chosen, (i) => columns.map((feature) => feature(world.sequences[i]!)));
  return {
    names: Object.keys(features),
    binary: columns.map((feature) => world.sequences.every((ids) => typeof feature(ids) === "boolean")),
    count: rows.length,
    values: Float64Array.from(rows.flat(), Number),
  };
};

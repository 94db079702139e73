/** An enumerable world seen through the package's own graphs: its sequences as samples, its tables as weights of the tabular model. */

import { type HostTensor, i32, tensor, zeros } from "../../src/base/tensor.ts";
import { createTabularModel, prefixRow } from "../../src/models/tabular.ts";
import type { TeacherForcing } from "../../src/sampling/log-prob.ts";
import type { Samples } from "../../src/sampling/samples.ts";
import { prefixIndex, type World } from "./world.ts";

export const tabularModelOf = (world: World) => createTabularModel(world.vocabulary, world.maxTokens);

/** Rows of the model that a world's prefixes stand for; the model also has rows for prefixes that go on after an end token, which stay 0. */
const rowPairs = (world: World): readonly (readonly [model: number, world: number])[] => {
  const pairs = new Map<number, number>();
  for (const ids of world.sequences)
    for (let t = 0; t < ids.length; t++) pairs.set(prefixRow(ids.subarray(0, t), world.vocabulary), prefixIndex(world, ids, t));
  return [...pairs];
};

/** A world's table [P, V] as the model's weight `logits`, in float64 under an f32 label so that the reference device loses nothing. */
export const weightsOfTable = (world: World, table: Float64Array): { logits: HostTensor } => {
  const [rows, vocabulary] = tabularModelOf(world).parameterShapes["logits"] as [number, number];
  const data = new Float64Array(rows * vocabulary);
  for (const [to, from] of rowPairs(world)) data.set(table.subarray(from * vocabulary, (from + 1) * vocabulary), to * vocabulary);
  return { logits: tensor("f64", [rows, vocabulary], data) };
};

/** A gradient (or anything else) over the model's rows, as a table of the world. */
export const tableOfWeights = (world: World, logits: HostTensor): Float64Array => {
  const table = new Float64Array(world.prefixes * world.vocabulary);
  for (const [from, to] of rowPairs(world))
    table.set(logits.data.slice(from * world.vocabulary, (from + 1) * world.vocabulary) as Float64Array, to * world.vocabulary);
  return table;
};

export const zeroGradients = (world: World): { logits: HostTensor } => ({
  logits: zeros("f64", tabularModelOf(world).parameterShapes["logits"]!),
});

/** The chosen sequences as a batch drawn with the given log-probabilities. The start token is 0 and is not read. */
export const samplesOf = (world: World, chosen: ArrayLike<number>, logProbs: ArrayLike<number>): Samples => {
  const count = chosen.length;
  const ids = new Int32Array(count * world.maxTokens);
  const lengths = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const sequence = world.sequences[chosen[i]!]!;
    ids.set(sequence, i * world.maxTokens);
    lengths[i] = sequence.length;
  }
  return {
    count,
    maxTokens: world.maxTokens,
    prompt: [0],
    ids,
    lengths,
    ended: Uint8Array.from(chosen, (n) => Number(world.sequences[n]!.at(-1) === world.endToken)),
    tokenLogProbs: new Float32Array(count * world.maxTokens),
    logProbs: Float64Array.from(chosen, (n) => logProbs[n]!),
    texts: Array.from(chosen, () => ""),
  };
};

/** One sequence for the tabular model, all T places of it. */
export const forcedSequence = (world: World, n: number): TeacherForcing => {
  const sequence = world.sequences[n]!;
  const { maxTokens } = world;
  const at = (t: number): number => sequence[t] ?? 0;
  return {
    tokens: i32(
      [1, maxTokens],
      Int32Array.from({ length: maxTokens }, (_, t) => (t === 0 ? 0 : at(t - 1))),
    ),
    labels: i32(
      [1, maxTokens],
      Int32Array.from({ length: maxTokens }, (_, t) => at(t)),
    ),
    mask: Float32Array.from({ length: maxTokens }, (_, t) => (t < sequence.length ? 1 : 0)),
    count: 1,
    length: maxTokens,
    offset: 0,
  };
};

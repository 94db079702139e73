/** An enumerable world seen through the package's own graphs: its sequences as samples, its tables as weights of the tabular model. */

import { logSumExp } from "../../src/base/numeric.ts";
import { f32, type HostTensor, i32, tensor, zeros } from "../../src/base/tensor.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { createTabularModel, prefixRow } from "../../src/models/tabular.ts";
import { placeTokens, type TeacherForcing, teacherForcing } from "../../src/sampling/log-prob.ts";
import type { Samples } from "../../src/sampling/samples.ts";
import type { MethodInputs } from "../../src/tuners/method.ts";
import { createTraining, type Objective } from "../../src/tuners/training.ts";
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

/** The table of a distribution: with it, log pi(x) is the given log p(x) of every sequence. All must have some mass. */
export const tableOf = (world: World, logProbs: Float64Array): Float64Array => {
  const below = Array.from({ length: world.prefixes * world.vocabulary }, (): number[] => []);
  for (const [n, ids] of world.sequences.entries())
    for (let t = 0; t < ids.length; t++) below[prefixIndex(world, ids, t) * world.vocabulary + ids[t]!]!.push(logProbs[n]!);
  return Float64Array.from(below, logSumExp);
};

/**
 * Gradient of a function of a table [P, V] by central differences with steps 0.08, 0.04, 0.02, 0.01, extrapolated to 0 (Richardson).
 * Truncation is of eighth order, about (product of the steps / pi^4)^2 = 1e-16, a softmax having no pole within pi of the real line; rounding is
 * about 1e-15 |value| / 0.01 = 1e-13 for values of order one. The function must be smooth where log-probabilities move by less than 0.08.
 */
export const numericGradient = (value: (table: Float64Array) => number, table: Float64Array): Float64Array =>
  table.map((_, k) => {
    const moved = (by: number): number => {
      const other = Float64Array.from(table);
      other[k]! += by;
      return value(other);
    };
    let row = [0.08, 0.04, 0.02, 0.01].map((step) => (moved(step) - moved(-step)) / (2 * step));
    for (let order = 4; row.length > 1; order *= 4) row = row.slice(1).map((finer, i) => finer + (finer - row[i]!) / (order - 1));
    return row[0]!;
  });

type Inputs = Pick<MethodInputs, "sequences" | "numbers"> & Partial<Pick<MethodInputs, "tokens">>;

/**
 * What the training graph of an objective says at a table, in float64 throughout (inputs of sequences do not pass through float32 as they do in a tuner):
 * a function of a batch, the inputs of all of it, the sequences to take and their weight, to the ascent direction (minus the gradient of the loss)
 * and the objective's outputs.
 */
export const createAscent = async (world: World, table: Float64Array, objective: Objective) => {
  const training = await createTraining(referenceDevice, tabularModelOf(world), objective);
  const weights = { logits: referenceDevice.upload(weightsOfTable(world, table).logits) };
  const zero = { logits: referenceDevice.upload(zeroGradients(world).logits) };
  return async (samples: Samples, { sequences, numbers, tokens = {} }: Inputs, indices: Int32Array, scale: number) => {
    const batch = teacherForcing(samples, indices);
    const taken = Object.entries(sequences).map(([name, list]) => {
      const some = Float64Array.from(indices, (b) => list[b]!);
      return [name, tensor("f64", [some.length], some)] as const;
    });
    const scalars = Object.entries({ ...numbers, scale }).map(([name, number]) => [name, tensor("f64", [], [number])] as const);
    const perToken = Object.entries(tokens).map(
      ([name, list]) => [name, f32([batch.count, batch.length], placeTokens(list, samples, indices, batch))] as const,
    );
    const inputs = Object.fromEntries([...taken, ...scalars, ...perToken]);
    const { gradients, outputs } = await training.accumulate(weights, zero, batch, inputs);
    const ascent = tableOfWeights(world, await gradients["logits"]!.read()).map((value) => -value);
    return { ascent, outputs };
  };
};

/** Every sequence of a batch by itself: its ascent direction, and what the objective says of it, by name [B]. */
export const ascentsOf = async (world: World, table: Float64Array, objective: Objective, samples: Samples, inputs: Inputs) => {
  const ascend = await createAscent(world, table, objective);
  const ascents: Float64Array[] = [];
  const outputs: Record<string, Float64Array> = {};
  for (let b = 0; b < samples.count; b++) {
    const one = await ascend(samples, inputs, Int32Array.of(b), 1);
    ascents.push(one.ascent);
    for (const [name, { data }] of Object.entries(one.outputs)) {
      outputs[name] ??= new Float64Array(samples.count);
      outputs[name][b] = data[0]!;
    }
  }
  return { ascents, outputs };
};

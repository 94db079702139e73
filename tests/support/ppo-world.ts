/**
 * PPO and GRPO on an enumerable world: policies with a value head as one flat vector of parameters, numbers per token, batches with everything
 * that is known of them, and gradients by central differences.
 *
 * A flat vector is [table P x V | head P | bias 1], P being the world's prefixes: a value is V(x_<t) = head[prefix] + bias.
 */

import { logSumExp } from "../../src/base/numeric.ts";
import { type HostTensor, tensor, zeros } from "../../src/base/tensor.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import type { SequenceModel } from "../../src/models/causal-model.ts";
import { prefixRow } from "../../src/models/tabular.ts";
import type { DeviceTensors } from "../../src/optim/adam.ts";
import type { MethodInputs, ScoredSamples } from "../../src/tuners/method.ts";
import { createTraining, type Objective } from "../../src/tuners/training.ts";
import { forcedSequence, samplesOf, tableOfWeights, weightsOfTable } from "./tabular-world.ts";
import { logProbs, prefixIndex, type World } from "./world.ts";

/** A tensor that loses nothing on the reference device. */
export const f64 = (shape: readonly number[], values: ArrayLike<number>): HostTensor =>
  tensor("f64", shape, Float64Array.from(values));

/** Numbers per token of one sequence as an input [1, T]; what stands beyond its length must not matter, and is `padding`. */
export const perToken = (world: World, values: ArrayLike<number>, padding = 1.7): HostTensor =>
  f64(
    [1, world.maxTokens],
    Float64Array.from({ length: world.maxTokens }, (_, t) => values[t] ?? padding),
  );

const rowOf = ({ vocabulary }: World, table: Float64Array, row: number): Float64Array =>
  table.subarray(row * vocabulary, (row + 1) * vocabulary);

/** log pi(x_t | x_<t) of each token, nats. */
export const tokenLogProbs = (world: World, table: Float64Array, ids: ArrayLike<number>): Float64Array =>
  Float64Array.from({ length: ids.length }, (_, t) => {
    const logits = rowOf(world, table, prefixIndex(world, ids, t));
    return logits[ids[t]!]! - logSumExp(logits);
  });

/** V(x_<t) before each token. */
export const tokenValues = (world: World, flat: Float64Array, ids: ArrayLike<number>): Float64Array => {
  const head = flat.subarray(world.prefixes * world.vocabulary);
  return Float64Array.from({ length: ids.length }, (_, t) => head[prefixIndex(world, ids, t)]! + head.at(-1)!);
};

/** Rows of the model's states that the world's prefixes stand for [P]. */
const stateRows = (world: World): number[] => {
  const rows: number[] = [];
  for (const ids of world.sequences)
    for (let t = 0; t < ids.length; t++) rows[prefixIndex(world, ids, t)] = prefixRow(ids.subarray(0, t), world.vocabulary);
  return rows;
};

/** The flat vector's part that is the policy. */
export const tableOf = (world: World, flat: Float64Array): Float64Array => flat.slice(0, world.prefixes * world.vocabulary);

/** A flat vector as weights of the tabular model with a value head, in float64. */
export const weightsOfFlat = (world: World, model: SequenceModel, flat: Float64Array): Record<string, HostTensor> => {
  const head = flat.subarray(world.prefixes * world.vocabulary);
  const data = new Float64Array(model.width);
  for (const [from, to] of stateRows(world).entries()) data[to] = head[from]!;
  return {
    ...weightsOfTable(world, tableOf(world, flat)),
    "value-head.weight": f64([model.width], data),
    "value-head.bias": f64([1], [head.at(-1)!]),
  };
};

/** Weights, or a gradient, of the model as a flat vector; of a model without a value head only the table. */
export const flatOf = async (world: World, weights: DeviceTensors): Promise<Float64Array> => {
  const table = tableOfWeights(world, await weights["logits"]!.read());
  if (weights["value-head.weight"] === undefined) return table;
  const head = (await weights["value-head.weight"].read()).data;
  const bias = (await weights["value-head.bias"]!.read()).data;
  return Float64Array.from([...table, ...stateRows(world).map((row) => head[row]!), bias[0]!]);
};

export const uploaded = (tensors: Readonly<Record<string, HostTensor>>): DeviceTensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, held]) => [name, referenceDevice.upload(held)]));

/** Zeros of a model's weights, in float64. */
export const zerosOf = (model: SequenceModel): DeviceTensors =>
  uploaded(Object.fromEntries(Object.entries(model.parameterShapes).map(([name, shape]) => [name, zeros("f64", shape)])));

/**
 * The gradient that the training graph gives for every sequence in turn, added up, and the sum of its losses.
 * @param inputs of the objective for sequence n; its `scale` says how much the sequence counts
 */
export const summedGradient = async (
  world: World,
  model: SequenceModel,
  objective: Objective,
  weights: Readonly<Record<string, HostTensor>>,
  inputs: (n: number) => Record<string, HostTensor>,
): Promise<{ gradient: Float64Array; loss: number }> => {
  const training = await createTraining(referenceDevice, model, objective);
  const held = uploaded(weights);
  let gradients = zerosOf(model);
  let loss = 0;
  for (let n = 0; n < world.sequences.length; n++) {
    const pass = await training.accumulate(held, gradients, forcedSequence(world, n), inputs(n));
    gradients = pass.gradients;
    loss += pass.outputs["loss"]!.data[0]!;
  }
  return { gradient: await flatOf(world, gradients), loss };
};

/** The gradient of a function by central differences; the error is of the order of step^2 and 1e-16/step. */
export const centralDifferences = (f: (at: Float64Array) => number, at: Float64Array, step = 1e-5): Float64Array =>
  at.map((_, k) => {
    const moved = (by: number): number => f(at.map((value, i) => (i === k ? value + by : value)));
    return (moved(step) - moved(-step)) / (2 * step);
  });

/** The chosen sequences as drawn from one table, scored by another, with a reward: what a clipped method learns from. */
export const scoredOf = (
  world: World,
  { policy, base, reward }: { readonly policy: Float64Array; readonly base: Float64Array; readonly reward: Float64Array },
  chosen: ArrayLike<number>,
): ScoredSamples & { readonly tokenLogBase: Float32Array; readonly reward: Float64Array } => {
  const { maxTokens } = world;
  const laidOut = (table: Float64Array): Float32Array => {
    const all = new Float32Array(chosen.length * maxTokens);
    for (let b = 0; b < chosen.length; b++) all.set(tokenLogProbs(world, table, world.sequences[chosen[b]!]!), b * maxTokens);
    return all;
  };
  const logBase = logProbs(world, base);
  return {
    samples: { ...samplesOf(world, chosen, logProbs(world, policy)), tokenLogProbs: laidOut(policy) },
    logBase: Float64Array.from(chosen, (n) => logBase[n]!),
    tokenLogBase: laidOut(base),
    reward: Float64Array.from(chosen, (n) => reward[n]!),
  };
};

/** What a method makes of a batch, for its b-th sequence alone. */
export const inputsOfSequence = (
  world: World,
  { sequences, tokens, numbers }: MethodInputs,
  b: number,
  scale: number,
): Record<string, HostTensor> => ({
  ...Object.fromEntries(Object.entries(sequences).map(([name, values]) => [name, f64([1], [values[b]!])])),
  ...Object.fromEntries(
    Object.entries(tokens).map(([name, values]) => [
      name,
      f64([1, world.maxTokens], values.subarray(b * world.maxTokens, (b + 1) * world.maxTokens)),
    ]),
  ),
  ...Object.fromEntries(Object.entries(numbers).map(([name, value]) => [name, f64([], [value])])),
  scale: f64([], [scale]),
});

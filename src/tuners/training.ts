/**
 * One graph for every objective that is a sum over sequences: forward, loss, backward, and the gradient added to what earlier micro-batches gave.
 * An objective is data: which numbers it needs of each sequence, and how they make a loss. Weights and gradients go in and come out as device tensors.
 */

import { f32, type HostTensor, prefixed, tensor } from "../base/tensor.ts";
import { gradients } from "../engine/autodiff.ts";
import type { Graph, TypeOf, Value } from "../engine/graph.ts";
import { add, input, mul, sum } from "../engine/ops/index.ts";
import { copyAll, type Device, disposeAll, lanesOf, moveAll, readAll } from "../engine/runtime/device.ts";
import { isLarge, parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
import { type DeviceTensors, zerosOn } from "../optim/adam.ts";
import { byLength, microBatches, type TeacherForcing } from "../sampling/log-prob.ts";

/** What the model says of a micro-batch, as graph values. */
export interface SequenceValues {
  /** log pi of each token, 0 where the mask is 0 [B, T] nats. */
  readonly tokenLogPolicy: Value;
  /** log pi(x) = sum_t log pi(x_t | x_<t) [B] nats. */
  readonly logPolicy: Value;
  /** V(x_<t), what the value head says before each token [B, T]; absent where the model has no such head. */
  readonly tokenValues?: Value;
  /** 1 at the tokens of x, 0 at prompt and padding [B, T]. */
  readonly mask: Value;
}

export interface Objective {
  /** What it needs beside the tokens, by name: numbers per sequence [B], per token [B, T], or for the whole batch []. */
  readonly inputs: Readonly<Record<string, TypeOf>>;
  /** The loss to descend (a scalar, summed over the micro-batch), and what else is worth reading: [B], or scalars to be summed. */
  build(
    policy: SequenceValues,
    inputs: Readonly<Record<string, Value>>,
  ): { readonly loss: Value; readonly outputs: Readonly<Record<string, Value>> };
}

/** sum over all weights of a . b */
const dotOf = (a: Readonly<Record<string, Value>>, b: Readonly<Record<string, Value>>): Value =>
  Object.keys(a)
    .map((name) => sum(mul(a[name]!, b[name]!)))
    .reduce((total, term) => add(total, term));

/**
 * Inputs `weight.*`, `gradient.*`, `tokens`, `labels`, `mask` and the objective's; outputs `gradient.*`, `loss` and the objective's.
 * With `norms` two more outputs, for the diagnostics of gradients: `squaredNorm` of the gradient found, and `dot`, its product with the one that came in.
 */
export const trainingGraph = (model: SequenceModel, objective: Objective, options: { readonly norms?: boolean } = {}): Graph => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const labels = input("labels", "i32", ["B", "T"]);
  const mask = input("mask", "f32", ["B", "T"]);
  const parameters = parameterInputs(model);
  const extra = Object.fromEntries(
    Object.entries(objective.inputs).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
  );
  const states = model.states(parameters, tokens);
  const tokenLogPolicy = mul(model.tokenLogProbs(parameters, states, labels), mask);
  const tokenValues = model.tokenValues?.(parameters, states);
  const { loss, outputs } = objective.build(
    { tokenLogPolicy, logPolicy: sum(tokenLogPolicy, 1), mask, ...(tokenValues === undefined ? {} : { tokenValues }) },
    extra,
  );
  const names = Object.keys(parameters);
  const sofar = Object.fromEntries(names.map((name) => [name, input(`gradient.${name}`, "f32", model.parameterShapes[name]!)]));
  const found = Object.fromEntries(gradients(loss, Object.values(parameters)).map((gradient, i) => [names[i]!, gradient]));
  return {
    inputs: { ...underInputNames(parameters), ...prefixed("gradient", sofar), tokens, labels, mask, ...extra },
    outputs: {
      ...Object.fromEntries(names.map((name) => [`gradient.${name}`, add(sofar[name]!, found[name]!)])),
      ...(options.norms ? { squaredNorm: dotOf(found, found), dot: dotOf(found, sofar) } : {}),
      loss,
      ...outputs,
    },
  };
};

/** Sequences for a training pass and what the objective asks for of them. */
export interface Piece {
  readonly batch: TeacherForcing;
  /** Numbers per sequence [B], per token [B, T], or for the whole batch []. */
  readonly inputs: Readonly<Record<string, HostTensor>>;
}

export interface Training {
  /**
   * Adds the gradient of a piece, in micro-batches that are worked off without leaving the runtime.
   * @param gradients  of what came before; given up for the sum where `overwrite`
   * @param microBatch sequences at a time, by which the piece can be divided; all of them where absent
   * @returns the sum of gradients so far, and the loss and the objective's outputs on the host: [B], or a scalar added up over the micro-batches
   */
  accumulate(
    weights: DeviceTensors,
    gradients: DeviceTensors,
    batch: TeacherForcing,
    inputs: Readonly<Record<string, HostTensor>>,
    options?: { readonly microBatch?: number; readonly overwrite?: boolean },
  ): Promise<{ gradients: DeviceTensors; outputs: Record<string, HostTensor> }>;
  dispose(): Promise<void>;
}

/** Part i of the first axis as an axis of its own: [B, ...] -> [times, B / times, ...]. */
const inTimes = ({ dtype, shape, data }: HostTensor, times: number): HostTensor => ({
  dtype,
  shape: [times, shape[0]! / times, ...shape.slice(1)],
  data,
});

/** A scanned output of every micro-batch as one of the piece. */
const ofPiece = ({ dtype, shape, data }: HostTensor): HostTensor =>
  shape.length === 1
    ? tensor("f64", [], [Array.from(data).reduce((a, b) => a + b, 0)])
    : { dtype, shape: [shape[0]! * shape[1]!, ...shape.slice(2)], data };

export const createTraining = async (
  device: Device,
  model: SequenceModel,
  objective: Objective,
  options: { readonly norms?: boolean } = {},
): Promise<Training> => {
  const names = Object.keys(model.parameterShapes);
  const kept = names.map((name) => `gradient.${name}`);
  const perSequence = Object.entries(objective.inputs).flatMap(([name, { shape }]) => (shape.length > 0 ? [name] : []));
  const program = await device.compile(trainingGraph(model, objective, options), {
    scan: { carried: kept, sliced: ["tokens", "labels", "mask", ...perSequence] },
    kept,
  });
  return {
    accumulate: async (weights, sofar, batch, inputs, { microBatch = batch.count, overwrite = false } = {}) => {
      const times = batch.count / microBatch;
      const mask = f32([batch.count, batch.length], batch.mask);
      const sliced = { tokens: batch.tokens, labels: batch.labels, mask, ...inputs };
      const result = await program.run(
        {
          ...underInputNames(weights),
          ...prefixed("gradient", sofar),
          ...Object.fromEntries(
            Object.entries(sliced).map(([name, held]) => [name, held.shape.length === 0 ? held : inTimes(held, times)]),
          ),
        },
        { overwrite: overwrite && times === 1 },
      );
      const outputs = await readAll(Object.fromEntries(Object.entries(result).filter(([name]) => !name.startsWith("gradient."))));
      return {
        gradients: Object.fromEntries(names.map((name) => [name, result[`gradient.${name}`]!])),
        outputs: Object.fromEntries(Object.entries(outputs).map(([name, held]) => [name, ofPiece(held)])),
      };
    },
    dispose: () => program.dispose(),
  };
};

/** Training on every lane of a device. */
export interface LaneTraining {
  /**
   * The gradient of a batch, its sequences shared out over the lanes: micro-batches of sequences of about one length, dealt out in turn, so that
   * the lanes get equal work and the same batch is always added up in the same order.
   * @param weights  on the device
   * @param lengths  tokens of each sequence, by which they are sorted
   * @param pieceOf  the sequences laid out
   * @param onDone   hears how many sequences more are done
   * @returns what each lane found, to be added up, on the device; and each piece's outputs (as accumulate's), always in the same order
   */
  gradients(
    weights: DeviceTensors,
    lengths: ArrayLike<number>,
    microBatch: number,
    pieceOf: (indices: Int32Array) => Piece,
    onDone?: (sequences: number) => void,
  ): Promise<{
    readonly gradients: readonly DeviceTensors[];
    readonly pieces: readonly { readonly indices: Int32Array; readonly outputs: Readonly<Record<string, HostTensor>> }[];
  }>;
  dispose(): Promise<void>;
}

/**
 * Micro-batches that a lane is given at once: so often gradients are copied on their way out of the runtime, and progress is heard of. Within the runtime
 * gradients lie three times over (before, after, and at the end), which for large ones costs more memory than it saves time (docs/log.md).
 */
const atOnceOf = (model: SequenceModel): number => (isLarge(model) ? 1 : 8);

/** For each lane its pieces, each of whole micro-batches of one size, so many at most. */
export const shareSequences = (lengths: ArrayLike<number>, microBatch: number, lanes: number, atOnce: number): Int32Array[][] => {
  const dealt = Array.from({ length: lanes }, (): Int32Array[] => []);
  for (const [i, indices] of microBatches(byLength(lengths), microBatch).entries()) dealt[i % lanes]!.push(indices);
  return dealt.map((own) => {
    const full = own.filter((indices) => indices.length === microBatch).flatMap((indices) => [...indices]);
    const rest = own.filter((indices) => indices.length < microBatch);
    return [...microBatches(Int32Array.from(full), microBatch * atOnce), ...rest];
  });
};

export const createLaneTraining = async (device: Device, model: SequenceModel, objective: Objective): Promise<LaneTraining> => {
  const lanes = await Promise.all(
    lanesOf(device).map(async (lane) => ({ lane, training: await createTraining(lane, model, objective) })),
  );
  const atOnce = atOnceOf(model);
  return {
    gradients: async (weights, lengths, microBatch, pieceOf, onDone) => {
      const work = shareSequences(lengths, microBatch, lanes.length, atOnce);
      // The first lane is the device, and has the weights; the others are given a copy, before the first one is at work.
      const copies = await Promise.all(
        lanes.map(({ lane }, i) => (i === 0 || work[i]!.length === 0 ? weights : copyAll(lane, weights))),
      );
      const found = await Promise.all(
        lanes.map(async ({ training, lane }, i) => {
          const pieces: { indices: Int32Array; outputs: Record<string, HostTensor> }[] = [];
          if (work[i]!.length === 0) return { gradients: undefined, pieces };
          const own = copies[i]!;
          let gradients = zerosOn(lane, model.parameterShapes);
          for (const indices of work[i]!) {
            const { batch, inputs } = pieceOf(indices);
            const size = indices.length % microBatch === 0 ? microBatch : indices.length;
            const pass = await training.accumulate(own, gradients, batch, inputs, { microBatch: size, overwrite: true });
            disposeAll(gradients);
            gradients = pass.gradients;
            pieces.push({ indices, outputs: pass.outputs });
            onDone?.(indices.length);
          }
          if (i === 0) return { gradients, pieces };
          disposeAll(own);
          return { gradients: await moveAll(device, gradients), pieces };
        }),
      );
      return {
        gradients: found.flatMap(({ gradients }) => (gradients === undefined ? [] : [gradients])),
        pieces: found.flatMap(({ pieces }) => pieces),
      };
    },
    dispose: async () => {
      await Promise.all(lanes.map(({ training }) => training.dispose()));
    },
  };
};

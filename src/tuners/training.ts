/**
 * One graph for every objective that is a sum over sequences: forward, loss, backward, and the gradient added to what earlier micro-batches gave.
 * An objective is data: which numbers it needs of each sequence, and how they make a loss. Weights and gradients go in and come out as device tensors.
 */

import { f32, type HostTensor, prefixed } from "../base/tensor.ts";
import { gradients } from "../engine/autodiff.ts";
import type { Graph, TypeOf, Value } from "../engine/graph.ts";
import { add, input, mul, sum } from "../engine/ops/index.ts";
import { type Device, readAll } from "../engine/runtime/device.ts";
import { parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
import type { DeviceTensors } from "../optim/adam.ts";
import type { TeacherForcing } from "../sampling/log-prob.ts";

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

export interface Training {
  /**
   * Adds the gradient of one micro-batch.
   * @param inputs what the objective asks for
   * @returns the sum of gradients so far, and the loss and the objective's outputs on the host
   */
  accumulate(
    weights: DeviceTensors,
    gradients: DeviceTensors,
    batch: TeacherForcing,
    inputs: Readonly<Record<string, HostTensor>>,
  ): Promise<{ gradients: DeviceTensors; outputs: Record<string, HostTensor> }>;
  dispose(): Promise<void>;
}

export const createTraining = async (
  device: Device,
  model: SequenceModel,
  objective: Objective,
  options: { readonly norms?: boolean } = {},
): Promise<Training> => {
  const program = await device.compile(trainingGraph(model, objective, options));
  const names = Object.keys(model.parameterShapes);
  return {
    accumulate: async (weights, sofar, batch, inputs) => {
      const result = await program.run({
        ...underInputNames(weights),
        ...prefixed("gradient", sofar),
        tokens: batch.tokens,
        labels: batch.labels,
        mask: f32([batch.count, batch.length], batch.mask),
        ...inputs,
      });
      return {
        gradients: Object.fromEntries(names.map((name) => [name, result[`gradient.${name}`]!])),
        outputs: await readAll(Object.fromEntries(Object.entries(result).filter(([name]) => !name.startsWith("gradient.")))),
      };
    },
    dispose: () => program.dispose(),
  };
};

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
}

export interface Objective {
  /** What it needs beside the tokens, by name. */
  readonly inputs: Readonly<Record<string, TypeOf>>;
  /** The loss to descend (a scalar, summed over the micro-batch) and whatever else is worth reading. */
  build(
    policy: SequenceValues,
    inputs: Readonly<Record<string, Value>>,
  ): { readonly loss: Value; readonly outputs: Readonly<Record<string, Value>> };
}

/** Inputs `weight.*`, `gradient.*`, `tokens`, `labels`, `mask` and the objective's; outputs `gradient.*`, `loss` and the objective's. */
export const trainingGraph = (model: SequenceModel, objective: Objective): Graph => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const labels = input("labels", "i32", ["B", "T"]);
  const mask = input("mask", "f32", ["B", "T"]);
  const parameters = parameterInputs(model);
  const extra = Object.fromEntries(
    Object.entries(objective.inputs).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
  );
  const tokenLogPolicy = mul(model.tokenLogProbs(parameters, model.states(parameters, tokens), labels), mask);
  const { loss, outputs } = objective.build({ tokenLogPolicy, logPolicy: sum(tokenLogPolicy, 1) }, extra);
  const names = Object.keys(parameters);
  const sofar = names.map((name) => input(`gradient.${name}`, "f32", model.parameterShapes[name]!));
  const found = gradients(
    loss,
    names.map((name) => parameters[name]!),
  );
  return {
    inputs: {
      ...underInputNames(parameters),
      ...Object.fromEntries(names.map((name, i) => [`gradient.${name}`, sofar[i]!])),
      tokens,
      labels,
      mask,
      ...extra,
    },
    outputs: { ...Object.fromEntries(names.map((name, i) => [`gradient.${name}`, add(sofar[i]!, found[i]!)])), loss, ...outputs },
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

export const createTraining = async (device: Device, model: SequenceModel, objective: Objective): Promise<Training> => {
  const program = await device.compile(trainingGraph(model, objective));
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

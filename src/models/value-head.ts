/**
 * A value head: one linear layer from a model's states to a number per place, V(x_<t) = w . h_t + b, sharing the whole model with the policy
 * (Ziegler et al., arXiv 1909.08593). Its weights lie beside the model's under names of their own and are no part of a saved model.
 */

import { zeros } from "../base/tensor.ts";
import { add, mul, reshape, sum } from "../engine/ops/index.ts";
import type { SequenceModel } from "./causal-model.ts";

const weight = "value-head.weight";
const bias = "value-head.bias";

/** The model with a value head. */
export const withValueHead = (model: SequenceModel): SequenceModel => ({
  ...model,
  parameterShapes: { ...model.parameterShapes, [weight]: [model.width], [bias]: [1] },
  tokenValues: (parameters, states) => add(sum(mul(states, parameters[weight]!), -1), reshape(parameters[bias]!, [1, 1])),
});

/** A head that says 0 everywhere; its gradient is not 0, so it learns. */
export const initialValueHead = (model: SequenceModel) => ({ [weight]: zeros("f32", [model.width]), [bias]: zeros("f32", [1]) });

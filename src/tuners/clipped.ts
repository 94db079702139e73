/**
 * The clipped surrogate of PPO (Schulman et al., arXiv 1707.06347), per token, and the two methods that descend it: PPO with a value head after
 * Ziegler et al. (arXiv 1909.08593), and GRPO (arXiv 2402.03300). docs/math.md M43, M45.
 *
 *   surrogate_t = min( rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t ),      rho_t = pi(x_t | x_<t) / q(x_t | x_<t)
 *
 * At pi = q its gradient is A_t grad log pi, so that the first step on a batch is a policy gradient.
 */

import type { TypeOf, Value } from "../engine/graph.ts";
import { abs, add, cast, constant, exp, less, maximum, minimum, mul, neg, reshape, sub, sum } from "../engine/ops/index.ts";
import type { Objective, SequenceValues } from "./training.ts";

const tokens: TypeOf = { dtype: "f32", shape: ["B", "T"] };
const sequences: TypeOf = { dtype: "f32", shape: ["B"] };
const number: TypeOf = { dtype: "f32", shape: [] };

const clamp = (x: Value, low: number | Value, high: number | Value): Value => minimum(maximum(x, low), high);

/** The surrogate of each token [B, T], and 1 where the ratio lies outside the clip range [B, T]. */
export const clippedSurrogate = (
  tokenLogPolicy: Value,
  tokenLogProposal: Value,
  advantage: Value,
  clip: number,
): { readonly surrogate: Value; readonly outside: Value } => {
  const ratio = exp(sub(tokenLogPolicy, tokenLogProposal));
  return {
    surrogate: minimum(mul(ratio, advantage), mul(clamp(ratio, 1 - clip, 1 + clip), advantage)),
    outside: cast(less(constant(clip), abs(sub(ratio, 1))), "f32"),
  };
};

/** KL of one token's distributions as GRPO penalises it, a/pi - log(a/pi) - 1 >= 0: "k3". Its mean over tokens of pi is KL(pi, a) per token. */
const tokenKl = (tokenLogPolicy: Value, tokenLogBase: Value): Value => {
  const logRatio = sub(tokenLogBase, tokenLogPolicy);
  return sub(sub(exp(logRatio), logRatio), 1);
};

/** What both methods are given: `scale` is 1 over the samples of the whole batch, `lengthWeight` what a token of each sequence counts. */
const shared = { tokenLogProposal: tokens, lengthWeight: sequences, scale: number };

/** scale sum_b lengthWeight_b sum_t mask x */
const total = (x: Value, { mask }: SequenceValues, { lengthWeight, scale }: Readonly<Record<string, Value>>): Value =>
  mul(sum(mul(sum(mul(x, mask), 1), lengthWeight!)), scale!);

export interface GrpoOptions {
  readonly clip: number;
}

/**
 * loss = -scale sum_b lengthWeight_b sum_t ( surrogate_t - beta (a/pi - log(a/pi) - 1) ), with one advantage A_b [B] for all tokens of a sequence.
 * Outputs: `logPolicy`, `advantage` [B]; `clipFraction`, share of tokens outside the clip range, and `klPenalty` per token, weighted as the loss is.
 */
export const grpoObjective = ({ clip }: GrpoOptions): Objective => ({
  inputs: { ...shared, tokenLogBase: tokens, advantage: sequences, klCoefficient: number },
  build: (policy, inputs) => {
    const { logPolicy, tokenLogPolicy, mask } = policy;
    const advantage = mul(reshape(inputs["advantage"]!, ["B", 1]), mask);
    const { surrogate, outside } = clippedSurrogate(tokenLogPolicy, inputs["tokenLogProposal"]!, advantage, clip);
    const penalty = tokenKl(tokenLogPolicy, inputs["tokenLogBase"]!);
    return {
      loss: neg(total(sub(surrogate, mul(penalty, inputs["klCoefficient"]!)), policy, inputs)),
      outputs: {
        logPolicy,
        advantage: inputs["advantage"]!,
        clipFraction: total(outside, policy, inputs),
        klPenalty: total(penalty, policy, inputs),
      },
    };
  },
});

export interface PpoOptions {
  readonly clip: number;
  /** How far a value may move from what it was, units of return. */
  readonly valueClip: number;
  /** Weight of the value loss beside the policy's. */
  readonly valueCoefficient: number;
}

/**
 * loss = scale sum_b lengthWeight_b sum_t ( -surrogate_t + valueCoefficient v_t ),
 * v_t = max( (V_t - G_t)^2, (V_t clipped to within valueClip of its old value - G_t)^2 ) / 2, with returns G_t.
 *
 * For a model with a value head. Outputs: `logPolicy` [B]; `policyLoss`, `valueLoss` and `clipFraction`, weighted as the loss is.
 */
export const ppoObjective = ({ clip, valueClip, valueCoefficient }: PpoOptions): Objective => ({
  inputs: { ...shared, tokenAdvantage: tokens, tokenReturn: tokens, tokenValue: tokens },
  build: (policy, inputs) => {
    const { logPolicy, tokenLogPolicy, tokenValues } = policy;
    if (tokenValues === undefined) throw new Error("ppoObjective: expected a model with a value head");
    const { surrogate, outside } = clippedSurrogate(tokenLogPolicy, inputs["tokenLogProposal"]!, inputs["tokenAdvantage"]!, clip);
    const old = inputs["tokenValue"]!;
    const squaredError = (values: Value): Value => {
      const error = sub(values, inputs["tokenReturn"]!);
      return mul(error, error);
    };
    const near = clamp(tokenValues, sub(old, valueClip), add(old, valueClip));
    const policyLoss = neg(total(surrogate, policy, inputs));
    const valueLoss = mul(total(maximum(squaredError(tokenValues), squaredError(near)), policy, inputs), 0.5);
    return {
      loss: add(policyLoss, mul(valueLoss, valueCoefficient)),
      outputs: { logPolicy, policyLoss, valueLoss, clipFraction: total(outside, policy, inputs) },
    };
  },
});

/**
 * f-divergences of the policy from the target, and the reward that each gives a sequence (Go et al., arXiv 2302.08215; docs/math.md M42):
 *
 *   D_f = E_{x~p}[ f(pi/p) ],      -grad D_f = E_{x~pi}[ R grad log pi ],      R = -f'(pi/p)
 *
 * One row per divergence. Each row gives (pi/q) R, the reward of a sample of q, from as few ratios as it can: each may be clamped, and overflow.
 * Not to be confused with the estimates of divergences in targets/divergence.ts: those measure, these pull.
 */

import type { Value } from "../engine/graph.ts";
import { abs, add, constant, exp, log, maximum, mul, neg, sign, sub } from "../engine/ops/index.ts";

/** Ratios of one batch, each [B]. */
export interface RatioValues {
  /** p/q */
  readonly targetOverProposal: Value;
  /** pi/q */
  readonly policyOverProposal: Value;
  /** p/pi */
  readonly targetOverPolicy: Value;
  /** pi/p */
  readonly policyOverTarget: Value;
  /** log(p/pi), -Infinity where p has no mass; nats. */
  readonly logTargetOverPolicy: Value;
}

export type DivergenceName = "kl" | "reverse-kl" | "tv" | "js" | "chi-squared" | "reverse-chi-squared";

export interface FDivergence {
  /** (pi/q) R. */
  readonly weightedReward: (ratios: RatioValues) => Value;
  /** Whether it is infinite as soon as the policy writes what the target rules out, so that a hard constraint cannot be learnt from it. */
  readonly infiniteWithoutMass: boolean;
}

/** log(1 + e^x), also for x = -Infinity. */
const softplus = (x: Value): Value => add(maximum(x, 0), log(add(exp(neg(abs(x))), 1)));

export const fDivergences: Readonly<Record<DivergenceName, FDivergence>> = {
  // KL(p, pi): f = -log t, f' = -1/t, R = p/pi
  kl: { infiniteWithoutMass: false, weightedReward: ({ targetOverProposal }) => targetOverProposal },
  // KL(pi, p): f = t log t, f' = log t + 1, R = log(p/pi) - 1
  "reverse-kl": {
    infiniteWithoutMass: true,
    weightedReward: ({ policyOverProposal, logTargetOverPolicy }) => mul(policyOverProposal, sub(logTargetOverPolicy, 1)),
  },
  // TV: f = |t - 1|/2, f' = sign(t - 1)/2, R = sign(p - pi)/2
  tv: {
    infiniteWithoutMass: false,
    weightedReward: ({ policyOverProposal, logTargetOverPolicy }) => mul(policyOverProposal, mul(sign(logTargetOverPolicy), 0.5)),
  },
  // JS: f = (t log(2t/(1+t)) + log(2/(1+t)))/2, f' = log(2t/(1+t))/2, R = log((1 + p/pi)/2)/2
  js: {
    infiniteWithoutMass: false,
    weightedReward: ({ policyOverProposal, logTargetOverPolicy }) =>
      mul(policyOverProposal, mul(sub(softplus(logTargetOverPolicy), constant(Math.LN2)), 0.5)),
  },
  // sum (p - pi)^2/pi: f = (1 - t)^2/t, f' = 1 - 1/t^2, R = (p/pi)^2 - 1
  "chi-squared": {
    infiniteWithoutMass: false,
    weightedReward: ({ targetOverProposal, policyOverProposal, targetOverPolicy }) =>
      sub(mul(targetOverProposal, targetOverPolicy), policyOverProposal),
  },
  // sum (pi - p)^2/p: f = (t - 1)^2, f' = 2(t - 1), R = 2(1 - pi/p)
  "reverse-chi-squared": {
    infiniteWithoutMass: true,
    weightedReward: ({ policyOverProposal, policyOverTarget }) => mul(policyOverProposal, mul(sub(1, policyOverTarget), 2)),
  },
};

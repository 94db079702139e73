/**
 * When the proposal should become the policy: once the policy is nearer to the target, KL(p, pi) < KL(p, q) (arXiv 2012.11635, Algorithm 1).
 * Both divergences are estimated on one batch x ~ q, and the decision rests on their paired difference, or on that of the total variations:
 *
 *   KL(p, q) - KL(p, pi) = E_q [ w log r ]                  w = P/(Zq), r = pi/q            (docs/math.md M16, M24)
 *   TV(p, q) - TV(p, pi) = E_q [ (|w - 1| - |w - r|) / 2 ]
 */

import type { Estimate } from "../base/numeric.ts";
import {
  klProposalMinusPolicy,
  klTargetPolicy,
  klTargetProposal,
  type PolicyScores,
  tvProposalMinusPolicy,
} from "../targets/divergence.ts";

/**
 * kl: update when the paired difference exceeds its own standard error, so that noise alone rarely moves the proposal.
 * kl-authors: update when it is positive, as the papers' code does. tv: as kl, in total variation. interval: update at every check,
 * whatever the samples say. never: keep the base as proposal.
 */
export type ProposalCriterion = "kl" | "kl-authors" | "tv" | "interval" | "never";

export interface ProposalDecision {
  readonly update: boolean;
  readonly klTargetProposal: Estimate;
  readonly klTargetPolicy: Estimate;
  /** What the policy is nearer by, in the criterion's divergence (KL where it has none), with the error of the paired estimate. */
  readonly gain: Estimate;
}

interface Rule {
  gain(scores: PolicyScores): Estimate;
  update(gain: Estimate): boolean;
}

const exceedsItsError = ({ value, stdError }: Estimate): boolean => value > stdError;

const rules: Readonly<Record<ProposalCriterion, Rule>> = {
  kl: { gain: klProposalMinusPolicy, update: exceedsItsError },
  "kl-authors": { gain: klProposalMinusPolicy, update: ({ value }) => value > 0 },
  tv: { gain: tvProposalMinusPolicy, update: exceedsItsError },
  interval: { gain: klProposalMinusPolicy, update: () => true },
  never: { gain: klProposalMinusPolicy, update: () => false },
};

/** @param scores of x ~ q, under target, proposal and policy. @throws TiltError when no sample has any mass under the target */
export const decideProposal = (criterion: ProposalCriterion, scores: PolicyScores): ProposalDecision => {
  const rule = rules[criterion];
  const gain = rule.gain(scores);
  return {
    update: rule.update(gain),
    klTargetProposal: klTargetProposal(scores),
    klTargetPolicy: klTargetPolicy(scores),
    gain,
  };
};

/**
 * When the proposal should become the policy: once the policy is nearer to the target, KL(p, pi) < KL(p, q) (arXiv 2012.11635, Algorithm 1).
 * Both divergences are estimated on one batch x ~ q; what they share cancels, so the decision rests on their paired difference
 *
 *   KL(p, q) - KL(p, pi) = E_q [ P/(Zq) (log pi - log q) ]          (docs/math.md, adaptive proposal)
 */

import type { Estimate } from "../base/numeric.ts";
import { klProposalMinusPolicy, klTargetPolicy, klTargetProposal, type PolicyScores } from "../targets/divergence.ts";

/**
 * kl: update when the paired difference exceeds its own standard error, so that noise alone rarely moves the proposal.
 * kl-authors: update when it is positive, as the papers' code does. never: keep the base as proposal.
 */
export type ProposalCriterion = "kl" | "kl-authors" | "never";

export interface ProposalDecision {
  readonly update: boolean;
  readonly klTargetProposal: Estimate;
  readonly klTargetPolicy: Estimate;
  /** KL(p, q) - KL(p, pi), with the error of the paired estimate. */
  readonly gain: Estimate;
}

const rules: Readonly<Record<ProposalCriterion, (gain: Estimate) => boolean>> = {
  kl: ({ value, stdError }) => value > stdError,
  "kl-authors": ({ value }) => value > 0,
  never: () => false,
};

/** @param scores of x ~ q, under target, proposal and policy. @throws TiltError when no sample has any mass under the target */
export const decideProposal = (criterion: ProposalCriterion, scores: PolicyScores): ProposalDecision => {
  const gain = klProposalMinusPolicy(scores);
  return {
    update: rules[criterion](gain),
    klTargetProposal: klTargetProposal(scores),
    klTargetPolicy: klTargetPolicy(scores),
    gain,
  };
};

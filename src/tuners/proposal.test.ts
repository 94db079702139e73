import { expect, test } from "vitest";
import { decideProposal, type ProposalCriterion } from "./proposal.ts";

/** Four samples of q with weights P/q of 1, and a policy that differs from q by the given log-ratios. */
const scores = (logPolicyOverProposal: readonly number[]) => {
  const logProposal = Float64Array.of(-1, -2, -3, -4);
  return { logTarget: logProposal, logProposal, logPolicy: logProposal.map((value, i) => value + logPolicyOverProposal[i]!) };
};

const decide = (criterion: ProposalCriterion, ratios: readonly number[]) => decideProposal(criterion, scores(ratios));

test("the gain is KL(p, q) - KL(p, pi): the mean log-ratio where all weights are equal", () => {
  const { gain, klTargetPolicy, klTargetProposal } = decide("kl", [0.1, 0.3, -0.2, 0.6]);
  expect(gain.value).toBeCloseTo(0.2, 12);
  // sd of the ratios 0.3366 over root 4, with n - 1 in the variance
  expect(gain.stdError).toBeCloseTo(0.3366501646 / 2, 2);
  expect(klTargetProposal.value - klTargetPolicy.value).toBeCloseTo(gain.value, 12);
});

test.each([
  ["clearly nearer", [0.1, 0.3, -0.2, 0.6], { kl: true, "kl-authors": true, never: false }],
  ["nearer within the noise", [0.5, -0.4, 0.3, -0.3], { kl: false, "kl-authors": true, never: false }],
  ["farther", [-0.1, -0.3, 0.2, -0.6], { kl: false, "kl-authors": false, never: false }],
  ["no difference at all", [0, 0, 0, 0], { kl: false, "kl-authors": false, never: false }],
] as const)("a policy that is %s", (_, ratios, wanted) => {
  for (const [criterion, update] of Object.entries(wanted))
    expect([criterion, decide(criterion as ProposalCriterion, ratios).update]).toEqual([criterion, update]);
});

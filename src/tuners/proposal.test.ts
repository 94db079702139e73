import { expect, test } from "vitest";
import { klProposalMinusPolicy, tvProposalMinusPolicy } from "../targets/divergence.ts";
import { decideProposal, type ProposalCriterion } from "./proposal.ts";

/** Four samples of q, of the given P/q and pi/q. */
const scores = (targetOverProposal: readonly number[], policyOverProposal: readonly number[]) => {
  const logProposal = Float64Array.of(-1, -2, -3, -4);
  return {
    logTarget: logProposal.map((value, i) => value + Math.log(targetOverProposal[i]!)),
    logProposal,
    logPolicy: logProposal.map((value, i) => value + Math.log(policyOverProposal[i]!)),
  };
};

const equal = [1, 1, 1, 1];
const criteria: readonly ProposalCriterion[] = ["kl", "kl-authors", "tv", "interval", "never"];

test("the gain is KL(p, q) - KL(p, pi): the mean log-ratio where all weights are equal", () => {
  const { gain, klTargetPolicy, klTargetProposal } = decideProposal("kl", scores(equal, [0.1, 0.3, -0.2, 0.6].map(Math.exp)));
  expect(gain.value).toBeCloseTo(0.2, 12);
  // sd of the ratios 0.3366 over root 4, with n - 1 in the variance
  expect(gain.stdError).toBeCloseTo(0.3366501646 / 2, 10);
  expect(klTargetProposal.value - klTargetPolicy.value).toBeCloseTo(gain.value, 12);
});

test("the gain is of the criterion's own divergence, and the rest is the same for all", () => {
  const batch = scores([1.6, 1.4, 0.4, 0.6], [1.3, 1.1, 0.8, 0.8]);
  const { klTargetProposal, klTargetPolicy } = decideProposal("kl", batch);
  for (const criterion of criteria) {
    const gain = criterion === "tv" ? tvProposalMinusPolicy(batch) : klProposalMinusPolicy(batch);
    expect(decideProposal(criterion, batch)).toEqual({ update: expect.any(Boolean), klTargetProposal, klTargetPolicy, gain });
  }
  // |w - 1| less |w - r|, halved: 0.15, 0.05, 0.1, 0.1.
  expect(decideProposal("tv", batch).gain.value).toBeCloseTo(0.1, 12);
});

/** P/q, pi/q, and whether the criterion moves the proposal; interval always does, never never. */
test.each<[string, readonly number[], readonly number[], Record<"kl" | "kl-authors" | "tv", boolean>]>([
  ["nearer in both", [1.6, 1.6, 0.4, 0.4], [1.4, 1.4, 0.6, 0.6], { kl: true, "kl-authors": true, tv: true }],
  ["farther in both", [1.6, 1.6, 0.4, 0.4], [0.9, 0.9, 1.1, 1.1], { kl: false, "kl-authors": false, tv: false }],
  // One text nearly lost: a large share of KL, a small one of TV.
  ["nearer in TV, farther in KL", [1.6, 1.6, 0.4, 0.4], [1.4, 1.4, 0.002, 0.6], { kl: false, "kl-authors": false, tv: true }],
  // q fits its own samples best; the policy gives all of them more.
  ["nearer in KL, farther in TV", equal, [0.1, 0.3, -0.2, 0.6].map(Math.exp), { kl: true, "kl-authors": true, tv: false }],
  // A gain in KL of 0.025, with an error of 0.2.
  ["nearer within the noise", equal, [0.5, -0.4, 0.3, -0.3].map(Math.exp), { kl: false, "kl-authors": true, tv: false }],
  // |w - 1| less |w - r|, halved: 0.15, -0.1, 0.15, -0.1; 0.025, with an error of 0.07.
  ["nearer in TV within the noise", [1.6, 1.6, 0.4, 0.4], [1.3, 0.8, 0.7, 1.2], { kl: false, "kl-authors": false, tv: false }],
  ["no other", equal, equal, { kl: false, "kl-authors": false, tv: false }],
])("a policy that is %s", (_, targetOverProposal, policyOverProposal, wanted) => {
  const batch = scores(targetOverProposal, policyOverProposal);
  const decided = Object.fromEntries(criteria.map((criterion) => [criterion, decideProposal(criterion, batch).update]));
  expect(decided).toEqual({ ...wanted, interval: true, never: false });
});

/**
 * Samples of two distributions as samples of their mixture (docs/math.md M49): with n_a texts of the base and n of the policy,
 *
 *   m(x) = alpha a(x) + (1 - alpha) pi(x),      alpha = n_a/(n_a + n)
 *
 * A policy's own texts cannot show what it no longer writes: one that has collapsed to a single text looks as if it were the target. The base's texts
 * can, since p has no mass where a has none; and p/m is bounded by p/(alpha a), so that no single text can carry an estimate.
 */

import type { PolicyScores } from "./divergence.ts";

/** What is known of n samples of one of the two, each [n] nats. */
export interface MixedScores {
  /** log P(x), unnormalised. */
  readonly logTarget: Float64Array;
  readonly logBase: Float64Array;
  readonly logPolicy: Float64Array;
}

const joined = (a: Float64Array, b: Float64Array): Float64Array => {
  const both = new Float64Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
};

/** log(e^a + e^b) */
const logAdd = (a: number, b: number): number => {
  const max = Math.max(a, b);
  return max + Math.log(Math.exp(a - max) + Math.exp(b - max));
};

/** Samples of the base and of the policy, with the mixture as the proposal that they were all drawn from. */
export const mixtureScores = (ofBase: MixedScores, ofPolicy: MixedScores): PolicyScores => {
  const [logBase, logPolicy] = [joined(ofBase.logBase, ofPolicy.logBase), joined(ofBase.logPolicy, ofPolicy.logPolicy)];
  const share = ofBase.logBase.length / logBase.length;
  const [logShare, logRest] = [Math.log(share), Math.log(1 - share)];
  return {
    logTarget: joined(ofBase.logTarget, ofPolicy.logTarget),
    logProposal: logBase.map((value, i) => logAdd(logShare + value, logRest + logPolicy[i]!)),
    logPolicy,
    strata: [ofBase.logBase.length, ofPolicy.logBase.length],
  };
};

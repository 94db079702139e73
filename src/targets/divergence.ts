/**
 * Divergences between target, policy, proposal and base from samples, with standard errors. All in nats per sequence.
 *
 * With x ~ q, w = P/(Zq) and r = pi/q, each is a mean of f(w, r) over samples (docs/math.md M12 to M16):
 *
 *   KL(p, pi)             f = w log(w/r)                                                     arXiv 2206.00761
 *   TV(p, pi)             f = |w - r| / 2
 *   JS(p, pi)             f = (w log(2w/(w+r)) + r log(2r/(w+r))) / 2
 *   KL(p, q) - KL(p, pi)  f = w log r
 *   TV(p, q) - TV(p, pi)  f = (|w - 1| - |w - r|) / 2
 *
 * r = 1 gives the divergence from the proposal. Given log Z, the mean is unbiased. Without it, Z is estimated from the same samples
 * (self-normalised): the bias is O(1/n) and the standard error covers the noise of Z. 0 log 0 = 0 throughout.
 */

import { runtimeError } from "../base/errors.ts";
import { type Estimate, logMeanExp, mean, meanEstimate, type Strata, sum, timesOrZero } from "../base/numeric.ts";
import { hasMass } from "./ebm.ts";

/** What is known of n samples x ~ q, each [n] nats. */
export interface Scores {
  /** log P(x), unnormalised. */
  readonly logTarget: Float64Array;
  /** log q(x), of the distribution x was drawn from. */
  readonly logProposal: Float64Array;
  /** Where q is a mixture and its parts were drawn in fixed numbers, one after the other (mixture.ts): how many of each. */
  readonly strata?: Strata;
}

export interface PolicyScores extends Scores {
  /** log pi(x). */
  readonly logPolicy: Float64Array;
}

const complain = (expected: string, got: string, fix: string) => runtimeError({ where: "divergence", expected, got, fix });

const check = (name: string, values: Float64Array, length: number): void => {
  if (values.length !== length) throw new RangeError(`divergence: expected ${length} values of ${name}, got ${values.length}`);
  const bad = values.findIndex((value) => !(value < Number.POSITIVE_INFINITY));
  if (bad >= 0)
    throw complain(`${name} to be log-probabilities`, `${values[bad]} at sample ${bad}`, "check the model that scored it");
};

/** log(P/q), refusing samples that could not have been drawn and batches without any mass. */
const logRatiosOf = ({ logTarget, logProposal }: Scores): Float64Array => {
  const n = logProposal.length;
  check("logProposal", logProposal, n);
  check("logTarget", logTarget, n);
  const impossible = logProposal.indexOf(Number.NEGATIVE_INFINITY);
  if (impossible >= 0) {
    throw complain(
      "q(x) > 0 for every sample",
      `q(x) = 0 at sample ${impossible}`,
      "score samples with the model that drew them",
    );
  }
  if (!hasMass(logTarget)) {
    const fix = "draw more samples, or start from a proposal that meets the hard constraints more often";
    throw complain("at least one sample with P(x) > 0", `none in ${n}`, fix);
  }
  return logTarget.map((value, i) => value - logProposal[i]!);
};

/** The two importance ratios of each sample, as probability ratios [n]. */
export interface Ratios {
  /** w = P/(Zq); its mean over q is 1. */
  readonly targetOverProposal: Float64Array;
  /** r = pi/q; its mean over q is 1. */
  readonly policyOverProposal: Float64Array;
}

/** The importance ratios of each sample. The GDC++ advantage is their difference (docs/math.md M22). */
export const importanceRatios = (scores: PolicyScores, logZ: number): Ratios => ({
  targetOverProposal: logRatiosOf(scores).map((logRatio) => Math.exp(logRatio - logZ)),
  policyOverProposal: scores.logPolicy.map((logPolicy, i) => Math.exp(logPolicy - scores.logProposal[i]!)),
});

interface Term {
  /** f(w, r), given the logarithms too. */
  value(w: number, r: number, logW: number, logR: number): number;
  /** w df/dw: how f answers to the noise of Z. */
  slope(w: number, r: number, logW: number, logR: number): number;
}

/** log((e^a + e^b) / 2) */
const logMiddle = (a: number, b: number): number => {
  const max = Math.max(a, b);
  return max + Math.log((Math.exp(a - max) + Math.exp(b - max)) / 2);
};

const kl: Term = {
  value: (w, _r, logW, logR) => timesOrZero(w, logW - logR),
  slope: (w, _r, logW, logR) => timesOrZero(w, logW - logR + 1),
};
const tv: Term = {
  value: (w, r) => Math.abs(w - r) / 2,
  slope: (w, r) => (Math.sign(w - r) * w) / 2,
};
const js: Term = {
  value: (w, r, logW, logR) => (timesOrZero(w, logW - logMiddle(logW, logR)) + timesOrZero(r, logR - logMiddle(logW, logR))) / 2,
  slope: (w, _r, logW, logR) => timesOrZero(w, logW - logMiddle(logW, logR)) / 2,
};
const klGain: Term = {
  value: (w, _r, _logW, logR) => timesOrZero(w, logR),
  slope: (w, _r, _logW, logR) => timesOrZero(w, logR),
};
const tvGain: Term = {
  value: (w, r) => (Math.abs(w - 1) - Math.abs(w - r)) / 2,
  slope: (w, r) => ((Math.sign(w - 1) - Math.sign(w - r)) * w) / 2,
};

const estimate = (term: Term, scores: PolicyScores, logZ: number | undefined): Estimate => {
  const logRatios = logRatiosOf(scores);
  check("logPolicy", scores.logPolicy, logRatios.length);
  const logPartition = logZ ?? logMeanExp(logRatios);
  const over = (f: Term["value"]): Float64Array =>
    logRatios.map((logRatio, i) => {
      const logW = logRatio - logPartition;
      const logR = scores.logPolicy[i]! - scores.logProposal[i]!;
      return f(Math.exp(logW), Math.exp(logR), logW, logR);
    });
  const values = over(term.value);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    const got = `log P = ${scores.logTarget[bad]}, log q = ${scores.logProposal[bad]}, log pi = ${scores.logPolicy[bad]} at sample ${bad}`;
    throw complain("finite terms", got, "bring the policy back near the target, or clamp the weights");
  }
  if (logZ !== undefined) return meanEstimate(values, scores.strata);
  // One sample's influence on a self-normalised mean: its own term, less what it does to Z (docs/math.md M12).
  const pull = mean(over(term.slope));
  const influence = values.map((value, i) => value - pull * Math.exp(logRatios[i]! - logPartition));
  return { ...meanEstimate(influence, scores.strata), value: mean(values) };
};

const fromProposal = (scores: Scores): PolicyScores => ({ ...scores, logPolicy: scores.logProposal });

/** KL(p, pi) from samples of q. @param logZ given, or estimated from the same samples @throws TiltError (runtime) if no sample has mass */
export const klTargetPolicy = (scores: PolicyScores, logZ?: number): Estimate => estimate(kl, scores, logZ);

/** KL(p, q) from samples of q. */
export const klTargetProposal = (scores: Scores, logZ?: number): Estimate => estimate(kl, fromProposal(scores), logZ);

/**
 * KL(p, q) - KL(p, pi) = E_p[log pi - log q]: positive where the policy is closer to the target than the proposal.
 * Paired, so far less noisy than the difference of two estimates; no log Z is added or taken away.
 */
export const klProposalMinusPolicy = (scores: PolicyScores, logZ?: number): Estimate => estimate(klGain, scores, logZ);

/** TV(p, pi) = sum |p - pi| / 2, a probability. */
export const tvTargetPolicy = (scores: PolicyScores, logZ?: number): Estimate => estimate(tv, scores, logZ);

/** TV(p, q). */
export const tvTargetProposal = (scores: Scores, logZ?: number): Estimate => estimate(tv, fromProposal(scores), logZ);

/**
 * TV(p, q) - TV(p, pi): positive where the policy is closer to the target than the proposal. Paired, like `klProposalMinusPolicy`, but
 * log Z does not cancel: what counts as too likely depends on it.
 */
export const tvProposalMinusPolicy = (scores: PolicyScores, logZ?: number): Estimate => estimate(tvGain, scores, logZ);

/** JS(p, pi), the mean of the KLs of p and of pi from their midpoint; at most log 2. */
export const jsTargetPolicy = (scores: PolicyScores, logZ?: number): Estimate => estimate(js, scores, logZ);

/** JS(p, q). */
export const jsTargetProposal = (scores: Scores, logZ?: number): Estimate => estimate(js, fromProposal(scores), logZ);

/** KL(pi, a) from samples of pi. */
export const klPolicyBase = (logPolicy: Float64Array, logBase: Float64Array): Estimate => {
  check("logPolicy", logPolicy, logPolicy.length);
  check("logBase", logBase, logPolicy.length);
  const impossible = logBase.indexOf(Number.NEGATIVE_INFINITY);
  if (impossible >= 0)
    throw complain("a(x) > 0 for every sample of the policy", `a(x) = 0 at sample ${impossible}`, "check the base's scores");
  return meanEstimate(logPolicy.map((value, i) => value - logBase[i]!));
};

/** Entropy of the policy from its own samples, nats per sequence. */
export const entropy = (logPolicy: Float64Array): Estimate => {
  check("logPolicy", logPolicy, logPolicy.length);
  return meanEstimate(logPolicy.map((value) => -value));
};

/**
 * Perplexity per token of samples under the base: exp(-sum log a(x) / sum of lengths), with the ratio's delta-method error.
 * @param logBase log a(x) of each sample [n] nats
 * @param lengths tokens of each sample [n]
 */
export const perplexity = (logBase: Float64Array, lengths: ArrayLike<number>): Estimate => {
  check("logBase", logBase, lengths.length);
  const tokens = sum(lengths);
  if (!(tokens > 0))
    throw complain("at least one token", `${lengths.length} samples without any`, "evaluate samples that are not empty");
  const rate = -sum(logBase) / tokens;
  const residuals = logBase.map((value, i) => -value - rate * lengths[i]!);
  const relative = meanEstimate(residuals).stdError / (tokens / lengths.length);
  return { value: Math.exp(rate), stdError: Math.exp(rate) * relative, n: lengths.length };
};

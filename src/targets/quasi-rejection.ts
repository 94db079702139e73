/**
 * Quasi-rejection sampling: a target without training, from any model as proposal (arXiv 2112.05702; docs/math.md M30 to M34).
 *
 *   draw x ~ q, accept it with probability min(1, P(x)/(beta q(x)));   accepted texts follow p_beta(x) ~ min(P(x), beta q(x))
 *
 * The greater beta, the nearer p_beta is to p and the fewer texts are accepted. beta is on the scale of Z, which nobody can guess, so it is
 * found from a wanted acceptance rate. Everything is computed from the ratios R = P/q of samples of q, in log space.
 */

import { runtimeError, usageError } from "../base/errors.ts";
import { type Estimate, logMeanExp, mean, meanEstimate } from "../base/numeric.ts";
import { klTargetProposal, tvTargetProposal } from "./divergence.ts";
import { effectiveSampleSize, logPartition } from "./partition.ts";

/** The rate, once it is known to be one. @throws TiltError (usage) outside (0, 1] */
export const checkedAcceptance = (acceptance: number): number => {
  if (acceptance > 0 && acceptance <= 1) return acceptance;
  const fix = "name the share of the proposal's texts to keep, such as 0.1";
  throw usageError({ where: "acceptance", expected: "a number above 0 and at most 1", got: String(acceptance), fix });
};

/**
 * log beta at which this share of the samples is accepted, mean_i min(1, R_i/beta) = acceptance (M31). Exact: the mean is linear in 1/beta between
 * one R_i and the next. Where several beta give the same, the greatest, whose p_beta is nearest to p.
 *
 * @param logRatios log P(x) - log q(x) of samples x ~ q [n] nats; -Infinity where P(x) = 0
 * @throws TiltError (usage) for an acceptance outside (0, 1]
 * @throws TiltError (runtime) for one above the share of samples with P(x) > 0, or without such a sample
 */
export const chooseLogBeta = (logRatios: Float64Array, acceptance: number): number => {
  checkedAcceptance(acceptance);
  logPartition(logRatios); // refuses NaN, infinity, and samples without any mass
  const n = logRatios.length;
  const rising = logRatios.filter((logRatio) => logRatio > Number.NEGATIVE_INFINITY).sort();
  const most = rising.length / n;
  if (acceptance > most) {
    throw runtimeError({
      where: "acceptance",
      expected: `at most ${most}, the share of the proposal's ${n} texts that the target allows`,
      got: String(acceptance),
      fix: "lower it, or take a proposal that meets the hard constraints more often",
    });
  }
  // At beta = R_j the texts above j are accepted for sure, and j with all below it as often as `tail` = sum_{i <= j} R_i/R_j texts would be.
  let j = 0;
  let tail = 1;
  while (j + 1 < rising.length) {
    const longer = 1 + tail * Math.exp(rising[j]! - rising[j + 1]!);
    const above = rising.length - (j + 2);
    if ((above + longer) / n < acceptance) break;
    tail = longer;
    j++;
  }
  const surely = rising.length - (j + 1);
  // Between this R and the next; n * acceptance may round down to a whole number of texts, which would say infinity.
  const next = rising[j + 1] ?? Number.POSITIVE_INFINITY;
  return Math.min(next, rising[j]! + Math.log(tail) - Math.log(n * acceptance - surely));
};

/** log of the probability that a text is accepted, nats (M30). */
export const logAcceptance = (logRatio: number, logBeta: number): number => Math.min(0, logRatio - logBeta);

/** Whether a text is accepted. @param uniform a uniform number in (0, 1), drawn for this text alone */
export const accepts = (logRatio: number, logBeta: number, uniform: number): boolean =>
  Math.log(uniform) < logAcceptance(logRatio, logBeta);

/**
 * What samples of the proposal tell of a beta. Divergences of p from p_beta, and beside them those of p from the proposal itself.
 * What the samples did not show is in none of these: kinds of text rarer under q than one in n may hold any share of p, and the divergences and
 * their errors are then too small.
 */
export interface QuasiRejectionReport {
  /** E_q[min(1, P/(beta q))]. */
  readonly acceptance: Estimate;
  /** TV(p, p_beta), a probability. */
  readonly tv: Estimate;
  /** The mass of p where P > beta q, which TV(p, p_beta) cannot exceed (M32). */
  readonly tvBound: Estimate;
  /** KL(p, p_beta), nats. */
  readonly kl: Estimate;
  readonly tvTargetProposal: Estimate;
  /** Nats. */
  readonly klTargetProposal: Estimate;
  /** Nats. */
  readonly logZ: Estimate;
  /** Effective sample size of the samples, weighted to the target. */
  readonly ess: Estimate;
}

/** A self-normalised estimate, from each sample's influence on it up to a constant (M34). */
const fromInfluence = (value: number, influence: Float64Array): Estimate => ({ ...meanEstimate(influence), value });

/**
 * How good and how dear a beta is. Z and Z_beta are estimated from the same samples; the errors are of the estimates at this beta and for this target,
 * also where these samples gave both (M34).
 *
 * @param logRatios log P(x) - log q(x) of samples x ~ q [n] nats; -Infinity where P(x) = 0
 * @throws TiltError (runtime) for NaN, infinity, or samples without any mass
 */
export const quasiRejectionReport = (logRatios: Float64Array, logBeta: number): QuasiRejectionReport => {
  const partition = logPartition(logRatios);
  const clipped = logRatios.map((logRatio) => Math.min(logRatio, logBeta));
  const [logZ, logZBeta] = [logMeanExp(logRatios), logMeanExp(clipped)];
  // w = p/q and c = p_beta/q: both have mean 1.
  const w = logRatios.map((logRatio) => Math.exp(logRatio - logZ));
  const c = clipped.map((logRatio) => Math.exp(logRatio - logZBeta));

  const over = logRatios.map((logRatio) => (logRatio > logBeta ? 1 : 0));
  const tvBound = mean(w.map((value, i) => value * over[i]!));

  const excess = logRatios.map((logRatio) => Math.max(0, logRatio - logBeta));
  const meanExcess = mean(w.map((value, i) => value * excess[i]!));

  // Half the sign of p - p_beta: |w - c|/2 = side (w - c), and the noise of Z pulls at the one term, that of Z_beta at the other.
  const side = w.map((value, i) => Math.sign(value - c[i]!) / 2);
  const pull = mean(w.map((value, i) => side[i]! * value));
  const pullBeta = mean(c.map((value, i) => side[i]! * value));

  const scores = { logTarget: logRatios, logProposal: new Float64Array(logRatios.length) };
  return {
    acceptance: meanEstimate(logRatios.map((logRatio) => Math.exp(logAcceptance(logRatio, logBeta)))),
    tv: fromInfluence(
      pull - pullBeta,
      w.map((value, i) => (side[i]! - pull) * value - (side[i]! - pullBeta) * c[i]!),
    ),
    tvBound: fromInfluence(
      tvBound,
      w.map((value, i) => value * (over[i]! - tvBound)),
    ),
    kl: fromInfluence(
      logZBeta - logZ + meanExcess,
      w.map((value, i) => c[i]! - value + value * (excess[i]! - meanExcess)),
    ),
    tvTargetProposal: tvTargetProposal(scores),
    klTargetProposal: klTargetProposal(scores),
    logZ: partition,
    ess: effectiveSampleSize(logRatios),
  };
};

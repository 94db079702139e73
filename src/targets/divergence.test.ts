import { describe, expect, test } from "vitest";
import { createWorld, drawSequences, expectation, logProbs, randomTable } from "../../tests/support/world.ts";
import { TiltError } from "../base/errors.ts";
import { type Estimate, logMeanExp, logSumExp, mean, meanEstimate, sum, timesOrZero, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import {
  entropy,
  jsTargetPolicy,
  jsTargetProposal,
  klPolicyBase,
  klProposalMinusPolicy,
  klTargetPolicy,
  klTargetProposal,
  type PolicyScores,
  perplexity,
  tvProposalMinusPolicy,
  tvTargetPolicy,
  tvTargetProposal,
} from "./divergence.ts";

const never = Number.NEGATIVE_INFINITY;
const world = createWorld(4, 4);
const everything = world.sequences.map((_, i) => i);
const baseTable = randomTable(world, 1, 0.5);
/** A model near the base: the standard errors below need weights without heavy tails, at a few hundred samples. */
const near = (seed: number) =>
  logProbs(
    world,
    randomTable(world, seed, 0.25).map((value, i) => baseTable[i]! + value),
  );
const [logBase, logPolicy, logProposal] = [logProbs(world, baseTable), near(2), near(3)];
/** A hybrid target: sequences that start with token 3 have no mass, token 1 is favoured. Z is not 1. */
const logTarget = logBase.map((value, i) =>
  world.sequences[i]![0] === 3 ? never : value + (world.sequences[i]!.includes(1) ? 1.5 : 0),
);
const logZ = logSumExp(logTarget);
const logP = logTarget.map((value) => value - logZ);

const scoresOf = (chosen: ArrayLike<number>, logDrawn = logProposal): PolicyScores => ({
  logTarget: Float64Array.from(chosen, (i) => logTarget[i]!),
  logProposal: Float64Array.from(chosen, (i) => logDrawn[i]!),
  logPolicy: Float64Array.from(chosen, (i) => logPolicy[i]!),
});

/** Definitions, as finite sums. */
const kl = (p: Float64Array, q: Float64Array) =>
  expectation(
    p,
    p.map((value, i) => timesOrZero(Math.exp(value), value - q[i]!) && value - q[i]!),
  );
const tv = (p: Float64Array, q: Float64Array) => sum(p.map((value, i) => Math.abs(Math.exp(value) - Math.exp(q[i]!)))) / 2;
const js = (p: Float64Array, q: Float64Array) => {
  const middle = p.map((value, i) => Math.log((Math.exp(value) + Math.exp(q[i]!)) / 2));
  return (kl(p, middle) + kl(q, middle)) / 2;
};

const estimators: [string, (scores: PolicyScores, logZ?: number) => Estimate, (logQ: Float64Array) => number][] = [
  ["KL(p, pi)", klTargetPolicy, () => kl(logP, logPolicy)],
  ["KL(p, q)", klTargetProposal, (logQ) => kl(logP, logQ)],
  ["KL(p, q) - KL(p, pi)", klProposalMinusPolicy, (logQ) => kl(logP, logQ) - kl(logP, logPolicy)],
  ["TV(p, pi)", tvTargetPolicy, () => tv(logP, logPolicy)],
  ["TV(p, q)", tvTargetProposal, (logQ) => tv(logP, logQ)],
  ["TV(p, q) - TV(p, pi)", tvProposalMinusPolicy, (logQ) => tv(logP, logQ) - tv(logP, logPolicy)],
  ["JS(p, pi)", jsTargetPolicy, () => js(logP, logPolicy)],
  ["JS(p, q)", jsTargetProposal, (logQ) => js(logP, logQ)],
];

describe.each(estimators)("%s", (_, estimator, definition) => {
  test("is unbiased given Z: its expectation over q is the definition", () => {
    // Term by term; a term without mass is refused alone, so each is measured beside sequence 0, which has mass.
    const anchor = estimator(scoresOf([0]), logZ).value;
    const terms = everything.map((i) => 2 * estimator(scoresOf([i, 0]), logZ).value - anchor);
    // 121 terms of order 1.
    expect(Math.abs(expectation(logProposal, terms) - definition(logProposal))).toBeLessThan(1e-12);
  });

  test("self-normalised over every sequence of a uniform proposal, it is the definition", () => {
    const uniform = new Float64Array(everything.length).fill(-Math.log(everything.length));
    expect(Math.abs(estimator(scoresOf(everything, uniform)).value - definition(uniform))).toBeLessThan(1e-12);
  });

  test("has standard errors that are its spread over repetitions", () => {
    for (const given of [logZ, undefined]) {
      const repeated = Array.from({ length: 400 }, (_, replication) =>
        estimator(scoresOf(drawSequences(logProposal, 300, streamOf(keyOf(5, "divergence"), replication))), given),
      );
      const spread = Math.sqrt(variance(repeated.map(({ value }) => value)));
      // The spread of 400 repetitions is itself known to 1/sqrt(800) = 3.5%; 4 of those, and the seed is fixed.
      expect(Math.abs(mean(repeated.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.14);
    }
  });

  test("answers to the noise of Z as its slope in log Z says", () => {
    // Samples that are not all of a kind, three without mass among them.
    const chosen = everything.filter((i) => i % 3 === 0);
    const scores = scoresOf(chosen);
    const logRatios = scores.logTarget.map((value, i) => value - scores.logProposal[i]!);
    const fitted = logMeanExp(logRatios);
    const h = 1e-4;
    const pull = (estimator(scores, fitted - h).value - estimator(scores, fitted + h).value) / (2 * h);
    // Each term beside one that has mass.
    const anchor = estimator(scoresOf([0]), fitted).value;
    const terms = chosen.map((i) => 2 * estimator(scoresOf([i, 0]), fitted).value - anchor);
    const { stdError } = meanEstimate(terms.map((term, i) => term - pull * Math.exp(logRatios[i]! - fitted)));
    // Of the central difference, h^2 times a third derivative of order 1.
    expect(Math.abs(estimator(scores).stdError - stdError)).toBeLessThan(1e-8);
    expect(estimator(scores)).toEqual({ ...estimator(scores, fitted), stdError: expect.any(Number) });
  });

  test("does not depend on the scale of P", () => {
    const scores = scoresOf(everything);
    const scaled = { ...scores, logTarget: scores.logTarget.map((value) => value + 50) };
    // 50 carries a rounding of 7e-15.
    expect(Math.abs(estimator(scaled, logZ + 50).value - estimator(scores, logZ).value)).toBeLessThan(1e-12);
    expect(Math.abs(estimator(scaled).stdError - estimator(scores).stdError)).toBeLessThan(1e-12);
  });
});

test("the paired difference is the difference of the two estimates, whatever Z they share", () => {
  const scores = scoresOf(everything);
  for (const shared of [undefined, logZ, logZ + 1.3, -40]) {
    const difference = klTargetProposal(scores, shared).value - klTargetPolicy(scores, shared).value;
    const paired = klProposalMinusPolicy(scores, shared).value;
    // Sums of 121 terms, of the size of the two estimates.
    expect(Math.abs(difference - paired)).toBeLessThan(1e-12 * (1 + Math.abs(klTargetPolicy(scores, shared).value)));
    expect(Math.sign(paired)).toBe(Math.sign(klProposalMinusPolicy(scores).value));
  }
});

test("the paired difference of TV is the difference of the two estimates, at the Z they share", () => {
  const scores = scoresOf(everything);
  for (const shared of [undefined, logZ, logZ + 1.3, -40]) {
    const difference = tvTargetProposal(scores, shared).value - tvTargetPolicy(scores, shared).value;
    // Sums of 121 terms, of the size of the two estimates.
    const size = 1 + tvTargetPolicy(scores, shared).value;
    expect(Math.abs(difference - tvProposalMinusPolicy(scores, shared).value)).toBeLessThan(1e-12 * size);
  }
});

test("the paired differences are far less noisy than either estimate when policy and proposal are close", () => {
  const close = { ...scoresOf(everything), logPolicy: logProposal.map((value, i) => value + (i % 2 ? 0.01 : -0.01)) };
  expect(klProposalMinusPolicy(close).stdError).toBeLessThan(klTargetPolicy(close).stdError / 20);
  expect(tvProposalMinusPolicy(close).stdError).toBeLessThan(tvTargetPolicy(close).stdError / 20);
});

test("KL(pi, a), entropy and their standard errors are plain means", () => {
  const uniform = new Float64Array(everything.length).fill(-Math.log(everything.length));
  // 121 terms of order 5.
  expect(Math.abs(klPolicyBase(uniform, logBase).value - kl(uniform, logBase))).toBeLessThan(1e-12);
  expect(entropy(Float64Array.of(-1, -3))).toEqual({ value: 2, stdError: 1, n: 2 });
});

test("perplexity is per token, so longer samples weigh more", () => {
  const { value } = perplexity(Float64Array.of(-2, -10), Int32Array.of(1, 3));
  expect(Math.abs(value - Math.exp(3))).toBeLessThan(1e-13); // rounding of e^3
  const repeated = Array.from({ length: 400 }, (_, replication) => {
    const drawn = drawSequences(logPolicy, 300, streamOf(keyOf(6, "perplexity"), replication));
    return perplexity(
      Float64Array.from(drawn, (i) => logBase[i]!),
      Int32Array.from(drawn, (i) => world.sequences[i]!.length),
    );
  });
  const spread = Math.sqrt(variance(repeated.map(({ value }) => value)));
  // As above: 4 times 3.5%.
  expect(Math.abs(mean(repeated.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.14);
});

describe("what cannot be estimated explains itself", () => {
  const scores = { logTarget: Float64Array.of(-3, -2), logProposal: Float64Array.of(-3, -2), logPolicy: Float64Array.of(-3, -2) };
  test.each<[string, Partial<PolicyScores>, string]>([
    [
      "no sample with mass",
      { logTarget: Float64Array.of(never, never) },
      "divergence: expected at least one sample with P(x) > 0, got none in 2; draw more samples, or start from a proposal that meets",
    ],
    [
      "NaN",
      { logPolicy: Float64Array.of(0, Number.NaN) },
      "divergence: expected logPolicy to be log-probabilities, got NaN at sample 1; check the model that scored it",
    ],
    [
      "a NaN of the proposal",
      { logProposal: Float64Array.of(Number.NaN, 0) },
      "divergence: expected logProposal to be log-probabilities, got NaN at sample 0;",
    ],
    [
      "infinity",
      { logTarget: Float64Array.of(Number.POSITIVE_INFINITY, 0) },
      "expected logTarget to be log-probabilities, got Infinity",
    ],
    [
      "an impossible sample",
      { logProposal: Float64Array.of(never, -3) },
      "expected q(x) > 0 for every sample, got q(x) = 0 at sample 0; score samples with the model that drew them",
    ],
    [
      "a policy without support",
      { logPolicy: Float64Array.of(never, -2) },
      "expected finite terms, got log P = -3, log q = -3, log pi = -Infinity at sample 0; bring the policy back near the target",
    ],
    ["too few values", { logPolicy: Float64Array.of(-3) }, "divergence: expected 2 values of logPolicy, got 1"],
  ])("%s", (_, change, message) => {
    expect(() => klTargetPolicy({ ...scores, ...change })).toThrow(message);
    expect(() => klTargetPolicy({ ...scores, ...change }, 0)).toThrow(message);
  });

  test("a base without support, and nothing to measure", () => {
    expect(() => klPolicyBase(Float64Array.of(-1), Float64Array.of(never))).toThrow(
      "expected a(x) > 0 for every sample of the policy, got a(x) = 0 at sample 0; check the base's scores",
    );
    expect(() => perplexity(Float64Array.of(0), Int32Array.of(0))).toThrow(
      "expected at least one token, got 1 samples without any; evaluate samples that are not empty",
    );
    // Vitest takes a thrown undefined for any message.
    expect(() => perplexity(Float64Array.of(0), Int32Array.of(0))).toThrow(TiltError);
  });

  test.each<[string, () => Estimate]>([
    ["logPolicy", () => klPolicyBase(Float64Array.of(Number.NaN), Float64Array.of(0))],
    ["logBase", () => klPolicyBase(Float64Array.of(0), Float64Array.of(Number.NaN))],
    ["logPolicy", () => entropy(Float64Array.of(Number.NaN))],
    ["logBase", () => perplexity(Float64Array.of(Number.NaN), Int32Array.of(1))],
  ])("NaN among %s", (name, estimator) => {
    expect(estimator).toThrow(`expected ${name} to be log-probabilities, got NaN at sample 0;`);
  });
});

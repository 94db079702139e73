/** The theorems behind the tuners, as finite sums over a world (docs/math.md M21 to M25). */

import { expect, test } from "vitest";
import {
  createWorld,
  expectation,
  gradLogProb,
  logProbs,
  randomTable,
  vectorExpectation,
  worldMatrix,
} from "../../tests/support/world.ts";
import { logSumExp } from "../base/numeric.ts";
import { importanceRatios } from "./divergence.ts";
import { logWeights } from "./ebm.ts";

const world = createWorld(4, 3);
const [baseTable, policyTable, proposalTable] = [11, 12, 13].map((seed) => randomTable(world, seed)) as [
  Float64Array,
  Float64Array,
  Float64Array,
];
const [logBase, logPolicy, logProposal] = [baseTable, policyTable, proposalTable].map((table) => logProbs(world, table)) as [
  Float64Array,
  Float64Array,
  Float64Array,
];
const matrix = worldMatrix(world, {
  one: (ids) => ids.includes(1),
  three: (ids) => ids.includes(3),
  length: (ids) => ids.length,
});
const hybrid = { names: ["one", "three"], hard: [{ index: 1, value: 0 as const }], coefficients: [1.7, 0] };
const logTarget = logWeights(hybrid, matrix).map((value, i) => logBase[i]! + value);
const logZ = logSumExp(logTarget);
const ones = new Float64Array(world.sequences.length).fill(1);
const gradients = world.sequences.map((ids) => gradLogProb(world, policyTable, ids));
/** E_p[grad log pi] = -grad KL(p, pi): what every form of the distributional policy gradient must equal. */
const ascent = vectorExpectation(
  logTarget.map((value) => value - logZ),
  ones,
  gradients,
);

const largestDifference = (a: Float64Array, b: Float64Array): number =>
  a.reduce((max, value, k) => Math.max(max, Math.abs(value - b[k]!)), 0);
const norm = (a: Float64Array): number => Math.hypot(...a);
// Sums of 40 terms of order 1, each rounded to 1e-16.
const rounding = 1e-14;

test.each([
  ["off-policy", logProposal],
  ["on-policy", logPolicy],
])("the gradient is the same with and without the baseline, and with any constant in it: %s", (_, logDrawn) => {
  const { targetOverProposal: w, policyOverProposal: r } = importanceRatios(
    { logTarget, logProposal: logDrawn, logPolicy },
    logZ,
  );
  expect(norm(ascent)).toBeGreaterThan(0.1);
  for (const constant of [0, 1, -2.5, 30]) {
    const advantages = w.map((value, i) => value - constant * r[i]!);
    expect(largestDifference(vectorExpectation(logDrawn, advantages, gradients), ascent)).toBeLessThan(
      rounding * (1 + Math.abs(constant)),
    );
  }
});

test("the mean advantage is zero, and the ratios have mean one", () => {
  const { targetOverProposal, policyOverProposal } = importanceRatios({ logTarget, logProposal, logPolicy }, logZ);
  expect(Math.abs(expectation(logProposal, targetOverProposal) - 1)).toBeLessThan(rounding);
  expect(Math.abs(expectation(logProposal, policyOverProposal) - 1)).toBeLessThan(rounding);
});

test("a constant baseline Z is biased off-policy, by -Z E_q[grad log pi], and not on-policy", () => {
  const Z = Math.exp(logZ);
  const withConstant = (logDrawn: Float64Array) => {
    const { targetOverProposal } = importanceRatios({ logTarget, logProposal: logDrawn, logPolicy }, logZ);
    const unnormalised = targetOverProposal.map((w) => Z * w - Z);
    return vectorExpectation(logDrawn, unnormalised, gradients).map((value, k) => value - Z * ascent[k]!);
  };
  const drift = vectorExpectation(logProposal, ones, gradients).map((value) => -Z * value);
  expect(norm(drift)).toBeGreaterThan(0.1);
  expect(largestDifference(withConstant(logProposal), drift)).toBeLessThan(rounding * (1 + Z));
  expect(norm(withConstant(logPolicy))).toBeLessThan(rounding * (1 + Z));
});

test("when policy, proposal and target agree, every advantage is zero though Z is not one", () => {
  const logP = logPolicy;
  const { targetOverProposal, policyOverProposal } = importanceRatios(
    { logTarget: logP.map((value) => value + 0.7), logProposal: logP, logPolicy: logP },
    0.7,
  );
  for (const [i, w] of targetOverProposal.entries()) expect(Math.abs(w - policyOverProposal[i]!)).toBeLessThan(rounding);
});

test("the baseline lowers the variance of the gradient at the start of training, and the best constant in it is known", () => {
  const pointwise = logWeights({ names: ["one"], hard: [{ index: 0, value: 1 }], coefficients: [0] }, matrix);
  const logTarget = pointwise.map((value, i) => logPolicy[i]! + value);
  const { targetOverProposal: w, policyOverProposal: r } = importanceRatios(
    { logTarget, logProposal: logPolicy, logPolicy },
    logSumExp(logTarget),
  );
  const squares = gradients.map((g) => norm(g) ** 2);
  const scatter = (constant: number) =>
    expectation(
      logPolicy,
      squares.map((square, i) => (w[i]! - constant * r[i]!) ** 2 * square),
    );
  expect(scatter(1)).toBeLessThan(scatter(0));
  const over = (values: Float64Array) =>
    expectation(
      logPolicy,
      squares.map((square, i) => values[i]! * square),
    );
  const best = over(w.map((value, i) => value * r[i]!)) / over(r.map((value) => value * value));
  for (const other of [best - 1e-3, best + 1e-3, 1]) expect(scatter(best)).toBeLessThan(scatter(other));
});

test("KL-control is distribution matching: its objective is -beta KL(pi, p_z) + beta log Z_z", () => {
  const beta = 0.4;
  const reward = Float64Array.from(world.sequences, (ids) => ids.length);
  const logTilted = logWeights({ names: ["length"], hard: [], coefficients: [1 / beta] }, matrix).map(
    (value, i) => logBase[i]! + value,
  );
  const logTotal = logSumExp(logTilted);
  const objective = expectation(
    logPolicy,
    reward.map((r, i) => r - beta * (logPolicy[i]! - logBase[i]!)),
  );
  const divergence = expectation(
    logPolicy,
    logPolicy.map((value, i) => value - (logTilted[i]! - logTotal)),
  );
  expect(Math.abs(objective - beta * (logTotal - divergence))).toBeLessThan(rounding * 10); // terms of order 10
});

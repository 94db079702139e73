/**
 * Quasi-rejection sampling on a world where every sequence is listed (docs/math.md M30 to M33): what is accepted, how often, and how far from
 * the target that is. Tolerance 1e-12 where nothing else is said: sums of a hundred float64 terms of order one.
 */

import { beforeAll, describe, expect, test } from "vitest";
import { logSumExp, sum } from "../../src/base/numeric.ts";
import { keyOf, streamOf, uniformAt } from "../../src/base/random.ts";
import { accepts, chooseLogBeta, logAcceptance, quasiRejectionReport } from "../../src/targets/quasi-rejection.ts";
import { createWorld, drawSequences, logProbs, randomTable } from "../support/world.ts";

const never = Number.NEGATIVE_INFINITY;
const world = createWorld(4, 4);
const N = world.sequences.length;
/** A hybrid target: sequences that start with token 3 have no mass, token 1 is favoured. Z is not 1. */
const logTarget = logProbs(world, randomTable(world, 1, 0.7)).map((value, i) =>
  world.sequences[i]![0] === 3 ? never : value + (world.sequences[i]!.includes(1) ? 1.5 : 0),
);
const logZ = logSumExp(logTarget);
const p = logTarget.map((value) => Math.exp(value - logZ));

/** Everything about one beta by definition, as sums over every sequence. */
const exactly = (logProposal: Float64Array, logBeta: number) => {
  const [Z, beta] = [Math.exp(logZ), Math.exp(logBeta)];
  const q = logProposal.map(Math.exp);
  const kept = p.map((value, i) => Math.min(value * Z, beta * q[i]!));
  const ZBeta = sum(kept);
  const pBeta = kept.map((value) => value / ZBeta);
  return {
    pBeta,
    acceptance: ZBeta / beta,
    tv: sum(p.map((value, i) => Math.abs(value - pBeta[i]!))) / 2,
    missing: 1 - ZBeta / Z,
    tvBound: sum(p.filter((value, i) => value * Z > beta * q[i]!)),
    kl: sum(p.map((value, i) => (value === 0 ? 0 : value * Math.log(value / pBeta[i]!)))),
    tvTargetProposal: sum(p.map((value, i) => Math.abs(value - q[i]!))) / 2,
    klTargetProposal: sum(p.map((value, i) => (value === 0 ? 0 : value * Math.log(value / q[i]!)))),
  };
};

type Exact = ReturnType<typeof exactly>;

/** A proposal whose probabilities are whole numbers of rows, so that a list of rows is its distribution exactly. */
const copies = Array.from({ length: N }, (_, i) => 1 + ((i * 7) % 5));
const total = sum(copies);
const logCounted = Float64Array.from(copies, (count) => Math.log(count / total));
const everyRow = Float64Array.from(
  copies.flatMap((count, i) => Array.from({ length: count }, () => logTarget[i]! - logCounted[i]!)),
);
const rates = [0.001, 0.01, 0.1, 0.3, 0.5, 0.65];

describe.each(rates)("at an acceptance of %d, on the whole distribution of a proposal", (rate) => {
  let logBeta = 0;
  let exact: Exact;
  beforeAll(() => {
    logBeta = chooseLogBeta(everyRow, rate);
    exact = exactly(logCounted, logBeta);
  });

  test("beta gives that acceptance", () => {
    expect(Math.abs(exact.acceptance - rate)).toBeLessThan(1e-12);
  });

  test("what is accepted follows min(P, beta q), normalised", () => {
    const accepted = logCounted.map((logQ, i) => Math.exp(logQ + logAcceptance(logTarget[i]! - logQ, logBeta)));
    accepted.forEach((mass, i) => {
      expect(Math.abs(mass / sum(accepted) - exact.pBeta[i]!)).toBeLessThan(1e-12);
    });
    expect(Math.abs(sum(accepted) - rate)).toBeLessThan(1e-12);
  });

  test("the report is what the definitions give", () => {
    const report = quasiRejectionReport(everyRow, logBeta);
    expect(report.acceptance.n).toBe(total);
    for (const name of ["acceptance", "tv", "tvBound", "kl", "tvTargetProposal", "klTargetProposal"] as const) {
      expect(Math.abs(report[name].value - exact[name]), name).toBeLessThan(1e-12);
    }
    expect(Math.abs(report.logZ.value - logZ)).toBeLessThan(1e-12);
  });

  test("the total variation is at most the mass that is cut off, and that at most the mass of what is cut", () => {
    const { tv, missing, tvBound } = exact;
    expect(tv).toBeLessThanOrEqual(missing + 1e-12);
    expect(missing).toBeLessThanOrEqual(tvBound + 1e-12);
  });
});

test("where much is accepted, the bounds are strict", () => {
  const { tv, missing, tvBound } = exactly(logCounted, chooseLogBeta(everyRow, 0.3));
  expect(tv).toBeGreaterThan(0.01);
  expect(tv).toBeLessThan(missing - 0.01);
  expect(missing).toBeLessThan(tvBound - 0.01);
  expect(tvBound).toBeLessThan(1);
});

test("the less is accepted, the nearer it is to the target, down to nothing", () => {
  const found = rates.map((rate) => exactly(logCounted, chooseLogBeta(everyRow, rate)));
  for (const name of ["tv", "kl", "missing", "tvBound"] as const) {
    const values = found.map((exact) => exact[name]);
    expect(values).toEqual([...values].sort((a, b) => a - b));
    expect(values[0]).toBeCloseTo(0, 12); // beta is above every ratio: rejection sampling
    expect(values.at(-1)).toBeGreaterThan(0.05);
  }
});

describe("100,000 draws of a tabular model", () => {
  const n = 100_000;
  const logProposal = logProbs(
    world,
    randomTable(world, 1, 0.7).map((value, i) => value + 0.5 * randomTable(world, 2)[i]!),
  );
  const ratioOf = (i: number): number => logTarget[i]! - logProposal[i]!;
  const rate = 0.25;
  const pilot = Float64Array.from(drawSequences(logProposal, 20_000, streamOf(keyOf(5, "pilot"))), ratioOf);
  const trials = drawSequences(logProposal, n, streamOf(keyOf(5, "trials")));
  let logBeta = 0;
  let exact: Exact;
  let accepted = new Int32Array();
  beforeAll(() => {
    logBeta = chooseLogBeta(pilot, rate);
    exact = exactly(logProposal, logBeta);
    const key = keyOf(5, "acceptance");
    accepted = trials.filter((i, trial) => accepts(ratioOf(i), logBeta, uniformAt(key, trial)));
  });

  /** The value that chi-squared of k degrees of freedom passes once in 10,000 (Wilson and Hilferty 1931; 3.719 is the normal's). */
  const critical = (k: number): number => k * (1 - 2 / (9 * k) + 3.719 * Math.sqrt(2 / (9 * k))) ** 3;

  /** Pearson's statistic over cells of at least 10 expected draws, the rest in one cell; and its degrees of freedom. */
  const chiSquared = (probabilities: Float64Array): { statistic: number; degrees: number } => {
    const seen = new Float64Array(N);
    for (const i of accepted) seen[i]!++;
    const cells: (readonly [seen: number, expected: number])[] = [];
    let rest: readonly [number, number] = [0, 0];
    probabilities.forEach((probability, i) => {
      const expected = probability * accepted.length;
      if (expected >= 10) cells.push([seen[i]!, expected]);
      else rest = [rest[0] + seen[i]!, rest[1] + expected];
    });
    if (rest[1] > 0) cells.push(rest);
    return { statistic: sum(cells.map(([count, expected]) => (count - expected) ** 2 / expected)), degrees: cells.length - 1 };
  };

  test("are accepted in the proportions of p_beta, by a test that fails 1 honest seed in 10,000", () => {
    // 99.99% points of tables: 52.39 at 20 degrees of freedom, 161.3 at 100.
    expect(critical(20)).toBeCloseTo(52.4, 0);
    expect(critical(100)).toBeCloseTo(161.3, 0);
    const { statistic, degrees } = chiSquared(exact.pBeta);
    expect(degrees).toBeGreaterThan(60);
    expect(statistic).toBeLessThan(critical(degrees));
    // It can fail: neither the target itself nor the proposal, cut to the target's support, is what was accepted.
    const possible = logProposal.map((value, i) => (logTarget[i] === never ? 0 : Math.exp(value)));
    for (const other of [p, possible.map((value) => value / sum(possible))]) {
      const { statistic: found, degrees: of } = chiSquared(other);
      expect(found).toBeGreaterThan(critical(of));
    }
  });

  test("never give a text without mass, though the proposal often writes one", () => {
    expect(trials.filter((i) => logTarget[i] === never).length).toBeGreaterThan(n / 20);
    expect(accepted.filter((i) => logTarget[i] === never).length).toBe(0);
  });

  test("are accepted as often as was asked for", () => {
    const { acceptance } = exact;
    // 20,000 pilot texts know the rate to about 0.3/141/0.25 = 1%.
    expect(Math.abs(quasiRejectionReport(pilot, logBeta).acceptance.value / acceptance - 1)).toBeLessThan(0.05);
    // Binomial, 5 standard errors: 1 honest seed in a million.
    expect(Math.abs(accepted.length / n - acceptance)).toBeLessThan(5 * Math.sqrt((acceptance * (1 - acceptance)) / n));
  });

  test("are as far from the target as the pilot says, within its errors", () => {
    const report = quasiRejectionReport(pilot, logBeta);
    for (const name of ["acceptance", "tv", "tvBound", "kl"] as const) {
      // 5 standard errors each: 1 honest seed in a million.
      expect(Math.abs(report[name].value - exact[name]), name).toBeLessThan(5 * report[name].stdError);
      expect(report[name].stdError, name).toBeLessThan(0.15 * exact[name]); // or the line above would say nothing
    }
  });
});

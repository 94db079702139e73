import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { createWorld, drawSequences, logProbs, randomTable } from "../../tests/support/world.ts";
import { TiltError } from "../base/errors.ts";
import { mean, sum, variance } from "../base/numeric.ts";
import { keyOf, permutation, streamOf } from "../base/random.ts";
import { klTargetProposal, tvTargetProposal } from "./divergence.ts";
import { effectiveSampleSize, logPartition } from "./partition.ts";
import { accepts, checkedAcceptance, chooseLogBeta, logAcceptance, quasiRejectionReport } from "./quasi-rejection.ts";

const never = Number.NEGATIVE_INFINITY;
const logsOf = (...ratios: number[]): Float64Array => Float64Array.from(ratios, Math.log);
/** mean_i min(1, R_i/beta), by its definition. */
const rateAt = (logRatios: Float64Array, logBeta: number): number =>
  mean(logRatios.map((logRatio) => Math.exp(Math.min(0, logRatio - logBeta))));

const failureOf = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
};

describe("beta from an acceptance rate", () => {
  // With R = 1, 2, 4: (7/beta)/3 above 4, (1 + 3/beta)/3 from 2 to 4, (2 + 1/beta)/3 from 1 to 2, and 1 below.
  test.each([
    [[4, 1, 2], 0.5, 14 / 3],
    [[4, 1, 2], 7 / 12, 4],
    [[4, 1, 2], 0.6, 3.75],
    [[4, 1, 2], 0.9, 1 / 0.7],
    [[4, 1, 2], 1, 1],
    [[10, 9, 100], 1, 9], // the order is that of numbers
    [[0, 3, 0, 3], 0.5, 3],
    [[0, 3, 0, 3], 0.25, 6],
    [[5], 1, 5],
    [[5], 0.01, 500],
  ])("of ratios %j at rate %d is %d", (ratios, acceptance, beta) => {
    expect(chooseLogBeta(logsOf(...ratios), acceptance)).toBeCloseTo(Math.log(beta), 13);
  });

  const logRatio = fc.oneof(
    { weight: 4, arbitrary: fc.double({ min: -300, max: 300, noNaN: true }) },
    { weight: 2, arbitrary: fc.constantFrom(-1, 0, 1) },
    { weight: 1, arbitrary: fc.constant(never) },
  );
  const samples = fc.array(logRatio, { minLength: 1, maxLength: 12 }).map((values) => Float64Array.from(values));
  const withMass = samples.filter((values) => values.some((value) => value > never));
  /** A rate that these samples can have; often one that is a whole number of them. */
  const reachable = (logRatios: Float64Array, share: number, whole: boolean): number => {
    const possible = logRatios.filter((value) => value > never).length;
    return (whole ? Math.max(1, Math.round(share * possible)) : share * possible) / logRatios.length;
  };

  test("has that rate, and no greater one has", () => {
    fc.assert(
      fc.property(withMass, fc.double({ min: 1e-6, max: 1, noNaN: true }), fc.boolean(), (logRatios, share, whole) => {
        const acceptance = reachable(logRatios, share, whole);
        const logBeta = chooseLogBeta(logRatios, acceptance);
        // Numbers up to 300 are known to 3e-14, and so is the ratio that they are the logarithm of.
        expect(Math.abs(rateAt(logRatios, logBeta) - acceptance)).toBeLessThan(1e-12);
        expect(rateAt(logRatios, logBeta + 1e-3)).toBeLessThan(acceptance);
      }),
      { numRuns: 500 },
    );
  });

  test("depends neither on the order of the samples nor on the scale of P, and leaves the samples as they are", () => {
    fc.assert(
      fc.property(withMass, fc.double({ min: 1e-6, max: 1, noNaN: true }), fc.nat(), (logRatios, share, seed) => {
        const acceptance = reachable(logRatios, share, false);
        const order = permutation(logRatios.length, streamOf(keyOf(seed, "order")));
        const shuffled = Float64Array.from(order, (i) => logRatios[i]!);
        const copy = shuffled.slice();
        const logBeta = chooseLogBeta(shuffled, acceptance);
        expect(shuffled).toEqual(copy);
        expect(chooseLogBeta(logRatios, acceptance)).toBe(logBeta);
        const scaled = shuffled.map((value) => value + 50);
        // Moved by 50 and rounded anew, the ratios are others by 1e-13; where the rate hardly depends on beta, compare the rate.
        expect(Math.abs(rateAt(scaled, chooseLogBeta(scaled, acceptance)) - rateAt(shuffled, logBeta))).toBeLessThan(1e-12);
      }),
    );
    expect(chooseLogBeta(logsOf(1, 2, 4), 0.6)).toBeCloseTo(chooseLogBeta(logsOf(1e9, 2e9, 4e9), 0.6) - Math.log(1e9), 12);
  });

  test("is finite where the rate is a whole number of samples but for rounding", () => {
    const third = 1 / 3 + 2 ** -54; // the next number after 1/3; three times it rounds to 1
    expect(3 * third - 1).toBe(0);
    expect(third).toBeGreaterThan(1 / 3);
    expect(chooseLogBeta(Float64Array.of(0, -400, -400), third)).toBe(0);
  });

  test("does not overflow", () => {
    expect(chooseLogBeta(Float64Array.of(900, -900, never, 900), 0.25)).toBeCloseTo(900 + Math.log(2), 10);
    expect(chooseLogBeta(Float64Array.of(900, -900, never, 900), 0.75)).toBeCloseTo(-900, 10);
  });

  test("is refused where hard constraints leave too few texts, and the largest rate that is named can be had", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 60 }), (possible, impossible) => {
        const logRatios = new Float64Array(possible + impossible).fill(never, possible);
        const failure = failureOf(() => chooseLogBeta(logRatios, 1)) as Error;
        const named = Number(/expected at most (\S+), the share/.exec(failure.message)![1]);
        expect(named).toBe(possible / (possible + impossible));
        // Every ratio that is not zero is 1, and a sum of at most 60 ones is exact.
        expect(chooseLogBeta(logRatios, named)).toBeCloseTo(0, 13);
        expect(() => chooseLogBeta(logRatios, named + 1e-9)).toThrow("acceptance: expected at most");
      }),
    );
    const failure = failureOf(() => chooseLogBeta(Float64Array.of(never, 0, never, never), 0.3));
    expect(failure).toBeInstanceOf(TiltError);
    expect(failure).toMatchObject({
      kind: "runtime",
      message:
        "acceptance: expected at most 0.25, the share of the proposal's 4 texts that the target allows, got 0.3; lower it, or take a proposal that meets the hard constraints more often",
    });
  });

  test("is refused for a rate that is none", () => {
    for (const rate of [0, -0.1, 1.001, Number.NaN, Number.POSITIVE_INFINITY]) {
      const failure = failureOf(() => chooseLogBeta(Float64Array.of(0), rate));
      expect(failure).toMatchObject({
        kind: "usage",
        message: `acceptance: expected a number above 0 and at most 1, got ${rate}; name the share of the proposal's texts to keep, such as 0.1`,
      });
    }
    for (const rate of [1, 0.5, Number.MIN_VALUE]) expect(checkedAcceptance(rate)).toBe(rate);
  });

  test("and the report are refused without any mass, and for what is no ratio", () => {
    for (const work of [
      (logRatios: Float64Array) => chooseLogBeta(logRatios, 0.5),
      (logRatios: Float64Array) => quasiRejectionReport(logRatios, 0),
    ]) {
      expect(() => work(Float64Array.of(never, never))).toThrow("expected at least one sample with P(x) > 0, got none in 2");
      expect(() => work(new Float64Array())).toThrow("got none in 0");
      expect(() => work(Float64Array.of(0, Number.NaN))).toThrow("got NaN at sample 1");
      expect(() => work(Float64Array.of(0, Number.POSITIVE_INFINITY))).toThrow("got Infinity at sample 1");
    }
  });
});

describe("acceptance", () => {
  test("is P/(beta q), and 1 where that is more", () => {
    expect(logAcceptance(-3, -1)).toBe(-2);
    expect(logAcceptance(-1, -3)).toBe(0);
    expect(logAcceptance(never, -3)).toBe(never);
  });

  test("of a uniform number happens with that probability", () => {
    const accepted = (logRatio: number, logBeta: number): number =>
      Array.from({ length: 1000 }, (_, k) => accepts(logRatio, logBeta, (k + 0.5) / 1000)).filter(Boolean).length;
    expect(accepted(Math.log(0.3), 0)).toBe(300);
    expect(accepted(Math.log(0.3), Math.log(0.5))).toBe(600);
    expect(accepted(1, 0)).toBe(1000);
    expect(accepted(never, -700)).toBe(0);
    expect(accepts(Math.log(0.25), 0, 0.25)).toBe(false); // u < p, not u <= p: u = 0 may be drawn elsewhere
  });
});

describe("the report", () => {
  const world = createWorld(4, 4);
  const table = randomTable(world, 1, 0.5);
  const logProposal = logProbs(world, table);
  /** Near the proposal, since the errors below need weights without heavy tails; sequences that start with token 2 have no mass. Z is not 1. */
  const logTarget = logProbs(
    world,
    randomTable(world, 2, 0.5).map((value, i) => value + table[i]!),
  ).map((value, i) => (world.sequences[i]![0] === 2 ? never : value + 3));
  const drawn = (n: number, replication: number): Float64Array =>
    Float64Array.from(
      drawSequences(logProposal, n, streamOf(keyOf(7, "quasi-rejection"), replication)),
      (i) => logTarget[i]! - logProposal[i]!,
    );
  const names = ["acceptance", "tv", "tvBound", "kl"] as const;

  /** By definition, as sums over every sequence. */
  const truthAt = (logBeta: number): Record<(typeof names)[number], number> => {
    const q = logProposal.map(Math.exp);
    const P = logTarget.map(Math.exp);
    const kept = P.map((value, i) => Math.min(value, Math.exp(logBeta) * q[i]!));
    const [Z, ZBeta] = [sum(P), sum(kept)];
    return {
      acceptance: ZBeta / Math.exp(logBeta),
      tv: sum(P.map((value, i) => Math.abs(value / Z - kept[i]! / ZBeta))) / 2,
      tvBound: sum(P.filter((value, i) => value > Math.exp(logBeta) * q[i]!)) / Z,
      kl: sum(P.map((value, i) => (value === 0 ? 0 : (value / Z) * Math.log((value * ZBeta) / (Z * kept[i]!))))),
    };
  };
  let middle = 0;
  beforeAll(() => {
    middle = chooseLogBeta(drawn(5000, 1000), 0.35);
  });

  test.each(names)("has standard errors of %s that are its spread over repetitions", (name) => {
    const repeated = Array.from({ length: 400 }, (_, replication) => quasiRejectionReport(drawn(400, replication), middle)[name]);
    const spread = Math.sqrt(variance(repeated.map(({ value }) => value)));
    expect(repeated[0]!.n).toBe(400);
    // The spread of 400 repetitions is itself known to 1/sqrt(800) = 3.5%; 4 of those, and the seed is fixed.
    expect(Math.abs(mean(repeated.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.14);
    // Five standard errors of the mean of 400, and the bias of 1/400.
    expect(Math.abs(mean(repeated.map(({ value }) => value)) - truthAt(middle)[name])).toBeLessThan(
      5 * (spread / 20) + 0.25 / 400,
    );
  });

  test.each(names)("has errors of %s that hold for the beta that was chosen from the same samples", (name) => {
    const misses = Array.from({ length: 400 }, (_, replication) => {
      const logRatios = drawn(400, replication);
      const logBeta = chooseLogBeta(logRatios, 0.35);
      const { value, stdError } = quasiRejectionReport(logRatios, logBeta)[name];
      return { miss: value - truthAt(logBeta)[name], stdError };
    });
    const spread = Math.sqrt(variance(misses.map(({ miss }) => miss)));
    // As above.
    expect(Math.abs(mean(misses.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.14);
  });

  test("knows no distance where beta is above every ratio, and none is accepted for sure", () => {
    const logRatios = drawn(200, 0);
    const most = logRatios.reduce((a, b) => Math.max(a, b));
    for (const logBeta of [most, most + 2]) {
      const report = quasiRejectionReport(logRatios, logBeta);
      for (const name of ["tv", "tvBound", "kl"] as const) expect(report[name]).toEqual({ value: 0, stdError: 0, n: 200 });
    }
    expect(quasiRejectionReport(logRatios, most - 1e-9).tvBound.value).toBeGreaterThan(0);
  });

  test("is that of the proposal where beta is below every ratio", () => {
    const logRatios = drawn(200, 0).filter((value) => value > never);
    const report = quasiRejectionReport(logRatios, logRatios.reduce((a, b) => Math.min(a, b)) - 1);
    const scores = { logTarget: logRatios, logProposal: new Float64Array(logRatios.length) };
    const [tv, kl] = [tvTargetProposal(scores), klTargetProposal(scores)];
    expect(report.acceptance).toEqual({ value: 1, stdError: 0, n: logRatios.length });
    expect(report.tvBound.value).toBeCloseTo(1, 12);
    for (const [found, wanted] of [
      [report.tv, tv],
      [report.kl, kl],
    ] as const) {
      // The same sums of some hundred terms of order one.
      expect(found.value).toBeCloseTo(wanted.value, 12);
      expect(found.stdError).toBeCloseTo(wanted.stdError, 12);
    }
    expect(report).toMatchObject({
      tvTargetProposal: tv,
      klTargetProposal: kl,
      logZ: logPartition(logRatios),
      ess: effectiveSampleSize(logRatios),
    });
  });

  test("does not depend on the scale of P but in log Z, however large", () => {
    const logRatios = drawn(200, 0);
    for (const shift of [-900, 900]) {
      const [here, there] = [
        quasiRejectionReport(logRatios, middle),
        quasiRejectionReport(
          logRatios.map((value) => value + shift),
          middle + shift,
        ),
      ];
      for (const name of [...names, "tvTargetProposal", "klTargetProposal", "ess"] as const) {
        // 900 carries a rounding of 1e-13, and so do the ratios; the effective sample size is near 100.
        expect(Math.abs(there[name].value - here[name].value)).toBeLessThan(1e-10);
        expect(Math.abs(there[name].stdError - here[name].stdError)).toBeLessThan(1e-10);
      }
      expect(there.logZ.value).toBeCloseTo(here.logZ.value + shift, 10);
    }
  });
});

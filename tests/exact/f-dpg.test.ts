/**
 * f-DPG on a world where every sequence is listed: for each divergence the mean update is minus the gradient of the divergence as textbooks write it
 * (docs/math.md M42), by differences; with hard constraints too, where it is finite. Tolerance 1e-12: the differences are right to about 1e-13
 * (see numericGradient), the sums to 1e-14, for divergences of at most a few units.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, sum, timesOrZero } from "../../src/base/numeric.ts";
import { type DivergenceName, fDivergences } from "../../src/tuners/f-divergence.ts";
import { methodOf, type SamplesFrom, type ScoredSamples } from "../../src/tuners/method.ts";
import { ascentsOf, numericGradient, samplesOf, tableOf } from "../support/tabular-world.ts";
import { createWorld, logProbs, randomTable, vectorExpectation } from "../support/world.ts";

const tolerance = 1e-12;
const world = createWorld(3, 3);
const { sequences } = world;
const everything = sequences.map((_, n) => n);
const table = randomTable(world, 1, 0.5);
const logPolicy = logProbs(world, table);
const logBase = logProbs(world, randomTable(world, 12, 0.5));
const drawn = [
  ["on-policy", logPolicy],
  ["off-policy", logProbs(world, randomTable(world, 2, 0.5))],
] as const;

/** log P of each sequence; Z is far from 1 in both. */
const soft = logBase.map((value, n) => value + 0.5 * sequences[n]!.length);
const hard = soft.map((value, n) => (sequences[n]![0] === 2 ? Number.NEGATIVE_INFINITY : value));
const without = everything.filter((n) => hard[n] === Number.NEGATIVE_INFINITY);

interface Definition {
  /** f(t). */
  readonly f: (t: number) => number;
  /** What a sequence adds to the divergence. */
  readonly term: (p: number, pi: number) => number;
}

const xLog = (x: number, ratio: number): number => timesOrZero(x, Math.log(ratio));

const definitions: Readonly<Record<DivergenceName, Definition>> = {
  kl: { f: (t) => -Math.log(t), term: (p, pi) => xLog(p, p / pi) },
  "reverse-kl": { f: (t) => t * Math.log(t), term: (p, pi) => xLog(pi, pi / p) },
  tv: { f: (t) => Math.abs(t - 1) / 2, term: (p, pi) => Math.abs(p - pi) / 2 },
  js: {
    f: (t) => (t * Math.log((2 * t) / (1 + t)) + Math.log(2 / (1 + t))) / 2,
    term: (p, pi) => (xLog(p, p / ((p + pi) / 2)) + xLog(pi, pi / ((p + pi) / 2))) / 2,
  },
  "chi-squared": { f: (t) => (1 - t) ** 2 / t, term: (p, pi) => (p - pi) ** 2 / pi },
  "reverse-chi-squared": { f: (t) => (t - 1) ** 2, term: (p, pi) => (pi - p) ** 2 / p },
};
const names = Object.keys(definitions) as DivergenceName[];
/** Those that stay finite where the target rules out what the policy writes. */
const finite = names.filter((name) => Number.isFinite(definitions[name].term(0, 0.1)));

const largest = (values: Float64Array): number => values.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
const expectSame = (found: Float64Array, wanted: Float64Array) => {
  expect(found.length).toBe(wanted.length);
  expect(largest(found.map((value, k) => value - wanted[k]!))).toBeLessThan(tolerance);
};
const normalized = (logTarget: Float64Array): Float64Array => logTarget.map((value) => value - logSumExp(logTarget));

const divergence = (name: DivergenceName, logTarget: Float64Array, logPi: Float64Array): number => {
  const p = normalized(logTarget).map(Math.exp);
  return sum(p.map((value, n) => definitions[name].term(value, Math.exp(logPi[n]!))));
};

const downhill = (name: DivergenceName, logTarget: Float64Array): Float64Array =>
  numericGradient((other) => -divergence(name, logTarget, logProbs(world, other)), table);

interface Case {
  readonly logTarget: Float64Array;
  readonly logQ: Float64Array;
  readonly at?: Float64Array;
  readonly samplesFrom?: SamplesFrom;
  /** What to subtract, after whatever batches came before; absent: nothing. */
  readonly running?: number;
  readonly logZ?: number;
}

/** The update of every sequence, and their mean under q. */
const updates = async (name: DivergenceName, given: Case) => {
  const { logTarget, logQ, at = table, samplesFrom = "policy", running, logZ = logSumExp(logTarget) } = given;
  const method = methodOf({ name: "f-dpg", divergence: name, samplesFrom, baseline: running === undefined ? "none" : "running" });
  const batch: ScoredSamples = { samples: samplesOf(world, everything, logQ), logBase, logTarget, logZ };
  const inputs = method.inputs(batch, running === undefined ? {} : { baseline: running }, undefined);
  const { ascents, outputs } = await ascentsOf(world, at, method.objective, batch.samples, inputs);
  const mean = vectorExpectation(logQ, new Float64Array(ascents.length).fill(1), ascents);
  return { ascents, mean, advantage: outputs["advantage"]! };
};

describe("the definitions", () => {
  test.each(names)("%s is E_p f(pi/p), with f(1) = 0", (name) => {
    const p = normalized(soft).map(Math.exp);
    const { f } = definitions[name];
    const byF = sum(p.map((value, n) => value * f(Math.exp(logPolicy[n]!) / value)));
    expect(Math.abs(byF - divergence(name, soft, logPolicy))).toBeLessThan(tolerance);
    expect(byF).toBeGreaterThan(0.01);
    expect(f(1)).toBeCloseTo(0, 15);
  });
  test("no p(x) is so near to pi(x) that the differences would cross the kink of TV", () => {
    for (const logTarget of [soft, hard])
      for (const [n, value] of normalized(logTarget).entries()) expect(Math.abs(value - logPolicy[n]!)).toBeGreaterThan(0.08);
  });
});

describe.each(drawn)("a soft target, %s", (_, logQ) => {
  test.each(names)("the mean update of %s is minus its gradient", async (name) => {
    const wanted = downhill(name, soft);
    expect(largest(wanted)).toBeGreaterThan(0.01);
    const found = await updates(name, { logTarget: soft, logQ });
    expectSame(found.mean, wanted);
    // Wherever the batches come from, one batch teaches the same.
    expect((await updates(name, { logTarget: soft, logQ, samplesFrom: "proposal" })).ascents).toEqual(found.ascents);
  });
  test.each(names)("any running baseline leaves the mean update of %s as it is, and changes each", async (name) => {
    const plain = await updates(name, { logTarget: soft, logQ });
    for (const running of [0.37, -3]) {
      const found = await updates(name, { logTarget: soft, logQ, running });
      expectSame(found.mean, plain.mean);
      expectSame(
        found.advantage,
        plain.advantage.map((value, n) => value - running * Math.exp(logPolicy[n]! - logQ[n]!)),
      );
    }
  });
});

test("the hard target rules out some sequences and not others", () => {
  expect(without.length).toBeGreaterThan(2);
  expect(without.length).toBeLessThan(everything.length - 2);
});

describe.each(drawn)("a target that rules sequences out, %s", (_, logQ) => {
  test.each(finite)("the mean update of %s is minus its gradient, and finite", async (name) => {
    const wanted = downhill(name, hard);
    expect(largest(wanted)).toBeGreaterThan(0.01);
    const { mean, advantage } = await updates(name, { logTarget: hard, logQ });
    expectSame(mean, wanted);
    // What is ruled out gets -f'(infinity): the limit of -(f(t) - f(t/2)) / (t/2), which is exact to 1e-7 at t = 1e9 for all four.
    const { f } = definitions[name];
    const t = 1e9;
    const limit = -(f(t) - f(t / 2)) / (t / 2);
    for (const n of without) expect(advantage[n]! / Math.exp(logPolicy[n]! - logQ[n]!)).toBeCloseTo(limit, 7);
  });
  test.each(names)("%s is infinite there or not, as its row says", async (name) => {
    const { advantage } = await updates(name, { logTarget: hard, logQ });
    const infinite = everything.filter((n) => advantage[n] === Number.NEGATIVE_INFINITY);
    expect(infinite).toEqual(finite.includes(name) ? [] : without);
    expect(everything.filter((n) => Number.isFinite(advantage[n]!)).length + infinite.length).toBe(everything.length);
    expect(fDivergences[name].infiniteWithoutMass).toBe(!finite.includes(name));
  });
});

describe("at the goal", () => {
  const logP = normalized(soft);
  /** -f'(1). */
  const constants: Readonly<Record<DivergenceName, number>> = {
    kl: 1,
    "reverse-kl": -1,
    tv: 0,
    js: 0,
    "chi-squared": 0,
    "reverse-chi-squared": 0,
  };
  // The ratios are 1 to rounding, and the sign of a rounding error is no small number: TV has noise at the goal, whatever its mean.
  test.each(names.filter((name) => name !== "tv"))(
    "every reward of %s is the same, so a baseline leaves no noise",
    async (name) => {
      const goal = { logTarget: soft, logQ: logP, at: tableOf(world, logP) };
      const { advantage, mean } = await updates(name, goal);
      expectSame(advantage, new Float64Array(everything.length).fill(constants[name]));
      expect(largest(mean)).toBeLessThan(tolerance);
      const based = await updates(name, { ...goal, running: constants[name] });
      for (const ascent of based.ascents) expect(largest(ascent)).toBeLessThan(tolerance);
    },
  );
});

describe("a wrong Z", () => {
  const factor = Math.exp(0.5);
  const [, logQ] = drawn[1];
  const wrong = { logTarget: soft, logQ, logZ: logSumExp(soft) + Math.log(factor) };
  // R is linear in p/pi, its logarithm, its square, or its reciprocal, up to constants, which are baselines.
  test.each<[DivergenceName, number]>([
    ["kl", 1 / factor],
    ["reverse-kl", 1],
    ["chi-squared", 1 / factor ** 2],
    ["reverse-chi-squared", factor],
  ])("scales the update of %s by %d and does not turn it", async (name, scale) => {
    expectSame(
      (await updates(name, wrong)).mean,
      downhill(name, soft).map((value) => value * scale),
    );
  });
  test.each<DivergenceName>(["tv", "js"])("turns that of %s", async (name) => {
    const [{ mean }, wanted] = [await updates(name, wrong), downhill(name, soft)];
    const product = (a: Float64Array, b: Float64Array) => sum(a.map((value, k) => value * b[k]!));
    const squaredCosine = product(mean, wanted) ** 2 / (product(mean, mean) * product(wanted, wanted));
    // Of updates in one direction it is 0 to rounding.
    expect(1 - squaredCosine).toBeGreaterThan(1e-6);
  });
  // -f'(c t) belongs to f(c t)/c: another divergence of the same kind, with its stationary point at the same p.
  test.each(names)("leaves the goal of %s where it is", async (name) => {
    const logP = normalized(soft);
    const { mean } = await updates(name, { ...wrong, logQ: logP, at: tableOf(world, logP) });
    expect(largest(mean)).toBeLessThan(tolerance);
  });
});

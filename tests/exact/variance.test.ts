/**
 * What the baseline of GDC++ is for: the exact covariance of one sample's update, from every sequence of a world through the training graph, without
 * and with the baseline (docs/math.md M22). The numbers are those of docs/methods.
 */

import { beforeAll, expect, test } from "vitest";
import { logSumExp, sum } from "../../src/base/numeric.ts";
import { type MethodSpec, methodOf } from "../../src/tuners/method.ts";
import { ascentsOf, samplesOf } from "../support/tabular-world.ts";
import {
  createWorld,
  expectation,
  gradLogProb,
  logProbs,
  prefixMass,
  randomTable,
  tokenLogProbsOf,
  towards,
  vectorExpectation,
} from "../support/world.ts";

const world = createWorld(4, 4);
const { sequences, vocabulary } = world;
const everything = sequences.map((_, n) => n);
const ones = new Float64Array(everything.length).fill(1);
/** A base that seldom writes the last token. */
const baseTable = randomTable(world, 1).map((value, k) => (k % vocabulary === vocabulary - 1 ? value - 2.5 : value));
const logBase = logProbs(world, baseTable);
const has = Float64Array.from(sequences, (ids) => Number(ids.includes(vocabulary - 1)));
const ofBase = prefixMass(world, logBase);
const tokenLogBase = tokenLogProbsOf(world, logBase);
/** How often the base writes it. */
const rate = expectation(logBase, has);

/** log P of each sequence. */
const targets = {
  /** It has to be there. */
  pointwise: logBase.map((value, n) => (has[n] === 1 ? value : Number.NEGATIVE_INFINITY)),
  /** It has to be there half of the time: M5. */
  moment: logBase.map((value, n) => value + has[n]! * Math.log((1 - rate) / rate)),
};
type TargetName = keyof typeof targets;
const names = Object.keys(targets) as TargetName[];

/** A policy on the way, with a share of the base's KL(p, pi) left. */
const onTheWay = (logTarget: Float64Array, share: number): Float64Array => towards(world, logTarget, baseTable, share);

const squaredNorm = (vector: Float64Array): number => sum(vector.map((value) => value * value));

/** One sample's update at a policy, of samples of q: the trace of its covariance, and the advantage's variance and mean size. */
const noiseOf = async (spec: MethodSpec, logTarget: Float64Array, table: Float64Array, logQ: Float64Array, baseline?: number) => {
  const method = methodOf(spec);
  const logZ = logSumExp(logTarget);
  const ofTarget = prefixMass(
    world,
    logTarget.map((value) => value - logZ),
  );
  const batch = {
    samples: samplesOf(world, everything, logQ),
    logBase,
    logTarget,
    logZ,
    tokenLogBase,
    // What is true of prefixes.
    logPrefixValues: Float32Array.from(ofTarget, (value, at) => value - ofBase[at]!),
  };
  const inputs = method.inputs(batch, { prefixTrust: 1, ...(baseline === undefined ? {} : { baseline }) }, undefined);
  const { ascents, outputs } = await ascentsOf(world, table, method.objective, batch.samples, inputs);
  const { advantage } = outputs as Record<"advantage", Float64Array>;
  const mean = expectation(logQ, advantage);
  return {
    trace: expectation(logQ, ascents.map(squaredNorm)) - squaredNorm(vectorExpectation(logQ, ones, ascents)),
    variance: expectation(
      logQ,
      advantage.map((value) => (value - mean) ** 2),
    ),
    size: expectation(logQ, advantage.map(Math.abs)),
  };
};

type Noise = Awaited<ReturnType<typeof noiseOf>>;
/** How much of KL(p, pi) is left, and whether samples come from the policy or still from the base. */
type Point = "all, q = pi = a" | "half, q = pi" | "half, q = a" | "tenth, q = pi" | "tenth, q = a";

const each = async (logTarget: Float64Array, table: Float64Array, logQ: Float64Array) => ({
  gdc: await noiseOf({ name: "gdc", baseline: "none" }, logTarget, table, logQ),
  "gdc++": await noiseOf({ name: "gdc++", baseline: "z" }, logTarget, table, logQ),
  prefix: await noiseOf({ name: "gdc++", baseline: "prefix" }, logTarget, table, logQ),
});

const found = {} as Record<TargetName, Record<Point, Record<"gdc" | "gdc++" | "prefix", Noise>>>;
beforeAll(async () => {
  for (const name of names) {
    const logTarget = targets[name];
    const [half, tenth] = [onTheWay(logTarget, 1 / 2), onTheWay(logTarget, 1 / 10)];
    found[name] = {
      "all, q = pi = a": await each(logTarget, baseTable, logBase),
      "half, q = pi": await each(logTarget, half, logProbs(world, half)),
      "half, q = a": await each(logTarget, half, logBase),
      "tenth, q = pi": await each(logTarget, tenth, logProbs(world, tenth)),
      "tenth, q = a": await each(logTarget, tenth, logBase),
    };
  }
});

/** Trace of the update's covariance, variance of A, mean |A|: of GDC and of GDC++. */
type Row = [TargetName, Point, [number, number], [number, number], [number, number]];

test.each<Row>([
  ["pointwise", "all, q = pi = a", [23.796, 20.026], [8.736, 8.736], [1, 1.795]],
  ["pointwise", "half, q = pi", [7.7, 5.347], [2.526, 2.526], [1, 1.26]],
  ["pointwise", "half, q = a", [18.763, 9.276], [8.736, 4.538], [1, 1.26]],
  ["pointwise", "tenth, q = pi", [6.125, 4.428], [1.188, 1.188], [1, 0.182]],
  ["pointwise", "tenth, q = a", [15.791, 2.519], [8.736, 0.68], [1, 0.182]],
  ["moment", "all, q = pi = a", [6.299, 3.926], [1.713, 1.713], [1, 0.795]],
  ["moment", "half, q = pi", [3.262, 1.295], [0.605, 0.605], [1, 0.575]],
  ["moment", "half, q = a", [5.665, 2.025], [1.713, 0.94], [1, 0.575]],
  ["moment", "tenth, q = pi", [2.202, 0.523], [0.172, 0.172], [1, 0.148]],
  ["moment", "tenth, q = a", [4.988, 0.524], [1.713, 0.18], [1, 0.148]],
])("%s target, %s: the baseline lowers the variance of the update", (name, point, trace, variance, size) => {
  const { gdc, "gdc++": baselined } = found[name][point];
  expect(baselined.trace).toBeLessThan(gdc.trace);
  // As printed, to 3 decimals.
  const rounded = (key: keyof Noise) => [gdc[key], baselined[key]].map((value) => Number(value.toFixed(3)));
  expect({ trace: rounded("trace"), variance: rounded("variance"), size: rounded("size") }).toEqual({ trace, variance, size });
});

test.each<[TargetName, Point, number]>([
  ["pointwise", "all, q = pi = a", 12.223],
  ["pointwise", "half, q = pi", 3.914],
  ["pointwise", "half, q = a", 5.657],
  ["pointwise", "tenth, q = pi", 4.146],
  ["pointwise", "tenth, q = a", 2.293],
  ["moment", "all, q = pi = a", 2.396],
  ["moment", "half, q = pi", 0.877],
  ["moment", "half, q = a", 1.274],
  ["moment", "tenth, q = pi", 0.471],
  ["moment", "tenth, q = a", 0.452],
])("%s target, %s: what is true of prefixes lowers it further", (name, point, trace) => {
  const { "gdc++": baselined, prefix } = found[name][point];
  expect(Number(prefix.trace.toFixed(3))).toBe(trace);
  expect(prefix.trace).toBeLessThan(baselined.trace);
});

const start = "all, q = pi = a";
// Sums of 121 terms, none above 20.
const digits = 12;

test("at the start A is b/Z, and less 1 with the baseline: no other variance, another size", () => {
  const { gdc, "gdc++": baselined } = found.pointwise[start];
  expect(gdc.variance).toBeCloseTo((1 - rate) / rate, digits);
  expect(baselined.variance).toBeCloseTo((1 - rate) / rate, digits);
  expect(gdc.size).toBeCloseTo(1, digits);
  expect(baselined.size).toBeCloseTo(2 * (1 - rate), digits);
});

test("E_q |P/q - Z pi/q| / Z is twice the total variation of p and pi, wherever the samples are from", () => {
  for (const name of names) {
    const { "half, q = pi": own, "half, q = a": old } = found[name];
    expect(own["gdc++"].size).toBeCloseTo(old["gdc++"].size, digits);
    expect(own["gdc++"].size).toBeLessThan(found[name][start]["gdc++"].size);
    expect([own.gdc.size, old.gdc.size].map((size) => Number(size.toFixed(digits)))).toEqual([1, 1]);
  }
});

test("the best constant is c* of M22", async () => {
  const logTarget = targets.pointwise;
  const logZ = logSumExp(logTarget);
  const norms = sequences.map((ids) => squaredNorm(gradLogProb(world, baseTable, ids)));
  // At q = pi = a: w = p/a, r = 1.
  const weight = logTarget.map((value, n) => Math.exp(value - logZ - logBase[n]!));
  const best =
    expectation(
      logBase,
      norms.map((norm, n) => norm * weight[n]!),
    ) / expectation(logBase, norms);
  const spec: MethodSpec = { name: "f-dpg", divergence: "kl", samplesFrom: "policy", baseline: "running" };
  const traceAt = async (c: number) => (await noiseOf(spec, logTarget, baseTable, logBase, c)).trace;
  const [below, at, above] = [await traceAt(best - 0.5), await traceAt(best), await traceAt(best + 0.5)];
  // A parabola around it.
  expect(below - at).toBeGreaterThan(0.1);
  expect(above).toBeCloseTo(below, digits);
  expect(at).toBeLessThan(found.pointwise[start]["gdc++"].trace);
});

test("where policy, proposal and target have nothing to do with each other the baseline may raise it: 1 is not the best constant", async () => {
  const [table, logQ] = [randomTable(world, 21), logProbs(world, randomTable(world, 22))];
  const [without, withBaseline] = [
    await noiseOf({ name: "gdc", baseline: "none" }, targets.moment, table, logQ),
    await noiseOf({ name: "gdc++", baseline: "z" }, targets.moment, table, logQ),
  ];
  expect(withBaseline.trace).toBeGreaterThan(without.trace);
});

/**
 * The baseline of prefixes (docs/math.md M50) on worlds where an expectation is a finite sum, through the training graph: whatever is said of
 * prefixes, the mean update is minus the gradient of KL(p, pi); what is true of them lowers its variance; and what is true of them is what a probe
 * of the base finds.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, sum } from "../../src/base/numeric.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { createScorer } from "../../src/sampling/log-prob.ts";
import type { MethodSpec, ScoredSamples } from "../../src/tuners/method.ts";
import { methodOf } from "../../src/tuners/method.ts";
import { fitPrefixValue, logPrefixValues } from "../../src/tuners/prefix-value.ts";
import { ascentsOf, numericGradient, samplesOf, tabularModelOf, weightsOfTable } from "../support/tabular-world.ts";
import {
  createWorld,
  drawSequences,
  expectation,
  logProbs,
  prefixIndex,
  prefixMass,
  randomTable,
  tokenLogProbsOf,
  towards,
  vectorExpectation,
  type World,
} from "../support/world.ts";

const settingOf = (world: World) => {
  const { sequences, vocabulary } = world;
  const logBase = logProbs(world, randomTable(world, 3));
  const tilted = logBase.map((value, n) => value + 1.7 * Number(sequences[n]!.includes(vocabulary - 1)));
  // A hybrid target: what starts with 1 has no mass.
  const logTarget = tilted.map((value, n) => (sequences[n]![0] === 1 ? Number.NEGATIVE_INFINITY : value));
  const logZ = logSumExp(logTarget);
  const ofBase = prefixMass(world, logBase);
  const ofTarget = prefixMass(
    world,
    logTarget.map((value) => value - logZ),
  );
  const tokenLogBase = tokenLogProbsOf(world, logBase);
  return {
    world,
    logBase,
    logTarget,
    logZ,
    /** log F(x_<t), as it is. */
    truth: Float32Array.from(ofTarget, (value, at) => value - ofBase[at]!),
    batch: (logQ: Float64Array, logPrefixValues: Float32Array): ScoredSamples => ({
      samples: samplesOf(
        world,
        sequences.map((_, n) => n),
        logQ,
      ),
      logBase,
      logTarget,
      logZ,
      tokenLogBase,
      logPrefixValues,
    }),
  };
};
type Setting = ReturnType<typeof settingOf>;

const prefix: MethodSpec = { name: "gdc++", baseline: "prefix" };
const z: MethodSpec = { name: "gdc++", baseline: "z" };

const updates = async (
  { world, batch }: Setting,
  spec: MethodSpec,
  table: Float64Array,
  logQ: Float64Array,
  said: Float32Array,
  trust = 1,
) => {
  const method = methodOf(spec);
  const given = batch(logQ, said);
  const { ascents, outputs } = await ascentsOf(
    world,
    table,
    method.objective,
    given.samples,
    method.inputs(given, { prefixTrust: trust }, undefined),
  );
  const ones = new Float64Array(ascents.length).fill(1);
  const mean = vectorExpectation(logQ, ones, ascents);
  const squared = (vector: Float64Array): number => sum(vector.map((value) => value * value));
  return { mean, trace: expectation(logQ, ascents.map(squared)) - squared(mean), outputs };
};

describe.each([
  [3, 3],
  [4, 3],
])("%i tokens, at most %i of them", (vocabulary, maxTokens) => {
  const world = createWorld(vocabulary, maxTokens);
  const setting = settingOf(world);
  const { logTarget, logZ, truth } = setting;
  const table = randomTable(world, 1);
  const logQ = logProbs(world, randomTable(world, 2));
  const lessKl = (other: Float64Array): number => {
    const logPi = logProbs(world, other);
    return -sum(
      logTarget.map((value, n) => (value === Number.NEGATIVE_INFINITY ? 0 : Math.exp(value - logZ) * (value - logZ - logPi[n]!))),
    );
  };
  const slope = numericGradient(lessKl, table);
  const random = streamOf(keyOf(1, "what is said of prefixes"), 0);
  // A function of the prefix, as it must be, and of nothing else.
  const perPrefix = Float64Array.from({ length: world.prefixes }, () => 4 * random.uniform() - 2);
  const wrong = new Float32Array(truth.length);
  for (const [n, ids] of world.sequences.entries())
    for (let t = 0; t < ids.length; t++) wrong[n * maxTokens + t] = perPrefix[prefixIndex(world, ids, t)]!;

  test.each<[string, Float32Array, number]>([
    ["the truth", truth, 1],
    ["something wrong", wrong, 1],
    ["something wrong, half believed", wrong, 0.5],
  ])("whatever is said of prefixes, the mean update is minus the gradient of KL(p, pi): %s", async (_, said, trust) => {
    const { mean } = await updates(setting, prefix, table, logQ, said, trust);
    // As in policy-gradient.test.ts: the differences are right to 1e-13. What is said passes through float32, which is what is said then.
    for (const [k, value] of slope.entries()) expect(Math.abs(mean[k]! - value)).toBeLessThan(1e-12);
  });

  test("not believed at all, it is the baseline of GDC++: each text's update is the same", async () => {
    const [without, plain] = [
      await updates(setting, prefix, table, logQ, wrong, 0),
      await updates(setting, z, table, logQ, wrong),
    ];
    expect(without.trace).toBeCloseTo(plain.trace, 12);
    for (const [k, value] of plain.mean.entries()) expect(without.mean[k]).toBeCloseTo(value, 13);
    for (const [n, value] of [...plain.outputs["advantage"]!].entries())
      expect(without.outputs["advantage"]![n]).toBeCloseTo(value, 13);
  });

  test("the truth lowers the variance, where q = pi = a and where q = pi on the way; something wrong raises it", async () => {
    const base = randomTable(world, 3);
    for (const at of [base, towards(world, logTarget, base, 0.5)]) {
      const own = logProbs(world, at);
      const [plain, told, misled] = [
        await updates(setting, z, at, own, truth),
        await updates(setting, prefix, at, own, truth),
        await updates(setting, prefix, at, own, wrong),
      ];
      expect(told.trace).toBeLessThan(0.9 * plain.trace);
      expect(misled.trace).toBeGreaterThan(plain.trace);
    }
  });

  test("gain over spread is the trust with which the squares of A are least", async () => {
    const { outputs } = await updates(setting, prefix, table, logQ, wrong);
    const best = expectation(logQ, outputs["prefixGain"]!) / expectation(logQ, outputs["prefixSpread"]!);
    // By hand, and by definition: V = F a(x_<t)/pi(x_<t); A = P/(Zq) - (pi/q)(1 + trust (V - 1)).
    const [ofBase, logPi] = [prefixMass(world, setting.logBase), logProbs(world, table)];
    const ofPolicy = prefixMass(world, logPi);
    const squares = (trust: number): number =>
      expectation(
        logQ,
        world.sequences.map((ids, n) => {
          const [weight, ratio] = [Math.exp(logTarget[n]! - logZ - logQ[n]!), Math.exp(logPi[n]! - logQ[n]!)];
          return sum(
            Array.from(ids, (_, t) => {
              const at = n * maxTokens + t;
              const promised = Math.exp(wrong[at]! + ofBase[at]! - ofPolicy[at]!);
              return (weight - ratio * (1 + trust * (promised - 1))) ** 2;
            }),
          );
        }),
      );
    expect(squares(best + 0.1)).toBeGreaterThan(squares(best));
    // A parabola: as much on either side of its lowest point, to what float32 does to what is said (1e-7 of numbers below 10).
    expect(squares(best + 0.1) / squares(best - 0.1)).toBeCloseTo(1, 5);
  });
});

test("a probe of the base finds what prefixes promise, but for the noise of its texts, and says how much it explains", async () => {
  const world = createWorld(3, 3);
  const setting = settingOf(world);
  const { logBase, logTarget, logZ, truth } = setting;
  const drawn = drawSequences(logBase, 2000, streamOf(keyOf(2, "texts of the base"), 0));
  const samples = samplesOf(world, drawn, Float64Array.from(logBase));
  const model = tabularModelOf(world);
  const weights = weightsOfTable(world, randomTable(world, 3));
  const ratios = Float64Array.from(drawn, (n) => Math.exp(logTarget[n]! - logZ - logBase[n]!));
  const heard: number[] = [];
  const value = await fitPrefixValue(referenceDevice, model, weights, samples, ratios, (done) => heard.push(done));
  expect(heard.at(-1)).toBe(2000);
  const scorer = await createScorer(referenceDevice, model, weights, 8, value.probe);
  const everything = samplesOf(
    world,
    world.sequences.map((_, n) => n),
    logBase,
  );
  const said = logPrefixValues(value, (await scorer.score(everything)).probed!, everything);
  let explained = 0;
  let spread = 0;
  for (const [n, ids] of world.sequences.entries())
    for (let t = 0; t < ids.length; t++) {
      const at = n * world.maxTokens + t;
      const weight = Math.exp(logBase[n]!);
      const ratio = Math.exp(logTarget[n]! - logZ - logBase[n]!);
      explained += weight * ((ratio - Math.exp(truth[at]!)) ** 2 - (ratio - 1) ** 2);
      spread += weight * (ratio - 1) ** 2;
      // 1,000 texts, of which the rarest prefix has some dozens: errors of a few tenths of a ratio between 0 and 2.3.
      expect(Math.abs(Math.exp(said[at]!) - Math.exp(truth[at]!))).toBeLessThan(0.35);
    }
  expect(value.explained).toBeGreaterThan(0.8 * (-explained / spread));
  expect(value.explained).toBeLessThan(1.1 * (-explained / spread));
});

test("where all texts promise the same there is nothing to find: F is 1 before every token", async () => {
  const world = createWorld(3, 3);
  const { logBase } = settingOf(world);
  const samples = samplesOf(
    world,
    world.sequences.map((_, n) => n),
    logBase,
  );
  const weights = weightsOfTable(world, randomTable(world, 3));
  const ratios = new Float64Array(samples.count).fill(1);
  const value = await fitPrefixValue(referenceDevice, tabularModelOf(world), weights, samples, ratios);
  const probed = new Float32Array(samples.count * samples.maxTokens).fill(0.3);
  expect([...logPrefixValues(value, probed, samples)].every((log) => log === 0)).toBe(true);
});

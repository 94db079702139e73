/**
 * Every method without a critic but f-DPG, through its own inputs and the training graph, on worlds where an expectation is a finite sum: the mean
 * update is the gradient of what the method says it ascends (docs/math.md M21 to M25, M40, M41). The truth is not worked out by the same formulas:
 * it is the slope, by differences, of the objective written by its definition over every sequence.
 *
 * Tolerance 1e-12 where nothing else is said: the differences are right to about 1e-13 (see numericGradient), the sums to 1e-15.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, sum } from "../../src/base/numeric.ts";
import type { Controls, MethodSpec, ScoredSamples } from "../../src/tuners/method.ts";
import { methodOf } from "../../src/tuners/method.ts";
import { type PseudoRewardName, policyGradientObjective } from "../../src/tuners/policy-gradient.ts";
import { ascentsOf, createAscent, numericGradient, samplesOf, tableOf } from "../support/tabular-world.ts";
import { createWorld, gradLogProb, logProbs, randomTable, vectorExpectation, type World } from "../support/world.ts";

const tolerance = 1e-12;
const beta = 0.7;
const fixed = { klCoefficient: beta, klControl: "fixed", klTarget: 6, klHorizon: 10_000 } as const;

const largest = (values: Float64Array): number => values.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
const distance = (a: Float64Array, b: Float64Array): number => largest(a.map((value, k) => value - b[k]!));
const times = (factor: number, vector: Float64Array): Float64Array => vector.map((value) => factor * value);
const onesLike = (list: ArrayLike<unknown>): Float64Array => new Float64Array(list.length).fill(1);

const expectSame = (found: Float64Array, wanted: Float64Array) => {
  expect(found.length).toBe(wanted.length);
  expect(distance(found, wanted)).toBeLessThan(tolerance);
};

/** A world with everything that a method can ask for, all in general position: pi, q, a and p have nothing to do with each other. */
const settingOf = (world: World) => {
  const { sequences } = world;
  const everything = sequences.map((_, n) => n);
  const table = randomTable(world, 1);
  const logBase = logProbs(world, randomTable(world, 3));
  const reward = Float64Array.from(sequences, (ids) => (ids.includes(1) ? 1 : 0) + 0.4 * ids.length - 0.5);
  // A hybrid target: what starts with the last token has no mass, and there is a tilt by length. Z is far from 1.
  const logTarget = logBase.map((value, n) =>
    sequences[n]![0] === world.vocabulary - 1 ? Number.NEGATIVE_INFINITY : value + 1.3 * sequences[n]!.length,
  );
  const logZ = logSumExp(logTarget);
  const pick = (list: Float64Array, chosen: readonly number[]) => Float64Array.from(chosen, (n) => list[n]!);
  return {
    world,
    table,
    count: sequences.length,
    logBase,
    reward,
    logTarget,
    logZ,
    logPolicy: logProbs(world, table),
    logProposal: logProbs(world, randomTable(world, 2)),
    scores: sequences.map((ids) => gradLogProb(world, table, ids)),
    /** The chosen sequences, as drawn from q. */
    batch: (logQ: Float64Array, chosen: readonly number[] = everything): ScoredSamples => ({
      samples: samplesOf(world, chosen, logQ),
      logBase: pick(logBase, chosen),
      logTarget: pick(logTarget, chosen),
      logZ,
      reward: pick(reward, chosen),
    }),
  };
};

type Setting = ReturnType<typeof settingOf>;

/** What methods ascend, by definition: a function of pi(x) of every sequence. */
const ascended = ({ reward, logBase, logTarget, logZ }: Setting) => {
  const [a, P, Z] = [logBase.map(Math.exp), logTarget.map(Math.exp), Math.exp(logZ)];
  const over = (pi: Float64Array, value: (n: number) => number) => sum(pi.map((_, n) => value(n)));
  return {
    reward: (pi: Float64Array) => over(pi, (n) => pi[n]! * reward[n]!),
    rewardLessKl: (pi: Float64Array) => over(pi, (n) => pi[n]! * reward[n]! - beta * pi[n]! * Math.log(pi[n]! / a[n]!)),
    mass: (pi: Float64Array) => over(pi, (n) => pi[n]! * P[n]!),
    lessKl: (pi: Float64Array) => -over(pi, (n) => (P[n] === 0 ? 0 : (P[n]! / Z) * Math.log(P[n]! / Z / pi[n]!))),
  };
};

const slope = ({ world, table }: Setting, value: (pi: Float64Array) => number): Float64Array =>
  numericGradient((other) => value(logProbs(world, other).map(Math.exp)), table);

/** One update per sequence of the whole world, and their mean under q. */
const updates = async (
  setting: Setting,
  spec: MethodSpec,
  logQ: Float64Array,
  controls?: Controls,
  batch = setting.batch(logQ),
) => {
  const method = methodOf(spec);
  const inputs = method.inputs(batch, controls ?? method.begin(batch), undefined);
  const { ascents, outputs } = await ascentsOf(setting.world, setting.table, method.objective, batch.samples, inputs);
  return { ascents, outputs, mean: vectorExpectation(logQ, onesLike(ascents), ascents) };
};

/** The mean update over all batches of n independent samples of q: every tuple of sequences, by its probability. */
const overBatches = async (
  setting: Setting,
  spec: MethodSpec,
  n: number,
  logQ: Float64Array,
  weight: (numbers: Readonly<Record<string, number>>) => number = () => 1,
): Promise<Float64Array> => {
  const method = methodOf(spec);
  const ascend = await createAscent(setting.world, setting.table, method.objective);
  const all = Int32Array.from({ length: n }, (_, b) => b);
  const total = new Float64Array(setting.table.length);
  for (let tuple = 0; tuple < setting.count ** n; tuple++) {
    const chosen = Array.from(all, (b) => Math.floor(tuple / setting.count ** b) % setting.count);
    const batch = setting.batch(logQ, chosen);
    const inputs = method.inputs(batch, method.begin(undefined), undefined);
    const { ascent } = await ascend(batch.samples, inputs, all, 1 / n);
    const factor = weight(inputs.numbers) * Math.exp(sum(chosen.map((i) => logQ[i]!)));
    for (const [k, value] of ascent.entries()) total[k]! += factor * value;
  }
  return total;
};

const setting = settingOf(createWorld(3, 3));
const { world, count, table, logBase, logTarget, logZ, logPolicy, logProposal, reward, scores } = setting;
const { reward: expectedReward, rewardLessKl, mass, lessKl } = ascended(setting);
const drawn = [
  ["on-policy", logPolicy],
  ["off-policy", logProposal],
] as const;

test("the ruler: differences of E_p log pi are the sum of gradients by hand", () => {
  expectSame(slope(setting, lessKl), vectorExpectation(logTarget, times(Math.exp(-logZ), onesLike(scores)), scores));
});

describe.each(drawn)("the mean update, %s", (_, logQ) => {
  // In the batch that lists every sequence once, P is counted in units of its mean there.
  const unit = Math.exp(logZ) / count;
  test.each<[MethodSpec["name"], string, MethodSpec, (pi: Float64Array) => number]>([
    ["reinforce", "E r", { name: "reinforce", baseline: "none" }, expectedReward],
    ["reinforce-target", "E P in units of P", { name: "reinforce-target", baseline: "none" }, (pi) => mass(pi) / unit],
    ["kl-control", "E r - beta KL(pi, a)", { name: "kl-control", baseline: "none", ...fixed }, rewardLessKl],
    ["dpg", "-KL(p, pi), without baseline", { name: "dpg", baseline: "none" }, lessKl],
    ["dpg", "-KL(p, pi), with the baseline Z", { name: "dpg", baseline: "z" }, lessKl],
    ["gdc", "-KL(p, pi)", { name: "gdc", baseline: "none" }, lessKl],
    ["gdc++", "-KL(p, pi)", { name: "gdc++", baseline: "z" }, lessKl],
  ])("of %s is the gradient of %s", async (_name, _what, spec, value) => {
    const wanted = slope(setting, value);
    expect(largest(wanted)).toBeGreaterThan(0.05);
    const { mean, outputs } = await updates(setting, spec, logQ);
    expectSame(mean, wanted);
    expectSame(outputs["logPolicy"]!, logPolicy);
  });

  test.each<PseudoRewardName>(["reward", "reward-less-kl", "target-mass", "kl", "tv", "js", "chi-squared"])(
    "with the reward %s is the same for any constant baseline",
    async (name) => {
      const batch = setting.batch(logQ);
      const numbers = { logZ, logUnit: 0.3, klCoefficient: beta };
      const sequences = { logProposal: logQ, logBase, logTarget, reward };
      const meanAt = async (baseline: number) => {
        const inputs = { sequences: { ...sequences, baseline: new Float64Array(count).fill(baseline) }, numbers };
        const objective = policyGradientObjective({ reward: name });
        const asked = (record: Readonly<Record<string, unknown>>) =>
          Object.fromEntries(Object.entries(record).filter(([key]) => key in objective.inputs));
        const { ascents } = await ascentsOf(world, table, objective, batch.samples, {
          sequences: asked(inputs.sequences) as typeof inputs.sequences,
          numbers: asked(numbers) as typeof numbers,
        });
        return vectorExpectation(logQ, onesLike(ascents), ascents);
      };
      const without = await meanAt(0);
      expect(largest(without)).toBeGreaterThan(0.01);
      for (const baseline of [1, -2.5, 30]) expectSame(await meanAt(baseline), without);
    },
  );
});

test("a baseline that is constant off-policy without its pi/q is wrong, by minus E_q grad log pi", async () => {
  // A = (pi/q)(R - B): B = q/pi leaves p/q - 1, which is the papers' P/q - Z over Z.
  const method = methodOf({ name: "gdc", baseline: "z" });
  const batch = setting.batch(logProposal);
  const { sequences, numbers } = method.inputs(batch, {}, undefined);
  const baseline = logProposal.map((value, n) => Math.exp(value - logPolicy[n]!));
  const inputs = { sequences: { ...sequences, baseline }, numbers };
  const { ascents } = await ascentsOf(world, table, method.objective, batch.samples, inputs);
  const bias = vectorExpectation(logProposal, new Float64Array(count).fill(-1), scores);
  expect(largest(bias)).toBeGreaterThan(0.01);
  expectSame(
    vectorExpectation(logProposal, onesLike(ascents), ascents),
    slope(setting, lessKl).map((value, k) => value + bias[k]!),
  );
});

test("a wrong Z scales the update of the GDC family and does not turn it", async () => {
  const wrong = 1.7;
  for (const baseline of ["none", "z"] as const) {
    const batch = { ...setting.batch(logProposal), logZ: logZ + Math.log(wrong) };
    const { mean } = await updates(setting, { name: "gdc++", baseline }, logProposal, {}, batch);
    expectSame(mean, times(1 / wrong, slope(setting, lessKl)));
  }
});

describe("over every batch of n samples", () => {
  const small = settingOf(createWorld(3, 2));
  const tiny = settingOf(createWorld(2, 2));
  const objectives = { small: ascended(small), tiny: ascended(tiny) };
  const klControl = (baseline: "none" | "mean" | "leave-one-out"): MethodSpec => ({ name: "kl-control", baseline, ...fixed });
  const rloo: MethodSpec = { name: "rloo", ...fixed };
  const reinforce = (baseline: "none" | "mean" | "leave-one-out"): MethodSpec => ({ name: "reinforce", baseline });

  describe("of 2 from 7 sequences", () => {
    const onPolicy = small.logPolicy;
    test.each<[string, MethodSpec, Float64Array, "reward" | "rewardLessKl", number]>([
      ["reinforce without baseline", reinforce("none"), onPolicy, "reward", 1],
      ["reinforce with leave-one-out", reinforce("leave-one-out"), onPolicy, "reward", 1],
      ["reinforce with the mean", reinforce("mean"), onPolicy, "reward", 1 / 2],
      ["kl-control without baseline", klControl("none"), onPolicy, "rewardLessKl", 1],
      ["kl-control with leave-one-out", klControl("leave-one-out"), onPolicy, "rewardLessKl", 1],
      ["kl-control with the mean", klControl("mean"), onPolicy, "rewardLessKl", 1 / 2],
      ["rloo", rloo, onPolicy, "rewardLessKl", 1],
      ["rloo off-policy, as on a second pass", rloo, small.logProposal, "rewardLessKl", 1],
      ["kl-control off-policy with leave-one-out", klControl("leave-one-out"), small.logProposal, "rewardLessKl", 1],
      ["reinforce off-policy with the mean", reinforce("mean"), small.logProposal, "reward", 1 / 2],
    ])("%s", async (_, spec, logQ, value, factor) => {
      const truth = slope(small, objectives.small[value]);
      expect(largest(truth)).toBeGreaterThan(0.05);
      expectSame(await overBatches(small, spec, 2, logQ), times(factor, truth));
    });
  });

  describe("of 3 from 3 sequences", () => {
    test.each<[string, MethodSpec, number]>([
      ["leave-one-out changes nothing", klControl("leave-one-out"), 1],
      ["rloo is that", rloo, 1],
      ["the mean shrinks by 1 - 1/3", klControl("mean"), 2 / 3],
    ])("%s", async (_, spec, factor) => {
      const truth = slope(tiny, objectives.tiny.rewardLessKl);
      expectSame(await overBatches(tiny, spec, 3, tiny.logPolicy), times(factor, truth));
    });
  });

  describe("reinforce-target", () => {
    const spec = (baseline: "none" | "mean" | "leave-one-out"): MethodSpec => ({ name: "reinforce-target", baseline });
    test.each<[string, MethodSpec, Float64Array, number]>([
      ["without baseline", spec("none"), small.logPolicy, 1],
      ["with leave-one-out", spec("leave-one-out"), small.logPolicy, 1],
      ["with the mean", spec("mean"), small.logPolicy, 1 / 2],
      ["off-policy", spec("leave-one-out"), small.logProposal, 1],
    ])("times the unit of its batch, the update is the gradient of E P: %s", async (_, method, logQ, factor) => {
      // Batches of 2 without any mass have the unit 1, and rewards of 0 in it.
      const found = await overBatches(small, method, 2, logQ, ({ logUnit }) => Math.exp(logUnit!));
      expectSame(found, times(factor, slope(small, objectives.small.mass)));
    });
    test("the update itself is that of log E P, with a bias that falls as the batch grows", async () => {
      const { mass: tinyMass } = objectives.tiny;
      const truth = slope(tiny, (pi) => Math.log(tinyMass(pi)));
      const off: number[] = [];
      for (const n of [1, 2, 4, 6]) off.push(distance(await overBatches(tiny, spec("none"), n, tiny.logPolicy), truth));
      // One sample is its own unit: each with any mass has a reward of 1, whatever its mass.
      for (const [i, value] of off.slice(1).entries()) expect(value).toBeLessThan(off[i]!);
      expect(off.at(-1)! / off[0]!).toBeLessThan(1 / 4);
    });
  });
});

describe("KL control is distribution matching", () => {
  const logEmergent = logBase.map((value, n) => value + reward[n]! / beta);
  const logZEmergent = logSumExp(logEmergent);
  const logPz = logEmergent.map((value) => value - logZEmergent);
  const klToEmergent = (pi: Float64Array) => sum(pi.map((value, n) => value * (Math.log(value) - logPz[n]!)));
  const klControl: MethodSpec = { name: "kl-control", baseline: "none", ...fixed };
  const reverseKl: MethodSpec = { name: "f-dpg", divergence: "reverse-kl", samplesFrom: "proposal", baseline: "none" };
  const towards = (logQ: Float64Array) => ({ ...setting.batch(logQ), logTarget: logEmergent, logZ: logZEmergent });

  test("the KL-penalised reward is -beta KL(pi, p_z) + beta log Z_z, for any pi", () => {
    for (const seed of [1, 5, 6]) {
      const pi = logProbs(world, randomTable(world, seed)).map(Math.exp);
      expect(Math.abs(rewardLessKl(pi) - beta * (logZEmergent - klToEmergent(pi)))).toBeLessThan(tolerance);
    }
  });
  test.each(drawn)(
    "its mean update is -beta grad KL(pi, p_z), f-dpg's for the reverse KL is 1/beta of it: %s",
    async (_, logQ) => {
      const truth = times(-1, slope(setting, klToEmergent));
      expect(largest(truth)).toBeGreaterThan(0.05);
      expectSame((await updates(setting, klControl, logQ)).mean, times(beta, truth));
      expectSame((await updates(setting, reverseKl, logQ, undefined, towards(logQ))).mean, truth);
    },
  );
  test("their rewards differ by a constant, term by term", async () => {
    const control = (await updates(setting, klControl, logPolicy)).outputs["advantage"]!;
    const matching = (await updates(setting, reverseKl, logPolicy, undefined, towards(logPolicy))).outputs["advantage"]!;
    expectSame(
      control.map((value, n) => value / beta - matching[n]!),
      times(logZEmergent + 1, onesLike(control)),
    );
  });
  test("at pi = p_z every reward is beta log Z_z, so that leave-one-out leaves no advantage and no noise", async () => {
    const there = { ...setting, table: tableOf(world, logPz) };
    const at = await updates(there, klControl, logPz);
    expectSame(at.outputs["advantage"]!, times(beta * logZEmergent, onesLike(logPz)));
    const without = await updates(there, { name: "rloo", ...fixed }, logPz);
    expect(largest(without.outputs["advantage"]!)).toBeLessThan(tolerance);
    for (const ascent of without.ascents) expect(largest(ascent)).toBeLessThan(tolerance);
  });
});

describe("one family", () => {
  const fKl = (baseline: "none" | "running"): MethodSpec => ({
    name: "f-dpg",
    divergence: "kl",
    samplesFrom: "proposal",
    baseline,
  });
  test.each<[string, MethodSpec, MethodSpec, Float64Array]>([
    ["f-dpg of KL(p, pi) with the baseline 1 is gdc++", fKl("running"), { name: "gdc++", baseline: "z" }, logProposal],
    ["f-dpg of KL(p, pi) without baseline is gdc", fKl("none"), { name: "gdc", baseline: "none" }, logProposal],
    ["dpg is gdc with q = pi", { name: "dpg", baseline: "none" }, { name: "gdc", baseline: "none" }, logPolicy],
    ["dpg with Z is gdc++ with q = pi", { name: "dpg", baseline: "z" }, { name: "gdc++", baseline: "z" }, logPolicy],
  ])("%s, term by term", async (_, one, other, logQ) => {
    const [a, b] = await Promise.all([one, other].map((spec) => updates(setting, spec, logQ, { baseline: 1 })));
    expect(a!.outputs["advantage"]).toEqual(b!.outputs["advantage"]);
    expect(a!.ascents).toEqual(b!.ascents);
  });
  test("gdc++ with q = pi subtracts 1 from P/(Z pi)", async () => {
    const { outputs } = await updates(setting, { name: "gdc++", baseline: "z" }, logPolicy);
    expectSame(
      outputs["advantage"]!,
      logTarget.map((value, n) => Math.exp(value - logZ - logPolicy[n]!) - 1),
    );
  });
  test("gdc++ pushes down exactly what has too much, and all that has no mass by -pi/q", async () => {
    const { outputs } = await updates(setting, { name: "gdc++", baseline: "z" }, logProposal);
    const advantage = outputs["advantage"]!;
    const lacking = logTarget.map((value, n) => Number(value - logZ > logPolicy[n]!));
    expect([...advantage.map((value) => Number(value > 0))]).toEqual([...lacking]);
    const none = [...advantage.keys()].filter((n) => logTarget[n] === Number.NEGATIVE_INFINITY);
    expect(none.length).toBeGreaterThan(0);
    // The same two numbers, subtracted and exponentiated in the same order.
    for (const n of none) expect(advantage[n]).toBe(-Math.exp(logPolicy[n]! - logProposal[n]!));
  });
  test("gdc++ has no advantage, and so no noise, at pi = q = p, although Z is not 1", async () => {
    const logP = logBase.map((value, n) => value + 1.3 * world.sequences[n]!.length);
    const logMass = logSumExp(logP);
    expect(Math.abs(logMass)).toBeGreaterThan(0.5);
    const normalized = logP.map((value) => value - logMass);
    const there = { ...setting, table: tableOf(world, normalized) };
    const batch = { ...setting.batch(normalized), logTarget: logP, logZ: logMass };
    const { ascents, outputs } = await updates(there, { name: "gdc++", baseline: "z" }, normalized, {}, batch);
    expect(largest(outputs["advantage"]!)).toBeLessThan(tolerance);
    for (const ascent of ascents) expect(largest(ascent)).toBeLessThan(tolerance);
    // Without the baseline every advantage is 1 there.
    const plain = await updates(there, { name: "gdc", baseline: "none" }, normalized, {}, batch);
    expectSame(plain.outputs["advantage"]!, onesLike(normalized));
    expect(largest(plain.ascents[0]!)).toBeGreaterThan(0.1);
  });
});

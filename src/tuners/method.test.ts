/** The rows without a critic: what each asks for, and what it makes of a batch. That the updates are right is in tests/exact. */

import { describe, expect, test } from "vitest";
import { samplesOf } from "../../tests/support/tabular-world.ts";
import { createWorld } from "../../tests/support/world.ts";
import { mean } from "../base/numeric.ts";
import { input } from "../engine/ops/index.ts";
import type { Shape } from "../engine/shape.ts";
import { type MethodSpec, methodOf, type ScoredSamples } from "./method.ts";

const never = Number.NEGATIVE_INFINITY;
const world = createWorld(3, 3);
const logProposal = Float64Array.of(-1, -2, -1.4, -0.6);
const batch = {
  samples: samplesOf(
    world,
    [0, 1, 2, 3],
    world.sequences.map((_, n) => logProposal[n] ?? never),
  ),
  logBase: Float64Array.of(-2, -1.5, -0.7, -1.1),
  logTarget: Float64Array.of(-1.2, -0.3, never, -2),
  logZ: 0.6,
  reward: Float64Array.of(0.5, -1, 2, 0.1),
};
const { logBase, logTarget, reward } = batch;
const control = { klCoefficient: 0.7, klControl: "fixed", klTarget: 0.5, klHorizon: 100 } as const;

const reinforce: MethodSpec = { name: "reinforce", baseline: "none" };
const reinforceTarget: MethodSpec = { name: "reinforce-target", baseline: "none" };
const klControl: MethodSpec = { name: "kl-control", baseline: "none", ...control };
const rloo: MethodSpec = { name: "rloo", ...control };
const dpg: MethodSpec = { name: "dpg", baseline: "none" };
const gdc: MethodSpec = { name: "gdc", baseline: "none" };
const gdcpp: MethodSpec = { name: "gdc++", baseline: "z" };
const fDpg = (rest: Partial<Extract<MethodSpec, { name: "f-dpg" }>> = {}): MethodSpec => ({
  name: "f-dpg",
  divergence: "js",
  samplesFrom: "proposal",
  baseline: "none",
  ...rest,
});

const specs = [reinforce, reinforceTarget, klControl, rloo, dpg, gdc, gdcpp, fDpg()] as const;

test.each<[string, MethodSpec, "policy" | "proposal", { reward: boolean; target: boolean }]>([
  ["reinforce", reinforce, "policy", { reward: true, target: false }],
  ["reinforce-target", reinforceTarget, "policy", { reward: false, target: true }],
  ["kl-control", klControl, "policy", { reward: true, target: false }],
  ["rloo", rloo, "policy", { reward: true, target: false }],
  ["dpg", dpg, "policy", { reward: false, target: true }],
  ["gdc", gdc, "proposal", { reward: false, target: true }],
  ["gdc++", gdcpp, "proposal", { reward: false, target: true }],
  ["f-dpg", fDpg({ samplesFrom: "policy" }), "policy", { reward: false, target: true }],
  ["f-dpg", fDpg({ samplesFrom: "proposal" }), "proposal", { reward: false, target: true }],
])("%s: where samples come from, and what it needs", (_, spec, samplesFrom, needs) => {
  const method = methodOf(spec);
  expect(method.samplesFrom).toBe(samplesFrom);
  expect(method.needs).toEqual({ ...needs, tokenLogBase: false, valueHead: false, prefixValue: false });
});

describe("a baseline of prefixes", () => {
  const spec: MethodSpec = { name: "gdc++", baseline: "prefix" };
  const perToken = (step: number) => Float32Array.from({ length: 12 }, (_, i) => -step * (i + 1));
  const told: ScoredSamples = { ...batch, tokenLogBase: perToken(0.5), logPrefixValues: perToken(0.25) };

  test("needs what each token's prefix promises and log a of each token; begins with all trust", () => {
    const method = methodOf(spec);
    expect(method.samplesFrom).toBe("proposal");
    expect(method.needs).toEqual({ reward: false, target: true, tokenLogBase: true, valueHead: false, prefixValue: true });
    expect(method.begin(undefined)).toEqual({ prefixTrust: 1 });
    for (const name of ["dpg", "gdc"] as const) expect(methodOf({ name, baseline: "prefix" }).needs).toEqual(method.needs);
    const inputs = (given: ScoredSamples) => () => method.inputs(given, { prefixTrust: 1 }, undefined);
    expect(inputs(batch)).toThrow("expected samples with log a of each token");
    expect(inputs({ ...batch, tokenLogBase: perToken(1) })).toThrow("expected samples with what each token's prefix promises");
    expect(() => method.inputs(told, {}, undefined)).toThrow("expected samples with a trust in prefixes");
  });

  test("makes of them log p of each prefix: what it promises, and log a of the tokens before", () => {
    const { sequences, tokens, numbers, measures } = methodOf(spec).inputs(told, { prefixTrust: 0.4 }, undefined);
    expect(sequences).toStrictEqual({ logProposal, logTarget });
    expect(numbers).toEqual({ logZ: 0.6, prefixTrust: 0.4 });
    expect(measures).toEqual({ prefixTrust: 0.4 });
    const { lengths, maxTokens } = batch.samples;
    const wanted = new Float32Array(12);
    for (const [b, length] of lengths.entries())
      for (let t = 0; t < length; t++) {
        const at = b * maxTokens + t;
        wanted[at] =
          told.logPrefixValues![at]! +
          Array.from({ length: t }, (_, s) => told.tokenLogBase![at - 1 - s]!).reduce((x, y) => x + y, 0);
      }
    // All of them are quarters, which float32 holds exactly.
    expect(tokens["logPrefixTarget"]).toEqual(wanted);
  });

  test.each<[string, number[], number[], number]>([
    ["goes three tenths of the way to what was best", [1, 0.2], [2, 1], 0.9 + 0.3 * (0.4 - 0.9)],
    ["but not below 0", [-5, 1], [1, 1], 0.9 * 0.7],
    ["nor above 1", [5, 1], [1, 1], 0.9 * 0.7 + 0.3],
    ["and stays where nothing was promised", [0, 0], [0, 0], 0.9],
  ])("its trust %s", (_, gain, spread, wanted) => {
    const outputs = { prefixGain: Float64Array.from(gain), prefixSpread: Float64Array.from(spread) };
    const { prefixTrust } = methodOf(spec).observe({ prefixTrust: 0.9 }, batch, outputs);
    expect(prefixTrust).toBeCloseTo(wanted, 14);
  });
});

describe("what a batch is made into", () => {
  test.each(specs.map((spec) => [spec.name, spec] as const))("%s: as the objective asks, and nothing else", (_, spec) => {
    const method = methodOf(spec);
    const { sequences, tokens, numbers } = method.inputs(batch, method.begin(batch), undefined);
    const wanted = Object.entries(method.objective.inputs).filter(([name]) => name !== "scale");
    const ofRank = (rank: number) => wanted.filter(([, { shape }]) => shape.length === rank).map(([name]) => name);
    expect(Object.keys(sequences).sort()).toEqual(ofRank(1).sort());
    expect(Object.keys(numbers).sort()).toEqual(ofRank(0).sort());
    expect(tokens).toEqual({});
    for (const list of Object.values(sequences)) expect(list.length).toBe(4);
  });

  const made = (spec: MethodSpec, controls = {}, given: ScoredSamples = batch) =>
    methodOf(spec).inputs(given, controls, undefined);

  test("each score is what it is called", () => {
    expect(made(klControl, { klCoefficient: 0.3 })).toStrictEqual({
      sequences: { logProposal, logBase, reward },
      tokens: {},
      numbers: { klCoefficient: 0.3 },
      measures: { klCoefficient: 0.3 },
    });
    expect(made(gdcpp)).toStrictEqual({
      sequences: { logProposal, logTarget, baseline: new Float64Array(4).fill(1) },
      tokens: {},
      numbers: { logZ: 0.6 },
      measures: {},
    });
  });
  test("P as a reward is counted in units of its mean in the batch, and of 1 where there is none", () => {
    expect(made(reinforceTarget).numbers["logUnit"]).toBeCloseTo(Math.log(mean(logTarget.map(Math.exp))), 14);
    const without = { ...batch, logTarget: logTarget.map(() => never) };
    expect(made(reinforceTarget, {}, without).numbers).toEqual({ logUnit: 0 });
  });

  const withBaseline = (spec: MethodSpec, baseline: "none" | "mean" | "leave-one-out"): MethodSpec =>
    ({ ...spec, baseline }) as MethodSpec;
  const penalized = reward.map((value, b) => value - 0.7 * (logProposal[b]! - logBase[b]!));
  const inUnits = logTarget.map((value) => Math.exp(value) / mean(logTarget.map(Math.exp)));
  const others = (list: Float64Array) =>
    list.map((_, b) => {
      const rest = list.filter((_, c) => c !== b);
      return (rest[0]! + rest[1]! + rest[2]!) / 3;
    });

  test.each<[string, MethodSpec, Float64Array]>([
    ["reinforce", reinforce, reward],
    ["kl-control", klControl, penalized],
    ["reinforce-target", reinforceTarget, inUnits],
  ])("baselines of %s are of its rewards at the proposal", (_, spec, rewards) => {
    const controls = methodOf(spec).begin(undefined);
    const close = (list: ArrayLike<number>) => Float64Array.from(list, (value) => Number(value.toFixed(12)));
    expect(made(withBaseline(spec, "none"), controls).sequences).not.toHaveProperty("baseline");
    const baselines = (["mean", "leave-one-out"] as const).map((name) =>
      close(made(withBaseline(spec, name), controls).sequences["baseline"]!),
    );
    const average = new Float64Array(4).fill(mean(rewards));
    expect(baselines).toEqual([average, others(rewards)].map(close));
  });
  test("rloo's is that of kl-control with leave-one-out", () => {
    const controls = { klCoefficient: 0.7 };
    expect(made(rloo, controls)).toEqual(made(withBaseline(klControl, "leave-one-out"), controls));
  });
  test.each<[string, MethodSpec, number | undefined]>([
    ["dpg", dpg, undefined],
    ["gdc", gdc, undefined],
    ["gdc++ without", { name: "gdc++", baseline: "none" }, undefined],
    ["dpg with z", { name: "dpg", baseline: "z" }, 1],
    ["gdc with z", { name: "gdc", baseline: "z" }, 1],
    ["gdc++", gdcpp, 1],
    ["f-dpg", fDpg(), undefined],
    ["f-dpg with a running mean", fDpg({ baseline: "running" }), 0.37],
  ])("the baseline of %s", (_, spec, wanted) =>
    expect(made(spec, { baseline: 0.37 }).sequences["baseline"]).toEqual(wanted && new Float64Array(4).fill(wanted)),
  );
  test.each<[string, MethodSpec, "reward" | "logTarget" | "logZ", string]>([
    ["reinforce", reinforce, "reward", "a reward"],
    ["reinforce-target", reinforceTarget, "logTarget", "log P(x)"],
    ["gdc++", gdcpp, "logTarget", "log P(x)"],
    ["f-dpg", fDpg(), "logZ", "log Z"],
  ])("%s says what it misses", (_, spec, missing, words) => {
    const { [missing]: _without, ...rest } = batch;
    expect(() => made(spec, {}, rest as ScoredSamples)).toThrow(`expected samples with ${words}`);
  });
  test("a method with something to remember says so when it is not given", () => {
    expect(() => made(klControl)).toThrow("a KL coefficient");
    expect(() => made(fDpg({ baseline: "running" }))).toThrow("a running baseline");
  });
});

describe("what it remembers", () => {
  const outputs = { weightedReward: Float64Array.of(1, 2, 3, 6), advantage: Float64Array.of(9, 9, 9, 9) };

  test("a method without anything to remember remembers nothing", () => {
    for (const spec of [reinforce, reinforceTarget, dpg, gdc, gdcpp, fDpg()]) {
      expect(methodOf(spec).begin(undefined)).toEqual({});
      expect(methodOf(spec).observe({}, batch, outputs)).toStrictEqual({});
    }
  });
  test("beta starts where the user says, and stays there or follows KL(pi, a)", () => {
    const kl = mean(logProposal.map((value, b) => value - logBase[b]!));
    expect(kl).toBeCloseTo(0.075, 12);
    for (const spec of [klControl, rloo]) {
      expect(methodOf(spec).begin(undefined)).toEqual({ klCoefficient: 0.7 });
      expect(methodOf(spec).observe({ klCoefficient: 0.5 }, batch, outputs)).toEqual({ klCoefficient: 0.5 });
      const adaptive = methodOf({ ...spec, klControl: "adaptive", klTarget: kl / 1.1 } as MethodSpec);
      // 4 sequences of a horizon of 100, an error of a tenth.
      expect(adaptive.observe({ klCoefficient: 0.5 }, batch, outputs)).toEqual({
        klCoefficient: expect.closeTo(0.5 * (1 + (0.1 * 4) / 100), 12),
      });
    }
  });
  test("a running baseline starts with R of the base's samples, and goes a tenth of the way to each batch's (pi/q) R", () => {
    const method = methodOf(fDpg({ baseline: "running" }));
    // R of JS: log((1 + p/q)/2)/2, pi being the base that drew them.
    const rewards = logTarget.map((value, b) => Math.log((1 + Math.exp(value - 0.6 - logProposal[b]!)) / 2) / 2);
    const begun = method.begin(batch);
    expect(begun).toEqual({ baseline: expect.closeTo(mean(rewards), 14) });
    expect(() => method.begin(undefined)).toThrow("samples with the base's own");
    // The mean of (pi/q) R is 3: 2 + 0.1 (3 - 2).
    const before = { baseline: 2 };
    expect(method.observe(before, batch, outputs)).toEqual({ baseline: expect.closeTo(2.1, 14) });
    expect(before).toEqual({ baseline: 2 });
  });
});

const value = (name: string, shape: Shape = ["B"]) => input(name, "f32", shape);

test.each<[string, MethodSpec]>([
  ["dpg", { name: "dpg", baseline: "none", clampLogWeight: 1 }],
  ["gdc", { name: "gdc", baseline: "none", clampLogWeight: 1 }],
  ["gdc++", { name: "gdc++", baseline: "z", clampLogWeight: 1 }],
  ["f-dpg", fDpg({ divergence: "kl", baseline: "running", clampLogWeight: 1 })],
])("the bound on weights of %s comes through", (_, spec) => {
  // p/q of one sample of the base is e^2.3: a running baseline starts with it cut to e.
  const logs = Float64Array.of(-4);
  const one = { samples: samplesOf(world, [0], logs), logBase: logs, logTarget: Float64Array.of(-1.1), logZ: 0.6 };
  const { objective, begin } = methodOf(spec);
  const policy = { logPolicy: value("policy"), tokenLogPolicy: value("policy"), mask: value("policy") };
  const inputs = Object.fromEntries(Object.entries(objective.inputs).map(([name, { shape }]) => [name, value(name, shape)]));
  expect(objective.build(policy, inputs).outputs).toHaveProperty("clamped");
  if (spec.name === "f-dpg") expect(begin(one)).toEqual({ baseline: expect.closeTo(Math.E, 14) });
});

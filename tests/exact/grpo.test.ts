/**
 * GRPO on a world where every sequence is listed, through its own training graph and tuner (docs/math.md M43, M45).
 * Tolerances: 1e-12 for sums of a few dozen float64 terms of order one; 1e-9 against central differences, whose own error is of the order of 1e-11
 * (step 1e-5); 1e-6 where numbers have been through the float32 of a batch's tokens.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, mean, sum, variance } from "../../src/base/numeric.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { groupAdvantage } from "../../src/tuners/advantage.ts";
import { grpoObjective } from "../../src/tuners/clipped.ts";
import { type MethodSpec, methodOf } from "../../src/tuners/method.ts";
import { createTuner } from "../../src/tuners/tuner.ts";
import {
  centralDifferences,
  f64,
  inputsOfSequence,
  perToken,
  scoredOf,
  summedGradient,
  tokenLogProbs,
  uploaded,
} from "../support/ppo-world.ts";
import { tableOfWeights, tabularModelOf, weightsOfTable } from "../support/tabular-world.ts";
import {
  createWorld,
  expectation,
  gradLogProb,
  logProbs,
  prefixIndex,
  randomTable,
  vectorExpectation,
  type World,
} from "../support/world.ts";

const world = createWorld(3, 3);
const { sequences } = world;
const count = sequences.length;
const everything = Array.from({ length: count }, (_, n) => n);
const model = tabularModelOf(world);
const oldTable = randomTable(world, 1);
const baseTable = randomTable(world, 3);
const logOld = logProbs(world, oldTable);
const logBase = logProbs(world, baseTable);
const stream = streamOf(keyOf(1, "grpo"));
const reward = Float64Array.from({ length: count }, () => stream.normal());
/** Away from the policy that drew the batch. */
const movedTable = oldTable.map((value) => value + 0.8 * stream.normal());
const beta = 0.3;

const spec: MethodSpec & { readonly name: "grpo" } = {
  name: "grpo",
  clip: 0.2,
  scaleByDeviation: true,
  lengthScale: "sequence",
  klCoefficient: beta,
  klControl: "fixed",
  klTarget: 0.5,
  klHorizon: 1000,
};
const lengthScales = ["sequence", "batch", "constant"] as const;

const furthest = (a: Float64Array, b: Float64Array): number => {
  expect(a.length).toBe(b.length);
  return Math.max(...a.map((value, k) => Math.abs(value - b[k]!)));
};

describe("the update is the gradient of the clipped loss with its penalty", () => {
  const batch = scoredOf(world, { policy: oldTable, base: baseTable, reward }, everything);
  const advantages = groupAdvantage(reward, true);
  const meanLength = mean(sequences.map((ids) => ids.length));
  const weightOf: Record<(typeof lengthScales)[number], (length: number) => number> = {
    sequence: (length) => 1 / length,
    batch: () => 1 / meanLength,
    constant: () => 1 / world.maxTokens,
  };
  const ratios = (table: Float64Array, n: number): Float64Array => {
    const then = tokenLogProbs(world, oldTable, sequences[n]!);
    return tokenLogProbs(world, table, sequences[n]!).map((value, t) => Math.exp(value - then[t]!));
  };
  /** By definition (M45): the expectation over the old policy, everything but pi being fixed. */
  const lossAt = (table: Float64Array, lengthScale: (typeof lengthScales)[number]): number =>
    sum(
      everything.map((n) => {
        const ids = sequences[n]!;
        const [policy, base] = [tokenLogProbs(world, table, ids), tokenLogProbs(world, baseTable, ids)];
        const perToken = ratios(table, n).map((ratio, t) => {
          const A = advantages[n]!;
          const baseOverPolicy = Math.exp(base[t]!) / Math.exp(policy[t]!);
          const clipped = Math.min(Math.max(ratio, 1 - spec.clip), 1 + spec.clip);
          return -Math.min(ratio * A, clipped * A) + beta * (baseOverPolicy - Math.log(baseOverPolicy) - 1);
        });
        return Math.exp(logOld[n]!) * weightOf[lengthScale](ids.length) * sum(perToken);
      }),
    );

  describe.each(lengthScales)("lengthScale %s", (lengthScale) => {
    const method = methodOf({ ...spec, lengthScale });
    const inputs = method.inputs(batch, method.begin(undefined), undefined);
    const ofGraph = (table: Float64Array) =>
      summedGradient(world, model, method.objective, weightsOfTable(world, table), (n) => ({
        ...inputsOfSequence(world, inputs, n, Math.exp(logOld[n]!)),
        // The batch has these two in float32; here nothing is to be lost.
        tokenLogProposal: perToken(world, tokenLogProbs(world, oldTable, sequences[n]!)),
        tokenLogBase: perToken(world, tokenLogProbs(world, baseTable, sequences[n]!)),
      }));
    test.each([
      ["at the policy that drew the batch", oldTable],
      ["away from it", movedTable],
    ])("%s", async (_, table) => {
      const { gradient, loss } = await ofGraph(table);
      expect(loss).toBeCloseTo(lossAt(table, lengthScale), 12);
      const differences = centralDifferences((at) => lossAt(at, lengthScale), table);
      expect(furthest(gradient, differences)).toBeLessThan(1e-9);
      expect(Math.max(...gradient.map(Math.abs))).toBeGreaterThan(0.05);
    });
  });
  test("where every branch of the clip is taken, and no token lies on an edge", () => {
    const tokens = everything.flatMap((n) => [...ratios(movedTable, n)].map((ratio) => ({ ratio, advantage: advantages[n]! })));
    for (const some of [
      tokens.filter(({ ratio, advantage }) => ratio > 1 + spec.clip && advantage > 0),
      tokens.filter(({ ratio, advantage }) => ratio > 1 + spec.clip && advantage < 0),
      tokens.filter(({ ratio, advantage }) => ratio < 1 - spec.clip && advantage > 0),
      tokens.filter(({ ratio, advantage }) => ratio < 1 - spec.clip && advantage < 0),
    ])
      expect(some.length).toBeGreaterThan(0);
    for (const { ratio } of tokens) expect(Math.abs(Math.abs(ratio - 1) - spec.clip)).toBeGreaterThan(1e-3);
  });
});

/** sum_x pi(x) of the objective's gradient and outputs at pi = q, one token counting 1. */
const atPolicy = async (table: Float64Array, advantage: ArrayLike<number>, klCoefficient: number) => {
  const logPolicy = logProbs(world, table);
  return summedGradient(world, model, grpoObjective(spec), weightsOfTable(world, table), (n) => ({
    tokenLogProposal: perToken(world, tokenLogProbs(world, table, sequences[n]!)),
    tokenLogBase: perToken(world, tokenLogProbs(world, baseTable, sequences[n]!)),
    advantage: f64([1], [advantage[n]!]),
    klCoefficient: f64([], [klCoefficient]),
    lengthWeight: f64([1], [1]),
    scale: f64([], [Math.exp(logPolicy[n]!)]),
  }));
};
const none = new Float64Array(count);

/** What the tokens after each prefix are drawn with [P, V]. */
const conditional = ({ vocabulary, prefixes }: World, table: Float64Array): Float64Array => {
  const result = new Float64Array(table.length);
  for (let row = 0; row < prefixes; row++) {
    const logits = table.subarray(row * vocabulary, (row + 1) * vocabulary);
    result.set(
      logits.map((logit) => Math.exp(logit - logSumExp(logits))),
      row * vocabulary,
    );
  }
  return result;
};

describe("at the policy that drew the batch", () => {
  test("the surrogate's gradient is the advantage's policy gradient", async () => {
    const { gradient } = await atPolicy(oldTable, reward, 0);
    const scores = sequences.map((ids) => gradLogProb(world, oldTable, ids));
    expect(
      furthest(
        gradient,
        vectorExpectation(logOld, reward, scores).map((value) => -value),
      ),
    ).toBeLessThan(1e-12);
  });
  test("the penalty's value is KL(pi, a)", async () => {
    const kl = expectation(
      logOld,
      logOld.map((value, n) => value - logBase[n]!),
    );
    expect(kl).toBeGreaterThan(0.3);
    expect((await atPolicy(oldTable, none, 1)).loss).toBeCloseTo(kl, 12);
  });
  test("the penalty's gradient is that of KL(a, pi) after each prefix, as often as the policy comes there", async () => {
    const [policy, base] = [conditional(world, oldTable), conditional(world, baseTable)];
    const reached = new Float64Array(world.prefixes);
    for (const [n, ids] of sequences.entries())
      for (let t = 0; t < ids.length; t++) reached[prefixIndex(world, ids, t)]! += Math.exp(logOld[n]!);
    // The gradient of KL(a, pi) over the logits of one row is pi - a.
    const wanted = policy.map((value, k) => reached[Math.floor(k / world.vocabulary)]! * (value - base[k]!));
    const { gradient } = await atPolicy(oldTable, none, 1);
    expect(furthest(gradient, wanted)).toBeLessThan(1e-12);
    // That of KL(pi, a) is another.
    const scores = sequences.map((ids) => gradLogProb(world, oldTable, ids));
    const reverse = vectorExpectation(
      logOld,
      logOld.map((value, n) => value - logBase[n]!),
      scores,
    );
    expect(furthest(gradient, reverse)).toBeGreaterThan(0.1);
  });
  test("so p_z, where KL control has nothing left to do, is not where it stops", async () => {
    // p_z as a table: the logits of a prefix are the log of what comes after each next token, with its exp(r/beta).
    const tilted = logBase.map((value, n) => value + reward[n]! / beta);
    const sums = Array.from({ length: baseTable.length }, () => [Number.NEGATIVE_INFINITY]);
    for (const [n, ids] of sequences.entries())
      for (let t = 0; t < ids.length; t++) sums[prefixIndex(world, ids, t) * world.vocabulary + ids[t]!]!.push(tilted[n]!);
    const table = Float64Array.from(sums, (list) => logSumExp(list));
    const logTilted = logProbs(world, table);
    const logZ = logSumExp(tilted);
    expect(
      furthest(
        logTilted,
        tilted.map((value) => value - logZ),
      ),
    ).toBeLessThan(1e-12);
    const scores = sequences.map((ids) => gradLogProb(world, table, ids));
    const klControl = vectorExpectation(
      logTilted,
      reward.map((r, n) => r - beta * (logTilted[n]! - logBase[n]!)),
      scores,
    );
    expect(Math.max(...klControl.map(Math.abs))).toBeLessThan(1e-12);
    const average = expectation(logTilted, reward);
    const { gradient } = await atPolicy(
      table,
      reward.map((r) => r - average),
      beta,
    );
    expect(Math.max(...gradient.map(Math.abs))).toBeGreaterThan(0.01);
  });
});

describe("what is worked out of a batch", () => {
  /** Lengths 1, 2, 3, 3. */
  const chosen = [...[1, 2, 3].map((length) => sequences.findIndex((ids) => ids.length === length)), count - 1];
  const batch = scoredOf(world, { policy: oldTable, base: baseTable, reward }, chosen);
  const rewards = chosen.map((n) => reward[n]!);
  const controls = { klCoefficient: 0.7 };
  const made = (change: Partial<typeof spec> = {}) => methodOf({ ...spec, ...change }).inputs(batch, controls, undefined);

  test("one advantage per text, with and without the deviation", () => {
    const centred = rewards.map((value) => value - mean(rewards));
    const deviation = Math.sqrt(variance(rewards));
    for (const [b, value] of centred.entries()) {
      expect(made({ scaleByDeviation: false }).sequences["advantage"]![b]).toBeCloseTo(value, 12);
      // 1e-8 beside a variance of order one.
      expect(made().sequences["advantage"]![b]).toBeCloseTo(value / deviation, 7);
    }
  });
  test("a token counts 1/length, 1/mean length, or 1/longest length possible", () => {
    expect([...made().sequences["lengthWeight"]!]).toEqual([1, 1 / 2, 1 / 3, 1 / 3]);
    expect([...made({ lengthScale: "batch" }).sequences["lengthWeight"]!]).toEqual([4 / 9, 4 / 9, 4 / 9, 4 / 9]);
    expect([...made({ lengthScale: "constant" }).sequences["lengthWeight"]!]).toEqual([1 / 3, 1 / 3, 1 / 3, 1 / 3]);
    // Texts cut well before the longest possible: the two are not the same.
    const short = { ...batch, samples: { ...batch.samples, lengths: Int32Array.of(1, 2, 2, 1) } };
    const weights = methodOf({ ...spec, lengthScale: "constant" }).inputs(short, controls, undefined).sequences["lengthWeight"]!;
    expect([...weights]).toEqual([1 / 3, 1 / 3, 1 / 3, 1 / 3]);
  });
  test("log q and log a of each token, and beta", () => {
    const { tokens, numbers, measures, advantages, sequences: perSequence } = made();
    expect(tokens).toEqual({ tokenLogBase: batch.tokenLogBase, tokenLogProposal: batch.samples.tokenLogProbs });
    expect(numbers).toEqual(controls);
    expect(measures).toEqual(controls);
    expect(advantages).toBeUndefined();
    expect(Object.keys(perSequence).sort()).toEqual(["advantage", "lengthWeight"]);
  });
  test("needs a reward, log a of each token and a KL coefficient, and says so", () => {
    const method = methodOf(spec);
    expect(method.needs).toEqual({ reward: true, target: false, tokenLogBase: true, valueHead: false, prefixValue: false });
    expect(method.samplesFrom).toBe("policy");
    const { samples, logBase: logBaseOf, tokenLogBase } = batch;
    expect(() => method.inputs({ samples, logBase: logBaseOf, tokenLogBase }, controls, undefined)).toThrow(
      "method: expected samples with a reward",
    );
    expect(() => method.inputs({ samples, logBase: logBaseOf, reward: batch.reward }, controls, undefined)).toThrow(
      "method: expected samples with log a of each token",
    );
    expect(() => method.inputs(batch, {}, undefined)).toThrow("method: expected samples with a KL coefficient");
  });
  test("the KL coefficient begins where the config says and follows the batch's KL(pi, a)", () => {
    const kl = mean(chosen.map((n) => logOld[n]! - logBase[n]!));
    expect(kl).toBeGreaterThan(0.01);
    const method = methodOf({ ...spec, klControl: "adaptive", klTarget: kl / 1.05, klHorizon: 40 });
    expect(method.begin(undefined)).toEqual({ klCoefficient: beta });
    // An error of 5%, of 4 texts in 40.
    expect(method.observe(controls, batch, {}).klCoefficient).toBeCloseTo(0.7 * (1 + 0.05 / 10), 12);
  });
});

describe("tuner", () => {
  const chosen = [0, 3, 5, 8, 12, 14, 3, 7];
  const batch = scoredOf(world, { policy: oldTable, base: baseTable, reward }, chosen);
  const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
  const tunerOf = (microBatch: number, change: Partial<typeof spec> = {}) =>
    createTuner(referenceDevice, model, methodOf({ ...spec, ...change }), { adam, microBatch });
  const start = (table: Float64Array) => uploaded(weightsOfTable(world, table));

  test.each(lengthScales)("a step does not depend on how the batch is cut: lengthScale %s", async (lengthScale) => {
    const results = await Promise.all(
      [8, 3, 1].map(async (microBatch) => {
        const tuner = await tunerOf(microBatch, { lengthScale });
        const { state, report } = await tuner.step(tuner.start(start(oldTable)), batch, 0.1);
        return { table: tableOfWeights(world, await state.weights["logits"]!.read()), report };
      }),
    );
    for (const { table, report } of results.slice(1)) {
      expect(furthest(table, results[0]!.table)).toBeLessThan(1e-12);
      expect(report.loss).toBeCloseTo(results[0]!.report.loss, 12);
    }
  });
  test("has no value head, and reports its advantages, the share that is clipped and the penalty", async () => {
    const tuner = await tunerOf(3);
    const state = tuner.start(start(movedTable));
    expect(Object.keys(state.weights)).toEqual(["logits"]);
    expect(tuner.policyWeights(state)).toEqual(state.weights);
    const { report } = await tuner.step(state, batch, 0.1);
    const advantages = groupAdvantage(batch.reward, true);
    expect(report.advantageMean).toBeCloseTo(0, 6);
    expect(report.advantageMeanAbs).toBeCloseTo(mean(advantages.map(Math.abs)), 6);
    expect(report.advantageVariance).toBeCloseTo(1, 6);
    const perText = (pick: (policy: number, then: number, base: number) => number): number =>
      mean(
        chosen.map((n) => {
          const [policy, then, base] = [movedTable, oldTable, baseTable].map((table) =>
            tokenLogProbs(world, table, sequences[n]!),
          );
          return mean(policy!.map((value, t) => pick(value, then![t]!, base![t]!)));
        }),
      );
    const clipFraction = perText((policy, then) => Number(Math.abs(Math.exp(policy - then) - 1) > spec.clip));
    expect(clipFraction).toBeGreaterThan(0);
    expect(clipFraction).toBeLessThan(1);
    expect(report.measures["clipFraction"]).toBeCloseTo(clipFraction, 6);
    const penalty = perText((policy, _, base) => Math.exp(base - policy) - (base - policy) - 1);
    expect(report.measures["klPenalty"]).toBeCloseTo(penalty, 6);
    expect(Object.keys(report.measures).sort()).toEqual(["clipFraction", "klCoefficient", "klPenalty"]);
    for (const [b, n] of chosen.entries()) expect(report.logPolicy[b]).toBeCloseTo(logProbs(world, movedTable)[n]!, 6);
  });
  test("a gradient whose norm is past float32 leaves the state as it was, although the loss is a number", async () => {
    const device = cpuDevice({ threads: 1 });
    const tuner = await createTuner(device, model, methodOf({ ...spec, scaleByDeviation: false }), { adam, microBatch: 8 });
    const state = tuner.start(start(oldTable));
    const result = await tuner.step(state, { ...batch, reward: batch.reward.map((value) => 1e25 * value) }, 0.1);
    expect([Number.isFinite(result.report.loss), result.report.gradNorm]).toEqual([true, Number.POSITIVE_INFINITY]);
    expect(result.report.finite).toBe(false);
    expect(result.state).toBe(state);
  });
  test("equal rewards teach nothing at the base itself: no gradient, and no NaN", async () => {
    const flat = scoredOf(world, { policy: baseTable, base: baseTable, reward: none.map(() => 0.4) }, chosen);
    const tuner = await tunerOf(3);
    const { state, report } = await tuner.step(tuner.start(start(baseTable)), flat, 0.1);
    expect(report.finite).toBe(true);
    // What is left is the float32 of log a: 1 - a/pi of 1e-7.
    expect(report.gradNorm).toBeLessThan(1e-6);
    expect(report.advantageVariance).toBe(0);
    expect(state.adam.step).toBe(1);
  });
});

/**
 * PPO on a world where every sequence is listed, through its own training graph and tuner (docs/math.md M25, M43, M44, M46).
 * Tolerances: 1e-12 for sums of a few dozen float64 terms of order one; 1e-9 against central differences, whose own error is of the order of 1e-11
 * (step 1e-5); 1e-6 where numbers have been through the float32 of a batch's tokens.
 */

import { describe, expect, test } from "vitest";
import { mean, sum, variance } from "../../src/base/numeric.ts";
import { keyOf, permutation, streamOf } from "../../src/base/random.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { withValueHead } from "../../src/models/value-head.ts";
import { createOptimizer } from "../../src/optim/adam.ts";
import { explainedVariance, generalizedAdvantages } from "../../src/tuners/advantage.ts";
import { ppoObjective } from "../../src/tuners/clipped.ts";
import { type MethodSpec, methodOf } from "../../src/tuners/method.ts";
import { createTraining } from "../../src/tuners/training.ts";
import { createTuner, type TunerOptions } from "../../src/tuners/tuner.ts";
import {
  centralDifferences,
  f64,
  flatOf,
  inputsOfSequence,
  perToken,
  scoredOf,
  summedGradient,
  tableOf,
  tokenLogProbs,
  tokenValues,
  uploaded,
  weightsOfFlat,
  zerosOf,
} from "../support/ppo-world.ts";
import { forcedSequence, tabularModelOf, weightsOfTable } from "../support/tabular-world.ts";
import {
  createWorld,
  drawSequences,
  gradLogProb,
  logProbs,
  prefixIndex,
  randomTable,
  vectorExpectation,
} from "../support/world.ts";

const world = createWorld(3, 3);
const { sequences } = world;
const count = sequences.length;
const everything = Array.from({ length: count }, (_, n) => n);
const tableSize = world.prefixes * world.vocabulary;
const policyModel = tabularModelOf(world);
const model = withValueHead(policyModel);

const normals = (seed: number, length: number, scale = 1): Float64Array => {
  const stream = streamOf(keyOf(seed, "ppo"));
  return Float64Array.from({ length }, () => scale * stream.normal());
};
const plus = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, k) => value + b[k]!);
const furthest = (a: Float64Array, b: Float64Array): number => {
  expect(a.length).toBe(b.length);
  return Math.max(...a.map((value, k) => Math.abs(value - b[k]!)));
};

/** The policy that drew the batch, with its value head. */
const old = Float64Array.from([...randomTable(world, 1), ...normals(1, world.prefixes + 1)]);
const baseTable = randomTable(world, 3);
const logOld = logProbs(world, tableOf(world, old));
const logBase = logProbs(world, baseTable);
const reward = normals(4, count);
const beta = 0.3;

const spec: MethodSpec & { readonly name: "ppo" } = {
  name: "ppo",
  clip: 0.2,
  valueClip: 0.2,
  valueCoefficient: 0.1,
  discount: 1,
  gaeLambda: 1,
  whiten: false,
  klCoefficient: beta,
  klControl: "fixed",
  klTarget: 0.5,
  klHorizon: 1000,
};

describe("the update is the gradient of the clipped loss", () => {
  const { clip, valueClip, valueCoefficient } = spec;
  const advantages = sequences.map((ids, n) => normals(100 + n, ids.length));
  const lengthWeights = everything.map((n) => 0.2 + 0.1 * n);
  const returns = sequences.map((ids, n) => normals(200 + n, ids.length));

  interface Token {
    readonly ratio: number;
    readonly advantage: number;
    readonly value: number;
    readonly oldValue: number;
    readonly wanted: number;
  }
  const tokensOf = (flat: Float64Array, n: number): Token[] => {
    const ids = sequences[n]!;
    const [now, then] = [tokenLogProbs(world, tableOf(world, flat), ids), tokenLogProbs(world, tableOf(world, old), ids)];
    const [value, oldValue] = [tokenValues(world, flat, ids), tokenValues(world, old, ids)];
    return Array.from(ids, (_, t) => ({
      ratio: Math.exp(now[t]! - then[t]!),
      advantage: advantages[n]![t]!,
      value: value[t]!,
      oldValue: oldValue[t]!,
      wanted: returns[n]![t]!,
    }));
  };
  const errors = ({ value, oldValue, wanted }: Token): [free: number, near: number] => [
    (value - wanted) ** 2,
    (Math.min(Math.max(value, oldValue - valueClip), oldValue + valueClip) - wanted) ** 2,
  ];
  /** By definition (M43): the expectation over the old policy, everything but pi and V being fixed. */
  const lossAt = (flat: Float64Array): number =>
    sum(
      everything.map((n) => {
        const perToken = tokensOf(flat, n).map((token) => {
          const { ratio, advantage } = token;
          const clipped = Math.min(Math.max(ratio, 1 - clip), 1 + clip);
          const surrogate = Math.min(ratio * advantage, clipped * advantage);
          return -surrogate + (valueCoefficient * Math.max(...errors(token))) / 2;
        });
        return Math.exp(logOld[n]!) * lengthWeights[n]! * sum(perToken);
      }),
    );
  const ofGraph = (flat: Float64Array) =>
    summedGradient(world, model, ppoObjective(spec), weightsOfFlat(world, model, flat), (n) => ({
      tokenLogProposal: perToken(world, tokenLogProbs(world, tableOf(world, old), sequences[n]!)),
      tokenAdvantage: perToken(world, advantages[n]!),
      tokenReturn: perToken(world, returns[n]!),
      tokenValue: perToken(world, tokenValues(world, old, sequences[n]!)),
      lengthWeight: f64([1], [lengthWeights[n]!]),
      scale: f64([], [Math.exp(logOld[n]!)]),
    }));
  const moved = plus(old, normals(5, old.length, 0.4));

  test.each([
    ["at the policy that drew the batch", old],
    ["away from it", moved],
  ])("%s: over the table and the value head", async (_, at) => {
    const { gradient, loss } = await ofGraph(at);
    expect(loss).toBeCloseTo(lossAt(at), 12);
    const differences = centralDifferences(lossAt, at);
    expect(furthest(gradient, differences)).toBeLessThan(1e-9);
    // Both parts have something to be wrong about.
    expect(Math.max(...gradient.slice(0, tableSize).map(Math.abs))).toBeGreaterThan(0.05);
    expect(Math.max(...gradient.slice(tableSize).map(Math.abs))).toBeGreaterThan(0.01);
  });

  test("where every branch of both clips is taken, and no token lies on an edge", () => {
    const tokens = everything.flatMap((n) => tokensOf(moved, n));
    const above = tokens.filter(({ ratio }) => ratio > 1 + clip);
    const below = tokens.filter(({ ratio }) => ratio < 1 - clip);
    const far = tokens.filter(({ value, oldValue }) => Math.abs(value - oldValue) > valueClip);
    for (const some of [
      above.filter(({ advantage }) => advantage > 0),
      above.filter(({ advantage }) => advantage < 0),
      below.filter(({ advantage }) => advantage > 0),
      below.filter(({ advantage }) => advantage < 0),
      far.filter((token) => errors(token)[0] > errors(token)[1]),
      far.filter((token) => errors(token)[0] < errors(token)[1]),
    ])
      expect(some.length).toBeGreaterThan(0);
    for (const { ratio, value, oldValue } of tokens) {
      expect(Math.abs(Math.abs(ratio - 1) - clip)).toBeGreaterThan(1e-3);
      expect(Math.abs(Math.abs(value - oldValue) - valueClip)).toBeGreaterThan(1e-3);
    }
  });
});

describe("at the policy that drew the batch the expected update is REINFORCE's with the reward r - beta log(pi/a)", () => {
  const batch = scoredOf(world, { policy: tableOf(world, old), base: baseTable, reward }, everything);
  const meanLength = mean(batch.samples.lengths);
  /** E_pi[ (r - beta log(pi/a)) grad log pi ], by definition. */
  const policyGradient = vectorExpectation(
    logOld,
    reward.map((r, n) => r - beta * (logOld[n]! - logBase[n]!)),
    sequences.map((ids) => gradLogProb(world, tableOf(world, old), ids)),
  );
  const laidOut = (flat: Float64Array): Float32Array => {
    const values = new Float32Array(count * world.maxTokens);
    for (const n of everything) values.set(tokenValues(world, flat, sequences[n]!), n * world.maxTokens);
    return values;
  };
  /** Ascent over the table, times the mean length: PPO's mean is over tokens. */
  const ascentOf = async (change: Partial<typeof spec>, flat: Float64Array): Promise<Float64Array> => {
    const method = methodOf({ ...spec, ...change });
    const inputs = method.inputs(batch, method.begin(undefined), laidOut(flat));
    const { gradient } = await summedGradient(world, model, method.objective, weightsOfFlat(world, model, flat), (n) =>
      inputsOfSequence(world, inputs, n, Math.exp(logOld[n]!)),
    );
    return tableOf(world, gradient).map((value) => -value * meanLength);
  };
  const headless = old.map((value, k) => (k < tableSize ? value : 0));

  test("which is what kl-control ascends", async () => {
    const method = methodOf({ ...spec, name: "kl-control", baseline: "none" });
    const inputs = method.inputs(batch, method.begin(undefined), undefined);
    const { gradient } = await summedGradient(
      world,
      policyModel,
      method.objective,
      weightsOfTable(world, tableOf(world, old)),
      (n) => inputsOfSequence(world, inputs, n, Math.exp(logOld[n]!)),
    );
    expect(
      furthest(
        gradient.map((value) => -value),
        policyGradient,
      ),
    ).toBeLessThan(1e-12);
    expect(Math.max(...policyGradient.map(Math.abs))).toBeGreaterThan(0.05);
  });
  test("with a value head that says 0", async () =>
    expect(furthest(await ascentOf({}, headless), policyGradient)).toBeLessThan(1e-6));
  test("with any value head: it sees the prefix alone, so it is a baseline", async () =>
    expect(furthest(await ascentOf({}, old), policyGradient)).toBeLessThan(1e-6));
  test("with the values of the policy itself, for any lambda", async () => {
    /** What is still to come after each prefix, by expectation over everything that goes on from it. */
    const toCome = new Float64Array(world.prefixes);
    const mass = new Float64Array(world.prefixes);
    for (const [n, ids] of sequences.entries()) {
      const [policy, base] = [tokenLogProbs(world, tableOf(world, old), ids), tokenLogProbs(world, baseTable, ids)];
      for (let t = 0; t < ids.length; t++) {
        const row = prefixIndex(world, ids, t);
        const rest = reward[n]! - beta * sum(policy.slice(t).map((value, k) => value - base[t + k]!));
        mass[row]! += Math.exp(logOld[n]!);
        toCome[row]! += Math.exp(logOld[n]!) * rest;
      }
    }
    const right = Float64Array.from([...tableOf(world, old), ...toCome.map((value, row) => value / mass[row]!), 0]);
    for (const gaeLambda of [0, 0.6]) {
      expect(furthest(await ascentOf({ gaeLambda }, right), policyGradient)).toBeLessThan(1e-6);
      // With wrong values a lambda below 1 is biased, so the two statements above are about something.
      expect(furthest(await ascentOf({ gaeLambda }, old), policyGradient)).toBeGreaterThan(0.01);
    }
  });
});

describe("what is worked out of a batch", () => {
  /** One sequence of each length, so that padding stands in the first two. */
  const chosen = [1, 2, 3].map((length) => sequences.findIndex((ids) => ids.length === length));
  const batch = scoredOf(world, { policy: tableOf(world, old), base: baseTable, reward }, chosen);
  const { lengths, maxTokens } = batch.samples;
  const values = Float32Array.from(normals(6, 3 * maxTokens));
  const discounted = { ...spec, discount: 0.9, gaeLambda: 0.7 };
  const controls = { klCoefficient: beta };
  /** Token by token, in float64. */
  const wanted = chosen.map((n, b) => {
    const ids = sequences[n]!;
    const [policy, base] = [tokenLogProbs(world, tableOf(world, old), ids), tokenLogProbs(world, baseTable, ids)];
    const rewards = policy.map((value, t) => (t === ids.length - 1 ? reward[n]! : 0) - beta * (value - base[t]!));
    return generalizedAdvantages(rewards, values.subarray(b * maxTokens, b * maxTokens + ids.length), 0.9, 0.7);
  });
  const flat = (pick: (one: (typeof wanted)[number]) => Float64Array): number[] => wanted.flatMap((one) => [...pick(one)]);
  const atTokens = (laidOut: Float32Array): number[] =>
    chosen.flatMap((_, b) => [...laidOut.subarray(b * maxTokens, b * maxTokens + lengths[b]!)]);
  const made = (change: Partial<typeof spec> = {}) => methodOf({ ...discounted, ...change }).inputs(batch, controls, values);
  const close = (found: ArrayLike<number>, list: readonly number[], digits = 6) => {
    expect(found.length).toBe(list.length);
    for (const [i, value] of list.entries()) expect(found[i]).toBeCloseTo(value, digits);
  };

  test("-beta log(pi/a) at every token and r(x) at the last, generalised advantages, returns", () => {
    const { tokens, sequences: perSequence, numbers, advantages, measures } = made();
    close(
      atTokens(tokens["tokenAdvantage"]!),
      flat((one) => one.advantages),
    );
    close(
      atTokens(tokens["tokenReturn"]!),
      flat((one) => one.returns),
    );
    close(
      advantages!,
      flat((one) => one.advantages),
    );
    expect(tokens["tokenValue"]).toBe(values);
    expect(tokens["tokenLogProposal"]).toBe(batch.samples.tokenLogProbs);
    expect(Object.keys(tokens).sort()).toEqual(["tokenAdvantage", "tokenLogProposal", "tokenReturn", "tokenValue"]);
    expect(perSequence).toEqual({ lengthWeight: new Float64Array(3).fill(1 / 2) });
    expect(numbers).toEqual({});
    const explained = explainedVariance(Float64Array.from(flat((one) => one.returns)), Float64Array.from(atTokens(values)));
    expect(measures!["explainedVariance"]).toBeCloseTo(explained, 6);
    expect(measures!["klCoefficient"]).toBe(beta);
  });
  test("0 beyond the length", () => {
    const { tokens } = made();
    for (const name of ["tokenAdvantage", "tokenReturn"])
      for (const b of [0, 1]) for (let t = lengths[b]!; t < maxTokens; t++) expect(tokens[name]![b * maxTokens + t]).toBe(0);
  });
  test("whitened over the tokens there are, after returns and report have been taken", () => {
    const [plain, white] = [made(), made({ whiten: true })];
    const found = atTokens(white.tokens["tokenAdvantage"]!);
    expect(mean(found)).toBeCloseTo(0, 6);
    expect(variance(found)).toBeCloseTo(1, 6);
    const before = flat((one) => one.advantages);
    close(
      found,
      before.map((value) => (value - mean(before)) / Math.sqrt(variance(before))),
    );
    expect(white.tokens["tokenReturn"]).toEqual(plain.tokens["tokenReturn"]);
    expect(white.advantages).toEqual(plain.advantages);
  });
  test("needs a reward, log a of each token, a KL coefficient and values, and says so", () => {
    const method = methodOf(spec);
    expect(method.needs).toEqual({ reward: true, target: false, tokenLogBase: true, valueHead: true, prefixValue: false });
    expect(method.samplesFrom).toBe("policy");
    const { samples, logBase: logBaseOf, tokenLogBase } = batch;
    expect(() => method.inputs({ samples, logBase: logBaseOf, tokenLogBase }, controls, values)).toThrow(
      "method: expected samples with a reward",
    );
    expect(() => method.inputs({ samples, logBase: logBaseOf, reward: batch.reward }, controls, values)).toThrow(
      "method: expected samples with log a of each token",
    );
    expect(() => method.inputs(batch, {}, values)).toThrow("method: expected samples with a KL coefficient");
    expect(() => method.inputs(batch, controls, undefined)).toThrow("method: expected samples with values");
  });
  test("the KL coefficient begins where the config says and follows the batch's KL(pi, a)", () => {
    const adaptive = { ...spec, klControl: "adaptive", klTarget: 10, klHorizon: 50 } as const;
    expect(methodOf(adaptive).begin(undefined)).toEqual({ klCoefficient: beta });
    const observe = (klTarget: number) => methodOf({ ...adaptive, klTarget }).observe(controls, batch, {}).klCoefficient!;
    // Three texts whose KL is mean(log pi - log a); the error of a target that is 10% off is 1/1.1 - 1.
    const kl = mean(chosen.map((n) => logOld[n]! - logBase[n]!));
    expect(kl).toBeGreaterThan(0.1);
    expect(observe(1.1 * kl)).toBeCloseTo(beta * (1 + ((1 / 1.1 - 1) * 3) / 50), 12);
    expect(methodOf(spec).observe(controls, batch, {})).toEqual(controls);
  });
});

const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
const tunerOf = (change: Partial<typeof spec> = {}, options: Partial<TunerOptions> = {}) =>
  createTuner(referenceDevice, policyModel, methodOf({ ...spec, ...change }), { adam, microBatch: 4, ...options });

describe("tuner", () => {
  const chosen = [...drawSequences(logOld, 10, streamOf(keyOf(7, "ppo")))];
  const batch = scoredOf(world, { policy: tableOf(world, old), base: baseTable, reward }, chosen);
  const stateOf = (tuner: Awaited<ReturnType<typeof tunerOf>>, flat: Float64Array) => ({
    ...tuner.start(uploaded(weightsOfTable(world, tableOf(world, flat)))),
    weights: uploaded(weightsOfFlat(world, model, flat)),
  });

  test("begins with a value head that says 0, and leaves the head out of the policy's weights", async () => {
    const tuner = await tunerOf();
    const state = tuner.start(uploaded(weightsOfTable(world, tableOf(world, old))));
    expect(Object.keys(state.weights).sort()).toEqual(["logits", "value-head.bias", "value-head.weight"]);
    expect(await flatOf(world, state.weights)).toEqual(old.map((value, k) => (k < tableSize ? value : 0)));
    expect(state.controls).toEqual({ klCoefficient: beta });
    expect(tuner.policyWeights(state)).toEqual({ logits: state.weights["logits"] });
  });
  test("asks the value head as it is before the step, once per step, for every token", async () => {
    const method = methodOf(spec);
    const heard: Float32Array[] = [];
    const listening = {
      ...method,
      inputs: (...[samples, controls, values]: Parameters<typeof method.inputs>) => {
        heard.push(values!);
        return method.inputs(samples, controls, values);
      },
    };
    const tuner = await createTuner(referenceDevice, policyModel, listening, { adam, microBatch: 4, epochs: 3 });
    await tuner.step(stateOf(tuner, old), batch, 0.1);
    expect(heard.length).toBe(1);
    for (const [b, n] of chosen.entries())
      for (const [t, value] of tokenValues(world, old, sequences[n]!).entries())
        expect(heard[0]![b * world.maxTokens + t]).toBeCloseTo(value, 6);
  });

  const shuffleKey = keyOf(8, "ppo");
  /** A step by hand: what was worked out of the batch stays, the weights move on. Inputs in float64. */
  const byHand = async (epochs: number, miniBatches: number, learningRate: number) => {
    const method = methodOf(spec);
    const training = await createTraining(referenceDevice, model, method.objective);
    const optimizer = await createOptimizer(referenceDevice, model.parameterShapes, adam);
    const values = new Float32Array(chosen.length * world.maxTokens);
    for (const [b, n] of chosen.entries()) values.set(tokenValues(world, old, sequences[n]!), b * world.maxTokens);
    const inputs = method.inputs(batch, method.begin(undefined), values);
    const updates = epochs * miniBatches;
    const size = chosen.length / miniBatches;
    let weights = uploaded(weightsOfFlat(world, model, old));
    let moments = optimizer.start();
    let gradNorm = 0;
    const means: Record<string, number> = {};
    for (let epoch = 0; epoch < epochs; epoch++) {
      const shuffled = permutation(chosen.length, streamOf(shuffleKey, epoch * miniBatches));
      for (let part = 0; part < miniBatches; part++) {
        let gradients = zerosOf(model);
        for (let i = part * size; i < (part + 1) * size; i++) {
          const b = miniBatches === 1 ? i : shuffled[i]!;
          const given = inputsOfSequence(world, inputs, b, 1 / size);
          const pass = await training.accumulate(weights, gradients, forcedSequence(world, chosen[b]!), given);
          gradients = pass.gradients;
          for (const name of ["loss", "policyLoss", "valueLoss", "clipFraction"])
            means[name] = (means[name] ?? 0) + pass.outputs[name]!.data[0]! / updates;
        }
        const norm = await optimizer.norm([gradients]);
        const updated = await optimizer.update(weights, [gradients], moments, { learningRate, gradNorm: norm });
        weights = updated.weights;
        moments = updated.state;
        gradNorm += norm / updates;
      }
    }
    return { flat: await flatOf(world, weights), means, gradNorm };
  };
  test.each([
    [1, 1],
    [3, 1],
    [2, 5],
  ])("a step is %i passes of %i updates each, with everything else as it was before the first", async (epochs, miniBatches) => {
    const tuner = await tunerOf({}, { epochs, miniBatches, shuffleKey });
    const heard: number[] = [];
    const { state, report } = await tuner.step(stateOf(tuner, old), batch, 0.1, (done) => heard.push(done));
    const wanted = await byHand(epochs, miniBatches, 0.1);
    expect(furthest(await flatOf(world, state.weights), wanted.flat)).toBeLessThan(1e-6);
    expect(state.adam.step).toBe(epochs * miniBatches);
    const { loss, ...measures } = wanted.means;
    expect(report.loss).toBeCloseTo(loss!, 6);
    expect(report.gradNorm).toBeCloseTo(wanted.gradNorm, 6);
    for (const [name, value] of Object.entries(measures)) expect(report.measures[name]).toBeCloseTo(value, 6);
    expect(report.measures["policyLoss"]! + spec.valueCoefficient * report.measures["valueLoss"]!).toBeCloseTo(report.loss, 6);
    // A learning rate of 0.1 soon takes tokens out of the clip range; on the first update there are none.
    expect(report.measures["clipFraction"]! > 0).toBe(epochs > 1);
    expect(heard.at(-1)).toBe(epochs * chosen.length);
    // Ten sequences are two micro-batches of four, taken at once, and a rest of two; two sequences are one.
    expect(heard.length).toBe(epochs * (miniBatches === 1 ? 2 : 5));
  });
  test("a step does not depend on how the batch is cut", async () => {
    const results = await Promise.all(
      [10, 3, 1].map(async (microBatch) => {
        const tuner = await tunerOf({}, { microBatch, epochs: 2, miniBatches: 2, shuffleKey });
        const { state, report } = await tuner.step(stateOf(tuner, old), batch, 0.1);
        return { flat: await flatOf(world, state.weights), report };
      }),
    );
    for (const { flat, report } of results.slice(1)) {
      expect(furthest(flat, results[0]!.flat)).toBeLessThan(1e-12);
      expect(report.loss).toBeCloseTo(results[0]!.report.loss, 12);
      expect(report.logPolicy).toEqual(results[0]!.report.logPolicy);
    }
  });
  test("several updates per pass need a key to shuffle by", async () => {
    const tuner = await tunerOf({}, { miniBatches: 2 });
    await expect(tuner.step(stateOf(tuner, old), batch, 0.1)).rejects.toThrow(
      "tuner: expected a shuffleKey with several miniBatches",
    );
  });
  test("reports the advantages before whitening, log pi of the first pass, and no effective sample size", async () => {
    const tuner = await tunerOf({ whiten: true }, { epochs: 2 });
    const { report } = await tuner.step(stateOf(tuner, old), batch, 0.1);
    const values = new Float32Array(chosen.length * world.maxTokens);
    for (const [b, n] of chosen.entries()) values.set(tokenValues(world, old, sequences[n]!), b * world.maxTokens);
    const { advantages, measures } = methodOf(spec).inputs(batch, { klCoefficient: beta }, values);
    expect(report.advantageMean).toBeCloseTo(mean(advantages!), 6);
    expect(report.advantageMeanAbs).toBeCloseTo(mean(advantages!.map(Math.abs)), 6);
    expect(report.advantageVariance).toBeCloseTo(variance(advantages!), 6);
    expect(report.measures["explainedVariance"]).toBeCloseTo(measures!["explainedVariance"]!, 6);
    expect(report.measures["klCoefficient"]).toBe(beta);
    for (const [b, n] of chosen.entries()) expect(report.logPolicy[b]).toBeCloseTo(logOld[n]!, 6);
    expect("ess" in report).toBe(false);
    expect([report.finite, report.clampedWeights]).toEqual([true, 0]);
  });
  test("reports the means over its own updates, however many came before", async () => {
    const tuner = await tunerOf();
    const state = stateOf(tuner, old);
    const [first, later] = await Promise.all(
      [0, 7].map((step) => tuner.step({ ...state, adam: { ...state.adam, step } }, batch, 0.1)),
    );
    expect(later!.state.adam.step).toBe(8);
    expect(later!.report).toEqual(first!.report);
  });
  test("a reward that is no number leaves the state as it was", async () => {
    const tuner = await tunerOf();
    const state = stateOf(tuner, old);
    const { state: after, report } = await tuner.step(state, { ...batch, reward: batch.reward.map(() => Number.NaN) }, 0.1);
    expect(report.finite).toBe(false);
    expect(after).toBe(state);
  });
  test("the KL coefficient moves with the state", async () => {
    const tuner = await tunerOf({ klControl: "adaptive", klTarget: 1e-3, klHorizon: 100 });
    const { state, report } = await tuner.step(stateOf(tuner, old), batch, 0.1);
    // Far above the target, so the error counts 0.2, of 10 texts in 100.
    expect(state.controls.klCoefficient).toBeCloseTo(beta * 1.02, 12);
    expect(report.measures["klCoefficient"]).toBe(beta);
  });
});

/**
 * How noisy a gradient is (docs/math.md M47), through the tuner, on a world where every sequence is listed.
 * Tolerance 1e-9: sums over up to 50,000 float64 terms of order one.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, mean, sum, variance } from "../../src/base/numeric.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { f32 } from "../../src/base/tensor.ts";
import type { Device } from "../../src/engine/runtime/device.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { withValueHead } from "../../src/models/value-head.ts";
import { gradientStatistics } from "../../src/tuners/diagnostics.ts";
import { type MethodSpec, methodOf, type ScoredSamples } from "../../src/tuners/method.ts";
import { createTraining } from "../../src/tuners/training.ts";
import { createTuner } from "../../src/tuners/tuner.ts";
import {
  flatOf,
  inputsOfSequence,
  scoredOf,
  tableOf,
  tokenValues,
  uploaded,
  weightsOfFlat,
  zerosOf,
} from "../support/ppo-world.ts";
import { forcedSequence, tabularModelOf, weightsOfTable } from "../support/tabular-world.ts";
import { createWorld, drawSequences, gradLogProb, logProbs, randomTable, vectorExpectation } from "../support/world.ts";

const world = createWorld(3, 3);
const { sequences } = world;
const count = sequences.length;
const model = tabularModelOf(world);
const policyTable = randomTable(world, 1);
const baseTable = randomTable(world, 3);
const logPolicy = logProbs(world, policyTable);
const logBase = logProbs(world, baseTable);
const stream = streamOf(keyOf(1, "diagnostics"));
const flat = Float64Array.from([...policyTable, ...Array.from({ length: world.prefixes + 1 }, () => stream.normal())]);
const reward = Float64Array.from({ length: count }, () => stream.normal());
const logTarget = logBase.map((value, n) => value + 1.3 * sequences[n]!.length);
const logZ = logSumExp(logTarget);

const dot = (a: Float64Array, b: Float64Array): number => sum(a.map((value, k) => value * b[k]!));
const names = ["gradientVariance", "gradientSquaredNorm", "gradientSignalToNoise"] as const;

/** Everything from the vectors themselves: each component's variance, all pairs, and each sample left out in turn. */
const bruteForce = (vectors: readonly Float64Array[]) => {
  const statistics = (some: readonly Float64Array[]) => {
    const trace = sum(some[0]!.map((_, k) => variance(some.map((g) => g[k]!))));
    const squaredNorm = mean(some.flatMap((a, i) => some.filter((_, j) => j !== i).map((b) => dot(a, b))));
    return { gradientVariance: trace, gradientSquaredNorm: squaredNorm, gradientSignalToNoise: squaredNorm / trace };
  };
  const m = vectors.length;
  const all = statistics(vectors);
  const without = vectors.map((_, i) => statistics(vectors.filter((_, j) => j !== i)));
  return names.map((name) => {
    const left = without.map((one) => one[name]);
    return { name, value: all[name], stdError: Math.sqrt(((m - 1) / m) * sum(left.map((value) => (value - mean(left)) ** 2))) };
  });
};

describe("every batch of three and of four, each as likely as it is", () => {
  /** REINFORCE's gradients, one a sequence, and what they multiply to. */
  const vectors = sequences.map((ids, n) => gradLogProb(world, policyTable, ids).map((value) => reward[n]! * value));
  const products = vectors.map((a) => vectors.map((b) => dot(a, b)));
  const probability = logPolicy.map(Math.exp);
  const centre = vectorExpectation(
    logPolicy,
    reward,
    sequences.map((ids) => gradLogProb(world, policyTable, ids)),
  );
  const trace = sum(vectors.map((g, n) => probability[n]! * sum(g.map((value, k) => (value - centre[k]!) ** 2))));

  test.each([3, 4])("the estimates of m = %i have the true variance and squared norm as their means", (m) => {
    let [variances, squaredNorms, mass] = [0, 0, 0];
    const visit = (chosen: number[], weight: number): void => {
      if (chosen.length < m) {
        for (let n = 0; n < count; n++) visit([...chosen, n], weight * probability[n]!);
        return;
      }
      const found = gradientStatistics(
        Float64Array.from(chosen, (i) => products[i]![i]!),
        Float64Array.from(chosen, (i) => chosen.reduce((total, j) => total + products[i]![j]!, 0)),
      );
      variances += weight * found.gradientVariance.value;
      squaredNorms += weight * found.gradientSquaredNorm.value;
      mass += weight;
    };
    visit([], 1);
    expect(mass).toBeCloseTo(1, 9);
    expect(trace).toBeGreaterThan(0.1);
    expect(variances).toBeCloseTo(trace, 9);
    expect(squaredNorms).toBeCloseTo(dot(centre, centre), 9);
  });
});

const control = { klCoefficient: 0.3, klControl: "fixed", klTarget: 1, klHorizon: 1000 } as const;
const specs: readonly MethodSpec[] = [
  { name: "gdc++", baseline: "z" },
  { name: "kl-control", baseline: "mean", ...control },
  { name: "ppo", clip: 0.2, valueClip: 0.2, valueCoefficient: 0.1, discount: 0.95, gaeLambda: 0.9, whiten: true, ...control },
  { name: "grpo", clip: 0.2, scaleByDeviation: true, lengthScale: "sequence", ...control },
];
const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
const chosen = [...drawSequences(logPolicy, 9, stream)];
const batch: ScoredSamples = {
  ...scoredOf(world, { policy: policyTable, base: baseTable, reward }, chosen),
  logTarget: Float64Array.from(chosen, (n) => logTarget[n]!),
  logZ,
};
const tunerOf = (spec: MethodSpec, device: Device = referenceDevice) =>
  createTuner(device, model, methodOf(spec), { adam, microBatch: 4 });
const stateOf = (spec: MethodSpec, tuner: Awaited<ReturnType<typeof tunerOf>>) => {
  const state = tuner.start(uploaded(weightsOfTable(world, policyTable)));
  return spec.name === "ppo" ? { ...state, weights: uploaded(weightsOfFlat(world, withValueHead(model), flat)) } : state;
};

describe.each(specs)("of $name", (spec) => {
  /** The gradient of each sample alone, by the training graph without norms, from the float32 inputs that a tuner passes. */
  const byHand = async () => {
    const method = methodOf(spec);
    const whole = spec.name === "ppo" ? withValueHead(model) : model;
    const values = new Float32Array(chosen.length * world.maxTokens);
    for (const [b, n] of chosen.entries()) values.set(tokenValues(world, flat, sequences[n]!), b * world.maxTokens);
    const inputs = method.inputs(batch, method.begin(undefined), values);
    const weights = uploaded(
      spec.name === "ppo" ? weightsOfFlat(world, whole, flat) : weightsOfTable(world, tableOf(world, flat)),
    );
    const training = await createTraining(referenceDevice, whole, method.objective);
    const vectors: Float64Array[] = [];
    const advantages: number[] = [];
    for (const [b, n] of chosen.entries()) {
      const given = Object.fromEntries(
        Object.entries(inputsOfSequence(world, inputs, b, 1)).map(([name, { shape, data }]) => [
          name,
          f32(shape, Float32Array.from(data)),
        ]),
      );
      const { gradients, outputs } = await training.accumulate(weights, zerosOf(whole), forcedSequence(world, n), given);
      vectors.push(await flatOf(world, gradients));
      advantages.push(outputs["advantage"]?.data[0] ?? Number.NaN);
    }
    return { vectors, advantages: Float64Array.from(advantages) };
  };

  test.each([chosen.length, 5])("%i gradients, one by one, against all of them at once", async (m) => {
    const tuner = await tunerOf(spec);
    const found = await tuner.diagnose(stateOf(spec, tuner), batch, m);
    const { vectors } = await byHand();
    for (const { name, value, stdError } of bruteForce(vectors.slice(0, m))) {
      expect(found[name].value / value).toBeCloseTo(1, 9);
      expect(found[name].stdError / stdError).toBeCloseTo(1, 9);
      expect(found[name].n).toBe(m);
    }
  });
  test("the advantages, where there is one per sequence", async () => {
    const tuner = await tunerOf(spec);
    const found = await tuner.diagnose(stateOf(spec, tuner), batch, chosen.length);
    if (spec.name === "ppo") {
      expect(Object.keys(found).sort()).toEqual([...names].sort());
      return;
    }
    const { advantages } = await byHand();
    expect(found.advantageMean!.value).toBeCloseTo(mean(advantages), 9);
    expect(found.advantageMeanAbs!.value).toBeCloseTo(mean(advantages.map(Math.abs)), 9);
    expect(found.advantageVariance!.value).toBeCloseTo(variance(advantages), 9);
  });
  test("a batch smaller than what is asked for is all there is; two samples are too few", async () => {
    const tuner = await tunerOf(spec);
    const state = stateOf(spec, tuner);
    expect((await tuner.diagnose(state, batch, 100)).gradientVariance.n).toBe(chosen.length);
    await expect(tuner.diagnose(state, batch, 2)).rejects.toThrow("gradient diagnostics: expected at least 3 samples, got 2");
  });
});

test("programs are compiled once, the one with norms when it is first asked for, and all are given back", async () => {
  let [compiled, open] = [0, 0];
  const counting: Device = {
    ...referenceDevice,
    compile: async (...given) => {
      const program = await referenceDevice.compile(...given);
      compiled++;
      open++;
      return {
        ...program,
        dispose: async () => {
          open--;
        },
      };
    },
  };
  for (const [spec, programs] of [
    // Training, the norm and the update; the critic.
    [specs[0]!, 3],
    [specs[2]!, 4],
  ] as const) {
    compiled = 0;
    const tuner = await tunerOf(spec, counting);
    const state = stateOf(spec, tuner);
    expect(compiled).toBe(programs);
    await tuner.diagnose(state, batch, 3);
    await tuner.diagnose(state, batch, 3);
    expect([compiled, open]).toEqual([programs + 1, programs + 1]);
    await tuner.dispose();
    expect(open).toBe(0);
    // One that was never asked for diagnostics.
    await (await tunerOf(spec, counting)).dispose();
    expect(open).toBe(0);
  }
});

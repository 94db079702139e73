/**
 * The DPG family through its own training graph, on a world where every expectation is a finite sum in float64.
 * Tolerance 1e-12 throughout: sums of a few dozen float64 terms of order one.
 */

import { describe, expect, test } from "vitest";
import { logSumExp, sum } from "../../src/base/numeric.ts";
import { type HostTensor, tensor } from "../../src/base/tensor.ts";
import { evaluate } from "../../src/engine/evaluate.ts";
import { input } from "../../src/engine/ops/index.ts";
import { referenceDevice } from "../../src/engine/runtime/reference.ts";
import { advantage, type Baseline, createDpgTuner, dpgObjective } from "../../src/tuners/dpg.ts";
import { createTraining } from "../../src/tuners/training.ts";
import {
  forcedSequence,
  samplesOf,
  tableOfWeights,
  tabularModelOf,
  weightsOfTable,
  zeroGradients,
} from "../support/tabular-world.ts";
import { createWorld, gradLogProb, logProbs, randomTable, vectorExpectation } from "../support/world.ts";

const world = createWorld(3, 3);
const count = world.sequences.length;
const policyTable = randomTable(world, 1);
const logPolicy = logProbs(world, policyTable);
const logProposal = logProbs(world, randomTable(world, 2));
const logBase = logProbs(world, randomTable(world, 3));
/** A hybrid target: no token 2 in the first place, and a tilt by length. Z is far from 1. */
const logTarget = logBase.map((value, n) =>
  world.sequences[n]![0] === 2 ? Number.NEGATIVE_INFINITY : value + 1.3 * world.sequences[n]!.length,
);
const logZ = logSumExp(logTarget);
const scores = world.sequences.map((ids) => gradLogProb(world, policyTable, ids));

const f64 = (shape: number[], values: number[]): HostTensor => tensor("f64", shape, values);

/** sum_x q(x) A(x) grad log pi(x) by the training graph (its loss descends, so the sign is turned), and A itself. */
const ascent = async (baseline: Baseline, logQ: Float64Array, logZHat = logZ) => {
  const model = tabularModelOf(world);
  const training = await createTraining(referenceDevice, model, dpgObjective({ baseline }));
  const weights = { logits: referenceDevice.upload(weightsOfTable(world, policyTable).logits) };
  const perSequence: Float64Array[] = [];
  const advantages: number[] = [];
  for (let n = 0; n < count; n++) {
    const { gradients, outputs } = await training.accumulate(
      weights,
      { logits: referenceDevice.upload(zeroGradients(world).logits) },
      forcedSequence(world, n),
      {
        logTarget: f64([1], [logTarget[n]!]),
        logProposal: f64([1], [logQ[n]!]),
        logZ: f64([], [logZHat]),
        scale: f64([], [1]),
      },
    );
    perSequence.push(tableOfWeights(world, await gradients["logits"]!.read()).map((value) => -value));
    advantages.push(outputs["advantage"]!.data[0]!);
    expect(outputs["logPolicy"]!.data[0]).toBeCloseTo(logPolicy[n]!, 12);
  }
  const mean = vectorExpectation(logQ, new Float64Array(count).fill(1), perSequence);
  const variance = sum(perSequence.map((g, n) => Math.exp(logQ[n]!) * sum(g.map((value, k) => (value - mean[k]!) ** 2))));
  return { mean, variance, advantages };
};

const expectClose = (found: Float64Array, wanted: Float64Array) => {
  expect(found.length).toBe(wanted.length);
  found.forEach((value, k) => {
    expect(Math.abs(value - wanted[k]!)).toBeLessThan(1e-12);
  });
};

/** -grad KL(p, pi) = E_p grad log pi. */
const trueAscent = vectorExpectation(
  logTarget.map((value) => value - logZ),
  new Float64Array(count).fill(1),
  scores,
);

describe("expected update", () => {
  test("off-policy without baseline is the gradient of -KL(p, pi)", async () =>
    expectClose((await ascent("none", logProposal)).mean, trueAscent));
  test("off-policy with Z pi/q is the same", async () =>
    expectClose((await ascent("z-policy-over-proposal", logProposal)).mean, trueAscent));
  test("on-policy with Z is the same", async () => expectClose((await ascent("z", logPolicy)).mean, trueAscent));
  test("a constant Z off-policy is biased, by minus E_q grad log pi", async () => {
    const { mean } = await ascent("z", logProposal);
    const bias = vectorExpectation(logProposal, new Float64Array(count).fill(-1), scores);
    expect(Math.max(...bias.map(Math.abs))).toBeGreaterThan(0.01);
    expectClose(
      mean,
      trueAscent.map((value, k) => value + bias[k]!),
    );
  });
  test("a wrong Z scales the update and does not turn it", async () => {
    const factor = 1.7;
    for (const baseline of ["none", "z-policy-over-proposal"] as const) {
      const { mean } = await ascent(baseline, logProposal, logZ + Math.log(factor));
      expectClose(
        mean,
        trueAscent.map((value) => value / factor),
      );
    }
  });
  test("where pi = q, as at the start of a run, the baseline lowers the variance of one sample's gradient", async () => {
    const [without, withBaseline] = [await ascent("none", logPolicy), await ascent("z-policy-over-proposal", logPolicy)];
    expect(withBaseline.variance).toBeLessThan(without.variance);
  });
  test("where pi, q and p have nothing to do with each other it may raise it: Z pi/q is not the best control variate", async () => {
    const [without, withBaseline] = [await ascent("none", logProposal), await ascent("z-policy-over-proposal", logProposal)];
    expect(withBaseline.variance).toBeGreaterThan(without.variance);
  });
});

describe("advantage", () => {
  const values = (
    logs: Record<"logTarget" | "logProposal" | "logPolicy", ArrayLike<number>>,
    baseline: Baseline,
    clampLogWeight?: number,
  ): Float64Array => {
    const shape = ["B"];
    const inputs = {
      logTarget: input("t", "f32", shape),
      logProposal: input("q", "f32", shape),
      logPolicy: input("p", "f32", shape),
      logZ: input("z", "f32", []),
    };
    const graph = {
      inputs,
      outputs: { advantage: advantage(clampLogWeight === undefined ? { baseline } : { baseline, clampLogWeight }, inputs) },
    };
    const given = Object.fromEntries(
      Object.entries(logs).map(([name, list]) => [name, tensor("f64", [count], Array.from(list))]),
    );
    return evaluate(graph, { ...given, logZ: f64([], [logZ]) })["advantage"]!.data as Float64Array;
  };
  const logP = logTarget.map((value) => value - logZ);

  test("is zero for every sequence when pi = q = p, although Z is not 1", () => {
    expect(Math.abs(logZ)).toBeGreaterThan(0.5);
    // Sequences without mass cannot be drawn from q = p; they are left out.
    const drawn = (list: Float64Array) => list.map((value, n) => (logP[n] === Number.NEGATIVE_INFINITY ? logBase[n]! : value));
    const found = values(
      {
        logTarget: logP.map((value, n) => (value === Number.NEGATIVE_INFINITY ? logBase[n]! + logZ : value + logZ)),
        logProposal: drawn(logP),
        logPolicy: drawn(logP),
      },
      "z-policy-over-proposal",
    );
    for (const value of found) expect(Math.abs(value)).toBeLessThan(1e-12);
  });
  test("is -pi/q, and so below zero, exactly where the target has no mass", () => {
    const found = values({ logTarget, logProposal, logPolicy }, "z-policy-over-proposal");
    found.forEach((value, n) => {
      if (logTarget[n] === Number.NEGATIVE_INFINITY) expect(value).toBeCloseTo(-Math.exp(logPolicy[n]! - logProposal[n]!), 12);
      else expect(value).toBeCloseTo(Math.exp(logP[n]! - logProposal[n]!) - Math.exp(logPolicy[n]! - logProposal[n]!), 12);
    });
  });
  test("clamps both ratios where it is asked to", () => {
    const clamped = values({ logTarget, logProposal, logPolicy }, "none", 0.1);
    expect(Math.max(...clamped)).toBeCloseTo(Math.exp(0.1), 12);
    expect(Math.max(...values({ logTarget, logProposal, logPolicy }, "none"))).toBeGreaterThan(Math.exp(0.1));
  });
});

describe("tuner", () => {
  const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
  const everything = Array.from({ length: count }, (_, n) => n);
  const batch = {
    samples: samplesOf(world, everything, logProposal),
    logTarget: Float64Array.from(everything, (n) => logTarget[n]!),
    logZ,
  };
  const start = () => ({ logits: referenceDevice.upload(weightsOfTable(world, policyTable).logits) });

  test("a step does not depend on how the batch is cut", async () => {
    const results = await Promise.all(
      [everything.length, 4, 1].map(async (microBatch) => {
        const tuner = await createDpgTuner(
          referenceDevice,
          tabularModelOf(world),
          { baseline: "z-policy-over-proposal" },
          adam,
          microBatch,
        );
        const { state, report } = await tuner.step(tuner.start(start()), batch, 0.1);
        return { weights: (await state.weights["logits"]!.read()).data as Float64Array, report };
      }),
    );
    for (const { weights, report } of results.slice(1)) {
      expectClose(weights, results[0]!.weights);
      expect(report.loss).toBeCloseTo(results[0]!.report.loss, 12);
      expect(report.logPolicy).toEqual(results[0]!.report.logPolicy);
    }
  });
  test("reports the advantages, the effective sample size and the policy's log-probabilities of the batch", async () => {
    const tuner = await createDpgTuner(referenceDevice, tabularModelOf(world), { baseline: "z-policy-over-proposal" }, adam, 4);
    const heard: number[] = [];
    const { report } = await tuner.step(tuner.start(start()), batch, 0.1, (done) => heard.push(done));
    const wanted = everything.map(
      (n) => Math.exp(logTarget[n]! - logZ - logProposal[n]!) - Math.exp(logPolicy[n]! - logProposal[n]!),
    );
    const average = sum(wanted) / count;
    // The batch goes through float32 inputs, hence 6 digits.
    expect(report.advantageMean).toBeCloseTo(average, 6);
    expect(report.advantageMeanAbs).toBeCloseTo(sum(wanted.map(Math.abs)) / count, 6);
    const spread = sum(wanted.map((value) => (value - average) ** 2)) / (count - 1);
    expect(report.advantageVariance / spread).toBeCloseTo(1, 6);
    expect(report.loss).toBeCloseTo(-sum(wanted.map((value, n) => value * logPolicy[n]!)) / count, 6);
    const weights = everything.map((n) => Math.exp(logTarget[n]! - logProposal[n]!));
    expect(report.ess).toBeCloseTo(sum(weights) ** 2 / sum(weights.map((value) => value * value)), 9);
    report.logPolicy.forEach((value, n) => {
      expect(value).toBeCloseTo(logPolicy[n]!, 6);
    });
    expect(heard).toEqual([4, 8, 12, 15]);
    expect([report.finite, report.clampedWeights]).toEqual([true, 0]);
  });
  test("counts the sequences whose ratios were clamped, by target or by policy", async () => {
    const limit = 0.4;
    const tuner = await createDpgTuner(
      referenceDevice,
      tabularModelOf(world),
      { baseline: "none", clampLogWeight: limit },
      adam,
      4,
    );
    const { report } = await tuner.step(tuner.start(start()), batch, 0.1);
    const over = (n: number) => logTarget[n]! - logZ - logProposal[n]! > limit || logPolicy[n]! - logProposal[n]! > limit;
    expect(report.clampedWeights).toBe(everything.filter(over).length);
    expect(report.clampedWeights).toBeGreaterThan(
      everything.filter((n) => logTarget[n]! - logZ - logProposal[n]! > limit).length,
    );
    expect(report.clampedWeights).toBeLessThan(count);
  });
  test("a batch without any mass under the target has no effective samples, and still teaches what to avoid", async () => {
    const tuner = await createDpgTuner(referenceDevice, tabularModelOf(world), { baseline: "z-policy-over-proposal" }, adam, 4);
    const empty = { ...batch, logTarget: new Float64Array(count).fill(Number.NEGATIVE_INFINITY) };
    const { report } = await tuner.step(tuner.start(start()), empty, 0.1);
    expect(report.ess).toBe(0);
    expect(report.advantageMean).toBeLessThan(0);
    expect(report.gradNorm).toBeGreaterThan(0);
  });
  test("a step whose loss is not finite leaves the state as it was and says so", async () => {
    const tuner = await createDpgTuner(referenceDevice, tabularModelOf(world), { baseline: "none" }, adam, 4);
    const state = tuner.start(start());
    const result = await tuner.step(state, { ...batch, logZ: Number.NEGATIVE_INFINITY }, 0.1);
    expect(result.report.finite).toBe(false);
    expect(result.state).toBe(state);
  });
  test("steps on the whole world bring the policy to a soft target", async () => {
    const softTarget = logBase.map((value, n) => value + 1.3 * world.sequences[n]!.length);
    const softZ = logSumExp(softTarget);
    const training = await createTraining(
      referenceDevice,
      tabularModelOf(world),
      dpgObjective({ baseline: "z-policy-over-proposal" }),
    );
    let table = policyTable;
    const kl = () => {
      const current = logProbs(world, table);
      return sum(softTarget.map((value, n) => Math.exp(value - softZ) * (value - softZ - current[n]!)));
    };
    const first = kl();
    for (let step = 0; step < 200; step++) {
      const weights = { logits: referenceDevice.upload(weightsOfTable(world, table).logits) };
      let gradients = { logits: referenceDevice.upload(zeroGradients(world).logits) } as Awaited<
        ReturnType<typeof training.accumulate>
      >["gradients"];
      for (let n = 0; n < count; n++) {
        const scalars = {
          logTarget: f64([1], [softTarget[n]!]),
          logProposal: f64([1], [logProposal[n]!]),
          logZ: f64([], [softZ]),
          scale: f64([], [Math.exp(logProposal[n]!)]),
        };
        gradients = (await training.accumulate(weights, gradients, forcedSequence(world, n), scalars)).gradients;
      }
      const descent = tableOfWeights(world, await gradients["logits"]!.read());
      table = table.map((value, k) => value - 5 * descent[k]!);
    }
    expect(first).toBeGreaterThan(0.3);
    expect(kl()).toBeLessThan(1e-3);
  });
});

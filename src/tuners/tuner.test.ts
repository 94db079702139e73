/**
 * The tuner on a world that is small enough for its steps to be done by hand, on the reference device. Weights and sums are float64 there, and a
 * batch's numbers pass through float32 as on any device: by hand they are rounded the same way, and the tolerance is 1e-12, for sums of 15 terms
 * of order one.
 */

import { describe, expect, test } from "vitest";
import { samplesOf, tableOfWeights, tabularModelOf, weightsOfTable } from "../../tests/support/tabular-world.ts";
import { createWorld, gradLogProb, logProbs, randomTable } from "../../tests/support/world.ts";
import { logSumExp, mean, sum, variance } from "../base/numeric.ts";
import { keyOf } from "../base/random.ts";
import { type Device, type Program, uploadAll } from "../engine/runtime/device.ts";
import { referenceDevice } from "../engine/runtime/reference.ts";
import type { AdamOptions, DeviceTensors } from "../optim/adam.ts";
import { type MethodSpec, methodOf, type ScoredSamples } from "./method.ts";
import { shareSequences } from "./training.ts";
import { createTuner, type TunerOptions, type TunerState } from "./tuner.ts";

const tolerance = 1e-12;
const world = createWorld(3, 3);
const model = tabularModelOf(world);
const { sequences } = world;
const everything = sequences.map((_, n) => n);
const count = sequences.length;
const table = randomTable(world, 1);
const logPolicy = logProbs(world, table);
const logProposal = logProbs(world, randomTable(world, 2));
const logBase = logProbs(world, randomTable(world, 3));
const reward = Float64Array.from(sequences, (ids) => (ids.includes(1) ? 1 : 0) + 0.4 * ids.length - 0.5);
/** A hybrid target, Z far from 1. */
const logTarget = logBase.map((value, n) =>
  sequences[n]![0] === 2 ? Number.NEGATIVE_INFINITY : value + 1.3 * sequences[n]!.length,
);
const logZ = logSumExp(logTarget);
/** Every sequence once, as if drawn from q. */
const batch: ScoredSamples = { samples: samplesOf(world, everything, logProposal), logBase, logTarget, logZ, reward };

// As the graph sees them: log q, P/(Zq) and pi/q.
const q32 = logProposal.map(Math.fround);
const w = q32.map((value, n) => Math.exp(Math.fround(logTarget[n]!) - Math.fround(logZ) - value));
const r = q32.map((value, n) => Math.exp(logPolicy[n]! - value));

const adam: AdamOptions = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 };
const fixed = { klCoefficient: 0.7, klControl: "fixed", klTarget: 6, klHorizon: 10_000 } as const;
const gdcpp: MethodSpec = { name: "gdc++", baseline: "z" };
const runningKl: MethodSpec = { name: "f-dpg", divergence: "kl", samplesFrom: "policy", baseline: "running" };

const weightsOf = (from: Float64Array): DeviceTensors => uploadAll(referenceDevice, weightsOfTable(world, from));
const tableIn = async ({ weights }: TunerState): Promise<Float64Array> => tableOfWeights(world, await weights["logits"]!.read());

const tunerOf = (spec: MethodSpec, options: Partial<TunerOptions> = {}, device: Device = referenceDevice) =>
  createTuner(device, model, methodOf(spec), { adam, microBatch: 4, ...options });

/** One step from the table: the state and report that come out, and the table in it. */
const stepOf = async (spec: MethodSpec, options: Partial<TunerOptions> = {}, given = batch, device?: Device) => {
  const tuner = await tunerOf(spec, options, device);
  const start = tuner.start(weightsOf(table), given);
  const heard: number[] = [];
  const { state, report } = await tuner.step(start, given, 0.05, (done) => heard.push(done));
  return { tuner, start, state, report, heard, table: await tableIn(state) };
};

const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b);

const distance = (a: Float64Array, b: Float64Array): number =>
  a.reduce((top, value, k) => Math.max(top, Math.abs(value - b[k]!)), 0);

/** A device that writes down what it is asked: passes, with the sequences in them and their scale, and updates of the weights. */
const listeningDevice = () => {
  const passes: { sequences: number[]; shape: readonly number[]; scale: number; update: number }[] = [];
  const programs = { compiled: 0, disposed: 0 };
  let updates = 0;
  const device: Device = {
    ...referenceDevice,
    compile: async (graph, options): Promise<Program> => {
      const program = await referenceDevice.compile(graph, options);
      programs.compiled++;
      return {
        ...program,
        run: async (inputs) => {
          const read = async (name: string): Promise<number[]> => {
            const held = inputs[name]!;
            return [...("read" in held ? await held.read() : held).data];
          };
          if ("learningRate" in inputs) updates++;
          if ("scale" in inputs) {
            // Each sequence has a log q of its own.
            const places = (await read("logProposal")).map((value) => logProposal.map(Math.fround).indexOf(value));
            passes.push({
              sequences: places,
              shape: inputs["logProposal"]!.shape,
              scale: (await read("scale"))[0]!,
              update: updates,
            });
          }
          return program.run(inputs);
        },
        dispose: async () => {
          programs.disposed++;
          await program.dispose();
        },
      };
    },
  };
  return { device, passes, programs, updates: () => updates };
};

describe("micro-batches", () => {
  test.each<[string, MethodSpec]>([
    ["gdc++", gdcpp],
    ["rloo, whose baseline is of the whole batch", { name: "rloo", ...fixed }],
  ])("do not change a step: %s", async (_, spec) => {
    const whole = await stepOf(spec, { microBatch: count });
    for (const microBatch of [4, 1]) {
      const cut = await stepOf(spec, { microBatch });
      expect(distance(cut.table, whole.table)).toBeLessThan(tolerance);
      expect(Math.abs(cut.report.loss - whole.report.loss)).toBeLessThan(tolerance);
      expect(Math.abs(cut.report.gradNorm - whole.report.gradNorm)).toBeLessThan(tolerance);
      expect(cut.report.logPolicy).toEqual(whole.report.logPolicy);
      expect(cut.report.advantageMean).toBe(whole.report.advantageMean);
    }
  });
  test("are as many sequences as asked for, whole ones at once and the rest apart, and progress is heard after each", async () => {
    const { device, passes } = listeningDevice();
    const { heard } = await stepOf(gdcpp, { microBatch: 4 }, batch, device);
    expect(passes.map(({ shape }) => shape)).toEqual([
      [3, 4],
      [1, 3],
    ]);
    expect(sorted(passes.flatMap(({ sequences }) => sequences))).toEqual(everything);
    expect(passes.map(({ scale }) => scale)).toEqual(Array(2).fill(Math.fround(1 / count)));
    expect(heard).toEqual([12, 15]);
  });
  test("of lanes are shared out by length, all of one size at once, the same way every time", () => {
    const lengths = [5, 1, 3, 2, 4, 9, 8, 7, 6];
    expect(shareSequences(lengths, 2, 1, 8)).toEqual([[Int32Array.of(1, 3, 2, 4, 0, 8, 7, 6), Int32Array.of(5)]]);
    // Micro-batches (1 3) (2 4) (0 8) (7 6) (5), dealt out in turn.
    expect(shareSequences(lengths, 2, 2, 8)).toEqual([
      [Int32Array.of(1, 3, 0, 8), Int32Array.of(5)],
      [Int32Array.of(2, 4, 7, 6)],
    ]);
    expect(shareSequences([1, 1], 2, 3, 8)).toEqual([[Int32Array.of(0, 1)], [], []]);
    // At most eight micro-batches at once.
    expect(shareSequences(Array(9).fill(1), 1, 1, 8)[0]!.map((piece) => piece.length)).toEqual([8, 1]);
  });
  test("of two lanes give one lane's step, but for the order of adding up", async () => {
    const lane = (): Device => ({ ...referenceDevice });
    const twoLanes: Device = { ...referenceDevice, lanes: [lane(), lane()] };
    const [one, two] = [await stepOf(gdcpp), await stepOf(gdcpp, { microBatch: 4 }, batch, twoLanes)];
    expect(distance(two.table, one.table)).toBeLessThan(tolerance);
    expect(two.report.logPolicy).toEqual(one.report.logPolicy);
    expect(Math.abs(two.report.loss - one.report.loss)).toBeLessThan(tolerance);
  });
});

describe("epochs", () => {
  /** A of sequence n: (pi/q)(R - B). */
  const gdcppAdvantage = (n: number, logPi: number) => w[n]! - Math.exp(logPi - q32[n]!);
  const meanReward = Math.fround(mean(reward));
  const reinforceAdvantage = (n: number, logPi: number) => Math.exp(logPi - q32[n]!) * (Math.fround(reward[n]!) - meanReward);

  /** Adam by hand, on gradients by hand. `ratios`: the table that pi/q is worked out from at each step. */
  const byHand = (
    advantage: (n: number, logPi: number) => number,
    steps: number,
    ratios: (current: Float64Array) => Float64Array = (current) => current,
  ) => {
    let current = table;
    let first = new Float64Array(table.length);
    let second = new Float64Array(table.length);
    const norms: number[] = [];
    const losses: number[] = [];
    for (let step = 1; step <= steps; step++) {
      const [logPi, logPiInRatios] = [logProbs(world, current), logProbs(world, ratios(current))];
      const gradient = new Float64Array(table.length);
      const terms = everything.map((n) => {
        const weight = -Math.fround(1 / count) * advantage(n, logPiInRatios[n]!);
        gradLogProb(world, current, sequences[n]!).forEach((value, k) => {
          gradient[k]! += weight * value;
        });
        return weight * logPi[n]!;
      });
      losses.push(sum(terms));
      norms.push(Math.hypot(...gradient));
      first = first.map((value, k) => 0.9 * value + 0.1 * gradient[k]!);
      second = second.map((value, k) => 0.999 * value + 0.001 * gradient[k]! ** 2);
      const [one, two] = [Math.fround(1 - 0.9 ** step), Math.fround(1 - 0.999 ** step)];
      current = current.map((value, k) => value - (Math.fround(0.05) * (first[k]! / one)) / (Math.sqrt(second[k]! / two) + 1e-8));
    }
    return { table: current, gradNorm: mean(norms), loss: mean(losses) };
  };

  test.each<[string, MethodSpec, typeof gdcppAdvantage]>([
    ["gdc++", gdcpp, gdcppAdvantage],
    ["reinforce", { name: "reinforce", baseline: "mean" }, reinforceAdvantage],
  ])("n of them are n steps by hand on the same batch, with pi/q worked out anew: %s", async (_, spec, advantage) => {
    for (const epochs of [1, 2, 3]) {
      const found = await stepOf(spec, { epochs });
      const wanted = byHand(advantage, epochs);
      // Adam divides by the size of the gradient, at least 1e-3 where it is not 0 to the bit: rounding counts a thousandfold at most.
      expect(distance(found.table, wanted.table)).toBeLessThan(tolerance);
      expect(Math.abs(found.report.gradNorm - wanted.gradNorm)).toBeLessThan(tolerance);
      expect(Math.abs(found.report.loss - wanted.loss)).toBeLessThan(tolerance);
      expect(found.state.adam.step).toBe(epochs);
    }
    // With the ratios of the first pass they are other steps.
    const stale = byHand(advantage, 3, () => table);
    expect(distance(stale.table, byHand(advantage, 3).table)).toBeGreaterThan(1e-4);
  });
  test("are those of as many calls, to the bit; progress goes on through all of them", async () => {
    const twice = await stepOf(gdcpp, { epochs: 2 });
    const once = await stepOf(gdcpp);
    const again = await once.tuner.step(once.state, batch, 0.05);
    expect(twice.table).toEqual(await tableIn(again.state));
    expect(twice.heard).toEqual([12, 15, 27, 30]);
    for (const key of ["loss", "gradNorm"] as const) expect(twice.report[key]).toBe((once.report[key] + again.report[key]) / 2);
  });
  test("what is reported of sequences is what the first pass found", async () => {
    const [once, thrice] = [await stepOf(gdcpp), await stepOf(gdcpp, { epochs: 3 })];
    expect(thrice.report.logPolicy).toEqual(once.report.logPolicy);
    expect(thrice.report.advantageVariance).toBe(once.report.advantageVariance);
    expect(thrice.report.clampedWeights).toBe(once.report.clampedWeights);
  });
});

describe("mini-batches", () => {
  const shuffleKey = keyOf(12, "shuffle");
  const parts = async (options: Partial<TunerOptions>, steps = 1) => {
    const { device, passes, updates } = listeningDevice();
    const tuner = await tunerOf(gdcpp, options, device);
    let state = tuner.start(weightsOf(table));
    for (let step = 0; step < steps; step++) ({ state } = await tuner.step(state, batch, 0.01));
    /** The sequences learnt from in each update, and their weight. */
    const found = Array.from({ length: updates() }, (_, update) => passes.filter((pass) => pass.update === update));
    return found.map((some) => ({
      sequences: some.flatMap((pass) => pass.sequences),
      scales: new Set(some.map(({ scale }) => scale)),
    }));
  };

  test.each([
    [1, [15]],
    [3, [5, 5, 5]],
    [4, [3, 4, 4, 4]],
    [7, [2, 2, 2, 2, 2, 2, 3]],
    [15, Array(15).fill(1)],
    // There are no more updates than sequences.
    [16, Array(15).fill(1)],
  ])("%d of them are that many updates, on parts of the batch as equal as can be", async (miniBatches, sizes) => {
    const found = await parts({ microBatch: 2, miniBatches, shuffleKey });
    expect(sorted(found.map((part) => part.sequences.length))).toEqual(sizes);
    // Every sequence once, and each update a mean over its own part.
    expect(sorted(found.flatMap((part) => part.sequences))).toEqual(everything);
    for (const part of found) expect([...part.scales]).toEqual([Math.fround(1 / part.sequences.length)]);
  });
  test("are drawn anew for each pass, of one batch or the next, and again the same from the same key", async () => {
    const options = { microBatch: 5, miniBatches: 3, epochs: 2, shuffleKey };
    const found = (await parts(options, 2)).map((part) => part.sequences);
    expect(found.length).toBe(12);
    const passes = [0, 3, 6, 9].map((from) => found.slice(from, from + 3).flat());
    for (const pass of passes) expect(sorted(pass)).toEqual(everything);
    expect(new Set(passes.map(String)).size).toBe(4);
    expect(passes.map(String)).not.toContain(String(everything));
    expect((await parts(options, 2)).map((part) => part.sequences)).toEqual(found);
    const other = await parts({ ...options, shuffleKey: keyOf(13, "shuffle") });
    expect(other[0]!.sequences).not.toEqual(found[0]);
  });
  test("one is the batch in its order, and needs no key; several do", async () => {
    expect((await parts({ miniBatches: 1 }))[0]!.sequences).toEqual(everything);
    const tuner = await tunerOf(gdcpp, { miniBatches: 2 });
    await expect(tuner.step(tuner.start(weightsOf(table)), batch, 0.01)).rejects.toThrow("shuffleKey");
  });
  test("every sequence is reported at its own place, and loss and norm are means over the updates", async () => {
    // At a learning rate of 0 the policy stays, so that all parts see the same.
    const [tuner, whole] = [await tunerOf(gdcpp, { miniBatches: 3, shuffleKey }), await tunerOf(gdcpp)];
    const cut = (await tuner.step(tuner.start(weightsOf(table)), batch, 0)).report;
    const one = (await whole.step(whole.start(weightsOf(table)), batch, 0)).report;
    expect(cut.logPolicy).toEqual(one.logPolicy);
    expect(cut.advantageMean).toBe(one.advantageMean);
    // Three means over 5 average to the mean over 15, but for the rounding of 1/5 and 1/15 to float32, 6e-8 of the loss.
    expect(Math.abs(cut.loss / one.loss - 1)).toBeLessThan(1e-7);
    // The mean norm of parts is above the norm of their mean.
    expect(cut.gradNorm).toBeGreaterThan(one.gradNorm * 1.01);
  });
});

describe("report", () => {
  const digits = 11;

  test("of the advantages, log pi and the loss", async () => {
    const { report } = await stepOf(gdcpp);
    const advantage = w.map((value, n) => value - r[n]!);
    expect(report.advantageMean).toBeCloseTo(mean(advantage), digits);
    expect(report.advantageMeanAbs).toBeCloseTo(mean(advantage.map(Math.abs)), digits);
    expect(report.advantageVariance).toBeCloseTo(variance(advantage), digits);
    expect(report.loss).toBeCloseTo(-Math.fround(1 / count) * sum(advantage.map((value, n) => value * logPolicy[n]!)), digits);
    expect(distance(report.logPolicy, logPolicy)).toBeLessThan(tolerance);
    expect([report.finite, report.clampedWeights]).toEqual([true, 0]);
    expect(report.measures).toEqual({});
  });
  test("of the effective sample size of P/q, where there is a target", async () => {
    // From the numbers as they are: no device is asked.
    const weights = logTarget.map((value, n) => Math.exp(value - logProposal[n]!));
    expect((await stepOf(gdcpp)).report.ess).toBeCloseTo(sum(weights) ** 2 / sum(weights.map((value) => value * value)), digits);
    const { logTarget: _, ...untargeted } = batch;
    expect((await stepOf({ name: "reinforce", baseline: "none" }, {}, untargeted)).report).not.toHaveProperty("ess");
  });
  test("a batch without any mass has no effective samples, and still teaches what to avoid", async () => {
    const { report, table: after } = await stepOf(
      gdcpp,
      {},
      { ...batch, logTarget: logTarget.map(() => Number.NEGATIVE_INFINITY) },
    );
    expect(report.ess).toBe(0);
    expect(report.advantageMean).toBeCloseTo(-mean(r), digits);
    expect(report.finite).toBe(true);
    expect(distance(after, table)).toBeGreaterThan(0.01);
  });
  test("of sequences whose ratios were clamped, by the target's or by the policy's", async () => {
    const limit = 0.4;
    const { report } = await stepOf({ ...gdcpp, clampLogWeight: limit });
    const over = (list: Float64Array) => everything.filter((n) => Math.log(list[n]!) > limit);
    const clamped = new Set([...over(w), ...over(r)]);
    expect(report.clampedWeights).toBe(clamped.size);
    expect(clamped.size).toBeGreaterThan(Math.max(over(w).length, over(r).length));
    expect(clamped.size).toBeLessThan(count);
    const cut = (ratio: number) => Math.min(ratio, Math.exp(limit));
    expect(report.advantageMean).toBeCloseTo(mean(w.map((value, n) => cut(value) - cut(r[n]!))), digits);
  });
  test("of the KL coefficient that the batch was learnt with", async () => {
    const { report } = await stepOf({ name: "kl-control", baseline: "mean", ...fixed, klControl: "adaptive" });
    expect(report.measures).toEqual({ klCoefficient: 0.7 });
  });
});

describe("a step that is not finite", () => {
  test.each<[string, MethodSpec, ScoredSamples]>([
    ["weights that overflow", { name: "gdc", baseline: "none" }, { ...batch, logZ: Number.NEGATIVE_INFINITY }],
    // Advantages of e^400: their sum is a number, the sum of their squares is not.
    ["a gradient whose norm overflows", { name: "gdc", baseline: "none" }, { ...batch, logZ: -400 }],
    [
      "a hard constraint under a divergence that it makes infinite",
      { name: "f-dpg", divergence: "reverse-kl", samplesFrom: "policy", baseline: "none" },
      batch,
    ],
    [
      "a reward that is no number",
      { name: "rloo", ...fixed },
      { ...batch, reward: reward.map((value, n) => (n ? value : Number.NaN)) },
    ],
  ])("is said to be so, and leaves the state as it was: %s", async (_, spec, given) => {
    const before = weightsOfTable(world, table).logits.data;
    const { start, state, report } = await stepOf(spec, { epochs: 2 }, given);
    expect(report.finite).toBe(false);
    expect(state).toBe(start);
    expect((await state.weights["logits"]!.read()).data).toEqual(before);
  });
  test("a step that is, leaves what went in as it was, too", async () => {
    const { start, state, report } = await stepOf(gdcpp);
    expect(report.finite).toBe(true);
    expect(await tableIn(start)).toEqual(table);
    expect(start.adam.step).toBe(0);
    expect((await start.adam.first["logits"]!.read()).data.every((value) => value === 0)).toBe(true);
    expect(distance(await tableIn(state), table)).toBeGreaterThan(0.01);
  });
});

describe("what a method remembers", () => {
  test("a running baseline starts from the base's samples and goes a tenth of the way to each batch", async () => {
    const ofBase = { ...batch, samples: samplesOf(world, everything, logBase) };
    const tuner = await tunerOf(runningKl, { epochs: 2 });
    const start = tuner.start(weightsOf(table), ofBase);
    // R = p/a of the base's samples.
    const begun = mean(Float64Array.from(everything, (n) => Math.exp(logTarget[n]! - logZ - logBase[n]!)));
    expect(start.controls).toEqual({ baseline: expect.closeTo(begun, 12) });
    const { state } = await tuner.step(start, batch, 0.05);
    // (pi/q) R = p/q, of the first pass.
    expect(state.controls).toEqual({ baseline: expect.closeTo(begun + 0.1 * (mean(w) - begun), 11) });
  });
  test("a running baseline is used as it was before the batch", async () => {
    const tuner = await tunerOf(runningKl);
    const start = { ...tuner.start(weightsOf(table), batch), controls: { baseline: 2.5 } };
    const { report } = await tuner.step(start, batch, 0.05);
    expect(report.advantageMean).toBeCloseTo(mean(w) - 2.5 * mean(r), 11);
  });
  test("a running baseline needs samples of the base", async () => {
    const tuner = await tunerOf(runningKl);
    expect(() => tuner.start(weightsOf(table))).toThrow("samples with the base's own");
  });
  test("an adaptive KL coefficient follows KL(pi, a), a fixed one does not", async () => {
    // A batch with a KL of 0.4 nats, 15 sequences of a horizon of 100.
    const given = { ...batch, logBase: logProposal.map((value) => value - 0.4) };
    const coefficient = async (klTarget: number, klControl: "adaptive" | "fixed") => {
      const spec = { name: "rloo", klCoefficient: 0.7, klControl, klTarget, klHorizon: 100 } as const;
      return (await stepOf(spec, { epochs: 3 }, given)).state.controls.klCoefficient!;
    };
    expect(await coefficient(0.4 / 1.1, "adaptive")).toBeCloseTo(0.7 * (1 + 0.1 * 0.15), 12);
    expect(await coefficient(0.4 / 0.9, "adaptive")).toBeCloseTo(0.7 * (1 - 0.1 * 0.15), 12);
    expect(await coefficient(0.4 / 0.9, "fixed")).toBe(0.7);
  });
  test("methods without anything to remember remember nothing", async () => {
    const { start, state } = await stepOf(gdcpp);
    expect([start.controls, state.controls]).toEqual([{}, {}]);
  });
});

test("the policy's weights are those of the model, also where a value head learns beside them", async () => {
  const ppo = { ...fixed, clip: 0.2, valueClip: 0.2, valueCoefficient: 0.1, discount: 1, gaeLambda: 0.95, whiten: true } as const;
  const tuner = await tunerOf({ name: "ppo", ...ppo });
  const weights = weightsOf(table);
  const state = tuner.start(weights);
  expect(Object.keys(state.weights).sort()).toEqual(["logits", "value-head.bias", "value-head.weight"]);
  expect(tuner.policyWeights(state)).toEqual(weights);
  expect(Object.keys((await tunerOf(gdcpp)).start(weights).weights)).toEqual(["logits"]);
});

describe("diagnose", () => {
  test("measures the gradients of single samples, of the whole batch or its first, and changes nothing", async () => {
    const tuner = await tunerOf(gdcpp);
    const state = tuner.start(weightsOf(table));
    const advantage = w.map((value, n) => value - r[n]!);
    const gradients = everything.map((n) => gradLogProb(world, table, sequences[n]!).map((value) => -advantage[n]! * value));
    for (const [asked, n] of [
      [8, 8],
      [15, 15],
      [99, 15],
    ] as const) {
      const found = await tuner.diagnose(state, batch, asked);
      const columns = table.map((_, k) => variance(gradients.slice(0, n).map((gradient) => gradient[k]!)));
      // The covariance's trace is the sum of the columns' variances: about 100 here.
      expect(found.gradientVariance.value / sum(columns)).toBeCloseTo(1, 12);
      expect(found.gradientVariance.n).toBe(n);
      expect(found.advantageMean!.value).toBeCloseTo(mean(advantage.slice(0, n)), 11);
    }
    expect(await tableIn(state)).toEqual(table);
  });
  test("a baseline of the batch stays that of the whole batch", async () => {
    const tuner = await tunerOf({ name: "reinforce", baseline: "mean" });
    const found = await tuner.diagnose(tuner.start(weightsOf(table)), batch, 5);
    const advantage = r.map((value, n) => value * (Math.fround(reward[n]!) - Math.fround(mean(reward))));
    expect(found.advantageMean!.value).toBeCloseTo(mean(advantage.slice(0, 5)), 11);
  });
});

test("dispose gives back every program, those of diagnoses among them", async () => {
  for (const [diagnosed, spec] of [
    [false, gdcpp],
    [true, gdcpp],
  ] as const) {
    const { device, programs } = listeningDevice();
    const tuner = await tunerOf(spec, {}, device);
    const before = programs.compiled;
    if (diagnosed) for (let i = 0; i < 2; i++) await tuner.diagnose(tuner.start(weightsOf(table)), batch, 3);
    expect(programs.compiled).toBe(before + Number(diagnosed));
    expect(programs.disposed).toBe(0);
    await tuner.dispose();
    expect(programs.disposed).toBe(programs.compiled);
  }
});

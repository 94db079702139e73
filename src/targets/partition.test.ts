import fc from "fast-check";
import { expect, test } from "vitest";
import { createWorld, drawSequences, logProbs, randomTable } from "../../tests/support/world.ts";
import { logMeanExp, mean, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { effectiveSampleSize, emptyPartition, logPartition, partitionEstimate, updatePartition } from "./partition.ts";

const never = Number.NEGATIVE_INFINITY;

test("a running estimate is the estimate of the pooled samples, in any order and batching", () => {
  const logRatio = fc.oneof({ weight: 4, arbitrary: fc.double({ min: -900, max: 900, noNaN: true }) }, fc.constant(never));
  fc.assert(
    fc.property(fc.array(fc.array(logRatio, { maxLength: 6 }), { maxLength: 6 }), (batches) => {
      const all = Float64Array.from(batches.flat());
      fc.pre(all.some((value) => value > never));
      const run = (order: readonly number[][]) =>
        partitionEstimate(order.reduce((state, batch) => updatePartition(state, Float64Array.from(batch)), emptyPartition));
      const [forward, backward] = [run(batches), run([...batches].reverse())];
      // Rounding of numbers up to 900, 2^-53 each, over at most 36 terms.
      expect(Math.abs(forward.logZ.value - logMeanExp(all))).toBeLessThan(1e-11);
      expect(Math.abs(backward.logZ.value - logMeanExp(all))).toBeLessThan(1e-11);
      // exp(900 - 900) and its square are known to 900 * 2^-53 = 1e-13 relative.
      expect(Math.abs(forward.ess / effectiveSampleSize(all).value - 1)).toBeLessThan(1e-11);
      expect(forward.logZ.n).toBe(all.length);
    }),
  );
});

test("the state survives JSON, before and after the first sample with mass", () => {
  const barren = updatePartition(emptyPartition, Float64Array.of(never, never));
  const fertile = updatePartition(barren, Float64Array.of(-700, 0.1));
  for (const state of [emptyPartition, barren, fertile]) expect(JSON.parse(JSON.stringify(state))).toEqual(state);
  // 2 of the 4 samples have no mass; e^-700 is below rounding beside e^0.1.
  expect(Math.abs(partitionEstimate(fertile).logZ.value - (0.1 - Math.log(4)))).toBeLessThan(1e-15);
});

test("equal ratios leave no doubt, and ratios scaled together shift log Z alone", () => {
  expect(logPartition(Float64Array.of(2, 2, 2))).toEqual({ value: 2, stdError: 0, n: 3 });
  const [low, high] = [logPartition(Float64Array.of(0, 1, 3)), logPartition(Float64Array.of(800, 801, 803))];
  // 800 carries a rounding of 1e-13.
  expect(Math.abs(high.value - low.value - 800)).toBeLessThan(1e-12);
  expect(Math.abs(high.stdError - low.stdError)).toBeLessThan(1e-12);
});

test("the effective sample size counts equal weights", () => {
  expect(Math.abs(effectiveSampleSize(Float64Array.of(5, 5, never, 5)).value - 3)).toBeLessThan(1e-14); // rounding of a log
  // Weights 1 and 3: 16/10.
  expect(Math.abs(effectiveSampleSize(Float64Array.of(0, Math.log(3))).value - 1.6)).toBeLessThan(1e-14); // rounding of a log
});

test("no mass, NaN and infinity are refused", () => {
  const message =
    "partition: expected at least one sample with P(x) > 0, got none in 2; draw more samples, or choose a less rare hard";
  expect(() => logPartition(Float64Array.of(never, never))).toThrow(message);
  expect(() => effectiveSampleSize(Float64Array.of(never, never))).toThrow(message);
  expect(() => partitionEstimate(emptyPartition)).toThrow("got none in 0");
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => updatePartition(emptyPartition, Float64Array.of(0, bad))).toThrow(`below infinity, got ${bad} at sample 1`);
    expect(() => effectiveSampleSize(Float64Array.of(0, bad))).toThrow("below infinity");
  }
});

test("standard errors are the spread over repetitions", () => {
  const world = createWorld(4, 4);
  const [logTarget, logProposal] = [logProbs(world, randomTable(world, 1, 0.5)), logProbs(world, randomTable(world, 2, 0.3))];
  const repeated = Array.from({ length: 400 }, (_, replication) => {
    const drawn = drawSequences(logProposal, 300, streamOf(keyOf(3, "partition"), replication));
    const logRatios = Float64Array.from(drawn, (i) => logTarget[i]! - logProposal[i]!);
    return [logPartition(logRatios), effectiveSampleSize(logRatios)] as const;
  });
  for (const which of [0, 1] as const) {
    const spread = Math.sqrt(variance(repeated.map((pair) => pair[which].value)));
    // The spread of 400 repetitions is itself known to 1/sqrt(800) = 3.5%; 4 of those, and the seed is fixed.
    expect(Math.abs(mean(repeated.map((pair) => pair[which].stdError)) / spread - 1)).toBeLessThan(0.14);
  }
});

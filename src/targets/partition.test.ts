import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createWorld, drawSequences, logProbs, randomTable } from "../../tests/support/world.ts";
import { TiltError } from "../base/errors.ts";
import { logMeanExp, logSumExp, mean, sum, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import {
  effectiveSampleSize,
  emptyPartition,
  logPartition,
  type PartitionRule,
  partitionEstimate,
  updatePartition,
} from "./partition.ts";

const never = Number.NEGATIVE_INFINITY;
const cumulative: PartitionRule = { rule: "cumulative" };
const windowed = (window: number): PartitionRule => ({ rule: "windowed", window });
const ess: PartitionRule = { rule: "ess" };
const rules = [cumulative, windowed(3), ess];

type Batches = readonly (readonly number[])[];
const after = (rule: PartitionRule | undefined, batches: Batches) =>
  batches.reduce((state, batch) => updatePartition(state, Float64Array.from(batch)), emptyPartition(rule));
const estimateOf = (rule: PartitionRule | undefined, batches: Batches) => partitionEstimate(after(rule, batches));

const logRatio = fc.oneof({ weight: 4, arbitrary: fc.double({ min: -900, max: 900, noNaN: true }) }, fc.constant(never));
const someBatches = fc.array(fc.array(logRatio, { maxLength: 6 }), { maxLength: 6 });
const hasMass = (batches: Batches): boolean => batches.flat().some((value) => value > never);

test("a running estimate is the estimate of the pooled samples, in any order and batching", () => {
  fc.assert(
    fc.property(someBatches, (batches) => {
      const all = Float64Array.from(batches.flat());
      fc.pre(hasMass(batches));
      const [forward, backward] = [estimateOf(undefined, batches), estimateOf(cumulative, [...batches].reverse())];
      // Rounding of numbers up to 900, 2^-53 each, over at most 36 terms.
      expect(Math.abs(forward.logZ.value - logMeanExp(all))).toBeLessThan(1e-11);
      expect(Math.abs(backward.logZ.value - logMeanExp(all))).toBeLessThan(1e-11);
      // exp(900 - 900) and its square are known to 900 * 2^-53 = 1e-13 relative.
      expect(Math.abs(forward.ess / effectiveSampleSize(all).value - 1)).toBeLessThan(1e-11);
      expect(forward.logZ.n).toBe(all.length);
    }),
  );
});

test("a windowed estimate is the estimate of the last batches, whatever came before", () => {
  fc.assert(
    fc.property(someBatches, fc.integer({ min: 1, max: 7 }), (batches, window) => {
      const kept = batches.slice(-window);
      fc.pre(hasMass(kept));
      const [estimate, expected] = [estimateOf(windowed(window), batches), estimateOf(cumulative, kept)];
      // As above; a batch is summed at its own scale and then brought to the largest.
      expect(Math.abs(estimate.logZ.value - expected.logZ.value)).toBeLessThan(1e-11);
      expect(Math.abs(estimate.ess / expected.ess - 1)).toBeLessThan(1e-11);
      // n/ess - 1 may be nothing but the rounding of ess; its root is then 1e-5.
      expect(Math.abs(estimate.logZ.stdError ** 2 - expected.logZ.stdError ** 2)).toBeLessThan(1e-11);
      expect(estimate.logZ.n).toBe(expected.logZ.n);
    }),
  );
});

/** The rule "ess" by its formulas, from each batch alone. */
const essByDefinition = (batches: Batches) => {
  const fertile = batches.filter((batch) => batch.some((value) => value > never)).map((batch) => Float64Array.from(batch));
  const each = fertile.map((batch) => ({ logZ: logPartition(batch), ess: effectiveSampleSize(batch).value, batch }));
  const logWeight = Math.log(sum(each.map((of) => of.ess)));
  const logParts = each.map((of) => Math.log(of.ess) + of.logZ.value);
  const logZ = logSumExp(logParts) - logWeight;
  const shares = logParts.map((part) => Math.exp(part - logWeight - logZ));
  // log of each ratio as often as it counts, e_k/n times: weights of their own effective sample size.
  const weighted = each.flatMap((of) => [...of.batch].map((value) => value + Math.log(of.ess / of.batch.length)));
  return {
    logZ,
    variance: sum(shares.map((share, k) => (share * each[k]!.logZ.stdError) ** 2)),
    ess: effectiveSampleSize(Float64Array.from(weighted)).value,
  };
};

test("an ess-weighted estimate is its formula, in any order, and batches without mass only count as drawn", () => {
  fc.assert(
    fc.property(someBatches, (batches) => {
      fc.pre(hasMass(batches));
      const expected = essByDefinition(batches);
      for (const order of [batches, [...batches].reverse()]) {
        const estimate = estimateOf(ess, order);
        // As above.
        expect(Math.abs(estimate.logZ.value - expected.logZ)).toBeLessThan(1e-11);
        expect(Math.abs(estimate.logZ.stdError ** 2 - expected.variance)).toBeLessThan(1e-11);
        expect(Math.abs(estimate.ess / expected.ess - 1)).toBeLessThan(1e-11);
        expect(estimate.logZ.n).toBe(batches.flat().length);
      }
    }),
  );
});

test("ratios below the smallest float, and a batch without mass after them", () => {
  for (const rule of [cumulative, windowed(2)])
    expect(estimateOf(rule, [[-900], [never]])).toEqual({ logZ: { value: -900 - Math.log(2), stdError: 1, n: 2 }, ess: 1 });
  // The batch without mass has no weight.
  expect(estimateOf(ess, [[-900], [never]])).toEqual({ logZ: { value: -900, stdError: 0, n: 2 }, ess: 1 });
});

test("of one batch all rules make the same estimate", () => {
  const batches = [[0.3, never, -1, 2, 2.5]];
  const expected = estimateOf(cumulative, batches);
  for (const rule of rules) {
    const { logZ, ess } = estimateOf(rule, batches);
    // A handful of roundings each.
    expect(Math.abs(logZ.value - expected.logZ.value)).toBeLessThan(1e-14);
    expect(Math.abs(logZ.stdError - expected.logZ.stdError)).toBeLessThan(1e-14);
    expect(Math.abs(ess - expected.ess)).toBeLessThan(1e-14);
  }
});

describe("expectations over all batches there can be", () => {
  const world = createWorld(3, 2);
  const size = world.sequences.length;
  // Sequences that start with token 2 have no mass; Z is not 1.
  const logTarget = logProbs(world, randomTable(world, 1)).map((value, i) => (world.sequences[i]![0] === 2 ? never : value + 2));
  const proposals = [2, 3].map((seed) => logProbs(world, randomTable(world, seed)));
  /** All ways to draw two of one proposal and then one of another, with their probabilities. */
  const runs = Array.from({ length: size ** 3 }, (_, number) => {
    const [i, j, k] = [number % size, Math.floor(number / size) % size, Math.floor(number / size ** 2)] as const;
    const ratio = (sequence: number, q: number) => logTarget[sequence]! - proposals[q]![sequence]!;
    return {
      probability: Math.exp(proposals[0]![i]! + proposals[0]![j]! + proposals[1]![k]!),
      batches: [[ratio(i, 0), ratio(j, 0)], [ratio(k, 1)]],
    };
  });

  test.each([cumulative, windowed(1), windowed(2)])("%o: Z is unbiased, though the proposal changes", (rule) => {
    const kept = rule.rule === "windowed" ? -rule.window : 0;
    const terms = runs.map(({ probability, batches }) =>
      hasMass(batches.slice(kept)) ? probability * Math.exp(estimateOf(rule, batches).logZ.value) : 0,
    );
    // 343 terms that sum to e^2 or less.
    expect(Math.abs(sum(terms) - sum(logTarget.map(Math.exp)))).toBeLessThan(1e-13);
  });

  test("ess: with hard constraints Z comes out too high by (1 - Z)/(n Z), relative", () => {
    // Every batch of 3 samples, of which one kind in 4 has mass: all alike probable, so that in turn they are the limit of many batches.
    const kinds = [0, never, never, never];
    const all = kinds.flatMap((a) => kinds.flatMap((b) => kinds.map((c) => [a, b, c])));
    const [z, n] = [1 / 4, 3];
    // 64 roundings.
    expect(Math.abs(Math.exp(estimateOf(cumulative, all).logZ.value) - z)).toBeLessThan(1e-14);
    expect(Math.abs(Math.exp(estimateOf(ess, all).logZ.value) - z * (1 + (1 - z) / (n * z)))).toBeLessThan(1e-14);
  });

  test("ess: with a few large ratios Z comes out too low, by (2 m2 - 1 - m3/m2)/n at first order", () => {
    const stream = streamOf(keyOf(7, "ess-bias"));
    const [n, count] = [40, 10_000];
    // R = 4 in a tenth of the samples, else 1: Z = 1.3. Moments of w = R/Z.
    const z = 1.3;
    const moment = (order: number) => 0.9 * (1 / z) ** order + 0.1 * (4 / z) ** order;
    const draw = () => Array.from({ length: n }, () => (stream.uniform() < 0.1 ? Math.log(4) : 0));
    const { value } = estimateOf(ess, Array.from({ length: count }, draw)).logZ;
    const bias = (2 * moment(2) - 1 - moment(3) / moment(2)) / n;
    expect(bias).toBeLessThan(-0.007);
    // Noise of 400,000 samples: sqrt((m2 - 1)/400000) = 0.0011 relative; 3 of those, or once in 400 seeds. The next order is 2/n^2.
    expect(Math.abs(Math.exp(value) / z - 1 - bias)).toBeLessThan(0.0033 + 2 / n ** 2);
  });
});

test("one huge ratio long ago: cumulative stays wrong, windowed forgets it, ess divides it by the size of its batch", () => {
  const stream = streamOf(keyOf(5, "poison"));
  const [n, count] = [4096, 200];
  const batches = Array.from({ length: count }, () => Array.from({ length: n }, () => 0.2 * stream.normal() - 0.02));
  batches[3]![17] = 20;
  // log Z is 0. By cumulative e^20/(200 * 4096) is left, 592; by ess 1/4096 of that, 0.145.
  expect(Math.abs(estimateOf(cumulative, batches).logZ.value - Math.log(593))).toBeLessThan(0.01);
  // 0.2 / sqrt(50 * 4096) = 0.0004, and 4 of those.
  expect(Math.abs(estimateOf(windowed(50), batches).logZ.value)).toBeLessThan(0.002);
  const { logZ, ess: size } = estimateOf(ess, batches);
  // Every other batch has an effective sample size of n e^-0.04, so the excess is 0.145 e^0.04.
  expect(Math.abs(logZ.value - Math.log(1 + 0.1447 * Math.exp(0.04)))).toBeLessThan(0.002);
  // And it says so: the error covers what is left, and the effective sample size is far from the 800,000 samples drawn.
  expect(logZ.stdError).toBeGreaterThan(0.1);
  expect(size).toBeLessThan(100);
});

describe.each(rules)("%o", (rule) => {
  const stream = streamOf(keyOf(11, "partition-rule"));
  const batches = Array.from({ length: 9 }, (_, k) =>
    Array.from({ length: 20 }, () => (k === 4 || stream.uniform() < 0.3 ? never : 30 * stream.normal())),
  );

  test("a state that went through JSON continues to the bit, before and after the first sample with mass", () => {
    const barren = [[never, never], [], ...batches];
    let [straight, resumed] = [emptyPartition(rule), emptyPartition(rule)];
    for (const batch of barren) {
      straight = updatePartition(straight, Float64Array.from(batch));
      resumed = updatePartition(JSON.parse(JSON.stringify(resumed)), Float64Array.from(batch));
      expect(JSON.stringify(resumed)).toBe(JSON.stringify(straight));
    }
    expect(partitionEstimate(resumed)).toEqual(partitionEstimate(straight));
    expect(straight.rule).toBe(rule.rule);
  });

  test("the state does not grow with the batches", () => {
    const size = (count: number) => JSON.stringify(after(rule, Array(count).fill([0.1, 0.7]))).length;
    // A sum and a count have up to 20 digits each, those of 3 batches.
    expect(size(2000) - size(3)).toBeLessThan(120);
  });

  test("P times a constant shifts log Z alone", () => {
    const [low, high] = [0, 500].map((shift) =>
      estimateOf(
        rule,
        batches.map((batch) => batch.map((value) => value + shift)),
      ),
    );
    // 500 carries a rounding of 6e-14.
    expect(Math.abs(high!.logZ.value - low!.logZ.value - 500)).toBeLessThan(1e-12);
    expect(Math.abs(high!.logZ.stdError - low!.logZ.stdError)).toBeLessThan(1e-12);
    expect(Math.abs(high!.ess - low!.ess)).toBeLessThan(1e-11);
  });

  test("equal ratios leave no doubt", () => {
    const { logZ, ess: size } = estimateOf(rule, [[2, 2], [2, 2, 2], [2]]);
    // 6 samples; a rounding of 2.
    expect(Math.abs(logZ.value - 2)).toBeLessThan(1e-15);
    expect(logZ.stdError).toBe(0);
    expect(Math.abs(size - 6)).toBeLessThan(1e-14);
  });

  test("its standard errors are the spread over repetitions", () => {
    const world = createWorld(4, 4);
    const [logTarget, logProposal] = [logProbs(world, randomTable(world, 1, 0.5)), logProbs(world, randomTable(world, 2, 0.3))];
    const repeated = Array.from({ length: 400 }, (_, replication) => {
      const draws = streamOf(keyOf(9, "partition-rules"), replication);
      // Unequal batches, the first the largest, as that of the fit.
      return estimateOf(
        rule,
        [400, 100, 200].map((n) => Array.from(drawSequences(logProposal, n, draws), (i) => logTarget[i]! - logProposal[i]!)),
      ).logZ;
    });
    const spread = Math.sqrt(variance(repeated.map(({ value }) => value)));
    // The spread of 400 repetitions is itself known to 1/sqrt(800) = 3.5%; 4 of those, and the seed is fixed.
    expect(Math.abs(mean(repeated.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.14);
  });
});

test("the state survives JSON, before and after the first sample with mass", () => {
  const barren = updatePartition(emptyPartition(), Float64Array.of(never, never));
  const fertile = updatePartition(barren, Float64Array.of(-700, 0.1));
  for (const state of [emptyPartition(), barren, fertile]) expect(JSON.parse(JSON.stringify(state))).toEqual(state);
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

test("errors of a pair, by hand", () => {
  // Ratios 1 and 3, of mean 2 and variance 2: sqrt(2/2)/2.
  expect(Math.abs(logPartition(Float64Array.of(-5, Math.log(3) - 5)).stdError - 0.5)).toBeLessThan(1e-14); // rounding of a log
  // w = 0.5 and 1.5, mean square 1.25: influences 2w - w^2/1.25 of 0.8 and 1.2, whose mean has an error of 0.2; times 1.6.
  const { value, stdError } = effectiveSampleSize(Float64Array.of(-5, Math.log(3) - 5));
  expect(Math.abs(value - 1.6)).toBeLessThan(1e-14);
  expect(Math.abs(stdError - 0.32)).toBeLessThan(1e-14);
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
  // Vitest takes a thrown undefined for any message.
  expect(() => logPartition(Float64Array.of(never, never))).toThrow(TiltError);
  expect(() => effectiveSampleSize(Float64Array.of(never, never))).toThrow(message);
  for (const rule of [cumulative, ess]) {
    expect(() => partitionEstimate(emptyPartition(rule))).toThrow("got none in 0; draw more samples, or choose");
    expect(() => estimateOf(rule, [[never], [never, never]])).toThrow("got none in 3; draw more samples, or choose");
  }
  // The samples with mass are forgotten.
  expect(() => estimateOf(windowed(2), [[1], [never], [never, never]])).toThrow(
    "got none in 3; draw more samples, widen the window, or choose a less rare hard constraint",
  );
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const rule of rules) {
      expect(() => updatePartition(emptyPartition(rule), Float64Array.of(0, bad))).toThrow(
        `partition: expected log P(x) - log q(x) below infinity, got ${bad} at sample 1; check the log-probabilities: a sample must`,
      );
    }
    expect(() => effectiveSampleSize(Float64Array.of(bad, 0))).toThrow(`below infinity, got ${bad} at sample 0`);
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

test.each([0, -1, 1.5, Number.NaN])("a window of %d batches is refused", (window) => {
  expect(() => emptyPartition(windowed(window))).toThrow(
    `partition: expected a window of at least 1 batch, got ${window}; give the number of latest batches to keep`,
  );
});

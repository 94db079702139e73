/** Tolerance 1e-12 where nothing else is said: sums of a few float64 terms of order one. */

import { describe, expect, test } from "vitest";
import { mean, sum, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { batchBaseline, explainedVariance, generalizedAdvantages, groupAdvantage, standardize } from "./advantage.ts";

const normals = (seed: number, length: number, scale = 1): Float64Array => {
  const stream = streamOf(keyOf(seed, "advantage"));
  return Float64Array.from({ length }, () => scale * stream.normal());
};
const close = (found: ArrayLike<number>, wanted: ArrayLike<number>, digits = 12) => {
  expect(found.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) expect(found[i]).toBeCloseTo(wanted[i]!, digits);
};

describe("batch baseline", () => {
  const rewards = Float64Array.of(1, 2, 6);
  test("none is 0, mean is the batch's, leave-one-out is that of the others", () => {
    expect([...batchBaseline("none", rewards)]).toEqual([0, 0, 0]);
    expect([...batchBaseline("mean", rewards)]).toEqual([3, 3, 3]);
    expect([...batchBaseline("leave-one-out", rewards)]).toEqual([4, 3.5, 1.5]);
  });
  test("a sample's own reward does not move its leave-one-out baseline", () => {
    expect(batchBaseline("leave-one-out", Float64Array.of(100, 2, 6))[0]).toBe(4);
  });
  test("two samples have each other's reward, a single one has no others: 0", () => {
    expect([...batchBaseline("leave-one-out", Float64Array.of(7, 5))]).toEqual([5, 7]);
    expect([...batchBaseline("leave-one-out", Float64Array.of(7))]).toEqual([0]);
  });
  test("the mean is leave-one-out shrunk by 1 - 1/n", () => {
    const many = normals(1, 6);
    const less = (name: "mean" | "leave-one-out") => batchBaseline(name, many).map((value, i) => many[i]! - value);
    close(
      less("mean"),
      less("leave-one-out").map((value) => (value * 5) / 6),
    );
  });
});

describe("standardize", () => {
  test("mean 0 and variance 1, in the same order", () => {
    const values = normals(2, 9, 3).map((value) => value + 5);
    const found = standardize(values);
    expect(mean(found)).toBeCloseTo(0, 12);
    // Short of 1 by 1e-8 over the variance of about 9.
    expect(variance(found)).toBeCloseTo(1, 8);
    expect(variance(found)).toBeLessThan(1);
    const spread = Math.sqrt(variance(values));
    close(
      found,
      values.map((value) => (value - mean(values)) / spread),
      8,
    );
  });
  test("equal values, or one, give 0 and not NaN", () => {
    // The mean of three 0.1 may be off by one rounding, which is then divided by 1e-4.
    for (const value of standardize(Float64Array.of(0.1, 0.1, 0.1))) expect(Math.abs(value)).toBeLessThan(1e-10);
    expect([...standardize(Float64Array.of(5, 5))]).toEqual([0, 0]);
    expect([...standardize(Float64Array.of(3))]).toEqual([0]);
  });
  test("a spread of 1e-4 is as large as what keeps it from 0", () =>
    // Variance 1e-8 and 1e-8 beside it.
    close(standardize(Float64Array.of(-1e-4, 0, 1e-4)), [-Math.SQRT1_2, 0, Math.SQRT1_2], 9));
});

describe("group advantage", () => {
  const rewards = Float64Array.of(1, 2, 6);
  test("is the reward less the group's mean", () => expect([...groupAdvantage(rewards, false)]).toEqual([-2, -1, 3]));
  test("over the standard deviation where that is asked for", () =>
    close(
      groupAdvantage(rewards, true),
      [-2, -1, 3].map((value) => value / Math.sqrt(7)),
      8,
    ));
  test("of equal rewards is 0, with the deviation and without", () => {
    for (const scale of [true, false]) expect([...groupAdvantage(Float64Array.of(2, 2, 2, 2), scale)]).toEqual([0, 0, 0, 0]);
  });
});

describe("generalised advantages", () => {
  const T = 6;
  const rewards = normals(3, T);
  const values = normals(4, T);
  /** delta_t, nothing coming after the last token. */
  const deltas = (discount: number) =>
    Array.from(rewards, (r, t) => r + (t === T - 1 ? 0 : discount * values[t + 1]!) - values[t]!);
  const places = Array.from({ length: T }, (_, t) => t);

  test("by hand", () => {
    const { advantages, returns } = generalizedAdvantages([1, 2], [10, 20], 0.5, 0.25);
    // delta_2 = 2 - 20; delta_1 = 1 + 10 - 10; A_1 = 1 + 0.125 (-18)
    expect([...advantages]).toEqual([-1.25, -18]);
    expect([...returns]).toEqual([8.75, 2]);
  });
  test.each([0.9, 1])("lambda 0 is delta_t, discount %d", (discount) =>
    close(generalizedAdvantages(rewards, values, discount, 0).advantages, deltas(discount)),
  );
  test.each([0.9, 1])("lambda 1 is what is still to come less the value, discount %d", (discount) => {
    const toCome = places.map((t) => sum(places.slice(t).map((s) => discount ** (s - t) * rewards[s]!)));
    const { advantages, returns } = generalizedAdvantages(rewards, values, discount, 1);
    close(
      advantages,
      toCome.map((value, t) => value - values[t]!),
    );
    close(returns, toCome);
  });
  test.each([
    [0.9, 0.7],
    [0.3, 0.95],
    [1, 0.5],
  ])("discount %d and lambda %d: the recursion is the double sum", (discount, lambda) => {
    const delta = deltas(discount);
    close(
      generalizedAdvantages(rewards, values, discount, lambda).advantages,
      places.map((t) => sum(places.slice(t).map((s) => (discount * lambda) ** (s - t) * delta[s]!))),
    );
  });
  test("nothing comes after the last token, and a discount of 0 looks no further than the token", () => {
    expect(generalizedAdvantages(rewards, values, 0.9, 0.7).advantages[T - 1]).toBe(rewards[T - 1]! - values[T - 1]!);
    close(
      generalizedAdvantages(rewards, values, 0, 1).advantages,
      rewards.map((r, t) => r - values[t]!),
    );
  });
  test("returns are A + V, and right values leave no advantage", () => {
    const { advantages, returns } = generalizedAdvantages(rewards, values, 0.9, 0.7);
    close(
      returns,
      advantages.map((value, t) => value + values[t]!),
    );
    const right = generalizedAdvantages(rewards, new Float64Array(T), 0.9, 1).returns;
    const exact = generalizedAdvantages(rewards, right, 0.9, 0.4);
    close(exact.advantages, new Float64Array(T));
    close(exact.returns, right);
  });
  test("an empty sequence has none", () => {
    expect(generalizedAdvantages([], [], 1, 1)).toEqual({ advantages: new Float64Array(0), returns: new Float64Array(0) });
  });
});

describe("explained variance", () => {
  const returns = normals(5, 8);
  test("1 for perfect values, and for values that are off by a constant", () => {
    expect(explainedVariance(returns, returns)).toBe(1);
    expect(
      explainedVariance(
        returns,
        returns.map((value) => value + 3),
      ),
    ).toBeCloseTo(1, 12);
  });
  test("0 for a constant", () =>
    expect(
      explainedVariance(
        returns,
        returns.map(() => 2),
      ),
    ).toBeCloseTo(0, 12));
  test("below 0 for values worse than a constant", () =>
    // Residuals are twice the returns, their variance four times.
    expect(
      explainedVariance(
        returns,
        returns.map((value) => -value),
      ),
    ).toBeCloseTo(-3, 12));
  test("by hand: half the deviation left is a quarter of the variance left", () =>
    expect(
      explainedVariance(
        returns,
        returns.map((value) => value / 2),
      ),
    ).toBeCloseTo(0.75, 12));
  test("0 where the returns do not vary", () =>
    expect(explainedVariance(Float64Array.of(2, 2, 2), Float64Array.of(1, 5, 7))).toBe(0));
});

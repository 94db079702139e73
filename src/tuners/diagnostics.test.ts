/** Gradient statistics against explicit vectors (docs/math.md M47). Tolerance 1e-9: differences of sums of a few hundred float64 terms of order ten. */

import { describe, expect, test } from "vitest";
import { mean, sum, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { type HostTensor, tensor } from "../base/tensor.ts";
import { onHost } from "../engine/runtime/device.ts";
import type { DeviceTensors } from "../optim/adam.ts";
import { gradientDiagnostics, gradientStatistics } from "./diagnostics.ts";

const dot = (a: Float64Array, b: Float64Array): number => sum(a.map((value, k) => value * b[k]!));
const randomVectors = (seed: number, m: number, width: number, centre: number): Float64Array[] => {
  const stream = streamOf(keyOf(seed, "gradients"));
  return Array.from({ length: m }, () => Float64Array.from({ length: width }, () => centre + stream.normal()));
};
const totalOf = (vectors: readonly Float64Array[]): Float64Array => vectors[0]!.map((_, k) => sum(vectors.map((g) => g[k]!)));

/** By definition: the variance of each component, and the mean product over all pairs of two different samples. */
const bruteForce = (vectors: readonly Float64Array[]) => {
  const traceOfCovariance = sum(vectors[0]!.map((_, k) => variance(vectors.map((g) => g[k]!))));
  const pairs = vectors.flatMap((a, i) => vectors.filter((_, j) => j !== i).map((b) => dot(a, b)));
  const squaredNorm = mean(pairs);
  return {
    gradientVariance: traceOfCovariance,
    gradientSquaredNorm: squaredNorm,
    gradientSignalToNoise: squaredNorm / traceOfCovariance,
  };
};
const statisticsOf = (vectors: readonly Float64Array[]) => {
  const total = totalOf(vectors);
  return gradientStatistics(
    Float64Array.from(vectors, (g) => dot(g, g)),
    Float64Array.from(vectors, (g) => dot(g, total)),
  );
};
const names = ["gradientVariance", "gradientSquaredNorm", "gradientSignalToNoise"] as const;

describe("statistics", () => {
  test.each([
    [3, 2, 0],
    [5, 4, 0.3],
    [12, 7, 1],
  ])("of %i vectors of width %i about %d: from two numbers a vector what all of them give", (m, width, centre) => {
    const vectors = randomVectors(m, m, width, centre);
    const [found, wanted] = [statisticsOf(vectors), bruteForce(vectors)];
    // Each left out in turn.
    const without = vectors.map((_, i) => bruteForce(vectors.filter((_, j) => j !== i)));
    for (const name of names) {
      expect(found[name].value).toBeCloseTo(wanted[name], 9);
      const left = without.map((one) => one[name]);
      const jackknife = Math.sqrt(((m - 1) / m) * sum(left.map((value) => (value - mean(left)) ** 2)));
      expect(jackknife).toBeGreaterThan(0);
      expect(found[name].stdError).toBeCloseTo(jackknife, 9);
      expect(found[name].n).toBe(m);
    }
  });
  test("equal gradients have no variance; the ratio is then 0, not infinite", () => {
    const equal = Array.from({ length: 4 }, () => Float64Array.of(1, 2));
    const found = statisticsOf(equal);
    expect(names.map((name) => found[name].value)).toEqual([0, 5, 0]);
    expect(names.map((name) => found[name].stdError)).toEqual([0, 0, 0]);
  });
  test("gradients that cancel have a squared norm below 0, as an unbiased estimate may", () => {
    const found = statisticsOf([Float64Array.of(1), Float64Array.of(-1), Float64Array.of(1), Float64Array.of(-1)]);
    // Of 12 ordered pairs 4 agree and 8 do not; the variance has the divisor 3.
    expect(found.gradientSquaredNorm.value).toBeCloseTo(-1 / 3, 12);
    expect(found.gradientVariance.value).toBeCloseTo(4 / 3, 12);
    expect(found.gradientSignalToNoise.value).toBeCloseTo(-1 / 4, 12);
  });
  test("needs three, so that one can be left out", () => {
    for (const m of [0, 1, 2])
      expect(() => gradientStatistics(new Float64Array(m), new Float64Array(m))).toThrow(
        new RangeError(`gradient diagnostics: expected at least 3 samples, got ${m}`),
      );
    expect(() => gradientStatistics(new Float64Array(3), new Float64Array(3))).not.toThrow();
  });
  test("means over every draw of three are the true variance and squared norm", () => {
    const population = randomVectors(7, 4, 3, 0.5);
    const probabilities = [0.1, 0.2, 0.3, 0.4];
    const centre = population[0]!.map((_, k) => sum(population.map((g, i) => probabilities[i]! * g[k]!)));
    const trace = sum(population.map((g, i) => probabilities[i]! * sum(g.map((value, k) => (value - centre[k]!) ** 2))));
    let [variances, squaredNorms] = [0, 0];
    for (let i = 0; i < 4; i++)
      for (let j = 0; j < 4; j++)
        for (let k = 0; k < 4; k++) {
          const found = statisticsOf([population[i]!, population[j]!, population[k]!]);
          const weight = probabilities[i]! * probabilities[j]! * probabilities[k]!;
          variances += weight * found.gradientVariance.value;
          squaredNorms += weight * found.gradientSquaredNorm.value;
        }
    expect(variances).toBeCloseTo(trace, 9);
    expect(squaredNorms).toBeCloseTo(dot(centre, centre), 9);
  });
});

describe("two passes", () => {
  const vectors = randomVectors(9, 6, 3, 0.5);
  const held = (data: Float64Array): DeviceTensors => ({ w: onHost(tensor("f64", [data.length], data)) });
  const dataOf = async (tensors: DeviceTensors) => (await tensors["w"]!.read()).data as Float64Array;
  const number = (value: number, shape: number[] = []): HostTensor => tensor("f64", shape, [value]);
  /** What a training graph with norms does, with gradients that are given. */
  const passOver = (visited: number[], advantages?: readonly number[]) => async (b: number, sofar: DeviceTensors) => {
    visited.push(b);
    const [g, before] = [vectors[b]!, await dataOf(sofar)];
    return {
      gradients: held(before.map((value, k) => value + g[k]!)),
      outputs: {
        squaredNorm: number(dot(g, g)),
        dot: number(dot(g, before)),
        ...(advantages === undefined ? {} : { advantage: number(advantages[b]!, [1]) }),
      },
    };
  };
  const zero = held(new Float64Array(3));
  const expectStatisticsOf = (some: readonly Float64Array[], found: ReturnType<typeof statisticsOf>) => {
    const wanted = statisticsOf(some);
    for (const name of names) {
      expect(found[name].value).toBeCloseTo(wanted[name].value, 9);
      expect(found[name].stdError).toBeCloseTo(wanted[name].stdError, 9);
      expect(found[name].n).toBe(some.length);
    }
  };

  test("add the gradients up, then multiply each with the sum of all", async () => {
    const visited: number[] = [];
    const found = await gradientDiagnostics(6, zero, passOver(visited));
    expectStatisticsOf(vectors, found);
    expect(visited).toEqual([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
  });
  test("take the first samples only, where fewer are asked for", async () => {
    expectStatisticsOf(vectors.slice(0, 4), await gradientDiagnostics(4, zero, passOver([])));
    await expect(gradientDiagnostics(2, zero, passOver([]))).rejects.toThrow("expected at least 3 samples, got 2");
  });
  test("report the advantages where there are any", async () => {
    const found = await gradientDiagnostics(4, zero, passOver([], [1, -2, 3, 6]));
    expect(found.advantageMean!.value).toBe(2);
    // Variance 34/3 with the divisor 3.
    expect(found.advantageMean!.stdError).toBeCloseTo(Math.sqrt(34 / 3 / 4), 12);
    expect(found.advantageMeanAbs!.value).toBe(3);
    // 1, 2, 3, 6: variance 14/3.
    expect(found.advantageMeanAbs!.stdError).toBeCloseTo(Math.sqrt(14 / 3 / 4), 12);
    expect(found.advantageVariance!.value).toBeCloseTo(34 / 3, 12);
    // Squared deviations 1, 16, 1, 16: mean 8.5, variance 75.
    expect(found.advantageVariance!.stdError).toBeCloseTo(Math.sqrt(75 / 4), 12);
    for (const estimate of [found.advantageMean!, found.advantageMeanAbs!, found.advantageVariance!]) expect(estimate.n).toBe(4);
    expectStatisticsOf(vectors.slice(0, 4), found);
  });
  test("and nothing of them where there are none", async () => {
    expect(Object.keys(await gradientDiagnostics(3, zero, passOver([])))).toEqual([...names]);
  });
});

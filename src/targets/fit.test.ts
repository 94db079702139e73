import { describe, expect, test } from "vitest";
import { createWorld, drawSequences, expectation, logProbs, randomTable, worldMatrix } from "../../tests/support/world.ts";
import { type Estimate, mean, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { logWeights } from "./ebm.ts";
import { columnOf, type FeatureMatrix } from "./feature.ts";
import { type FittedTarget, fitTarget } from "./fit.ts";

/** `counts` rows of each kind. */
const matrixOf = (names: readonly string[], kinds: readonly (readonly [count: number, ...phi: number[]])[]): FeatureMatrix => {
  const rows = kinds.flatMap(([count, ...phi]) => Array.from({ length: count }, () => phi));
  return { names, binary: names.map(() => true), count: rows.length, values: Float64Array.from(rows.flat()) };
};

const world = createWorld(4, 4);
const features = {
  one: (ids: Int32Array) => ids.includes(1),
  starts: (ids: Int32Array) => ids[0] === 2,
  length: (ids: Int32Array) => ids.length,
  ends: (ids: Int32Array) => ids.at(-1) === 0,
};
const everything = worldMatrix(world, features);
const baseTable = randomTable(world, 1, 0.5);
const logBase = logProbs(world, baseTable);

describe("on every sequence of a world, with exact weights", () => {
  test.each([
    ["soft", { one: 0.3, starts: 0.6 }],
    ["real-valued", { length: 2.5, one: 0.5 }],
    ["hard", { one: 1, ends: 0 }],
    ["hybrid", { ends: 1, starts: 0.25, length: 3 }],
  ])("the %s target has the wanted moments", (_, moments: Record<string, number>) => {
    const { target, report } = fitTarget(everything, { moments }, { logRowWeights: logBase });
    const logP = logWeights(target, everything).map((logWeight, i) => logBase[i]! + logWeight - target.logZ);
    for (const [name, moment] of Object.entries(moments)) {
      const found = expectation(logP, columnOf(everything, everything.names.indexOf(name)));
      // Newton ends at rounding: 121 terms of at most 4.
      expect(Math.abs(found - moment)).toBeLessThan(1e-12);
    }
    expect(Math.abs(expectation(logP, new Float64Array(logP.length).fill(1)) - 1)).toBeLessThan(1e-12);
    // KL(p, a) = E_p[log p - log a] by its definition; a sum of 121 terms.
    const kl = expectation(
      logP,
      logP.map((value, i) => value - logBase[i]!),
    );
    expect(Math.abs(report.klTargetBase.value - kl)).toBeLessThan(1e-12);
  });

  test("KL(p, a) of hard constraints is -log Z, and Z is their probability under the base", () => {
    const { target, report } = fitTarget(everything, { moments: { one: 1, ends: 1 } }, { logRowWeights: logBase });
    const both = Float64Array.from(world.sequences, (ids) => Number(features.one(ids) && features.ends(ids)));
    expect(Math.abs(Math.exp(target.logZ) - expectation(logBase, both))).toBeLessThan(1e-14); // one sum, rounded twice
    expect(report.klTargetBase.value).toBe(-target.logZ);
    expect(target.coefficients).toEqual([0, 0]);
  });
});

test("one binary feature has the closed form (docs/math.md M5)", () => {
  const { target, report } = fitTarget(
    matrixOf(
      ["female"],
      [
        [926, 0],
        [74, 1],
      ],
    ),
    { moments: { female: 0.5 } },
  );
  const [m, mu] = [0.074, 0.5];
  const lambda = Math.log((mu * (1 - m)) / (m * (1 - mu)));
  // Newton ends at rounding.
  expect(Math.abs(target.coefficients[0]! - lambda)).toBeLessThan(1e-12);
  expect(Math.abs(target.logZ - Math.log(1 - m + m * Math.exp(lambda)))).toBeLessThan(1e-12);
  // 2.527 and 1.852 are known to three decimals.
  expect(Math.abs(report.coefficients["female"]!.value - 2.527)).toBeLessThan(5e-4);
  expect(Math.abs(Math.exp(report.logZ.value) - 1.852)).toBeLessThan(5e-4);
  // The log odds of a share have the standard error 1/sqrt(N m (1-m)).
  expect(Math.abs(report.coefficients["female"]!.stdError - 1 / Math.sqrt(1000 * m * (1 - m)))).toBeLessThan(1e-12);
});

test.each([
  [1e-3, 6.91],
  [8e-5, 9.43],
])("a word at rate %d costs %d nats when it must occur", (rate, nats) => {
  const hits = rate * 1e5;
  const { report } = fitTarget(
    matrixOf(
      ["word"],
      [
        [1e5 - hits, 0],
        [hits, 1],
      ],
    ),
    { moments: { word: 1 } },
  );
  // Known to two decimals.
  expect(Math.abs(report.klTargetBase.value - nats)).toBeLessThan(5e-3);
  // The log of a binomial share has the standard error sqrt((1-m)/(Nm)); the ESS is the number of hits, itself binomial.
  expect(Math.abs(report.klTargetBase.stdError - Math.sqrt((1 - rate) / hits))).toBeLessThan(1e-12);
  expect(Math.abs(report.ess.value - hits)).toBeLessThan(1e-9); // 1e5 terms
  expect(Math.abs(report.ess.stdError - Math.sqrt(hits * (1 - rate)))).toBeLessThan(1e-9);
});

test("the report names every feature, and tells hard from soft", () => {
  const { target, report } = fitTarget(everything, { moments: { ends: 0, one: 0.4 } });
  expect(target).toMatchObject({ names: ["one", "ends"], hard: [{ index: 1, value: 0 }] });
  expect(report).toMatchObject({ samples: 121, targetMoments: { one: 0.4, ends: 0 }, hard: { ends: 0 } });
  expect(Object.keys(report.baseMoments)).toEqual(["one", "starts", "length", "ends"]);
  expect(Object.keys(report.coefficients)).toEqual(["one"]);
  expect(report.baseMoments["ends"]).toEqual({ value: expect.closeTo(40 / 121, 14), stdError: expect.any(Number), n: 121 });
  expect(JSON.parse(JSON.stringify(target))).toEqual(target);
});

test("features that depend on each other give one target, with finite errors", () => {
  const single = matrixOf(
    ["a"],
    [
      [90, 0],
      [10, 1],
    ],
  );
  const twice = matrixOf(
    ["a", "b"],
    [
      [90, 0, 0],
      [10, 1, 1],
    ],
  );
  const alone = fitTarget(single, { moments: { a: 0.5 } });
  const copied = fitTarget(twice, { moments: { a: 0.5, b: 0.5 } });
  const weights = (fitted: FittedTarget, matrix: FeatureMatrix) => logWeights(fitted.target, matrix);
  // Newton ends at rounding in both.
  const other = weights(copied, twice);
  for (const [i, value] of weights(alone, single).entries()) expect(Math.abs(value - other[i]!)).toBeLessThan(1e-12);
  expect(Math.abs(copied.report.logZ.stdError - alone.report.logZ.stdError)).toBeLessThan(1e-12);
  expect(Math.abs(2 * copied.report.coefficients["a"]!.stdError - alone.report.coefficients["a"]!.stdError)).toBeLessThan(1e-12);
});

test("the unit of a feature does not matter, even beside another of a millionfold scale", () => {
  const rows = Array.from({ length: 200 }, (_, i) => [i % 2, (i * 7) % 10]);
  const scaled = (by: number): FeatureMatrix => ({
    names: ["binary", "size"],
    binary: [true, false],
    count: 200,
    values: Float64Array.from(rows.flatMap(([binary, size]) => [binary!, size! * by])),
  });
  const [unit, million] = [1, 1e7].map((by) => fitTarget(scaled(by), { moments: { binary: 0.3, size: 6 * by } }).report);
  for (const name of ["binary", "size"]) {
    const by = name === "size" ? 1e7 : 1;
    const [a, b] = [unit!.coefficients[name]!, million!.coefficients[name]!];
    // Newton ends at rounding in both.
    expect(Math.abs(b.value * by - a.value)).toBeLessThan(1e-12);
    expect(Math.abs((b.stdError * by) / a.stdError - 1)).toBeLessThan(1e-11);
  }
});

describe("what cannot be fitted explains itself", () => {
  const people = matrixOf(
    ["male", "female", "other", "sports"],
    [
      [40, 1, 0, 0, 0],
      [30, 0, 1, 0, 0],
      [29, 0, 0, 1, 0],
      [1, 1, 0, 0, 1],
    ],
  );
  test.each([
    [
      "a feature never seen",
      { alien: 0.5, male: 0.5 },
      'fit: expected feature "alien" in some of 100 samples, got none; its moment 0.5 cannot be reached from these: ' +
        "draw more samples, or choose another feature or moment",
    ],
    [
      "a feature always seen",
      { always: 0.5 },
      'fit: expected some of 100 samples without feature "always", got it in all; its moment 0.5',
    ],
    ["a hard feature never seen", { alien: 1 }, 'fit: expected feature "alien" in some of 100 samples, got none; its moment 1'],
    [
      "a combination outside the hull, naming none but its features",
      { male: 0.6, female: 0.6, sports: 0.1 },
      "fit: expected wanted moments that some reweighting of the 100 samples has, got male = 0.6, female = 0.6; " +
        "they contradict each other, or call for kinds of text too rare to be seen: change a moment or draw more samples",
    ],
    ["a combination on the hull's edge", { sports: 0.1, male: 0.5, female: 0.5 }, "got male = 0.5, female = 0.5;"],
    ["a soft moment against a hard one", { other: 0.2, sports: 1, female: 0.5 }, "got other = 0.2, sports = 1;"],
    [
      "hard constraints that exclude every sample",
      { male: 0.5, female: 1, sports: 1 },
      "fit: expected at least one of 100 samples to meet female = 1, sports = 1 together, got none; draw more samples",
    ],
    ["a copy with another moment", { male: 0.5, copy: 0.4 }, "got male = 0.5, copy = 0.4;"],
    [
      "a real-valued moment out of range",
      { size: 9 },
      'expected a moment of "size" well inside its range over 100 samples, 0 to 1, got 9;',
    ],
  ])("%s", (_, moments: Record<string, number>, message) => {
    const extra = people.count;
    const columns = ["male", "female", "other", "sports", "alien", "always", "copy", "size"];
    const values = Array.from({ length: extra }, (_, i) => [
      ...people.values.subarray(i * 4, i * 4 + 4),
      0,
      1,
      people.values[i * 4]!,
      i / 99,
    ]);
    const matrix = {
      names: columns,
      binary: columns.map((name) => name !== "size"),
      count: extra,
      values: Float64Array.from(values.flat()),
    };
    expect(() => fitTarget(matrix, { moments })).toThrow(message);
  });

  test("no samples, no finite weights", () => {
    const none = matrixOf(["a"], []);
    expect(() => fitTarget(none, { moments: { a: 0.5 } })).toThrow(
      "fit: expected at least one sample of the base, got none; draw some",
    );
    const two = matrixOf(
      ["a"],
      [
        [1, 0],
        [1, 1],
      ],
    );
    const logRowWeights = Float64Array.of(Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY);
    expect(() => fitTarget(two, { moments: { a: 0.5 } }, { logRowWeights })).toThrow("fit: expected row weights of finite total");
  });
});

describe("standard errors are the spread of the estimates over repetitions", () => {
  const [replications, N] = [300, 400];
  // A proposal near the base: far from it, weights have tails too heavy for errors at 400 samples.
  const nearby = randomTable(world, 2, 0.25).map((value, i) => baseTable[i]! + value);
  const logProposal = logProbs(world, nearby);
  const fits = (logDrawn: Float64Array, moments: Record<string, number>, weighted: boolean) =>
    Array.from({ length: replications }, (_, replication) => {
      const drawn = drawSequences(logDrawn, N, streamOf(keyOf(7, "fit"), replication));
      const logRowWeights = Float64Array.from(drawn, (i) => logBase[i]! - logDrawn[i]!);
      return fitTarget(worldMatrix(world, features, drawn), { moments }, weighted ? { logRowWeights } : {}).report;
    });
  test.each([
    ["soft, from the base", fits(logBase, { one: 0.3, length: 3 }, false), ["one", "length"]],
    ["hybrid, from the base", fits(logBase, { ends: 1, one: 0.4 }, false), ["one"]],
    ["soft, from a proposal", fits(logProposal, { one: 0.3, starts: 0.6 }, true), ["one", "starts"]],
  ])("%s", (_, reports, names) => {
    const calibrated = (take: (report: (typeof reports)[number]) => Estimate): void => {
      const estimates = reports.map(take);
      const spread = Math.sqrt(variance(estimates.map(({ value }) => value)));
      // The spread of 300 repetitions is itself known to 1/sqrt(2 * 300) = 4%; 4 of those, and the seed is fixed.
      expect(Math.abs(mean(estimates.map(({ stdError }) => stdError)) / spread - 1)).toBeLessThan(0.16);
    };
    calibrated(({ logZ }) => logZ);
    calibrated(({ klTargetBase }) => klTargetBase);
    calibrated(({ ess }) => ess);
    calibrated(({ baseMoments }) => baseMoments["one"]!);
    for (const name of names) calibrated(({ coefficients }) => coefficients[name]!);
  });
});

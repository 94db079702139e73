import { beforeAll, describe, expect, test } from "vitest";
import { createWorld, drawSequences, expectation, logProbs, randomTable, worldMatrix } from "../../tests/support/world.ts";
import { TiltError } from "../base/errors.ts";
import { type Estimate, logSumExp, mean, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { logWeights, type Target, type TargetSpec } from "./ebm.ts";
import { columnOf, type FeatureMatrix } from "./feature.ts";
import { type FittedTarget, fitProduct, fitTarget, productOf } from "./fit.ts";

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

/** log p of every sequence of the world. */
const logTargetOf = (target: Target): Float64Array =>
  logWeights(target, everything).map((logWeight, i) => logBase[i]! + logWeight - target.logZ);
const column = (name: keyof typeof features) => columnOf(everything, Object.keys(features).indexOf(name));
/** KL(p, a) as the sum by definition. */
const klFromBase = (logP: Float64Array) =>
  expectation(
    logP,
    logP.map((value, i) => (value === Number.NEGATIVE_INFINITY ? 0 : value - logBase[i]!)),
  );
/** log a exp(given . phi), normalised, under the hard constraint that `allowed` is. */
const tilted = (exponent: (i: number) => number, allowed: (i: number) => boolean = () => true): Float64Array => {
  const logMasses = logBase.map((value, i) => (allowed(i) ? value + exponent(i) : Number.NEGATIVE_INFINITY));
  const logZ = logSumExp(logMasses);
  return logMasses.map((value) => value - logZ);
};
/** The coefficient of a moment by bisection, the one thing here that Newton's method has no part in. */
const bisected = (moment: number, momentOf: (coefficient: number) => number): number => {
  let [low, high] = [-50, 50];
  for (let k = 0; k < 200; k++) {
    const middle = (low + high) / 2;
    if (momentOf(middle) < moment) low = middle;
    else high = middle;
  }
  return low;
};
const expectSame = (found: Float64Array, wanted: Float64Array, tolerance: number) => {
  for (const [i, value] of wanted.entries()) expect(Math.abs(Math.exp(found[i]!) - Math.exp(value))).toBeLessThan(tolerance);
};

describe("with given coefficients, on every sequence of a world", () => {
  const exact = { logRowWeights: logBase };
  const [one, length, ends] = [column("one"), column("length"), column("ends")];

  test("alone they are the target: a(x) exp(given . phi(x)), nothing fitted", () => {
    const { target, report } = fitTarget(everything, { coefficients: { length: 0.7, one: -1.5 } }, exact);
    const wanted = tilted((i) => 0.7 * length[i]! - 1.5 * one[i]!);
    expectSame(logTargetOf(target), wanted, 1e-14); // 121 terms in log Z
    expect(target).toMatchObject({ names: ["one", "length"], hard: [], coefficients: [-1.5, 0.7] });
    expect(Math.abs(report.klTargetBase.value - klFromBase(wanted))).toBeLessThan(1e-13);
    expect(report.coefficients).toEqual({
      one: { value: -1.5, stdError: 0, n: 121 },
      length: { value: 0.7, stdError: 0, n: 121 },
    });
    expect(report.targetMoments).toEqual({});
  });

  test.each<[string, number, (i: number) => boolean, Record<string, number>]>([
    ["a moment", 0.6, () => true, {}],
    ["a moment and a hard constraint", -0.8, (i) => ends[i] === 1, { ends: 1 }],
    // Weights that differ by 1500 nats: any exponential of them alone would be 0 or infinite.
    ["a moment, though they are huge", 500, () => true, {}],
  ])("with %s, p is what bisection finds", (_, given, allowed, hard) => {
    const at = (lambda: number) => tilted((i) => given * length[i]! + lambda * one[i]!, allowed);
    const lambda = bisected(0.3, (coefficient) => expectation(at(coefficient), one));
    const spec: TargetSpec = { moments: { one: 0.3, ...hard }, coefficients: { length: given } };
    const { target, report } = fitTarget(everything, spec, exact);
    // Bisection ends at the rounding of lambda's moment: 1e-15 over a slope of about 0.2, beside exponents of up to 2000.
    const tolerance = 1e-13 * (1 + Math.abs(given));
    expectSame(logTargetOf(target), at(lambda), tolerance);
    expect(Math.abs(report.coefficients["one"]!.value - lambda)).toBeLessThan(tolerance);
    expect(report.coefficients["length"]).toEqual({ value: given, stdError: 0, n: 121 });
    expect(Math.abs(report.klTargetBase.value - klFromBase(at(lambda)))).toBeLessThan(tolerance);
    expect(report.targetMoments).toEqual({ one: 0.3, ...hard });
  });

  test("p is the nearest to a exp(given . phi) that has the moment, not the nearest to a", () => {
    const spec: TargetSpec = { moments: { one: 0.3 }, coefficients: { length: 0.6 } };
    const logP = logTargetOf(fitTarget(everything, spec, exact).target);
    const reference = tilted((i) => 0.6 * length[i]!);
    const other = logTargetOf(fitTarget(everything, { moments: { one: 0.3 } }, exact).target);
    const divergence = (log: Float64Array) =>
      expectation(
        log,
        log.map((value, i) => value - reference[i]!),
      );
    expect(divergence(logP)).toBeLessThan(divergence(other) - 0.01);
    expect(klFromBase(other)).toBeLessThan(klFromBase(logP) - 0.01);
  });

  test("a coefficient of a feature that has a moment too is taken in by the fit: their sum is what the moment alone gives", () => {
    const alone = fitTarget(everything, { moments: { one: 0.3, length: 2.5 } }, exact);
    const both = fitTarget(everything, { moments: { one: 0.3, length: 2.5 }, coefficients: { one: 2 } }, exact);
    for (const [j, coefficient] of alone.target.coefficients.entries())
      expect(Math.abs(both.target.coefficients[j]! - coefficient)).toBeLessThan(1e-12); // Newton ends at rounding in both
    for (const key of ["logZ", "ess", "klTargetBase"] as const) {
      expect(Math.abs(both.report[key].value - alone.report[key].value)).toBeLessThan(1e-10);
      expect(Math.abs(both.report[key].stdError - alone.report[key].stdError)).toBeLessThan(1e-10);
    }
    expect(Math.abs(both.report.coefficients["one"]!.stdError - alone.report.coefficients["one"]!.stdError)).toBeLessThan(1e-10);
  });

  test("a coefficient of a hard feature changes Z and no probability", () => {
    const plain = fitTarget(everything, { moments: { ends: 1 } }, exact);
    const shifted = fitTarget(everything, { moments: { ends: 1 }, coefficients: { ends: 2 } }, exact);
    expectSame(logTargetOf(shifted.target), logTargetOf(plain.target), 1e-14);
    expect(Math.abs(shifted.target.logZ - plain.target.logZ - 2)).toBeLessThan(1e-14);
    expect(Math.abs(shifted.report.klTargetBase.value - plain.report.klTargetBase.value)).toBeLessThan(1e-14);
    expect(shifted.report.coefficients).toEqual({ ends: { value: 2, stdError: 0, n: 121 } });
  });
});

describe("a product", () => {
  const exact = { logRowWeights: logBase };
  const specs: TargetSpec[] = [
    { moments: { one: 0.3, length: 3 } },
    { coefficients: { one: -0.5 } },
    { moments: { ends: 1, starts: 0.25 } },
  ];
  let factors: FittedTarget[];
  let target: Target;
  let report: FittedTarget["report"];
  beforeAll(() => {
    factors = specs.map((spec) => fitTarget(everything, spec, exact));
    ({ target, report } = fitProduct(everything, specs, exact));
    // By definition: a prod_k P_k/a, where P_k/a = p_k Z_k / a.
    logMasses = logBase.map((value, i) =>
      factors.reduce((total, factor) => total + (logTargetOf(factor.target)[i]! + factor.target.logZ - logBase[i]!), value),
    );
    logZ = logSumExp(logMasses);
    logP = logMasses.map((value) => value - logZ);
  });
  let logMasses: Float64Array;
  let logZ: number;
  let logP: Float64Array;

  test("is the base times every P/a, each fitted on its own", () => {
    expectSame(logTargetOf(target), logP, 1e-13); // a handful of sums of 121 terms
    expect(Math.abs(report.logZ.value - logZ)).toBeLessThan(1e-13);
    expect(Math.abs(report.klTargetBase.value - klFromBase(logP))).toBeLessThan(1e-13);
    expect(Math.abs(1 / report.ess.value - expectation(logP, logP.map(Math.exp)))).toBeLessThan(1e-13);
    // The factors' moments are not the product's.
    expect(Math.abs(expectation(logP, column("one")) - 0.3)).toBeGreaterThan(0.01);
  });

  test("adds coefficients, joins hard constraints, and promises only these", () => {
    const [first, , third] = factors.map((factor) => factor.report.coefficients);
    expect(target.names).toEqual(["one", "starts", "length", "ends"]);
    expect(target.hard).toEqual([{ index: 3, value: 1 }]);
    expect(report).toMatchObject({ hard: { ends: 1 }, targetMoments: { ends: 1 } });
    expect(Object.keys(report.coefficients)).toEqual(["one", "starts", "length"]);
    expect(report.coefficients["one"]!.value).toBeCloseTo(first!["one"]!.value - 0.5, 14);
    for (const [name, estimate] of [
      ["one", first!["one"]!],
      ["length", first!["length"]!],
      ["starts", third!["starts"]!],
    ] as const)
      expect(report.coefficients[name]!.stdError).toBeCloseTo(estimate.stdError, 14);
    expect(Object.keys(report.baseMoments)).toEqual(everything.names);
    expect(target).toEqual(
      productOf(
        factors.map((factor) => factor.target),
        everything,
        exact,
      ),
    );
  });

  test("of one target with itself doubles its coefficients, and their error", () => {
    const [single] = factors;
    const { report } = fitProduct(everything, [specs[0]!, specs[0]!], exact);
    const [once, twice] = [single!.report.coefficients["one"]!, report.coefficients["one"]!];
    expect(twice.value).toBeCloseTo(2 * once.value, 13);
    expect(twice.stdError).toBeCloseTo(2 * once.stdError, 13);
  });

  test.each<[string, TargetSpec[], string]>([
    [
      "that contradicts itself",
      [{ moments: { ends: 1 } }, { moments: { one: 0.3 } }, { moments: { ends: 0 } }],
      "fit: expected at least one of 121 samples to meet ends = 1, ends = 0 together, got none; draw more samples, or check that",
    ],
    [
      "whose hard constraints never meet",
      [{ moments: { starts: 1 } }, { moments: { one: 1, ends: 0 } }, { moments: { ones: 1 } }],
      "fit: expected at least one of 121 samples to meet starts = 1, ones = 1 together, got none;",
    ],
    [
      "with a factor that cannot be had",
      [{ moments: { one: 0.5 } }, { moments: { length: 9 } }],
      'target.product.1: expected a moment of "length" well inside its range over 121 samples, 1 to 4, got 9;',
    ],
    [
      "with a factor that says nothing",
      [{ moments: { one: 0.5 } }, {}],
      "target.product.1: expected moments, coefficients or both, got neither;",
    ],
    [
      "with an unknown feature",
      [{ coefficients: { two: 1 } }, {}],
      'target.product.0.coefficients.two: expected one of the features one, starts, length, ends, ones, got "two"',
    ],
  ])("%s explains itself", (_, specs, message) => {
    const matrix = worldMatrix(world, { ...features, ones: (ids: Int32Array) => ids.every((id) => id === 1) });
    expect(() => fitProduct(matrix, specs)).toThrow(message);
  });

  test("needs every feature of its targets", () => {
    const foreign: Target = { names: ["other"], hard: [], coefficients: [1], logZ: 0 };
    expect(() => productOf([foreign, target], everything)).toThrow('target: expected values of the feature "other"');
    expect(() => productOf([foreign, target], { ...everything, count: 0 })).toThrow(
      "fit: expected at least one sample of the base",
    );
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
    // What throws undefined passes for any message.
    expect(() => fitTarget(matrix, { moments })).toThrow(TiltError);
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
  const fits = (logDrawn: Float64Array, spec: TargetSpec | TargetSpec[], weighted: boolean) =>
    Array.from({ length: replications }, (_, replication) => {
      const drawn = drawSequences(logDrawn, N, streamOf(keyOf(7, "fit"), replication));
      const logRowWeights = Float64Array.from(drawn, (i) => logBase[i]! - logDrawn[i]!);
      const [matrix, options] = [worldMatrix(world, features, drawn), weighted ? { logRowWeights } : {}];
      return ("length" in spec ? fitProduct(matrix, spec, options) : fitTarget(matrix, spec, options)).report;
    });
  const given = { coefficients: { length: 0.4 } };
  test.each([
    ["soft, from the base", () => fits(logBase, { moments: { one: 0.3, length: 3 } }, false), ["one", "length"]],
    ["hybrid, from the base", () => fits(logBase, { moments: { ends: 1, one: 0.4 } }, false), ["one"]],
    ["soft, from a proposal", () => fits(logProposal, { moments: { one: 0.3, starts: 0.6 } }, true), ["one", "starts"]],
    ["given", () => fits(logBase, given, false), []],
    ["given and soft", () => fits(logBase, { moments: { one: 0.3, starts: 0.5 }, ...given }, false), ["one", "starts"]],
    ["given and hybrid", () => fits(logBase, { moments: { ends: 1, one: 0.4 }, ...given }, false), ["one"]],
    ["given and soft, from a proposal", () => fits(logProposal, { moments: { one: 0.3 }, ...given }, true), ["one"]],
    [
      "a product whose factors share a feature",
      () => fits(logBase, [{ moments: { one: 0.4, starts: 0.4 } }, { moments: { one: 0.6 } }, given], false),
      ["one", "starts"],
    ],
    ["a product with a hard factor", () => fits(logBase, [{ moments: { ends: 1 } }, { moments: { one: 0.4 } }], false), ["one"]],
  ])("%s", (_, drawn, names) => {
    const reports = drawn();
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

import { expect, test } from "vitest";
import { constraintsOf, givenCoefficientsOf, logWeights } from "./ebm.ts";
import type { FeatureMatrix } from "./feature.ts";

const matrix: FeatureMatrix = {
  names: ["length", "sports", "female"],
  binary: [false, true, true],
  count: 3,
  // rows: length, sports, female
  values: Float64Array.of(7, 1, 1, 5, 0, 1, 2, 1, 0),
};

test("a hard violation has no mass; the rest is lambda . phi, whatever the order of the columns", () => {
  const target = { names: ["female", "sports", "length"], hard: [{ index: 1, value: 1 as const }], coefficients: [2, 0, -0.5] };
  expect([...logWeights(target, matrix)]).toEqual([2 - 3.5, Number.NEGATIVE_INFINITY, -1]);
});

test("a hard 0 forbids the feature", () => {
  const target = { names: ["female"], hard: [{ index: 0, value: 0 as const }], coefficients: [0] };
  expect([...logWeights(target, matrix)]).toEqual([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]);
});

test("a target's feature must be in the matrix", () => {
  expect(() => logWeights({ names: ["male"], hard: [], coefficients: [1] }, matrix)).toThrow(
    'target: expected values of the feature "male", got length, sports, female; evaluate every feature of the target',
  );
});

test("only a moment of 0 or 1 of a binary feature is hard", () => {
  const hard = constraintsOf({ moments: { female: 0, sports: 0.5, length: 1 } }, matrix).map(({ name, hard }) => [name, hard]);
  expect(hard).toEqual([
    ["length", false],
    ["sports", false],
    ["female", true],
  ]);
});

test.each([
  [{}, "target.moments: expected at least one wanted moment, got none; name a feature and its moment"],
  [
    { femal: 0.5 },
    'target.moments.femal: expected one of the features length, sports, female, got "femal"; did you mean "female"?',
  ],
  [{ politics: 0.5 }, 'got "politics"; define the feature or remove the moment'],
  [
    { female: 50 },
    "target.moments.female: expected a moment between 0 and 1, because the feature is 0 or 1, got 50; write the wanted share",
  ],
  [{ length: Number.NaN }, "target.moments.length: expected a finite number, got NaN"],
])("an impossible wish %o explains itself", (moments, message) => {
  expect(() => constraintsOf({ moments }, matrix)).toThrow(message);
});

test("a spec of coefficients alone has no constraints, and one of nothing is refused", () => {
  expect(constraintsOf({ coefficients: { sports: 2 } }, matrix)).toEqual([]);
  expect(givenCoefficientsOf({ moments: { sports: 0.5 } }, matrix)).toEqual([]);
  expect(givenCoefficientsOf({ coefficients: { female: 2, length: -1 } }, matrix)).toEqual([
    { name: "length", column: 0, value: -1 },
    { name: "female", column: 2, value: 2 },
  ]);
  expect(() => constraintsOf({}, matrix)).toThrow(
    "target: expected moments, coefficients or both, got neither; write the moments that are wanted",
  );
});

test.each([
  [{}, "a.b.coefficients: expected at least one given coefficient, got none; name a feature and its coefficient"],
  [
    { femal: 1 },
    'a.b.coefficients.femal: expected one of the features length, sports, female, got "femal"; did you mean "female"?',
  ],
  [{ politics: 1 }, 'got "politics"; define the feature or remove the coefficient'],
  [{ length: Number.NaN }, "a.b.coefficients.length: expected a finite number, got NaN; write nats per unit of the feature"],
])("an impossible coefficient %o explains itself, and where it is", (coefficients, message) => {
  expect(() => givenCoefficientsOf({ coefficients }, matrix, "a.b")).toThrow(message);
  expect(() => constraintsOf({ moments: { female: 2 } }, matrix, "a.b")).toThrow("a.b.moments.female: expected a moment between");
});

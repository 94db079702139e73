import { expect, test } from "vitest";
import type { Sequence } from "../sampling/samples.ts";
import { columnOf, createFeature, featureMatrix } from "./feature.ts";
import { fitTarget } from "./fit.ts";
import { createReward, type RewardSpec, rewardColumn, rewardName, withReward } from "./reward.ts";

const sequences = ["a b", "b", "a b b"].map((text): Sequence => ({ text, ids: new Int32Array(0), ended: true }));
const features = [createFeature("a", { kind: "word", word: "a" }), createFeature("n", { kind: "length", unit: "words" })];
const matrix = await featureMatrix(features, sequences);
const valuesOf = async (spec: RewardSpec) => [...(await createReward(spec, features).values(sequences, matrix))];

test("a sum of features, each times its weight, whatever the order and whichever else are there", async () => {
  expect(await valuesOf({ features: { n: -0.5, a: 10 } })).toEqual([9, -0.5, 8.5]);
  expect(await valuesOf({ features: { n: 2 } })).toEqual([4, 2, 6]);
});

test("functions: per sample or per batch, sync or async, any finite numbers", async () => {
  const r = ({ text }: Sequence) => text.length / 2;
  const wanted = [1.5, 0.5, 2.5];
  expect(await valuesOf({ sample: r })).toEqual(wanted);
  expect(await valuesOf({ sample: async (one) => r(one) })).toEqual(wanted);
  expect(await valuesOf({ batch: (all) => all.map(r) })).toEqual(wanted);
  expect(await valuesOf({ batch: async (all) => Float64Array.from(all, r) })).toEqual(wanted);
  expect(await valuesOf({ sample: ({ text }) => text === "b" })).toEqual([0, 1, 0]);
});

test.each<[string, RewardSpec, string]>([
  [
    "throws",
    {
      sample: () => {
        throw new Error("no model");
      },
    },
    "reward: expected values, got an exception: no model; correct the function, or catch what it may meet",
  ],
  ["rejects", { batch: () => Promise.reject("no network") }, "reward: expected values, got an exception: no network;"],
  [
    "gives NaN",
    { sample: ({ text }) => Math.log(text.length - 2) },
    "reward: expected finite numbers or booleans, got NaN for sequence 1; check the function on that sequence",
  ],
  ["gives infinity", { batch: () => [0, 1, Number.POSITIVE_INFINITY] }, "got Infinity for sequence 2;"],
  [
    "gives too many",
    { batch: () => [1, 2, 3, 4] },
    "reward: expected 3 values, one per sequence, got 4; return an array in the order of the sequences",
  ],
  [
    "gives none",
    { batch: () => undefined as unknown as number[] },
    "reward: expected 3 values, one per sequence, got undefined;",
  ],
  [
    "is never done",
    { sample: () => new Promise<number>(() => {}), timeoutSeconds: 0.01 },
    "reward: expected values within 0.01 s, got none for sequence 0; make the function faster, or raise timeoutSeconds",
  ],
])("a function that %s is one error that names the reward", async (_, spec, message) => {
  const values = valuesOf(spec);
  await expect(values).rejects.toThrow(message);
  await expect(values).rejects.toMatchObject({ name: "TiltError", kind: "runtime" });
});

test.each<[Record<string, number>, string]>([
  [{}, "at.reward.features: expected at least one feature with its weight, got none; name a feature and its weight"],
  [
    { female: 1 },
    'at.reward.features.female: expected one of the features a, n, got "female"; define the feature or remove it here',
  ],
  [{ n: Number.NaN }, "at.reward.features.n: expected a finite number, got NaN; write its weight in the reward"],
])("a sum that cannot be had, %o, explains itself and where it is", (weights, message) => {
  expect(() => createReward({ features: weights }, features, "at.reward")).toThrow(message);
});

test("a sum needs the values of its features", async () => {
  const other = await featureMatrix(features.slice(0, 1), sequences);
  await expect(createReward({ features: { n: 1 } }, features).values(sequences, other)).rejects.toThrow(
    'reward: expected values of the feature "n", got a; evaluate every feature of the reward',
  );
});

test("the reward is the matrix's last column, real-valued, for a target to be tilted by", async () => {
  const joined = withReward(matrix, Float64Array.of(1.5, -2, 3));
  expect(joined).toEqual({
    names: ["a", "n", rewardName],
    binary: [true, false, false],
    count: 3,
    values: Float64Array.of(1, 2, 1.5, 0, 1, -2, 1, 3, 3),
  });
  expect(rewardColumn(joined)).toEqual(columnOf(joined, 2));
  expect(rewardColumn(matrix)).toBeUndefined();
  // KL control's optimum a exp(r/beta)/Z, from samples of the base: E_a[exp(r/beta)] = Z.
  const { report } = fitTarget(joined, { coefficients: { reward: 1 / 0.5 } });
  expect(Math.exp(report.logZ.value)).toBeCloseTo((Math.exp(3) + Math.exp(-4) + Math.exp(6)) / 3, 11);
});

test("a matrix has one reward, with a value for each sequence", () => {
  const joined = withReward(matrix, Float64Array.of(1, 2, 3));
  expect(() => withReward(joined, Float64Array.of(1, 2, 3))).toThrow(
    'feature "reward": expected another name, this one being the reward\'s, got "reward"; rename the feature',
  );
  expect(() => withReward(matrix, Float64Array.of(1))).toThrow("withReward: expected 3 values, got 1");
});

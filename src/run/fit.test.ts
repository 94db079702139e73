/** The target of a config, fitted from texts of a tiny model: what is measured, and which form of a target becomes which numbers. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeTinyModel } from "../../tests/support/tiny-model.ts";
import { nodeFiles } from "../base/files.node.ts";
import { logMeanExp } from "../base/numeric.ts";
import { cpuDevice } from "../engine/runtime/ort.node.ts";
import { logWeights } from "../targets/ebm.ts";
import { columnOf } from "../targets/feature.ts";
import { partitionEstimate } from "../targets/partition.ts";
import { parseRunConfig, type RunInput } from "./config.ts";
import type { RunContext } from "./context.ts";
import { fitFrom, fit as fitOf } from "./fit.ts";
import { openSetup } from "./setup.ts";

let root = "";
const context: RunContext = {
  files: nodeFiles,
  clock: () => performance.now(),
  openDevice: () => cpuDevice({ threads: 1 }),
  onEvent: () => {},
};
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-fit-"));
  await writeTinyModel(nodeFiles, join(root, "base"), "gpt2");
});
afterAll(() => rm(root, { recursive: true, force: true }));

const fitted = async (change: Partial<RunInput>) => {
  const features = { a: { kind: "regex", pattern: "a" }, long: { kind: "length", min: 3 } } as const;
  const config = parseRunConfig({ base: join(root, "base"), sequence: { maxTokens: 5 }, features, ...change }, "test");
  return fitFrom(await openSetup(config, context), context);
};
const samples = 300;
const reward = { features: { a: 1, long: -0.5 } };

test("without a reward there is no column of it", async () => {
  const { matrix, report, target, partition } = await fitted({ target: { moments: { a: 0.5 }, samples } });
  expect([matrix.count, matrix.names]).toEqual([samples, ["a", "long"]]);
  expect(report).toMatchObject({ targetMoments: { a: 0.5 }, samples });
  // The base is the proposal, so the pooled estimate of Z is the fit's.
  expect(partitionEstimate(partition).logZ.value).toBeCloseTo(target.logZ, 12);
});

test.each<[string, Partial<RunInput>]>([
  ["in the target", { target: { reward, klCoefficient: 0.5, samples } }],
  ["at the top", { reward, target: { klCoefficient: 0.5, samples } }],
  [
    "as a function",
    {
      reward: { batch: (all) => all.map(({ text, ids }) => Number(/a/.test(text)) - Number(ids.length >= 3) / 2) },
      target: { klCoefficient: 0.5, samples },
    },
  ],
])("a reward %s is measured, and over its KL coefficient is the target a exp(r/beta)", async (_, change) => {
  const { matrix, report, target } = await fitted(change);
  expect(matrix.names).toEqual(["a", "long", "reward"]);
  const [a, long, r] = [0, 1, 2].map((f) => columnOf(matrix, f)) as [Float64Array, Float64Array, Float64Array];
  expect(r).toEqual(a.map((value, i) => value - long[i]! / 2));
  expect(target).toMatchObject({ names: ["reward"], hard: [], coefficients: [2] });
  // One sum of 300 terms of order 1.
  expect(Math.abs(report.logZ.value - logMeanExp(r.map((value) => value / 0.5)))).toBeLessThan(1e-13);
  expect(report.coefficients["reward"]).toEqual({ value: 2, stdError: 0, n: samples });
});

test("a product multiplies what its factors are alone", async () => {
  const factors = [{ moments: { a: 1 } }, { moments: { long: 0.6 } }, { klCoefficient: 0.5 }] as const;
  const [hard, soft] = [
    await fitted({ target: { ...factors[0], samples } }),
    await fitted({ target: { ...factors[1], samples } }),
  ];
  const { target, report, matrix } = await fitted({ reward, target: { product: [...factors], samples } });
  const alone = [hard, soft].map((factor) => logWeights(factor.target, matrix));
  const r = columnOf(matrix, 2);
  logWeights(target, matrix).forEach((value, i) => {
    const wanted = alone[0]![i]! + alone[1]![i]! + r[i]! / 0.5;
    // The same numbers, added in another order.
    if (Number.isFinite(wanted)) expect(Math.abs(value - wanted)).toBeLessThan(1e-13);
    else expect(value).toBe(wanted);
  });
  expect(report).toMatchObject({ hard: { a: 1 }, targetMoments: { a: 1 } });
});

test("the partition function is kept by the rule of the config", async () => {
  const target = { moments: { a: 0.5 }, samples };
  const { partition } = await fitted({ target, partition: { rule: "windowed", window: 3 } });
  expect(partition).toMatchObject({ rule: "windowed", window: 3 });
  expect((await fitted({ target })).partition.rule).toBe("cumulative");
});

test("without a target there is nothing to fit", async () => {
  const config = parseRunConfig(
    {
      base: "nowhere",
      features: { a: { kind: "regex", pattern: "a" } },
      reward: { features: { a: 1 } },
      method: { name: "rloo" },
    },
    "test",
  );
  await expect(fitOf(config, context)).rejects.toThrow("target: expected a target to fit, got none; add target; a reward alone");
  await expect(fitted({ reward, method: { name: "rloo" } })).rejects.toThrow("fitFrom: expected a config with a target");
});

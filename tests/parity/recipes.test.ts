/** A recipe is the run that it tells of: twenty steps of it are those that `tune` logs for the same choices, to the last bit. */

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fDpg, specs as fDpgSpecs } from "../../recipes/f-dpg.ts";
import { gdc, specs as gdcSpecs } from "../../recipes/gdc.ts";
import { grpo, specs as grpoSpecs } from "../../recipes/grpo.ts";
import { klControl, specs as klControlSpecs } from "../../recipes/kl-control.ts";
import { ppo, specs as ppoSpecs } from "../../recipes/ppo.ts";
import { reinforce, specs as reinforceSpecs } from "../../recipes/reinforce.ts";
import { type Choices, openSetting, type Setting, type Step } from "../../recipes/setting.ts";
import { nodeFiles } from "../../src/base/files.node.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { parseRunConfig } from "../../src/run/config.ts";
import type { RunContext } from "../../src/run/context.ts";
import type { StepMetrics } from "../../src/run/metrics.ts";
import { tune } from "../../src/run/tune.ts";
import { type MethodSpec, methodNames } from "../../src/tuners/method.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

// One thread: threads that wait for each other cost more here than they bring.
const device = cpuDevice({ threads: 1 });
const context: RunContext = { files: nodeFiles, clock: () => performance.now(), openDevice: () => device, onEvent: () => {} };
const steps = 20;

let root = "";
const choices = (): Choices => ({
  base: join(root, "base"),
  sequence: { maxTokens: 5, prompt: "the" },
  features: { a: { kind: "regex", pattern: "a" }, long: { kind: "length", unit: "tokens", min: 5 } },
  reward: { features: { a: 1, long: -0.5 } },
  target: { moments: { a: 0.6, long: 0.3 }, samples: 300 },
  // Micro-batches of unequal size.
  batch: { samples: 24, microBatch: 10 },
  optimizer: {
    name: "adam",
    learningRate: 4e-3,
    warmupSteps: 3,
    schedule: "linear",
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weightDecay: 0,
    maxGradNorm: 5,
  },
  seed: 7,
});

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-recipes-"));
  await writeTinyModel(nodeFiles, join(root, "base"), "gpt2");
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** What a recipe and metrics.jsonl both say of a step; as JSON keeps it, which is every bit of a number. */
type Facts = Pick<StepMetrics, "step" | "loss" | "moments" | "klTargetPolicy" | "proposalUpdated" | "klCoefficient">;
const factsOf = ({ step, loss, moments, klTargetPolicy, proposalUpdated, klCoefficient }: Partial<StepMetrics>): Facts =>
  JSON.parse(JSON.stringify({ step, loss, moments, klTargetPolicy, proposalUpdated, klCoefficient })) as Facts;

const told = async (recipe: (setting: Setting) => AsyncIterable<Step>, chosen: Choices): Promise<Facts[]> => {
  const facts: Facts[] = [];
  for await (const { measures, ...step } of recipe(await openSetting(chosen, device)))
    facts.push(factsOf({ ...measures, ...step } as Partial<StepMetrics>));
  return facts;
};

const logged = async (name: string, config: object): Promise<Facts[]> => {
  const out = join(root, name);
  const rest = { steps, evaluate: { every: steps, samples: 50 }, checkpoint: { every: steps, keep: 1 } };
  await tune(parseRunConfig({ ...config, ...rest }, name), { out, resume: false }, context);
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as StepMetrics).flatMap((line) => (line.kind === "step" ? [factsOf(line)] : []));
};

/** The steps of a recipe, once they are known to be those of `tune`. */
const same = async (
  name: string,
  recipe: (setting: Setting) => AsyncIterable<Step>,
  method: MethodSpec,
  { only, ...change }: Partial<Choices> & { readonly only?: object } = {},
): Promise<Facts[]> => {
  const chosen = { ...choices(), ...change };
  const facts = await told(recipe, chosen);
  const metrics = await logged(name, { ...chosen, method, ...only });
  expect(facts.map(({ loss }) => loss)).toEqual(metrics.map(({ loss }) => loss));
  expect(facts).toEqual(metrics);
  // What is equal is a run: of so many steps, each of which changed something.
  expect(facts.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  expect(new Set(facts.map(({ loss }) => loss)).size).toBe(steps);
  return facts;
};

const moves = (facts: readonly Facts[]): number[] =>
  facts.flatMap(({ step, proposalUpdated }) => (proposalUpdated ? [step] : []));

describe("the losses of twenty steps are those of tune", () => {
  test("gdc.ts: gdc++, whose proposal moves", async () => {
    const proposal = { updateEvery: 4, samples: 40, criterion: "kl-authors" } as const;
    const { "gdc++": spec } = gdcSpecs;
    const facts = await same("gdc++", (setting) => gdc(setting, steps, spec, proposal), spec, { only: { proposal } });
    // More than once and before the end: texts come from where it moved to.
    expect(moves(facts).filter((step) => step < steps).length).toBeGreaterThan(1);
    expect(moves(facts).filter((step) => step % 4 !== 0)).toEqual([]);
  });

  test("gdc.ts: gdc, with a hard constraint", async () => {
    const target = { moments: { a: 1, long: 0.3 }, samples: 300 };
    const proposal = { updateEvery: 3, samples: 40, criterion: "kl" } as const;
    const { gdc: spec } = gdcSpecs;
    await same("gdc", (setting) => gdc(setting, steps, spec, proposal), spec, { target, only: { proposal } });
  });

  test("gdc.ts: dpg, which samples from the policy", async () => {
    const { dpg: spec } = gdcSpecs;
    expect(moves(await same("dpg", (setting) => gdc(setting, steps, spec), spec)).length).toBe(steps);
  });

  test("f-dpg.ts: off-policy, with a running baseline", async () => {
    const checks = { updateEvery: 3, samples: 40 };
    const proposal = { ...checks, criterion: "kl" };
    const { js: spec } = fDpgSpecs;
    expect(spec).toMatchObject({ samplesFrom: "proposal", baseline: "running" });
    await same("f-dpg", (setting) => fDpg(setting, steps, spec, checks), spec, { only: { proposal } });
  });

  test("f-dpg.ts: on-policy", async () => {
    const { reverse: spec } = fDpgSpecs;
    expect(spec.samplesFrom).toBe("policy");
    await same("f-dpg-reverse", (setting) => fDpg(setting, steps, spec), spec);
  });

  test.each(Object.entries(reinforceSpecs))("reinforce.ts: %s", async (name, spec) => {
    await same(name, (setting) => reinforce(setting, steps, spec), spec);
  });

  test("kl-control.ts: kl-control, adaptive, its first optimum as the target", async () => {
    const { adaptive: spec } = klControlSpecs;
    const target = { coefficients: { reward: 1 / spec.klCoefficient }, samples: 300 };
    const facts = await same("kl-control", (setting) => klControl(setting, steps, spec), spec, { target });
    expect(new Set(facts.map(({ klCoefficient }) => klCoefficient)).size).toBe(steps);
  });

  test("kl-control.ts: rloo", async () => {
    const { rloo: spec } = klControlSpecs;
    await same("rloo", (setting) => klControl(setting, steps, spec), spec);
  });

  test("grpo.ts: grpo", async () => {
    const { grpo: spec } = grpoSpecs;
    await same("grpo", (setting) => grpo(setting, steps, spec), spec);
  });

  test("ppo.ts: ppo, two passes of two parts", async () => {
    const passes = { epochs: 2, miniBatches: 2 };
    const { adaptive: spec } = ppoSpecs;
    const batch = { ...choices().batch, ...passes };
    await same("ppo", (setting) => ppo(setting, steps, spec, passes), spec, { only: { batch } });
  });
});

describe("every recipe", async () => {
  const folder = fileURLToPath(new URL("../../recipes/", import.meta.url));
  const files = (await readdir(folder)).filter((name) => name.endsWith(".ts"));
  const readme = await readFile(join(folder, "README.md"), "utf8");

  test("there is one for every method", () => {
    const all = [gdcSpecs, fDpgSpecs, reinforceSpecs, klControlSpecs, grpoSpecs, ppoSpecs].flatMap((specs) =>
      Object.values(specs),
    );
    expect(new Set(all.map(({ name }) => name))).toEqual(new Set(methodNames));
    expect(files.length).toBe(7);
  });

  test.each(files)("%s is short, stands on the public API alone, does no maths, and is in the README", async (name) => {
    const source = await readFile(join(folder, name), "utf8");
    expect(source.trimEnd().split("\n").length).toBeLessThanOrEqual(150);
    const imported = [...source.matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, from]) => from!);
    expect(imported).toContain("tiltlm");
    expect(imported.filter((from) => !/^(tiltlm|tiltlm\/node|\.\/setting\.ts|node:\w+)$/.test(from))).toEqual([]);
    expect(source).not.toMatch(/\bMath\b/);
    expect(readme).toContain(`(${name})`);
  });
});

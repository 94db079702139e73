/** Every verb on a tiny model with noise for texts: what it leaves behind, what it returns, and that these agree with each other. */

import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import type { Estimate } from "../../src/base/numeric.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { loadModelDirectory } from "../../src/models/directory.ts";
import { configHash, parseRunConfig, type RunConfig, type RunInput } from "../../src/run/config.ts";
import { readConfig } from "../../src/run/config-file.node.ts";
import type { RunContext } from "../../src/run/context.ts";
import { evaluateDirectory } from "../../src/run/evaluate.ts";
import { fit as fitTargetOf } from "../../src/run/fit.ts";
import { type SampleOptions, type ScoredText, sampleTexts, scoreFile } from "../../src/run/generate.ts";
import type { Evaluation, StepMetrics, Summary } from "../../src/run/metrics.ts";
import { tune } from "../../src/run/tune.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

// Texts of at most five tokens: a target is then reached within a second or two of training.
const source = `
import { defineRun } from "tiltlm";
export default defineRun({
  base: "./base",
  sequence: { maxTokens: 5 },
  features: {
    a: { kind: "regex", pattern: "a" },
    e: ({ text }) => text.includes("e"),
    noDigit: { batch: async (sequences) => sequences.map(({ text }) => (/[0-9]/.test(text) ? 0 : 1)) },
    letters: { sample: ({ text }) => text.length, binary: false },
  },
  target: { moments: { a: 0.5, e: 0, noDigit: 1 }, samples: 800 },
  batch: { samples: 256, microBatch: 256 },
  optimizer: { learningRate: 4e-3, warmupSteps: 5 },
  proposal: { updateEvery: 5, samples: 128 },
  steps: 50,
  evaluate: { every: 50, samples: 800 },
  checkpoint: { every: 25 },
});
`;

let root = "";
let config: RunConfig;
let summary: Summary;
const at = (...parts: string[]): string => join(root, ...parts);
// One thread: threads that wait for each other cost more here than they bring.
const context: RunContext = {
  files: nodeFiles,
  clock: () => performance.now(),
  openDevice: () => cpuDevice({ threads: 1 }),
  onEvent: () => {},
};

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-verbs-"));
  await writeTinyModel(nodeFiles, at("base"), "gpt2");
  await writeFile(at("run.ts"), source);
  config = parseRunConfig(await readConfig(at("run.ts")), "run.ts");
  ({ summary } = await tune(config, { out: at("run"), resume: false }, context));
}, 60_000);
afterAll(() => rm(root, { recursive: true, force: true }));

const jsonOf = async <T>(...path: string[]): Promise<T> => JSON.parse(await readFile(at(...path), "utf8")) as T;
const linesOf = async <T>(...path: string[]): Promise<T[]> =>
  (await readFile(at(...path), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as T);

/** Places of a value where something is null or no number. */
const holesIn = (value: unknown, where = ""): string[] => {
  if (value === null || (typeof value === "number" && !Number.isFinite(value))) return [where];
  return typeof value === "object" ? Object.entries(value).flatMap(([key, inner]) => holesIn(inner, `${where}.${key}`)) : [];
};

const estimate: Estimate = { value: expect.any(Number), stdError: expect.any(Number), n: expect.any(Number) };
const evaluationShape = {
  kind: "evaluation",
  model: "policy",
  n: 800,
  topP: 1,
  moments: { a: estimate, e: estimate, noDigit: estimate, letters: estimate },
  ...Object.fromEntries(
    ["klTargetPolicy", "klPolicyBase", "tvTargetPolicy", "jsTargetPolicy", "logZ", "ess"].map((name) => [name, estimate]),
  ),
  ...Object.fromEntries(["entropy", "perplexity", "distinct1", "distinct2", "distinct3"].map((name) => [name, estimate])),
  ...Object.fromEntries(["3", "4", "5", "Characters3", "Characters4", "Characters5"].map((n) => [`selfBleu${n}`, estimate])),
};
const stepNumbers = ["loss", "gradNorm", "learningRate", "ess", "clampedWeights", "clampedShare"];
const moreStepNumbers = [
  "advantageMean",
  "advantageMeanAbs",
  "advantageVariance",
  "sampleSeconds",
  "scoreSeconds",
  "trainSeconds",
];
const stepShape = {
  kind: "step",
  moments: { a: estimate, e: estimate, noDigit: estimate, letters: estimate },
  ...Object.fromEntries(["logZ", "klTargetPolicy", "klTargetProposal", "klProposalBase"].map((name) => [name, estimate])),
  proposalUpdated: expect.any(Boolean),
  ...Object.fromEntries([...stepNumbers, ...moreStepNumbers].map((name) => [name, expect.any(Number)])),
};

test("progress moves within a step, and never back", async () => {
  const heard: number[] = [];
  let phase = "";
  const onEvent: RunContext["onEvent"] = (event) => {
    if (event.type === "phase") phase = event.name;
    if (event.type === "progress" && phase === "tuning") heard.push(event.done);
  };
  const steps = { steps: 2, sequence: { maxTokens: 20 }, batch: { ...config.batch, microBatch: 2 } };
  const short = parseRunConfig({ ...config, ...steps }, "run.ts");
  await tune(short, { out: at("moving"), resume: false }, { ...context, onEvent });
  expect(heard).toEqual([...heard].sort((a, b) => a - b));
  expect([heard[0], heard.at(-1)]).toEqual([0, 2]);
  const within = new Set(heard.filter((done) => done > 1 && done < 2).map((done) => done.toFixed(1)));
  // Three goes of eight tokens, and two of eight micro-batches on each lane.
  expect(within.size).toBeGreaterThan(4);
});

describe("a run directory", () => {
  test("holds the files of the contract and nothing else", async () => {
    const names = ["checkpoints", "metrics.jsonl", "model", "run.json", "samples.jsonl", "summary.json", "target.json"];
    expect((await readdir(at("run"))).sort()).toEqual(names);
    expect((await readdir(at("run", "checkpoints"))).sort()).toEqual(["step-000025", "step-000050"]);
  });

  test("run.json tells the whole config, what computed it and when", async () => {
    const record = await jsonOf<Record<string, unknown>>("run", "run.json");
    expect(record).toMatchObject({
      config: { base: at("base"), seed: 12, method: { name: "gdc++", baseline: "z" } },
      hash: await configHash(config),
      versions: { node: process.versions.node, tiltlm: expect.any(String) },
      device: "cpu",
    });
    expect(Math.abs(Date.now() - Date.parse(record["startedAt"] as string))).toBeLessThan(600_000);
    expect(JSON.stringify(record["config"])).toContain('text.includes(\\"e\\")'); // functions as their source
  });

  test("target.json has every estimate with its error", async () => {
    const target = await jsonOf("run", "target.json");
    expect(target).toMatchObject({
      samples: 800,
      baseMoments: { a: estimate, e: estimate, noDigit: estimate, letters: estimate },
      targetMoments: { a: 0.5, e: 0, noDigit: 1 },
      coefficients: { a: estimate },
      hard: { e: 0, noDigit: 1 },
      logZ: estimate,
      ess: estimate,
      klTargetBase: estimate,
    });
    expect(holesIn(target)).toEqual([]);
  });

  test("metrics.jsonl counts its steps and samples, and has every number", async () => {
    const lines = await linesOf<StepMetrics | Evaluation>("run", "metrics.jsonl");
    expect(lines.map(({ kind, step }) => [kind, step])).toEqual([
      ["evaluation", 0],
      ...Array.from({ length: 50 }, (_, i) => ["step", i + 1]),
      ["evaluation", 50],
    ]);
    for (const line of lines) expect(line).toMatchObject(line.kind === "step" ? stepShape : evaluationShape);
    expect(lines.flatMap((line) => holesIn(line, `${line.kind} ${line.step}`))).toEqual([]);
    // Fit and evaluation, then a batch a step, a check every fifth step, and an evaluation.
    expect(lines.map(({ samples }) => samples)).toEqual([
      1600,
      ...Array.from({ length: 50 }, (_, i) => 1600 + 256 * (i + 1) + 128 * Math.floor((i + 1) / 5)),
      1600 + 256 * 50 + 128 * 10 + 800,
    ]);
    const seconds = lines.map((line) => line.seconds);
    expect(seconds).toEqual([...seconds].sort((a, b) => a - b));
  });

  test("samples.jsonl has the texts behind each evaluation, and their moments are the evaluation's", async () => {
    type Line = { step: number; text: string; features: Record<string, number>; logProb: number; logBase: number };
    const lines = await linesOf<Line>("run", "samples.jsonl");
    expect(lines.length).toBe(1600);
    for (const { text, features } of lines) {
      const seen = { a: /a/, e: /e/, noDigit: /^[^0-9]*$/ };
      const counted = Object.entries(seen).map(([name, pattern]) => [name, pattern.test(text) ? 1 : 0]);
      expect(features).toEqual({ ...Object.fromEntries(counted), letters: text.length });
    }
    for (const [step, { moments, entropy }] of [[0, summary.before] as const, [50, summary.after] as const]) {
      const of = lines.filter((line) => line.step === step);
      const mean = (pick: (line: Line) => number): number => of.reduce((total, line) => total + pick(line), 0) / of.length;
      // The same sums of 800 numbers in float64, in another order.
      for (const name of ["a", "e", "noDigit", "letters"])
        expect(mean(({ features }) => features[name]!)).toBeCloseTo(moments[name]!.value, 10);
      expect(mean(({ logProb }) => -logProb)).toBeCloseTo(entropy.value, 10);
    }
    // Before training the policy is the base; the sampler and the scorer round float32 differently.
    for (const { logProb, logBase } of lines.filter(({ step }) => step === 0)) expect(logProb).toBeCloseTo(logBase, 3);
  });

  test("summary.json is what was returned, and its evaluations are those of metrics.jsonl", async () => {
    expect(await jsonOf("run", "summary.json")).toEqual(JSON.parse(JSON.stringify(summary)));
    const lines = await linesOf<Evaluation>("run", "metrics.jsonl");
    expect([summary.before, summary.after]).toEqual([lines[0], lines.at(-1)]);
    expect(summary).toMatchObject({ steps: 50, samples: lines.at(-1)!.samples, target: { hard: { e: 0, noDigit: 1 } } });
  });
});

describe("training", () => {
  test("brings the moments nearer, the violations down and KL(p, policy) down", () => {
    const { before, after } = summary;
    const share = ({ moments }: Evaluation, name: string): number => moments[name]!.value;
    const violations = (evaluation: Evaluation): number => share(evaluation, "e") + 1 - share(evaluation, "noDigit");
    // With 800 texts a share near 0.2 is known to about 0.014.
    expect(violations(before)).toBeGreaterThan(0.15);
    expect(violations(after)).toBeLessThan(0.5 * violations(before));
    expect(Math.abs(share(after, "a") - 0.5)).toBeLessThan(0.5 * Math.abs(share(before, "a") - 0.5));
    expect(after.klTargetPolicy!.value).toBeLessThan(0.6 * before.klTargetPolicy!.value);
    expect(after.tvTargetPolicy!.value).toBeLessThan(before.tvTargetPolicy!.value);
    expect(before.klPolicyBase).toMatchObject({ value: 0, stdError: 0 }); // the base itself
  });

  test("moves the proposal towards the target", async () => {
    const steps = (await linesOf<StepMetrics>("run", "metrics.jsonl")).filter(({ kind }) => kind === "step");
    expect(steps.filter(({ proposalUpdated }) => proposalUpdated).length).toBeGreaterThan(2);
    expect(steps.filter(({ step, proposalUpdated }) => proposalUpdated && step % 5 !== 0)).toEqual([]);
    expect(steps.at(-1)!.klTargetProposal!.value).toBeLessThan(0.7 * steps[0]!.klTargetProposal!.value);
  });
});

describe("the tuned model", () => {
  test("is a directory like the base's, with other weights and a card", async () => {
    const [base, tuned] = [
      await loadModelDirectory(nodeFiles, at("base")),
      await loadModelDirectory(nodeFiles, at("run", "model")),
    ];
    for (const name of ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]) {
      expect(await readFile(at("run", "model", name), "utf8"), name).toBe(await readFile(at("base", name), "utf8"));
    }
    expect(tuned).toMatchObject({ config: base.config, startId: base.startId, endIds: base.endIds });
    expect(Object.keys(tuned.weights)).toEqual(Object.keys(base.weights));
    expect(Object.values(tuned.weights)[0]).not.toEqual(Object.values(base.weights)[0]);
    const card = await readFile(at("run", "model", "README.md"), "utf8");
    expect(card).toContain("| moment of `a` | 0.5 |");
    expect(card).not.toContain(root); // no path of this machine
  });

  test("evaluates as the run did, and nucleus sampling changes moments but no divergence", async () => {
    const { evaluation, fit: report } = await evaluateDirectory(config, at("run", "model"), context);
    const { step: _, samples: __, seconds: ___, ...measures } = summary.after;
    expect(evaluation).toMatchObject(measures); // the same seed draws the same texts
    expect(report).toEqual(summary.target);

    const nucleus = { ...config, evaluate: { ...config.evaluate, topP: 0.5 } };
    const shown = (await evaluateDirectory(nucleus, at("run", "model"), context)).evaluation;
    const { klTargetPolicy, klPolicyBase, tvTargetPolicy, logZ, ess, entropy } = summary.after;
    expect(shown).toMatchObject({ topP: 0.5, n: 800, klTargetPolicy, klPolicyBase, tvTargetPolicy, logZ, ess, entropy });
    expect(shown.moments).not.toEqual(summary.after.moments);
    expect(shown.perplexity.value).toBeLessThan(summary.after.perplexity.value);
    expect(shown.samples).toBe(800 + 2 * 800);
  });

  test("fit alone finds the run's target", async () => {
    expect(await jsonOf("run", "target.json")).toMatchObject(JSON.parse(JSON.stringify(await fitTargetOf(config, context))));
  });
});

describe("sample and score", () => {
  const options: SampleOptions = { count: 40, prompt: "", maxTokens: 12, seed: 7, temperature: 1, topP: 1, device: "cpu" };
  const sample = (change: Partial<SampleOptions> = {}) => sampleTexts(at("base"), { ...options, ...change }, context);
  const score = async (lines: readonly unknown[]) => {
    await writeFile(at("texts.jsonl"), lines.map((line) => `${JSON.stringify(line)}\n`).join("\n"));
    const scored: ScoredText[] = [];
    for await (const one of scoreFile(at("base"), at("texts.jsonl"), { device: "cpu" }, context)) scored.push(one);
    return scored;
  };

  test("the same seed gives the same texts, another seed others, fewer are the first of more", async () => {
    const texts = await sample();
    expect(texts.length).toBe(40);
    expect(await sample()).toEqual(texts);
    expect(await sample({ seed: 8 })).not.toEqual(texts);
    expect((await sample({ count: 3 })).map(({ ids }) => ids)).toEqual(texts.slice(0, 3).map(({ ids }) => ids));
    for (const { ids, ended } of texts) expect(ended ? ids.at(-1) === 0 : ids.length === 12).toBe(true);
    expect(new Set(texts.map(({ ended }) => ended))).toEqual(new Set([true, false]));
  });

  test("log-probabilities are those that score gives to the same ids, in order, with and without a prompt", async () => {
    const { tokenizer, startId } = await loadModelDirectory(nodeFiles, at("base"));
    for (const prompt of ["", "the cat"]) {
      const given = [startId, ...tokenizer.encode(prompt)];
      const texts = await sample({ prompt, count: 70, seed: 3 }); // more than are scored at once
      const scored = await score(texts.map(({ ids }) => ({ ids: [...given, ...ids] })));
      expect(scored.map(({ ids }) => ids)).toEqual(texts.map(({ ids }) => [...given, ...ids]));
      for (const [i, { tokenLogProbs, sumLogProb }] of scored.entries()) {
        const ofText = tokenLogProbs.slice(given.length - 1).reduce((total, value) => total + value, 0);
        expect(ofText).toBeCloseTo(texts[i]!.logProb, 3); // a dozen float32 terms of about 5 nats each
        expect(sumLogProb).toBeCloseTo(
          tokenLogProbs.reduce((total, value) => total + value, 0),
          10,
        );
      }
    }
  });

  test("a text is scored as its start token and its ids", async () => {
    const { tokenizer, startId } = await loadModelDirectory(nodeFiles, at("base"));
    const [first, second, third] = await score([
      { text: "the sea" },
      { ids: [startId, ...tokenizer.encode("the sea")] },
      { text: "" },
    ]);
    expect(first).toEqual(second);
    expect(first!.ids.length).toBeGreaterThan(2);
    expect(first!.tokenLogProbs.length).toBe(first!.ids.length - 1);
    expect(third).toEqual({ ids: [startId], tokenLogProbs: [], sumLogProb: 0 });
  });

  test("greedy texts are all the same and likelier than drawn ones; so is a small nucleus", async () => {
    const greedy = await sample({ temperature: 0, count: 4, maxTokens: 6 });
    expect(new Set(greedy.map(({ ids }) => ids.join())).size).toBe(1);
    expect(greedy[0]!.ids).toEqual((await sample({ topP: 1e-6, count: 1, maxTokens: 6 }))[0]!.ids);
    const nats = async (topP: number): Promise<number> => {
      const scored = await score((await sample({ topP, count: 64 })).map(({ ids }) => ({ ids: [0, ...ids] })));
      const total = scored.reduce((sum, { sumLogProb }) => sum + sumLogProb, 0);
      return total / scored.reduce((sum, { tokenLogProbs }) => sum + tokenLogProbs.length, 0);
    };
    // About 700 tokens each, whose surprise differs by nats between the two.
    expect(await nats(0.5)).toBeGreaterThan((await nats(1)) + 0.5);
  });

  test("a text ends with the model's context", async () => {
    const long = await sample({ maxTokens: 1000, count: 30 });
    expect(Math.max(...long.map(({ ids }) => ids.length))).toBe(24);
    const full = await sample({ prompt: "!".repeat(23), maxTokens: 1000 }); // a token each, and the start token
    expect(new Set(full.map(({ ids }) => ids.length))).toEqual(new Set([1]));
  });
});

describe("the other methods", () => {
  const small = {
    steps: 4,
    batch: { samples: 64, microBatch: 64 },
    evaluate: { every: 4, samples: 100 },
    checkpoint: { every: 4, keep: 1 },
  };
  /** A run of a few steps: its metrics and its summary. */
  const short = async (name: string, change: Partial<RunInput>): Promise<{ steps: StepMetrics[]; summary: Summary }> => {
    const { base, features, sequence, optimizer } = config;
    const input = { base, features, sequence, optimizer, ...small, ...change };
    const { summary } = await tune(parseRunConfig(input, name), { out: at(name), resume: false }, context);
    const lines = await linesOf<StepMetrics | Evaluation>(name, "metrics.jsonl");
    expect(lines.flatMap((line) => holesIn(line, `${line.kind} ${line.step}`))).toEqual([]);
    return { steps: lines.filter((line): line is StepMetrics => line.kind === "step"), summary };
  };
  const reward = { features: { a: 1 } };
  const target = { moments: { a: 0.5, e: 0, noDigit: 1 }, samples: 200 };

  test("differ as they should: dpg samples from the policy, gdc has no baseline, gdc++ one of mean Z", async () => {
    const proposal = { updateEvery: 2, criterion: "never", samples: 64 } as const;
    const [dpg, gdc, gdcpp] = [
      (await short("dpg", { target, method: { name: "dpg" } })).steps,
      (await short("gdc", { target, method: { name: "gdc" }, proposal })).steps,
      (await short("gdc++", { target, method: { name: "gdc++" }, proposal })).steps,
    ];
    // The first batch is the base's in all three.
    expect([gdc[0]!.moments, gdcpp[0]!.moments]).toEqual([dpg[0]!.moments, dpg[0]!.moments]);
    // q = policy: the two divergences are one number, up to the sampler's and the trainer's rounding in float32.
    for (const { klTargetPolicy, klTargetProposal } of dpg) expect(klTargetPolicy!.value).toBeCloseTo(klTargetProposal!.value, 3);
    expect(Math.abs(gdc[3]!.klTargetPolicy!.value - gdc[3]!.klTargetProposal!.value)).toBeGreaterThan(0.01);
    expect(dpg.map(({ proposalUpdated }) => proposalUpdated)).toEqual([true, true, true, true]);
    expect(gdc.some(({ proposalUpdated }) => proposalUpdated)).toBe(false);
    // P/(Zq) is around 1 and never negative; less pi/q = 1 it is around 0.
    expect(gdc[0]!.advantageMean).toBeCloseTo(gdc[0]!.advantageMeanAbs, 6);
    expect(gdc[0]!.advantageMean - gdcpp[0]!.advantageMean).toBeCloseTo(1, 4);
  });

  test.each(["reinforce", "kl-control", "rloo", "grpo", "ppo"] as const)(
    "%s needs no target: then nothing of one is measured, and nothing of one is left",
    async (name) => {
      const { steps, summary } = await short(`${name}-alone`, { method: { name }, reward });
      expect(summary.after).not.toHaveProperty("klTargetPolicy");
      expect(summary).not.toHaveProperty("target");
      expect(steps[3]).not.toHaveProperty("logZ");
      expect(steps[3]!.moments["reward"]).toEqual(steps[3]!.moments["a"]);
      expect(await readdir(at(`${name}-alone`))).not.toContain("target.json");
    },
  );

  test("a reward method beside a target is measured against it", async () => {
    const { steps, summary } = await short("ppo", { method: { name: "ppo" }, reward, target });
    expect(summary.after.klTargetPolicy).toEqual(estimate);
    expect(steps[3]).toMatchObject({
      klCoefficient: expect.any(Number),
      policyLoss: expect.any(Number),
      valueLoss: expect.any(Number),
      clipFraction: expect.any(Number),
      explainedVariance: expect.any(Number),
      klTargetPolicy: estimate,
    });
    expect(steps[3]!.klCoefficient).toBeLessThan(0.2); // KL(pi, a) is far below 6 nats, so the penalty is let go
    const { weights } = await loadModelDirectory(nodeFiles, at("ppo", "model"));
    expect(Object.keys(weights).filter((weight) => weight.includes("value"))).toEqual([]);
  });

  test("the emergent target of KL control is a target like any other", async () => {
    const emergent = { reward, klCoefficient: 0.5, samples: 200 };
    const { summary } = await short("emergent", { method: { name: "gdc++" }, target: emergent });
    expect(summary.target!.coefficients["reward"]).toMatchObject({ value: 2, stdError: 0 });
  });

  test("diagnostics, averages and the proposal's evaluation come when they are asked for", async () => {
    const { steps, summary } = await short("extras", {
      method: { name: "f-dpg", divergence: "js" },
      target: { moments: { a: 0.5 }, samples: 200 },
      diagnostics: { every: 2, samples: 8 },
      average: { kind: "ema", decay: 0.5, from: 1 },
      evaluate: { every: 4, samples: 100, proposal: true },
      partition: { rule: "windowed", window: 2 },
      proposal: { criterion: "interval", updateEvery: 3, samples: 64 },
    });
    expect(steps.map(({ diagnostics }) => diagnostics !== undefined)).toEqual([false, true, false, true]);
    expect(steps[1]!.diagnostics).toMatchObject({ gradientVariance: { n: 8 }, gradientSignalToNoise: estimate });
    expect(steps.map(({ proposalUpdated }) => proposalUpdated)).toEqual([false, false, true, false]);
    const evaluations = (await linesOf<Evaluation>("extras", "metrics.jsonl")).filter(({ kind }) => kind === "evaluation");
    expect(evaluations.map(({ step, model, averaged }) => [step, model, averaged ?? false])).toEqual([
      [0, "policy", false],
      [4, "policy", false],
      [4, "policy", true],
      [4, "proposal", false],
    ]);
    expect(summary.afterAverage).toMatchObject({ averaged: true, n: 100 });
    const [raw, average] = [
      await readFile(at("extras", "model", "model.safetensors")),
      await readFile(at("extras", "model-average", "model.safetensors")),
    ];
    expect(average.length).toBe(raw.length);
    expect(average.equals(raw)).toBe(false);
  });
});

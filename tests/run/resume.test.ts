/** A run is killed, resumed, and ends in the same bytes as one that was left alone. */

import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { openDevice } from "../../src/engine/runtime/open.node.ts";
import { parseRunConfig, type RunInput } from "../../src/run/config.ts";
import type { RunContext } from "../../src/run/context.ts";
import { tune } from "../../src/run/tune.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-resume-"));
  await writeTinyModel(nodeFiles, join(root, "base"), "gpt2");
});
afterAll(() => rm(root, { recursive: true, force: true }));

const input = (change: Partial<RunInput> = {}): RunInput => ({
  base: join(root, "base"),
  sequence: { maxTokens: 10 },
  features: { a: { kind: "regex", pattern: "a" }, long: { kind: "length", unit: "tokens", min: 6 } },
  target: { moments: { a: 0.6, long: 0.4 }, samples: 600 },
  batch: { samples: 48, microBatch: 20 },
  optimizer: { learningRate: 3e-3, warmupSteps: 2 },
  proposal: { updateEvery: 2, samples: 64, criterion: "kl-authors" },
  steps: 8,
  evaluate: { every: 7, samples: 100 },
  checkpoint: { every: 2, keep: 2 },
  ...change,
});

const context = (more: Partial<RunContext> = {}): RunContext => ({
  files: nodeFiles,
  clock: () => performance.now(),
  openDevice,
  onEvent: () => {},
  ...more,
});
const run = (
  out: string,
  { resume = false, config = input(), ...more }: { resume?: boolean; config?: RunInput } & Partial<RunContext> = {},
) => tune(parseRunConfig(config, "test"), { out: join(root, out), resume }, context(more));

const timings = ["seconds", "sampleSeconds", "scoreSeconds", "trainSeconds"];
const metricsOf = async (out: string): Promise<string> =>
  (await readFile(join(root, out, "metrics.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) =>
      JSON.stringify(
        Object.fromEntries(
          Object.entries(JSON.parse(line) as Record<string, unknown>).filter(([name]) => !timings.includes(name)),
        ),
      ),
    )
    .join("\n");
const samplesOf = (out: string) => readFile(join(root, out, "samples.jsonl"), "utf8");
const weightsOf = (out: string) => readFile(join(root, out, "model", "model.safetensors"));

const expectSameRun = async (out: string, reference: string) => {
  expect(await metricsOf(out)).toBe(await metricsOf(reference));
  expect(await samplesOf(out)).toBe(await samplesOf(reference));
  expect((await weightsOf(out)).equals(await weightsOf(reference))).toBe(true);
};

describe("bit-exact", () => {
  beforeAll(() => run("whole").then(() => {}));

  test("the same seed gives the same run, another seed another one", async () => {
    await run("again");
    await expectSameRun("again", "whole");
    await run("other", { config: input({ seed: 13 }) });
    expect((await weightsOf("other")).equals(await weightsOf("whole"))).toBe(false);
  });

  test("the run trains, moves its proposal, and keeps the last two checkpoints", async () => {
    const lines = (await metricsOf("whole")).split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.filter(({ kind }) => kind === "step").length).toBe(8);
    expect(lines.filter(({ kind }) => kind === "evaluation").map(({ step }) => step)).toEqual([0, 7, 8]);
    expect(lines.some(({ proposalUpdated }) => proposalUpdated === true)).toBe(true);
    expect((await weightsOf("whole")).equals(await readFile(join(root, "base", "model.safetensors")))).toBe(false);
    expect((await readdir(join(root, "whole", "checkpoints"))).sort()).toEqual(["step-000006", "step-000008"]);
  });

  // The steps after the last checkpoint are lost, cut from the logs, and made again. Step 4 is logged before its checkpoint is written.
  test.each([1, 4, 7])("a crash after step %d, then --resume", async (step) => {
    const out = `crash-${step}`;
    const crash = run(out, {
      onEvent: (event) => {
        if (event.type === "step" && event.metrics.step === step) throw new Error("power cut");
      },
    });
    await expect(crash).rejects.toThrow("power cut");
    const notices: string[] = [];
    await run(out, { resume: true, onEvent: (event) => void (event.type === "notice" && notices.push(event.message)) });
    expect(notices.join()).toContain(`resumed at step ${2 * Math.floor((step - 1) / 2)} of 8`);
    await expectSameRun(out, "whole");
  });

  test("a crash before the first checkpoint, and one while a checkpoint is written", async () => {
    await expect(
      run("early", {
        onEvent: (event) => {
          if (event.type === "fit") throw new Error("power cut");
        },
      }),
    ).rejects.toThrow();
    await run("early", { resume: true });
    await expectSameRun("early", "whole");

    const files: RunContext["files"] = {
      ...nodeFiles,
      rename: async (from, to) => {
        if (to.endsWith("step-000004")) throw new Error("power cut");
        return nodeFiles.rename(from, to);
      },
    };
    await expect(run("half", { files })).rejects.toThrow("power cut");
    await run("half", { resume: true });
    await expectSameRun("half", "whole");
  });

  test("a finished run of a constant schedule goes on with more steps, as if it had been one run", async () => {
    await run("short", { config: input({ steps: 5 }) });
    const { summary } = await run("short", { resume: true, config: input({ steps: 8 }) });
    expect(summary.steps).toBe(8);
    await expectSameRun("short", "whole");
  });

  test("an abort stops after the step, saves it, and can be resumed", async () => {
    const controller = new AbortController();
    const { stopped } = await run("stopped", {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === "step" && event.metrics.step === 5) controller.abort();
      },
    });
    expect(stopped).toBe(true);
    expect(await readdir(join(root, "stopped", "checkpoints"))).toContain("step-000005");
    expect(await readdir(join(root, "stopped"))).not.toContain("summary.json");
    await run("stopped", { resume: true });
    await expectSameRun("stopped", "whole");
  });

  test("kill -9 in the middle, then tiltlm tune --resume", { timeout: 60_000 }, async () => {
    const repository = fileURLToPath(new URL("../..", import.meta.url));
    const config = join(root, "killed.json");
    await writeFile(config, JSON.stringify(input({ base: "base" })));
    const cli = (...flags: string[]) =>
      spawn(
        process.execPath,
        [
          join(repository, "node_modules/jiti/lib/jiti-cli.mjs"),
          join(repository, "tests/support/cli.ts"),
          "tune",
          config,
          "--out",
          join(root, "killed"),
          ...flags,
        ],
        { cwd: root, stdio: "ignore" },
      );
    const metrics = join(root, "killed", "metrics.jsonl");
    const child = cli();
    const ended = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
    for (let waited = 0; waited < 40_000; waited += 5) {
      const text = await readFile(metrics, "utf8").catch(() => "");
      if (text.includes('"step":3')) break;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill("SIGKILL");
    expect(await ended).toBe(null);
    const resumed = cli("--resume");
    expect(await new Promise((resolve) => resumed.on("exit", resolve))).toBe(0);
    await expectSameRun("killed", "whole");
  });
});

describe("bit-exact, for what else a run remembers", () => {
  const { base: _, proposal, target, ...rest } = input();
  const reward = { features: { a: 1, long: -0.5 } };
  const runs: Readonly<Record<string, Omit<RunInput, "base">>> = {
    "ppo: a value head, shuffled parts of the batch, an adaptive penalty": {
      ...rest,
      reward,
      method: { name: "ppo", klTarget: 0.5, klHorizon: 100 },
      batch: { samples: 48, microBatch: 20, epochs: 2, miniBatches: 2 },
    },
    "gdc++ with a baseline of prefixes: what they promise, and how far it is believed": {
      ...rest,
      proposal: proposal!,
      target: target!,
      method: { name: "gdc++", baseline: "prefix" },
    },
    "f-dpg: a running baseline; an average, a window of Z": {
      ...rest,
      proposal: proposal!,
      target: target!,
      method: { name: "f-dpg", divergence: "js" },
      average: { kind: "ema", decay: 0.8, from: 1 },
      partition: { rule: "windowed", window: 2 },
    },
    "kl-control: a proposal that is the policy, a target that emerges": {
      ...rest,
      target: { reward, klCoefficient: 0.5, samples: 600 },
      method: { name: "kl-control", klControl: "adaptive" },
      diagnostics: { every: 2, samples: 6 },
      partition: { rule: "ess" },
    },
  };
  test.each(Object.entries(runs))("%s", async (name, spec) => {
    const config: RunInput = { base: join(root, "base"), ...spec };
    const [whole, out] = [`${name[0]}-whole`, `${name[0]}-crashed`];
    await run(whole, { config });
    const crash = run(out, {
      config,
      onEvent: (event) => {
        if (event.type === "step" && event.metrics.step === 5) throw new Error("power cut");
      },
    });
    await expect(crash).rejects.toThrow("power cut");
    await run(out, { config, resume: true });
    await expectSameRun(out, whole);
    if (config.average !== undefined) {
      const averageOf = (of: string) => readFile(join(root, of, "model-average", "model.safetensors"));
      expect((await averageOf(out)).equals(await averageOf(whole))).toBe(true);
    }
  });
});

test("a reward that fails costs one step: the one before is saved, and the run goes on once it is mended", async () => {
  let calls = 0;
  let broken = true;
  const { proposal: _, target: __, ...rest } = input();
  const config: RunInput = {
    ...rest,
    method: { name: "reinforce" },
    reward: {
      batch: (sequences) => {
        calls++;
        if (broken && calls === 5) throw new Error("the scorer is away");
        return sequences.map(({ text }) => text.length / 10);
      },
    },
    evaluate: { every: 8, samples: 100 },
    checkpoint: { every: 8, keep: 2 },
  };
  // The first call is the evaluation of the base.
  await expect(run("reward", { config })).rejects.toThrow(
    "reward: expected values, got an exception: the scorer is away; correct the function, or catch what it may meet",
  );
  expect((await readdir(join(root, "reward", "checkpoints"))).sort()).toEqual(["step-000000", "step-000003"]);
  broken = false;
  await run("reward", { config, resume: true });
  await run("reward-whole", { config });
  await expectSameRun("reward", "reward-whole");
});

test("a feature that fails when the proposal is checked costs that step only: the policy has not been updated yet", async () => {
  let broken = true;
  let checks = 0;
  const config: RunInput = {
    ...input(),
    features: {
      a: { kind: "regex", pattern: "a" },
      long: {
        batch: (sequences) => {
          if (sequences.length === 64 && broken && ++checks === 2) throw new Error("the scorer is away");
          return sequences.map(({ ids }) => ids.length >= 6);
        },
      },
    },
    evaluate: { every: 8, samples: 100 },
    checkpoint: { every: 8, keep: 2 },
  };
  await expect(run("check", { config })).rejects.toThrow("the scorer is away");
  // Proposals are checked after each second step.
  expect((await readdir(join(root, "check", "checkpoints"))).sort()).toEqual(["step-000000", "step-000003"]);
  broken = false;
  await run("check", { config, resume: true });
  await run("check-whole", { config });
  await expectSameRun("check", "check-whole");
});

describe("refusals", () => {
  test("a directory that exists, without --resume; nothing in it changes", async () => {
    await mkdir(join(root, "mine"));
    await writeFile(join(root, "mine", "thesis.txt"), "years of work");
    await expect(run("mine")).rejects.toThrow(
      "mine: expected a new directory, got one that exists; continue it with --resume, or choose another --out",
    );
    await expect(run("mine", { resume: true })).rejects.toThrow("expected a run directory (with run.json)");
    expect(await readdir(join(root, "mine"))).toEqual(["thesis.txt"]);
  });
  test("resuming what is not there", async () => {
    await expect(run("nowhere", { resume: true })).rejects.toThrow("nowhere: expected a run to resume, got nothing there");
  });
  test("resuming with a changed config names the keys", async () => {
    await run("fixed", { config: input({ steps: 1 }) });
    const before = await metricsOf("fixed");
    const config = input({ steps: 1, optimizer: { learningRate: 1e-3, warmupSteps: 2 } });
    await expect(run("fixed", { resume: true, config })).rejects.toThrow(
      "expected the config the run was started with, got other values of optimizer.learningRate",
    );
    expect(await metricsOf("fixed")).toBe(before);
  });
  test("a damaged checkpoint is named, and the one before serves when it is removed", async () => {
    await run("damaged", { config: input({ steps: 4 }) });
    await cp(join(root, "damaged"), join(root, "mended"), { recursive: true });
    const newest = join(root, "mended", "checkpoints", "step-000004");
    await writeFile(join(newest, "policy.safetensors"), "not weights at all");
    await expect(run("mended", { resume: true, config: input({ steps: 8 }) })).rejects.toThrow("policy.safetensors");
    await rm(newest, { recursive: true });
    const { summary } = await run("mended", { resume: true, config: input({ steps: 8 }) });
    expect(summary.steps).toBe(8);
  });
});

test("a loss that is not finite stops the run with the last good step saved", async () => {
  const config = input({ optimizer: { learningRate: 1e30, warmupSteps: 0 }, steps: 8, proposal: { criterion: "never" } });
  await expect(run("diverged", { config })).rejects.toThrow(
    /^step \d of gdc\+\+: expected a finite loss and gradient, got loss .*; lower optimizer\.learningRate or set method\.clampLogWeight; step \d is saved in /,
  );
  const steps = await readdir(join(root, "diverged", "checkpoints"));
  expect(steps.length).toBeGreaterThan(0);
  expect(steps.some((name) => name.endsWith(".tmp"))).toBe(false);
});

test("a full disk stops the run with one clear error, and what was there stays", async () => {
  let full = false;
  const files: RunContext["files"] = {
    ...nodeFiles,
    write: async (path, parts) => {
      if (full) throw Object.assign(new Error("disk: expected free space, got ENOSPC"), { code: "ENOSPC" });
      return nodeFiles.write(path, parts);
    },
  };
  await expect(
    run("disk", {
      files,
      onEvent: (event) => {
        if (event.type === "step" && event.metrics.step === 3) full = true;
      },
    }),
  ).rejects.toThrow("ENOSPC");
  expect((await readdir(join(root, "disk", "checkpoints"))).filter((name) => !name.endsWith(".tmp")).sort()).toEqual([
    "step-000000",
    "step-000002",
  ]);
  full = false;
  await run("disk", { resume: true });
  expect(await readdir(join(root, "disk"))).toContain("summary.json");
});

/** `sample --target` on a tiny model with noise for texts: accepted texts have what the target asks for, and do not depend on how they were drawn. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { main } from "../../src/cli/main.ts";
import { runs } from "../../src/cli/runs.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { loadModelDirectory, saveModelDirectory } from "../../src/models/directory.ts";
import { parseRunConfig, type RunConfig, type RunInput } from "../../src/run/config.ts";
import type { RunContext } from "../../src/run/context.ts";
import type { RunEvent } from "../../src/run/events.ts";
import { type ScoredText, scoreFile } from "../../src/run/generate.ts";
import { sampleTarget, type TargetSampleOptions, type TargetText } from "../../src/run/quasi-rejection.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

let root = "";
const at = (...parts: string[]): string => join(root, ...parts);
const context: RunContext = {
  files: nodeFiles,
  clock: () => performance.now(),
  openDevice: () => cpuDevice({ threads: 1 }),
  onEvent: () => {},
};

const input = (moments: Readonly<Record<string, number>>): RunInput => ({
  base: at("base"),
  sequence: { maxTokens: 5 },
  features: { a: { kind: "regex", pattern: "a" }, e: { kind: "regex", pattern: "e" }, zebra: { kind: "word", word: "zebra" } },
  target: { moments, samples: 2000 },
});
const configOf = (moments: Readonly<Record<string, number>>): RunConfig => parseRunConfig(input(moments), "test");

const draw = (config: RunConfig, options: Partial<TargetSampleOptions> = {}, changed: Partial<RunContext> = {}) =>
  sampleTarget(config, { count: 60, acceptance: 0.05, seed: 3, ...options }, { ...context, ...changed });

const shareOf = (texts: readonly TargetText[], pattern: RegExp): number =>
  texts.filter(({ text }) => pattern.test(text)).length / texts.length;
/** Standard errors of a share of n texts. */
const errorOf = (share: number, n: number): number => Math.sqrt((share * (1 - share)) / n);

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-quasi-rejection-"));
  await writeTinyModel(nodeFiles, at("base"), "gpt2");
  // A model as a tuned one is: near the base, and not the base.
  const base = await loadModelDirectory(nodeFiles, at("base"));
  const stream = streamOf(keyOf(1, "near"));
  const weights = Object.fromEntries(
    Object.entries(base.weights).map(([name, weight]) => [
      name,
      { ...weight, data: (weight.data as Float32Array).map((value) => value + 0.02 * stream.normal()) },
    ]),
  );
  await saveModelDirectory(nodeFiles, at("near"), { config: base.config, weights, extraFiles: base.extraFiles });
  await writeTinyModel(nodeFiles, at("llama"), "llama");
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe("texts of a target", () => {
  test("with hard constraints all meet them, are as many as were wanted, and carry their features", async () => {
    const { texts, report } = await draw(configOf({ a: 1, e: 0 }));
    expect(texts.length).toBe(60);
    for (const { text, ids, ended, features } of texts) {
      expect(features).toEqual({ a: 1, e: 0, zebra: 0 });
      expect([/a/.test(text), /e/.test(text)]).toEqual([true, false]);
      expect(ended ? ids.at(-1) === 0 : ids.length === 5).toBe(true);
    }
    // P/q has one value, so that what is accepted is the target itself at any rate.
    const { tv, tvBound, kl, logZ, acceptance } = report.pilot;
    expect([tv.value, tvBound.value, kl.value]).toEqual([0, 0, 0]);
    expect(report.requested).toBe(0.05);
    expect(acceptance.value).toBeCloseTo(0.05, 12);
    expect(acceptance.n).toBe(2000); // the texts that the target was fitted from
    expect(report.logBetaOverZ).toBeCloseTo(-Math.log(0.05), 10);
    expect(logZ.value).toBeLessThan(Math.log(0.5));
  });

  test("with a soft moment have it, as nearly as the pilot says, and are accepted as often as was asked for", async () => {
    const rates = [0.1, 0.3, 1];
    const drawn = [];
    for (const acceptance of rates) drawn.push(await draw(configOf({ a: 0.5 }), { count: 400, acceptance }));
    // P/q has two values, so that TV(p, p_beta) is what the share of a lacks; it lacks nothing where beta is above both.
    const lacks = drawn.map(({ report }) => report.pilot.tv.value);
    expect(lacks[0]).toBe(0);
    expect(lacks[1]).toBeGreaterThan(0.1);
    expect(lacks[2]).toBeGreaterThan(0.3);
    drawn.forEach(({ texts, report }, i) => {
      const error = Math.hypot(errorOf(0.5 - lacks[i]!, 400), report.pilot.tv.stdError);
      expect(Math.abs(shareOf(texts, /a/) - (0.5 - lacks[i]!))).toBeLessThan(4 * error);
    });
    expect(drawn[2]!.report).toMatchObject({ trials: 400, achieved: { value: 1, stdError: 0, n: 400 } });
    const { report } = drawn[1]!;
    const { achieved, trials, requested } = report;
    expect(achieved.value).toBe(400 / trials);
    expect(achieved.n).toBe(trials);
    expect(achieved.stdError).toBeCloseTo(errorOf(400 / trials, trials), 12);
    // Of the rate, the trials' noise and the pilot's.
    expect(Math.abs(achieved.value - requested)).toBeLessThan(
      4 * Math.hypot(achieved.stdError, report.pilot.acceptance.stdError),
    );
  });

  test("come from another proposal too, weighed by its probabilities", async () => {
    const config = configOf({ a: 0.5, e: 0 });
    const { texts, report } = await draw(config, { proposal: at("near"), count: 400, acceptance: 0.05 });
    expect(shareOf(texts, /e/)).toBe(0);
    // The pilot says how far the accepted texts are from the target, and 400 of them know a share to 0.025.
    const slack = report.pilot.tv.value + 4 * errorOf(0.5, 400);
    expect(Math.abs(shareOf(texts, /a/) - 0.5)).toBeLessThan(slack);
    expect(slack).toBeLessThan(0.2);
    expect(report.pilot.acceptance.n).toBe(2000);
    // Z does not depend on the proposal. 4 standard errors of either.
    const { report: ofBase } = await draw(config, { count: 1 });
    const [near, base] = [report.pilot.logZ, ofBase.pilot.logZ];
    expect(near.value).not.toBe(base.value);
    expect(Math.abs(near.value - base.value)).toBeLessThan(4 * Math.hypot(near.stdError, base.stdError));
    // Of this proposal P/q has many values, and its texts their own probabilities.
    expect(report.pilot.klTargetProposal.value).not.toBeCloseTo(ofBase.pilot.klTargetProposal.value, 3);
    await writeFile(at("texts.jsonl"), texts.map(({ ids }) => `${JSON.stringify({ ids: [0, ...ids] })}\n`).join(""));
    const scored: ScoredText[] = [];
    for await (const one of scoreFile(at("near"), at("texts.jsonl"), { device: "cpu" }, context)) scored.push(one);
    // Five float32 terms of about 5 nats each.
    scored.forEach(({ sumLogProb }, i) => {
      expect(sumLogProb).toBeCloseTo(texts[i]!.logProb, 3);
    });
    expect(scored.length).toBe(400);
  });
});

describe("draws", () => {
  const idsOf = (texts: readonly TargetText[]) => texts.map(({ ids }) => ids);

  test.each([["the base"], ["near"]])(
    "of %s do not depend on how they are batched, nor on how many more are wanted",
    async (name) => {
      const options = name === "near" ? { proposal: at("near"), acceptance: 0.15 } : { acceptance: 0.15 };
      const config = configOf({ a: 0.5 });
      const [whole, small, few] = [
        await draw(config, options),
        await draw(config, { ...options, batch: 17 }),
        await draw(config, { ...options, count: 7 }),
      ];
      expect(idsOf(small.texts)).toEqual(idsOf(whole.texts));
      expect(small.report).toEqual(whole.report);
      expect(idsOf(few.texts)).toEqual(idsOf(whole.texts).slice(0, 7));
      expect(few.report.trials).toBeLessThan(whole.report.trials);
      expect(few.report.pilot).toEqual(whole.report.pilot);
    },
  );

  test("are the same for the same seed, and others for another", async () => {
    const config = configOf({ a: 0.5 });
    const first = await draw(config);
    expect(await draw(config)).toEqual(first);
    const other = await draw(config, { seed: 4 });
    expect(idsOf(other.texts)).not.toEqual(idsOf(first.texts));
    expect(other.report.pilot).toEqual(first.report.pilot); // of the config's seed
  });

  test("begin with the config's prompt and stop at its limit", async () => {
    const config = parseRunConfig({ ...input({ a: 0.5 }), sequence: { prompt: "the cat", maxTokens: 3 } }, "test");
    const { texts } = await draw(config, { count: 30 });
    expect(Math.max(...texts.map(({ ids }) => ids.length))).toBe(3);
    const without = await draw(parseRunConfig({ ...input({ a: 0.5 }), sequence: { maxTokens: 3 } }, "test"), { count: 30 });
    expect(idsOf(texts)).not.toEqual(idsOf(without.texts));
  });

  test("tell how far they are", async () => {
    const events: RunEvent[] = [];
    await draw(
      configOf({ a: 0.5 }),
      { proposal: at("near"), batch: 40, acceptance: 0.5 },
      { onEvent: (e) => void events.push(e) },
    );
    const phases = events.flatMap((event) => (event.type === "phase" ? [[event.name, event.total]] : []));
    expect(phases).toEqual([
      ["sampling the base", 2000],
      ["sampling the proposal", 4000],
      ["sampling the target", 60],
    ]);
    const starts = events.map(({ type }) => type === "phase");
    const after = (n: number) => events.slice(starts.map((is, i) => (is ? i : -1)).filter((i) => i >= 0)[n]);
    const done = (n: number) =>
      after(n)
        .slice(1)
        .flatMap((event) => (event.type === "progress" ? [event.done] : []));
    expect(done(1).filter((value) => value > 4000).length).toBe(0);
    expect(Math.max(...done(1))).toBe(4000);
    expect(done(2).length).toBeGreaterThan(2);
    expect(done(2).at(-1)).toBe(60);
    expect(events.at(-1)).toMatchObject({ type: "phase-end", name: "sampling the target" });
    expect(events.filter(({ type }) => type === "fit").length).toBe(1);
  });

  test("stop between batches when they are asked to", async () => {
    const controller = new AbortController();
    let phase = "";
    const onEvent = (event: RunEvent): void => {
      if (event.type === "phase") phase = event.name;
      if (phase === "sampling the target" && event.type === "progress") controller.abort(new Error("enough"));
    };
    const stopped = draw(configOf({ a: 0.5 }), { count: 600, batch: 20 }, { onEvent, signal: controller.signal });
    await expect(stopped).rejects.toThrow("enough");
    await expect(draw(configOf({ a: 0.5 }), {}, { signal: AbortSignal.abort(new Error("before")) })).rejects.toThrow("before");
  });
});

describe("refusals", () => {
  const messageOf = async (work: Promise<unknown>): Promise<{ kind: unknown; message: string }> => {
    const error = (await work.catch((thrown: unknown) => thrown)) as Error & { kind: unknown };
    return { kind: error.kind, message: error.message };
  };

  test("of a config without a target, a rate that is none, and no texts at all, before anything is done", async () => {
    const { target: _, ...rest } = configOf({ a: 0.5 });
    const busy = { onEvent: () => expect.unreachable() };
    expect(await messageOf(draw(rest as RunConfig, {}, busy))).toEqual({
      kind: "usage",
      message: "sample --target: expected a config with a target, got none; add target, or sample a model without --target",
    });
    const rated = await messageOf(draw(configOf({ a: 0.5 }), { acceptance: 1.5 }, busy));
    expect(rated).toMatchObject({ kind: "usage", message: expect.stringMatching(/^acceptance: .* got 1\.5; /) });
    for (const count of [0, 1.5, Number.NaN]) {
      const { kind, message } = await messageOf(draw(configOf({ a: 0.5 }), { count }, busy));
      expect({ kind, message }).toEqual({
        kind: "usage",
        message: `count: expected a whole number of at least 1, got ${count}; say how many texts are wanted`,
      });
    }
  });

  test("of a proposal of another architecture or vocabulary, before anything is sampled", async () => {
    const proposed = (proposal: string) =>
      messageOf(draw(configOf({ a: 0.5 }), { proposal }, { onEvent: () => expect.unreachable() }));
    const { kind, message } = await proposed(at("llama"));
    expect(kind).toBe("runtime");
    expect(message).toMatch(
      /llama: expected weights like those of the base \(.* of \[.*\]\), got none; take a model that was tuned/,
    );
    const base = await loadModelDirectory(nodeFiles, at("base"));
    const config = { ...base.config, innerWidth: 16 };
    const name = Object.keys(base.weights).find((key) => base.weights[key]!.shape.includes(32))!;
    const narrow = (shape: readonly number[]) => shape.map((size) => (size === 32 ? 16 : size));
    const weights = Object.fromEntries(
      Object.entries(base.weights).map(([key, weight]) => {
        const shape = narrow(weight.shape);
        return [
          key,
          {
            ...weight,
            shape,
            data: weight.data.slice(
              0,
              shape.reduce((a, b) => a * b),
            ),
          },
        ];
      }),
    );
    const extraFiles = { ...base.extraFiles };
    const hf = JSON.parse(new TextDecoder().decode(extraFiles["config.json"])) as object;
    extraFiles["config.json"] = new TextEncoder().encode(JSON.stringify({ ...hf, n_inner: 16 }));
    await saveModelDirectory(nodeFiles, at("narrow"), { config, weights, extraFiles });
    const wanted = base.weights[name]!.shape;
    expect((await proposed(at("narrow"))).message).toContain(
      `narrow: expected weights like those of the base (${name} of [${wanted.join(", ")}]), got [${narrow(wanted).join(", ")}]; take`,
    );
  });

  test("of a rate above the share of texts that the hard constraints allow, which is named", async () => {
    const { kind, message } = await messageOf(draw(configOf({ a: 1 }), { acceptance: 0.9 }));
    expect(kind).toBe("runtime");
    const most = Number(
      /^acceptance: expected at most (\S+), the share of the proposal's 2000 texts that the target allows, got 0\.9; lower it/.exec(
        message,
      )![1],
    );
    expect((await draw(configOf({ a: 1 }), { acceptance: most, count: 5 })).texts.length).toBe(5);
  });

  test("of more trials than were allowed", async () => {
    const tried = (maxTrials: number) => draw(configOf({ a: 0.5 }), { count: 60, acceptance: 0.3, batch: 50, maxTrials });
    expect(await messageOf(tried(100))).toMatchObject({
      kind: "runtime",
      message: expect.stringMatching(
        /^sampling the target: expected 60 accepted texts within 100 trials, got \d+; raise target\.samples, so that more is known of the proposal, or ask for another acceptance$/,
      ),
    });
    const { report } = await tried(10_000);
    // Exactly as many as are needed are enough.
    expect((await tried(report.trials)).report).toEqual(report);
    await expect(tried(report.trials - 1)).rejects.toThrow("got 59");
  });
});

test("the command line prints texts and report, or JSON lines with the report last", async () => {
  await writeFile(at("run.json"), JSON.stringify({ ...input({ a: 1 }), base: "./base" }));
  const cli = async (...argv: string[]) => {
    let [stdout, stderr] = ["", ""];
    const code = await main(["sample", "--target", at("run.json"), "-n", "4", ...argv], {
      env: {},
      platform: "linux",
      files: nodeFiles,
      runs,
      packageRoot: fileURLToPath(new URL("../..", import.meta.url)),
      clock: () => performance.now(),
      onInterrupt: () => () => {},
      exit: () => {},
      stdout: { write: (text) => (stdout += text) },
      stderr: { write: (text) => (stderr += text) },
    });
    return { code, stdout, stderr };
  };
  const lines = (await cli("--json")).stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.length).toBe(5);
  expect(lines.slice(0, 4).every(({ features, text }) => features.a === 1 && /a/.test(text))).toBe(true);
  expect(lines[4]).toMatchObject({ report: { requested: 0.1, achieved: { n: lines[4].report.trials } } });
  const plain = await cli();
  expect(plain.code).toBe(0);
  expect(plain.stdout).toBe(
    `${lines
      .slice(0, 4)
      .map(({ text }) => text)
      .join("\n\n")}\n`,
  );
  expect(plain.stderr).toMatch(/\naccepted {2}0\.\d+ ± 0\.\d+ of \d+ trials; 0\.1 was asked for, which is beta = 10 Z\nTV /);
});

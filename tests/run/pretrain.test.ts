/** A small model from scratch, as small as it gets: it learns, can be used, repeats to the byte, and leaves nothing half-done. */

import { access, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { loadModelDirectory } from "../../src/models/directory.ts";
import { type PretrainInput, parsePretrainConfig } from "../../src/run/config.ts";
import type { RunContext } from "../../src/run/context.ts";
import type { RunEvent } from "../../src/run/events.ts";
import { sampleTexts } from "../../src/run/generate.ts";
import { pretrain } from "../../src/run/pretrain.ts";

let root = "";
const at = (...parts: string[]): string => join(root, ...parts);

/** "the cat saw a dog .", with five words in each place but the third. */
const sentences = (count: number): string[] => {
  const stream = streamOf(keyOf(5, "sentences"));
  const pick = (words: string): string => words.split(" ")[Math.floor(stream.uniform() * words.split(" ").length)]!;
  const one = (): string =>
    `the ${pick("cat dog bird cow hen")} ${pick("saw met fed hid bit")} a ${pick("man fox bug pig rat")} .`;
  return Array.from({ length: count }, one);
};

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-pretrain-"));
  const texts = sentences(300);
  await writeFile(at("data.txt"), `${texts.join("\n")}\n\n`);
  await writeFile(at("data.jsonl"), texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const shape = { layers: 1, width: 16, heads: 2, contextLength: 16 } as const;
const input = (change: Partial<PretrainInput> = {}): PretrainInput => ({
  data: at("data.txt"),
  validationShare: 0.1,
  tokenizer: { vocabularySize: 280 },
  model: { family: "gpt2", ...shape },
  batch: { samples: 32, microBatch: 32 },
  optimizer: { learningRate: 2e-2, warmupSteps: 5 },
  steps: 60,
  evaluate: { every: 20 },
  ...change,
});

const contextWith = (more: Partial<RunContext> = {}): RunContext => ({
  files: nodeFiles,
  clock: () => performance.now(),
  openDevice: () => cpuDevice({ threads: 1 }),
  onEvent: () => {},
  ...more,
});

const run = (out: string, change: Partial<PretrainInput> = {}, more: Partial<RunContext> = {}) =>
  pretrain(parsePretrainConfig(input(change), "test"), { out: at(out) }, contextWith(more));

const bytesOf = async (out: string): Promise<Record<string, string>> =>
  Object.fromEntries(
    await Promise.all(
      (await readdir(at(out)))
        .filter((name) => name !== "pretrain.json") // how long it took is in there
        .map(async (name) => [name, (await readFile(at(out, name))).toString("base64")] as const),
    ),
  );

describe.each(["gpt2", "llama"] as const)("%s", (family) => {
  const llama = { family, ...shape, keyValueHeads: 1 } as const;
  const model = family === "llama" ? llama : { family, ...shape };

  test("learns, and writes a directory that loads and samples", async () => {
    const untrained = await run(`${family}-untrained`, { model, steps: 1, optimizer: { learningRate: 1e-9 } });
    // Before training every token is about as likely: log 280 nats.
    expect(Math.abs(untrained.validation.natsPerToken - Math.log(280))).toBeLessThan(0.1);
    const { validation, ...rest } = await run(family, { model });
    expect(rest).toMatchObject({ steps: 60, stopped: false, texts: { training: 270, validation: 30, cut: 0 }, vocabulary: 280 });
    expect(validation.natsPerToken).toBeLessThan(1.5);
    // Three choices of five words are 3 log 5 nats a sentence: no model can do better.
    expect(validation.natsPerToken).toBeGreaterThan((3 * Math.log(5) * 30) / validation.tokens);
    expect(validation.perplexity).toBeCloseTo(Math.exp(validation.natsPerToken), 10);
    expect(JSON.parse(await readFile(at(family, "pretrain.json"), "utf8"))).toMatchObject({ validation });
    const directory = await loadModelDirectory(nodeFiles, at(family));
    expect(directory.config).toMatchObject({ family, vocabularySize: 280, contextLength: 16 });
    expect([directory.startId, ...directory.endIds]).toEqual([0, 0]);

    const options = { count: 50, prompt: "the", maxTokens: 15, seed: 1, temperature: 1, topP: 1, device: "cpu" } as const;
    const texts = await sampleTexts(at(family), options, contextWith());
    const words = texts.flatMap(({ text }) => text.split(" ").filter((word) => word !== ""));
    const known = new Set(sentences(300).flatMap((text) => text.split(" ")));
    // Noise has no word of the grammar; this model, most.
    expect(words.filter((word) => known.has(word)).length).toBeGreaterThan(0.6 * words.length);
    expect(texts.filter(({ ended }) => ended).length).toBeGreaterThan(25);
  });
});

describe("a pretraining", () => {
  const short: Partial<PretrainInput> = { steps: 6, evaluate: { every: 3 } };

  test("repeats to the byte under its seed, from text as from JSON lines, and in other micro-batches nearly so", async () => {
    const one = await run("one", short);
    const two = await run("two", { ...short, data: at("data.jsonl") });
    expect(await bytesOf("two")).toEqual(await bytesOf("one"));
    expect(two.validation).toEqual(one.validation);
    const pieces = await run("pieces", { ...short, batch: { samples: 32, microBatch: 10 } });
    // The same sums in another order, in float32.
    expect(pieces.validation.natsPerToken).toBeCloseTo(one.validation.natsPerToken, 4);
    await run("other", { ...short, seed: 13 });
    expect((await bytesOf("other"))["model.safetensors"]).not.toBe((await bytesOf("one"))["model.safetensors"]);
  });

  test("counts epochs in whole batches, cuts long texts and says so, and saves in half precision", async () => {
    const events: RunEvent[] = [];
    const change = { epochs: 0.5, dtype: "F16", model: { family: "gpt2", ...shape, contextLength: 6 } } as const;
    const { steps: _, ...rest } = input(change);
    const onEvent = (event: RunEvent): void => void events.push(event);
    const { steps, texts } = await pretrain(parsePretrainConfig(rest, "test"), { out: at("half") }, contextWith({ onEvent }));
    expect(steps).toBe(4); // 270 texts are 8 batches of 32
    expect(texts.cut).toBe(300);
    expect(events).toContainEqual({
      type: "notice",
      message: expect.stringMatching(/^300 of 300 texts are longer than the context of 6 tokens/),
    });
    expect(await readFile(at("half", "config.json"), "utf8")).toContain('"float16"');
    const { size } = (await nodeFiles.info(at("half", "model.safetensors")))!;
    expect(size).toBeLessThan(0.6 * (await nodeFiles.info(at("one", "model.safetensors")))!.size);
  });

  test("that is stopped saves the model as it is then", async () => {
    const controller = new AbortController();
    let phase = "";
    const onEvent = (event: RunEvent): void => {
      if (event.type === "phase") phase = event.name;
      if (event.type === "progress" && phase === "training" && event.done === 2) controller.abort();
    };
    const report = await run("stopped", { steps: 2000 }, { signal: controller.signal, onEvent });
    expect(report).toMatchObject({ stopped: true, steps: 2 });
    await loadModelDirectory(nodeFiles, at("stopped"));
    expect(JSON.parse(await readFile(at("stopped", "pretrain.json"), "utf8"))).toEqual(report);
  });
});

describe("refusals", () => {
  const refused = (change: Partial<PretrainInput>, more: Partial<RunContext> = {}) => run("refused", change, more);
  const expectNothing = () => expect(access(at("refused"))).rejects.toThrow("ENOENT");

  test("an --out that exists, which stays as it is", async () => {
    const before = await bytesOf("one");
    await expect(run("one")).rejects.toThrow(
      `${at("one")}: expected a new directory, got one that exists; remove it or choose another --out`,
    );
    expect(await bytesOf("one")).toEqual(before);
  });

  test.each([
    ["not JSON", '{"text": "one"}\n\n{"text": "tw'],
    ["no text", '{"text": "one"}\n\n{"txt": "two"}'],
    ["not a string", '{"text": "one"}\n\n{"text": 2}'],
    ["null", '{"text": "one"}\n\nnull'],
  ])("a bad JSON line, by its number: %s", async (_, lines) => {
    await writeFile(at("bad.jsonl"), lines);
    const where = `${at("bad.jsonl")}:3`;
    await expect(refused({ data: at("bad.jsonl") })).rejects.toThrow(
      `${where}: expected a JSON object with "text" (a string), got `,
    );
    await expectNothing();
  });

  test("no texts, no data, an --out that cannot be made, a full disk and a loss that is no number leave nothing", async () => {
    await writeFile(at("one.txt"), "just one\n");
    await expect(refused({ data: at("one.txt") })).rejects.toThrow(
      "one.txt: expected at least two texts, got 1; write one text a line",
    );
    await expect(refused({ data: at("absent.txt") })).rejects.toThrow("absent.txt: expected a file");
    // Before it trains: hours may be lost otherwise.
    const events: string[] = [];
    const listen = { onEvent: (event: RunEvent) => void (event.type === "phase" && events.push(event.name)) };
    await expect(run("one.txt/model", {}, listen)).rejects.toThrow("one.txt/model: expected a directory, or nothing, got EEXIST");
    expect(events).toEqual([]);
    await expectNothing();

    const write: RunContext["files"]["write"] = async (path, parts) => {
      if (path.endsWith(".safetensors")) throw new Error("ENOSPC");
      return nodeFiles.write(path, parts);
    };
    await expect(refused({ steps: 1 }, { files: { ...nodeFiles, write } })).rejects.toThrow("ENOSPC");
    await expectNothing();
    const diverging = { learningRate: 1e30, warmupSteps: 0 };
    for (const steps of [1, 3]) {
      await expect(refused({ steps, optimizer: diverging })).rejects.toThrow(
        /^step \d: expected a finite .*; lower optimizer.learningRate/,
      );
      await expectNothing();
    }
  });
});

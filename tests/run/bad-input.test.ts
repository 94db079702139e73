/**
 * What a user can get wrong and what a machine can do to a run, through the command line: one clear line, the right exit code,
 * and nothing touched that was there before.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { runtimeError } from "../../src/base/errors.ts";
import { nodeFiles } from "../../src/base/files.node.ts";
import type { Files } from "../../src/base/files.ts";
import { main } from "../../src/cli/main.ts";
import { runs } from "../../src/cli/runs.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const repository = fileURLToPath(new URL("../..", import.meta.url));
let root = "";
const at = (...parts: string[]): string => join(root, ...parts);

const config = {
  base: "./base",
  sequence: { maxTokens: 5 },
  features: {
    a: { kind: "regex", pattern: "a" },
    none: { kind: "regex", pattern: "^[^a]*$" },
    zebra: { kind: "word", word: "zebra" },
  },
  target: { moments: { a: 0.5 }, samples: 200 },
  batch: { samples: 16, microBatch: 16 },
  proposal: { criterion: "never" },
  steps: 2,
  evaluate: { every: 100, samples: 50 },
  checkpoint: { every: 1 },
};
const writeConfig = (name: string, change: object): string => {
  writeFileSync(at(name), JSON.stringify({ ...config, ...change }));
  return at(name);
};

/** One command line in this process. */
const cli = async (argv: readonly string[], files: Files = nodeFiles) => {
  let stdout = "";
  let stderr = "";
  const io = {
    env: {},
    platform: "linux",
    files,
    runs,
    packageRoot: repository,
    clock: () => performance.now(),
    onInterrupt: () => () => {},
    exit: () => {},
  };
  const code = await main(argv, {
    ...io,
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
  });
  return { code, stdout, stderr };
};

const complaint = /^tiltlm: .+: expected .+, got .+; .+$/;
const stack = /\n\s+at .+:\d+/;

/** The one complaint among what was said, which must be the last line, in the form of all complaints. */
const complaintIn = (stderr: string): string => {
  const lines = stderr.trimEnd().split("\n");
  expect(lines.filter((line) => line.startsWith("tiltlm: "))).toEqual([lines.at(-1)]);
  expect(lines.at(-1)).toMatch(complaint);
  expect(stderr).not.toMatch(stack);
  return lines.at(-1)!.slice("tiltlm: ".length);
};

const filesBelow = (directory: string): string[] =>
  readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? [path, ...filesBelow(path)] : [path];
  });

/** Every path under the root, and what each file holds. */
const tree = (): Record<string, string> => {
  const hash = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
  const content = (path: string): string => {
    try {
      return hash(path);
    } catch {
      return "not to be read";
    }
  };
  return Object.fromEntries(filesBelow(root).map((path) => [path, content(path)]));
};

/**
 * Refused with this exit code and message, with a stack only under --debug, and with not a byte changed anywhere.
 * `early`: before anything was begun, so that the complaint is all that is said.
 */
const expectRefusal = async (argv: readonly string[], code: 1 | 2, message: string | RegExp, early = true): Promise<void> => {
  const before = tree();
  const plain = await cli(argv);
  expect(plain).toMatchObject({ code, stdout: "" });
  expect(complaintIn(plain.stderr)).toMatch(message);
  if (early) expect(plain.stderr.trimEnd().split("\n").length).toBe(1);
  const debugged = await cli([...argv, "--debug"]);
  expect(debugged.code).toBe(code);
  expect(debugged.stderr).toMatch(stack);
  expect(tree()).toEqual(before);
};

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-bad-"));
  await writeTinyModel(nodeFiles, at("base"), "gpt2");
  expect(await cli(["tune", writeConfig("good.json", {}), "--out", at("done")])).toMatchObject({ code: 0 });
}, 60_000);
afterAll(() => rm(root, { recursive: true, force: true }));
// What a failing test may leave would fail the next ones too.
afterEach(() => rm(at("new"), { recursive: true, force: true }));

// --- Models.

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Another header over the same data. */
const withHeader = (path: string, change: (header: Record<string, Entry>) => void): void => {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString("utf8")) as Record<string, Entry>;
  change(header);
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([size, text, file.subarray(8 + length)]));
};
const first = (header: Record<string, Entry>): Entry => Object.entries(header).find(([name]) => name !== "__metadata__")![1];
/** What these tests change in config.json and tokenizer.json. */
interface Json {
  model_type: string;
  architectures: string[];
  model: { vocab: Record<string, number> };
}
const changeJson = (path: string, change: (json: Json) => void): void => {
  const json = JSON.parse(readFileSync(path, "utf8")) as Json;
  change(json);
  writeFileSync(path, JSON.stringify(json));
};

describe("a model directory", () => {
  const weights = (directory: string): string => join(directory, "model.safetensors");
  const cases: readonly [what: string, damage: (directory: string) => void, message: string | RegExp][] = [
    [
      "that is not there",
      (d) => rmSync(d, { recursive: true }),
      /expected a directory with config\.json.*, got nothing there; check the path/,
    ],
    ["without weights", (d) => rmSync(weights(d)), /expected model\.safetensors.*, got neither; download the weights too/],
    [
      "with truncated weights",
      (d) => writeFileSync(weights(d), readFileSync(weights(d)).subarray(0, -1000)),
      /model\.safetensors: .*expected data up to byte \d+, got a file with \d+ bytes of data; the file is damaged/,
    ],
    [
      "with a header of lies",
      (d) =>
        withHeader(weights(d), (h) => {
          first(h).data_offsets = first(h).data_offsets.map((offset) => offset + 4) as [number, number];
        }),
      /model\.safetensors: tensor ".*": expected its data to begin at byte 0, got byte 4, which leaves a hole/,
    ],
    [
      "with a header longer than the file",
      (d) => {
        const file = readFileSync(weights(d));
        file.writeBigUInt64LE(2n ** 60n);
        writeFileSync(weights(d), file);
      },
      /expected a header of at most \d+ bytes, got one that claims 1152921504606847000;/,
    ],
    [
      "with a tensor of another shape",
      (d) =>
        withHeader(weights(d), (h) => {
          first(h).shape = [...first(h).shape].reverse();
          if (first(h).shape.length === 1) first(h).shape.push(1);
        }),
      /model\.safetensors: expected .* \[\d+(, \d+)*\], got .*; take config\.json and the weights from the same model/,
    ],
    [
      "with a dtype that nobody knows",
      (d) =>
        withHeader(weights(d), (h) => {
          first(h).dtype = "Q4_K";
        }),
      /tensor ".*": expected the dtype F32, F16 or BF16, got "Q4_K"; convert/,
    ],
    [
      "with a dtype of no weights",
      (d) =>
        withHeader(weights(d), (h) => {
          first(h).dtype = "I32";
        }),
      /tensor ".*": expected the dtype F32, F16 or BF16, got "I32"; convert/,
    ],
    [
      "of an unknown architecture",
      (d) =>
        changeJson(join(d, "config.json"), (json) => {
          json.model_type = "mamba";
          json.architectures = ["MambaForCausalLM"];
        }),
      /config\.json: .*expected .*gpt2.*, got "mamba"/,
    ],
    [
      "with a config that is no JSON",
      (d) => writeFileSync(join(d, "config.json"), '{"model_type":'),
      /config\.json: expected a JSON object, got .*; the file is damaged/,
    ],
    [
      "with another model's tokenizer",
      (d) =>
        changeJson(join(d, "tokenizer.json"), (json) => {
          json.model.vocab["zebra"] = 400;
        }),
      /got tokenizer\.json with 401 ids, while the embedding has 300 rows; take the tokenizer and the weights from the same model/,
    ],
    ["without a tokenizer", (d) => rmSync(join(d, "tokenizer.json")), /expected tokenizer\.json, got none; /],
  ];
  test.each(cases)("%s", async (_, damage, message) => {
    cpSync(at("base"), at("broken"), { recursive: true });
    damage(at("broken"));
    const broken = writeConfig("broken.json", { base: "./broken" });
    await expectRefusal(["tune", broken, "--out", at("new")], 1, message);
    await expectRefusal(["sample", at("broken")], 1, message);
    rmSync(at("broken"), { recursive: true, force: true });
  });

  test("with weights that are not numbers", async () => {
    cpSync(at("base"), at("nan"), { recursive: true });
    const file = readFileSync(join(at("nan"), "model.safetensors"));
    file.fill(0xff, file.length - 4000); // every float32 of it NaN
    writeFileSync(join(at("nan"), "model.safetensors"), file);
    writeFileSync(at("one.jsonl"), '{"text": "the cat"}\n');
    const message = /nan: expected a finite log-probability of every text.*, got NaN; its weights are damaged or have diverged/;
    await expectRefusal(["fit", writeConfig("nan.json", { base: "./nan" })], 1, message, false);
    await expectRefusal(["sample", at("nan")], 1, message, false);
    await expectRefusal(["score", at("nan"), at("one.jsonl")], 1, message, false);
    const measured = /evaluation of the policy: expected a finite log-probability/;
    await expectRefusal(["evaluate", at("good.json"), "--model", at("nan")], 1, measured, false);
  });

  test("of another architecture than the base, to be evaluated", async () => {
    await writeTinyModel(nodeFiles, at("llama"), "llama");
    const message = /llama: expected weights like those of the base .*, got none; take a model that was tuned from this base/;
    await expectRefusal(["evaluate", at("good.json"), "--model", at("llama")], 1, message);
  });
});

// --- Configs.

describe("a config", () => {
  const cases: readonly [what: string, change: object, message: string | RegExp][] = [
    [
      "with an unknown key",
      { optimiser: {} },
      /json: optimiser: expected a known key \(.*\), got "optimiser"; did you mean "optimizer"\?$/,
    ],
    [
      "with an unknown key further in",
      { optimizer: { learningrate: 1 } },
      /json: optimizer\.learningrate: expected .*; did you mean "learningRate"\?$/,
    ],
    [
      "with a share of more than one",
      { target: { moments: { a: 1.5 } } },
      /json: target\.moments\.a: expected a moment between 0 and 1, because the feature is 0 or 1, got 1\.5; write the wanted share as a fraction/,
    ],
    [
      "with a moment of no feature",
      { target: { moments: { zebre: 0.5 } } },
      /json: target\.moments\.zebre: expected one of the features a, none, zebra, got "zebre"; did you mean "zebra"\?/,
    ],
    [
      "with a pattern that is none",
      { features: { a: { kind: "regex", pattern: "(" } } },
      /json: features\.a: .*expected .*, got .*; /,
    ],
    [
      "with more tokens than the model can hold",
      { sequence: { maxTokens: 25 } },
      "sequence.maxTokens: expected at most 24, what the model's context of 24 leaves after the prompt, got 25; lower it",
    ],
    [
      "with a prompt longer than the model's context",
      { sequence: { maxTokens: 5, prompt: "!".repeat(24) } },
      /^sequence\.prompt: expected at most 24 tokens with the start token, the model's context, got 25; shorten it$/,
    ],
    ["for a device that is not there", { device: "cuda" }, /^device cuda: expected .*, got cuda; /],
  ];
  test.each(cases)("%s", async (_, change, message) => {
    await expectRefusal(["tune", writeConfig("bad.json", change), "--out", at("new")], 2, message);
  });

  test("that cannot be read", async () => {
    writeFileSync(at("latin1.yaml"), Buffer.from("base: caf\xe9\n", "latin1"));
    writeFileSync(at("wrong.yaml"), "base: a\n  steps: [1\n");
    writeFileSync(at("throws.ts"), 'throw new Error("at\\nonce");');
    mkdirSync(at("directory.yaml"));
    const tune = (name: string) => ["tune", at(name), "--out", at("new")];
    await expectRefusal(
      tune("latin1.yaml"),
      2,
      "latin1.yaml: expected text in UTF-8, got bytes that are not; save the file as UTF-8",
    );
    await expectRefusal(tune("wrong.yaml"), 2, /wrong\.yaml:\d+:\d+: expected YAML, got .*; correct the file there/);
    await expectRefusal(tune("throws.ts"), 2, /throws\.ts: expected a module that loads, got at; correct it/);
    await expectRefusal(
      tune("directory.yaml"),
      2,
      "directory.yaml: expected a config file, got a directory; name the file in it",
    );
    await expectRefusal(tune("absent.yaml"), 2, "absent.yaml: expected a config file, got nothing there; check the path");
    const unreadable = /locked\.yaml: expected a file that can be read, got .*; check its mode/;
    if (process.getuid?.() === 0) {
      if (!existsSync("/proc/self/mem")) return;
      symlinkSync("/proc/self/mem", at("locked.yaml")); // a mode does not stop root, this does
    } else {
      writeFileSync(at("locked.yaml"), "base: a\n");
      chmodSync(at("locked.yaml"), 0);
    }
    await expectRefusal(tune("locked.yaml"), 2, unreadable);
    rmSync(at("locked.yaml"));
  });

  test.each([
    ["a feature that never occurs", { zebra: 0.5 }, /^fit: expected feature "zebra" in some of 200 samples, got none; /],
    [
      "one that must always occur and never does",
      { zebra: 1 },
      /^fit: expected feature "zebra" in some of 200 samples, got none; /,
    ],
    [
      "moments that contradict each other",
      { a: 0.6, none: 0.6 },
      /^fit: expected wanted moments that some reweighting of the 200 samples has, got a = 0\.6, none = 0\.6; they contradict/,
    ],
    [
      "hard constraints that do",
      { a: 1, none: 1 },
      /^fit: expected at least one of 200 samples to meet a = 1, none = 1 together, got none; /,
    ],
  ])("that asks for %s", async (_, moments, message) => {
    const impossible = writeConfig("impossible.json", { target: { moments, samples: 200 } });
    await expectRefusal(["fit", impossible], 1, message, false);
    await expectRefusal(["tune", impossible, "--out", at("new")], 1, message, false);
  });

  test("with a feature that throws", async () => {
    const source = `export default { ...${JSON.stringify(config)}, base: ${JSON.stringify(at("base"))}, features: { a: ({ text }) => text.nothing.length } };`;
    writeFileSync(at("feature.ts"), source);
    await expectRefusal(
      ["fit", at("feature.ts")],
      1,
      /^feature "a": expected values, got an exception: .*; correct the function/,
      false,
    );
  });
});

// --- Run directories.

describe("a run directory", () => {
  test("that exists, without --resume", () =>
    expectRefusal(
      ["tune", at("good.json"), "--out", at("done")],
      2,
      /done: expected a new directory, got one that exists; continue it with --resume, or choose another --out/,
    ));
  test("that is not there, with --resume", () =>
    expectRefusal(
      ["tune", at("good.json"), "--out", at("new"), "--resume"],
      2,
      /new: expected a run to resume, got nothing there; leave out --resume/,
    ));
  test("of another config, with --resume", () =>
    expectRefusal(
      ["tune", at("good.json"), "--out", at("done"), "--resume", "--set", "seed=13"],
      2,
      /done: expected the config the run was started with, got other values of seed; resume without changes/,
    ));
  test("where a file is in the way", () =>
    expectRefusal(
      ["tune", at("good.json"), "--out", at("good.json", "run")],
      1,
      /good\.json\/run\/run\.json: expected a directory, or nothing, got EEXIST.*; a file is in the way/,
    ));
  test("with a damaged record or checkpoint", async () => {
    cpSync(at("done"), at("damaged"), { recursive: true });
    const resume = ["tune", at("good.json"), "--out", at("damaged"), "--resume"];
    const state = at("damaged", "checkpoints", "step-000002", "state.json");
    writeFileSync(state, readFileSync(state).subarray(0, 100));
    await expectRefusal(
      resume,
      1,
      /step-000002\/state\.json: expected the JSON of a checkpoint, got something else; remove this checkpoint to resume from the one before/,
    );
    writeFileSync(at("damaged", "run.json"), "{");
    await expectRefusal(resume, 1, /damaged\/run\.json: expected JSON, got .*; restore the file/);
    rmSync(at("damaged"), { recursive: true });
  });
});

// --- Texts.

describe("sample, score and pretrain", () => {
  test("a prompt longer than the model's context", () =>
    expectRefusal(
      ["sample", at("base"), "--prompt", "!".repeat(24)],
      2,
      /^prompt: expected at most 24 tokens with the start token, the model's context, got 25; shorten it$/,
    ));

  test.each([
    ["not JSON", '{"text": "a"', /f\.jsonl:3: expected a JSON object with "text" or "ids", got .*; write one object a line/],
    [
      "neither text nor ids",
      '{"txt": "a"}',
      /f\.jsonl:3: expected "text" \(a string\) or "ids" \(a list\), got {"txt": "a"}; give one of them/,
    ],
    ["no object", "7", /f\.jsonl:3: expected .*, got 7; give one of them/],
    [
      "an id of another vocabulary",
      '{"ids": [0, 300]}',
      /f\.jsonl:3: ids: expected integers from 0 to 299, got 300; use the ids of this model's tokenizer/,
    ],
    ["nothing to score", '{"ids": [0]}', /f\.jsonl:3: ids: expected a start token and at least one more, got 1; begin with 0/],
    [
      "more than the context holds",
      `{"ids": [${Array.from({ length: 26 }, () => 1).join()}]}`,
      /f\.jsonl:3: expected at most 25 tokens, the model's context, got 26; shorten the text/,
    ],
    ["what could take over a terminal", '{"\u202e": 1}', /f\.jsonl:3: expected .*, got {"\ufffd": 1}; /],
    ["what surely would", '{"\u001b[2J": 1}', /^[^\p{Cc}]*f\.jsonl:3: expected [^\p{Cc}]*; write one object a line$/u],
  ])("a score file with a bad line: %s", async (_, line, message) => {
    writeFileSync(at("f.jsonl"), `{"text": "good"}\n\n${line}\n`);
    await expectRefusal(["score", at("base"), at("f.jsonl")], 2, message);
  });

  test("a score file that is not there", () =>
    expectRefusal(
      ["score", at("base"), at("absent.jsonl")],
      1,
      /absent\.jsonl: expected a file or directory there, got ENOENT.*; check the path/,
    ));

  test("texts to pretrain on with a bad line", async () => {
    writeFileSync(at("texts.jsonl"), '{"text": "good"}\n{"text": 1}\n');
    writeFileSync(at("pretrain.yaml"), "data: texts.jsonl\n");
    const message = /texts\.jsonl:2: expected a JSON object with "text" \(a string\), got {"text": 1}; write one object a line/;
    await expectRefusal(["pretrain", at("pretrain.yaml"), "--out", at("new")], 2, message);
  });
});

// --- While it runs.

const temporariesIn = (directory: string): string[] => filesBelow(directory).filter((path) => path.endsWith(".tmp"));
const done = (): Record<string, string> =>
  Object.fromEntries(Object.entries(tree()).filter(([path]) => !path.startsWith(at("run"))));

describe("while it runs", () => {
  test("a loss that is no number ends the run, with its last good step saved", async () => {
    const before = done();
    const argv = [
      "tune",
      at("good.json"),
      "--out",
      at("run-diverged"),
      "--set",
      "optimizer={learningRate: 1e30, warmupSteps: 0}",
      "--steps",
      "9",
    ];
    const { code, stdout, stderr } = await cli(argv);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(complaintIn(stderr)).toMatch(
      /^step \d of gdc\+\+: expected a finite loss and gradient, got loss .*; lower optimizer\.learningRate .*; step \d is saved in /,
    );
    expect(readdirSync(at("run-diverged", "checkpoints")).length).toBeGreaterThan(0);
    expect(temporariesIn(at("run-diverged"))).toEqual([]);
    expect(done()).toEqual(before);
  });

  test("a model that diverges with its last step is not saved as a result", async () => {
    const argv = [
      "tune",
      at("good.json"),
      "--out",
      at("run-last"),
      "--set",
      "optimizer={learningRate: 1e30, warmupSteps: 0}",
      "--steps",
      "1",
    ];
    const { code, stderr } = await cli(argv);
    expect(code).toBe(1);
    expect(complaintIn(stderr)).toMatch(
      /^evaluation of the policy: expected a finite log-probability of every text that it writes, got .*; /,
    );
    expect(readdirSync(at("run-last"))).not.toContain("model");
    expect(readFileSync(at("run-last", "metrics.jsonl"), "utf8")).not.toContain("null");
  });

  /** Files on a disk that is full from the first write on whose path matches. */
  const fullAt = (pattern: RegExp): Files => {
    let full = false;
    const guard = (path: string): void => {
      full ||= pattern.test(path);
      if (full)
        throw runtimeError({
          where: path,
          expected: "free space on the disk",
          got: "ENOSPC: no space left on device, write",
          fix: "free some",
        });
    };
    return {
      ...nodeFiles,
      append: async (path, text) => {
        guard(path);
        return nodeFiles.append(path, text);
      },
      write: async (path, parts) => {
        guard(path);
        return nodeFiles.write(path, parts);
      },
    };
  };

  test("a full disk ends the run; freed, it goes on and ends as if nothing had been", async () => {
    const out = at("run-full");
    const before = done();
    for (const [pattern, flags] of [
      [/step-000001\.tmp\/second/, []],
      [/summary\.json/, ["--resume"]],
    ] as const) {
      const { code, stdout, stderr } = await cli(["tune", at("good.json"), "--out", out, ...flags], fullAt(pattern));
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(complaintIn(stderr)).toMatch(
        /: expected free space on the disk, got ENOSPC: no space left on device, write; free some$/,
      );
      expect(temporariesIn(out)).toEqual([]);
      expect(existsSync(join(out, "summary.json"))).toBe(false);
    }
    expect(await cli(["tune", at("good.json"), "--out", out, "--resume"])).toMatchObject({ code: 0 });
    expect(
      readFileSync(join(out, "model", "model.safetensors")).equals(readFileSync(at("done", "model", "model.safetensors"))),
    ).toBe(true);
    expect(readFileSync(join(out, "samples.jsonl"), "utf8")).toBe(readFileSync(at("done", "samples.jsonl"), "utf8"));
    expect(done()).toEqual(before);
  });

  test("Ctrl-C ends it after the step with 130, and its own words continue it", { timeout: 60_000 }, async () => {
    const out = at("run-interrupted");
    const program = [join(repository, "node_modules/jiti/lib/jiti-cli.mjs"), join(repository, "tests/support/cli.ts")];
    const flags = ["--out", out, "--set", "checkpoint.every=10000"];
    const child = spawn(process.execPath, [...program, "tune", at("good.json"), "--steps", "5000", ...flags], {
      cwd: root,
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString("utf8");
    });
    const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
    for (let waited = 0; waited < 40_000 && !existsSync(join(out, "checkpoints", "step-000000")); waited += 10) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(stderr).toContain("stopping after this step; a checkpoint will be written; press Ctrl-C again to quit at once\n");
    expect(stderr).not.toMatch(stack);
    expect(temporariesIn(out)).toEqual([]);
    expect(existsSync(join(out, "summary.json"))).toBe(false);
    const saved = Math.max(...readdirSync(join(out, "checkpoints")).map((name) => Number(name.slice(5))));
    // Its own words, but for the 5000 steps: under a constant schedule a run may be given another end.
    const command = /stopped; continue with: tiltlm (.*)\n/.exec(stderr)![1]!.split(" ");
    expect(command.join(" ")).toBe(`tune ${at("good.json")} --set checkpoint.every=10000 --set steps=5000 --out ${out} --resume`);
    const resumed = await cli(command.map((word) => (word === "steps=5000" ? `steps=${saved + 2}` : word)));
    expect(resumed.stderr).toContain(`resumed at step ${saved} of ${saved + 2}`);
    expect(resumed.code).toBe(0);
    expect(existsSync(join(out, "summary.json"))).toBe(true);
  });
});

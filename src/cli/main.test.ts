import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { estimateOf as estimate, evaluationOf } from "../../tests/support/records.ts";
import { runtimeError } from "../base/errors.ts";
import { nodeFiles } from "../base/files.node.ts";
import type { Evaluation, FitReport, Summary } from "../run/metrics.ts";
import type { TargetSample } from "../run/quasi-rejection.ts";
import { main } from "./main.ts";
import type { Runs } from "./runs.ts";
import type { Io } from "./session.ts";

const directory = mkdtempSync(join(tmpdir(), "tiltlm-cli-"));
const config = join(directory, "lilies.yaml");
const pretrainConfig = join(directory, "small.yaml");
const yaml = "base: ./model\nfeatures:\n  lily: { kind: word, word: Lily }\ntarget: { moments: { lily: 0.05 } }\n";
beforeAll(() => {
  writeFileSync(config, yaml);
  writeFileSync(pretrainConfig, "data: ./text.txt\n");
  writeFileSync(join(directory, "package.json"), '{ "version": "9.9.9" }');
  mkdirSync(join(directory, "examples"));
  writeFileSync(join(directory, "examples", "demo.yaml"), yaml);
});
afterAll(() => rmSync(directory, { recursive: true }));

const evaluation = (step: number, lily: number): Evaluation => evaluationOf(step, { lily: estimate(lily, 0.001) });
const fit: FitReport = {
  samples: 8192,
  baseMoments: { lily: estimate(0.2) },
  targetMoments: { lily: 0.05 },
  coefficients: { lily: estimate(-1.6, 0.02) },
  hard: {},
  logZ: estimate(0.3),
  ess: estimate(812.3, 12),
  klTargetBase: estimate(0.52),
};
const summary: Summary = {
  before: evaluation(0, 0.2),
  after: evaluation(300, 0.051),
  target: fit,
  steps: 300,
  seconds: 185,
  samples: 200_000,
};

const refuse = (): never => {
  throw new Error("not called in this test");
};
const noRuns: Runs = {
  tune: refuse,
  fit: refuse,
  evaluateDirectory: refuse,
  sampleTexts: refuse,
  sampleTarget: refuse,
  scoreFile: refuse,
  pretrain: refuse,
};

const start = (argv: readonly string[], fakes: Partial<Runs> = {}, isTTY = false) => {
  let stdout = "";
  let stderr = "";
  const exits: number[] = [];
  const handlers = new Set<() => void>();
  const io: Io = {
    stdout: {
      write: (text) => {
        stdout += text;
      },
    },
    stderr: {
      isTTY,
      write: (text) => {
        stderr += text;
      },
    },
    env: {},
    platform: "linux",
    files: nodeFiles,
    runs: { ...noRuns, ...fakes },
    packageRoot: directory,
    clock: () => 0,
    onInterrupt: (handler) => {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    exit: (code) => void exits.push(code),
  };
  return {
    code: main(argv, io),
    output: () => ({ stdout, stderr }),
    interrupt: () => {
      for (const handler of handlers) handler();
    },
    exits,
    handlers,
  };
};

const run = async (argv: readonly string[], fakes: Partial<Runs> = {}) => {
  const started = start(argv, fakes);
  return { code: await started.code, ...started.output(), handlers: started.handlers };
};

describe("help", () => {
  it.each(["demo", "tune", "fit", "sample", "score", "evaluate", "pretrain"])(
    "of %s names its flags and exits with 0",
    async (verb) => {
      const { code, stdout, stderr } = await run([verb, "--help"]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      for (const flag of [`tiltlm ${verb}`, "--json", "--debug", "--device"]) expect(stdout).toContain(flag);
    },
  );

  it("is shown for the program, and tells the version", async () => {
    expect((await run(["--help"])).stdout).toContain("tiltlm demo");
    expect(await run(["--version"])).toMatchObject({ code: 0, stdout: "9.9.9\n" });
  });

  it("is bad usage where a verb is missing", async () => {
    expect(await run([])).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("Usage: tiltlm") });
  });
});

describe("bad usage", () => {
  it.each([
    [["tnue"], 'tiltlm: command line: expected a known verb, got "tnue"; did you mean tune?'],
    [["tune", "--stpes", "3", "x"], "tiltlm: tune: expected a known flag, got --stpes; did you mean --steps?"],
    [["tune"], "tiltlm: tune: expected an argument <config>, got none; see tiltlm tune --help"],
    [["tune", "a", "b"], "tiltlm: tune: expected 1 argument, got 2; see tiltlm tune --help"],
    [["tune", "a", "--steps"], "tiltlm: tune: expected a value after --steps <n>, got none; see tiltlm tune --help"],
    [["tune", "a", "--steps", "many"], 'tiltlm: --steps: expected a whole number of at least 1, got "many"; correct the value'],
    [["evaluate", "a"], "tiltlm: evaluate: expected the flag --model <dir>, got none; see tiltlm evaluate --help"],
    [["sample", "m", "--top-p", "0"], 'tiltlm: --top-p: expected a number above 0 and at most 1, got "0"; correct the value'],
    [
      ["sample", "m", "--seed", "-1"],
      'tiltlm: --seed: expected a whole number from 0 to 4294967295, got "-1"; correct the value',
    ],
    [["sample"], "tiltlm: sample: expected an argument <model>, got none; see tiltlm sample --help"],
    [["sample", "m", "n"], "tiltlm: sample: expected 1 argument, got 2; see tiltlm sample --help"],
    [
      ["sample", "m", "--acceptance", "0.1"],
      "tiltlm: sample --acceptance: expected --target beside it, got none; name the config of the target",
    ],
    [
      ["sample", "m", "--set", "seed=1"],
      "tiltlm: sample --set: expected --target beside it, got none; name the config of the target",
    ],
    ...["0", "1.01", "tenth"].map((rate): [string[], string] => [
      ["sample", "--target", "c", "--acceptance", rate],
      `tiltlm: --acceptance: expected a number above 0 and at most 1, got "${rate}"; correct the value`,
    ]),
    ...["--prompt", "--max-tokens", "--temperature", "--top-p"].map((flag): [string[], string] => [
      ["sample", "--target", "absent.yaml", flag, "1"],
      `tiltlm: sample ${flag}: expected no such flag beside --target, got one; the proposal is sampled exactly, and the config's sequence section decides (--set sequence.maxTokens=32)`,
    ]),
    [["sample", "--target", "absent.yaml"], "tiltlm: absent.yaml: expected a config file, got nothing there; check the path"],
    [
      ["score", "m", "f", "--device", "tpu"],
      'tiltlm: --device: expected one of cpu, webgpu, cuda, got "tpu"; choose one of them',
    ],
    [["tune", "absent.yaml"], "tiltlm: absent.yaml: expected a config file, got nothing there; check the path"],
  ])("%j", async (argv, message) => {
    expect(await run(argv)).toMatchObject({ code: 2, stdout: "", stderr: `${message}\n` });
  });

  it("in a config names the file and the key path", async () => {
    const { code, stderr } = await run(["tune", config, "--set", "optimizer.learningrate=1"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /^tiltlm: .*lilies\.yaml: optimizer\.learningrate: expected a known key .*; did you mean "learningRate"\?\n$/,
    );
  });
});

describe("failures", () => {
  const failing = (error: Error) => run(["fit", config], { fit: () => Promise.reject(error) });

  it("while running are one line and exit code 1", async () => {
    const error = runtimeError({ where: "model.safetensors", expected: "100 bytes", got: "99", fix: "fetch it again" });
    expect(await failing(error)).toMatchObject({
      code: 1,
      stdout: "",
      stderr: "tiltlm: model.safetensors: expected 100 bytes, got 99; fetch it again\n",
    });
  });

  it("that nobody foresaw are one line too, and say how to see more", async () => {
    const { code, stderr } = await failing(new TypeError("x is\n  undefined"));
    expect(code).toBe(1);
    expect(stderr).toBe(
      "tiltlm: unexpected: expected no such error, got x is undefined; run again with --debug and report what it shows\n",
    );
  });

  it("show their stacks with --debug", async () => {
    const { stderr } = await run(["fit", config, "--debug"], {
      fit: () => Promise.reject(new Error("deep", { cause: new Error("deeper") })),
    });
    expect(stderr).toMatch(/Error: deep\n\s+at .*\ncaused by: Error: deeper\n\s+at /s);
  });
});

describe("tune", () => {
  it("resolves its config and flags, and shows before and after", async () => {
    const seen: unknown[] = [];
    const { code, stdout, stderr, handlers } = await run(
      ["tune", config, "--steps", "7", "--set", "seed=3", "--device", "webgpu"],
      {
        tune: async (given, options, { onEvent }) => {
          seen.push(given.steps, given.seed, given.device, given.base, options);
          onEvent({ type: "notice", message: "hello" });
          return { summary, stopped: false, out: options.out };
        },
      },
    );
    expect(seen).toEqual([7, 3, "webgpu", join(directory, "model"), { out: "runs/lilies", resume: false }]);
    expect(code).toBe(0);
    expect(stderr).toBe("note: hello\n");
    expect(stdout).toMatch(/^ +before +after 300 steps +wanted\n/);
    expect(stdout).toMatch(/\nlily +0\.2000 ± 0\.0010 +0\.0510 ± 0\.0010 +0\.05\n/);
    expect(stdout).toMatch(/\nKL\(p,π\) +0\.420 ± 0\.030 +0\.420 ± 0\.030 +nats from the target/);
    expect(stdout).toContain("from 2,048 sequences, full softmax");
    expect(stdout).toContain("runs/lilies/model");
    expect(handlers.size).toBe(0);
  });

  it("prints JSON and nothing else on stdout with --json", async () => {
    const { stdout } = await run(["tune", config, "--json", "--out", "o", "--resume"], {
      tune: async (_, { out, resume }) => ({ summary, stopped: !resume, out }),
    });
    expect(JSON.parse(stdout)).toEqual({ ...summary, out: "o", stopped: false });
  });

  it("draws a live block on a terminal, and none with --json", async () => {
    const escapes = async (...flags: string[]) => {
      const tune: Runs["tune"] = async (_, { out }, { onEvent }) => {
        onEvent({ type: "phase", name: "tuning", total: 3, unit: "steps" });
        return { summary, stopped: false, out };
      };
      const started = start(["tune", config, ...flags], { tune }, true);
      await started.code;
      return started.output().stderr.split("\u001b[0J").length - 1;
    };
    expect(await escapes()).toBe(1);
    expect(await escapes("--json")).toBe(0);
  });

  it("with --dry-run prints a complete config that is itself one", async () => {
    const { code, stdout } = await run(["tune", config, "--dry-run"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^# hash: [0-9a-f]{64}\nbase: /);
    const again = join(directory, "again.yaml");
    writeFileSync(again, stdout);
    expect((await run(["tune", again, "--dry-run"])).stdout).toBe(stdout);
    expect(JSON.parse((await run(["tune", config, "--dry-run", "--json"])).stdout)).toMatchObject({
      steps: 300,
      method: { name: "gdc++" },
    });
  });

  /** A tune that begins, waits to be let go, and then ends as it is told to. */
  const slow = (end: (out: string) => ReturnType<Runs["tune"]>) => {
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    let begin: (signal: AbortSignal) => void = () => {};
    const begun = new Promise<AbortSignal>((resolve) => {
      begin = resolve;
    });
    const started = start(["tune", config, "--steps", "7", "--set", "sequence.prompt=It's"], {
      tune: async (_, { out }, { signal }) => {
        begin(signal!);
        await released;
        return end(out);
      },
    });
    return { ...started, begun, release };
  };

  it("stops after the first Ctrl-C, and at once after the second", async () => {
    const { begun, release, code, interrupt, output, exits } = slow(async (out) => ({ summary, stopped: true, out }));
    const signal = await begun;
    expect(signal.aborted).toBe(false);
    interrupt();
    expect(signal.aborted).toBe(true);
    expect(output().stderr).toBe("stopping after this step; a checkpoint will be written; press Ctrl-C again to quit at once\n");
    expect(exits).toEqual([]);
    interrupt();
    expect(exits).toEqual([130]);
    release();
    expect(await code).toBe(130);
    expect(output().stderr).toContain(
      `continue with: tiltlm tune ${config} --set 'sequence.prompt=It'\\''s' --set steps=7 --out runs/lilies --resume\n`,
    );
    expect(output().stdout).toBe("");
  });

  it("reports a failure while stopping as a failure", async () => {
    const { begun, release, code, interrupt, output } = slow(() =>
      Promise.reject(runtimeError({ where: "disk", expected: "space", got: "none", fix: "free some" })),
    );
    await begun;
    interrupt();
    release();
    expect(await code).toBe(1);
    expect(output().stderr).toContain("tiltlm: disk: expected space");
  });
});

describe("demo", () => {
  const line = (step: number, i: number, text = `text ${i} of step ${step}`) =>
    JSON.stringify({ step, model: "policy", text, features: { lily: i % 2 }, logProb: -1 });

  it("runs the shipped config and shows the first texts of both models", async () => {
    const out = join(directory, "demo-run");
    const { code, stdout, stderr } = await run(["demo", "--out", out], {
      tune: async (_, options) => {
        const lines = [0, 20, 300].flatMap((step) => Array.from({ length: 9 }, (_, i) => line(step, i)));
        await nodeFiles.write(join(options.out, "samples.jsonl"), `${lines.join("\n")}\n`);
        return { summary, stopped: false, out: options.out };
      },
    });
    expect(code).toBe(0);
    expect(stderr).toContain("lily 0.05");
    expect(stdout).toMatch(/\ntext 3 of step 0 +text 3 of step 300\n\(lily\) +\(lily\)\n/);
    expect(stdout).not.toContain("text 4");
    expect(stdout).not.toContain("step 20");
    expect(stdout).toContain(`tiltlm sample ${out}/model -n 5`);
  });

  it("chooses a free directory, and says so", async () => {
    const before = process.cwd();
    process.chdir(directory);
    try {
      mkdirSync("runs/demo", { recursive: true });
      mkdirSync("runs/demo-2");
      const { stdout, stderr } = await run(["demo", "--json"], {
        tune: async (_, { out }) => ({ summary, stopped: false, out }),
      });
      expect(stderr).toContain("the run goes to runs/demo-3 (runs/demo is taken)");
      expect(JSON.parse(stdout)).toMatchObject({ out: "runs/demo-3", steps: 300 });
    } finally {
      process.chdir(before);
    }
  });
});

describe("the other verbs", () => {
  it("fit shows base, wanted and coefficient of every feature", async () => {
    const { stdout } = await run(["fit", config], { fit: async () => fit });
    expect(stdout).toMatch(/\nlily +0\.200 ± 0\.010 +0\.05 +-1\.600 ± 0\.020\n/);
    expect(stdout).toMatch(/\nESS +812 ± 12 of 8,192/);
    expect(JSON.parse((await run(["fit", config, "--json"], { fit: async () => fit })).stdout)).toEqual(fit);
  });

  it("evaluate measures the named model", async () => {
    const result = { evaluation: evaluation(0, 0.06), fit };
    const { stdout } = await run(["evaluate", config, "--model", "m"], {
      evaluateDirectory: async (_, model) => (model === "m" ? result : refuse()),
    });
    expect(stdout).toMatch(/\nlily +0\.0600 ± 0\.0010 +0\.05\n/);
    expect(stdout).toContain("From 2,048 sequences, full softmax");
  });

  it("sample passes its flags and prints texts or JSON lines", async () => {
    const seen: unknown[] = [];
    const sampleTexts: Runs["sampleTexts"] = async (model, options) => {
      seen.push(model, options);
      return ["one", "two"].map((text) => ({ text, ids: [1], logProb: -1, ended: true }));
    };
    const argv = ["sample", "m", "-n", "2", "--prompt", "Say ", "--max-tokens", "9", "--temperature", "0.5", "--top-p", "0.9"];
    expect((await run(argv, { sampleTexts })).stdout).toBe("Say one\n\nSay two\n");
    expect(seen).toEqual(["m", { count: 2, prompt: "Say ", maxTokens: 9, seed: 12, temperature: 0.5, topP: 0.9, device: "cpu" }]);
    const lines = (await run([...argv, "--json"], { sampleTexts })).stdout.trimEnd().split("\n");
    expect(lines.map((text) => JSON.parse(text))).toEqual(
      ["one", "two"].map((text) => ({ text, ids: [1], logProb: -1, ended: true })),
    );
  });

  describe("sample --target", () => {
    const seen: unknown[] = [];
    const report: TargetSample["report"] = {
      requested: 0.1,
      achieved: { value: 0.08, stdError: 0.035, n: 61 },
      trials: 61,
      logBetaOverZ: Math.log(10),
      pilot: {
        acceptance: estimate(0.1),
        tv: estimate(0.031, 0.002),
        tvBound: estimate(0.09),
        kl: estimate(0.03),
        tvTargetProposal: estimate(0.41),
        klTargetProposal: estimate(0.61, 0.02),
        logZ: estimate(1),
        ess: { value: 812.3, stdError: 12, n: 8192 },
      },
    };
    const texts = ["one", "two"].map((text) => ({ text, ids: [1], logProb: -1, ended: true, features: { lily: 1 } }));
    const sampleTarget: Runs["sampleTarget"] = async (given, options, { onEvent }) => {
      seen.push(given.base, given.steps, given.device, options);
      onEvent({ type: "notice", message: "hello" });
      return { texts, report };
    };
    const base = join(directory, "model");

    it("takes the config's base and the default rate, prints texts on stdout and how near they are on stderr", async () => {
      seen.length = 0;
      const { code, stdout, stderr } = await run(["sample", "--target", config, "--set", "sequence.prompt='Say '"], {
        sampleTarget,
      });
      expect(seen).toEqual([base, 300, "cpu", { count: 5, seed: 12, acceptance: 0.1 }]);
      expect({ code, stdout }).toEqual({ code: 0, stdout: "Say one\n\nSay two\n" });
      expect(stderr).toBe(
        [
          "note: hello",
          "accepted  0.080 ± 0.035 of 61 trials; 0.1 was asked for, which is beta = 10 Z",
          "TV        0.0310 ± 0.0020 from the target, at most 0.090 ± 0.010; the proposal is 0.410 ± 0.010 from it",
          "KL        0.030 ± 0.010 nats from the target; the proposal is 0.610 ± 0.020 from it",
          "pilot     8,192 texts of the proposal, worth 812 of the target; what they did not show is not in TV and KL",
          "",
        ].join("\n"),
      );
    });

    it("passes a model as the proposal, and every flag that goes with a target", async () => {
      seen.length = 0;
      const flags = ["-n", "3", "--seed", "4", "--acceptance", "0.5", "--set", "steps=7", "--device", "webgpu"];
      expect((await run(["sample", "m", "--target", config, ...flags], { sampleTarget })).code).toBe(0);
      expect(seen).toEqual([base, 7, "webgpu", { count: 3, seed: 4, acceptance: 0.5, proposal: "m" }]);
    });

    it("prints JSON and nothing else on stdout with --json, the report last", async () => {
      const { stdout, stderr } = await run(["sample", "--target", config, "--json"], { sampleTarget });
      const lines = stdout.trimEnd().split("\n");
      expect(lines.map((line) => JSON.parse(line))).toEqual([...texts, { report }]);
      expect(stderr).toBe("note: hello\n");
    });
  });

  it("score prints a JSON line per text, as they come", async () => {
    const scoreFile: Runs["scoreFile"] = async function* (model, file) {
      expect([model, file]).toEqual(["m", "f.jsonl"]);
      yield { ids: [1, 2], tokenLogProbs: [-0.5], sumLogProb: -0.5 };
    };
    expect((await run(["score", "m", "f.jsonl"], { scoreFile })).stdout).toBe(
      '{"ids":[1,2],"tokenLogProbs":[-0.5],"sumLogProb":-0.5}\n',
    );
  });

  it("pretrain goes to runs/<config name> and shows its report", async () => {
    const report = {
      parameters: 818_048,
      vocabulary: 1024,
      texts: { training: 98, validation: 2, cut: 1 },
      seconds: 12,
      validation: { natsPerToken: 2.5, perplexity: 12.18, tokens: 64 },
    };
    const pretrain: Runs["pretrain"] = async ({ steps = 0 }, { out }) => ({ ...report, steps, out, stopped: steps === 4 });
    const { code, stdout } = await run(["pretrain", pretrainConfig, "--steps", "5"], { pretrain });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^parameters +818,048\n/);
    expect(stdout).toMatch(/\nsteps +5 in 12 s\n/);
    expect(stdout).toContain("The model is in runs/small.");
    expect((await run(["pretrain", pretrainConfig, "--steps", "4"], { pretrain })).code).toBe(130);
  });
});

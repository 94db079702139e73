/**
 * The configs of a run and of a pretraining: one strict schema each, with every default, and checks across keys.
 * What comes out of `parseRunConfig` and `parsePretrainConfig` is complete, and parsing it again changes nothing.
 * Files are read in config-file.node.ts; this file knows none.
 */

import { z } from "zod";
import { messageOf, TiltError, usageError } from "../base/errors.ts";
import type { Sequence } from "../sampling/samples.ts";
import { constraintsOf } from "../targets/ebm.ts";
import { createFeature, type FeatureSpec } from "../targets/feature.ts";
import { placeOf, problemsOf, show, strict } from "./config-problems.ts";

const whole = (least: number) => z.int().min(least);
const share = z.number().min(0).max(1);
const text = z.string().min(1);
const seed = z.int().min(0).max(0xffffffff).default(12).describe("of every random draw; the same seed gives the same run");
const device = z.enum(["cpu", "webgpu", "cuda"]).default("cpu").describe("what computes");

// --- Features: plain data in YAML, or functions in a TypeScript config.

type Value = number | boolean;
type PerSample = (sequence: Sequence) => Value | Promise<Value>;
type PerBatch = (sequences: readonly Sequence[]) => ArrayLike<Value> | Promise<ArrayLike<Value>>;

const callable = <F>(what: string) => z.custom<F>((value) => typeof value === "function", { error: `a function of ${what}` });
const perSample = callable<PerSample>("a sequence { text, ids, ended } that returns a number or a boolean");
const perBatch = callable<PerBatch>("a list of sequences that returns as many numbers or booleans");
const binary = z.boolean().exactOptional().describe("whether its values are 0 or 1; true where absent");

const declaredFeature = z.discriminatedUnion("kind", [
  strict({ kind: z.literal("word"), word: text, caseSensitive: z.boolean().default(true) }),
  strict({ kind: z.literal("words"), words: z.array(text).min(1), caseSensitive: z.boolean().default(true) }),
  strict({ kind: z.literal("regex"), pattern: text, flags: z.string().default("") }),
  strict({
    kind: z.literal("pronouns"),
    label: z.enum(["male", "female", "other"]),
    caseSensitive: z.boolean().default(false),
    male: z.array(text).min(1).exactOptional().describe("instead of he, him, his, himself"),
    female: z.array(text).min(1).exactOptional().describe("instead of she, her, hers, herself"),
  }),
  strict({
    kind: z.literal("length"),
    unit: z.enum(["tokens", "words"]).default("tokens"),
    min: whole(0).exactOptional(),
    max: whole(0).exactOptional(),
  }),
  strict({ kind: z.literal("function"), binary, perSample: perSample.exactOptional(), perBatch: perBatch.exactOptional() }),
]);

/** The forms of a feature, in the order of `featureForm`. */
const feature = z.union([
  declaredFeature,
  perSample.transform((fn) => ({ kind: "function" as const, perSample: fn })),
  strict({ sample: perSample, binary }).transform(({ sample, ...rest }) => ({
    kind: "function" as const,
    ...rest,
    perSample: sample,
  })),
  strict({ batch: perBatch, binary }).transform(({ batch, ...rest }) => ({
    kind: "function" as const,
    ...rest,
    perBatch: batch,
  })),
]);

const featureForm = (value: unknown): number => {
  if (typeof value === "function") return 1;
  if (typeof value !== "object" || value === null || "kind" in value) return 0;
  return "sample" in value ? 2 : "batch" in value ? 3 : 0;
};

// --- Parts shared by both configs.

const optimizer = (learningRate: number, schedule: "constant" | "cosine") =>
  strict({
    name: z.enum(["adam", "adamw"]).default("adam"),
    learningRate: z.number().positive().default(learningRate),
    warmupSteps: whole(0).default(100).describe("steps over which the learning rate rises linearly from 0"),
    schedule: z
      .enum(["constant", "linear", "cosine"])
      .default(schedule)
      .describe("after the warm-up; linear and cosine end at 0 with the last step"),
    beta1: z.number().min(0).lt(1).default(0.9),
    beta2: z.number().min(0).lt(1).default(0.999),
    epsilon: z.number().positive().default(1e-8),
    weightDecay: z.number().min(0).exactOptional().describe("adamw only; 0.01 there"),
    maxGradNorm: z.number().positive().exactOptional().describe("clips the gradient's norm; absent: never"),
  }).transform(({ weightDecay, ...rest }) => ({ ...rest, weightDecay: weightDecay ?? (rest.name === "adamw" ? 0.01 : 0) }));

const batch = (samples: number, microBatch: number) =>
  strict({
    samples: whole(2).default(samples).describe("sequences per optimizer step"),
    // The last micro-batch is smaller when the one does not divide the other; weights are per sequence, so nothing is lost.
    microBatch: whole(1).default(microBatch).describe("sequences computed at once; any number up to samples"),
  }).prefault({});

// --- A run.

const baselines = { dpg: "none", gdc: "none", "gdc++": "z-policy-over-proposal" } as const;

const runSchema = strict({
  base: text.describe("a Hugging Face model directory (relative to the config file), or a hub id owner/name"),
  sequence: strict({
    maxTokens: z.int().min(1).max(4096).default(64).describe("generated tokens at most; the model's end token stops a sequence"),
    prompt: z.string().default("").describe("what every sequence begins with, not scored; empty: only the model's start token"),
  }).prefault({}),
  features: z.record(text, feature).describe("what is measured, by name; a feature without a wanted moment is only reported"),
  target: strict({
    moments: z
      .record(text, z.number())
      .describe("the wanted expectation of each feature; 0 and 1 of a yes/no feature are hard constraints"),
    samples: whole(2).default(8192).describe("sequences of the base from which the target is fitted"),
  }),
  method: strict({
    name: z.enum(["dpg", "gdc", "gdc++"]).default("gdc++"),
    baseline: z
      .enum(["none", "z", "z-policy-over-proposal"])
      .exactOptional()
      .describe("subtracted from P/q; by the method's name where absent"),
    clampLogWeight: z.number().exactOptional().describe("upper bound of log P/(Z q), nats; absent: never clamped"),
  })
    .transform(({ baseline, ...rest }) => ({ ...rest, baseline: baseline ?? baselines[rest.name] }))
    .prefault({}),
  batch: batch(512, 64),
  optimizer: optimizer(1.41e-5, "constant").prefault({}),
  proposal: strict({
    updateEvery: whole(1)
      .default(10)
      .describe("steps between checks whether the policy has come nearer to the target than the proposal"),
    criterion: z.enum(["kl", "kl-authors", "never"]).default("kl"),
    samples: whole(2).default(1024).describe("fresh sequences of a check"),
  }).prefault({}),
  steps: whole(1).default(300),
  seed,
  evaluate: strict({
    every: whole(1).default(20).describe("steps between evaluations"),
    samples: whole(2).default(2048).describe("sequences of an evaluation"),
    topP: z.number().positive().max(1).default(1).describe("nucleus of the texts and moments; divergences are always at 1"),
  }).prefault({}),
  checkpoint: strict({
    every: whole(1).default(20).describe("steps between checkpoints"),
    keep: whole(1).default(2).describe("the last how many are kept"),
  }).prefault({}),
  device,
});

/** As written: defaults may be left out. */
export type RunInput = z.input<typeof runSchema>;
/** Complete. */
export type RunConfig = z.output<typeof runSchema>;

// --- A pretraining.

const pretrainSchema = strict({
  data: text.describe("a text file with one text per line, or .jsonl with a key text; relative to the config file"),
  validationShare: share.lt(1).default(0.02).describe("share of the texts held out"),
  tokenizer: strict({ vocabularySize: whole(257).default(1024).describe("at least the 256 bytes and an end token") }).prefault(
    {},
  ),
  model: strict({
    family: z.enum(["gpt2", "llama"]).default("gpt2"),
    layers: whole(1).default(4),
    width: whole(2).default(128),
    heads: whole(1).default(4).describe("attention heads; divides width"),
    keyValueHeads: whole(1).exactOptional().describe("llama only: heads of keys and values; divides heads"),
    innerWidth: whole(1).exactOptional().describe("of the feed-forward layers; by the family where absent"),
    contextLength: whole(2).default(64).describe("tokens"),
  }).prefault({}),
  batch: batch(128, 128),
  optimizer: optimizer(1e-3, "cosine").prefault({}),
  steps: whole(1).exactOptional(),
  epochs: z.number().positive().exactOptional().describe("passes over the data, instead of steps"),
  seed,
  evaluate: strict({ every: whole(1).default(100).describe("steps between losses on the held-out texts") }).prefault({}),
  dtype: z.enum(["F32", "F16", "BF16"]).default("F32").describe("of the saved weights"),
  device,
}).transform((config) => (config.steps === undefined && config.epochs === undefined ? { ...config, steps: 1000 } : config));

export type PretrainInput = z.input<typeof pretrainSchema>;
/** Complete: exactly one of `steps` and `epochs` is there. */
export type PretrainConfig = z.output<typeof pretrainSchema>;

/** A run's config, typed, for the default export of a TypeScript config. */
export const defineRun = (config: RunInput): RunInput => config;
export const definePretrain = (config: PretrainInput): PretrainInput => config;

// --- Checks across keys.

type Complain = (path: readonly string[], expected: string, got: string, fix: string) => void;

const sharedChecks = ({ batch, optimizer }: Pick<RunConfig, "batch" | "optimizer">, complain: Complain): void => {
  if (batch.microBatch > batch.samples) {
    complain(
      ["batch", "microBatch"],
      `at most batch.samples (${batch.samples})`,
      `${batch.microBatch}`,
      "lower it or raise batch.samples",
    );
  }
  if (optimizer.name === "adam" && optimizer.weightDecay > 0) {
    complain(
      ["optimizer", "weightDecay"],
      "no weight decay with adam",
      `${optimizer.weightDecay}`,
      "use optimizer.name: adamw or remove it",
    );
  }
};

/** Features that cannot work, and moments that no distribution can have: found by building the one and resolving the other. */
const targetProblems = (config: RunConfig, where: string): TiltError[] => {
  const binaryOf: Record<string, boolean> = {};
  const problems = Object.entries(config.features).flatMap(([name, spec]) => {
    try {
      binaryOf[name] = createFeature(name, spec satisfies FeatureSpec).binary;
      return [];
    } catch (error) {
      const complaint = messageOf(error).replace(`feature "${name}": `, "");
      return [new TiltError("usage", `${placeOf(where, ["features", name])}: ${complaint}`, { cause: error })];
    }
  });
  if (problems.length > 0) return problems;
  try {
    constraintsOf(config.target, { names: Object.keys(binaryOf), binary: Object.values(binaryOf) });
    return [];
  } catch (error) {
    return [new TiltError("usage", `${where}: ${messageOf(error)}`, { cause: error })];
  }
};

const modelChecks = ({ family, width, heads, keyValueHeads }: PretrainConfig["model"], complain: Complain): void => {
  if (width % heads !== 0) complain(["model", "heads"], `a divisor of model.width (${width})`, `${heads}`, "change one of them");
  else if (family === "llama" && (width / heads) % 2 !== 0) {
    complain(
      ["model", "heads"],
      "an even width per head (rotary positions)",
      `${width / heads}`,
      "change model.width or model.heads",
    );
  }
  if (keyValueHeads === undefined) return;
  if (family !== "llama")
    complain(["model", "keyValueHeads"], "family: llama", family, "remove keyValueHeads or change the family");
  else if (heads % keyValueHeads !== 0) {
    complain(["model", "keyValueHeads"], `a divisor of model.heads (${heads})`, `${keyValueHeads}`, "change one of them");
  }
};

const parse = <T>(
  schema: z.ZodType<T>,
  input: unknown,
  where: string,
  check: (config: T, complain: Complain) => readonly TiltError[],
): T => {
  const result = schema.safeParse(input);
  const problems: TiltError[] = [];
  if (result.success) {
    const complain: Complain = (path, expected, got, fix) => {
      problems.push(usageError({ where: placeOf(where, path), expected, got, fix }));
    };
    problems.push(...check(result.data, complain));
  } else problems.push(...problemsOf(result.error.issues, input, where, featureForm));
  const [first, ...more] = problems;
  if (first === undefined) return result.data!;
  if (more.length === 0) throw first;
  throw new TiltError("usage", `${first.message} (and ${more.length} more problem${more.length > 1 ? "s" : ""})`, {
    cause: first,
  });
};

/**
 * The complete config of a run.
 *
 * @param where what the config is called in messages, such as its file name
 * @throws TiltError (usage) for the first problem, in one line with its key path, and how many more there are
 */
export const parseRunConfig = (input: unknown, where: string): RunConfig =>
  parse(runSchema, input, where, (config, complain) => {
    sharedChecks(config, complain);
    return targetProblems(config, where);
  });

/** The complete config of a pretraining. @throws TiltError (usage), as parseRunConfig */
export const parsePretrainConfig = (input: unknown, where: string): PretrainConfig =>
  parse(pretrainSchema, input, where, (config, complain) => {
    sharedChecks(config, complain);
    modelChecks(config.model, complain);
    if (config.steps !== undefined && config.epochs !== undefined) {
      complain(
        ["epochs"],
        "either steps or epochs",
        `both (${show(config.steps)} and ${show(config.epochs)})`,
        "remove one of them",
      );
    }
    return [];
  });

// --- Identity.

/** Plain JSON data: functions stand as their source text, absent values are left out, keys are sorted. */
export const plainConfig = (value: unknown): unknown => {
  if (typeof value === "function") return { function: String(value) };
  if (Array.isArray(value)) return value.map(plainConfig);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.fromEntries(entries.map(([key, inner]) => [key, plainConfig(inner)]));
};

/** What makes two runs the same. Under a constant schedule `steps` does not: such a run may be extended after its end. */
const identity = (config: unknown): unknown => {
  const plain = plainConfig(config) as { optimizer?: { schedule?: string }; steps?: number };
  if (plain.optimizer?.schedule !== "constant") return plain;
  const { steps: _, ...rest } = plain;
  return rest;
};

/** SHA-256 of the config in hexadecimal, stable under the order of keys. */
export const configHash = async (config: RunConfig | PretrainConfig): Promise<string> => {
  const bytes = new TextEncoder().encode(JSON.stringify(identity(config)));
  const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
};

/**
 * Key paths at which two configs differ, sorted; empty exactly where their hashes agree.
 * Either may be a config or what became of it in run.json.
 */
export const configDifferences = (a: unknown, b: unknown): string[] => {
  const isMapping = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const compare = (left: unknown, right: unknown, path: string): string[] => {
    if (!isMapping(left) || !isMapping(right))
      return JSON.stringify(left) === JSON.stringify(right) ? [] : [path === "" ? "config" : path];
    const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].sort();
    return keys.flatMap((key) => compare(left[key], right[key], path === "" ? key : `${path}.${key}`));
  };
  return compare(identity(a), identity(b), "");
};

/**
 * The configs of a run and of a pretraining: one strict schema each, with every default, and checks across keys.
 * What comes out of `parseRunConfig` and `parsePretrainConfig` is complete, and parsing it again changes nothing.
 * Files are read in config-file.node.ts; this file knows none.
 */

import { z } from "zod";
import { messageOf, TiltError, usageError } from "../base/errors.ts";
import { defaultMicroBatch } from "../sampling/log-prob.ts";
import type { Sequence } from "../sampling/samples.ts";
import { defaultTimeoutSeconds, type Value } from "../targets/deadline.ts";
import { constraintsOf, givenCoefficientsOf, type TargetSpec } from "../targets/ebm.ts";
import { createFeature, type FeatureSpec } from "../targets/feature.ts";
import { createReward, type RewardSpec, rewardName } from "../targets/reward.ts";
import { fDivergences } from "../tuners/f-divergence.ts";
import { methodOf } from "../tuners/method.ts";
import { placeOf, problemsOf, show, strict } from "./config-problems.ts";

const whole = (least: number) => z.int().min(least);
const share = z.number().min(0).max(1);
const text = z.string().min(1);
const seed = z.int().min(0).max(0xffffffff).default(12).describe("of every random draw; the same seed gives the same run");
const device = z.enum(["cpu", "webgpu", "cuda"]).default("cpu").describe("what computes");

// --- Features: plain data in YAML, or functions in a TypeScript config.

type PerSample = (sequence: Sequence) => Value | Promise<Value>;
type PerBatch = (sequences: readonly Sequence[]) => ArrayLike<Value> | Promise<ArrayLike<Value>>;

const callable = <F>(what: string) => z.custom<F>((value) => typeof value === "function", { error: `a function of ${what}` });
const perSample = callable<PerSample>("a sequence { text, ids, ended } that returns a number or a boolean");
const perBatch = callable<PerBatch>("a list of sequences that returns as many numbers or booleans");
const binary = z.boolean().exactOptional().describe("whether its values are 0 or 1; true where absent");
const timeoutSeconds = z.number().positive().default(defaultTimeoutSeconds).describe("of each call of the function");

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
  strict({
    kind: z.literal("function"),
    binary,
    timeoutSeconds,
    perSample: perSample.exactOptional(),
    perBatch: perBatch.exactOptional(),
  }),
]);

/** The forms of a feature, in the order of `formOf`. */
const feature = z.union([
  declaredFeature,
  perSample.transform((fn) => ({ kind: "function" as const, timeoutSeconds: defaultTimeoutSeconds, perSample: fn })),
  strict({ sample: perSample, binary, timeoutSeconds }).transform(({ sample, ...rest }) => ({
    kind: "function" as const,
    ...rest,
    perSample: sample,
  })),
  strict({ batch: perBatch, binary, timeoutSeconds }).transform(({ batch, ...rest }) => ({
    kind: "function" as const,
    ...rest,
    perBatch: batch,
  })),
]);

/** The forms of a reward, in the order of `formOf`. */
const reward = z.union([
  strict({ features: z.record(text, z.number()).describe("r(x) is the sum of these features, each times its weight") }),
  perSample.transform((fn) => ({ sample: fn, timeoutSeconds: defaultTimeoutSeconds })),
  strict({ sample: perSample, timeoutSeconds }),
  strict({ batch: perBatch, timeoutSeconds }),
]);

/** Which form of a feature or a reward was meant: declared, a function, `sample` or `batch`. */
const formOf = (value: unknown): number => {
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

const batch = (samples: number, microBatch: number) => ({
  samples: whole(2).default(samples).describe("sequences per batch"),
  // The last micro-batch is smaller when the one does not divide the other; weights are per sequence, so nothing is lost.
  microBatch: whole(1)
    .default(microBatch)
    .describe("sequences computed at once, few enough to stay in the cache; changes no result"),
});

// --- The methods of a run.

/** Where neither the method nor the target has a KL coefficient. */
const klCoefficients = { "kl-control": 0.1, rloo: 0.05, grpo: 0.04, ppo: 0.2 } as const;

const policyBaseline = z
  .enum(["none", "mean", "leave-one-out"])
  .default("leave-one-out")
  .describe("subtracted from the reward: nothing, the batch's mean, or the mean of the others");
const targetBaseline = (name: "none" | "z") =>
  z
    .enum(["none", "z", "prefix"])
    .default(name)
    .describe("subtracted from P/q: nothing, Z pi/q, or for each token Z pi/q times what the tokens before it say of p/pi");
const clampLogWeight = z
  .number()
  .exactOptional()
  .describe("upper bound of the log-ratios that weights are made of, such as log P/(Z q), nats; absent: never clamped");
const klControl = (control: "fixed" | "adaptive", least: z.ZodNumber) => ({
  klCoefficient: least
    .exactOptional()
    .describe(
      `beta of the penalty; the target's where absent, without one ${Object.values(klCoefficients).join(", ")} by method`,
    ),
  klControl: z.enum(["fixed", "adaptive"]).default(control).describe("whether beta follows the policy towards klTarget"),
  klTarget: z.number().positive().default(6).describe("KL(pi, a) that an adaptive beta aims at, nats per sequence"),
  klHorizon: z.number().positive().default(10000).describe("sequences over which an adaptive beta moves"),
});
const openShare = z.number().gt(0).lt(1);
const clip = openShare.default(0.2).describe("how far pi/q may leave 1 before a sample stops to count");
const notNegative = z.number().min(0);

const method = z.discriminatedUnion("name", [
  strict({ name: z.literal("reinforce"), baseline: policyBaseline }),
  strict({ name: z.literal("reinforce-target"), baseline: policyBaseline }),
  strict({ name: z.literal("kl-control"), baseline: policyBaseline, ...klControl("fixed", z.number().positive()) }),
  strict({ name: z.literal("rloo"), ...klControl("fixed", notNegative) }),
  strict({
    name: z.literal("grpo"),
    ...klControl("fixed", notNegative),
    clip,
    scaleByDeviation: z.boolean().default(true).describe("whether advantages are divided by the rewards' standard deviation"),
    lengthScale: z
      .enum(["sequence", "batch", "constant"])
      .default("sequence")
      .describe("what a sequence's token losses are divided by: its length, the batch's mean length, or sequence.maxTokens"),
  }),
  strict({
    name: z.literal("ppo"),
    ...klControl("adaptive", notNegative),
    discount: z.number().gt(0).max(1).default(1),
    gaeLambda: share.default(0.95),
    clip,
    valueClip: z.number().positive().default(0.2).describe("how far a value may move from its old one before it stops to count"),
    valueCoefficient: notNegative.default(0.1).describe("weight of the values' loss"),
    whiten: z.boolean().default(true).describe("whether advantages are brought to mean 0 and variance 1"),
  }),
  strict({ name: z.literal("dpg"), baseline: targetBaseline("none"), clampLogWeight }),
  strict({ name: z.literal("gdc"), baseline: targetBaseline("none"), clampLogWeight }),
  strict({ name: z.literal("gdc++").default("gdc++"), baseline: targetBaseline("z"), clampLogWeight }),
  strict({
    name: z.literal("f-dpg"),
    divergence: z.enum(["kl", "reverse-kl", "tv", "js", "chi-squared", "reverse-chi-squared"]).default("kl"),
    samplesFrom: z.enum(["proposal", "policy"]).default("proposal"),
    baseline: z
      .enum(["none", "running"])
      .default("running")
      .describe("subtracted from the pseudo-reward: nothing, or its mean so far"),
    clampLogWeight,
  }),
]);

type Method = z.output<typeof method>;

// --- A run.

const targetForm = {
  moments: z
    .record(text, z.number())
    .exactOptional()
    .describe("the wanted expectation of each feature; 0 and 1 of a yes/no feature are hard constraints"),
  coefficients: z.record(text, z.number()).exactOptional().describe("given instead of fitted; nats per unit of the feature"),
  reward: reward.exactOptional().describe("with klCoefficient: p(x) ~ a(x) exp(r(x)/klCoefficient), the optimum of KL control"),
  klCoefficient: z.number().positive().exactOptional().describe("beta of the reward, here or at the top level"),
};

const proposal = strict({
  updateEvery: whole(1)
    .default(10)
    .describe("steps between checks whether the policy has come nearer to the target than the proposal"),
  criterion: z
    .enum(["kl", "kl-authors", "tv", "interval", "never"])
    .default("kl")
    .describe("how near is measured; interval: the policy is taken at every check"),
  samples: whole(2).default(1024).describe("fresh sequences of a check"),
});

const writtenRun = strict({
  base: text.describe("a Hugging Face model directory (relative to the config file), or a hub id owner/name"),
  sequence: strict({
    maxTokens: z.int().min(1).max(4096).default(64).describe("generated tokens at most; the model's end token stops a sequence"),
    prompt: z.string().default("").describe("what every sequence begins with, not scored; empty: only the model's start token"),
  }).prefault({}),
  features: z.record(text, feature).describe("what is measured, by name; a feature without a wanted moment is only reported"),
  reward: reward.exactOptional().describe("what reward-maximising methods ascend; written here or in the target"),
  target: strict({
    ...targetForm,
    product: z
      .array(strict(targetForm))
      .min(2)
      .exactOptional()
      .describe("targets fitted one by one, then multiplied: P(x) = a(x) times every P(x)/a(x)"),
    samples: whole(2).default(8192).describe("sequences of the base from which the target is fitted"),
  }).exactOptional(),
  method: method.prefault({}),
  batch: strict({
    ...batch(512, defaultMicroBatch),
    epochs: whole(1).exactOptional().describe("passes over each batch; where absent 4 for ppo, 1 for the others"),
    miniBatches: whole(1).default(1).describe("optimizer steps per pass"),
  }).prefault({}),
  optimizer: optimizer(1.41e-5, "constant").prefault({}),
  proposal: proposal.exactOptional().describe("of methods that sample from a proposal"),
  partition: strict({
    rule: z.enum(["cumulative", "windowed", "ess"]).default("cumulative").describe("how batches add up to the estimate of Z"),
    window: whole(1).default(10).describe("batches that are remembered; windowed only"),
  }).prefault({}),
  average: strict({
    kind: z.enum(["none", "polyak", "ema"]).default("none").describe("of the policy's weights over steps"),
    decay: openShare.default(0.99).describe("share of the old average that a step keeps; ema only"),
    from: whole(0).default(0).describe("steps done before averaging starts"),
  }).prefault({}),
  diagnostics: strict({
    every: whole(0).default(0).describe("steps between diagnostics of the gradient; 0: never"),
    samples: whole(3).default(32).describe("sequences of a diagnostic"),
  }).prefault({}),
  steps: whole(1).default(300),
  seed,
  evaluate: strict({
    every: whole(1).default(20).describe("steps between evaluations"),
    samples: whole(2).default(2048).describe("sequences of an evaluation"),
    topP: z.number().positive().max(1).default(1).describe("nucleus of the texts and moments; divergences are always at 1"),
    proposal: z.boolean().default(false).describe("whether the proposal is evaluated too"),
  }).prefault({}),
  checkpoint: strict({
    every: whole(1).default(20).describe("steps between checkpoints"),
    keep: whole(1).default(2).describe("the last how many are kept"),
  }).prefault({}),
  device,
});

type Written = z.output<typeof writtenRun>;
type WithKlCoefficient<M> = M extends { readonly klControl: string } ? Omit<M, "klCoefficient"> & { klCoefficient: number } : M;

/** The target's KL coefficient. Several of a product are one: their 1/beta add up. */
const klCoefficientOf = (target: Written["target"]): number | undefined => {
  const found = (target?.product ?? [target ?? {}]).flatMap(({ klCoefficient }) => klCoefficient ?? []);
  return found.length === 0 ? undefined : 1 / found.reduce((total, beta) => total + 1 / beta, 0);
};

/** The defaults that depend on other keys. A method that samples from the policy gets no proposal; one that is written is left to be refused. */
const completed = (written: Written) => {
  const { method, proposal: wanted, batch, ...rest } = written;
  const complete =
    "klControl" in method
      ? { ...method, klCoefficient: method.klCoefficient ?? klCoefficientOf(rest.target) ?? klCoefficients[method.name] }
      : method;
  const whole = complete as WithKlCoefficient<Method>;
  const used = wanted ?? (methodOf(whole).samplesFrom === "policy" ? undefined : proposal.parse({}));
  return {
    ...rest,
    method: whole,
    batch: { ...batch, epochs: batch.epochs ?? (method.name === "ppo" ? 4 : 1) },
    ...(used === undefined ? {} : { proposal: used }),
  };
};

// Read again, the keys that were added stand where the schema has them.
const runSchema = writtenRun.transform((written) => writtenRun.parse(completed(written)) as ReturnType<typeof completed>);

/** As written: defaults may be left out. */
export type RunInput = z.input<typeof runSchema>;
/** Complete. A method that samples from the policy has no `proposal`. */
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
  batch: strict(batch(128, defaultMicroBatch)).prefault({}),
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

// --- What a run's config says of its reward and its target.

type Path = readonly string[];
type TargetConfig = NonNullable<RunConfig["target"]>;

/** Every reward that is written, and where; a config that parses has at most one. */
const rewardsIn = ({ reward, target }: Pick<RunConfig, "reward" | "target">): { path: Path; reward: RewardSpec }[] => {
  const factors = (target?.product ?? []).map((form, k) => [["target", "product", `${k}`, "reward"], form.reward] as const);
  const places = [[["reward"], reward], [["target", "reward"], target?.reward], ...factors] as const;
  return places.flatMap(([path, written]) => (written === undefined ? [] : [{ path, reward: written }]));
};

/** The reward, wherever it is written. */
export const rewardOf = (config: Pick<RunConfig, "reward" | "target">): RewardSpec | undefined => rewardsIn(config)[0]?.reward;

/** The forms of a target, and where: itself, or the factors of its product. */
const formsOf = (target: TargetConfig) =>
  target.product?.map((form, k) => ({ path: ["target", "product", `${k}`], form })) ?? [{ path: ["target"], form: target }];

/** What is to be fitted: one spec, or one for each factor of a product. A reward over its KL coefficient is a given coefficient. */
export const targetSpecsOf = (target: TargetConfig): TargetSpec[] =>
  formsOf(target).map(({ form: { moments, coefficients, klCoefficient } }) => ({
    moments,
    coefficients:
      klCoefficient === undefined
        ? coefficients
        : { ...coefficients, [rewardName]: (coefficients?.[rewardName] ?? 0) + 1 / klCoefficient },
  }));

// --- Checks across keys.

type Complain = (path: Path, expected: string, got: string, fix: string) => void;

const sharedChecks = (
  {
    batch,
    optimizer,
  }: Pick<PretrainConfig, "optimizer"> & { readonly batch: PretrainConfig["batch"] & { readonly miniBatches?: number } },
  complain: Complain,
): void => {
  const { samples, microBatch, miniBatches = 1 } = batch;
  if (miniBatches > samples) {
    const fix = "lower it or raise batch.samples";
    complain(["batch", "miniBatches"], `at most batch.samples (${samples})`, `${miniBatches}`, fix);
  } else if (microBatch > Math.ceil(samples / miniBatches)) {
    const most =
      miniBatches === 1
        ? `batch.samples (${samples})`
        : `batch.samples / batch.miniBatches (${Math.ceil(samples / miniBatches)})`;
    complain(["batch", "microBatch"], `at most ${most}`, `${microBatch}`, "lower it or raise batch.samples");
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

/** Diagnostics look at sequences of the batch. */
const diagnosticsChecks = ({ batch, diagnostics }: RunConfig, complain: Complain): void => {
  if (diagnostics.every === 0 || diagnostics.samples <= batch.samples) return;
  const most = `at most batch.samples (${batch.samples})`;
  complain(["diagnostics", "samples"], most, `${diagnostics.samples}`, "lower it, or raise batch.samples");
};

/** What a method needs and is not given, and what it is given and would not use. */
const methodChecks = (config: RunConfig, complain: Complain): void => {
  const { method, target, proposal, evaluate } = config;
  const { needs, samplesFrom } = methodOf(method);
  if (needs.reward && rewardOf(config) === undefined)
    complain(
      ["reward"],
      `a reward, which ${method.name} ascends`,
      "nothing",
      "add reward, or use gdc++, which needs a target only",
    );
  if (needs.target && target === undefined) {
    const fix = "add target, or use kl-control, which needs a reward only";
    complain(["target"], `a target, which ${method.name} brings the policy to`, "nothing", fix);
  }
  if (samplesFrom === "policy") {
    const either = method.name === "f-dpg";
    const because = `because ${method.name}${either ? " with samplesFrom: policy" : ""} samples from the policy itself`;
    const otherwise = either ? "set method.samplesFrom: proposal" : "use gdc++";
    if (proposal !== undefined) complain(["proposal"], `no proposal, ${because}`, "one", `remove proposal, or ${otherwise}`);
    if (evaluate.proposal) complain(["evaluate", "proposal"], `false, ${because}`, "true", `remove it, or ${otherwise}`);
  }
  if ("klControl" in method && method.klControl === "adaptive" && method.klHorizon <= config.batch.samples / 5) {
    const fix = "raise it: beta changes by up to a fifth of batch.samples over it";
    complain(["method", "klHorizon"], `above batch.samples / 5 (${config.batch.samples / 5})`, `${method.klHorizon}`, fix);
  }
  if ("klControl" in method && method.klControl === "adaptive" && method.klCoefficient === 0) {
    const expected = `a number above 0, because ${method.name} with klControl: adaptive multiplies it`;
    complain(["method", "klCoefficient"], expected, "0", "raise it, or use klControl: fixed");
  }
};

/** How the reward and the forms of the target go together. */
const formChecks = (config: RunConfig, complain: Complain): void => {
  const [reward, ...others] = rewardsIn(config);
  for (const { path } of others)
    complain(path, "the reward written once", `a second one beside ${reward!.path.join(".")}`, "write it once, here or there");
  if (reward !== undefined && Object.hasOwn(config.features, rewardName)) {
    const expected = `another name, because "${rewardName}" is the reward's in this config`;
    complain(["features", rewardName], expected, `"${rewardName}"`, "rename the feature");
  }
  if (config.target === undefined) return;
  for (const key of Object.keys(targetForm) as (keyof typeof targetForm)[]) {
    if (config.target.product === undefined || config.target[key] === undefined) continue;
    complain(["target", key], "nothing beside product, whose factors say it all", show(config.target[key]), "make it a factor");
  }
  for (const { path, form } of formsOf(config.target)) {
    const at = [...path, "klCoefficient"];
    if (form.reward !== undefined && form.klCoefficient === undefined)
      complain(at, "beta of the target a(x) exp(reward/beta)", "nothing", "add it, or move the reward to the top level");
    if (form.klCoefficient !== undefined && reward === undefined)
      complain(at, "a reward that it divides", "none", "add reward, or remove klCoefficient");
    if (Object.keys(targetForm).every((key) => form[key as keyof typeof targetForm] === undefined)) {
      const expected = "moments, coefficients, or a reward with its klCoefficient";
      complain(path, `${expected}${path.length === 1 ? ", or a product of such" : ""}`, "none of them", "say what is wanted");
    }
  }
};

/** What only building it tells, as problems of the config. */
const problemsOfBuilding = (place: string, build: () => void): TiltError[] => {
  try {
    build();
    return [];
  } catch (error) {
    return [new TiltError("usage", `${place}: ${messageOf(error)}`, { cause: error })];
  }
};

/** Features and rewards that cannot work, and targets that no distribution can be: found by building them. */
const targetProblems = (config: RunConfig, where: string, complain: Complain): TiltError[] => {
  const { features, target, method } = config;
  const binaryOf = new Map<string, boolean>();
  const problems = Object.entries(features).flatMap(([name, spec]) => {
    try {
      binaryOf.set(name, createFeature(name, spec satisfies FeatureSpec).binary);
      return [];
    } catch (error) {
      const complaint = messageOf(error).replace(`feature "${name}": `, "");
      return [new TiltError("usage", `${placeOf(where, ["features", name])}: ${complaint}`, { cause: error })];
    }
  });
  if (problems.length > 0) return problems;
  const names = Object.keys(features).map((name) => ({ name }));
  problems.push(
    ...rewardsIn(config).flatMap(({ path, reward }) =>
      problemsOfBuilding(where, () => createReward(reward, names, path.join("."))),
    ),
  );
  if (target === undefined) return problems;
  if (rewardOf(config) !== undefined || klCoefficientOf(target) !== undefined) binaryOf.set(rewardName, false);
  const matrix = { names: [...binaryOf.keys()], binary: [...binaryOf.values()] };
  const forms = formsOf(target);
  for (const [k, spec] of targetSpecsOf(target).entries()) {
    if (spec.moments === undefined && spec.coefficients === undefined) continue;
    const place = forms[k]!.path.join(".");
    problems.push(
      ...problemsOfBuilding(where, () => {
        givenCoefficientsOf(spec, matrix, place);
        const hard = constraintsOf(spec, matrix, place).find((constraint) => constraint.hard);
        if (hard === undefined || method.name !== "f-dpg" || !fDivergences[method.divergence].infiniteWithoutMass) return;
        const wish = `${place}.moments.${hard.name} = ${hard.moment}`;
        const finite = Object.entries(fDivergences).flatMap(([name, row]) => (row.infiniteWithoutMass ? [] : [name]));
        const expected = `${finite.join(", ")} for f-dpg, because ${method.divergence} is infinite where the target has no mass (${wish})`;
        complain(["method", "divergence"], expected, method.divergence, "choose one of them, or use gdc++");
      }),
    );
  }
  return problems;
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
  } else problems.push(...problemsOf(result.error.issues, input, where, formOf));
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
    diagnosticsChecks(config, complain);
    methodChecks(config, complain);
    formChecks(config, complain);
    return targetProblems(config, where, complain);
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

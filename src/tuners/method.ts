/**
 * Every method by name: an objective for the one training graph, where its samples come from, and what is worked out of a batch before it is learnt
 * from. A method has no state; what it remembers from batch to batch is `Controls`, plain numbers that a checkpoint keeps.
 */

import { logMeanExp, mean, sum } from "../base/numeric.ts";
import type { Samples } from "../sampling/samples.ts";
import { hasMass } from "../targets/ebm.ts";
import {
  type BatchBaseline,
  batchBaseline,
  explainedVariance,
  generalizedAdvantages,
  groupAdvantage,
  standardize,
} from "./advantage.ts";
import { type GrpoOptions, grpoObjective, type PpoOptions, ppoObjective } from "./clipped.ts";
import type { DivergenceName } from "./f-divergence.ts";
import { type KlControl, nextKlCoefficient } from "./kl-coefficient.ts";
import { inputsOf, type PolicyGradientOptions, policyGradientObjective, rewardsAtProposal } from "./policy-gradient.ts";
import type { Objective } from "./training.ts";

/** Where a batch is drawn: from the policy as it is, or from a proposal that follows it. */
export type SamplesFrom = "policy" | "proposal";

interface Weighted {
  /** Upper bound of the log of each ratio that is taken, nats; absent: never clamped. */
  readonly clampLogWeight?: number | undefined;
}

/** none: 0. z: 1 in units of R = p/pi. prefix: what the tokens so far say of p/pi, as far as that has proved true (docs/math.md M50). */
export type TargetBaseline = "none" | "z" | "prefix";

/** What a user chooses: a name, and what that method asks for. */
export type MethodSpec =
  | { readonly name: "reinforce" | "reinforce-target"; readonly baseline: BatchBaseline }
  | ({ readonly name: "kl-control"; readonly baseline: BatchBaseline } & KlControl)
  | ({ readonly name: "rloo" } & KlControl)
  | ({
      readonly name: "grpo";
      readonly scaleByDeviation: boolean;
      /** What a token counts: 1/length of its sequence, 1/mean length of the batch, 1/longest length possible. */
      readonly lengthScale: "sequence" | "batch" | "constant";
    } & GrpoOptions &
      KlControl)
  | ({
      readonly name: "ppo";
      readonly discount: number;
      readonly gaeLambda: number;
      readonly whiten: boolean;
    } & PpoOptions &
      KlControl)
  | ({ readonly name: "dpg" | "gdc" | "gdc++"; readonly baseline: TargetBaseline } & Weighted)
  | ({
      readonly name: "f-dpg";
      readonly divergence: DivergenceName;
      readonly samplesFrom: SamplesFrom;
      readonly baseline: "none" | "running";
    } & Weighted);

export type MethodName = MethodSpec["name"];

/** What a step learns from: sequences and everything that is known of them. */
export interface ScoredSamples {
  readonly samples: Samples;
  /** log a(x) [B] nats. */
  readonly logBase: Float64Array;
  /** log a of each token [B, T], T = samples.maxTokens; for methods with `tokenLogBase`. */
  readonly tokenLogBase?: Float32Array;
  /** log F(x_<t), what each token's prefix promises (prefix-value.ts) [B, T] nats; for methods with `prefixValue`. */
  readonly logPrefixValues?: Float32Array;
  /** log P(x), unnormalised [B] nats; for methods with a target. */
  readonly logTarget?: Float64Array;
  /** log Z to weigh with, estimated without these samples; for methods with a target. */
  readonly logZ?: number;
  /** r(x) [B]; for methods with a reward. */
  readonly reward?: Float64Array;
}

/** What a method remembers. */
export interface Controls {
  /** beta, reward per nat. */
  readonly klCoefficient?: number;
  /** Running mean of (pi/q) R. */
  readonly baseline?: number;
  /** How far what prefixes promise is believed, 0 to 1. */
  readonly prefixTrust?: number;
}

/** A batch as the objective wants it, by the names of its inputs. */
export interface MethodInputs {
  /** [B] */
  readonly sequences: Readonly<Record<string, Float64Array>>;
  /** [B, T], T = samples.maxTokens. */
  readonly tokens: Readonly<Record<string, Float32Array>>;
  readonly numbers: Readonly<Record<string, number>>;
  /** The advantages, where the objective does not work them out itself: one number per thing that is weighted. */
  readonly advantages?: Float64Array;
  /** What is worth reporting of the batch beside what every method reports. */
  readonly measures?: Readonly<Record<string, number>>;
}

export interface Method {
  readonly samplesFrom: SamplesFrom;
  readonly needs: {
    readonly reward: boolean;
    readonly target: boolean;
    readonly tokenLogBase: boolean;
    readonly valueHead: boolean;
    readonly prefixValue: boolean;
  };
  readonly objective: Objective;
  /** Before the first step. @param base samples of the base, for methods that start from what to expect of it */
  begin(base: ScoredSamples | undefined): Controls;
  /** @param tokenValues V of each token [B, T] as the value head says it now, for methods with one */
  inputs(batch: ScoredSamples, controls: Controls, tokenValues: Float32Array | undefined): MethodInputs;
  /** After the batch has been learnt from. @param outputs of the objective, as they were on the first pass */
  observe(controls: Controls, batch: ScoredSamples, outputs: Readonly<Record<string, Float64Array>>): Controls;
}

const given = <T>(value: T | undefined, what: string): T => {
  if (value === undefined) throw new Error(`method: expected samples with ${what}`);
  return value;
};

/** KL(pi, a) of a batch of the policy, nats per sequence. */
const klOfBatch = ({ samples, logBase }: ScoredSamples): number =>
  mean(samples.logProbs.map((logProposal, b) => logProposal - logBase[b]!));

/** The unit of P(x) as a reward: its mean in the batch, so that rewards are about 1 whatever P's scale (docs/math.md M41). */
const unitOf = (logTarget: Float64Array): number => (hasMass(logTarget) ? logMeanExp(logTarget) : 0);

type Baseline = BatchBaseline | TargetBaseline | "running";

/** What share of the way a running baseline goes towards each new batch's mean. */
const runningStep = 0.1;

/** The same of the trust in what prefixes promise, which changes as the policy comes nearer to the target. */
const trustStep = 0.3;

/** The trust after a batch: some of the way to what would have been best for it. */
const nextTrust = (trust: number, gain: Float64Array, spread: Float64Array): number => {
  const total = sum(spread);
  if (!(total > 0)) return trust;
  return trust + trustStep * (Math.min(1, Math.max(0, sum(gain) / total)) - trust);
};

/** An estimate of log p(x_<t) before each token [B, T] nats: log F(x_<t) + log a(x_<t). */
const logPrefixTarget = ({ samples, tokenLogBase, logPrefixValues }: ScoredSamples): Float32Array => {
  const { count, maxTokens, lengths } = samples;
  const logBase = given(tokenLogBase, "log a of each token");
  const logValues = given(logPrefixValues, "what each token's prefix promises");
  const logTarget = new Float32Array(logValues.length);
  for (let b = 0; b < count; b++) {
    let logPrefix = 0;
    for (let at = b * maxTokens; at < b * maxTokens + lengths[b]!; at++) {
      logTarget[at] = logValues[at]! + logPrefix;
      logPrefix += logBase[at]!;
    }
  }
  return logTarget;
};

const policyGradient = (
  reward: Omit<PolicyGradientOptions, "baseline">,
  samplesFrom: SamplesFrom,
  baseline: Baseline,
  control?: KlControl,
): Method => {
  const ofPrefix = baseline === "prefix";
  const options: PolicyGradientOptions = {
    ...reward,
    baseline: baseline === "none" || ofPrefix ? baseline : "sequence",
  };
  const reads = Object.keys(inputsOf(options.reward));
  const scoresOf = (batch: ScoredSamples, controls: Controls): Record<string, Float64Array | number> => {
    const all: Readonly<Record<string, () => Float64Array | number>> = {
      logProposal: () => batch.samples.logProbs,
      logBase: () => batch.logBase,
      logTarget: () => given(batch.logTarget, "log P(x)"),
      reward: () => given(batch.reward, "a reward"),
      logZ: () => given(batch.logZ, "log Z"),
      logUnit: () => unitOf(given(batch.logTarget, "log P(x)")),
      klCoefficient: () => given(controls.klCoefficient, "a KL coefficient"),
    };
    return Object.fromEntries(reads.map((name) => [name, all[name]!()]));
  };
  const baselineOf = (
    scores: Record<string, Float64Array | number>,
    { baseline: running }: Controls,
    count: number,
  ): Float64Array => {
    if (baseline === "prefix") throw new Error("method: expected a baseline of sequences");
    if (baseline === "z") return new Float64Array(count).fill(1);
    if (baseline === "running") return new Float64Array(count).fill(given(running, "a running baseline"));
    return batchBaseline(baseline, rewardsAtProposal(options, scores));
  };
  const initial: Controls = {
    ...(control === undefined ? {} : { klCoefficient: control.klCoefficient }),
    ...(ofPrefix ? { prefixTrust: 1 } : {}),
  };
  return {
    samplesFrom,
    needs: {
      reward: reads.includes("reward"),
      target: reads.includes("logTarget"),
      tokenLogBase: ofPrefix,
      valueHead: false,
      prefixValue: ofPrefix,
    },
    objective: policyGradientObjective(options),
    begin: (base) =>
      baseline === "running"
        ? { ...initial, baseline: mean(rewardsAtProposal(options, scoresOf(given(base, "the base's own"), initial))) }
        : initial,
    inputs: (batch, controls) => {
      const scores = scoresOf(batch, controls);
      const isArray = ([, value]: readonly [string, Float64Array | number]): boolean => typeof value !== "number";
      const entries = Object.entries(scores);
      const trusted = ofPrefix ? { prefixTrust: given(controls.prefixTrust, "a trust in prefixes") } : {};
      return {
        sequences: {
          ...(Object.fromEntries(entries.filter(isArray)) as Record<string, Float64Array>),
          ...(options.baseline === "sequence" ? { baseline: baselineOf(scores, controls, batch.samples.count) } : {}),
        },
        tokens: ofPrefix ? { logPrefixTarget: logPrefixTarget(batch) } : {},
        numbers: { ...(Object.fromEntries(entries.filter((entry) => !isArray(entry))) as Record<string, number>), ...trusted },
        measures: { ...(controls.klCoefficient === undefined ? {} : { klCoefficient: controls.klCoefficient }), ...trusted },
      };
    },
    observe: (controls, batch, { weightedReward, prefixGain, prefixSpread }) => ({
      ...(control === undefined
        ? {}
        : {
            klCoefficient: nextKlCoefficient(
              control,
              given(controls.klCoefficient, "a KL coefficient"),
              klOfBatch(batch),
              batch.samples.count,
            ),
          }),
      ...(controls.baseline === undefined
        ? {}
        : { baseline: controls.baseline + runningStep * (mean(weightedReward!) - controls.baseline) }),
      ...(controls.prefixTrust === undefined ? {} : { prefixTrust: nextTrust(controls.prefixTrust, prefixGain!, prefixSpread!) }),
    }),
  };
};

/** Parts that both clipped methods share: KL control of a batch drawn from the policy. */
const clippedMethod = (
  control: KlControl,
  objective: Objective,
  valueHead: boolean,
  inputs: (batch: ScoredSamples, klCoefficient: number, tokenValues: Float32Array | undefined) => MethodInputs,
): Method => ({
  samplesFrom: "policy",
  needs: { reward: true, target: false, tokenLogBase: true, valueHead, prefixValue: false },
  objective,
  begin: () => ({ klCoefficient: control.klCoefficient }),
  inputs: (batch, controls, tokenValues) => {
    const klCoefficient = given(controls.klCoefficient, "a KL coefficient");
    const made = inputs(batch, klCoefficient, tokenValues);
    return {
      ...made,
      tokens: { ...made.tokens, tokenLogProposal: batch.samples.tokenLogProbs },
      measures: { ...made.measures, klCoefficient },
    };
  },
  observe: (controls, batch) => ({
    klCoefficient: nextKlCoefficient(control, controls.klCoefficient!, klOfBatch(batch), batch.samples.count),
  }),
});

const meanLength = ({ lengths }: Samples): number => mean(lengths);

type SpecOf<Name extends MethodName> = MethodSpec & { readonly name: Name };

const grpo = (spec: SpecOf<"grpo">): Method =>
  clippedMethod(spec, grpoObjective(spec), false, (batch, klCoefficient) => {
    const { samples } = batch;
    const weights: Readonly<Record<typeof spec.lengthScale, (length: number) => number>> = {
      sequence: (length) => 1 / length,
      batch: () => 1 / meanLength(samples),
      constant: () => 1 / samples.maxTokens,
    };
    return {
      sequences: {
        advantage: groupAdvantage(given(batch.reward, "a reward"), spec.scaleByDeviation),
        lengthWeight: Float64Array.from(samples.lengths, weights[spec.lengthScale]),
      },
      tokens: { tokenLogBase: given(batch.tokenLogBase, "log a of each token") },
      numbers: { klCoefficient },
    };
  });

/** r(x) at the last token, and -beta log(pi/a) at every one [T]. */
const tokenRewards = (batch: ScoredSamples, b: number, klCoefficient: number): Float64Array => {
  const { samples } = batch;
  const length = samples.lengths[b]!;
  const logBase = given(batch.tokenLogBase, "log a of each token");
  return Float64Array.from({ length }, (_, t) => {
    const at = b * samples.maxTokens + t;
    const reward = t === length - 1 ? given(batch.reward, "a reward")[b]! : 0;
    return reward - klCoefficient * (samples.tokenLogProbs[at]! - logBase[at]!);
  });
};

const ppo = (spec: SpecOf<"ppo">): Method =>
  clippedMethod(spec, ppoObjective(spec), true, (batch, klCoefficient, tokenValues) => {
    const { samples } = batch;
    const { count, maxTokens, lengths } = samples;
    const values = given(tokenValues, "values");
    const each = Array.from({ length: count }, (_, b) => ({
      at: b * maxTokens,
      values: values.subarray(b * maxTokens, b * maxTokens + lengths[b]!),
      ...generalizedAdvantages(
        tokenRewards(batch, b, klCoefficient),
        values.subarray(b * maxTokens, b * maxTokens + lengths[b]!),
        spec.discount,
        spec.gaeLambda,
      ),
    }));
    const flat = (pick: (one: (typeof each)[number]) => ArrayLike<number>): Float64Array =>
      Float64Array.from(each.flatMap((one) => Array.from(pick(one))));
    const spread = (list: Float64Array): Float32Array => {
      const laidOut = new Float32Array(count * maxTokens);
      let next = 0;
      for (const [b, { at }] of each.entries()) for (let t = 0; t < lengths[b]!; t++) laidOut[at + t] = list[next++]!;
      return laidOut;
    };
    const advantages = flat((one) => one.advantages);
    const returns = flat((one) => one.returns);
    return {
      sequences: { lengthWeight: new Float64Array(count).fill(1 / meanLength(samples)) },
      tokens: {
        tokenAdvantage: spread(spec.whiten ? standardize(advantages) : advantages),
        tokenReturn: spread(returns),
        tokenValue: values,
      },
      numbers: {},
      advantages,
      measures: {
        explainedVariance: explainedVariance(
          returns,
          flat((one) => one.values),
        ),
      },
    };
  });

const divergence = (
  name: DivergenceName,
  samplesFrom: SamplesFrom,
  baseline: TargetBaseline | "running",
  { clampLogWeight }: Weighted,
): Method => policyGradient({ reward: name, clampLogWeight }, samplesFrom, baseline);

/** A name without a row does not compile. */
const methods: { readonly [Name in MethodName]: (spec: SpecOf<Name>) => Method } = {
  reinforce: ({ baseline }) => policyGradient({ reward: "reward" }, "policy", baseline),
  "reinforce-target": ({ baseline }) => policyGradient({ reward: "target-mass" }, "policy", baseline),
  "kl-control": (spec) => policyGradient({ reward: "reward-less-kl" }, "policy", spec.baseline, spec),
  rloo: (spec) => policyGradient({ reward: "reward-less-kl" }, "policy", "leave-one-out", spec),
  grpo,
  ppo,
  dpg: (spec) => divergence("kl", "policy", spec.baseline, spec),
  gdc: (spec) => divergence("kl", "proposal", spec.baseline, spec),
  "gdc++": (spec) => divergence("kl", "proposal", spec.baseline, spec),
  "f-dpg": (spec) => divergence(spec.divergence, spec.samplesFrom, spec.baseline, spec),
};

/** Every method there is. */
export const methodNames = Object.keys(methods) as MethodName[];

/** The method that a spec describes. */
export const methodOf = (spec: MethodSpec): Method => (methods[spec.name] as (spec: MethodSpec) => Method)(spec);

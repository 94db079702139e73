/**
 * The one estimator of every method without a critic (arXiv 2206.00761, table 1; docs/math.md M40):
 *
 *   ascend  E_{x~q}[ A(x) grad log pi(x) ],      A = (pi/q) (R - B)
 *
 * A method is its reward R, which may depend on the policy, and its baseline B. Sampling from the policy itself is the case q = pi. The GDC family has
 * R = p/pi and B = 0, 1, so that A = p/q - pi/q, the papers' update over Z, or that of each token's prefix (M50). No gradient flows through A.
 */

import { tensor } from "../base/tensor.ts";
import { evaluate } from "../engine/evaluate.ts";
import type { TypeOf, Value } from "../engine/graph.ts";
import {
  cast,
  constant,
  cumulativeSum,
  div,
  exp,
  input,
  less,
  maximum,
  minimum,
  mul,
  neg,
  reshape,
  stopGradient,
  sub,
  sum,
} from "../engine/ops/index.ts";
import { type DivergenceName, fDivergences } from "./f-divergence.ts";
import type { Objective } from "./training.ts";

/** What a reward may be made of, as graph values: [B] nats unless said otherwise. */
export interface ScoreValues {
  /** log P(x), unnormalised; -Infinity where P(x) = 0. */
  readonly logTarget: Value;
  /** log a(x). */
  readonly logBase: Value;
  /** log q(x), the distribution x was drawn from. */
  readonly logProposal: Value;
  /** log pi(x); no gradient flows through it. */
  readonly logPolicy: Value;
  /** r(x) [B]. */
  readonly reward: Value;
  /** log of the partition function of P, nats. */
  readonly logZ: Value;
  /** log of the unit that P(x) is counted in where it is a reward, nats. */
  readonly logUnit: Value;
  /** beta, reward per nat. */
  readonly klCoefficient: Value;
}

/** A reward R(x) of the estimator, as what a sample of q gets: (pi/q) R. */
export interface PseudoReward {
  /** Which of the scores it reads, beside log q. */
  readonly reads: readonly Exclude<keyof ScoreValues, "logProposal" | "logPolicy">[];
  /** `ratio` takes log-ratios to ratios, and clamps them where the method wants that. */
  readonly weighted: (scores: ScoreValues, ratio: (logRatio: Value) => Value) => Value;
}

const policyOverProposal = ({ logPolicy, logProposal }: ScoreValues, ratio: (logRatio: Value) => Value): Value =>
  ratio(sub(logPolicy, logProposal));

const divergenceReward = (name: DivergenceName): PseudoReward => ({
  reads: ["logTarget", "logZ"],
  weighted: (scores, ratio) => {
    const logNormalized = sub(scores.logTarget, scores.logZ);
    // A ratio that a row does not read is not taken, and so not counted among the clamped ones.
    return fDivergences[name].weightedReward({
      get targetOverProposal() {
        return ratio(sub(logNormalized, scores.logProposal));
      },
      get policyOverProposal() {
        return policyOverProposal(scores, ratio);
      },
      get targetOverPolicy() {
        return ratio(sub(logNormalized, scores.logPolicy));
      },
      get policyOverTarget() {
        return ratio(sub(scores.logPolicy, logNormalized));
      },
      logTargetOverPolicy: sub(logNormalized, scores.logPolicy),
    });
  },
});

/** One row per reward. */
export const pseudoRewards = {
  /** r(x): REINFORCE. */
  reward: { reads: ["reward"], weighted: (scores, ratio) => mul(policyOverProposal(scores, ratio), scores.reward) },
  /** r(x) - beta log(pi/a): KL control (arXiv 1909.08593). */
  "reward-less-kl": {
    reads: ["reward", "logBase", "klCoefficient"],
    weighted: (scores, ratio) => {
      const penalty = mul(scores.klCoefficient, sub(scores.logPolicy, scores.logBase));
      return mul(policyOverProposal(scores, ratio), sub(scores.reward, penalty));
    },
  },
  /** P(x) in units of exp(logUnit): REINFORCE with the target as reward (arXiv 2012.11635). */
  "target-mass": {
    reads: ["logTarget", "logUnit"],
    weighted: (scores, ratio) => mul(policyOverProposal(scores, ratio), exp(sub(scores.logTarget, scores.logUnit))),
  },
  kl: divergenceReward("kl"),
  "reverse-kl": divergenceReward("reverse-kl"),
  tv: divergenceReward("tv"),
  js: divergenceReward("js"),
  "chi-squared": divergenceReward("chi-squared"),
  "reverse-chi-squared": divergenceReward("reverse-chi-squared"),
} as const satisfies Record<string, PseudoReward>;

export type PseudoRewardName = keyof typeof pseudoRewards;

const sequences: TypeOf = { dtype: "f32", shape: ["B"] };
const tokens: TypeOf = { dtype: "f32", shape: ["B", "T"] };
const number: TypeOf = { dtype: "f32", shape: [] };
const typeOf: Readonly<Record<keyof ScoreValues, TypeOf>> = {
  logTarget: sequences,
  logBase: sequences,
  logProposal: sequences,
  logPolicy: sequences,
  reward: sequences,
  logZ: number,
  logUnit: number,
  klCoefficient: number,
};

/** The inputs of a reward, by name. */
export const inputsOf = (name: PseudoRewardName): Readonly<Record<string, TypeOf>> =>
  Object.fromEntries([...pseudoRewards[name].reads, "logProposal" as const].map((read) => [read, typeOf[read]]));

export interface PolicyGradientOptions {
  readonly reward: PseudoRewardName;
  /** Upper bound of the log of each ratio that is taken (p/q, pi/q, p/pi, pi/p), nats; absent: never clamped. */
  readonly clampLogWeight?: number | undefined;
  /** What B belongs to: a sequence (the default), or each of its prefixes (M50); or there is none, and pi/q is not even worked out for it. */
  readonly baseline?: "none" | "sequence" | "prefix";
}

const ratioOf =
  ({ clampLogWeight }: PolicyGradientOptions) =>
  (logRatio: Value): Value =>
    exp(clampLogWeight === undefined ? logRatio : minimum(logRatio, clampLogWeight));

/** (pi/q) R of each sequence, from the scores [B]. */
export const weightedReward = (options: PolicyGradientOptions, scores: ScoreValues): Value =>
  pseudoRewards[options.reward].weighted(scores, ratioOf(options));

/**
 * R of each sample where the policy is the proposal, so that pi/q = 1: for baselines of a batch, and for what to expect before training. [B]
 * @param scores by the names that the reward reads, and `logProposal`; arrays [B], or numbers for the whole batch
 */
export const rewardsAtProposal = (
  options: PolicyGradientOptions,
  scores: Readonly<Record<string, Float64Array | number>>,
): Float64Array => {
  const inputs = Object.fromEntries(
    Object.entries(inputsOf(options.reward)).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
  );
  const values = { ...inputs, logPolicy: inputs["logProposal"]! } as unknown as ScoreValues;
  const given = Object.keys(inputs).map((name) => {
    const value = scores[name]!;
    return [name, typeof value === "number" ? tensor("f64", [], [value]) : tensor("f64", [value.length], value)] as const;
  });
  return evaluate({ inputs, outputs: { weighted: weightedReward(options, values) } }, Object.fromEntries(given))["weighted"]!
    .data as Float64Array;
};

/** The baseline of each prefix, B_t = 1 + trust (V_t - 1), where V_t = F(x_<t) a(x_<t)/pi(x_<t) estimates p(x_<t)/pi(x_<t); (M50). */
interface PrefixBaseline {
  /** V_t - 1, 0 where the mask is 0. */
  readonly excess: Value;
  readonly trust: Value;
}

/** A_t = weighted - r B_t of each token [B, T], and what says how far V is to be trusted: the best `trust` is the sum of `gain` [B] over that of `spread` [B]. */
const prefixAdvantage = (weighted: Value, ratio: Value, mask: Value, { excess, trust }: PrefixBaseline) => {
  const perToken = (value: Value): Value => reshape(value, [value.shape[0]!, 1]);
  const beyondOne = sub(weighted, ratio);
  return {
    tokenAdvantage: mul(sub(perToken(beyondOne), mul(perToken(mul(ratio, trust)), excess)), mask),
    gain: mul(mul(beyondOne, ratio), sum(excess, 1)),
    spread: mul(mul(ratio, ratio), sum(mul(excess, excess), 1)),
  };
};

/**
 * loss = -scale sum_b A_b log pi(x_b): its gradient is minus the ascent direction. `scale` is 1 over the samples of the whole batch, `baseline` B [B] where there is one.
 * With a baseline of prefixes it is -scale sum_bt A_bt log pi(x_t | x_<t), from `logPrefixTarget`, an estimate of
 * log p(x_<t) without these samples [B, T] nats, and `prefixTrust`.
 * Outputs [B]: `logPolicy`, `advantage` A (the mean over its tokens where they have their own), `weightedReward` (pi/q) R, and `clamped`, 1 where a
 * ratio was cut; with a baseline of prefixes also `prefixGain` and `prefixSpread`.
 */
export const policyGradientObjective = (options: PolicyGradientOptions): Objective => {
  const { baseline = "sequence", clampLogWeight: limit } = options;
  const ofBaseline: Readonly<Record<typeof baseline, Readonly<Record<string, TypeOf>>>> = {
    none: {},
    sequence: { baseline: sequences },
    prefix: { logPrefixTarget: tokens, prefixTrust: number },
  };
  return {
    inputs: { ...inputsOf(options.reward), ...ofBaseline[baseline], scale: number },
    build: ({ logPolicy, tokenLogPolicy, mask }, inputs) => {
      const scores = { ...inputs, logPolicy: stopGradient(logPolicy) } as unknown as ScoreValues;
      const taken: Value[] = [];
      const ratio = (logRatio: Value): Value => {
        taken.push(logRatio);
        return ratioOf(options)(logRatio);
      };
      const weighted = pseudoRewards[options.reward].weighted(scores, ratio);
      const scaled = (ascended: Value): Value => neg(mul(ascended, inputs["scale"]!));
      const outputs = (advantage: Value) => {
        const largest = taken.reduce((a, b) => maximum(a, b));
        return {
          logPolicy,
          advantage,
          weightedReward: weighted,
          ...(limit === undefined ? {} : { clamped: cast(less(constant(limit), largest), "f32") }),
        };
      };
      if (baseline === "prefix") {
        const logTokens = stopGradient(tokenLogPolicy);
        const logPolicyBefore = sub(cumulativeSum(logTokens), logTokens);
        // Masked before it is a ratio: beyond a text's end it would be 1/pi(x), which may be too large for a number.
        const excess = sub(exp(mul(sub(inputs["logPrefixTarget"]!, logPolicyBefore), mask)), 1);
        const found = prefixAdvantage(weighted, policyOverProposal(scores, ratio), mask, {
          excess,
          trust: inputs["prefixTrust"]!,
        });
        const tokenAdvantage = stopGradient(found.tokenAdvantage);
        return {
          loss: scaled(sum(mul(tokenAdvantage, tokenLogPolicy))),
          outputs: {
            ...outputs(div(sum(tokenAdvantage, 1), sum(mask, 1))),
            prefixGain: found.gain,
            prefixSpread: found.spread,
          },
        };
      }
      const advantage = stopGradient(
        baseline === "none" ? weighted : sub(weighted, mul(policyOverProposal(scores, ratio), inputs["baseline"]!)),
      );
      return { loss: scaled(sum(mul(advantage, logPolicy))), outputs: outputs(advantage) };
    },
  };
};

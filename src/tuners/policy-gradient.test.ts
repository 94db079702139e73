/** The estimator on single numbers; that its mean is the gradient is in tests/exact/policy-gradient.test.ts. */

import { describe, expect, test } from "vitest";
import { sum } from "../base/numeric.ts";
import { tensor } from "../base/tensor.ts";
import { gradients } from "../engine/autodiff.ts";
import { evaluate } from "../engine/evaluate.ts";
import { input } from "../engine/ops/index.ts";
import {
  inputsOf,
  type PolicyGradientOptions,
  type PseudoRewardName,
  policyGradientObjective,
  rewardsAtProposal,
} from "./policy-gradient.ts";

const never = Number.NEGATIVE_INFINITY;
/** Three samples; the last has no mass under the target. */
const scores = {
  logTarget: Float64Array.of(-1.2, -0.3, never),
  logBase: Float64Array.of(-2, -1.5, -0.7),
  logProposal: Float64Array.of(-1, -2, -1.4),
  reward: Float64Array.of(0.5, -1, 2),
};
const logPolicy = Float64Array.of(-1.7, -0.4, -1.1);
const numbers = { logZ: 0.6, logUnit: -0.2, klCoefficient: 0.3 };
const { logTarget, logBase, logProposal, reward } = scores;
const each = (f: (b: number) => number): number[] => [0, 1, 2].map(f);
const p = each((b) => Math.exp(logTarget[b]! - numbers.logZ));

/** R as a function of pi(x), by hand. */
const rewards: Readonly<Record<PseudoRewardName, (b: number, pi: number) => number>> = {
  reward: (b) => reward[b]!,
  "reward-less-kl": (b, pi) => reward[b]! - 0.3 * (Math.log(pi) - logBase[b]!),
  "target-mass": (b) => Math.exp(logTarget[b]!) / Math.exp(-0.2),
  kl: (b, pi) => p[b]! / pi,
  "reverse-kl": (b, pi) => Math.log(p[b]! / pi) - 1,
  tv: (b, pi) => Math.sign(p[b]! - pi) / 2,
  js: (b, pi) => Math.log((1 + p[b]! / pi) / 2) / 2,
  "chi-squared": (b, pi) => (p[b]! / pi) ** 2 - 1,
  "reverse-chi-squared": (b, pi) => 2 * (1 - pi / p[b]!),
};
const names = Object.keys(rewards) as PseudoRewardName[];

const expectClose = (found: ArrayLike<number>, wanted: readonly number[]) => {
  expect(found.length).toBe(wanted.length);
  // A few operations on numbers below 10.
  for (const [b, value] of wanted.entries()) {
    if (Number.isFinite(value)) expect(found[b]).toBeCloseTo(value, 13);
    else expect(found[b]).toBe(value);
  }
};

/** Everything that a method may give, cut to what the reward reads. */
const given = (name: PseudoRewardName): Record<string, Float64Array | number> =>
  Object.fromEntries(Object.entries({ ...scores, ...numbers }).filter(([key]) => key in inputsOf(name)));

/** What the objective says of the three samples at `logPolicy`: its outputs, its loss, and the gradient of that with respect to log pi. */
const run = (options: PolicyGradientOptions, baseline: number[], scale = 1) => {
  const objective = policyGradientObjective(options);
  const inputs = Object.fromEntries(
    Object.entries(objective.inputs).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
  );
  const policy = input("policy", "f32", ["B"]);
  const { loss, outputs } = objective.build({ logPolicy: policy, tokenLogPolicy: policy, mask: policy }, inputs);
  const values = { ...given(options.reward), policy: logPolicy, baseline: Float64Array.from(baseline), scale };
  const tensors = Object.entries(values).map(([name, value]) =>
    typeof value === "number"
      ? ([name, tensor("f64", [], [value])] as const)
      : ([name, tensor("f64", [value.length], value)] as const),
  );
  const graph = { inputs: { ...inputs, policy }, outputs: { ...outputs, loss, slope: gradients(loss, [policy])[0]! } };
  return Object.fromEntries(
    Object.entries(evaluate(graph, Object.fromEntries(tensors))).map(([name, { data }]) => [name, [...data]]),
  );
};

const ratio = each((b) => Math.exp(logPolicy[b]! - logProposal[b]!));

describe.each(names)("%s", (name) => {
  test("R of samples of the policy itself", () =>
    expectClose(
      rewardsAtProposal({ reward: name }, given(name)),
      each((b) => rewards[name](b, Math.exp(logProposal[b]!))),
    ));
  test("A = (pi/q)(R - B), loss = -scale sum A log pi, and no gradient but A", () => {
    const baseline = [0.4, -1, 0.25];
    const weighted = each((b) => ratio[b]! * rewards[name](b, Math.exp(logPolicy[b]!)));
    const advantage = weighted.map((value, b) => value - ratio[b]! * baseline[b]!);
    const found = run({ reward: name }, baseline, 0.5);
    expectClose(found["weightedReward"]!, weighted);
    expectClose(found["advantage"]!, advantage);
    expectClose(found["loss"]!, [-0.5 * sum(advantage.map((value, b) => value * logPolicy[b]!))]);
    expectClose(
      found["slope"]!,
      advantage.map((value) => -0.5 * value),
    );
    expect(found["logPolicy"]).toEqual([...logPolicy]);
    expect(found).not.toHaveProperty("clamped");
  });
});

test.each<[PseudoRewardName, readonly string[]]>([
  ["reward", ["reward"]],
  ["reward-less-kl", ["reward", "logBase", "klCoefficient"]],
  ["target-mass", ["logTarget", "logUnit"]],
  ...names
    .filter((name) => !["reward", "reward-less-kl", "target-mass"].includes(name))
    .map((name): [PseudoRewardName, readonly string[]] => [name, ["logTarget", "logZ"]]),
])("%s asks for %j and log q, sequences as [B], the rest as one number", (name, wanted) => {
  const inputs = inputsOf(name);
  expect(Object.keys(inputs).sort()).toEqual([...wanted, "logProposal"].sort());
  const perSequence = ["reward", "logBase", "logTarget", "logProposal"];
  for (const [key, { dtype, shape }] of Object.entries(inputs)) {
    expect([key, dtype, shape]).toEqual([key, "f32", perSequence.includes(key) ? ["B"] : []]);
  }
  expect(Object.keys(policyGradientObjective({ reward: name }).inputs).sort()).toEqual(
    [...Object.keys(inputs), "baseline", "scale"].sort(),
  );
});

describe("clamping", () => {
  // p/q: 0.449, 3.004, 0. pi/q: 0.497, 4.953, 1.350.
  const weight = each((b) => p[b]! / Math.exp(logProposal[b]!));

  test("bounds p/q and pi/q from above, and says where it did", () => {
    for (const limit of [-2, 0.2, 1.2, 1.5, 2]) {
      const cut = (value: number) => Math.min(value, Math.exp(limit));
      const { advantage, clamped } = run({ reward: "kl", clampLogWeight: limit }, [1, 1, 1]);
      expectClose(
        advantage!,
        each((b) => cut(weight[b]!) - cut(ratio[b]!)),
      );
      expect(clamped).toEqual(each((b) => Number(Math.log(weight[b]!) > limit || Math.log(ratio[b]!) > limit)));
    }
    expect(run({ reward: "kl", clampLogWeight: 2 }, [1, 1, 1])["clamped"]).toEqual([0, 0, 0]);
    expect(run({ reward: "kl", clampLogWeight: 0.2 }, [1, 1, 1])["clamped"]).toEqual([0, 1, 1]);
  });
  test("a ratio at the bound is not cut", () => {
    const limit = logPolicy[1]! - logProposal[1]!;
    expect(run({ reward: "kl", clampLogWeight: limit }, [1, 1, 1])["clamped"]).toEqual([0, 0, 0]);
  });
  test("of a method without a target is of pi/q alone", () => {
    const found = run({ reward: "reward", clampLogWeight: 1 }, [0, 0, 0]);
    expectClose(found["advantage"]!, [ratio[0]! * 0.5, -Math.E, ratio[2]! * 2]);
    expect(found["clamped"]).toEqual([0, 1, 0]);
  });
  test("bounds what is expected of the base as well", () => {
    const clamped = rewardsAtProposal({ reward: "kl", clampLogWeight: 0.5 }, given("kl"));
    expectClose(clamped, [weight[0]!, Math.exp(0.5), 0]);
  });
});

describe("a baseline of prefixes", () => {
  /** Two texts, of two tokens and of three; the first is so improbable that 1/pi(x), which stands beyond its end, is no number. */
  const mask = [1, 1, 0, 1, 1, 1];
  const tokenLogPolicy = [-1, -900, 0, -0.5, -2, -1];
  const logPrefixTarget = [0, -1.2, 0, 0.3, -0.4, -2.9];
  const [weight, r] = [[0.7, 2] as const, [1.1, 0.8] as const];
  const build = (trust: number) => {
    const objective = policyGradientObjective({ reward: "kl", baseline: "prefix" });
    const inputs = Object.fromEntries(
      Object.entries(objective.inputs).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
    );
    const [tokens, logPolicy, places] = [
      input("tokens", "f32", ["B", "T"]),
      input("policy", "f32", ["B"]),
      input("mask", "f32", ["B", "T"]),
    ];
    const { loss, outputs } = objective.build({ logPolicy, tokenLogPolicy: tokens, mask: places }, inputs);
    const slope = gradients(loss, [tokens])[0]!;
    const logPi = [-901, -3.5];
    const logQ = logPi.map((value, b) => value - Math.log(r[b]!));
    const perToken = (values: readonly number[]) => tensor("f64", [2, 3], Float64Array.from(values));
    const perText = (values: readonly number[]) => tensor("f64", [2], Float64Array.from(values));
    return evaluate(
      { inputs: { ...inputs, tokens, policy: logPolicy, mask: places }, outputs: { ...outputs, loss, slope } },
      {
        tokens: perToken(tokenLogPolicy),
        mask: perToken(mask),
        policy: perText(logPi),
        logProposal: perText(logQ),
        logTarget: perText(logQ.map((value, b) => value + Math.log(weight[b]!) + 0.6)),
        logZ: tensor("f64", [], [0.6]),
        logPrefixTarget: perToken(logPrefixTarget),
        prefixTrust: tensor("f64", [], [trust]),
        scale: tensor("f64", [], [0.5]),
      },
    );
  };
  // V - 1 by hand: log p of the prefix less the sum of log pi before it; 0 beyond the end.
  const excess = [0, Math.exp(-1.2 + 1) - 1, 0, Math.exp(0.3) - 1, Math.exp(-0.4 + 0.5) - 1, Math.exp(-2.9 + 2.5) - 1];

  test.each([0, 0.4, 1])(
    "weighs each token by weighted - r (1 + trust (V - 1)), and nothing beyond a text's end: trust %d",
    (trust) => {
      const found = build(trust);
      const wanted = excess.map((value, i) => {
        const b = Math.floor(i / 3);
        return mask[i]! * (weight[b]! - r[b]! * (1 + trust * value));
      });
      // log q is a number near 900, which has 1e-13 to spare.
      const close = (list: ArrayLike<number>, other: readonly number[]) => {
        for (const [i, value] of other.entries()) expect(list[i]).toBeCloseTo(value, 11);
      };
      close(
        found["slope"]!.data,
        wanted.map((value) => -0.5 * value),
      );
      close(found["advantage"]!.data, [(wanted[0]! + wanted[1]!) / 2, (wanted[3]! + wanted[4]! + wanted[5]!) / 3]);
      close(
        found["prefixGain"]!.data,
        [0, 1].map((b) => (weight[b]! - r[b]!) * r[b]! * sum(excess.slice(3 * b, 3 * b + 3))),
      );
      close(
        found["prefixSpread"]!.data,
        [0, 1].map((b) => r[b]! ** 2 * sum(excess.slice(3 * b, 3 * b + 3).map((value) => value * value))),
      );
    },
  );
});

/**
 * The clipped surrogate value by value (docs/math.md M43, M45). Its gradients are those of a whole loss in tests/exact/ppo.test.ts and grpo.test.ts.
 * Tolerance 1e-12: float64 through an exp and a log.
 */

import { describe, expect, test } from "vitest";
import { tensor } from "../base/tensor.ts";
import { gradients } from "../engine/autodiff.ts";
import { evaluate } from "../engine/evaluate.ts";
import type { Value } from "../engine/graph.ts";
import { input, sum } from "../engine/ops/index.ts";
import { clippedSurrogate, grpoObjective, ppoObjective } from "./clipped.ts";
import type { Objective } from "./training.ts";

const f64 = (shape: readonly number[], values: ArrayLike<number>) => tensor("f64", shape, Float64Array.from(values));
const close = (found: ArrayLike<number>, wanted: ArrayLike<number>) => {
  expect(found.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) expect(found[i]).toBeCloseTo(wanted[i]!, 12);
};

describe("surrogate", () => {
  const run = (ratios: readonly number[], advantage: number, clip: number) => {
    const shape = [1, ratios.length];
    const policy = input("policy", "f32", shape);
    const proposal = input("proposal", "f32", shape);
    const advantages = input("advantage", "f32", shape);
    const { surrogate, outside } = clippedSurrogate(policy, proposal, advantages, clip);
    const [gradient] = gradients(sum(surrogate), [policy]);
    return evaluate(
      { inputs: { policy, proposal, advantage: advantages }, outputs: { surrogate, outside, gradient: gradient! } },
      {
        policy: f64(
          shape,
          ratios.map((ratio) => Math.log(ratio) - 2),
        ),
        proposal: f64(shape, new Float64Array(ratios.length).fill(-2)),
        advantage: f64(shape, new Float64Array(ratios.length).fill(advantage)),
      },
    );
  };
  const ratios = [0.5, 0.79, 0.81, 1, 1.19, 1.21, 3];

  test("a good token gains no more than the clip allows, and loses in full", () => {
    const { surrogate, gradient, outside } = run(ratios, 2, 0.2);
    close(surrogate!.data, [1, 1.58, 1.62, 2, 2.38, 2.4, 2.4]);
    // d/d log pi of rho A is rho A, and 0 where the clip decides.
    close(gradient!.data, [1, 1.58, 1.62, 2, 2.38, 0, 0]);
    expect([...outside!.data]).toEqual([1, 1, 0, 0, 0, 1, 1]);
  });
  test("a bad token loses in full where it has become likelier, and gains no more than the clip allows", () => {
    const { surrogate, gradient, outside } = run(ratios, -2, 0.2);
    close(surrogate!.data, [-1.6, -1.6, -1.62, -2, -2.38, -2.42, -6]);
    close(gradient!.data, [0, 0, -1.62, -2, -2.38, -2.42, -6]);
    expect([...outside!.data]).toEqual([1, 1, 0, 0, 0, 1, 1]);
  });
  test("a token on the edge is not outside", () => {
    expect([...run([1], 1, 0)["outside"]!.data]).toEqual([0]);
    expect([...run([1.0001, 0.9999], 1, 0)["outside"]!.data]).toEqual([1, 1]);
  });
});

/** Two sequences, the second a token shorter; what stands at its padding must not matter. */
const mask = [1, 1, 1, 0];
const ratios = [1.5, 0.9, 0.7, 9];
const lengthWeight = [0.5, 2];
const scale = 0.25;
const perToken = ["B", "T"];

const build = (objective: Objective, values: Readonly<Record<string, ArrayLike<number>>>, withValues: boolean) => {
  const shapes: Readonly<Record<string, readonly string[]>> = { tokenLogPolicy: perToken, logPolicy: ["B"], mask: perToken };
  const policy = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, input(name, "f32", shape)])) as {
    tokenLogPolicy: Value;
    logPolicy: Value;
    mask: Value;
  };
  const tokenValues = input("tokenValues", "f32", perToken);
  const extra = Object.fromEntries(
    Object.entries(objective.inputs).map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)]),
  );
  const { loss, outputs } = objective.build(withValues ? { ...policy, tokenValues } : policy, extra);
  const given = { tokenLogPolicy: ratios.map((ratio, i) => mask[i]! * Math.log(ratio)), logPolicy: [-1, -2], mask, ...values };
  const inputs: Record<string, Value> = { ...policy, ...(withValues ? { tokenValues } : {}), ...extra };
  const shapeOf = (length: number) => (length === 4 ? [2, 2] : length === 2 ? [2] : []);
  const found = evaluate(
    { inputs, outputs: { ...outputs, loss } },
    Object.fromEntries(Object.entries(given).map(([name, list]) => [name, f64(shapeOf(list.length), list)])),
  );
  return Object.fromEntries(Object.entries(found).map(([name, { data }]) => [name, Array.from(data)]));
};

describe("PPO's objective", () => {
  const objective = ppoObjective({ clip: 0.2, valueClip: 0.5, valueCoefficient: 0.1 });
  const values = {
    tokenLogProposal: [0, 0, 0, 0],
    lengthWeight,
    scale: [scale],
    tokenAdvantage: [1, -2, -3, 5],
    tokenReturn: [1, 0, 0, 7],
    // Within the clip; beyond it towards the return, so that the clipped error counts; beyond it away from the return, so that the free one does.
    tokenValues: [0.4, 1, -3, 11],
    tokenValue: [0.1, 2, -1, 1],
  };
  test("weighs tokens by mask, sequence and scale, apart for policy and values", () => {
    const found = build(objective, values, true);
    // Surrogates: 1.2 (clipped), -1.8, and 0.7 of -3 clipped to 0.8.
    const policyLoss = -scale * (0.5 * (1.2 - 1.8) + 2 * -2.4);
    const valueLoss = (scale * (0.5 * (0.6 ** 2 + 1.5 ** 2) + 2 * 3 ** 2)) / 2;
    close(found["policyLoss"]!, [policyLoss]);
    close(found["valueLoss"]!, [valueLoss]);
    close(found["loss"]!, [policyLoss + 0.1 * valueLoss]);
    // 1.5 and 0.7 lie outside, 0.9 does not.
    close(found["clipFraction"]!, [scale * (0.5 * 1 + 2 * 1)]);
    expect(found["logPolicy"]).toEqual([-1, -2]);
    expect(Object.keys(found).sort()).toEqual(["clipFraction", "logPolicy", "loss", "policyLoss", "valueLoss"]);
  });
  test("clips values on both sides of what they were", () => {
    const error = (now: number, then: number, wanted: number) =>
      build(
        objective,
        {
          ...values,
          lengthWeight: [1, 0],
          scale: [2],
          tokenValues: [now, 0, 0, 0],
          tokenValue: [then, 0, 0, 0],
          tokenReturn: [wanted, 0, 0, 0],
        },
        true,
      )["valueLoss"]!;
    // Moved up to its return at once: counts as if it had come to 1.5, or down to 0.5.
    close(error(3, 1, 3), [1.5 ** 2]);
    close(error(-1, 1, -1), [1.5 ** 2]);
    close(error(1.4, 1, 3), [1.6 ** 2]);
    close(error(0.6, 1, -1), [1.6 ** 2]);
  });
  test("asks for a model with a value head", () => {
    expect(() => build(objective, values, false)).toThrow("ppoObjective: expected a model with a value head");
  });
  test("its inputs", () => {
    expect(Object.fromEntries(Object.entries(objective.inputs).map(([name, { shape }]) => [name, shape]))).toEqual({
      tokenLogProposal: perToken,
      lengthWeight: ["B"],
      scale: [],
      tokenAdvantage: perToken,
      tokenReturn: perToken,
      tokenValue: perToken,
    });
    for (const { dtype } of Object.values(objective.inputs)) expect(dtype).toBe("f32");
  });
});

describe("GRPO's objective", () => {
  const objective = grpoObjective({ clip: 0.2 });
  const logBaseOverPolicy = [0.3, -0.2, 0.5];
  const values = {
    tokenLogProposal: [0, 0, 0, 0],
    tokenLogBase: [...logBaseOverPolicy.map((value, i) => value + Math.log(ratios[i]!)), 6],
    lengthWeight,
    scale: [scale],
    advantage: [1, -3],
    klCoefficient: [0.7],
  };
  test("weighs tokens by mask, sequence and scale, one advantage for all tokens of a sequence", () => {
    const found = build(objective, values, false);
    const [k1, k2, k3] = logBaseOverPolicy.map((value) => Math.exp(value) - value - 1) as [number, number, number];
    const penalty = scale * (0.5 * (k1 + k2) + 2 * k3);
    close(found["klPenalty"]!, [penalty]);
    // Surrogates: 1.5 clipped to 1.2, 0.9, and 0.7 of -3 clipped to 0.8.
    close(found["loss"]!, [-scale * (0.5 * (1.2 + 0.9) + 2 * -2.4) + 0.7 * penalty]);
    close(found["clipFraction"]!, [scale * (0.5 * 1 + 2 * 1)]);
    expect(found["advantage"]).toEqual([1, -3]);
    expect(found["logPolicy"]).toEqual([-1, -2]);
    expect(Object.keys(found).sort()).toEqual(["advantage", "clipFraction", "klPenalty", "logPolicy", "loss"]);
  });
  test("the penalty is never below 0, and is 0 where policy and base agree", () => {
    const penalty = (gap: number) =>
      build(objective, { ...values, tokenLogBase: ratios.map((ratio) => Math.log(ratio) + gap) }, false)["klPenalty"]![0]!;
    expect(penalty(0)).toBe(0);
    expect(penalty(0.1)).toBeGreaterThan(0);
    expect(penalty(-0.1)).toBeGreaterThan(0);
  });
  test("its inputs", () => {
    expect(Object.fromEntries(Object.entries(objective.inputs).map(([name, { shape }]) => [name, shape]))).toEqual({
      tokenLogProposal: perToken,
      lengthWeight: ["B"],
      scale: [],
      tokenLogBase: perToken,
      advantage: ["B"],
      klCoefficient: [],
    });
    for (const { dtype } of Object.values(objective.inputs)) expect(dtype).toBe("f32");
  });
});

/** Each row against its own f, at single points; what the rows do as updates is in tests/exact/f-dpg.test.ts. */

import { describe, expect, test } from "vitest";
import { numericGradient } from "../../tests/support/tabular-world.ts";
import { tensor } from "../base/tensor.ts";
import { evaluate } from "../engine/evaluate.ts";
import { exp, input, sub } from "../engine/ops/index.ts";
import { type DivergenceName, fDivergences } from "./f-divergence.ts";

/** f as docs/math.md (M42) has it. */
const generators: Readonly<Record<DivergenceName, (t: number) => number>> = {
  kl: (t) => -Math.log(t),
  "reverse-kl": (t) => t * Math.log(t),
  tv: (t) => Math.abs(t - 1) / 2,
  js: (t) => (t * Math.log((2 * t) / (1 + t)) + Math.log(2 / (1 + t))) / 2,
  "chi-squared": (t) => (1 - t) ** 2 / t,
  "reverse-chi-squared": (t) => (t - 1) ** 2,
};
const names = Object.keys(generators) as DivergenceName[];

/** (pi/q) R of samples with these log-probabilities. */
const weighted = (name: DivergenceName, logs: Readonly<Record<"target" | "policy" | "proposal", readonly number[]>>) => {
  const inputs = Object.fromEntries(Object.keys(logs).map((key) => [key, input(key, "f32", ["B"])]));
  const { target, policy, proposal } = inputs as Record<keyof typeof logs, ReturnType<typeof input>>;
  const reward = fDivergences[name].weightedReward({
    targetOverProposal: exp(sub(target, proposal)),
    policyOverProposal: exp(sub(policy, proposal)),
    targetOverPolicy: exp(sub(target, policy)),
    policyOverTarget: exp(sub(policy, target)),
    logTargetOverPolicy: sub(target, policy),
  });
  const given = Object.entries(logs).map(([key, list]) => [key, tensor("f64", [list.length], list)] as const);
  return [...evaluate({ inputs, outputs: { reward } }, Object.fromEntries(given))["reward"]!.data];
};

/** t f'(t), the slope of f(e^u) at u = log t. */
const slope = (f: (t: number) => number, t: number): number =>
  numericGradient((u) => f(Math.exp(u[0]!)), Float64Array.of(Math.log(t)))[0]!;

describe.each(names)("%s", (name) => {
  // pi/p from far below 1 to far above; 1 itself is TV's kink.
  test.each([0.01, 0.3, 0.9, 1.1, 2.5, 40])("R = -f'(pi/p) at pi/p = %d, times pi/q", (t) => {
    const [logTarget, logProposal] = [-3.1, -2.7];
    const [found] = weighted(name, {
      target: [logTarget],
      policy: [logTarget + Math.log(t)],
      proposal: [logProposal],
    });
    // (pi/q) R = (p/q) t R = -(p/q) t f'(t). The differences are right to 1e-13 of f, which is at most 1521 here.
    const { [name]: f } = generators;
    const wanted = -Math.exp(logTarget - logProposal) * slope(f, t);
    expect(Math.abs(found! - wanted)).toBeLessThan(1e-12 * (1 + Math.abs(f(t))));
  });
  test("weighs like its limit where the target has no mass: nothing that is finite is lost", () => {
    const found = weighted(name, { target: [Number.NEGATIVE_INFINITY], policy: [-1], proposal: [-2] })[0]!;
    const limits: Record<DivergenceName, number> = {
      kl: 0,
      "reverse-kl": Number.NEGATIVE_INFINITY,
      tv: -1 / 2,
      js: -Math.log(2) / 2,
      "chi-squared": -1,
      "reverse-chi-squared": Number.NEGATIVE_INFINITY,
    };
    // pi/q = e
    const wanted = limits[name] * Math.E;
    if (Number.isFinite(wanted)) expect(found).toBeCloseTo(wanted, 14);
    else expect(found).toBe(wanted);
    expect(fDivergences[name].infiniteWithoutMass).toBe(!Number.isFinite(wanted));
  });
});

describe("far from the target nothing overflows on the way", () => {
  // exp(800) is beyond float64, exp(-800) is 0 in it.
  test.each<[DivergenceName, number, number]>([
    ["kl", -1000, 0],
    ["reverse-kl", -800, -801],
    ["tv", -800, -1 / 2],
    ["tv", 800, 1 / 2],
    ["js", -800, -Math.log(2) / 2],
    // log(1 + e^800) = 800
    ["js", 800, (800 - Math.log(2)) / 2],
  ])("%s at log p/pi = %d", (name, logRatio, wanted) => {
    expect(weighted(name, { target: [logRatio - 5], policy: [-5], proposal: [-5] })[0]).toBeCloseTo(wanted, 12);
  });
});

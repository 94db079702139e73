import { expect, test } from "vitest";
import { type KlControl, nextKlCoefficient } from "./kl-coefficient.ts";

/** Ziegler et al.'s numbers: 6 nats, 10,000 texts. */
const adaptive: KlControl = { klCoefficient: 0.2, klControl: "adaptive", klTarget: 6, klHorizon: 10_000 };
const fixed: KlControl = { ...adaptive, klControl: "fixed" };

test("a fixed coefficient stays, whatever the batch says", () => {
  for (const kl of [0, 6, 1000, Number.NaN]) expect(nextKlCoefficient(fixed, 0.37, kl, 256)).toBe(0.37);
});

test.each([
  // KL, wanted factor for 500 texts in 10,000
  ["on target", 6, 1],
  ["10% above", 6.6, 1 + 0.1 / 20],
  ["10% below", 5.4, 1 - 0.1 / 20],
  ["20% above", 7.2, 1.01],
  ["far above: an error of 20%", 60, 1.01],
  ["20% below", 4.8, 0.99],
  ["far below: an error of -20%", 0, 0.99],
  ["below 0, as an estimate may come out", -3, 0.99],
])("%s", (_, kl, factor) => {
  // 15 digits: a product of three numbers.
  expect(nextKlCoefficient(adaptive, 0.5, kl, 500)).toBeCloseTo(0.5 * factor, 15);
});

test("moves in proportion to texts over horizon, and to where it was", () => {
  const change = (current: number, samples: number, klHorizon: number) =>
    nextKlCoefficient({ ...adaptive, klHorizon }, current, 6.6, samples) - current;
  expect(change(0.5, 200, 1000)).toBeCloseTo(2 * change(0.5, 100, 1000), 12);
  expect(change(0.5, 100, 2000)).toBeCloseTo(change(0.5, 100, 1000) / 2, 12);
  expect(change(1.5, 100, 1000)).toBeCloseTo(3 * change(0.5, 100, 1000), 12);
  expect(change(0.5, 100, 1000)).toBeCloseTo(0.005, 12);
});

test("starts from the coefficient that it is given, not from the first", () => {
  expect(nextKlCoefficient(adaptive, 3, 6, 100)).toBe(3);
});

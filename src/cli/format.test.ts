import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  formatBar,
  formatCount,
  formatDuration,
  formatEstimate,
  formatJourney,
  formatNumber,
  formatSparkline,
  formatTable,
  fractionTowards,
  printable,
  truncate,
  widthOf,
  wrap,
} from "./format.ts";

describe("numbers", () => {
  it.each([
    [0, "0"],
    [-0, "0"],
    [0.5, "0.5"],
    [0.50312, "0.5031"],
    [12.3456, "12.35"],
    [300, "300"],
    [1234.6, "1235"],
    [1.41e-5, "1.41e-5"],
    [2.5e7, "2.5e7"],
    [-0.25, "-0.25"],
    [0.001, "0.001"],
  ])("%d is %s", (value, text) => expect(formatNumber(value)).toBe(text));

  it.each([
    [0.50312, 0.0112, "0.503 ± 0.011"],
    [12.345, 1.26, "12.3 ± 1.3"],
    [1234.5, 120, "1235 ± 120"],
    [0.9, 0, "0.9"],
    [-0.0001, 0.02, "0.000 ± 0.020"],
    [0.5, 1e-9, "0.5000 ± <0.0001"],
    [1e-6, 2e-6, "0.0000 ± <0.0001"],
  ])("%d with %d is %s", (value, stdError, text) => expect(formatEstimate({ value, stdError })).toBe(text));

  it("keeps the value within half a unit of the last shown place", () => {
    fc.assert(
      fc.property(
        fc.double({ min: -100, max: 100, noNaN: true }),
        fc.double({ min: 1e-3, max: 10, noNaN: true }),
        (value, stdError) => {
          const [shown, error] = formatEstimate({ value, stdError }, "+-").split(" +- ");
          // Two significant digits of the error leave at most a twentieth of it in doubt.
          expect(Math.abs(Number(shown) - value)).toBeLessThanOrEqual(stdError * 0.051);
          expect(Math.abs(Number(error) - stdError)).toBeLessThanOrEqual(stdError * 0.051);
        },
      ),
    );
  });

  it.each([
    [0.42, "0.4 s"],
    [9.96, "10 s"],
    [12.3, "12 s"],
    [59.6, "1 min 00 s"],
    [185, "3 min 05 s"],
    [3599.7, "1 h 00 min"],
    [3720, "1 h 02 min"],
    [Number.NaN, "?"],
  ])("%d seconds are %s", (seconds, text) => expect(formatDuration(seconds)).toBe(text));

  it("counts in groups", () => expect(formatCount(8192)).toBe("8,192"));
});

describe("texts", () => {
  it("knows what takes no column and what takes two", () => {
    expect([widthOf("abc"), widthOf("KL(p,π)"), widthOf("e\u0301"), widthOf("猫"), widthOf("🐈")]).toEqual([3, 7, 1, 2, 2]);
  });

  it("never exceeds the width, in cuts or in wraps, and wraps lose nothing but spaces", () => {
    const words = fc.array(fc.string({ unit: fc.constantFrom("a", "é", "猫", "-", "x"), minLength: 1, maxLength: 30 }));
    fc.assert(
      fc.property(words, fc.integer({ min: 2, max: 20 }), (parts, width) => {
        const text = parts.join(" ");
        expect(widthOf(truncate(text, width))).toBeLessThanOrEqual(width);
        const lines = wrap(text, width);
        for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(width);
        expect(lines.join("").replaceAll(" ", "")).toBe(parts.join("").normalize("NFC"));
      }),
    );
  });

  it("never lets a model's text move the cursor", () => {
    expect(printable(" a\n\tb \u001b[2J\u0007\u202ec ")).toBe("a b \ufffd[2J\ufffd\ufffdc");
  });

  it("aligns columns, without trailing spaces", () => {
    expect(formatTable([["a", "1"], ["π", "22"], [], ["long", ""]], ["left", "right"])).toEqual([
      "a      1",
      "π     22",
      "",
      "long",
    ]);
  });
});

describe("bars", () => {
  it("draws eighths of a cell, or ASCII", () => {
    expect(formatBar(0.5, 9, true)).toBe("▏████▌    ▕");
    expect(formatBar(0.49, 9, true)).toBe("▏████▍    ▕");
    expect(formatBar(0.5, 10, false)).toBe("[#####-----]");
    expect([formatBar(7, 2, true), formatBar(-1, 2, true), formatBar(Number.NaN, 2, true)]).toEqual(["▏██▕", "▏  ▕", "▏  ▕"]);
  });

  it("measures the way to a goal, and counts going beyond it as distance", () => {
    expect(fractionTowards(0.1, 0.3, 0.5)).toBeCloseTo(0.5, 12); // float64 rounding only
    expect(fractionTowards(0.1, 0.7, 0.5)).toBeCloseTo(0.5, 12);
    expect([fractionTowards(0.1, 0.05, 0.5), fractionTowards(0.1, 0.5, 0.5), fractionTowards(0.5, 0.5, 0.5)]).toEqual([0, 1, 1]);
    expect(fractionTowards(0.5, 0.6, 0.5)).toBe(0);
  });

  it("shows a moment on its way", () => {
    expect(formatJourney(0.08, 0.29, 0.5, 9, true)).toBe("0.080 ▏████▌    ▕ 0.50 ");
  });

  it("scales a sparkline to what it shows", () => {
    expect(formatSparkline([9, 3, 2, 1, 0, Number.NaN], 4)).toBe("█▆▃▁");
    expect([formatSparkline([1], 4), formatSparkline([1, 1], 4)]).toEqual(["", "▁▁"]);
  });
});

/**
 * Numbers, durations, tables and bars as a reader of a terminal wants them. Pure functions of their arguments.
 */

import type { Estimate } from "../base/numeric.ts";

/** A number in about four significant digits: 0.5031, 12.34, 1.41e-5. */
export const formatNumber = (value: number): string => {
  if (!Number.isFinite(value) || value === 0) return String(value + 0);
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  if (size >= 1000) return value.toFixed(0);
  return value
    .toPrecision(4)
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");
};

/** No more than this many decimals are shown: what is smaller matters to no reader. */
const mostDecimals = 4;

/** "0.503 ± 0.011": the standard error in two significant digits, the value as far as it is known. `plusMinus` is "+-" without Unicode. */
export const formatEstimate = ({ value, stdError }: Pick<Estimate, "value" | "stdError">, plusMinus = "±"): string => {
  if (!Number.isFinite(stdError) || stdError <= 0 || !Number.isFinite(value)) return formatNumber(value);
  const decimals = Math.min(mostDecimals, Math.max(0, 1 - Math.floor(Math.log10(stdError))));
  const shown = value.toFixed(decimals);
  const error = Number(stdError.toFixed(decimals)) === 0 ? `<${(10 ** -decimals).toFixed(decimals)}` : stdError.toFixed(decimals);
  return `${Number(shown) === 0 ? shown.replace("-", "") : shown} ${plusMinus} ${error}`;
};

/** A whole number with its thousands apart: 8,192. */
export const formatCount = (count: number): string => Math.round(count).toLocaleString("en-US");

/** "0.4 s", "12 s", "3 min 05 s", "1 h 02 min". */
export const formatDuration = (seconds: number): string => {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
};

const codePoints = (text: string): string[] => Array.from(text.normalize("NFC"));

/** Columns that a text takes: code points, marks not counted, wide East Asian ones and emoji twice. */
export const widthOf = (text: string): number =>
  codePoints(text).reduce((width, character) => {
    if (/\p{M}|\u200d/u.test(character)) return width;
    return (
      width +
      (/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u.test(
        character,
      )
        ? 2
        : 1)
    );
  }, 0);

/** A text cut to a number of columns, with an ellipsis where something is missing. */
export const truncate = (text: string, width: number, ellipsis = "…"): string => {
  if (widthOf(text) <= width) return text;
  let result = "";
  let used = ellipsis.length;
  for (const character of codePoints(text)) {
    used += widthOf(character);
    if (used > width) break;
    result += character;
  }
  return width < ellipsis.length ? "" : result + ellipsis;
};

/** A text from a model as it may be shown on a terminal: on one line, without control characters (an escape sequence is text here). */
export const printable = (text: string): string =>
  text
    .replace(/\s+/g, " ")
    .replace(/\p{Cc}|\p{Cf}/gu, "\ufffd")
    .trim();

/** Lines of at most `width` columns, broken at spaces where there are some. */
export const wrap = (text: string, width: number): string[] => {
  const lines: string[] = [];
  let line = "";
  for (let word of text.split(" ")) {
    while (widthOf(word) > width) {
      if (line !== "") lines.push(line);
      line = "";
      const head = truncate(word, width, "") || codePoints(word)[0]!;
      lines.push(head);
      word = word.slice(head.length);
    }
    if (line !== "" && widthOf(line) + 1 + widthOf(word) > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  if (line !== "") lines.push(line);
  return lines;
};

/** A text filled with spaces to a number of columns. */
export const pad = (text: string, width: number, align: "left" | "right" = "left"): string => {
  const padding = " ".repeat(Math.max(0, width - widthOf(text)));
  return align === "left" ? text + padding : padding + text;
};

/**
 * Rows in aligned columns, two spaces apart, without trailing spaces. An empty row is an empty line.
 *
 * @param align one per column; left where absent
 */
export const formatTable = (rows: readonly (readonly string[])[], align: readonly ("left" | "right")[] = []): string[] => {
  const widths: number[] = [];
  for (const row of rows) for (const [c, cell] of row.entries()) widths[c] = Math.max(widths[c] ?? 0, widthOf(cell));
  return rows.map((row) =>
    row
      .map((cell, c) => pad(cell, widths[c]!, align[c] ?? "left"))
      .join("  ")
      .trimEnd(),
  );
};

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar of `width` cells for a fraction in 0 .. 1, between its two ends: ▏████▍    ▕ or [####-----]. */
export const formatBar = (fraction: number, width: number, unicode: boolean): string => {
  const filled = Math.min(1, Math.max(0, Number.isFinite(fraction) ? fraction : 0)) * width;
  if (!unicode) return `[${"#".repeat(Math.round(filled)).padEnd(width, "-")}]`;
  const parts = Math.round(filled * 8);
  return `▏${("█".repeat(parts >> 3) + eighths[parts & 7]!).padEnd(width)}▕`;
};

/**
 * How far something has come from where it began to where it should be: 0 at the start or when it went the other way, 1 at the goal,
 * and less again beyond it.
 */
export const fractionTowards = (start: number, now: number, goal: number): number => {
  const distance = Math.abs(goal - start);
  // Where nothing had to move, being off by a tenth of the goal counts as all lost.
  const scale = distance > 1e-9 ? distance : Math.max(0.01, Math.abs(goal) / 10);
  return Math.min(1, Math.max(0, 1 - Math.abs(now - goal) / scale));
};

/** One line of a moment on its way: `0.08 ▏████▍    ▕ 0.50`. */
export const formatJourney = (start: number, now: number, goal: number, width: number, unicode: boolean): string => {
  const plain = (value: number): string =>
    Math.abs(value) < 10 ? value.toFixed(value !== 0 && Math.abs(value) < 0.1 ? 3 : 2) : formatNumber(value);
  return `${plain(start).padStart(5)} ${formatBar(fractionTowards(start, now, goal), width, unicode)} ${plain(goal).padEnd(5)}`;
};

/** The last `width` values as a line of blocks, from the least to the greatest of them; empty for fewer than two. */
export const formatSparkline = (values: readonly number[], width: number): string => {
  const shown = values.filter(Number.isFinite).slice(-width);
  if (shown.length < 2) return "";
  const least = Math.min(...shown);
  const span = Math.max(...shown) - least;
  return shown.map((value) => "▁▂▃▄▅▆▇█"[span === 0 ? 0 : Math.round((7 * (value - least)) / span)]!).join("");
};

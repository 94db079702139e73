/** Results as text: what the target is, how a model measures against it, and what changed between two models. */

import type { Estimate } from "../base/numeric.ts";
import type { Evaluation, FitReport, Summary } from "../run/metrics.ts";
import {
  formatCount,
  formatDuration,
  formatEstimate,
  formatNumber,
  formatTable,
  pad,
  printable,
  widthOf,
  wrap,
} from "./format.ts";
import { type Paint, paintFor, symbolsFor, type Terminal } from "./terminal.ts";

/** A line of samples.jsonl. */
export interface SampleLine {
  readonly step: number;
  readonly model: string;
  readonly text: string;
  readonly features: Readonly<Record<string, number>>;
  readonly logProb: number;
}

type Align = "left" | "right";

/** A table with a bold head and a rule below it; the head is coloured after the alignment, which counts characters. */
const tableWithHead = (
  head: readonly string[],
  rows: readonly (readonly string[])[],
  align: readonly Align[],
  terminal: Terminal,
): string[] => {
  const [first, ...rest] = formatTable([head, ...rows], align);
  const { bold, dim } = paintFor(terminal);
  const width = Math.max(...[first!, ...rest].map((line) => line.length));
  return [bold(first!), dim(symbolsFor(terminal).rule.repeat(width)), ...rest];
};

const sampling = ({ n, topP }: Evaluation): string =>
  `${formatCount(n)} sequences${topP < 1 ? `; moments and texts by nucleus sampling with top-p ${topP}` : ", full softmax"}`;

/** The lines of "fit": base moments, wanted moments, coefficients, and how good the fit is. */
export const fitReportLines = (fit: FitReport, terminal: Terminal): string[] => {
  const { plusMinus } = symbolsFor(terminal);
  const shown = (estimate: Estimate | undefined): string => (estimate === undefined ? "" : formatEstimate(estimate, plusMinus));
  const names = [...new Set([...Object.keys(fit.targetMoments), ...Object.keys(fit.baseMoments)])];
  const rows = names.map((name) => {
    const wanted = fit.targetMoments[name];
    const coefficient = name in fit.hard ? "hard constraint" : shown(fit.coefficients[name]);
    return [name, shown(fit.baseMoments[name]), wanted === undefined ? "" : formatNumber(wanted), coefficient];
  });
  const facts = [
    [
      "KL(p,a)",
      `${shown(fit.klTargetBase)} nats per sequence: the least that any model with these moments differs from the base`,
    ],
    ["log Z", `${shown(fit.logZ)} nats`],
    ["ESS", `${shown(fit.ess)} of ${formatCount(fit.samples)} sequences of the base, weighted to the target`],
  ];
  return [
    ...tableWithHead(["feature", "base", "wanted", "coefficient"], rows, ["left", "right", "right", "right"], terminal),
    "",
    ...formatTable(facts),
  ];
};

type Measure = readonly [label: string, pick: (evaluation: Evaluation) => Estimate | number | undefined, meaning: string];

const measuresFor = (terminal: Terminal): readonly Measure[] => {
  const { policy } = symbolsFor(terminal);
  return [
    [`KL(p,${policy})`, (e) => e.klTargetPolicy, "nats from the target; 0 is the goal"],
    [`KL(${policy},a)`, (e) => e.klPolicyBase, "nats from the base"],
    [`TV(p,${policy})`, (e) => e.tvTargetPolicy, "total variation from the target"],
    [`JS(p,${policy})`, (e) => e.jsTargetPolicy, "Jensen-Shannon from the target, nats"],
    ["entropy", (e) => e.entropy, "nats per sequence"],
    ["perplexity", (e) => e.perplexity, "per token, under the base"],
    ["distinct-1", (e) => e.distinct1, "share of different words"],
    ["distinct-2", (e) => e.distinct2, "share of different pairs of words"],
    ["distinct-3", (e) => e.distinct3, "share of different triples of words"],
    ["self-BLEU-4", (e) => e.selfBleu4, "how alike the texts are, in words"],
    ["self-BLEU-4 (characters)", (e) => e.selfBleuCharacters4, "the same in characters, as the papers count"],
  ];
};

const cell = (value: Estimate | number | undefined, terminal: Terminal): string => {
  if (value === undefined) return "";
  return typeof value === "number" ? formatNumber(value) : formatEstimate(value, symbolsFor(terminal).plusMinus);
};

/** One or several evaluations side by side, moments first, each with its wanted value. */
const evaluationTable = (
  columns: readonly (readonly [head: string, evaluation: Evaluation])[],
  wanted: Readonly<Record<string, number>>,
  terminal: Terminal,
): string[] => {
  const moments = [...new Set(columns.flatMap(([, evaluation]) => Object.keys(evaluation.moments)))];
  const row = (label: string, pick: Measure[1], last: string): string[] => [
    label,
    ...columns.map(([, e]) => cell(pick(e), terminal)),
    last,
  ];
  const align: Align[] = ["left", ...columns.map((): Align => "right")];
  return tableWithHead(
    ["", ...columns.map(([head]) => head), "wanted"],
    [
      ...moments.map((name) =>
        row(name, (e) => e.moments[name], wanted[name] === undefined ? "(not asked for)" : formatNumber(wanted[name])),
      ),
      [],
      ...measuresFor(terminal)
        .filter(([, pick]) => columns.some(([, evaluation]) => pick(evaluation) !== undefined))
        .map(([label, pick, meaning]) => row(label, pick, meaning)),
    ],
    align,
    terminal,
  );
};

const againstTarget = "Divergences from p also look at the base's, so that what the model left out is seen.";

/** The lines of "evaluate". @param fit undefined where the config has no target */
export const evaluationLines = (evaluation: Evaluation, fit: FitReport | undefined, terminal: Terminal): string[] => [
  ...evaluationTable([[evaluation.model, evaluation]], fit?.targetMoments ?? {}, terminal),
  "",
  `From ${sampling(evaluation)}.${fit === undefined ? "" : ` ${againstTarget} The target was fitted from ${formatCount(fit.samples)} sequences of the base.`}`,
];

/** What a run changed: every measure before and after. */
export const summaryLines = (summary: Summary, terminal: Terminal): string[] => {
  const { before, after, afterAverage, target } = summary;
  const { plusMinus, policy } = symbolsFor(terminal);
  const columns = [
    ["before", before] as const,
    [`after ${formatCount(summary.steps)} steps`, after] as const,
    ...(afterAverage === undefined ? [] : [["averaged weights", afterAverage] as const]),
  ];
  const least =
    target === undefined
      ? ""
      : ` KL(p,a) = ${formatEstimate(target.klTargetBase, plusMinus)} is the least change that meets the target.`;
  return [
    ...evaluationTable(columns, target?.targetMoments ?? {}, terminal),
    "",
    `${target === undefined ? "" : "p: the target, "}${policy}: the ${after.model}, a: the base.${least}`,
    `Each column from ${sampling(after)}.${target === undefined ? "" : ` ${againstTarget}`} ${formatCount(summary.samples)} sequences drawn in all, in ${formatDuration(summary.seconds)}.`,
  ];
};

/** What is in a sample, and under it which features it has. */
const sampleCell = ({ text, features }: SampleLine, width: number, { dim }: Paint): [plain: string, shown: string][] => {
  const names = Object.entries(features)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => (value === 1 ? name : `${name} ${formatNumber(value)}`));
  const tags = wrap(names.length === 0 ? "(none of the features)" : `(${names.join(", ")})`, width);
  const same = (line: string): [string, string] => [line, line];
  return [...wrap(printable(text) || "(empty)", width).map(same), ...tags.map((line): [string, string] => [line, dim(line)])];
};

/**
 * Samples of two models side by side, or one after the other where the screen is narrow.
 * They are the first of each, not the best.
 */
export const sampleLines = (before: readonly SampleLine[], after: readonly SampleLine[], terminal: Terminal): string[] => {
  const paint = paintFor(terminal);
  const count = Math.max(before.length, after.length);
  if (terminal.width < 70) {
    const list = (title: string, samples: readonly SampleLine[]): string[] => [
      paint.bold(title),
      ...samples.flatMap((sample) => [...sampleCell(sample, terminal.width - 3, paint).map(([, line]) => `  ${line}`), ""]),
    ];
    return [...list("before", before), ...list("after", after)];
  }
  const width = Math.floor((Math.min(terminal.width, 130) - 3) / 2);
  const lines = [paint.bold(`${pad("before", width + 3)}after`)];
  for (let i = 0; i < count; i++) {
    const left = before[i] === undefined ? [] : sampleCell(before[i]!, width, paint);
    const right = after[i] === undefined ? [] : sampleCell(after[i]!, width, paint);
    for (let l = 0; l < Math.max(left.length, right.length); l++) {
      const [plain, shown] = left[l] ?? ["", ""];
      // Counted on the plain text: colours take no column.
      const gap = " ".repeat(width + 3 - widthOf(plain));
      lines.push(`${shown}${gap}${right[l]?.[1] ?? ""}`.trimEnd());
    }
    lines.push("");
  }
  return lines;
};

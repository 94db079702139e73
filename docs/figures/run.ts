/**
 * Draws a run as a picture: how its moments and divergences moved.
 *   npx jiti docs/figures/run.ts runs/demo docs/figures/demo.svg
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Estimate } from "../../src/base/numeric.ts";
import type { Evaluation, StepMetrics, Summary } from "../../src/run/metrics.ts";

interface Series {
  readonly label: string;
  readonly colour: string;
  readonly points: readonly (readonly [step: number, estimate: Estimate])[];
  /** The same of each step's batch, where there is one: a thin line. */
  readonly steps: readonly (readonly [step: number, value: number])[];
  /** Drawn as a dashed line. */
  readonly wanted?: number;
}

const colours = ["#1b6ca8", "#c8553d", "#588157", "#8e6c8a", "#b08900", "#4a4e69", "#9a9a9a"];
const [width, height] = [480, 250];
const [left, right, top, bottom] = [44, 12, 40, 34];

const panel = (title: string, x: number, steps: number, series: readonly Series[]): string => {
  const most =
    Math.max(
      ...series.flatMap(({ points, wanted }) => [...points.map(([, { value, stdError }]) => value + 2 * stdError), wanted ?? 0]),
    ) * 1.08;
  const across = (step: number): number => x + left + (step / steps) * (width - left - right);
  const up = (value: number): number => height - bottom - (value / most) * (height - top - bottom);
  const number = (value: number): string => value.toFixed(1);
  const text = (at: readonly [number, number], content: string, more = ""): string =>
    `<text x="${number(at[0])}" y="${number(at[1])}" ${more}>${content}</text>`;
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const value = (share * most) / 1.08;
    return `<line x1="${across(0)}" x2="${across(steps)}" y1="${number(up(value))}" y2="${number(up(value))}" stroke="#e5e5e5"/>${text([across(0) - 6, up(value) + 4], value.toFixed(2), 'text-anchor="end"')}`;
  });
  const pathOf = (points: Series["steps"]): string =>
    points.map(([step, value], i) => `${i === 0 ? "M" : "L"}${number(across(step))} ${number(up(value))}`).join("");
  const lines = series.map(({ colour, points, steps: thin, wanted }) => {
    const path = pathOf(thin.length > 0 ? thin : points.map(([step, { value }]) => [step, value]));
    const bars = points.map(
      ([step, { value, stdError }]) =>
        `<line x1="${number(across(step))}" x2="${number(across(step))}" y1="${number(up(value - 2 * stdError))}" y2="${number(up(value + 2 * stdError))}" stroke="${colour}"/><circle cx="${number(across(step))}" cy="${number(up(value))}" r="2.5" fill="${colour}"/>`,
    );
    const dashed =
      wanted === undefined
        ? ""
        : `<line x1="${across(0)}" x2="${across(steps)}" y1="${number(up(wanted))}" y2="${number(up(wanted))}" stroke="${colour}" stroke-dasharray="4 3"/>`;
    return `${dashed}<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.8"/>${bars.join("")}`;
  });
  let key = x + left;
  const legend = series.map(({ label, colour }) => {
    const drawn = `<rect x="${number(key)}" y="24" width="10" height="3" fill="${colour}"/>${text([key + 14, 29], label)}`;
    key += 26 + 5.8 * label.length;
    return drawn;
  });
  return [
    text([x + left, 14], title, 'font-weight="600"'),
    ...grid,
    ...lines,
    ...legend,
    text([across(steps), height - 12], `${steps} steps`, 'text-anchor="end"'),
    text([across(0), height - 12], "0"),
  ].join("\n");
};

const [directory, out] = process.argv.slice(2);
if (directory === undefined || out === undefined) throw new Error("usage: run.ts RUN_DIRECTORY OUT.svg");
const records = readFileSync(join(directory, "metrics.jsonl"), "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line) as Evaluation | StepMetrics);
const evaluations = records
  .filter((record) => record.kind === "evaluation")
  .filter(({ model, averaged }) => model === "policy" && averaged === undefined);
/** One value of each step's batch; step n's batch was drawn and scored before its update, so it stands at n - 1. */
const perStep = (take: (metrics: StepMetrics) => Estimate | undefined): Series["steps"] =>
  records.flatMap((record) => {
    const value = record.kind === "step" ? take(record) : undefined;
    return value === undefined ? [] : [[record.step - 1, value.value] as const];
  });
const { target, steps } = JSON.parse(readFileSync(join(directory, "summary.json"), "utf8")) as Summary;
const over = (take: (evaluation: Evaluation) => Estimate | undefined): Series["points"] =>
  evaluations.flatMap((evaluation) => {
    const estimate = take(evaluation);
    return estimate === undefined ? [] : [[evaluation.step, estimate] as const];
  });
const moments = Object.keys(evaluations[0]!.moments).map((name, i): Series => {
  const wanted = target?.targetMoments[name];
  return {
    label: name,
    colour: colours[i % colours.length]!,
    points: over(({ moments: all }) => all[name]!),
    steps: perStep(({ moments: all }) => all[name]),
    ...(wanted === undefined ? {} : { wanted }),
  };
});
const divergences: readonly Series[] = [
  {
    label: "KL(p, π)",
    colour: colours[0]!,
    points: over(({ klTargetPolicy }) => klTargetPolicy),
    steps: perStep(({ klTargetPolicy }) => klTargetPolicy),
  },
  {
    label: "KL(π, a)",
    colour: colours[1]!,
    points: over(({ klPolicyBase }) => klPolicyBase),
    steps: [],
    ...(target === undefined ? {} : { wanted: target.klTargetBase.value }),
  },
];
writeFileSync(
  out,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${2 * width} ${height}" font-family="system-ui, sans-serif" font-size="11" fill="#333">
<title>How moments and divergences moved over ${steps} steps</title>
<rect width="100%" height="100%" fill="white"/>
${panel("moments (lines: proposal, points: policy, dashed: wanted)", 0, steps, moments)}
${panel("nats per text (dashed: KL(p, a))", width, steps, divergences)}
</svg>
`,
);

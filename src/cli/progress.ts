/**
 * A run's events as lines for people. The core is pure: `advance(state, event, now)` gives the next state and the lines that stay,
 * `blockOf(state, now)` the lines that a terminal draws over. `createProgress` is the thin shell that writes them.
 *
 * A terminal gets a live block, redrawn at most ten times a second; anything else gets plain lines, of one phase at most one in
 * two seconds and fewer in a long one, and one per evaluation.
 */

import type { RunEvent } from "../run/events.ts";
import type { Evaluation, FitReport, StepMetrics } from "../run/metrics.ts";
import {
  formatBar,
  formatCount,
  formatDuration,
  formatEstimate,
  formatJourney,
  formatNumber,
  formatSparkline,
  truncate,
  widthOf,
} from "./format.ts";
import { paintFor, symbolsFor, type Terminal } from "./terminal.ts";

/** A phase under way. Times are ms of the clock. */
interface Work {
  readonly name: string;
  readonly total: number;
  readonly unit: string;
  readonly done: number;
  readonly startedAt: number;
  /** Done before this process began: not counted into the rate. Undefined before the first report. */
  readonly doneBefore: number | undefined;
  readonly lastLineAt: number;
}

export interface ProgressState {
  readonly work: Work | undefined;
  /** Phases that another one interrupted, by name, in order: tuning, while it is evaluated. */
  readonly interrupted: Readonly<Record<string, Work>>;
  readonly fit: FitReport | undefined;
  readonly targetMoments: Readonly<Record<string, number>>;
  readonly step: StepMetrics | undefined;
  readonly evaluation: Evaluation | undefined;
  /** KL(p, policy) of the last steps, nats. */
  readonly divergences: readonly number[];
}

export const initialProgress: ProgressState = {
  work: undefined,
  interrupted: {},
  fit: undefined,
  targetMoments: {},
  step: undefined,
  evaluation: undefined,
  divergences: [],
};

/** A first report within this time tells what was done before (a resumed run), not what was done since. */
const firstReportMs = 50;
const plainIntervalMs = 2000;
const historyLength = 32;

/** Seconds that remain of a phase, from its mean rate; undefined before anything is known. */
const secondsLeft = (work: Work, now: number): number | undefined => {
  const fresh = work.done - (work.doneBefore ?? 0);
  return fresh <= 0 || work.total <= 0
    ? undefined
    : ((now - work.startedAt) / 1000 / fresh) * Math.max(0, work.total - work.done);
};

const rateOf = (work: Work, now: number): string | undefined => {
  const fresh = work.done - (work.doneBefore ?? 0);
  const seconds = (now - work.startedAt) / 1000;
  if (fresh <= 0 || seconds < 0.2) return undefined;
  const rate = fresh / seconds;
  if (rate >= 1) return `${rate >= 100 ? formatCount(rate) : rate.toFixed(1)} ${work.unit}/s`;
  return `${formatDuration(1 / rate)} per ${work.unit.replace(/s$/, "")}`;
};

/** "120/300 steps · 2.1 steps/s · 1 min 25 s left"; of few that take long, parts are told: "3.4/20 steps" */
const describeWork = (work: Work, now: number, separator: string): string => {
  const left = secondsLeft(work, now);
  const done = work.total < 100 && !Number.isInteger(work.done) ? work.done.toFixed(1) : formatCount(Math.floor(work.done));
  const amount = work.total > 0 ? `${done}/${formatCount(work.total)} ${work.unit}` : `${formatCount(work.done)} ${work.unit}`;
  const parts = [amount, rateOf(work, now), left === undefined || left <= 0 ? undefined : `${formatDuration(left)} left`];
  return parts.filter((part) => part !== undefined).join(separator);
};

const finishedLine = (work: Work, seconds: number, terminal: Terminal): string[] => {
  if (seconds < plainIntervalMs / 1000) return [];
  const { done } = symbolsFor(terminal);
  return [`${paintFor(terminal).green(done)} ${work.name}: ${formatCount(work.done)} ${work.unit} in ${formatDuration(seconds)}`];
};

const fitLine = (fit: FitReport, terminal: Terminal): string => {
  const { plusMinus, separator, done } = symbolsFor(terminal);
  const parts = [
    `${paintFor(terminal).green(done)} target fitted from ${formatCount(fit.samples)} sequences of the base`,
    `KL(p,a) ${formatEstimate(fit.klTargetBase, plusMinus)} nats`,
    `effective sample size ${formatNumber(Math.round(fit.ess.value))}`,
  ];
  return parts.join(separator);
};

const evaluationLine = (evaluation: Evaluation, targets: Readonly<Record<string, number>>, terminal: Terminal): string => {
  const { plusMinus, policy, arrow, separator } = symbolsFor(terminal);
  const { bold, dim } = paintFor(terminal);
  const moments = Object.entries(evaluation.moments).map(([name, moment]) => {
    const target = targets[name];
    return `${name} ${bold(formatEstimate(moment, plusMinus))}${target === undefined ? "" : dim(` ${arrow} ${formatNumber(target)}`)}`;
  });
  const divergences = [
    ...(evaluation.klTargetPolicy === undefined
      ? []
      : [`KL(p,${policy}) ${bold(formatEstimate(evaluation.klTargetPolicy, plusMinus))}`]),
    `KL(${policy},a) ${formatEstimate(evaluation.klPolicyBase, plusMinus)}`,
  ];
  const sampling = evaluation.topP < 1 ? `, top-p ${evaluation.topP}` : "";
  const source = dim(
    `(${evaluation.averaged ? "averaged " : ""}${evaluation.model}, n = ${formatCount(evaluation.n)}${sampling})`,
  );
  return `step ${String(evaluation.step).padStart(4)}  ${[...moments, ...divergences].join(separator)} ${source}`;
};

const begin = (state: ProgressState, event: Extract<RunEvent, { type: "phase" }>, now: number): ProgressState => {
  const { work } = state;
  if (work?.name === event.name && work.total === event.total && work.done < work.total) return state;
  const { [event.name]: earlier, ...others } = state.interrupted;
  const interrupted = work !== undefined && work.done < work.total ? { ...others, [work.name]: work } : others;
  const fresh: Work = {
    name: event.name,
    total: event.total,
    unit: event.unit,
    done: 0,
    startedAt: now,
    doneBefore: undefined,
    lastLineAt: now,
  };
  return { ...state, interrupted, work: earlier?.total === event.total ? earlier : fresh };
};

const report = (work: Work, done: number, now: number): Work => {
  const doneBefore = work.doneBefore ?? (now - work.startedAt < firstReportMs ? done : 0);
  return { ...work, done, doneBefore };
};

export interface Advance {
  readonly state: ProgressState;
  /** Lines that stay. */
  readonly lines: readonly string[];
}

/** What an event changes, and the lines that stay on the screen or in the log because of it. @param now ms */
export const advance = (state: ProgressState, event: RunEvent, now: number, terminal: Terminal): Advance => {
  const { work } = state;
  switch (event.type) {
    case "phase": {
      const ended = work !== undefined && work.done >= work.total;
      return { state: begin(state, event, now), lines: ended ? finishedLine(work, (now - work.startedAt) / 1000, terminal) : [] };
    }
    case "progress": {
      if (work === undefined) return { state, lines: [] };
      const next = report(work, event.done, now);
      // Every two seconds at first; in a phase of an hour, once a minute.
      const interval = Math.min(60_000, Math.max(plainIntervalMs, (now - work.startedAt) / 10));
      if (terminal.live || now - work.lastLineAt < interval || next.done >= next.total)
        return { state: { ...state, work: next }, lines: [] };
      return {
        state: { ...state, work: { ...next, lastLineAt: now } },
        lines: [`${next.name}: ${describeWork(next, now, ", ")}`],
      };
    }
    case "phase-end": {
      const { [event.name]: ended = work, ...interrupted } = state.interrupted;
      const current = work?.name === event.name;
      const lines = ended === undefined ? [] : finishedLine(current ? work : ended, event.seconds, terminal);
      if (!current) return { state: { ...state, interrupted }, lines };
      // What it interrupted goes on.
      const [name, resumed] = Object.entries(interrupted).at(-1) ?? [];
      const { [name ?? ""]: _, ...rest } = interrupted;
      return { state: { ...state, interrupted: rest, work: resumed }, lines };
    }
    case "fit":
      return {
        state: { ...state, fit: event.report, targetMoments: event.report.targetMoments },
        lines: [fitLine(event.report, terminal)],
      };
    case "step": {
      const { klTargetPolicy } = event.metrics;
      const divergences =
        klTargetPolicy === undefined ? state.divergences : [...state.divergences, klTargetPolicy.value].slice(-historyLength);
      return { state: { ...state, step: event.metrics, targetMoments: event.targetMoments, divergences }, lines: [] };
    }
    case "evaluation":
      return {
        state: { ...state, evaluation: event.evaluation, targetMoments: event.targetMoments },
        lines: [evaluationLine(event.evaluation, event.targetMoments, terminal)],
      };
    case "checkpoint":
      return { state, lines: terminal.live ? [] : [`checkpoint: ${event.path}`] };
    case "notice":
      return { state, lines: [`${paintFor(terminal).yellow("note")}: ${event.message}`] };
  }
};

const momentLines = (state: ProgressState, terminal: Terminal): string[] => {
  const { plusMinus, separator } = symbolsFor(terminal);
  const { dim } = paintFor(terminal);
  const targets = Object.entries(state.targetMoments);
  const nameWidth = Math.min(20, Math.max(0, ...targets.map(([name]) => widthOf(name))));
  return targets.flatMap(([name, goal]) => {
    const policy = state.evaluation?.moments[name];
    const batch = state.step?.moments[name];
    const start = state.fit?.baseMoments[name]?.value ?? policy?.value;
    if (start === undefined) return [];
    const label = truncate(name, nameWidth).padEnd(nameWidth);
    const source = state.evaluation?.model ?? "policy";
    const now = [
      policy === undefined ? undefined : `${source} ${formatEstimate(policy, plusMinus)}`,
      batch === undefined ? undefined : `batch ${formatNumber(Number(batch.value.toPrecision(2)))}`,
    ];
    const journey = formatJourney(start, policy?.value ?? start, goal, 16, terminal.unicode);
    return [`  ${label} ${journey}  ${dim(now.filter((part) => part !== undefined).join(separator))}`];
  });
};

const divergenceLine = (state: ProgressState, terminal: Terminal): string[] => {
  const { step, evaluation } = state;
  if (step === undefined) return [];
  const { policy, separator } = symbolsFor(terminal);
  const parts = [
    step.klTargetPolicy === undefined
      ? undefined
      : `KL(p,${policy}) ${formatNumber(Number(step.klTargetPolicy.value.toPrecision(3)))}`,
    step.klTargetProposal === undefined
      ? undefined
      : `KL(p,q) ${formatNumber(Number(step.klTargetProposal.value.toPrecision(3)))}`,
    evaluation === undefined
      ? undefined
      : `KL(${policy},a) ${formatNumber(Number(evaluation.klPolicyBase.value.toPrecision(3)))}`,
    step.ess === undefined ? undefined : `batch ESS ${formatNumber(Math.round(step.ess))}`,
    step.klCoefficient === undefined ? undefined : `beta ${formatNumber(Number(step.klCoefficient.toPrecision(3)))}`,
  ];
  const spark = terminal.unicode ? formatSparkline(state.divergences, historyLength) : "";
  return [`  ${parts.filter((part) => part !== undefined).join(separator)}${spark === "" ? "" : `  ${spark}`}`];
};

/** The lines that are drawn over: the phase with its bar, then every moment on its way to its target. */
export const blockOf = (state: ProgressState, now: number, terminal: Terminal): string[] => {
  const { work } = state;
  const { bold } = paintFor(terminal);
  const { separator } = symbolsFor(terminal);
  const lines: string[] = [];
  if (work !== undefined) {
    const bar = work.total > 0 ? `${formatBar(work.done / work.total, 24, terminal.unicode)} ` : "";
    lines.push(`${bold(work.name)}  ${bar}${describeWork(work, now, separator)}`);
  }
  if (state.step !== undefined) lines.push(...divergenceLine(state, terminal), ...momentLines(state, terminal));
  return lines;
};

/** Cut to the terminal's width (a line that wraps could not be drawn over); escape sequences take no column. */
const fitted = (line: string, width: number): string => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  const sequence = /\u001b\[\d+m/g;
  return widthOf(line.replace(sequence, "")) < width ? line : truncate(line.replace(sequence, ""), width - 1);
};

export interface Progress {
  readonly listen: (event: RunEvent) => void;
  /** A line that stays, outside of any event. */
  readonly say: (line: string) => void;
  /** Takes the live block away, so that the next line begins on a clean one. */
  readonly finish: () => void;
}

const redrawMs = 100;

/** Writes a run's progress to a stream. @param clock ms */
export const createProgress = (write: (text: string) => void, terminal: () => Terminal, clock: () => number): Progress => {
  let state = initialProgress;
  let drawn = 0;
  let drawnAt = Number.NEGATIVE_INFINITY;
  const show = (lines: readonly string[], block: readonly string[]): void => {
    const erase = drawn > 0 ? `\u001b[${drawn}A\u001b[0J` : "";
    const text = erase + [...lines, ...block].map((line) => `${line}\n`).join("");
    if (text !== "") write(text);
    drawn = block.length;
  };
  const draw = (lines: readonly string[], now: number, urgent: boolean): void => {
    const view = terminal();
    if (!view.live) {
      show(lines, []);
      return;
    }
    if (lines.length === 0 && !urgent && now - drawnAt < redrawMs) return;
    drawnAt = now;
    show(
      lines,
      blockOf(state, now, view).map((line) => fitted(line, view.width)),
    );
  };
  return {
    listen: (event) => {
      const now = clock();
      const next = advance(state, event, now, terminal());
      state = next.state;
      draw(next.lines, now, event.type === "phase" || event.type === "phase-end");
    },
    say: (line) => draw([line], clock(), true),
    finish: () => {
      state = initialProgress;
      show([], []);
    },
  };
};

import { describe, expect, it } from "vitest";
import { estimateOf as estimate, evaluationOf } from "../../tests/support/records.ts";
import type { RunEvent } from "../run/events.ts";
import type { Evaluation, FitReport, StepMetrics } from "../run/metrics.ts";
import { advance, blockOf, createProgress, initialProgress, type ProgressState } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

const plain: Terminal = { live: false, width: 100, color: false, unicode: true };
const live: Terminal = { ...plain, live: true };

const fit: FitReport = {
  samples: 8192,
  baseMoments: { women: estimate(0.08) },
  targetMoments: { women: 0.5 },
  coefficients: { women: estimate(2.4) },
  hard: {},
  logZ: estimate(1),
  ess: estimate(812.3),
  klTargetBase: estimate(0.52),
};
const evaluation = (step: number, women: number): Evaluation => evaluationOf(step, { women: estimate(women) });
const step = (number: number): StepMetrics => ({
  kind: "step",
  step: number,
  samples: 1,
  seconds: 1,
  loss: 1,
  gradNorm: 1,
  learningRate: 1,
  klProposalBase: estimate(0.2),
  logZ: estimate(0),
  klTargetPolicy: estimate(1 / number),
  klTargetProposal: estimate(0.5),
  moments: { women: estimate(0.2871) },
  advantageMean: 0,
  advantageMeanAbs: 0,
  advantageVariance: 0,
  ess: 99.6,
  clampedWeights: 0,
  clampedShare: 0,
  proposalUpdated: false,
  sampleSeconds: 0,
  scoreSeconds: 0,
  trainSeconds: 0,
});
const stepEvent = (number: number): RunEvent => ({ type: "step", metrics: step(number), targetMoments: { women: 0.5 } });
const evaluationEvent = (number: number, women: number): RunEvent => ({
  type: "evaluation",
  evaluation: evaluation(number, women),
  targetMoments: { women: 0.5 },
});
const phase = (name: string, total: number, unit = "steps"): RunEvent => ({ type: "phase", name, total, unit });
const progress = (done: number): RunEvent => ({ type: "progress", done });

/** Events at times in ms; the state after them and every line that stayed. */
const play = (
  events: readonly (readonly [ms: number, event: RunEvent])[],
  terminal = plain,
): { state: ProgressState; lines: string[] } => {
  let state = initialProgress;
  const lines: string[] = [];
  for (const [ms, event] of events) {
    const next = advance(state, event, ms, terminal);
    state = next.state;
    lines.push(...next.lines);
  }
  return { state, lines };
};

describe("plain lines", () => {
  it("come at most every two seconds, with rate and time left", () => {
    const events = Array.from({ length: 80 }, (_, i) => [(i + 1) * 100, progress((i + 1) * 100)] as const);
    const { lines } = play([[0, phase("sampling the base", 10_000, "texts")], ...events]);
    expect(lines).toEqual([
      "sampling the base: 2,000/10,000 texts, 1,000 texts/s, 8.0 s left",
      "sampling the base: 4,000/10,000 texts, 1,000 texts/s, 6.0 s left",
      "sampling the base: 6,000/10,000 texts, 1,000 texts/s, 4.0 s left",
      "sampling the base: 8,000/10,000 texts, 1,000 texts/s, 2.0 s left",
    ]);
  });

  it("become rarer in a long phase", () => {
    const events = Array.from({ length: 1200 }, (_, i) => [(i + 1) * 1000, progress(i + 1)] as const);
    const { lines } = play([[0, phase("tuning", 10_000)], ...events]);
    expect(lines.length).toBeLessThan(60);
    expect(lines.at(-1)).toMatch(/^tuning: .* steps, 1\.0 steps\/s, 2 h /);
  });

  it("say that a phase of over two seconds has ended, and nothing of a short one", () => {
    const run = (ms: number) =>
      play([
        [0, phase("evaluating", 10, "texts")],
        [ms, progress(10)],
        [ms, { type: "phase-end", name: "evaluating", seconds: ms / 1000 }],
      ]).lines;
    expect(run(3000)).toEqual(["✓ evaluating: 10 texts in 3.0 s"]);
    expect(run(1000)).toEqual([]);
  });

  it("tell the fit, each evaluation, each checkpoint and each notice", () => {
    const { lines } = play([
      [0, { type: "fit", report: fit }],
      [1, evaluationEvent(40, 0.31)],
      [2, { type: "checkpoint", path: "runs/a/checkpoints/step-000040", step: 40 }],
      [3, { type: "notice", message: "resumed at step 40" }],
    ]);
    expect(lines).toEqual([
      "✓ target fitted from 8,192 sequences of the base · KL(p,a) 0.520 ± 0.010 nats · effective sample size 812",
      "step   40  women 0.310 ± 0.010 → 0.5 · KL(p,π) 0.420 ± 0.030 · KL(π,a) 0.100 ± 0.020 (policy, n = 2,048)",
      "checkpoint: runs/a/checkpoints/step-000040",
      "note: resumed at step 40",
    ]);
  });
});

describe("time left", () => {
  it("does not count what was done before a resumed run began", () => {
    const { state } = play([
      [0, phase("tuning", 300)],
      [1, progress(100)],
      [10_000, progress(110)],
    ]);
    // 10 steps in 10 s, 190 to go
    expect(blockOf(state, 10_000, plain)[0]).toContain("110/300 steps · 1.0 steps/s · 3 min 10 s left");
  });

  it("counts the phases that interrupt a phase into its rate", () => {
    const { state } = play([
      [0, phase("tuning", 20)],
      [4000, progress(9)],
      [4000, phase("evaluating", 5, "texts")],
      [9000, progress(5)],
      [9000, { type: "phase-end", name: "evaluating", seconds: 5 }],
      [10_000, progress(10)],
    ]);
    expect(state.work?.name).toBe("tuning");
    expect(blockOf(state, 10_000, plain)[0]).toContain("10/20 steps · 1.0 steps/s · 10 s left");
  });

  it("speaks of seconds per step where a step is long", () => {
    const { state } = play([
      [0, phase("tuning", 4)],
      [24_000, progress(2)],
    ]);
    expect(blockOf(state, 24_000, plain)[0]).toContain("12 s per step · 24 s left");
  });
});

describe("the live block", () => {
  const events = [
    [0, { type: "fit", report: fit }],
    [0, phase("tuning", 300)],
    [1000, stepEvent(1)],
    [2000, stepEvent(2)],
    [2000, evaluationEvent(2, 0.29)],
    [2000, progress(2)],
  ] as const;

  it("shows the phase, the divergences and every moment on its way", () => {
    expect(blockOf(play(events, live).state, 2000, live)).toEqual([
      "tuning  ▏▏                       ▕ 2/300 steps · 1.0 steps/s · 4 min 58 s left",
      "  KL(p,π) 0.5 · KL(p,q) 0.5 · KL(π,a) 0.1 · batch ESS 100  █▁",
      "  women 0.080 ▏████████        ▕ 0.50   policy 0.290 ± 0.010 · batch 0.29",
    ]);
  });

  it("does without Unicode", () => {
    const ascii = { ...live, unicode: false };
    expect(blockOf(play(events, ascii).state, 2000, ascii).join("")).toMatch(/^[\x20-\x7e]+$/);
  });
});

describe("createProgress", () => {
  /** One line up, and nothing from there on. */
  const erased = "\u001b[1A\u001b[0J";
  const record = (terminal: Terminal) => {
    let now = 0;
    const writes: string[] = [];
    const shown = createProgress(
      (text) => writes.push(text),
      () => terminal,
      () => now,
    );
    const at = (ms: number, event: RunEvent): void => {
      now = ms;
      shown.listen(event);
    };
    return { at, writes, shown };
  };

  it("redraws a live block at most ten times a second, over itself, and leaves a clean line", () => {
    const { at, writes, shown } = record({ ...live, width: 40 });
    at(0, phase("tuning", 1000));
    for (let ms = 1; ms <= 1000; ms++) at(ms, progress(ms));
    expect(writes.length).toBeLessThanOrEqual(11);
    expect(writes.length).toBeGreaterThan(5);
    expect(writes[1]!.startsWith(`${erased}tuning  `)).toBe(true);
    for (const text of writes) expect(text.replace(erased, "").length).toBeLessThanOrEqual(40);
    shown.finish();
    expect(writes.at(-1)).toBe(erased);
    shown.finish();
    expect(writes.at(-1)).toBe(erased);
  });

  it("puts lines that stay above the block", () => {
    const { at, writes, shown } = record(live);
    at(0, phase("tuning", 10));
    shown.say("hello");
    expect(writes.at(-1)!.startsWith(`${erased}hello\ntuning `)).toBe(true);
  });

  it("writes no escape sequence where nobody watches", () => {
    const { at, writes, shown } = record(plain);
    for (const [ms, event] of [
      [0, phase("a", 10)],
      [5000, progress(5)],
      [6000, stepEvent(1)],
    ] as const)
      at(ms, event);
    shown.say("bye");
    shown.finish();
    expect(writes.join("")).toBe("a: 5/10 steps, 1.0 steps/s, 5.0 s left\nbye\n");
  });
});

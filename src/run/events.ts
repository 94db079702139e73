/**
 * What a run tells whoever watches it. The run emits; terminals, files and pages listen. Nothing here has an effect of its own.
 */

import type { Evaluation, FitReport, StepMetrics } from "./metrics.ts";

export type RunEvent =
  /** A stage with a known amount of work begins ("sampling the base", "tuning", "evaluating"); ends when the next begins or with `phase-end`. */
  | { readonly type: "phase"; readonly name: string; readonly total: number; readonly unit: string }
  /** `done` of the current phase's total. */
  | { readonly type: "progress"; readonly done: number }
  | { readonly type: "phase-end"; readonly name: string; readonly seconds: number }
  | { readonly type: "fit"; readonly report: FitReport }
  | { readonly type: "step"; readonly metrics: StepMetrics; readonly targetMoments: Readonly<Record<string, number>> }
  | { readonly type: "evaluation"; readonly evaluation: Evaluation; readonly targetMoments: Readonly<Record<string, number>> }
  | { readonly type: "checkpoint"; readonly path: string; readonly step: number }
  /** Something a user should know that is no error: a resumed run, a clamped weight, a deep imbalance. */
  | { readonly type: "notice"; readonly message: string };

export type Listener = (event: RunEvent) => void;

/**
 * The records of a run, under the names of the run directory's contract. Divergences are in nats per sequence.
 * A number that was not computed is absent, never NaN.
 */

import type { Estimate } from "../base/numeric.ts";
import type { FitReport } from "../targets/fit.ts";

/** One optimizer step, as a line of metrics.jsonl. Means are over the step's training batch, drawn from the proposal. */
export interface StepMetrics {
  readonly kind: "step";
  /** 1 for the first. */
  readonly step: number;
  /** Sequences drawn so far, for every purpose. */
  readonly samples: number;
  /** Since the run began, resumed parts added up. */
  readonly seconds: number;
  readonly loss: number;
  readonly gradNorm: number;
  readonly learningRate: number;
  readonly logZ: number;
  readonly klTargetPolicy?: number;
  readonly klTargetProposal?: number;
  readonly moments: Readonly<Record<string, number>>;
  readonly advantageMean: number;
  readonly advantageMeanAbs: number;
  readonly advantageVariance: number;
  readonly ess: number;
  /** Weights that were clamped, in this batch. */
  readonly clampedWeights: number;
  readonly proposalUpdated: boolean;
  readonly sampleSeconds: number;
  readonly scoreSeconds: number;
  readonly trainSeconds: number;
}

/** Every measure of one model against one target, from `n` sequences drawn from that model. */
export interface Evaluation {
  readonly kind: "evaluation";
  readonly step: number;
  readonly samples: number;
  readonly seconds: number;
  readonly model: "policy" | "proposal" | "base";
  /** Sequences drawn. */
  readonly n: number;
  /** Nucleus of the sampling behind moments and text measures; 1 is the full softmax. Divergences are always at 1. */
  readonly topP: number;
  readonly moments: Readonly<Record<string, Estimate>>;
  readonly klTargetPolicy: Estimate;
  readonly klPolicyBase: Estimate;
  readonly tvTargetPolicy: Estimate;
  readonly logZ: Estimate;
  readonly ess: Estimate;
  /** Nats per sequence. */
  readonly entropy: Estimate;
  /** Per token, under the base. */
  readonly perplexity: Estimate;
  readonly distinct1: Estimate;
  readonly distinct2: Estimate;
  readonly distinct3: Estimate;
}

export type { FitReport };

/** summary.json */
export interface Summary {
  readonly before: Evaluation;
  readonly after: Evaluation;
  readonly target: FitReport;
  readonly steps: number;
  readonly seconds: number;
  readonly samples: number;
}

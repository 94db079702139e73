/**
 * The records of a run, under the names of the run directory's contract; what each means and how it is estimated is in docs/metrics.md.
 * Divergences are in nats per sequence. A number that was not computed is absent, never NaN.
 */

import type { Estimate } from "../base/numeric.ts";
import type { FitReport } from "../targets/fit.ts";
import type { GradientDiagnostics } from "../tuners/diagnostics.ts";

/** One optimizer step, as a line of metrics.jsonl. What it measures rests on the step's training batch, drawn from the proposal (q = pi on-policy). */
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
  /** Mean of each feature, and of the reward. */
  readonly moments: Readonly<Record<string, Estimate>>;
  /** KL(q, a): how far from the base the batch was drawn. */
  readonly klProposalBase: Estimate;
  /** Of the running estimate that the step was weighted with. This and the next three only where there is a target. */
  readonly logZ?: Estimate;
  readonly klTargetPolicy?: Estimate;
  readonly klTargetProposal?: Estimate;
  readonly ess?: number;
  readonly advantageMean: number;
  readonly advantageMeanAbs: number;
  readonly advantageVariance: number;
  /** Sequences of this batch whose weight was clamped, and their share. */
  readonly clampedWeights: number;
  readonly clampedShare: number;
  /** Whether the next batch comes from the policy as this step left it. */
  readonly proposalUpdated: boolean;
  /** beta, of methods with a KL penalty. */
  readonly klCoefficient?: number;
  /** PPO's two losses, per token. */
  readonly policyLoss?: number;
  readonly valueLoss?: number;
  /** Share of tokens whose ratio left the clip range (PPO, GRPO). */
  readonly clipFraction?: number;
  /** Share of the returns' variance that the value head explained before the step (PPO). */
  readonly explainedVariance?: number;
  /** GRPO's penalty per token. */
  readonly klPenalty?: number;
  /** Every `diagnostics.every` steps, before the update. */
  readonly diagnostics?: GradientDiagnostics;
  readonly sampleSeconds: number;
  readonly scoreSeconds: number;
  readonly trainSeconds: number;
}

/** Every measure of one model, from `n` sequences drawn from it; those against a target from these and as many of the base. */
export interface Evaluation {
  readonly kind: "evaluation";
  readonly step: number;
  readonly samples: number;
  readonly seconds: number;
  readonly model: "policy" | "proposal";
  /** Whether it is the average of the policy's weights over steps; absent: the weights as they are. */
  readonly averaged?: true;
  /** Sequences drawn. */
  readonly n: number;
  /** Nucleus of the sampling behind moments and text measures; 1 is the full softmax. Divergences are always at 1. */
  readonly topP: number;
  readonly moments: Readonly<Record<string, Estimate>>;
  readonly klPolicyBase: Estimate;
  /** These only where there is a target. "Policy" is the model that was measured. From its texts and the base's, as texts of their mixture. */
  readonly klTargetPolicy?: Estimate;
  readonly tvTargetPolicy?: Estimate;
  readonly jsTargetPolicy?: Estimate;
  readonly logZ?: Estimate;
  readonly ess?: Estimate;
  /** Nats per sequence. */
  readonly entropy: Estimate;
  /** Per token, under the base. */
  readonly perplexity: Estimate;
  readonly distinct1: Estimate;
  readonly distinct2: Estimate;
  readonly distinct3: Estimate;
  /** Self-BLEU of words, and of characters as the papers' published figures have it. */
  readonly selfBleu3: Estimate;
  readonly selfBleu4: Estimate;
  readonly selfBleu5: Estimate;
  readonly selfBleuCharacters3: Estimate;
  readonly selfBleuCharacters4: Estimate;
  readonly selfBleuCharacters5: Estimate;
}

export type { FitReport };

/** summary.json */
export interface Summary {
  readonly before: Evaluation;
  readonly after: Evaluation;
  /** Of the averaged weights, where the run averages. */
  readonly afterAverage?: Evaluation;
  /** Absent where the config has no target. */
  readonly target?: FitReport;
  readonly steps: number;
  readonly seconds: number;
  readonly samples: number;
}

/** Records of a run with made-up numbers, for tests of what is made of them. */

import type { Estimate } from "../../src/base/numeric.ts";
import type { Evaluation } from "../../src/run/metrics.ts";

export const estimateOf = (value: number, stdError = 0.01): Estimate => ({ value, stdError, n: 2048 });

/** An evaluation of 2,048 texts in which everything but the moments is the same. */
export const evaluationOf = (step: number, moments: Evaluation["moments"]): Evaluation => ({
  kind: "evaluation",
  step,
  samples: 1,
  seconds: 1,
  model: "policy",
  n: 2048,
  topP: 1,
  moments,
  klTargetPolicy: estimateOf(0.42, 0.03),
  klPolicyBase: estimateOf(0.1, 0.02),
  tvTargetPolicy: estimateOf(0.1),
  jsTargetPolicy: estimateOf(0.05),
  logZ: estimateOf(1),
  ess: estimateOf(100),
  entropy: estimateOf(30),
  perplexity: estimateOf(5),
  distinct1: estimateOf(0.5),
  distinct2: estimateOf(0.6),
  distinct3: estimateOf(0.7),
  selfBleu3: estimateOf(0.8),
  selfBleu4: estimateOf(0.7),
  selfBleu5: estimateOf(0.6),
  selfBleuCharacters3: estimateOf(0.99),
  selfBleuCharacters4: estimateOf(0.98),
  selfBleuCharacters5: estimateOf(0.97),
});

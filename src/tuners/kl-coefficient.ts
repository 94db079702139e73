/**
 * The weight beta of the KL penalty: fixed, or steered so that KL(pi, a) comes to a wanted value (Ziegler et al., arXiv 1909.08593, section 2.2;
 * docs/math.md M46).
 */

export interface KlControl {
  /** beta at the start, reward per nat. */
  readonly klCoefficient: number;
  readonly klControl: "fixed" | "adaptive";
  /** Wanted KL(pi, a), nats per sequence. */
  readonly klTarget: number;
  /** Sequences over which an error of 100% would about double beta; larger is slower. */
  readonly klHorizon: number;
}

/** At most this share of the error counts in one update. */
const errorLimit = 0.2;

/**
 * beta after a batch:  beta (1 + clip(KL/target - 1, -0.2, 0.2) n/horizon)
 * @param klPolicyBase KL(pi, a) of the batch, nats per sequence
 * @param samples      n, sequences in the batch
 */
export const nextKlCoefficient = (
  { klControl, klTarget, klHorizon }: KlControl,
  current: number,
  klPolicyBase: number,
  samples: number,
): number => {
  if (klControl === "fixed") return current;
  const error = Math.min(errorLimit, Math.max(-errorLimit, klPolicyBase / klTarget - 1));
  return current * (1 + (error * samples) / klHorizon);
};

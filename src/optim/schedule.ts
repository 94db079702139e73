/** Learning rates over steps: linear warm-up, then constant, linear or cosine decay to zero at the last step. */

export interface Schedule {
  readonly learningRate: number;
  /** Optimizer steps over which the rate grows linearly from learningRate / warmupSteps. */
  readonly warmupSteps: number;
  readonly schedule: "constant" | "linear" | "cosine";
  /** Last step; where decay reaches zero (one step later, so that the last step still moves). */
  readonly steps: number;
}

/** The learning rate of a step, the first of which is 1. */
export const learningRateAt = (step: number, { learningRate, warmupSteps, schedule, steps }: Schedule): number => {
  if (step <= warmupSteps) return (learningRate * step) / warmupSteps;
  if (schedule === "constant") return learningRate;
  const remaining = Math.max(0, (steps + 1 - step) / Math.max(1, steps + 1 - warmupSteps));
  return schedule === "linear" ? learningRate * remaining : learningRate * 0.5 * (1 - Math.cos(Math.PI * remaining));
};

/**
 * Distributional policy gradients: DPG, GDC and GDC++ as one method with its baseline as data (arXiv 1912.08517, 2012.11635, 2206.00761).
 *
 *   ascend  E_{x~q} [ A(x) grad log pi(x) ],   A = P/(Z q) - B,   B in { 0, 1, pi/q }
 *
 * which is the papers' update over Z (docs/math.md, DPG and baselines): B = 1 is their Z, unbiased only when q = pi; B = pi/q is their Z pi/q.
 * Not the deterministic policy gradient, which shares the letters.
 */

import { mean, variance } from "../base/numeric.ts";
import { f32, type HostTensor, scalar } from "../base/tensor.ts";
import type { Value } from "../engine/graph.ts";
import { constant, exp, minimum, mul, neg, stopGradient, sub, sum } from "../engine/ops/index.ts";
import type { Device } from "../engine/runtime/device.ts";
import type { SequenceModel } from "../models/causal-model.ts";
import { type AdamOptions, type AdamState, createOptimizer, type DeviceTensors, zerosOn } from "../optim/adam.ts";
import { microBatches, teacherForcing } from "../sampling/log-prob.ts";
import type { Samples } from "../sampling/samples.ts";
import { hasMass } from "../targets/ebm.ts";
import { effectiveSampleSize } from "../targets/partition.ts";
import { createTraining, type Objective } from "./training.ts";

export type Baseline = "none" | "z" | "z-policy-over-proposal";

/** B in units of P/(Zq), by name. One row per baseline. */
const baselines: Readonly<Record<Baseline, (policyOverProposal: Value) => Value>> = {
  none: () => constant(0),
  z: () => constant(1),
  "z-policy-over-proposal": (policyOverProposal) => policyOverProposal,
};

export interface DpgMethod {
  readonly baseline: Baseline;
  /** Upper bound of log P/(Zq) and log pi/q, nats; absent: never clamped. */
  readonly clampLogWeight?: number;
}

/**
 * Weight of each sequence's log-likelihood in the update.
 *
 * @param logTarget   log P(x), unnormalised; -Infinity where P(x) = 0   [B] nats
 * @param logProposal log q(x), the distribution x was drawn from        [B] nats
 * @param logPolicy   log pi(x); no gradient flows through it            [B] nats
 * @param logZ        log of the partition function of P                 scalar, nats
 * @returns advantage, in units of probability ratio                     [B]
 */
export const advantage = (
  method: DpgMethod,
  { logTarget, logProposal, logPolicy, logZ }: Readonly<Record<"logTarget" | "logProposal" | "logPolicy" | "logZ", Value>>,
): Value => {
  const ratio = (logRatio: Value): Value =>
    exp(method.clampLogWeight === undefined ? logRatio : minimum(logRatio, method.clampLogWeight));
  const targetOverProposal = ratio(sub(sub(logTarget, logZ), logProposal));
  const policyOverProposal = ratio(sub(stopGradient(logPolicy), logProposal));
  return sub(targetOverProposal, baselines[method.baseline](policyOverProposal));
};

/** loss = -scale sum_b A_b log pi(x_b): its gradient is minus the ascent direction. `scale` is 1 over the samples of the whole batch. */
export const dpgObjective = (method: DpgMethod): Objective => ({
  inputs: {
    logTarget: { dtype: "f32", shape: ["B"] },
    logProposal: { dtype: "f32", shape: ["B"] },
    logZ: { dtype: "f32", shape: [] },
    scale: { dtype: "f32", shape: [] },
  },
  build: ({ logPolicy }, inputs) => {
    const weight = advantage(method, { ...(inputs as Record<"logTarget" | "logProposal" | "logZ", Value>), logPolicy });
    return {
      loss: neg(mul(sum(mul(stopGradient(weight), logPolicy)), inputs["scale"]!)),
      outputs: { logPolicy, advantage: weight },
    };
  },
});

/** What a step learns from, beside the sequences. */
export interface ScoredSamples {
  readonly samples: Samples;
  /** log P(x) [B] nats; samples.logProbs is log q(x). */
  readonly logTarget: Float64Array;
  /** log Z to weigh with, estimated without these samples. */
  readonly logZ: number;
}

/** The part of a run that learning changes. */
export interface PolicyState {
  readonly weights: DeviceTensors;
  readonly adam: AdamState;
}

export interface DpgReport {
  readonly loss: number;
  /** Global norm before clipping. */
  readonly gradNorm: number;
  /** log pi(x) before the update [B] nats. */
  readonly logPolicy: Float64Array;
  /** Of A(x), in units of probability ratio. */
  readonly advantageMean: number;
  readonly advantageMeanAbs: number;
  readonly advantageVariance: number;
  /** Effective sample size of P/q in the batch. */
  readonly ess: number;
  /** Sequences whose weight was clamped. */
  readonly clampedWeights: number;
  /** Whether every number of the step is finite. Where not, `state` is what went in. */
  readonly finite: boolean;
}

export interface DpgTuner {
  start(weights: DeviceTensors): PolicyState;
  /** One optimizer step on one batch; what went in is not changed. `onProgress` hears the sequences done. */
  step(
    state: PolicyState,
    batch: ScoredSamples,
    learningRate: number,
    onProgress?: (done: number) => void,
  ): Promise<{ state: PolicyState; report: DpgReport }>;
  dispose(): Promise<void>;
}

const slice32 = (values: Float64Array, indices: Int32Array): HostTensor =>
  f32(
    [indices.length],
    Float32Array.from(indices, (i) => values[i]!),
  );

/** @param microBatch sequences per pass; a last, smaller one takes the rest */
export const createDpgTuner = async (
  device: Device,
  model: SequenceModel,
  method: DpgMethod,
  adam: AdamOptions,
  microBatch: number,
): Promise<DpgTuner> => {
  const training = await createTraining(device, model, dpgObjective(method));
  const optimizer = await createOptimizer(device, model.parameterShapes, adam);
  return {
    start: (weights) => ({ weights, adam: optimizer.start() }),
    step: async (state, { samples, logTarget, logZ }, learningRate, onProgress) => {
      const { count, logProbs } = samples;
      const logPolicy = new Float64Array(count);
      const advantages = new Float64Array(count);
      let gradients = zerosOn(device, model.parameterShapes);
      let loss = 0;
      for (const indices of microBatches(count, microBatch)) {
        const { gradients: next, outputs } = await training.accumulate(
          state.weights,
          gradients,
          teacherForcing(samples, indices),
          {
            logTarget: slice32(logTarget, indices),
            logProposal: slice32(logProbs, indices),
            logZ: scalar(logZ),
            scale: scalar(1 / count),
          },
        );
        gradients = next;
        loss += outputs["loss"]!.data[0]!;
        logPolicy.set(outputs["logPolicy"]!.data as Float32Array, indices[0]!);
        advantages.set(outputs["advantage"]!.data as Float32Array, indices[0]!);
        onProgress?.(indices[indices.length - 1]! + 1);
      }
      const updated = await optimizer.update(state.weights, gradients, state.adam, learningRate);
      const limit = method.clampLogWeight ?? Number.POSITIVE_INFINITY;
      const finite = Number.isFinite(loss) && Number.isFinite(updated.gradNorm);
      return {
        state: finite ? { weights: updated.weights, adam: updated.state } : state,
        report: {
          loss,
          gradNorm: updated.gradNorm,
          logPolicy,
          advantageMean: mean(advantages),
          advantageMeanAbs: mean(advantages.map(Math.abs)),
          advantageVariance: variance(advantages),
          ess: hasMass(logTarget) ? effectiveSampleSize(logTarget.map((value, i) => value - logProbs[i]!)).value : 0,
          clampedWeights: logTarget.filter((value, i) => Math.max(value - logZ, logPolicy[i]!) - logProbs[i]! > limit).length,
          finite,
        },
      };
    },
    dispose: async () => {
      await training.dispose();
      await optimizer.dispose();
    },
  };
};

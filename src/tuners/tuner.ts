/**
 * One tuner for every method: a batch in, passes over it in micro-batches, an optimizer update after each pass (or part of one), a report out.
 * State goes in and comes out. A step whose numbers are not finite is refused before anything is updated: what went in is still there.
 */

import { mean, variance } from "../base/numeric.ts";
import { type Key, permutation, streamOf } from "../base/random.ts";
import { f32, type HostTensor, scalar } from "../base/tensor.ts";
import { input } from "../engine/ops/index.ts";
import { type Device, disposeAll, uploadAll } from "../engine/runtime/device.ts";
import { parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
import { initialValueHead, withValueHead } from "../models/value-head.ts";
import { type AdamOptions, type AdamState, createOptimizer, type DeviceTensors, zerosOn } from "../optim/adam.ts";
import {
  byLength,
  everyIndex,
  microBatches,
  placeTokens,
  type TeacherForcing,
  takeTokens,
  teacherForcing,
} from "../sampling/log-prob.ts";
import type { Samples } from "../sampling/samples.ts";
import { hasMass } from "../targets/ebm.ts";
import { effectiveSampleSize } from "../targets/partition.ts";
import { type GradientDiagnostics, gradientDiagnostics } from "./diagnostics.ts";
import type { Controls, Method, MethodInputs, ScoredSamples } from "./method.ts";
import { createLaneTraining, createTraining, type Training } from "./training.ts";

/** The part of a run that learning changes. */
export interface TunerState {
  /** The policy's weights, and the value head's where the method has one. */
  readonly weights: DeviceTensors;
  readonly adam: AdamState;
  readonly controls: Controls;
}

export interface StepReport {
  /** Mean over the step's updates. */
  readonly loss: number;
  /** Global norm before clipping; mean over the step's updates. */
  readonly gradNorm: number;
  /** log pi(x) [B] nats, as the first pass found it. */
  readonly logPolicy: Float64Array;
  /** Of A on the first pass, in the method's own units; of every token for PPO, before whitening. */
  readonly advantageMean: number;
  readonly advantageMeanAbs: number;
  readonly advantageVariance: number;
  /** Effective sample size of P/q in the batch; absent without a target. */
  readonly ess?: number;
  /** Sequences whose ratios were clamped. */
  readonly clampedWeights: number;
  /** What else the method has to say, by name: klCoefficient, valueLoss, clipFraction, explainedVariance, ... */
  readonly measures: Readonly<Record<string, number>>;
  /** Whether every number of the step is finite. Where not, `state` is what went in. */
  readonly finite: boolean;
}

export interface TunerOptions {
  readonly adam: AdamOptions;
  /** Sequences per forward and backward pass; a last, smaller one takes the rest. */
  readonly microBatch: number;
  /** Passes over each batch. The weights stay exact: pi/q is worked out anew on each. */
  readonly epochs?: number;
  /** Optimizer updates per pass, each on an equal part of the batch; parts are drawn anew for each pass. */
  readonly miniBatches?: number;
  /** Of the parts; needed where there are several. */
  readonly shuffleKey?: Key;
  /** A step takes over the memory of the state that goes in, which must not be used any more unless the step was refused. */
  readonly inPlace?: boolean;
}

export interface Tuner {
  /** @param base samples of the base with their scores, for methods that start from what to expect of it (f-dpg) */
  start(weights: DeviceTensors, base?: ScoredSamples): TunerState;
  /** The policy's own weights, without a value head. */
  policyWeights(state: TunerState): DeviceTensors;
  /** One batch; what went in is not changed, unless `inPlace`. `onProgress` hears the sequences done, over all passes. */
  step(
    state: TunerState,
    batch: ScoredSamples,
    learningRate: number,
    onProgress?: (done: number) => void,
  ): Promise<{ state: TunerState; report: StepReport }>;
  /** How noisy the gradient is at this state: from the gradients of the first `count` sequences, one by one. */
  diagnose(state: TunerState, batch: ScoredSamples, count: number): Promise<GradientDiagnostics>;
  dispose(): Promise<void>;
}

/** V of each token [B, T], T = samples.maxTokens, by a forward pass of its own. */
const createCritic = async (device: Device, model: SequenceModel, microBatch: number) => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const parameters = parameterInputs(model);
  const program = await device.compile({
    inputs: { ...underInputNames(parameters), tokens },
    outputs: { values: model.tokenValues!(parameters, model.states(parameters, tokens)) },
  });
  return {
    values: async (weights: DeviceTensors, samples: Samples): Promise<Float32Array> => {
      const values = new Float32Array(samples.count * samples.maxTokens);
      for (const indices of microBatches(byLength(samples.lengths), microBatch)) {
        const batch = teacherForcing(samples, indices);
        const result = await program.run({ ...underInputNames(weights), tokens: batch.tokens });
        takeTokens((await result["values"]!.read()).data, samples, indices, batch, values);
      }
      return values;
    },
    dispose: () => program.dispose(),
  };
};

/** The inputs of one micro-batch: the method's, cut to its sequences, and the scale. */
const microInputs = (
  { sequences, tokens, numbers }: MethodInputs,
  samples: Samples,
  indices: Int32Array,
  batch: TeacherForcing,
  scale: number,
): Record<string, HostTensor> => {
  return {
    ...Object.fromEntries(
      Object.entries(sequences).map(([name, values]) => [
        name,
        f32(
          [indices.length],
          Float32Array.from(indices, (b) => values[b]!),
        ),
      ]),
    ),
    ...Object.fromEntries(
      Object.entries(tokens).map(([name, values]) => [
        name,
        f32([indices.length, batch.length], placeTokens(values, samples, indices, batch)),
      ]),
    ),
    ...Object.fromEntries(Object.entries(numbers).map(([name, value]) => [name, scalar(value)])),
    scale: scalar(scale),
  };
};

/** The parts of one pass: the whole batch in order, or parts of a random order, equal to within one sequence. */
const partsOf = (count: number, miniBatches: number, key: Key | undefined, update: number): Int32Array[] => {
  if (miniBatches === 1) return [everyIndex(count)];
  if (key === undefined) throw new Error("tuner: expected a shuffleKey with several miniBatches");
  const order = permutation(count, streamOf(key, update));
  const parts = Math.min(miniBatches, count);
  const edge = (part: number): number => Math.floor((part * count) / parts);
  return Array.from({ length: parts }, (_, part) => order.slice(edge(part), edge(part + 1)));
};

type Learnt = Pick<TunerState, "weights" | "adam">;

/** Gives a state's memory back, but for what another shares with it. */
const release = ({ weights, adam }: Learnt, other: Learnt): void => {
  const needed = [other.weights, other.adam.first, other.adam.second];
  for (const tensors of [weights, adam.first, adam.second]) disposeAll(tensors, needed);
};

export const createTuner = async (
  device: Device,
  model: SequenceModel,
  method: Method,
  options: TunerOptions,
): Promise<Tuner> => {
  const { adam, microBatch, epochs = 1, miniBatches = 1, shuffleKey, inPlace = false } = options;
  const whole = method.needs.valueHead ? withValueHead(model) : model;
  const training = await createLaneTraining(device, whole, method.objective);
  const optimizer = await createOptimizer(device, whole.parameterShapes, adam);
  const critic = method.needs.valueHead ? await createCritic(device, whole, microBatch) : undefined;
  let diagnosing: Promise<Training> | undefined;

  const prepare = async ({ weights, controls }: TunerState, batch: ScoredSamples): Promise<MethodInputs> =>
    method.inputs(batch, controls, await critic?.values(weights, batch.samples));

  return {
    start: (weights, base) => ({
      weights: method.needs.valueHead ? { ...weights, ...uploadAll(device, initialValueHead(model)) } : weights,
      adam: optimizer.start(),
      controls: method.begin(base),
    }),
    policyWeights: ({ weights }) => Object.fromEntries(Object.keys(model.parameterShapes).map((name) => [name, weights[name]!])),
    step: async (state, batch, learningRate, onProgress) => {
      const { samples } = batch;
      const { count } = samples;
      const given = await prepare(state, batch);
      /** What the objective says of each sequence on the first pass [B], by name. */
      const first: Record<string, Float64Array> = {};
      /** Scalars of the objective, added up over all updates. */
      const sums: Record<string, number> = {};
      let { weights, adam: moments } = state;
      let norms = 0;
      let done = 0;
      let passes = 0;
      let finite = true;
      passing: for (let epoch = 0; epoch < epochs; epoch++) {
        const parts = partsOf(count, miniBatches, shuffleKey, moments.step);
        for (const part of parts) {
          const pass = await training.gradients(
            weights,
            part.map((b) => samples.lengths[b]!),
            microBatch,
            (places) => {
              const indices = places.map((i) => part[i]!);
              const laidOut = teacherForcing(samples, indices);
              return { batch: laidOut, inputs: microInputs(given, samples, indices, laidOut, 1 / part.length) };
            },
            (sequences) => {
              done += sequences;
              onProgress?.(done);
            },
          );
          for (const { indices: places, outputs } of pass.pieces) {
            for (const [name, { shape, data }] of Object.entries(outputs)) {
              if (shape.length === 0) sums[name] = (sums[name] ?? 0) + data[0]!;
              else if (epoch === 0) {
                first[name] ??= new Float64Array(count);
                for (const [i, place] of places.entries()) first[name][part[place]!] = data[i]!;
              }
            }
          }
          passes++;
          const gradNorm = await optimizer.norm(pass.gradients);
          norms += gradNorm;
          finite = Number.isFinite(sums["loss"]) && Number.isFinite(gradNorm);
          if (finite) {
            // Of several updates the first leaves the state that went in, to go back to. Those in between belong to nobody else.
            const overwrite = passes > 1 || (inPlace && epochs * parts.length === 1);
            const updated = await optimizer.update(weights, pass.gradients, moments, { learningRate, gradNorm, overwrite });
            weights = updated.weights;
            moments = updated.state;
          }
          for (const found of pass.gradients) disposeAll(found);
          if (!finite) break passing;
        }
      }
      const { loss, ...measures } = Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, value / passes]));
      const gradNorm = norms / passes;
      if (!finite) release({ weights, adam: moments }, state);
      else if (inPlace) release(state, { weights, adam: moments });
      const advantages = given.advantages ?? first["advantage"]!;
      const { logTarget } = batch;
      return {
        state: finite ? { weights, adam: moments, controls: method.observe(state.controls, batch, first) } : state,
        report: {
          loss: loss!,
          gradNorm,
          logPolicy: first["logPolicy"]!,
          advantageMean: mean(advantages),
          advantageMeanAbs: mean(advantages.map(Math.abs)),
          advantageVariance: variance(advantages),
          ...(logTarget === undefined
            ? {}
            : {
                ess: hasMass(logTarget)
                  ? effectiveSampleSize(logTarget.map((value, b) => value - samples.logProbs[b]!)).value
                  : 0,
              }),
          clampedWeights: first["clamped"] === undefined ? 0 : first["clamped"].filter((cut) => cut === 1).length,
          measures: { ...given.measures, ...measures },
          finite,
        },
      };
    },
    diagnose: async (state, batch, count) => {
      diagnosing ??= createTraining(device, whole, method.objective, { norms: true });
      const held = await diagnosing;
      const given = await prepare(state, batch);
      return gradientDiagnostics(Math.min(count, batch.samples.count), zerosOn(device, whole.parameterShapes), (b, sofar) => {
        const indices = Int32Array.of(b);
        const forced = teacherForcing(batch.samples, indices);
        return held.accumulate(state.weights, sofar, forced, microInputs(given, batch.samples, indices, forced, 1));
      });
    },
    dispose: async () => {
      await training.dispose();
      await optimizer.dispose();
      await critic?.dispose();
      await (await diagnosing)?.dispose();
    },
  };
};

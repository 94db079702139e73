/**
 * What a prefix promises: F(x_<t) = E_a[ P(x)/(Z a(x)) | x_<t ] = p(x_<t)/a(x_<t), docs/math.md (M50). It depends on the base and the target alone, so
 * it is fitted once, to texts of the base, and holds for the whole run. It serves as a baseline, which may be wrong: an estimate costs variance only.
 */

import { mean, variance } from "../base/numeric.ts";
import { logisticRegression, ridge } from "../base/regression.ts";
import { f32 } from "../base/tensor.ts";
import type { Graph } from "../engine/graph.ts";
import { expand, gemm, input, mul, reshape } from "../engine/ops/index.ts";
import { type Device, type PlacedTensors, readAll } from "../engine/runtime/device.ts";
import { type Axis, timesAxes } from "../engine/shape.ts";
import { parameterInputs, type SequenceModel, underInputNames } from "../models/causal-model.ts";
import { freeze } from "../models/frozen.ts";
import { probeFeatures, probeSize } from "../models/prefix-probe.ts";
import { byLength, createScorer, defaultMicroBatch, microBatches, teacherForcing } from "../sampling/log-prob.ts";
import { rangeOf, type Samples } from "../sampling/samples.ts";

/** An estimate of F as plain numbers, so that JSON keeps it exactly. */
export interface PrefixValue {
  /** Of a probe of the base's states [2 D + 1]. */
  readonly probe: readonly number[];
  /** How the probe's number is taken to a place between the two ends of `range`: coefficients of `calibrationFeatures`, through a logistic function. */
  readonly calibration: readonly number[];
  /** Least and most of P/(Z a) among the texts it was fitted to, between which an expectation of it lies. */
  readonly range: readonly [least: number, most: number];
  /** Share of the variance of P/(Z a) that it explains, over the places of texts that the probe was not fitted to; at most 1. */
  readonly explained: number;
}

/** Texts that are enough, half for the probe and half to say how right it is (docs/log.md). */
export const prefixTexts = 2048;

/** Share of each feature's own square that is added: a tenth and ten times of it explained as much (docs/log.md). */
const penalty = 1e-3;

/** The normal equations of a probe on a micro-batch: `tokens`, `mask` [B, T] and what is to be said at every place of a text, `wanted` [B], in; `gram` and `moment` out. */
const normalEquations = (model: SequenceModel): Graph => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const mask = input("mask", "f32", ["B", "T"]);
  const wanted = input("wanted", "f32", ["B"]);
  const parameters = parameterInputs(model);
  const [batch, length] = tokens.shape as [Axis, Axis];
  const rows = timesAxes([batch, length]);
  const seen = mul(probeFeatures(model.states(parameters, tokens)), reshape(mask, [batch, length, 1]));
  const features = reshape(seen, [rows, probeSize(model.width)]);
  const wishes = reshape(expand(reshape(wanted, [batch, 1]), [batch, length]), [rows, 1]);
  return {
    inputs: { ...underInputNames(parameters), tokens, mask, wanted },
    outputs: {
      gram: gemm(features, features, undefined, { transposeA: true }),
      moment: gemm(features, wishes, undefined, { transposeA: true }),
    },
  };
};

/** What the chance is linear in, before the t-th token: the probe's number, and how early it is. */
const calibrationFeatures = (probed: number, t: number): readonly number[] => [probed, 1, probed / (t + 1), 1 / (t + 1)];

/** F before the t-th token, from the probe's number there. */
const readValue = (
  { calibration, range: [least, most] }: Omit<PrefixValue, "probe" | "explained">,
  probed: number,
  t: number,
): number => {
  const score = calibrationFeatures(probed, t).reduce((total, value, k) => total + value * calibration[k]!, 0);
  return least + (most - least) / (1 + Math.exp(-score));
};

/** log F(x_<t) of each token [B, T] nats, from what the probe said of it; 0 beyond a text's length. */
export const logPrefixValues = (value: PrefixValue, probed: Float32Array, samples: Samples): Float32Array => {
  const values = new Float32Array(probed.length);
  forEachToken(samples, (at, _b, t) => {
    values[at] = Math.log(readValue(value, probed[at]!, t));
  });
  return values;
};

/** Visits each token of each text: its place in [B, T], its text, its place there. */
const forEachToken = ({ count, maxTokens, lengths }: Samples, visit: (at: number, b: number, t: number) => void): void => {
  for (let b = 0; b < count; b++) for (let t = 0; t < lengths[b]!; t++) visit(b * maxTokens + t, b, t);
};

/** A probe fitted by least squares to what is wished of each text, each of its places counting once. */
const fitProbe = async (
  device: Device,
  model: SequenceModel,
  weights: PlacedTensors,
  samples: Samples,
  wishes: Float64Array,
  onProgress: (done: number) => void,
): Promise<number[]> => {
  const size = probeSize(model.width);
  const gram = new Float64Array(size * size);
  const moment = new Float64Array(size);
  const program = await freeze(device, model, weights, normalEquations(model));
  const batches = microBatches(byLength(samples.lengths), defaultMicroBatch);
  // Lanes work side by side, and what they find is added up in the order of the batches, whoever is first: the same sum every time.
  for (let i = 0; i < batches.length; i += program.lanes.length) {
    const round = batches.slice(i, i + program.lanes.length);
    const found = await Promise.all(
      round.map(async (indices, lane) => {
        const { tokens, mask, count, length } = teacherForcing(samples, indices);
        const wanted = Float32Array.from(indices, (b) => wishes[b]!);
        return readAll(
          await program.lanes[lane]!.run({ tokens, mask: f32([count, length], mask), wanted: f32([count], wanted) }),
        );
      }),
    );
    for (const part of found) {
      for (let k = 0; k < gram.length; k++) gram[k]! += part["gram"]!.data[k]!;
      for (let k = 0; k < size; k++) moment[k]! += part["moment"]!.data[k]!;
    }
    onProgress(Math.min(samples.count, (i + round.length) * defaultMicroBatch));
  }
  await program.dispose();
  return [...(await ridge(gram, moment, new Float64Array(size).fill(penalty).fill(0, size - 1)))];
};

/**
 * Fits F: a probe to half of the texts, and to the other half how its number is to be read, so that a probe that has learnt its texts by heart is
 * found out.
 * @param weights of the base
 * @param samples of the base; the first `prefixTexts` are looked at
 * @param ratios  P(x)/(Z a(x)) of each sample [B]
 */
export const fitPrefixValue = async (
  device: Device,
  model: SequenceModel,
  weights: PlacedTensors,
  samples: Samples,
  ratios: Float64Array,
  onProgress: (done: number) => void = () => {},
): Promise<PrefixValue> => {
  const count = Math.min(samples.count, prefixTexts);
  const half = Math.ceil(count / 2);
  const looked = ratios.subarray(0, count);
  const least = looked.reduce((a, b) => Math.min(a, b));
  const most = looked.reduce((a, b) => Math.max(a, b));
  const wishes = looked.map((ratio) => (most === least ? 0 : (ratio - least) / (most - least)));
  const probe = await fitProbe(device, model, weights, rangeOf(samples, 0, half), wishes, onProgress);
  const others = rangeOf(samples, half, count);
  const scorer = await createScorer(device, model, weights, defaultMicroBatch, probe);
  const { probed } = await scorer.score(others, (done) => onProgress(half + done));
  await scorer.dispose();
  const features: number[] = [];
  const wished: number[] = [];
  forEachToken(others, (at, b, t) => {
    features.push(...calibrationFeatures(probed![at]!, t));
    wished.push(wishes[half + b]!);
  });
  const calibration = [...(await logisticRegression(Float64Array.from(features), Float64Array.from(wished), 4))];
  const read = { calibration, range: [least, most] as const };
  const left: number[] = [];
  const spread: number[] = [];
  forEachToken(others, (at, b, t) => {
    left.push((ratios[half + b]! - readValue(read, probed![at]!, t)) ** 2);
    spread.push(ratios[half + b]!);
  });
  return { ...read, probe, explained: most === least ? 1 : 1 - mean(left) / variance(spread) };
};

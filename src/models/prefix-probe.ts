/**
 * A probe: a number for each prefix, read off what a model knows of it. It is linear in the model's state there and in the mean of its states so
 * far, which remembers what was said; its coefficients [2 D + 1] (state, mean, constant) are solved for, not learnt with the model.
 */

import type { Value } from "../engine/graph.ts";
import {
  add,
  cast,
  concat,
  constant,
  cumulativeSum,
  div,
  expand,
  gemm,
  iota,
  reshape,
  slice,
  transpose,
} from "../engine/ops/index.ts";
import { type Axis, timesAxes } from "../engine/shape.ts";

/** How many coefficients a probe of states of this width has. */
export const probeSize = (width: number): number => 2 * width + 1;

/** The mean of what came so far: [..., T] -> [..., T]. */
const meanSoFar = (x: Value): Value => div(cumulativeSum(x), add(cast(iota(x.shape.at(-1)!), "f32"), 1));

/** What a probe is linear in: states [B, T, D] -> [B, T, 2 D + 1]. */
export const probeFeatures = (states: Value): Value => {
  const [batch, length] = states.shape as [Axis, Axis, Axis];
  const lastTwoSwapped = [0, 2, 1];
  const means = transpose(meanSoFar(transpose(states, lastTwoSwapped)), lastTwoSwapped);
  return concat([states, means, expand(constant(1), [batch, length, 1])], 2);
};

/** The probe's number at each place: states [B, T, D] and its coefficients [2 D + 1] -> [B, T]. The same numbers as its features give, without making them. */
export const readProbe = (states: Value, coefficients: Value): Value => {
  const [batch, length, width] = states.shape as [Axis, Axis, number];
  const flat = reshape(states, [timesAxes([batch, length]), width]);
  const linear = reshape(slice(coefficients, 0, 0, 2 * width), [2, width]);
  const read = gemm(flat, linear, undefined, { transposeB: true });
  const part = (k: 0 | 1): Value => reshape(slice(read, 1, k, k + 1), [batch, length]);
  return add(add(part(0), meanSoFar(part(1))), reshape(slice(coefficients, 0, 2 * width, probeSize(width)), [1, 1]));
};

/**
 * Causal attention in two forms that compute the same numbers: over whole sequences, and for one new token against a cache.
 * Key/value heads may be fewer than query heads (arXiv 2305.13245); positions may be rotary (arXiv 2104.09864).
 */

import { f32 } from "../base/tensor.ts";
import type { Value } from "../engine/graph.ts";
import {
  add,
  concat,
  constant,
  div,
  exp,
  gatherRows,
  iota,
  less,
  lessOrEqual,
  matmul,
  max,
  maximum,
  mul,
  reshape,
  slice,
  softmax,
  sub,
  sum,
  transpose,
  where,
} from "../engine/ops/index.ts";
import type { Axis } from "../engine/shape.ts";
import type { ModelConfig } from "./config.ts";

/** Added to the score of a place that must not be seen: finite, so that no row can become NaN. */
const hidden = -1e9;

/** cos and sin of position * theta^(-2i/K), each [C, K/2]. */
const rotaryTables = ({ contextLength, headWidth, ropeTheta }: ModelConfig): readonly [Value, Value] => {
  const half = headWidth / 2;
  const angles = Float64Array.from(
    { length: contextLength * half },
    (_, i) => Math.floor(i / half) * ropeTheta ** ((-2 * (i % half)) / headWidth),
  );
  const tableOf = (f: (x: number) => number) => constant(f32([contextLength, half], Float32Array.from(angles, f)));
  return [tableOf(Math.cos), tableOf(Math.sin)];
};

/** x [..., P, H, K] rotated by its positions [P]: halves of each head are the two coordinates. */
const rotate = (config: ModelConfig, x: Value, positions: Value): Value => {
  const half = config.headWidth / 2;
  const [cosine, sine] = rotaryTables(config).map((held) =>
    reshape(gatherRows(held, positions), [...positions.shape, 1, half]),
  ) as [Value, Value];
  const first = slice(x, -1, 0, half);
  const second = slice(x, -1, half, config.headWidth);
  return concat([sub(mul(first, cosine), mul(second, sine)), add(mul(second, cosine), mul(first, sine))], -1);
};

/** Queries, keys and values of some tokens, as they come out of the linear layers: [N, H*K], [N, J*K], [N, J*K] with J key/value heads. */
export interface Projections {
  readonly query: Value;
  readonly key: Value;
  readonly value: Value;
}

/** Attends, and returns [N, H*K]. The layer number tells which cache to use. */
export type Attend = (layer: number, projections: Projections) => Value;

/** Attention of whole sequences: token t sees tokens 0 .. t. Right padding needs no mask, because nothing before it looks there. */
export const fullAttention = (config: ModelConfig, batch: Axis, tokens: Axis): Attend => {
  const { heads, keyValueHeads: groups, headWidth } = config;
  const perGroup = heads / groups;
  const scale = 1 / Math.sqrt(headWidth);
  const positions = iota(tokens);
  const visible = where(lessOrEqual(reshape(positions, [1, tokens]), reshape(positions, [tokens, 1])), 0, hidden);
  const split = (x: Value, count: number, rotary: boolean): Value => {
    const parted = reshape(x, [batch, tokens, count, headWidth]);
    return rotary && config.ropeTheta > 0 ? rotate(config, parted, positions) : parted;
  };
  return (_, { query, key, value }) => {
    const q = transpose(split(query, heads, true), [0, 2, 1, 3]);
    const k = transpose(split(key, groups, true), [0, 2, 1, 3]);
    const v = transpose(split(value, groups, false), [0, 2, 1, 3]);
    if (perGroup === 1) {
      const weights = softmax(add(matmul(q, k, { transposeB: true, scale }), visible));
      return reshape(transpose(matmul(weights, v), [0, 2, 1, 3]), query.shape);
    }
    // Query heads that share a key head are rows of one product: no key is repeated.
    const rows: Axis = typeof tokens === "number" ? perGroup * tokens : `${perGroup}*${tokens}`;
    const scores = reshape(matmul(reshape(q, [batch, groups, rows, headWidth]), k, { transposeB: true, scale }), [
      batch,
      heads,
      tokens,
      tokens,
    ]);
    const weights = reshape(softmax(add(scores, visible)), [batch, groups, rows, tokens]);
    return reshape(transpose(reshape(matmul(weights, v), [batch, heads, tokens, headWidth]), [0, 2, 1, 3]), query.shape);
  };
};

/** Keys and values of one layer's past tokens, [B, J, C, K]: room for C tokens, of which the first `position` are filled. */
export interface LayerCache {
  readonly key: Value;
  readonly value: Value;
}

/** Attention of one new token per sequence. The cache is only read; the new rows [B, J, K] are put in `rows` for the caller to store. */
export const cachedAttention = (
  config: ModelConfig,
  position: Value,
  caches: readonly LayerCache[],
  rows: LayerCache[],
): Attend => {
  const { heads, keyValueHeads: groups, headWidth } = config;
  const capacity = caches[0]!.key.shape[2]!;
  const batch = caches[0]!.key.shape[0]!;
  const visible = where(less(iota(capacity), position), 0, hidden);
  const turn = (x: Value, count: number, rotary: boolean): Value => {
    const parted = reshape(x, [batch, 1, count, headWidth]);
    return reshape(rotary && config.ropeTheta > 0 ? rotate(config, parted, position) : parted, [
      batch,
      groups,
      count / groups,
      headWidth,
    ]);
  };
  return (layer, { query, key, value }) => {
    const q = turn(mul(query, 1 / Math.sqrt(headWidth)), heads, true);
    const k = turn(key, groups, true);
    const v = turn(value, groups, false);
    rows[layer] = { key: reshape(k, [batch, groups, headWidth]), value: reshape(v, [batch, groups, headWidth]) };
    // Softmax over the cached places and the new one without joining them: both share one maximum and one sum.
    const past = add(matmul(q, caches[layer]!.key, { transposeB: true }), visible);
    const own = sum(mul(q, k), -1, { keep: true });
    const top = maximum(max(past, -1, { keep: true }), own);
    const pastWeights = exp(sub(past, top));
    const ownWeight = exp(sub(own, top));
    const total = add(sum(pastWeights, -1, { keep: true }), ownWeight);
    return reshape(div(add(mul(ownWeight, v), matmul(pastWeights, caches[layer]!.value)), total), query.shape);
  };
};

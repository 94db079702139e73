/**
 * Keyed counter-based randomness: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
 * A draw is a pure function of (seed, purpose, coordinates), so the order and the batching of draws never matter and
 * a resumed run needs no generator state beyond its step number.
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two unsigned 32-bit integers. */
const multiplyHigh = (a: number, b: number): number => {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle = aHigh * bLow + (low >>> 16);
  const carry = aLow * bHigh + (middle % 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
};

export type Counter = readonly [number, number, number, number];
export type Key = readonly [number, number];

/** One Philox4x32-10 block: four unsigned 32-bit integers. */
export const philox = (counter: Counter, key: Key): [number, number, number, number] => {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = multiplyHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
};

/** 32-bit FNV-1a hash of a name, to give each purpose a stream of its own. */
const hashName = (name: string): number => {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
};

/** The key of a purpose ("sampling", "shuffle", ...) under a seed. Seeds are non-negative integers below 2^32. */
export const keyOf = (seed: number, purpose: string): Key => [seed >>> 0, hashName(purpose)];

/** A 23-bit uniform strictly inside (0, 1): exact in float32, never 0, never 1. */
const toUniform = (bits: number): number => ((bits >>> 9) + 0.5) / 0x800000;

/** Uniform in (0, 1) at the given coordinates. */
export const uniformAt = (key: Key, a: number, b = 0, c = 0): number => toUniform(philox([a >>> 0, b >>> 0, c >>> 0, 0], key)[0]);

/** A stream of draws for one purpose, for places where coordinates have no natural meaning (shuffles, initial weights, grammars). */
export interface Stream {
  /** Uniform in (0, 1). */
  uniform(): number;
  /** Standard normal (Box-Muller). */
  normal(): number;
  /** Integer in 0 .. bound - 1. */
  integer(bound: number): number;
}

export const streamOf = (key: Key, a = 0, b = 0): Stream => {
  let block = 0;
  let index = 4;
  let bits: readonly number[] = [];
  const next = (): number => {
    if (index === 4) {
      bits = philox([a >>> 0, b >>> 0, block++ >>> 0, 1], key);
      index = 0;
    }
    return bits[index++]!;
  };
  const uniform = (): number => toUniform(next());
  return {
    uniform,
    normal: () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
    integer: (bound) => Math.floor((next() / 0x100000000) * bound),
  };
};

/** The numbers 0 .. length - 1 in random order (Fisher-Yates). */
export const permutation = (length: number, stream: Stream): Int32Array => {
  const order = Int32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = stream.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
};

/**
 * What a pass over a GPT-2 costs, counted as the products that the model needs and nothing else: norms, softmax, GELU, the optimizer and
 * whatever an implementation computes twice are time, not work. A multiply-add is two FLOPs.
 *
 *   forward    tokens (2 (L (3D² + D² + 2 D·inner) + D V) + L · 2 · 2 D · keys)
 *   training   3 forward: one for the values, two for the gradients by weights and by activations
 *
 * The second term of `forward` is attention: queries by keys, and weights by values, over `keys` places of each token.
 */

export interface Sizes {
  /** D */
  readonly width: number;
  /** L */
  readonly layers: number;
  /** Of the MLP's hidden layer; 4 D in GPT-2. */
  readonly innerWidth: number;
  /** V */
  readonly vocabularySize: number;
}

/** FLOPs of a forward pass over `tokens` tokens, each of which looks at `keys` places. */
export const forwardFlops = (
  { width: D, layers: L, innerWidth, vocabularySize: V }: Sizes,
  tokens: number,
  keys: number,
): number => {
  const weights = L * (3 * D * D + D * D + 2 * D * innerWidth) + D * V;
  const attention = L * 2 * (2 * D * keys);
  return tokens * (2 * weights + attention);
};

/** FLOPs of each kind of pass over `count` sequences of `length` tokens. Teacher forcing has the whole square of places; a cache has its lower half. */
export const passFlops = {
  scoring: (sizes: Sizes, count: number, length: number): number => forwardFlops(sizes, count * length, length),
  training: (sizes: Sizes, count: number, length: number): number => 3 * forwardFlops(sizes, count * length, length),
  generation: (sizes: Sizes, count: number, length: number): number => forwardFlops(sizes, count * length, (length + 1) / 2),
} as const;

/** Whether two programs compute the same model and the same loss; what differs is not worth timing. */

export interface Check {
  /** log p(x) of each row [n], nats. */
  readonly logProbs: readonly number[];
  /** -(1/n) sum A log p(x), nats. */
  readonly loss: number;
}

/**
 * Nats that a text's log-probability may differ by. It is a sum of 40 float32 numbers, of 300 to 700 nats in all: a rounding of the sum is 3e-5, and
 * logits that were summed in another order differ by some 1e-5 a token, in all directions. 2e-3 is ten times what that adds up to, and far below what
 * another GELU, another epsilon, or a place that is masked wrongly do: they start at 1e-2. The loss has |A| of at most 1, so the same holds for it.
 */
export const tolerance = 2e-3;

/** What differs, in words; undefined where nothing does. */
export const disagreement = (ours: Check, theirs: Check): string | undefined => {
  if (theirs.logProbs.length !== ours.logProbs.length)
    return `${theirs.logProbs.length} log-probabilities of ${ours.logProbs.length} texts`;
  const differences = ours.logProbs.map((value, i) => Math.abs(value - theirs.logProbs[i]!));
  const off = [...differences, Math.abs(ours.loss - theirs.loss)];
  // Not `>`: a NaN must not pass.
  const wrong = off.findIndex((difference) => !(difference <= tolerance));
  if (wrong < 0) return undefined;
  const what = wrong === ours.logProbs.length ? "the loss" : `log p of text ${wrong}`;
  const [mine, other] =
    wrong === ours.logProbs.length ? [ours.loss, theirs.loss] : [ours.logProbs[wrong], theirs.logProbs[wrong]];
  return `${what} is ${other}, ours is ${mine}: more than ${tolerance} nats apart`;
};

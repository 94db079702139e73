/** Which known word a misspelt one was meant to be, for the end of an error message. */

/** Number of single-character insertions, deletions, substitutions and swaps of neighbours that turn a into b (case ignored). */
export const editDistance = (a: string, b: string): number => {
  const [s, t] = [a.toLowerCase(), b.toLowerCase()];
  let beforeLast: number[] = [];
  let last = Array.from({ length: t.length + 1 }, (_, j) => j);
  for (let i = 1; i <= s.length; i++) {
    const row = [i];
    for (let j = 1; j <= t.length; j++) {
      const same = s[i - 1] === t[j - 1];
      let best = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && s[i - 1] === t[j - 2] && s[i - 2] === t[j - 1]) best = Math.min(best, beforeLast[j - 2]! + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[t.length]!;
};

/** The candidate that the reader most likely meant; undefined when none is near. */
export const nearest = (word: string, candidates: readonly string[]): string | undefined => {
  const reach = Math.max(1, Math.floor(Math.max(3, word.length) / 3));
  let best: { readonly candidate: string; readonly distance: number } | undefined;
  for (const candidate of candidates) {
    // A beginning of at least three letters counts as near: "micro" for microBatch.
    const begins = word.length >= 3 && candidate.toLowerCase().startsWith(word.toLowerCase());
    const distance = Math.min(editDistance(word, candidate), begins ? reach : Number.POSITIVE_INFINITY);
    if (distance <= reach && (best === undefined || distance < best.distance)) best = { candidate, distance };
  }
  return best?.candidate;
};

/** A fix for something chosen from a list. */
export const didYouMean = (word: unknown, candidates: readonly string[], otherwise: string): string => {
  const candidate = typeof word === "string" ? nearest(word, candidates) : undefined;
  return candidate === undefined ? otherwise : `did you mean "${candidate}"?`;
};

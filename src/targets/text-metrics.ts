/**
 * Diversity of texts: distinct-n (Li et al., arXiv 1510.03055), as the papers of this method compute it (docs/math.md M20).
 */

import { type Estimate, meanEstimate } from "../base/numeric.ts";
import { wordsOf } from "./features/words.ts";

/**
 * distinct-n at word level: per text, the number of different n-grams of its words divided by the number of its WORDS (not of its
 * n-grams, so distinct-2 of "a b" is 1/2), averaged over texts. A text with fewer than n words, an empty one too, counts 0. Words are
 * those of `wordsOf`, as written.
 */
export const distinct = (texts: readonly string[], n: 1 | 2 | 3): Estimate =>
  meanEstimate(
    texts.map((text) => {
      const words = wordsOf(text);
      const grams = new Set<string>();
      for (let i = 0; i + n <= words.length; i++) grams.add(words.slice(i, i + n).join(" "));
      return words.length === 0 ? 0 : grams.size / words.length;
    }),
  );

/**
 * Diversity of texts: distinct-n (Li et al., arXiv 1510.03055), as the papers of this method compute it (docs/math.md M20), and
 * self-BLEU (Zhu et al., arXiv 1802.01886; docs/math.md M29).
 */

import { runtimeError } from "../base/errors.ts";
import { type Estimate, mean, meanEstimate } from "../base/numeric.ts";
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

/** What a text is a sequence of: its words (`wordsOf`, as written), or all its Unicode code points, spaces among them. */
export type TextUnit = "words" | "characters";

const unitsOf: Readonly<Record<TextUnit, (text: string) => string[]>> = { words: wordsOf, characters: (text) => [...text] };

/** The texts that self-BLEU compares: the first so many. It grows with their number, so two figures compare only at the same one. */
export const selfBleuTexts = 500;

/** What a precision without any match counts as, in matches (Chen and Cherry 2014, method 1). */
const smallestMatch = 0.1;

/** The n-grams of each text as numbers: equal n-grams, equal numbers, all below `kinds`. */
interface Grams {
  readonly ids: readonly (readonly number[])[];
  readonly kinds: number;
}

const numbered = <Gram>(texts: readonly (readonly Gram[])[]): Grams => {
  const known = new Map<Gram, number>();
  const idOf = (gram: Gram): number => {
    const id = known.get(gram) ?? known.size;
    known.set(gram, id);
    return id;
  };
  return { ids: texts.map((grams) => grams.map(idOf)), kinds: known.size };
};

/** An n-gram is the two (n-1)-grams that it begins and ends with. */
const oneLonger = ({ ids, kinds }: Grams): Grams =>
  numbered(ids.map((grams) => grams.slice(1).map((last, i) => grams[i]! * kinds + last)));

/**
 * Matches of each text with the others: an n-gram counts as often as it occurs in the text, but no more often than in the one other text
 * that has it most. That is the second largest count over all texts for the text with the largest, and no limit for any other, so
 * no text need be compared with another.
 */
const clippedMatches = ({ ids, kinds }: Grams): number[] => {
  const counts = ids.map((grams) => {
    const count = new Map<number, number>();
    for (const gram of grams) count.set(gram, (count.get(gram) ?? 0) + 1);
    return count;
  });
  const [largest, second] = [new Int32Array(kinds), new Int32Array(kinds)];
  for (const count of counts) {
    for (const [gram, times] of count) {
      second[gram] = Math.max(second[gram]!, Math.min(times, largest[gram]!));
      largest[gram] = Math.max(largest[gram]!, times);
    }
  }
  return counts.map((count) => {
    let matches = 0;
    for (const [gram, times] of count) matches += Math.min(times, second[gram]!);
    return matches;
  });
};

/** The length among the others that is closest to each length, the shorter of two: a neighbour in the order of lengths. */
const closestOthers = (lengths: readonly number[]): number[] => {
  const order = lengths.map((_, i) => i).sort((i, j) => lengths[i]! - lengths[j]!);
  const closest: number[] = [];
  for (const [rank, i] of order.entries()) {
    const below = lengths[order[rank - 1]!] ?? Number.NEGATIVE_INFINITY;
    const above = lengths[order[rank + 1]!] ?? Number.POSITIVE_INFINITY;
    closest[i] = above - lengths[i]! < lengths[i]! - below ? above : below;
  }
  return closest;
};

/** The n of self-BLEU-n. */
export type SelfBleuOrder = 3 | 4 | 5;

/**
 * The BLEU (Papineni et al. 2002) of each text with all others as its references, up to n-grams of 3, 4 and 5 units:
 *
 *   BLEU-n = min(1, exp(1 - r/c)) prod_{k=1..n} p_k^(1/n)                                                        docs/math.md (M29)
 *
 * 1 for a text that has a twin, near 0 for one that shares no phrase with any other; 0 for one that shares no unit, and for an empty one.
 * Only the first `selfBleuTexts` texts are looked at.
 * @throws TiltError (runtime) for fewer than two texts
 */
export const bleuOfEach = (texts: readonly string[], unit: TextUnit): Readonly<Record<SelfBleuOrder, readonly number[]>> => {
  const units = texts.slice(0, selfBleuTexts).map(unitsOf[unit]);
  if (units.length < 2) {
    const fix = "draw more samples: a single text has nothing to be compared with";
    throw runtimeError({ where: "self-BLEU", expected: "at least 2 texts", got: `${units.length}`, fix });
  }
  const lengths = units.map(({ length }) => length);
  const logBrevity = closestOthers(lengths).map((closest, i) => Math.min(0, 1 - closest / lengths[i]!));
  const grams = [numbered(units)];
  while (grams.length < 5) grams.push(oneLonger(grams.at(-1)!));
  const matches = grams.map(clippedMatches);
  const logPrecisions = grams.map(({ ids }, k) =>
    ids.map(({ length }, i) => Math.log((matches[k]![i]! || smallestMatch) / Math.max(1, length))),
  );
  const bleu = (n: number): number[] =>
    lengths.map((_, i) =>
      matches[0]![i] === 0 ? 0 : Math.exp(logBrevity[i]! + mean(logPrecisions.slice(0, n).map((ofTexts) => ofTexts[i]!))),
    );
  return { 3: bleu(3), 4: bleu(4), 5: bleu(5) };
};

/**
 * Self-BLEU-3, -4 and -5: the mean of `bleuOfEach`. The standard error is that of a mean of independent scores; the texts are each
 * other's references, so it is approximate.
 * @throws TiltError (runtime) for fewer than two texts
 */
export const selfBleus = (texts: readonly string[], unit: TextUnit): Readonly<Record<SelfBleuOrder, Estimate>> => {
  const scores = bleuOfEach(texts, unit);
  return { 3: meanEstimate(scores[3]), 4: meanEstimate(scores[4]), 5: meanEstimate(scores[5]) };
};

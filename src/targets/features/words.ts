/**
 * The one word splitter of the package, and the features that ask for words.
 *
 * A word is a maximal run of Unicode letters, marks and digits; single apostrophes and hyphens join such runs ("don't",
 * "twenty-one"). All else separates. A typographic apostrophe counts as a plain one. So "Lily's" is one word and is not "Lily".
 */

import { usageError } from "../../base/errors.ts";
import type { Sequence } from "../../sampling/samples.ts";

const wordPattern = /[\p{L}\p{M}\p{N}]+(?:['-][\p{L}\p{M}\p{N}]+)*/gu;

/** The words of a text in order, as written. */
export const wordsOf = (text: string): string[] => text.replace(/[’ʼ]/gu, "'").match(wordPattern) ?? [];

/** 1 where the word occurs as a whole word; case-sensitive unless told otherwise. */
export interface WordSpec {
  readonly kind: "word";
  readonly word: string;
  readonly caseSensitive?: boolean | undefined;
}

/** 1 where any of the words occurs as a whole word; case-sensitive unless told otherwise. */
export interface WordsSpec {
  readonly kind: "words";
  readonly words: readonly string[];
  readonly caseSensitive?: boolean | undefined;
}

/**
 * How words are compared: as written, or in lower case.
 * @throws TiltError (usage) for an entry that the splitter would never give, such as "New York" or "author ": it could never match
 */
export const wordMatcher = (name: string, words: readonly string[], caseSensitive: boolean): ((word: string) => boolean) => {
  if (words.length === 0) {
    throw usageError({
      where: `feature "${name}"`,
      expected: "at least one word",
      got: "an empty list",
      fix: "name the words to look for",
    });
  }
  const fold = (word: string): string => (caseSensitive ? word : word.toLowerCase());
  const wanted = words.map((word) => {
    const [only, ...others] = wordsOf(word);
    if (only === undefined || others.length > 0 || only.length !== word.length) {
      throw usageError({
        where: `feature "${name}"`,
        expected: "single words of letters, digits, inner apostrophes and hyphens",
        got: JSON.stringify(word),
        fix: "write one word without spaces, or use kind: regex",
      });
    }
    return fold(only);
  });
  const set = new Set(wanted);
  return (word) => set.has(fold(word));
};

export const anyWord = (name: string, words: readonly string[], caseSensitive = true): ((sequence: Sequence) => boolean) => {
  const matches = wordMatcher(name, words, caseSensitive);
  return ({ text }) => wordsOf(text).some(matches);
};

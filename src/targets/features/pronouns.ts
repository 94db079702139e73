/**
 * The gender that a text's pronouns speak of: more male ones than female is male, fewer is female, as many is other.
 *
 * Counted by default: he, him, his, himself against she, her, hers, herself, in any case. A contraction counts as its first part
 * ("he's", "she'll"). The papers (arXiv 2012.11635, 2206.00761) count fewer: their definition is
 * `{ kind: "pronouns", label: "female", caseSensitive: true, male: ["he", "him", "himself"], female: ["she", "her", "herself"] }`
 * (their tokeniser, NLTK's, differs from ours on rare punctuation only).
 */

import type { Sequence } from "../../sampling/samples.ts";
import { wordMatcher, wordsOf } from "./words.ts";

export interface PronounsSpec {
  readonly kind: "pronouns";
  readonly label: "male" | "female" | "other";
  /** Default false. */
  readonly caseSensitive?: boolean | undefined;
  /** The words that count as male, instead of he, him, his, himself. */
  readonly male?: readonly string[] | undefined;
  /** The words that count as female, instead of she, her, hers, herself. */
  readonly female?: readonly string[] | undefined;
}

/** 1 where the text's label is the wanted one. */
export const pronounLabel = (name: string, spec: PronounsSpec): ((sequence: Sequence) => boolean) => {
  const isMale = wordMatcher(name, spec.male ?? ["he", "him", "his", "himself"], spec.caseSensitive ?? false);
  const isFemale = wordMatcher(name, spec.female ?? ["she", "her", "hers", "herself"], spec.caseSensitive ?? false);
  return ({ text }) => {
    let surplus = 0;
    for (const word of wordsOf(text)) {
      const stem = word.split("'", 1)[0]!;
      if (isMale(stem)) surplus++;
      if (isFemale(stem)) surplus--;
    }
    return spec.label === (surplus > 0 ? "male" : surplus < 0 ? "female" : "other");
  };
};

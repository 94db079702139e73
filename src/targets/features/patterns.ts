/** Features of a text's shape: a regular expression it matches, and its length. */

import { messageOf, usageError } from "../../base/errors.ts";
import type { Sequence } from "../../sampling/samples.ts";
import { wordsOf } from "./words.ts";

/** 1 where the JavaScript regular expression matches somewhere in the text. */
export interface RegexSpec {
  readonly kind: "regex";
  readonly pattern: string;
  /** Any of d, i, m, s, u, v. Not g and not y: they make a match depend on the matches before it. */
  readonly flags?: string | undefined;
}

/** The length, or with `min` or `max` (both inclusive): 1 where it lies within. */
export interface LengthSpec {
  readonly kind: "length";
  /** `tokens` (default): generated tokens, a generated end token included. `words`: words of the text. */
  readonly unit?: "tokens" | "words" | undefined;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
}

/** @throws TiltError (usage) for a pattern that does not compile, or a flag g or y */
export const regexMatch = (name: string, { pattern, flags = "" }: RegexSpec): ((sequence: Sequence) => boolean) => {
  const where = `feature "${name}"`;
  if (/[gy]/.test(flags)) {
    throw usageError({
      where,
      expected: "flags without g and y",
      got: JSON.stringify(flags),
      fix: "remove them: one match is enough",
    });
  }
  try {
    const regex = new RegExp(pattern, flags);
    return ({ text }) => regex.test(text);
  } catch (error) {
    throw usageError(
      { where, expected: "a JavaScript regular expression", got: messageOf(error), fix: "correct the pattern" },
      error,
    );
  }
};

/** Whether the spec asks for a range (a binary feature) and not for the length itself. */
export const isLengthRange = ({ min, max }: LengthSpec): boolean => min !== undefined || max !== undefined;

/** @throws TiltError (usage) where min is above max, so that nothing could match */
export const lengthOf = (name: string, spec: LengthSpec): ((sequence: Sequence) => number) => {
  const { unit = "tokens", min = 0, max = Number.POSITIVE_INFINITY } = spec;
  if (!(min <= max)) {
    throw usageError({
      where: `feature "${name}"`,
      expected: "min <= max",
      got: `min ${min}, max ${max}`,
      fix: "swap or change them",
    });
  }
  const measure = ({ text, ids }: Sequence): number => (unit === "tokens" ? ids.length : wordsOf(text).length);
  if (!isLengthRange(spec)) return measure;
  return (sequence) => {
    const length = measure(sequence);
    return min <= length && length <= max ? 1 : 0;
  };
};

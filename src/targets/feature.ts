/**
 * Features phi_i(x): what a target may ask of a sequence. Each kind is a row of one table; a spec is plain data.
 * Features see the decoded text and the ids (`Sequence`), never a model.
 */

import { usageError } from "../base/errors.ts";
import { type Estimate, meanEstimate } from "../base/numeric.ts";
import type { Sequence } from "../sampling/samples.ts";
import { checkedValues, evaluatorOf, type UserFunction, type Value } from "./deadline.ts";
import { isLengthRange, type LengthSpec, lengthOf, type RegexSpec, regexMatch } from "./features/patterns.ts";
import { type PronounsSpec, pronounLabel } from "./features/pronouns.ts";
import { anyWord, type WordSpec, type WordsSpec } from "./features/words.ts";

export interface Feature {
  readonly name: string;
  /** Whether every value is 0 or 1; only such a feature can be a hard constraint. */
  readonly binary: boolean;
  /** phi(x) of each sequence [B]. @throws TiltError (runtime) naming the feature */
  values(sequences: readonly Sequence[]): Promise<Float64Array>;
}

/** A function of the user's own. */
export interface FunctionSpec extends UserFunction {
  readonly kind: "function";
  /** Whether it returns booleans or 0 and 1; default true. */
  readonly binary?: boolean | undefined;
}

export type FeatureSpec = WordSpec | WordsSpec | RegexSpec | PronounsSpec | LengthSpec | FunctionSpec;

interface Evaluator {
  readonly binary: boolean;
  evaluate(sequences: readonly Sequence[]): ArrayLike<Value> | Promise<ArrayLike<Value>>;
}

const each = (binary: boolean, value: (sequence: Sequence) => Value): Evaluator => ({
  binary,
  evaluate: (sequences) => sequences.map(value),
});

/** How each kind of spec becomes values: a kind without a row does not compile. */
const kinds: { readonly [K in FeatureSpec["kind"]]: (name: string, spec: Extract<FeatureSpec, { kind: K }>) => Evaluator } = {
  word: (name, spec) => each(true, anyWord(name, [spec.word], spec.caseSensitive)),
  words: (name, spec) => each(true, anyWord(name, spec.words, spec.caseSensitive)),
  regex: (name, spec) => each(true, regexMatch(name, spec)),
  pronouns: (name, spec) => each(true, pronounLabel(name, spec)),
  length: (name, spec) => each(isLengthRange(spec), lengthOf(name, spec)),
  function: (name, { binary = true, ...spec }) => ({ binary, evaluate: evaluatorOf(`feature "${name}"`, spec) }),
};

/**
 * The feature that a spec describes.
 * @throws TiltError (usage) for a spec that cannot work
 */
export const createFeature = (name: string, spec: FeatureSpec): Feature => {
  const row = kinds[spec.kind] as ((name: string, spec: FeatureSpec) => Evaluator) | undefined;
  if (row === undefined) {
    const known = Object.keys(kinds).join(", ");
    throw usageError({
      where: `feature "${name}"`,
      expected: `a kind among ${known}`,
      got: `"${spec.kind}"`,
      fix: "choose one of them",
    });
  }
  const { binary, evaluate } = row(name, spec);
  const values = (sequences: readonly Sequence[]) =>
    checkedValues(`feature "${name}"`, binary, sequences.length, () => evaluate(sequences));
  return { name, binary, values };
};

/** The values of F features on B sequences. */
export interface FeatureMatrix {
  readonly names: readonly string[];
  /** Per feature [F]: whether all its values are 0 or 1 by declaration. */
  readonly binary: readonly boolean[];
  /** B. */
  readonly count: number;
  /** [B, F]. */
  readonly values: Float64Array;
}

/** phi(x) of every sequence under every feature. @throws TiltError (runtime) naming the feature that failed */
export const featureMatrix = async (features: readonly Feature[], sequences: readonly Sequence[]): Promise<FeatureMatrix> => {
  const values = new Float64Array(sequences.length * features.length);
  for (const [f, feature] of features.entries()) {
    const column = await feature.values(sequences);
    for (let b = 0; b < sequences.length; b++) values[b * features.length + f] = column[b]!;
  }
  return {
    names: features.map(({ name }) => name),
    binary: features.map(({ binary }) => binary),
    count: sequences.length,
    values,
  };
};

/** One feature's values [B]. */
export const columnOf = ({ names, count, values }: FeatureMatrix, f: number): Float64Array =>
  Float64Array.from({ length: count }, (_, b) => values[b * names.length + f]!);

/** The mean of each feature over the sequences, with standard errors: the moments of the distribution they were drawn from. */
export const momentEstimates = (matrix: FeatureMatrix): Record<string, Estimate> =>
  Object.fromEntries(matrix.names.map((name, f) => [name, meanEstimate(columnOf(matrix, f))]));

/**
 * Features phi_i(x): what a target may ask of a sequence. Each kind is a row of one table; a spec is plain data.
 * Features see the decoded text and the ids (`Sequence`), never a model.
 */

import { messageOf, runtimeError, usageError } from "../base/errors.ts";
import { type Estimate, meanEstimate } from "../base/numeric.ts";
import type { Sequence } from "../sampling/samples.ts";
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

type Value = number | boolean;

/** A function of the user's own; exactly one of `perSample` (awaited one after the other) and `perBatch` is given. */
export interface FunctionSpec {
  readonly kind: "function";
  /** Whether it returns booleans or 0 and 1; default true. */
  readonly binary?: boolean | undefined;
  readonly perSample?: ((sequence: Sequence) => Value | Promise<Value>) | undefined;
  readonly perBatch?: ((sequences: readonly Sequence[]) => ArrayLike<Value> | Promise<ArrayLike<Value>>) | undefined;
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

const ofFunction = (name: string, { binary = true, perSample, perBatch }: FunctionSpec): Evaluator => {
  if (perBatch !== undefined && perSample === undefined) return { binary, evaluate: perBatch };
  if (perSample !== undefined && perBatch === undefined) {
    const evaluate = async (sequences: readonly Sequence[]): Promise<Value[]> => {
      const values: Value[] = [];
      for (const sequence of sequences) values.push(await perSample(sequence));
      return values;
    };
    return { binary, evaluate };
  }
  throw usageError({
    where: `feature "${name}"`,
    expected: "one function, perSample or perBatch",
    got: perSample === undefined ? "neither" : "both",
    fix: "give exactly one",
  });
};

/** How each kind of spec becomes values: a kind without a row does not compile. */
const kinds: { readonly [K in FeatureSpec["kind"]]: (name: string, spec: Extract<FeatureSpec, { kind: K }>) => Evaluator } = {
  word: (name, spec) => each(true, anyWord(name, [spec.word], spec.caseSensitive)),
  words: (name, spec) => each(true, anyWord(name, spec.words, spec.caseSensitive)),
  regex: (name, spec) => each(true, regexMatch(name, spec)),
  pronouns: (name, spec) => each(true, pronounLabel(name, spec)),
  length: (name, spec) => each(isLengthRange(spec), lengthOf(name, spec)),
  function: ofFunction,
};

const validated = (name: string, binary: boolean, raw: ArrayLike<Value>, count: number): Float64Array => {
  const complain = (expected: string, got: string, fix: string) =>
    runtimeError({ where: `feature "${name}"`, expected, got, fix });
  if (typeof raw !== "object" || raw === null || raw.length !== count) {
    throw complain(`${count} values, one per sequence`, `${raw?.length ?? raw}`, "return an array in the order of the sequences");
  }
  return Float64Array.from({ length: count }, (_, b) => {
    const value: unknown = raw[b];
    if ((typeof value !== "number" && typeof value !== "boolean") || !Number.isFinite(Number(value))) {
      throw complain("finite numbers or booleans", `${value} for sequence ${b}`, "check the function on that sequence");
    }
    if (binary && Number(value) !== 0 && Number(value) !== 1) {
      throw complain("0 or 1", `${value} for sequence ${b}`, "declare binary: false if it is meant to be real-valued");
    }
    return Number(value);
  });
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
  const values = async (sequences: readonly Sequence[]): Promise<Float64Array> => {
    let raw: ArrayLike<Value>;
    try {
      raw = await evaluate(sequences);
    } catch (error) {
      const fix = "correct the function, or catch what it may meet";
      throw runtimeError(
        { where: `feature "${name}"`, expected: "values", got: `an exception: ${messageOf(error)}`, fix },
        error,
      );
    }
    return validated(name, binary, raw, sequences.length);
  };
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

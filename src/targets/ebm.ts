/**
 * Energy-based targets as data: p(x) = P(x)/Z with
 *
 *   P(x) = a(x) prod_{i hard} 1[phi_i(x) = mu_i] exp(sum_{i soft} lambda_i phi_i(x))        docs/math.md (M1), arXiv 2012.11635
 *
 * A moment of 0 or 1 of a binary feature is hard: a violation has no mass at all, where the papers give it a large finite
 * coefficient and leave it some. Pointwise, distributional and hybrid targets are this one formula.
 */

import { runtimeError, usageError } from "../base/errors.ts";
import { didYouMean } from "../base/suggestion.ts";
import type { FeatureMatrix } from "./feature.ts";

/** Whether any of the log-masses is of a sequence with P(x) > 0; estimates of Z and of divergences need one. */
export const hasMass = (logMasses: Float64Array): boolean => !logMasses.every((value) => value === Number.NEGATIVE_INFINITY);

/** What a user asks for. */
export interface TargetSpec {
  /** Wanted expectation of each named feature. */
  readonly moments: Readonly<Record<string, number>>;
}

/** phi_i(x) must equal the value. */
export interface HardConstraint {
  /** Index into the target's names. */
  readonly index: number;
  readonly value: 0 | 1;
}

/** A target in numbers; plain data, so that JSON keeps it exactly. */
export interface Target {
  /** The features with a wanted moment [F]. */
  readonly names: readonly string[];
  readonly hard: readonly HardConstraint[];
  /** lambda_i [F], nats per unit of the feature; 0 at hard ones. */
  readonly coefficients: readonly number[];
  /** log Z as fitted, nats. */
  readonly logZ: number;
}

/** A wanted moment, resolved against the features it speaks of. */
export interface Constraint {
  readonly name: string;
  /** Column of the feature matrix. */
  readonly column: number;
  readonly moment: number;
  readonly binary: boolean;
  /** Whether the moment allows no violation: 0 or 1 of a binary feature. */
  readonly hard: boolean;
}

/**
 * The constraints of a spec, in the order of the features.
 * @throws TiltError (usage) for no moment at all, an unknown feature, or a moment that no distribution can have
 */
export const constraintsOf = (spec: TargetSpec, { names, binary }: Pick<FeatureMatrix, "names" | "binary">): Constraint[] => {
  const wanted = Object.entries(spec.moments);
  if (wanted.length === 0) {
    throw usageError({
      where: "target.moments",
      expected: "at least one wanted moment",
      got: "none",
      fix: "name a feature and its moment",
    });
  }
  for (const [name, moment] of wanted) {
    const where = `target.moments.${name}`;
    const column = names.indexOf(name);
    if (column < 0) {
      throw usageError({
        where,
        expected: `one of the features ${names.join(", ")}`,
        got: `"${name}"`,
        fix: didYouMean(name, names, "define the feature or remove the moment"),
      });
    }
    if (!Number.isFinite(moment)) {
      throw usageError({ where, expected: "a finite number", got: `${moment}`, fix: "write the wanted expectation" });
    }
    if (binary[column] && !(moment >= 0 && moment <= 1)) {
      const fix = "write the wanted share as a fraction, such as 0.05 for 5%";
      throw usageError({ where, expected: "a moment between 0 and 1, because the feature is 0 or 1", got: `${moment}`, fix });
    }
  }
  const constraints = wanted.map(([name, moment]) => {
    const column = names.indexOf(name);
    return { name, column, moment, binary: binary[column]!, hard: binary[column]! && (moment === 0 || moment === 1) };
  });
  return constraints.sort((a, b) => a.column - b.column);
};

/**
 * log P(x)/a(x) of each sequence: lambda . phi(x), or -Infinity where a hard constraint is violated. [B] nats
 * log P(x) is log a(x) plus this.
 *
 * @param matrix its columns are found by name; others are ignored
 * @throws TiltError (runtime) if a feature of the target is missing from the matrix
 */
export const logWeights = (target: Omit<Target, "logZ">, matrix: FeatureMatrix): Float64Array => {
  const columns = target.names.map((name) => {
    const column = matrix.names.indexOf(name);
    if (column < 0) {
      const got = matrix.names.join(", ") || "none";
      throw runtimeError({
        where: "target",
        expected: `values of the feature "${name}"`,
        got,
        fix: "evaluate every feature of the target",
      });
    }
    return column;
  });
  const F = matrix.names.length;
  return Float64Array.from({ length: matrix.count }, (_, b) => {
    const phi = (index: number): number => matrix.values[b * F + columns[index]!]!;
    if (target.hard.some(({ index, value }) => phi(index) !== value)) return Number.NEGATIVE_INFINITY;
    let total = 0;
    for (let i = 0; i < columns.length; i++) total += target.coefficients[i]! * phi(i);
    return total;
  });
};

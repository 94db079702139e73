/**
 * Energy-based targets as data: p(x) = P(x)/Z with
 *
 *   P(x) = a(x) prod_{i hard} 1[phi_i(x) = mu_i] exp(sum_i lambda_i phi_i(x))        docs/math.md (M1), arXiv 2012.11635
 *
 * A moment of 0 or 1 of a binary feature is hard: a violation has no mass at all, where the papers give it a large finite
 * coefficient and leave it some. A coefficient is fitted to a wanted moment, or given, or the sum of both. Pointwise, distributional
 * and hybrid targets, the emergent target of KL control, and products of them are this one formula.
 */

import { runtimeError, usageError } from "../base/errors.ts";
import { didYouMean } from "../base/suggestion.ts";
import type { FeatureMatrix } from "./feature.ts";

/** Whether any of the log-masses is of a sequence with P(x) > 0; estimates of Z and of divergences need one. */
export const hasMass = (logMasses: Float64Array): boolean => !logMasses.every((value) => value === Number.NEGATIVE_INFINITY);

/** What a user asks for: moments, coefficients or both. The emergent target of KL control is `{ coefficients: { reward: 1 / beta } }`. */
export interface TargetSpec {
  /** Wanted expectation of each named feature. */
  readonly moments?: Readonly<Record<string, number>> | undefined;
  /** Given instead of fitted, nats per unit of the feature; with moments, p is the nearest to a(x) exp(given . phi(x)) that has them. */
  readonly coefficients?: Readonly<Record<string, number>> | undefined;
}

/** phi_i(x) must equal the value. */
export interface HardConstraint {
  /** Index into the target's names. */
  readonly index: number;
  readonly value: 0 | 1;
}

/** A target in numbers; plain data, so that JSON keeps it exactly. */
export interface Target {
  /** The features with a wanted moment or a coefficient [F]. */
  readonly names: readonly string[];
  readonly hard: readonly HardConstraint[];
  /** lambda_i [F], nats per unit of the feature, fitted and given ones added up; 0 where a feature is only hard. */
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

/** A given coefficient, resolved. */
export interface GivenCoefficient {
  readonly name: string;
  /** Column of the feature matrix. */
  readonly column: number;
  /** Nats per unit of the feature. */
  readonly value: number;
}

const words = {
  moment: { kind: "wanted", meaning: "the wanted expectation" },
  coefficient: { kind: "given", meaning: "nats per unit of the feature" },
} as const;

/** One part of a spec in the order of the features: every name is a feature's, every number finite, and there is one at least. */
const resolved = (
  wish: Readonly<Record<string, number>>,
  { names }: Pick<FeatureMatrix, "names">,
  where: string,
  noun: keyof typeof words,
): GivenCoefficient[] => {
  const { kind, meaning } = words[noun];
  const entries = Object.entries(wish);
  if (entries.length === 0) {
    throw usageError({ where, expected: `at least one ${kind} ${noun}`, got: "none", fix: `name a feature and its ${noun}` });
  }
  const found = entries.map(([name, value]) => {
    const place = `${where}.${name}`;
    const column = names.indexOf(name);
    if (column < 0) {
      throw usageError({
        where: place,
        expected: `one of the features ${names.join(", ")}`,
        got: `"${name}"`,
        fix: didYouMean(name, names, `define the feature or remove the ${noun}`),
      });
    }
    if (!Number.isFinite(value)) {
      throw usageError({ where: place, expected: "a finite number", got: `${value}`, fix: `write ${meaning}` });
    }
    return { name, column, value };
  });
  return found.sort((a, b) => a.column - b.column);
};

/**
 * The constraints of a spec, in the order of the features; none where it only gives coefficients.
 * @param where what the spec is called in messages
 * @throws TiltError (usage) for a spec without anything in it, an unknown feature, or a moment that no distribution can have
 */
export const constraintsOf = (
  { moments, coefficients }: TargetSpec,
  matrix: Pick<FeatureMatrix, "names" | "binary">,
  where = "target",
): Constraint[] => {
  if (moments === undefined) {
    if (coefficients !== undefined) return [];
    const fix = "write the moments that are wanted";
    throw usageError({ where, expected: "moments, coefficients or both", got: "neither", fix });
  }
  return resolved(moments, matrix, `${where}.moments`, "moment").map(({ name, column, value: moment }) => {
    const binary = matrix.binary[column]!;
    if (binary && !(moment >= 0 && moment <= 1)) {
      const fix = "write the wanted share as a fraction, such as 0.05 for 5%";
      const expected = "a moment between 0 and 1, because the feature is 0 or 1";
      throw usageError({ where: `${where}.moments.${name}`, expected, got: `${moment}`, fix });
    }
    return { name, column, moment, binary, hard: binary && (moment === 0 || moment === 1) };
  });
};

/** The coefficients that a spec gives, in the order of the features. @throws TiltError (usage) as `constraintsOf` */
export const givenCoefficientsOf = (
  { coefficients }: TargetSpec,
  matrix: Pick<FeatureMatrix, "names">,
  where = "target",
): GivenCoefficient[] =>
  coefficients === undefined ? [] : resolved(coefficients, matrix, `${where}.coefficients`, "coefficient");

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

/** log P(x) of each sequence: the base's log a(x) and the weight that the target gives it. [B] nats */
export const logTargetOf = (target: Omit<Target, "logZ">, matrix: FeatureMatrix, logBase: Float64Array): Float64Array =>
  logWeights(target, matrix).map((logWeight, b) => logWeight + logBase[b]!);

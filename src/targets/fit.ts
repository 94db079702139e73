/**
 * Fits a target to wanted moments from samples of the base, where P(x)/a(x) = exp(lambda . phi(x)) needs no model at all.
 *
 * Hard constraints condition the samples; Newton's method then finds the coefficients (docs/math.md M1 to M8, arXiv 2012.11635).
 * Every reported number has a standard error, by the delta method over the samples (M7, M8).
 */

import { runtimeError } from "../base/errors.ts";
import { type Estimate, logSumExp, sum, timesOrZero } from "../base/numeric.ts";
import { type DualProblem, solveDual } from "./dual.ts";
import { type Constraint, constraintsOf, logWeights, type Target, type TargetSpec } from "./ebm.ts";
import { dot, pseudoSolve, symmetricEigen } from "./eigen.ts";
import { columnOf, type FeatureMatrix } from "./feature.ts";

export interface FitOptions {
  /**
   * log of each row's weight [N], up to a constant: log a(x) - log q(x) for samples of another distribution, or log a(x) itself
   * when the rows are every sequence there is (then the values are exact and the standard errors mean nothing).
   */
  readonly logRowWeights?: Float64Array;
}

/** The target as fitted from samples of the base: target.json. */
export interface FitReport {
  readonly samples: number;
  readonly baseMoments: Readonly<Record<string, Estimate>>;
  readonly targetMoments: Readonly<Record<string, number>>;
  readonly coefficients: Readonly<Record<string, Estimate>>;
  /** Features with a wanted moment of 0 or 1, and that moment. */
  readonly hard: Readonly<Record<string, 0 | 1>>;
  readonly logZ: Estimate;
  readonly ess: Estimate;
  /** KL(p, a), nats per sequence. */
  readonly klTargetBase: Estimate;
}

export interface FittedTarget {
  readonly target: Target;
  readonly report: FitReport;
}

/** Row weights as probabilities u_i, summing to one [N]. */
const rowProbabilities = (count: number, logRowWeights: Float64Array | undefined): Float64Array => {
  if (logRowWeights === undefined) return new Float64Array(count).fill(1 / count);
  if (logRowWeights.length !== count) throw new RangeError(`fit: expected ${count} row weights, got ${logRowWeights.length}`);
  const total = logSumExp(logRowWeights);
  if (!Number.isFinite(total)) {
    const got = `a log total of ${total}`;
    throw runtimeError({
      where: "fit",
      expected: "row weights of finite total",
      got,
      fix: "check the log-probabilities behind them",
    });
  }
  return logRowWeights.map((logWeight) => Math.exp(logWeight - total));
};

/** The dual problem of some constraints: rows that meet the hard ones, gathered into cells of equal soft features. */
const problemOf = (constraints: readonly Constraint[], matrix: FeatureMatrix, rows: Float64Array): DualProblem => {
  const hard = constraints.filter((constraint) => constraint.hard);
  const soft = constraints.filter((constraint) => !constraint.hard);
  const F = matrix.names.length;
  const cells = new Map<string, { mass: number; readonly point: Float64Array }>();
  for (let i = 0; i < matrix.count; i++) {
    if (rows[i] === 0 || hard.some(({ column, moment }) => matrix.values[i * F + column] !== moment)) continue;
    const point = Float64Array.from(soft, ({ column }) => matrix.values[i * F + column]!);
    const key = point.join();
    const cell = cells.get(key);
    if (cell === undefined) cells.set(key, { mass: rows[i]!, point });
    else cell.mass += rows[i]!;
  }
  const seen = [...cells.values()];
  return {
    logMasses: Float64Array.from(seen, ({ mass }) => Math.log(mass)),
    points: seen.map(({ point }) => point),
    moments: Float64Array.from(soft, ({ moment }) => moment),
  };
};

/** Why there is no solution: the fewest constraints that already have none, told in the reader's terms. */
const conflict = (constraints: readonly Constraint[], matrix: FeatureMatrix, rows: Float64Array): Error => {
  let core = constraints;
  for (const constraint of constraints) {
    const rest = core.filter((other) => other !== constraint);
    if (rest.length > 0 && solveDual(problemOf(rest, matrix, rows)) === undefined) core = rest;
  }
  const samples = `${matrix.count} samples`;
  const wish = core.map(({ name, moment }) => `${name} = ${moment}`).join(", ");
  const complain = (expected: string, got: string, fix: string) => runtimeError({ where: "fit", expected, got, fix });
  const [only] = core;
  if (core.length === 1 && only !== undefined) {
    const seen = columnOf(matrix, only.column).filter((_, i) => rows[i] !== 0);
    const [low, high] = [seen.reduce((a, b) => Math.min(a, b)), seen.reduce((a, b) => Math.max(a, b))];
    if (only.binary && low === high) {
      const fix = `its moment ${only.moment} cannot be reached from these: draw more samples, or choose another feature or moment`;
      if (high === 0) return complain(`feature "${only.name}" in some of ${samples}`, "none", fix);
      return complain(`some of ${samples} without feature "${only.name}"`, "it in all", fix);
    }
    const expected = `a moment of "${only.name}" well inside its range over ${samples}, ${low} to ${high}`;
    return complain(expected, `${only.moment}`, "draw more samples, or change the moment");
  }
  if (core.every(({ hard }) => hard)) {
    const fix = "draw more samples, or check that the constraints do not contradict each other";
    return complain(`at least one of ${samples} to meet ${wish} together`, "none", fix);
  }
  const fix = "they contradict each other, or call for kinds of text too rare to be seen: change a moment or draw more samples";
  return complain(`wanted moments that some reweighting of the ${samples} has`, wish, fix);
};

/**
 * The target with the wanted moments that is closest to the base, KL(p, a) smallest; and what is known of it.
 *
 * Features that depend on each other are allowed where their moments agree: the coefficients of least norm are taken, and the
 * target is the same whichever are.
 *
 * @param matrix features of N samples of the base; columns without a wanted moment are reported and not used
 * @throws TiltError (usage) for a moment of an unknown feature, or outside [0, 1] for a binary one
 * @throws TiltError (runtime) if no reweighting of the samples has the moments, naming the features that conflict
 */
export const fitTarget = (matrix: FeatureMatrix, spec: TargetSpec, options: FitOptions = {}): FittedTarget => {
  const constraints = constraintsOf(spec, matrix);
  if (matrix.count === 0) {
    throw runtimeError({ where: "fit", expected: "at least one sample of the base", got: "none", fix: "draw some" });
  }
  const rows = rowProbabilities(matrix.count, options.logRowWeights);
  const solution = solveDual(problemOf(constraints, matrix, rows));
  if (solution === undefined) throw conflict(constraints, matrix, rows);

  const names = constraints.map(({ name }) => name);
  const hard = constraints.flatMap(({ moment, ...c }, index) => (c.hard ? [{ index, value: moment as 0 | 1 }] : []));
  let used = 0;
  const coefficients = constraints.map((constraint) => (constraint.hard ? 0 : solution[used++]!));
  const logTilts = logWeights({ names, hard, coefficients }, matrix).map((logWeight, i) => logWeight + Math.log(rows[i]!));
  const target: Target = { names, hard, coefficients, logZ: logSumExp(logTilts) };
  return { target, report: reportOf(target, constraints, matrix, rows, logTilts) };
};

/** Values and standard errors, from each row's influence on them (docs/math.md M7, M8). */
const reportOf = (
  target: Target,
  constraints: readonly Constraint[],
  matrix: FeatureMatrix,
  rows: Float64Array,
  logTilts: Float64Array,
): FitReport => {
  const N = matrix.count;
  const estimate = (value: number, influence: (i: number) => number): Estimate => ({
    value,
    stdError: Math.sqrt(sum(rows.map((_, i) => influence(i) ** 2))),
    n: N,
  });
  const soft = constraints.filter((constraint) => !constraint.hard);
  // Features in units of their range, as in the dual: dependent ones then share noise as they share coefficients.
  const units = soft.map(({ column }) => {
    const seen = columnOf(matrix, column).filter((_, i) => logTilts[i]! > Number.NEGATIVE_INFINITY);
    return seen.reduce((a, b) => Math.max(a, b)) - seen.reduce((a, b) => Math.min(a, b)) || 1;
  });
  const moments = Float64Array.from(soft, ({ moment }, j) => moment / units[j]!);
  const lambda = Float64Array.from(soft, ({ name }, j) => target.coefficients[target.names.indexOf(name)]! * units[j]!);

  // w_i, the share of row i in the target, and its deviation phi_i - mu.
  const shares = logTilts.map((logTilt) => Math.exp(logTilt - target.logZ));
  const columns = soft.map(({ column }, j) => columnOf(matrix, column).map((value) => value / units[j]!));
  const deviations = Array.from(rows, (_, i) => Float64Array.from(columns, (column, j) => column[i]! - moments[j]!));
  const S = soft.length;
  const covariance = new Float64Array(S * S);
  const squaredTotal = sum(shares.map((share) => share * share));
  const essPull = new Float64Array(S);
  for (const [i, deviation] of deviations.entries()) {
    const share = shares[i]!;
    for (let j = 0; j < S; j++) {
      essPull[j]! += ((share * share) / squaredTotal) * deviation[j]!;
      for (let k = 0; k < S; k++) covariance[j * S + k]! += share * deviation[j]! * deviation[k]!;
    }
  }
  const hessian = symmetricEigen(covariance, S);
  // The rank of a weighted covariance: rounding is at 1e-16, the smallest variance that the fit accepts at about 1e-8.
  const shift = deviations.map((deviation, i) => {
    const pull = deviation.map((value) => -shares[i]! * value);
    return pseudoSolve(hessian, pull, 1e-13);
  });

  const coefficients = soft.map(({ name }, j) => [name, estimate(lambda[j]! / units[j]!, (i) => shift[i]![j]! / units[j]!)]);
  const baseMoments = matrix.names.map((name, f) => {
    const column = columnOf(matrix, f);
    const value = sum(column.map((phi, i) => timesOrZero(rows[i]!, phi)));
    return [name, estimate(value, (i) => rows[i]! * (column[i]! - value))] as const;
  });
  return {
    samples: N,
    baseMoments: Object.fromEntries(baseMoments),
    targetMoments: Object.fromEntries(constraints.map(({ name, moment }) => [name, moment])),
    coefficients: Object.fromEntries(coefficients),
    hard: Object.fromEntries(target.hard.map(({ index, value }) => [target.names[index]!, value])),
    logZ: estimate(target.logZ, (i) => shares[i]! - rows[i]! + dot(moments, shift[i]!)),
    // ESS = 1 / sum w^2; the last term is its drift with the coefficients.
    ess: estimate(
      1 / squaredTotal,
      (i) => (2 * shares[i]! - shares[i]! ** 2 / squaredTotal - 1 / N - 2 * dot(essPull, shift[i]!)) / squaredTotal,
    ),
    // In lambda . mu - log Z the noise of lambda cancels: the dual is flat at its minimum.
    klTargetBase: estimate(dot(lambda, moments) - target.logZ, (i) => rows[i]! - shares[i]!),
  };
};

/**
 * Fits a target to wanted moments from samples of the base, where P(x)/a(x) = exp(lambda . phi(x)) needs no model at all.
 *
 * Hard constraints condition the samples, given coefficients weight them; Newton's method then finds the other coefficients
 * (docs/math.md M1 to M8, arXiv 2012.11635). Every reported number has a standard error, by the delta method over the samples (M7, M8).
 */

import { runtimeError } from "../base/errors.ts";
import { type Estimate, logSumExp, sum, timesOrZero } from "../base/numeric.ts";
import { type DualProblem, solveDual } from "./dual.ts";
import { type Constraint, constraintsOf, givenCoefficientsOf, logWeights, type Target, type TargetSpec } from "./ebm.ts";
import { pseudoSolve, symmetricEigen } from "./eigen.ts";
import { columnOf, type FeatureMatrix } from "./feature.ts";

export interface FitOptions {
  /**
   * log of each row's weight [N], up to a constant: log a(x) - log q(x) for samples of another distribution, or log a(x) itself
   * when the rows are every sequence there is (then the values are exact and the standard errors mean nothing).
   */
  readonly logRowWeights?: Float64Array;
  /** What the spec is called in messages, a key path; default "target". */
  readonly where?: string;
}

/** The target as fitted from samples of the base: target.json. */
export interface FitReport {
  readonly samples: number;
  readonly baseMoments: Readonly<Record<string, Estimate>>;
  /** The wanted moments, which the target has. Of a product only the hard ones: those of its factors are not its own. */
  readonly targetMoments: Readonly<Record<string, number>>;
  /** Per feature with a coefficient, fitted and given ones added up; what was given has no error. */
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

/**
 * The dual problem of some constraints: rows that meet the hard ones, gathered into cells of equal soft features.
 * @param logRows log of each row's mass before the fit [N]: in log space, as given coefficients may spread it over thousands of nats
 */
const problemOf = (constraints: readonly Constraint[], matrix: FeatureMatrix, logRows: Float64Array): DualProblem => {
  const hard = constraints.filter((constraint) => constraint.hard);
  const soft = constraints.filter((constraint) => !constraint.hard);
  const F = matrix.names.length;
  const cells = new Map<string, { readonly logMasses: number[]; readonly point: Float64Array }>();
  for (let i = 0; i < matrix.count; i++) {
    if (logRows[i] === Number.NEGATIVE_INFINITY || hard.some(({ column, moment }) => matrix.values[i * F + column] !== moment))
      continue;
    const point = Float64Array.from(soft, ({ column }) => matrix.values[i * F + column]!);
    const key = point.join();
    const cell = cells.get(key);
    if (cell === undefined) cells.set(key, { logMasses: [logRows[i]!], point });
    else cell.logMasses.push(logRows[i]!);
  }
  const seen = [...cells.values()];
  return {
    logMasses: Float64Array.from(seen, ({ logMasses }) => logSumExp(logMasses)),
    points: seen.map(({ point }) => point),
    moments: Float64Array.from(soft, ({ moment }) => moment),
  };
};

/** Why there is no solution: the fewest constraints that already have none, told in the reader's terms. */
const conflict = (constraints: readonly Constraint[], matrix: FeatureMatrix, logRows: Float64Array, where: string): Error => {
  let core = constraints;
  for (const constraint of constraints) {
    const rest = core.filter((other) => other !== constraint);
    if (rest.length > 0 && solveDual(problemOf(rest, matrix, logRows)) === undefined) core = rest;
  }
  const samples = `${matrix.count} samples`;
  const wish = core.map(({ name, moment }) => `${name} = ${moment}`).join(", ");
  const complain = (expected: string, got: string, fix: string) => runtimeError({ where, expected, got, fix });
  const [only] = core;
  if (core.length === 1 && only !== undefined) {
    const seen = columnOf(matrix, only.column).filter((_, i) => logRows[i]! > Number.NEGATIVE_INFINITY);
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

/** A target, and how its fitted coefficients answer to each row. */
interface Solution {
  readonly target: Target;
  readonly constraints: readonly Constraint[];
  /** Influence of each row on a coefficient [N], by the feature's name; a given coefficient has none (docs/math.md M7). */
  readonly influences: ReadonlyMap<string, Float64Array>;
}

/** Row i's influence on the coefficient of each soft constraint: -H^-1 w_i (phi_i - mu) (docs/math.md M7). */
const influencesOf = (
  soft: readonly Constraint[],
  matrix: FeatureMatrix,
  shares: Float64Array,
): ReadonlyMap<string, Float64Array> => {
  const columns = soft.map(({ column }) => columnOf(matrix, column));
  // Features in units of their range, as in the dual: dependent ones then share noise as they share coefficients.
  const units = columns.map((column) => {
    const seen = column.filter((_, i) => shares[i]! > 0);
    return seen.reduce((a, b) => Math.max(a, b)) - seen.reduce((a, b) => Math.min(a, b)) || 1;
  });
  const S = soft.length;
  const covariance = new Float64Array(S * S);
  const deviations = Array.from(shares, (share, i) => {
    const deviation = Float64Array.from(soft, ({ moment }, j) => (columns[j]![i]! - moment) / units[j]!);
    for (let j = 0; j < S; j++) for (let k = 0; k < S; k++) covariance[j * S + k]! += share * deviation[j]! * deviation[k]!;
    return deviation;
  });
  const hessian = symmetricEigen(covariance, S);
  const influences = soft.map(() => new Float64Array(shares.length));
  for (const [i, deviation] of deviations.entries()) {
    const pull = deviation.map((value) => -shares[i]! * value);
    // The rank of a weighted covariance: rounding is at 1e-16, the smallest variance that the fit accepts at about 1e-8.
    for (const [j, shift] of pseudoSolve(hessian, pull, 1e-13).entries()) influences[j]![i] = shift / units[j]!;
  }
  return new Map(soft.map(({ name }, j) => [name, influences[j]!]));
};

/** w_i, the share of each row in the target [N], which sum to one. */
const sharesOf = (target: Target, matrix: FeatureMatrix, rows: Float64Array): Float64Array =>
  logWeights(target, matrix).map((logWeight, i) => Math.exp(logWeight + Math.log(rows[i]!) - target.logZ));

/** The target with its partition function from the rows. */
const normalised = (target: Omit<Target, "logZ">, matrix: FeatureMatrix, rows: Float64Array): Target => ({
  ...target,
  logZ: logSumExp(logWeights(target, matrix).map((logWeight, i) => logWeight + Math.log(rows[i]!))),
});

const solve = (matrix: FeatureMatrix, spec: TargetSpec, rows: Float64Array, where?: string): Solution => {
  const constraints = constraintsOf(spec, matrix, where);
  const given = givenCoefficientsOf(spec, matrix, where);
  const tilt = { names: given.map(({ name }) => name), hard: [], coefficients: given.map(({ value }) => value) };
  const logRows = logWeights(tilt, matrix).map((logWeight, i) => logWeight + Math.log(rows[i]!));
  const solution = solveDual(problemOf(constraints, matrix, logRows));
  if (solution === undefined) throw conflict(constraints, matrix, logRows, where ?? "fit");

  const soft = constraints.filter((constraint) => !constraint.hard);
  const total = new Map(given.map(({ name, value }) => [name, value]));
  for (const [j, { name }] of soft.entries()) total.set(name, solution[j]! + (total.get(name) ?? 0));
  const names = matrix.names.filter((name) => total.has(name) || constraints.some((constraint) => constraint.name === name));
  const hard = constraints.flatMap(({ name, moment, hard }) =>
    hard ? [{ index: names.indexOf(name), value: moment as 0 | 1 }] : [],
  );
  const target = normalised({ names, hard, coefficients: names.map((name) => total.get(name) ?? 0) }, matrix, rows);
  return { target, constraints, influences: influencesOf(soft, matrix, sharesOf(target, matrix, rows)) };
};

const rowsOf = ({ count }: FeatureMatrix, { logRowWeights }: FitOptions): Float64Array => {
  if (count > 0) return rowProbabilities(count, logRowWeights);
  throw runtimeError({ where: "fit", expected: "at least one sample of the base", got: "none", fix: "draw some" });
};

/**
 * The target with the wanted moments that is closest to the base, KL(p, a) smallest; and what is known of it. Where coefficients are
 * given, closest to a(x) exp(given . phi(x)).
 *
 * Features that depend on each other are allowed where their moments agree: the coefficients of least norm are taken, and the
 * target is the same whichever are.
 *
 * @param matrix features of N samples of the base; columns that the spec does not name are reported and not used
 * @throws TiltError (usage) for a moment or a coefficient of an unknown feature, or a moment outside [0, 1] for a binary one
 * @throws TiltError (runtime) if no reweighting of the samples has the moments, naming the features that conflict
 */
export const fitTarget = (matrix: FeatureMatrix, spec: TargetSpec, options: FitOptions = {}): FittedTarget => {
  const rows = rowsOf(matrix, options);
  const solution = solve(matrix, spec, rows, options.where);
  const moments = Object.fromEntries(solution.constraints.map(({ name, moment }) => [name, moment]));
  return { target: solution.target, report: reportOf(solution.target, solution.influences, moments, matrix, rows) };
};

/**
 * The product of targets on one base, P(x) = a(x) prod_k P_k(x)/a(x) (docs/math.md M1): coefficients add up, and what one of them forbids
 * the product forbids.
 *
 * @param matrix features of samples of the base, for the product's log Z
 * @throws TiltError (runtime) when the hard constraints together leave no sample, naming those that conflict
 */
export const productOf = (targets: readonly Target[], matrix: FeatureMatrix, options: FitOptions = {}): Target => {
  const rows = rowsOf(matrix, options);
  const names = [...new Set(targets.flatMap((target) => target.names))];
  names.sort((a, b) => matrix.names.indexOf(a) - matrix.names.indexOf(b));
  const coefficientIn = (name: string) => (target: Target) => target.coefficients[target.names.indexOf(name)] ?? 0;
  const coefficients = names.map((name) => sum(targets.map(coefficientIn(name))));
  const demands = new Map(
    targets.flatMap((target) =>
      target.hard.map(({ index, value }): [string, Constraint] => {
        const name = target.names[index]!;
        const column = matrix.names.indexOf(name);
        return [`${name} = ${value}`, { name, column, moment: value, binary: true, hard: true }];
      }),
    ),
  );
  const hard = [...demands.values()].map(({ name, moment }) => ({ index: names.indexOf(name), value: moment as 0 | 1 }));
  const product = normalised({ names, hard, coefficients }, matrix, rows);
  if (product.logZ === Number.NEGATIVE_INFINITY)
    throw conflict([...demands.values()], matrix, rows.map(Math.log), options.where ?? "fit");
  return product;
};

/**
 * The product of targets that are each fitted on its own against the base. Its numbers and their standard errors are those of the product:
 * its factors share their samples, so the errors of their coefficients are added sample by sample.
 *
 * @throws TiltError as `fitTarget`, naming the factor, and as `productOf`
 */
export const fitProduct = (matrix: FeatureMatrix, specs: readonly TargetSpec[], options: FitOptions = {}): FittedTarget => {
  const rows = rowsOf(matrix, options);
  const where = options.where ?? "target";
  const factors = specs.map((spec, k) => solve(matrix, spec, rows, `${where}.product.${k}`));
  const target = productOf(
    factors.map((factor) => factor.target),
    matrix,
    options,
  );
  const influences = new Map<string, Float64Array>();
  for (const [name, influence] of factors.flatMap((factor) => [...factor.influences])) {
    const sofar = influences.get(name);
    influences.set(name, sofar === undefined ? influence : sofar.map((value, i) => value + influence[i]!));
  }
  const certain = Object.fromEntries(target.hard.map(({ index, value }) => [target.names[index]!, value]));
  return { target, report: reportOf(target, influences, certain, matrix, rows) };
};

/** Values and standard errors, from each row's influence on them (docs/math.md M7, M8). */
const reportOf = (
  target: Target,
  influences: Solution["influences"],
  targetMoments: FitReport["targetMoments"],
  matrix: FeatureMatrix,
  rows: Float64Array,
): FitReport => {
  const N = matrix.count;
  const estimate = (value: number, influence: (i: number) => number): Estimate => ({
    value,
    stdError: Math.sqrt(sum(rows.map((_, i) => influence(i) ** 2))),
    n: N,
  });
  const shares = sharesOf(target, matrix, rows);
  const squaredTotal = sum(shares.map((share) => share * share));
  // g_i = log P/a, 0 where there is no mass, and its mean under the target.
  const logTilts = logWeights(target, matrix).map((logTilt, i) => (shares[i]! > 0 ? logTilt : 0));
  const meanLogTilt = sum(logTilts.map((logTilt, i) => shares[i]! * logTilt));

  // How log Z, log ESS and E_p[g] follow the coefficients, and with them each row.
  const drifts = { logZ: new Float64Array(N), logEss: new Float64Array(N), meanLogTilt: new Float64Array(N) };
  for (const [name, influence] of influences) {
    const column = columnOf(matrix, matrix.names.indexOf(name));
    const mean = sum(column.map((phi, i) => shares[i]! * phi));
    const deviations = column.map((phi) => phi - mean);
    const covariance = sum(deviations.map((deviation, i) => shares[i]! * (logTilts[i]! - meanLogTilt) * deviation));
    const essPull = sum(deviations.map((deviation, i) => (shares[i]! ** 2 / squaredTotal) * deviation));
    for (const [i, delta] of influence.entries()) {
      drifts.logZ[i]! += mean * delta;
      drifts.logEss[i]! -= 2 * essPull * delta;
      drifts.meanLogTilt[i]! += covariance * delta;
    }
  }
  const coefficients = target.names.flatMap((name, j): [string, Estimate][] => {
    const value = target.coefficients[j]!;
    const influence = influences.get(name);
    const onlyHard = value === 0 && target.hard.some(({ index }) => index === j);
    return onlyHard ? [] : [[name, estimate(value, (i) => influence?.[i] ?? 0)]];
  });
  const baseMoments = matrix.names.map((name, f) => {
    const column = columnOf(matrix, f);
    const value = sum(column.map((phi, i) => timesOrZero(rows[i]!, phi)));
    return [name, estimate(value, (i) => rows[i]! * (column[i]! - value))] as const;
  });
  return {
    samples: N,
    baseMoments: Object.fromEntries(baseMoments),
    targetMoments,
    coefficients: Object.fromEntries(coefficients),
    hard: Object.fromEntries(target.hard.map(({ index, value }) => [target.names[index]!, value])),
    logZ: estimate(target.logZ, (i) => shares[i]! - rows[i]! + drifts.logZ[i]!),
    // ESS = 1 / sum w^2.
    ess: estimate(
      1 / squaredTotal,
      (i) => (2 * shares[i]! - shares[i]! ** 2 / squaredTotal - 1 / N + drifts.logEss[i]!) / squaredTotal,
    ),
    // E_p[log P/a] - log Z, in which the drift of log Z with the coefficients cancels.
    klTargetBase: estimate(
      meanLogTilt - target.logZ,
      (i) => rows[i]! - shares[i]! + shares[i]! * (logTilts[i]! - meanLogTilt) + drifts.meanLogTilt[i]!,
    ),
  };
};

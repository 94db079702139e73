/**
 * Functions of a user's own, as features and rewards have them: called one sequence at a time or a batch at once, each call under a time
 * limit, what they return checked. Whatever goes wrong is one runtime error that names the feature or the reward.
 */

import { messageOf, runtimeError, usageError } from "../base/errors.ts";
import type { Sequence } from "../sampling/samples.ts";

export type Value = number | boolean;

/** Exactly one of `perSample` (awaited one after the other) and `perBatch` is given. */
export interface UserFunction {
  readonly perSample?: ((sequence: Sequence) => Value | Promise<Value>) | undefined;
  readonly perBatch?: ((sequences: readonly Sequence[]) => ArrayLike<Value> | Promise<ArrayLike<Value>>) | undefined;
  /** Of each call; default `defaultTimeoutSeconds`. Only a promise can be late: a call that never returns cannot be interrupted. */
  readonly timeoutSeconds?: number | undefined;
}

export const defaultTimeoutSeconds = 60;

/** The longest delay that `setTimeout` knows, in milliseconds; beyond it fires at once. */
const longestDelay = 2 ** 31 - 1;

const isPromise = <T>(result: T | Promise<T>): result is Promise<T> => typeof (result as Promise<T> | null)?.then === "function";

/** A call that was not done in time, kept apart from whatever else a user's function may throw. */
class LateError extends Error {
  readonly seconds: number;
  constructor(what: string, seconds: number) {
    super(what);
    this.seconds = seconds;
  }
}

/** The result, if it is there within the limit. A synchronous endless loop cannot be interrupted. @throws LateError */
const withinSeconds = async <T>(work: () => T | Promise<T>, seconds: number, what: string): Promise<T> => {
  const result = work();
  // What is there already needs no timer, which would cost more than most features do.
  if (!isPromise(result)) return result;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alarm = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new LateError(what, seconds)), Math.min(seconds * 1000, longestDelay));
  });
  try {
    return await Promise.race([result, alarm]);
  } finally {
    clearTimeout(timer);
  }
};

/**
 * The values of any evaluator [B], as numbers. What it throws, and values that are none, become errors that name the place.
 * @throws TiltError (runtime)
 */
export const checkedValues = async (
  where: string,
  binary: boolean,
  count: number,
  evaluate: () => ArrayLike<Value> | Promise<ArrayLike<Value>>,
): Promise<Float64Array> => {
  const complain = (expected: string, got: string, fix: string, cause?: unknown) =>
    runtimeError({ where, expected, got, fix }, cause);
  let raw: ArrayLike<Value>;
  try {
    raw = await evaluate();
  } catch (error) {
    if (error instanceof LateError) {
      const fix = "make the function faster, or raise timeoutSeconds";
      throw complain(`values within ${error.seconds} s`, `none for ${error.message}`, fix);
    }
    throw complain("values", `an exception: ${messageOf(error)}`, "correct the function, or catch what it may meet", error);
  }
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

/** How a user's function is evaluated on a batch. @throws TiltError (usage) for none or two of them */
export const evaluatorOf = (
  where: string,
  { perSample, perBatch, timeoutSeconds = defaultTimeoutSeconds }: UserFunction,
): ((sequences: readonly Sequence[]) => Promise<ArrayLike<Value>>) => {
  if (perBatch !== undefined && perSample === undefined) {
    return (sequences) => withinSeconds(() => perBatch(sequences), timeoutSeconds, `a batch of ${sequences.length} sequences`);
  }
  if (perSample !== undefined && perBatch === undefined) {
    return async (sequences) => {
      const values: Value[] = [];
      for (const [b, sequence] of sequences.entries())
        values.push(await withinSeconds(() => perSample(sequence), timeoutSeconds, `sequence ${b}`));
      return values;
    };
  }
  throw usageError({
    where,
    expected: "one function, perSample or perBatch",
    got: perSample === undefined ? "neither" : "both",
    fix: "give exactly one",
  });
};

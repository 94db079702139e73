/**
 * What is wrong with a config, in sentences: zod's issues become "where: key.path: expected what, got what; how to fix",
 * with the nearest known key or choice for a misspelt one.
 */

import { z } from "zod";
import { type TiltError, usageError } from "../base/errors.ts";
import { didYouMean } from "../base/suggestion.ts";

/** An object without unknown keys; the message of an unknown key carries the known ones to `problemsOf`. */
export const strict = <Shape extends z.ZodRawShape>(shape: Shape): z.ZodObject<Shape, z.core.$strict> =>
  z.strictObject(shape, { error: (issue) => (issue.code === "unrecognized_keys" ? Object.keys(shape).join(", ") : undefined) });

type Path = readonly PropertyKey[];

/** A value as it is shown in a message: short, on one line. */
export const show = (value: unknown): string => {
  if (value === undefined || value === null) return "nothing";
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object") return "a mapping";
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
};

const keyName = (key: PropertyKey): string =>
  /^[\p{L}\p{N}_+-]+$/u.test(String(key)) ? String(key) : JSON.stringify(String(key));

/** The place of a key: `run.yaml: optimizer.learningRate`. */
export const placeOf = (where: string, path: Path): string =>
  path.length === 0 ? where : `${where}: ${path.map(keyName).join(".")}`;

const valueAt = (input: unknown, path: Path): unknown => {
  let value = input;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
};

const typeNames: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  object: "a mapping of keys",
  record: "a mapping of names",
  array: "a list",
};

const limit = (issue: z.core.$ZodIssueTooSmall | z.core.$ZodIssueTooBig): string => {
  const bound = issue.code === "too_small" ? issue.minimum : issue.maximum;
  const thing = { string: "characters", array: "entries" }[String(issue.origin)];
  const strictly = issue.code === "too_small" ? "above" : "below";
  const loosely = issue.code === "too_small" ? "at least" : "at most";
  const comparison = `${issue.inclusive === false ? strictly : loosely} ${bound}`;
  if (issue.origin === "string" && issue.code === "too_small") return "a text that is not empty";
  return thing === undefined ? `a number ${comparison}` : `${comparison} ${thing}`;
};

const fixOf = (value: unknown, path: Path, expected: string): string => {
  if (value === undefined) return `add ${String(path.at(-1) ?? "it")}`;
  if (value === null) return "give it a value or remove the key";
  if (typeof value === "string" && expected !== "string" && value.trim() !== "" && Number.isFinite(Number(value)))
    return "remove the quotes";
  return "correct the value";
};

const choice = (where: string, path: Path, value: unknown, options: readonly unknown[]): TiltError => {
  const names = options.map(String);
  const expected = names.length === 1 ? String(names[0]) : `one of ${names.join(", ")}`;
  return usageError({
    where: placeOf(where, path),
    expected,
    got: show(value),
    fix: didYouMean(value, names, "choose one of them"),
  });
};

/**
 * One error per problem, unknown keys first (they explain what is then missing).
 *
 * @param where the config's name, which opens every message
 * @param chooseBranch for a union without a discriminator: the index of the branch that a value was meant for
 */
export const problemsOf = (
  issues: readonly z.core.$ZodIssue[],
  input: unknown,
  where: string,
  chooseBranch: (value: unknown) => number,
): TiltError[] => {
  /** Rank 0 for unknown keys, 1 for the rest. */
  type Ranked = { readonly rank: 0 | 1; readonly error: TiltError };
  const describe = (issue: z.core.$ZodIssue, parent: Path): Ranked[] => {
    const path = [...parent, ...issue.path];
    const value = valueAt(input, path);
    const one = (expected: string, fix = fixOf(value, path, expected)): Ranked[] => [
      { rank: 1, error: usageError({ where: placeOf(where, path), expected, got: show(value), fix }) },
    ];
    switch (issue.code) {
      case "unrecognized_keys":
        return issue.keys.map((key) => {
          const fix = didYouMean(key, issue.message.split(", "), "remove it");
          const expected = `a known key (${issue.message})`;
          return { rank: 0, error: usageError({ where: placeOf(where, [...path, key]), expected, got: `"${key}"`, fix }) };
        });
      case "invalid_type":
        return one(typeNames[issue.expected] ?? issue.expected, fixOf(value, path, issue.expected));
      case "too_small":
      case "too_big":
        return one(limit(issue));
      case "invalid_value":
        return [{ rank: 1, error: choice(where, path, value, issue.values) }];
      case "invalid_union": {
        const { options } = issue as { options?: readonly unknown[] };
        // A discriminator with a default counts undefined among its options.
        const names = options?.filter((option) => option !== undefined);
        if (names !== undefined) return [{ rank: 1, error: choice(where, path, value, names) }];
        return (issue.errors[chooseBranch(value)] ?? issue.errors.flat()).flatMap((inner) => describe(inner, path));
      }
      default:
        return one(issue.message);
    }
  };
  const problems = issues.flatMap((issue) => describe(issue, []));
  return problems.sort((a, b) => a.rank - b.rank).map(({ error }) => error);
};

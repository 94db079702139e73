/**
 * Configs from disk: YAML, JSON, or a TypeScript or JavaScript module, with overrides from the command line.
 * What comes out is unchecked data for `parseRunConfig` or `parsePretrainConfig`.
 *
 * Relative paths are resolved where they are written: `base` and `data` in a file against the file's directory, in an override
 * against the current directory. Both become absolute, so a resumed run finds them from anywhere.
 */

import { statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname, extname, isAbsolute, resolve } from "node:path";
import { createJiti } from "jiti";
import { type Document, LineCounter, parseDocument } from "yaml";
import { messageOf, usageError } from "../base/errors.ts";
import { definePretrain, defineRun } from "./config.ts";

/** The first line of a message, without the code frame below it. */
const firstLine = (error: unknown): string => messageOf(error).split("\n", 1)[0]!.trim();

const parseText = (text: string, where: string, language: "YAML" | "JSON"): unknown => {
  const lineCounter = new LineCounter();
  // JSON is read as the part of YAML that it is: one parser, one kind of message, and a key given twice is found.
  const document: Document = parseDocument(text, {
    lineCounter,
    prettyErrors: false,
    ...(language === "JSON" ? { schema: "json" } : {}),
  });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) {
    const { line, col } = lineCounter.linePos(problem.pos[0]);
    throw usageError(
      { where: `${where}:${line}:${col}`, expected: language, got: firstLine(problem), fix: "correct the file there" },
      problem,
    );
  }
  try {
    return document.toJS() as unknown;
  } catch (error) {
    throw usageError({ where, expected: language, got: firstLine(error), fix: "correct the file" }, error);
  }
};

const readUtf8 = async (path: string): Promise<string> => {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof TypeError) {
      throw usageError(
        { where: path, expected: "text in UTF-8", got: "bytes that are not", fix: "save the file as UTF-8" },
        error,
      );
    }
    throw usageError({ where: path, expected: "a file that can be read", got: firstLine(error), fix: "check its mode" }, error);
  }
};

const importModule = async (path: string): Promise<unknown> => {
  const jiti = createJiti(import.meta.url, {
    fsCache: false,
    moduleCache: false,
    interopDefault: false,
    // `import { defineRun } from "tiltlm"` works wherever the config lies, installed beside it or not.
    virtualModules: { tiltlm: { defineRun, definePretrain } },
  });
  let module: { readonly default?: unknown };
  try {
    module = await jiti.import(path);
  } catch (error) {
    throw usageError({ where: path, expected: "a module that loads", got: firstLine(error), fix: "correct it" }, error);
  }
  if (!("default" in module)) {
    const fix = "write: export default defineRun({ ... })";
    throw usageError({
      where: path,
      expected: "the config as default export",
      got: `${Object.keys(module).join(", ") || "no export"}`,
      fix,
    });
  }
  return await module.default;
};

const readers: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  ".yaml": async (path) => parseText(await readUtf8(path), path, "YAML"),
  ".yml": async (path) => parseText(await readUtf8(path), path, "YAML"),
  ".json": async (path) => parseText(await readUtf8(path), path, "JSON"),
  ...Object.fromEntries(
    [".ts", ".mts", ".cts", ".js", ".mjs", ".cjs"].map((extension) => [extension, (path) => importModule(resolve(path))]),
  ),
};

/** The unchecked content of a config file, by its extension. @throws TiltError (usage) when it cannot be read or parsed */
export const loadConfigFile = async (path: string): Promise<unknown> => {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined || info.isDirectory()) {
    const fix = info === undefined ? "check the path" : "name the file in it";
    throw usageError({ where: path, expected: "a config file", got: info === undefined ? "nothing there" : "a directory", fix });
  }
  const read = readers[extname(path).toLowerCase()];
  if (read === undefined) {
    const known = Object.keys(readers).join(", ");
    throw usageError({ where: path, expected: `a file ending in ${known}`, got: `"${extname(path)}"`, fix: "rename the file" });
  }
  return read(path);
};

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const assign = (input: unknown, keys: readonly string[], value: unknown, where: string): unknown => {
  const [key, ...rest] = keys;
  if (key === undefined) return value;
  if (input !== undefined && input !== null && !isMapping(input)) {
    const got = typeof input === "object" ? "a list" : `${typeof input === "function" ? "a function" : JSON.stringify(input)}`;
    throw usageError({ where, expected: `a mapping to hold "${key}"`, got, fix: "set the whole value instead" });
  }
  const inner = input != null && Object.hasOwn(input, key) ? input[key] : undefined;
  return { ...input, [key]: assign(inner, rest, value, where) };
};

/**
 * A copy with `key.path=value` applied from left to right. The value is read as YAML (`0.5`, `[a, b]`, `{ every: 5 }`);
 * mappings on the way are made where they are missing. A key that itself contains a dot cannot be named. Whether the path
 * is a known one, the schema says later.
 */
export const applyOverrides = (input: unknown, overrides: readonly string[]): unknown =>
  overrides.reduce<unknown>((result, override) => {
    const where = `--set ${override}`;
    const split = override.indexOf("=");
    const keys = override.slice(0, split).trim().split(".");
    if (split < 1 || keys.some((key) => key === "")) {
      throw usageError({
        where,
        expected: "key.path=value",
        got: `"${override}"`,
        fix: "write for example --set optimizer.learningRate=1e-4",
      });
    }
    return assign(result, keys, parseText(override.slice(split + 1), where, "YAML"), where);
  }, input);

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** owner/name, where no such directory is: left for the hub. */
const isHubId = (value: string, directory: string): boolean =>
  /^[\w][\w.-]*\/[\w][\w.-]*$/.test(value) && !isDirectory(resolve(directory, value));

/** A copy whose `base` and `data` are absolute, seen from a directory; a hub id stays. */
export const resolvePaths = (input: unknown, directory: string): unknown => {
  if (!isMapping(input)) return input;
  const { base, data } = input;
  const resolved = { ...input };
  if (typeof base === "string" && base !== "" && !isAbsolute(base) && !isHubId(base, directory))
    resolved["base"] = resolve(directory, base);
  if (typeof data === "string" && data !== "") resolved["data"] = resolve(directory, data);
  return resolved;
};

/**
 * A config file with its overrides, every path resolved at its source.
 *
 * @param path      the config file
 * @param overrides `key.path=value`, the last one wins
 * @param directory what paths in overrides are relative to
 * @throws TiltError (usage) when the file or an override cannot be read
 */
export const readConfig = async (
  path: string,
  overrides: readonly string[] = [],
  directory: string = process.cwd(),
): Promise<unknown> =>
  resolvePaths(applyOverrides(resolvePaths(await loadConfigFile(path), dirname(resolve(path))), overrides), directory);

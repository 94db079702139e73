/** The README says what is so: its example is the file it names, its tree exists, its configs parse, its versions agree. */

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { parseRunConfig } from "../../src/run/config.ts";
import { packageVersion } from "../../src/run/versions.ts";

const file = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8");
const readme = file("README.md");
/** Bodies of the fenced blocks of a language, "" for those that name none. */
const block = (language: string): string[] =>
  [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].flatMap(([, name, body]) => (name === language ? [body!] : []));

test("the library example is examples/library.ts, in at most 25 lines", () => {
  const [example] = block("ts");
  expect(example).toBe(file("examples/library.ts"));
  expect(example!.trimEnd().split("\n").length).toBeLessThanOrEqual(25);
});

test("the config in it parses", () => {
  const [config] = block("yaml");
  expect(parseRunConfig(parse(config!), "README").target?.moments).toEqual({ lily: 0.05, male: 0.5 });
});

test("every path of its tree and every page it links to is there", () => {
  const tree = block("").find((body) => body.includes("src/base"))!;
  const paths = [...tree.matchAll(/^(\S+)/gm)].map(([, path]) => path!);
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, path]) => path!);
  expect(paths.length).toBeGreaterThan(10);
  for (const path of [...paths, ...links])
    expect([path, existsSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)))]).toEqual([path, true]);
});

test("one version", () => {
  expect(packageVersion).toBe((JSON.parse(file("package.json")) as { version: string }).version);
});

/**
 * Writes the training text of the embedded model, one `{"text": ...}` a line:
 *   npx jiti models/biographies-mini/write-data.ts models/biographies-mini/biographies.jsonl 120000 12
 */

import { messageOf, TiltError, usageError } from "../../src/base/errors.ts";
import { nodeFiles } from "../../src/base/files.node.ts";
import { biographies } from "./grammar.ts";

const naturalOf = (name: string, text: string | undefined, bound: number): number => {
  const value = text === undefined || text === "" ? Number.NaN : Number(text);
  if (Number.isInteger(value) && value >= 0 && value < bound) return value;
  throw usageError({
    where: `write-data ${name}`,
    expected: `an integer from 0 to ${bound - 1}`,
    got: text ?? "nothing",
    fix: "call it as: write-data.ts PATH COUNT SEED",
  });
};

const writeData = async ([path, count, seed]: readonly string[]): Promise<void> => {
  if (path === undefined) {
    throw usageError({
      where: "write-data PATH",
      expected: "a file to write",
      got: "nothing",
      fix: "call it as: write-data.ts PATH COUNT SEED",
    });
  }
  const people = biographies(naturalOf("COUNT", count, 2 ** 24), naturalOf("SEED", seed, 2 ** 32));
  await nodeFiles.write(path, Array.from(people, ({ text }) => `${JSON.stringify({ text })}\n`).join(""));
};

try {
  await writeData(process.argv.slice(2));
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = error instanceof TiltError && error.kind === "usage" ? 2 : 1;
}

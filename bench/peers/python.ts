/** A Python with what a peer needs: the one that is given, or a virtual environment that is made once and kept. */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { root } from "../machine.ts";

const run = promisify(execFile);
const cache = join(root, "node_modules", ".cache", "tiltlm-peers");

export const peerFile = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const executableIn = (environment: string): string =>
  process.platform === "win32" ? join(environment, "Scripts", "python.exe") : join(environment, "bin", "python");

/** The last lines of what a failed command said: pip tells its reason at the end. */
const reasonOf = (error: unknown): string => {
  const said = (error as { stderr?: string }).stderr?.trim() || String(error);
  return said.split("\n").slice(-3).join(" ").slice(0, 400);
};

/** The Python to make an environment with: that of the version which the requirements name in their first line ("# Python 3.10"), where there is one. */
const systemPython = async (requirements: string): Promise<string> => {
  const version = /^# Python (\d+\.\d+)/.exec(requirements)?.[1];
  const candidates = process.platform === "win32" ? ["python"] : [`python${version ?? 3}`, "python3"];
  for (const candidate of candidates) {
    const works = await run(candidate, ["--version"]).then(
      () => true,
      () => false,
    );
    if (works) return candidate;
  }
  throw new Error(`no ${candidates.join(" or ")} on the path`);
};

/**
 * The executable of a Python in which the packages of `requirements` can be imported.
 * @param given a Python executable or the folder of a virtual environment, taken as it is
 * @throws Error where there is none and none can be made, with the reason
 */
export const pythonFor = async (requirements: string, given: string | undefined): Promise<string> => {
  if (given !== undefined) {
    const place = await stat(given).catch(() => undefined);
    return place?.isDirectory() ? executableIn(given) : given;
  }
  const text = await readFile(peerFile(requirements), "utf8");
  const environment = join(
    cache,
    `${requirements.replace(/\.txt$/, "")}-${createHash("sha256").update(text).digest("hex").slice(0, 12)}`,
  );
  const python = executableIn(environment);
  const complete = join(environment, "complete");
  if (existsSync(complete)) return python;
  try {
    await rm(environment, { recursive: true, force: true });
    await mkdir(cache, { recursive: true });
    await run(await systemPython(text), ["-m", "venv", environment]);
    await run(python, ["-m", "pip", "install", "--quiet", "-r", peerFile(requirements)], { maxBuffer: 2 ** 26 });
    await writeFile(complete, "");
    return python;
  } catch (error) {
    throw new Error(`no Python with ${requirements}: ${reasonOf(error)}`);
  }
};

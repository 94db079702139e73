/** What every verb shares: its streams, its flags, and the frame around a run (progress, Ctrl-C, a clean end). */

import { basename } from "node:path";
import type { Command } from "commander";
import { TiltError, usageError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { PretrainConfig, RunConfig } from "../run/config.ts";
import { createProgress, type Progress } from "./progress.ts";
import type { Runs, Watch } from "./runs.ts";
import { describeTerminal, type Environment, type Screen, type Terminal } from "./terminal.ts";

export interface Output extends Screen {
  write(text: string): unknown;
}

/** Everything a verb touches outside of itself. */
export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Environment;
  readonly platform: string;
  readonly files: Files;
  readonly runs: Runs;
  /** The directory of the package: its manifest and its examples. */
  readonly packageRoot: string;
  /** ms */
  readonly clock: () => number;
  /** Calls the handler at every SIGINT and SIGTERM until the returned function is called. */
  readonly onInterrupt: (handler: () => void) => () => void;
  /** Ends the process at once. */
  readonly exit: (code: number) => void;
}

/** A verb adds itself to the program. */
export type Verb = (program: Command, io: Io) => void;

/** Thrown to end with the exit code of an interrupted program, once everything has been said. */
export class Interrupted extends Error {}

export const interruptedCode = 130;

export interface CommonOptions {
  readonly json?: boolean;
  readonly debug?: boolean;
  readonly device?: RunConfig["device"];
}

export interface ConfigOptions extends CommonOptions {
  readonly set?: readonly string[];
  readonly steps?: number;
}

/** A parser for commander of a number given with a flag. */
export const numberFlag =
  (flag: string, accepts: (value: number) => boolean, expected: string) =>
  (text: string): number => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (!accepts(value)) throw usageError({ where: flag, expected, got: JSON.stringify(text), fix: "correct the value" });
    return value;
  };

export const wholeFlag = (flag: string, least: number): ((text: string) => number) =>
  numberFlag(flag, (value) => Number.isSafeInteger(value) && value >= least, `a whole number of at least ${least}`);

export const seedFlag = (text: string): number =>
  numberFlag(
    "--seed",
    (value) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff,
    "a whole number from 0 to 4294967295",
  )(text);

const devices: readonly RunConfig["device"][] = ["cpu", "webgpu", "cuda"];

const deviceFlag = (text: string): RunConfig["device"] => {
  const found = devices.find((device) => device === text);
  if (found !== undefined) return found;
  throw usageError({ where: "--device", expected: `one of ${devices.join(", ")}`, got: `"${text}"`, fix: "choose one of them" });
};

/** The flags of every verb. */
export const withCommonFlags = (command: Command): Command =>
  command
    .option("--device <name>", `what computes: ${devices.join(", ")}`, deviceFlag)
    .option("--json", "results as JSON on stdout")
    .option("--debug", "show stack traces of errors");

/** The flags of a verb that reads a config. */
export const withConfigFlags = (command: Command): Command =>
  command.option(
    "--set <key.path=value>",
    "change a key of the config (repeatable), such as optimizer.learningRate=1e-4",
    (value: string, earlier: readonly string[] = []) => [...earlier, value],
  );

/** What the flags change in a config, the last one winning. */
const overridesOf = ({ set = [], steps, device }: ConfigOptions): string[] => [
  ...set,
  ...(steps === undefined ? [] : [`steps=${steps}`]),
  ...(device === undefined ? [] : [`device=${device}`]),
];

/** The complete config of a run, with what the flags change. @throws TiltError (usage) */
export const loadRunConfig = async (path: string, options: ConfigOptions): Promise<RunConfig> => {
  const [{ readConfig }, { parseRunConfig }] = await Promise.all([
    import("../run/config-file.node.ts"),
    import("../run/config.ts"),
  ]);
  return parseRunConfig(await readConfig(path, overridesOf(options)), path);
};

/** The complete config of a pretraining, with what the flags change. @throws TiltError (usage) */
export const loadPretrainConfig = async (path: string, options: ConfigOptions): Promise<PretrainConfig> => {
  const [{ readConfig }, { parsePretrainConfig }] = await Promise.all([
    import("../run/config-file.node.ts"),
    import("../run/config.ts"),
  ]);
  return parsePretrainConfig(await readConfig(path, overridesOf(options)), path);
};

/** An argument as a POSIX shell takes it. */
const quoted = (argument: string): string =>
  /^[\w./:=@%+,-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;

/** The command line that goes on with a stopped run, with the same changes to its config. */
export const resumeCommand = (config: string, out: string, options: ConfigOptions): string =>
  [
    "tiltlm tune",
    quoted(config),
    ...overridesOf(options).map((override) => `--set ${quoted(override)}`),
    `--out ${quoted(out)} --resume`,
  ].join(" ");

/** Where a config's run goes unless told otherwise: runs/<its name>. */
export const defaultOut = (config: string): string => `runs/${basename(config).replace(/\.[^.]+$/, "")}`;

/** Writes a resolved config for --dry-run: YAML that could be used as a config itself, or JSON. */
export const printConfig = async (config: RunConfig | PretrainConfig, io: Io, { json }: CommonOptions): Promise<void> => {
  const text = JSON.stringify(
    config,
    (_, value: unknown) => (typeof value === "function" ? { function: String(value) } : value),
    2,
  );
  if (json) return print(io, [text]);
  const [{ stringify }, { configHash }] = await Promise.all([import("yaml"), import("../run/config.ts")]);
  print(io, [`# hash: ${await configHash(config)}`, stringify(JSON.parse(text)).trimEnd()]);
};

export const print = (io: Io, lines: readonly string[]): void => void io.stdout.write(lines.map((line) => `${line}\n`).join(""));
export const printJson = (io: Io, value: unknown): void => print(io, [JSON.stringify(value)]);

/** How results are shown on stdout. */
export const resultsTerminal = (io: Io): Terminal => describeTerminal(io.stdout, io.env, io.platform);

/**
 * Runs an action with progress on stderr. The first Ctrl-C asks it to stop, the second ends the process.
 *
 * @param stopping what the first Ctrl-C leads to; where absent there is nothing to save, and it ends the process itself
 * @throws Interrupted when the action ended early because it was asked to stop
 */
export const withProgress = async <T>(
  io: Io,
  { json }: CommonOptions,
  action: (watch: Watch, progress: Progress) => Promise<T>,
  stopping?: string,
): Promise<T> => {
  const terminal = (): Terminal => {
    const described = describeTerminal(io.stderr, io.env, io.platform);
    return json ? { ...described, live: false } : described;
  };
  const progress = createProgress((text) => io.stderr.write(text), terminal, io.clock);
  const controller = new AbortController();
  const release = io.onInterrupt(() => {
    if (stopping === undefined || controller.signal.aborted) {
      progress.finish();
      io.exit(interruptedCode);
    } else {
      progress.say(`${stopping}; press Ctrl-C again to quit at once`);
      controller.abort();
    }
  });
  try {
    return await action({ files: io.files, onEvent: progress.listen, signal: controller.signal, clock: io.clock }, progress);
  } catch (error) {
    // A full disk is a failure, also while stopping.
    if (controller.signal.aborted && !(error instanceof TiltError)) throw new Interrupted("stopped", { cause: error });
    throw error;
  } finally {
    release();
    progress.finish();
  }
};

/**
 * The program `tiltlm`: results on stdout, progress and errors on stderr.
 * Exit codes: 0 success, 1 a failure while running, 2 bad usage or a bad config, 130 interrupted.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, type CommanderError } from "commander";
import { messageOf, TiltError, usageError } from "../base/errors.ts";
import { nodeFiles } from "../base/files.node.ts";
import { printable } from "./format.ts";
import { runs } from "./runs.ts";
import { Interrupted, type Io, interruptedCode } from "./session.ts";
import { demoVerb } from "./verbs/demo.ts";
import { evaluateVerb } from "./verbs/evaluate.ts";
import { fitVerb } from "./verbs/fit.ts";
import { pretrainVerb } from "./verbs/pretrain.ts";
import { sampleVerb } from "./verbs/sample.ts";
import { scoreVerb } from "./verbs/score.ts";
import { tuneVerb } from "./verbs/tune.ts";

const verbs = [demoVerb, tuneVerb, fitVerb, sampleVerb, scoreVerb, evaluateVerb, pretrainVerb];

const versionOf = ({ packageRoot }: Io): string => {
  const manifest = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
};

/** A complaint of commander, and the verb it is about. */
class UsageFailure extends Error {
  readonly verb: string | undefined;
  readonly failure: CommanderError;
  constructor(verb: string | undefined, failure: CommanderError) {
    super(failure.message, { cause: failure });
    this.verb = verb;
    this.failure = failure;
  }
}

const buildProgram = (io: Io): Command => {
  const program = new Command("tiltlm")
    .description("Makes a language model hit the statistics you ask for, and changes nothing else.")
    .version(versionOf(io), "-V, --version", "the version")
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      outputError: () => {},
    })
    .configureHelp({ helpWidth: 100 })
    .addHelpText("after", "\nTry:  tiltlm demo\n      tiltlm tune --help");
  for (const verb of verbs) verb(program, io);
  for (const command of [program, ...program.commands]) {
    command.exitOverride((failure) => {
      throw new UsageFailure(command === program ? undefined : command.name(), failure);
    });
  }
  return program;
};

/** commander's complaints in the form of ours; its texts are "error: unknown option '--stpes'\n(Did you mean --steps?)" and the like. */
const translated = ({ verb, failure }: UsageFailure): TiltError => {
  const quoted = /'([^']*)'/.exec(failure.message)?.[1] ?? "";
  const meant = /\(Did you mean (.*?)\?\)/.exec(failure.message)?.[1];
  const fix = meant === undefined ? `see tiltlm ${verb === undefined ? "" : `${verb} `}--help` : `did you mean ${meant}?`;
  const complaints: Readonly<Record<string, readonly [expected: string, got: string]>> = {
    "commander.unknownOption": ["a known flag", quoted],
    "commander.unknownCommand": ["a known verb", `"${quoted}"`],
    "commander.missingArgument": [`an argument <${quoted}>`, "none"],
    "commander.optionMissingArgument": [`a value after ${quoted}`, "none"],
    "commander.missingMandatoryOptionValue": [`the flag ${quoted}`, "none"],
    "commander.excessArguments": [
      /Expected (\d+ arguments?)/.exec(failure.message)?.[1] ?? "fewer arguments",
      /got (\d+)/.exec(failure.message)?.[1] ?? "more",
    ],
  };
  const [expected, got] = complaints[failure.code] ?? ["valid usage", failure.message.replace(/^error: /, "")];
  return usageError({ where: verb ?? "command line", expected, got, fix }, failure);
};

/** An error and what caused it, with their stacks. */
const stackOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined
    ? (error.stack ?? error.message)
    : `${error.stack ?? error.message}\ncaused by: ${stackOf(error.cause)}`;
};

const exitCodeOf = (error: unknown, io: Io, debug: boolean): number => {
  if (error instanceof Interrupted) return interruptedCode;
  if (error instanceof UsageFailure) {
    if (error.failure.exitCode === 0) return 0; // --help and --version
    if (error.failure.code === "commander.help") return 2; // no verb: the help has been shown
    return exitCodeOf(translated(error), io, debug);
  }
  if (debug) io.stderr.write(`${stackOf(error)}\n`);
  else {
    const message =
      error instanceof TiltError
        ? error.message
        : `unexpected: expected no such error, got ${messageOf(error)}; run again with --debug and report what it shows`;
    io.stderr.write(`tiltlm: ${printable(message)}\n`); // it may quote a file, which may hold anything
  }
  return error instanceof TiltError && error.kind === "usage" ? 2 : 1;
};

/** Runs one command line. @returns the exit code */
export const main = async (argv: readonly string[], io: Io): Promise<number> => {
  try {
    await buildProgram(io).parseAsync([...argv], { from: "user" });
    return 0;
  } catch (error) {
    return exitCodeOf(error, io, argv.includes("--debug"));
  }
};

/** Runs the command line of this process. */
export const runProcess = async (): Promise<void> => {
  // Whoever reads us may stop reading (tiltlm sample ... | head): that is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(0);
      throw error;
    });
  }
  process.exitCode = await main(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    platform: process.platform,
    files: nodeFiles,
    runs,
    packageRoot: fileURLToPath(new URL("../..", import.meta.url)), // from src/cli as from dist/cli
    clock: () => performance.now(),
    onInterrupt: (handler) => {
      const signals = ["SIGINT", "SIGTERM"] as const;
      for (const signal of signals) process.on(signal, handler);
      return () => {
        for (const signal of signals) process.off(signal, handler);
      };
    },
    exit: (code) => process.exit(code),
  });
};

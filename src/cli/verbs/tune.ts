/** tiltlm tune CONFIG: one run, from the fit of its target to the tuned model. */

import { summaryLines } from "../reports.ts";
import type { TuneResult } from "../runs.ts";
import {
  type ConfigOptions,
  defaultOut,
  Interrupted,
  type Io,
  loadRunConfig,
  print,
  printConfig,
  printJson,
  resultsTerminal,
  resumeCommand,
  type Verb,
  wholeFlag,
  withCommonFlags,
  withConfigFlags,
  withProgress,
} from "../session.ts";

export interface TuneOptions extends ConfigOptions {
  readonly out?: string;
  readonly resume?: boolean;
  readonly dryRun?: boolean;
}

export const stoppingRun = "stopping after this step; a checkpoint will be written";

/** Says how a stopped run goes on. @throws Interrupted */
export const leaveStopped = (io: Io, { out }: TuneResult, config: string, options: ConfigOptions): never => {
  io.stderr.write(`stopped; continue with: ${resumeCommand(config, out, options)}\n`);
  throw new Interrupted("stopped");
};

/** Where the results of a run are. */
export const filesLine = (out: string): string =>
  `The model is in ${out}/model, its measurements in ${out}/metrics.jsonl, its texts in ${out}/samples.jsonl.`;

export const tuneVerb: Verb = (program, io) => {
  const command = program
    .command("tune")
    .description("tune a model to the target of a config")
    .argument("<config>", "a YAML, JSON or TypeScript config of a run")
    .option("--out <dir>", "the run directory (default: runs/<config name>)")
    .option("--resume", "go on from the last checkpoint in the run directory")
    .option("--steps <n>", "optimizer steps, instead of the config's", wholeFlag("--steps", 1))
    .option("--dry-run", "check the config, print it with every default, and stop");
  withCommonFlags(withConfigFlags(command)).action(async (path: string, options: TuneOptions) => {
    const config = await loadRunConfig(path, options);
    if (options.dryRun) return printConfig(config, io, options);
    const place = { out: options.out ?? defaultOut(path), resume: options.resume ?? false };
    const result = await withProgress(io, options, (watch) => io.runs.tune(config, place, watch), stoppingRun);
    const { summary, stopped, out } = result;
    if (options.json) printJson(io, { ...summary, out, stopped });
    if (stopped) leaveStopped(io, result, path, options);
    if (!options.json) print(io, [...summaryLines(summary, resultsTerminal(io)), "", filesLine(out)]);
  });
};

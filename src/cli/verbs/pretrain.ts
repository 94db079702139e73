/** tiltlm pretrain CONFIG: a small model from scratch. */

import { formatEstimate, formatNumber, formatTable } from "../format.ts";
import {
  type ConfigOptions,
  defaultOut,
  loadPretrainConfig,
  print,
  printConfig,
  printJson,
  type Verb,
  wholeFlag,
  withCommonFlags,
  withConfigFlags,
  withProgress,
} from "../session.ts";

interface PretrainOptions extends ConfigOptions {
  readonly out?: string;
  readonly dryRun?: boolean;
}

/** The numbers and texts of a report, by name. */
const reportRows = (report: object): string[][] =>
  Object.entries(report).flatMap(([name, value]: [string, unknown]) => {
    if (typeof value === "number") return [[name, formatNumber(value)]];
    if (typeof value === "string") return [[name, value]];
    if (typeof value === "object" && value !== null && "value" in value && "stdError" in value) {
      return [[name, formatEstimate(value as { value: number; stdError: number })]];
    }
    return [];
  });

export const pretrainVerb: Verb = (program, io) => {
  const command = program
    .command("pretrain")
    .description("train a small model from scratch on text")
    .argument("<config>", "a YAML, JSON or TypeScript config of a pretraining")
    .option("--out <dir>", "the model directory (default: runs/<config name>)")
    .option("--steps <n>", "optimizer steps, instead of the config's", wholeFlag("--steps", 1))
    .option("--dry-run", "check the config, print it with every default, and stop");
  withCommonFlags(withConfigFlags(command)).action(async (path: string, options: PretrainOptions) => {
    const config = await loadPretrainConfig(path, options);
    if (options.dryRun) return printConfig(config, io, options);
    const out = options.out ?? defaultOut(path);
    const report = await withProgress(io, options, (watch) => io.runs.pretrain(config, { out }, watch));
    if (options.json) printJson(io, { ...report, out });
    else print(io, [...formatTable(reportRows(report), ["left", "right"]), "", `The model is in ${out}.`]);
  });
};

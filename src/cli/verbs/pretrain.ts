/** tiltlm pretrain CONFIG: a small model from scratch. */

import type { PretrainReport } from "../../run/pretrain.ts";
import { formatCount, formatDuration, formatNumber, formatTable } from "../format.ts";
import {
  type ConfigOptions,
  defaultOut,
  Interrupted,
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

const reportLines = ({ parameters, vocabulary, texts, steps, seconds, validation, out }: PretrainReport): string[] => [
  ...formatTable([
    ["parameters", formatCount(parameters)],
    ["vocabulary", `${formatCount(vocabulary)} tokens`],
    [
      "texts",
      `${formatCount(texts.training)} trained on, ${formatCount(texts.validation)} held out, ${formatCount(texts.cut)} cut to the context length`,
    ],
    ["steps", `${formatCount(steps)} in ${formatDuration(seconds)}`],
    ["held-out loss", `${formatNumber(validation.natsPerToken)} nats per token, from ${formatCount(validation.tokens)} tokens`],
    ["perplexity", `${formatNumber(validation.perplexity)} per token`],
  ]),
  "",
  `The model is in ${out}. Texts from it: tiltlm sample ${out}`,
];

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
    const stopping = "stopping after this step; the model will be saved as it is then";
    const report = await withProgress(io, options, (watch) => io.runs.pretrain(config, { out }, watch), stopping);
    if (options.json) printJson(io, report);
    else print(io, reportLines(report));
    if (report.stopped) throw new Interrupted("stopped");
  });
};

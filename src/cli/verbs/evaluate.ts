/** tiltlm evaluate CONFIG --model DIR: every metric of a model against a config's target. */

import { evaluationLines } from "../reports.ts";
import {
  type ConfigOptions,
  loadRunConfig,
  print,
  printJson,
  resultsTerminal,
  type Verb,
  withCommonFlags,
  withConfigFlags,
  withProgress,
} from "../session.ts";

interface EvaluateOptions extends ConfigOptions {
  readonly model: string;
}

export const evaluateVerb: Verb = (program, io) => {
  const command = program
    .command("evaluate")
    .description("measure a model against the target of a config")
    .argument("<config>", "a YAML, JSON or TypeScript config of a run")
    .requiredOption("--model <dir>", "the model directory to measure");
  withCommonFlags(withConfigFlags(command)).action(async (path: string, options: EvaluateOptions) => {
    const config = await loadRunConfig(path, options);
    const result = await withProgress(io, options, (watch) => io.runs.evaluateDirectory(config, options.model, watch));
    if (options.json) printJson(io, result);
    else print(io, evaluationLines(result.evaluation, result.fit, resultsTerminal(io)));
  });
};

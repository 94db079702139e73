/** tiltlm fit CONFIG: only the target, as fitted from samples of the base. */

import { fitReportLines } from "../reports.ts";
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

export const fitVerb: Verb = (program, io) => {
  const command = program
    .command("fit")
    .description("fit only the target: base moments, coefficients, log Z, effective sample size")
    .argument("<config>", "a YAML, JSON or TypeScript config of a run");
  withCommonFlags(withConfigFlags(command)).action(async (path: string, options: ConfigOptions) => {
    const config = await loadRunConfig(path, options);
    const report = await withProgress(io, options, (watch) => io.runs.fit(config, watch));
    if (options.json) printJson(io, report);
    else print(io, fitReportLines(report, resultsTerminal(io)));
  });
};

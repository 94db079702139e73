/** tiltlm demo: the main job on the embedded model, then what it changed, in numbers and in texts. */

import { join, relative } from "node:path";
import { type Files, joinPath, readText } from "../../base/files.ts";
import { formatNumber } from "../format.ts";
import { type SampleLine, sampleLines, summaryLines } from "../reports.ts";
import {
  type ConfigOptions,
  loadRunConfig,
  print,
  printJson,
  resultsTerminal,
  type Verb,
  wholeFlag,
  withCommonFlags,
  withConfigFlags,
  withProgress,
} from "../session.ts";
import { filesLine, leaveStopped, stoppingRun } from "./tune.ts";

interface DemoOptions extends ConfigOptions {
  readonly out?: string;
}

/** Seen from here where that is short. */
const shippedConfig = (packageRoot: string): string => {
  const absolute = join(packageRoot, "examples", "demo.yaml");
  const near = relative(process.cwd(), absolute);
  return near.startsWith("..") ? absolute : near;
};

/** The wanted name, or the first of name-2, name-3, ... that is free. */
const freeDirectory = async (files: Files, name: string): Promise<string> => {
  for (let i = 1; ; i++) {
    const candidate = i === 1 ? name : `${name}-${i}`;
    if ((await files.info(candidate)) === undefined) return candidate;
  }
};

/** Texts shown of each model. */
const shownTexts = 4;

/** The first texts of the first and of the last evaluation in a run directory. */
const readSamples = async (files: Files, out: string): Promise<readonly [before: SampleLine[], after: SampleLine[]]> => {
  const text = await readText(files, joinPath(out, "samples.jsonl"));
  const lines = text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as SampleLine]));
  const steps = lines.map(({ step }) => step);
  const of = (step: number): SampleLine[] => {
    const all = lines.filter((line) => line.step === step);
    const policy = all.filter(({ model }) => model === "policy");
    return (policy.length > 0 ? policy : all).slice(0, shownTexts);
  };
  return [of(Math.min(...steps)), of(Math.max(...steps))];
};

export const demoVerb: Verb = (program, io) => {
  const command = program
    .command("demo")
    .description("tune the embedded model in a few minutes, and compare it before and after")
    .option("--out <dir>", "the run directory (default: runs/demo, or the next free runs/demo-2, ...)")
    .option("--steps <n>", "optimizer steps, instead of the demo's", wholeFlag("--steps", 1));
  withCommonFlags(withConfigFlags(command)).action(async (options: DemoOptions) => {
    const path = shippedConfig(io.packageRoot);
    const config = await loadRunConfig(path, options);
    const out = options.out ?? (await freeDirectory(io.files, "runs/demo"));
    const wanted = Object.entries(config.target?.moments ?? {}).map(([name, moment]) => `${name} ${formatNumber(moment)}`);
    const result = await withProgress(
      io,
      options,
      (watch, progress) => {
        const busy = options.out === undefined && out !== "runs/demo" ? " (runs/demo is taken)" : "";
        progress.say(`The config is ${path}, the run goes to ${out}${busy}.`);
        progress.say(`Wanted of the embedded model, in expectation: ${wanted.join(", ")}; and as little other change as can be.`);
        return io.runs.tune(config, { out, resume: false }, watch);
      },
      stoppingRun,
    );
    if (options.json) printJson(io, { ...result.summary, out: result.out, stopped: result.stopped });
    if (result.stopped) leaveStopped(io, result, path, options);
    if (options.json) return;
    const terminal = resultsTerminal(io);
    const [before, after] = await readSamples(io.files, result.out);
    print(io, [
      ...summaryLines(result.summary, terminal),
      "",
      `The first ${after.length} texts of each, not chosen, with the features that each has:`,
      "",
      ...sampleLines(before, after, terminal),
      filesLine(result.out),
      `More from it: tiltlm sample ${joinPath(result.out, "model")} -n 5`,
    ]);
  });
};

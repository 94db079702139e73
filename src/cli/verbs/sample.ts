/** tiltlm sample MODEL: texts from a model directory; with --target, from the target of a config, by quasi-rejection sampling. */

import type { Command } from "commander";
import { usageError } from "../../base/errors.ts";
import type { Estimate } from "../../base/numeric.ts";
import type { TargetSampleReport } from "../../run/quasi-rejection.ts";
import { formatCount, formatEstimate, formatNumber, formatTable } from "../format.ts";
import {
  type ConfigOptions,
  type Io,
  loadRunConfig,
  numberFlag,
  print,
  printJson,
  seedFlag,
  type Verb,
  wholeFlag,
  withCommonFlags,
  withConfigFlags,
  withProgress,
} from "../session.ts";
import { describeTerminal, symbolsFor } from "../terminal.ts";

interface SampleFlags extends ConfigOptions {
  readonly number: number;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly seed: number;
  readonly temperature: number;
  readonly topP: number;
  readonly target?: string;
  readonly acceptance: number;
}

const temperature = numberFlag("--temperature", (value) => Number.isFinite(value) && value >= 0, "a number of at least 0");
const probability = (flag: string) => numberFlag(flag, (value) => value > 0 && value <= 1, "a number above 0 and at most 1");

/** What each way of sampling is not asked with, by the names that commander gives them. */
const ofModels = { prompt: "--prompt", maxTokens: "--max-tokens", temperature: "--temperature", topP: "--top-p" };
const ofTargets = { acceptance: "--acceptance", set: "--set" };

/** The first of some flags that the command line has. */
const givenOf = (command: Command, flags: Readonly<Record<string, string>>): string | undefined =>
  Object.entries(flags).find(([name]) => command.getOptionValueSource(name) === "cli")?.[1];

/** What was drawn, how near it is to the target, and on how much that rests. */
const reportLines = ({ requested, achieved, logBetaOverZ, pilot }: TargetSampleReport, io: Io): string[] => {
  const { plusMinus } = symbolsFor(describeTerminal(io.stderr, io.env, io.platform));
  const shown = (estimate: Estimate): string => formatEstimate(estimate, plusMinus);
  const beta = `beta = ${formatNumber(Math.exp(logBetaOverZ))} Z`;
  return formatTable([
    [
      "accepted",
      `${shown(achieved)} of ${formatCount(achieved.n)} trials; ${formatNumber(requested)} was asked for, which is ${beta}`,
    ],
    [
      "TV",
      `${shown(pilot.tv)} from the target, at most ${shown(pilot.tvBound)}; the proposal is ${shown(pilot.tvTargetProposal)} from it`,
    ],
    ["KL", `${shown(pilot.kl)} nats from the target; the proposal is ${shown(pilot.klTargetProposal)} from it`],
    [
      "pilot",
      `${formatCount(pilot.ess.n)} texts of the proposal, worth ${formatCount(pilot.ess.value)} of the target; what they did not show is not in TV and KL`,
    ],
  ]);
};

const sampleModel = async (model: string | undefined, flags: SampleFlags, command: Command, io: Io): Promise<void> => {
  const alone = givenOf(command, ofTargets);
  if (alone !== undefined) {
    const fix = "name the config of the target";
    throw usageError({ where: `sample ${alone}`, expected: "--target beside it", got: "none", fix });
  }
  if (model === undefined) {
    throw usageError({ where: "sample", expected: "an argument <model>", got: "none", fix: "see tiltlm sample --help" });
  }
  const { number: count, prompt, maxTokens, seed, device = "cpu" } = flags;
  const options = { count, prompt, maxTokens, seed, temperature: flags.temperature, topP: flags.topP, device };
  const texts = await withProgress(io, flags, (watch) => io.runs.sampleTexts(model, options, watch));
  printTexts(io, texts, flags, prompt);
};

const sampleTarget = async (
  proposal: string | undefined,
  target: string,
  flags: SampleFlags,
  command: Command,
  io: Io,
): Promise<void> => {
  const refused = givenOf(command, ofModels);
  if (refused !== undefined) {
    const fix = "the proposal is sampled exactly, and the config's sequence section decides (--set sequence.maxTokens=32)";
    throw usageError({ where: `sample ${refused}`, expected: "no such flag beside --target", got: "one", fix });
  }
  const { number: count, seed, acceptance } = flags;
  const config = await loadRunConfig(target, flags);
  const options = { count, seed, acceptance, ...(proposal === undefined ? {} : { proposal }) };
  const { texts, report } = await withProgress(io, flags, (watch) => io.runs.sampleTarget(config, options, watch));
  printTexts(io, texts, flags, config.sequence.prompt);
  if (flags.json) printJson(io, { report });
  else
    io.stderr.write(
      reportLines(report, io)
        .map((line) => `${line}\n`)
        .join(""),
    );
};

const printTexts = (io: Io, texts: readonly { readonly text: string }[], { json }: SampleFlags, prompt: string): void => {
  if (json) for (const text of texts) printJson(io, text);
  // A blank line between texts, which may have several lines themselves.
  else print(io, [texts.map(({ text }) => `${prompt}${text}`).join("\n\n")]);
};

export const sampleVerb: Verb = (program, io) => {
  const command = program
    .command("sample")
    .description("write texts with a model, or from the target of a config")
    .argument("[model]", "a Hugging Face model directory; with --target the proposal, the config's base where absent")
    .option("-n, --number <n>", "how many", wholeFlag("-n", 1), 5)
    .option("--prompt <text>", "what each text begins with", "")
    .option("--max-tokens <n>", "generated tokens at most", wholeFlag("--max-tokens", 1), 64)
    .option("--seed <n>", "the same seed gives the same texts", seedFlag, 12)
    .option("--temperature <t>", "below 1 sharper, above 1 flatter, 0 always the likeliest token", temperature, 1)
    .option("--top-p <p>", "draw from the likeliest tokens that make up this probability", probability("--top-p"), 1)
    .option("--target <config>", "draw from the target of this config: texts of the proposal are kept or dropped to follow it")
    .option(
      "--acceptance <rate>",
      "with --target: share of texts to keep; the smaller, the slower and the nearer to the target",
      probability("--acceptance"),
      0.1,
    );
  withCommonFlags(withConfigFlags(command)).action((model: string | undefined, flags: SampleFlags) =>
    flags.target === undefined ? sampleModel(model, flags, command, io) : sampleTarget(model, flags.target, flags, command, io),
  );
};

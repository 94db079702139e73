/** tiltlm sample MODEL: texts from a model directory. */

import {
  type CommonOptions,
  numberFlag,
  print,
  printJson,
  seedFlag,
  type Verb,
  wholeFlag,
  withCommonFlags,
  withProgress,
} from "../session.ts";

interface SampleFlags extends CommonOptions {
  readonly number: number;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly seed: number;
  readonly temperature: number;
  readonly topP: number;
}

const temperature = numberFlag("--temperature", (value) => Number.isFinite(value) && value >= 0, "a number of at least 0");
const topP = numberFlag("--top-p", (value) => value > 0 && value <= 1, "a number above 0 and at most 1");

export const sampleVerb: Verb = (program, io) => {
  const command = program
    .command("sample")
    .description("write texts with a model")
    .argument("<model>", "a Hugging Face model directory")
    .option("-n, --number <n>", "how many", wholeFlag("-n", 1), 5)
    .option("--prompt <text>", "what each text begins with", "")
    .option("--max-tokens <n>", "generated tokens at most", wholeFlag("--max-tokens", 1), 64)
    .option("--seed <n>", "the same seed gives the same texts", seedFlag, 12)
    .option("--temperature <t>", "below 1 sharper, above 1 flatter, 0 always the likeliest token", temperature, 1)
    .option("--top-p <p>", "draw from the likeliest tokens that make up this probability", topP, 1);
  withCommonFlags(command).action(async (model: string, flags: SampleFlags) => {
    const { number: count, json: _, debug: __, device = "cpu", ...rest } = flags;
    const texts = await withProgress(io, flags, (watch) => io.runs.sampleTexts(model, { ...rest, count, device }, watch));
    if (flags.json) for (const text of texts) printJson(io, text);
    // A blank line between texts, which may have several lines themselves.
    else print(io, [texts.map(({ text }) => `${flags.prompt}${text}`).join("\n\n")]);
  });
};

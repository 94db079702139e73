/** tiltlm score MODEL FILE: log-probabilities of given texts, one JSON object a line in and out. */

import { type CommonOptions, printJson, type Verb, withCommonFlags, withProgress } from "../session.ts";

export const scoreVerb: Verb = (program, io) => {
  const command = program
    .command("score")
    .description("log-probabilities (nats) of given texts, one JSON object a line")
    .argument("<model>", "a Hugging Face model directory")
    .argument("<file>", 'one JSON object a line, with "text" or "ids"');
  withCommonFlags(command).action(async (model: string, file: string, options: CommonOptions) => {
    await withProgress(io, options, async (watch) => {
      const scored = io.runs.scoreFile(model, file, { device: options.device ?? "cpu" }, watch);
      for await (const { ids, tokenLogProbs, sumLogProb } of scored) printJson(io, { ids, tokenLogProbs, sumLogProb });
    });
  });
};

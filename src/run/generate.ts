/** The verbs `sample` and `score`: texts out of a model directory, and log-probabilities of given texts. */

import { messageOf, runtimeError, usageError } from "../base/errors.ts";
import { readText } from "../base/files.ts";
import { sum } from "../base/numeric.ts";
import { keyOf } from "../base/random.ts";
import type { DeviceName } from "../engine/runtime/device.ts";
import { createCausalModel } from "../models/causal-model.ts";
import { loadModelDirectory, type ModelDirectory } from "../models/directory.ts";
import { createGenerator, samplingOf } from "../sampling/generate.ts";
import { createScorer, forceRows } from "../sampling/log-prob.ts";
import { inPhase, type RunContext } from "./context.ts";
import { lanesFor, roomAfter, using, withProbabilities } from "./setup.ts";

export interface SampleOptions {
  readonly count: number;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly seed: number;
  /** 1 is the model itself, 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  readonly device: DeviceName;
}

export interface SampledText {
  /** Without the prompt and the end token. */
  readonly text: string;
  /** Generated ids, the end token included. */
  readonly ids: number[];
  /** Under the distribution it was drawn from (for greedy texts: under the model), nats. */
  readonly logProb: number;
  /** Whether the model ended it within the limit. */
  readonly ended: boolean;
}

/** Draws texts. @throws TiltError for a bad model directory or options out of range */
export const sampleTexts = async (model: string, options: SampleOptions, context: RunContext): Promise<SampledText[]> => {
  const directory = await loadModelDirectory(context.files, model);
  const { count, maxTokens, seed, temperature, topP } = options;
  const prompt = [directory.startId, ...directory.tokenizer.encode(options.prompt)];
  const causal = createCausalModel(directory.config);
  const generator = createGenerator(context.openDevice(options.device, lanesFor(causal)), causal, directory.weights, {
    sampling: samplingOf(temperature, topP),
    prompt,
    maxTokens: Math.min(maxTokens, roomAfter(prompt, directory.config.contextLength, "prompt")),
    endIds: directory.endIds,
    tokenizer: directory.tokenizer,
  });
  const samples = await inPhase(context, "sampling", count, "texts", (onProgress) =>
    using(generator, (held) => held.generate({ count, key: keyOf(seed, "sample"), onProgress })),
  );
  return withProbabilities(samples, model).texts.map((text, b) => ({
    text,
    ids: Array.from(samples.ids.subarray(b * samples.maxTokens, b * samples.maxTokens + samples.lengths[b]!)),
    logProb: samples.logProbs[b]!,
    ended: samples.ended[b] === 1,
  }));
};

export interface ScoredText {
  /** With the start token, which is given and not scored. */
  readonly ids: number[];
  /** log-probability of each id after the first, nats. */
  readonly tokenLogProbs: number[];
  readonly sumLogProb: number;
}

/** The ids that a line of a score file asks about: its own, or the start token and its text's. */
const idsOf = (line: string, where: string, { tokenizer, startId, config }: ModelDirectory): number[] => {
  let given: { readonly text?: unknown; readonly ids?: unknown };
  try {
    given = JSON.parse(line) as { text?: unknown; ids?: unknown };
  } catch (error) {
    throw usageError(
      { where, expected: 'a JSON object with "text" or "ids"', got: messageOf(error), fix: "write one object a line" },
      error,
    );
  }
  const { text, ids } = given ?? {};
  if (Array.isArray(ids)) {
    const bad = ids.find((id) => !Number.isInteger(id) || (id as number) < 0 || (id as number) >= config.vocabularySize);
    if (bad !== undefined)
      throw usageError({
        where: `${where}: ids`,
        expected: `integers from 0 to ${config.vocabularySize - 1}`,
        got: JSON.stringify(bad),
        fix: "use the ids of this model's tokenizer",
      });
    if (ids.length < 2)
      throw usageError({
        where: `${where}: ids`,
        expected: "a start token and at least one more",
        got: `${ids.length}`,
        fix: `begin with ${startId}`,
      });
    return ids as number[];
  }
  if (typeof text !== "string")
    throw usageError({
      where,
      expected: '"text" (a string) or "ids" (a list)',
      got: line.slice(0, 60),
      fix: "give one of them",
    });
  return [startId, ...tokenizer.encode(text)];
};

/** Lines scored together. */
const linesAtATime = 64;

/** Scores a JSONL file, in order. @throws TiltError naming the line that is at fault */
export async function* scoreFile(
  model: string,
  file: string,
  options: { readonly device: DeviceName },
  context: RunContext,
): AsyncIterable<ScoredText> {
  const directory = await loadModelDirectory(context.files, model);
  const lines = (await readText(context.files, file))
    .split("\n")
    .flatMap((line, i) => (line.trim() === "" ? [] : [{ line, where: `${file}:${i + 1}` }]));
  const sequences = lines.map(({ line, where }) => {
    const ids = idsOf(line, where, directory);
    if (ids.length - 1 > directory.config.contextLength)
      throw usageError({
        where,
        expected: `at most ${directory.config.contextLength + 1} tokens, the model's context`,
        got: `${ids.length}`,
        fix: "shorten the text",
      });
    return ids;
  });
  const causal = createCausalModel(directory.config);
  const scorer = await createScorer(context.openDevice(options.device, lanesFor(causal)), causal, directory.weights);
  const start = context.clock();
  context.onEvent({ type: "phase", name: "scoring", total: sequences.length, unit: "texts" });
  try {
    for (let first = 0; first < sequences.length; first += linesAtATime) {
      const group = sequences.slice(first, first + linesAtATime);
      const batch = forceRows(group, 1);
      const scores = await scorer.scoreForced(batch);
      for (const [b, ids] of group.entries()) {
        const tokenLogProbs = Array.from(scores.subarray(b * batch.length, b * batch.length + ids.length - 1));
        const sumLogProb = sum(tokenLogProbs);
        if (!Number.isFinite(sumLogProb)) {
          const fix = "its weights are damaged or have diverged: take others";
          throw runtimeError({ where: model, expected: "a finite log-probability of every text", got: String(sumLogProb), fix });
        }
        yield { ids, tokenLogProbs, sumLogProb };
      }
      context.onEvent({ type: "progress", done: first + group.length });
    }
    context.onEvent({ type: "phase-end", name: "scoring", seconds: (context.clock() - start) / 1000 });
  } finally {
    await scorer.dispose();
  }
}

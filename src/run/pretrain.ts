/** The verb `pretrain`: a small causal model from scratch on a file of texts, with a tokenizer of its own and a held-out split. */

import { runtimeError, usageError } from "../base/errors.ts";
import { joinPath, readText } from "../base/files.ts";
import { keyOf, permutation, streamOf } from "../base/random.ts";
import { scalar } from "../base/tensor.ts";
import { type Device, disposeAll, uploadAll } from "../engine/runtime/device.ts";
import { type CausalModel, createCausalModel } from "../models/causal-model.ts";
import { hfConfigOf, type ModelConfig } from "../models/config.ts";
import { saveModelDirectory } from "../models/directory.ts";
import { initialWeights } from "../models/initial.ts";
import { createTokenizer } from "../models/tokenizer.ts";
import { trainByteLevelBpe } from "../models/tokenizer-training.ts";
import { createOptimizer, type DeviceTensors } from "../optim/adam.ts";
import { learningRateAt } from "../optim/schedule.ts";
import { createScorer, everyIndex, forceRows, microBatches } from "../sampling/log-prob.ts";
import { likelihoodObjective } from "../tuners/likelihood.ts";
import { createLaneTraining, type Piece } from "../tuners/training.ts";
import type { PretrainConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { lanesFor, using } from "./setup.ts";
import { hostWeights } from "./state.ts";

const endToken = "<|endoftext|>";

export interface PretrainReport {
  readonly out: string;
  readonly parameters: number;
  readonly vocabulary: number;
  /** Texts trained on and held out, and how many had to be cut to the context length. */
  readonly texts: { readonly training: number; readonly validation: number; readonly cut: number };
  readonly steps: number;
  /** Whether it was stopped before its last step; the model is saved as it was then. */
  readonly stopped: boolean;
  readonly seconds: number;
  /** Held-out texts under the final model: nats per token, and perplexity per token and per text length. */
  readonly validation: { readonly natsPerToken: number; readonly perplexity: number; readonly tokens: number };
}

/** The texts of a file: lines, or the `text` of each line of a .jsonl. */
const readTexts = async (path: string, { files }: RunContext): Promise<string[]> => {
  const lines = (await readText(files, path))
    .split(/\r?\n/)
    .flatMap((line, i) => (line.trim() === "" ? [] : [{ line, where: `${path}:${i + 1}` }]));
  const texts = path.endsWith(".jsonl")
    ? lines.map(({ line, where }) => {
        let text: unknown;
        try {
          text = (JSON.parse(line) as { text?: unknown } | null)?.text;
        } catch {
          text = undefined;
        }
        if (typeof text !== "string")
          throw usageError({
            where,
            expected: 'a JSON object with "text" (a string)',
            got: line.slice(0, 60),
            fix: "write one object a line",
          });
        return text;
      })
    : lines.map(({ line }) => line);
  if (texts.length < 2)
    throw usageError({ where: path, expected: "at least two texts", got: String(texts.length), fix: "write one text a line" });
  return texts;
};

const modelConfigOf = ({ model }: PretrainConfig, vocabularySize: number): ModelConfig => {
  const { family, layers, width, heads, contextLength } = model;
  const isLlama = family === "llama";
  return {
    family,
    vocabularySize,
    width,
    layers,
    heads,
    keyValueHeads: model.keyValueHeads ?? heads,
    headWidth: width / heads,
    // SwiGLU has three matrices where GELU has two: 8/3 of the width keeps the number of weights (arXiv 2002.05202).
    innerWidth: model.innerWidth ?? (isLlama ? Math.round((8 * width) / 3) : 4 * width),
    contextLength,
    normEpsilon: 1e-5,
    ropeTheta: isLlama ? 10_000 : 0,
    tiedEmbeddings: true,
    activation: isLlama ? "silu" : "gelu-tanh",
    attentionBias: !isLlama,
    mlpBias: !isLlama,
  };
};

/** Mean loss of texts under weights, nats per token. */
const heldOutLoss = async (
  device: Device,
  model: CausalModel,
  weights: DeviceTensors,
  rows: readonly Int32Array[],
): Promise<{ natsPerToken: number; tokens: number }> =>
  using(createScorer(device, model, await hostWeights(weights)), async (scorer) => {
    let total = 0;
    let tokens = 0;
    for (const indices of microBatches(everyIndex(rows.length), 128)) {
      const batch = forceRows(
        Array.from(indices, (i) => rows[i]!),
        1,
      );
      const scores = await scorer.scoreForced(batch);
      for (let i = 0; i < scores.length; i++) {
        if (batch.mask[i] === 0) continue;
        total -= scores[i]!;
        tokens++;
      }
    }
    return { natsPerToken: total / tokens, tokens };
  });

/** At most this many held-out texts are scored while training goes on; all of them at the end. */
const heldOutSample = 512;

/**
 * Pretrains, and writes a Hugging Face directory to `out`, which must not exist; after a failure nothing is left there.
 * @throws TiltError for bad data, or a loss that is not finite
 */
export const pretrain = async (
  config: PretrainConfig,
  { out }: { readonly out: string },
  context: RunContext,
): Promise<PretrainReport> => {
  const { files } = context;
  if ((await files.info(out)) !== undefined)
    throw usageError({
      where: out,
      expected: "a new directory",
      got: "one that exists",
      fix: "remove it or choose another --out",
    });
  const texts = await readTexts(config.data, context);
  // Now, not after hours of training, if it cannot be made.
  await files.makeDirectory(out);
  try {
    return await trainOn(texts, config, out, context);
  } catch (error) {
    await files.remove(out);
    throw error;
  }
};

/** The tokenizer, the training and what is written of both. */
const trainOn = async (
  texts: readonly string[],
  config: PretrainConfig,
  out: string,
  context: RunContext,
): Promise<PretrainReport> => {
  const opened = context.clock();
  const { files, onEvent } = context;
  const { vocabularySize } = config.tokenizer;
  const { tokenizerJson, tokenizerConfig } = await inPhase(
    context,
    "training the tokenizer",
    vocabularySize,
    "tokens",
    async (onProgress) => trainByteLevelBpe(texts, { vocabularySize, specialTokens: [endToken], onProgress }),
  );
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig, out);
  const endId = tokenizer.idOf(endToken)!;
  const modelConfig = modelConfigOf(config, tokenizer.vocabularySize);
  const model = createCausalModel(modelConfig);
  const device = context.openDevice(config.device, lanesFor(model));
  const rows = await inPhase(context, "encoding", texts.length, "texts", async (progress) => {
    const encoded: Int32Array[] = [];
    for (const text of texts) {
      encoded.push(Int32Array.from([endId, ...tokenizer.encode(text), endId]));
      if (encoded.length % 1024 === 0) progress(encoded.length);
    }
    return encoded;
  });
  const room = modelConfig.contextLength + 1;
  const cut = rows.filter((row) => row.length > room).length;
  if (cut > 0)
    onEvent({
      type: "notice",
      message: `${cut} of ${rows.length} texts are longer than the context of ${modelConfig.contextLength} tokens and were cut`,
    });
  const order = permutation(rows.length, streamOf(keyOf(config.seed, "split")));
  const heldOutCount = Math.min(rows.length - 1, Math.max(1, Math.round(rows.length * config.validationShare)));
  const take = (indices: Int32Array): Int32Array[] => Array.from(indices, (i) => rows[i]!.subarray(0, room));
  const heldOut = take(order.subarray(0, heldOutCount));
  const training = take(order.subarray(heldOutCount));

  const batchSize = Math.min(config.batch.samples, training.length);
  const perEpoch = Math.max(1, Math.floor(training.length / batchSize));
  const steps = config.steps ?? Math.max(1, Math.round(config.epochs! * perEpoch));
  const trainer = await createLaneTraining(device, model, likelihoodObjective);
  const optimizer = await createOptimizer(device, model.parameterShapes, config.optimizer);
  const initial = initialWeights(modelConfig, keyOf(config.seed, "weights"));
  let weights: DeviceTensors = uploadAll(device, initial);
  let adam = optimizer.start();
  let step = 0;
  let epochOrder = new Int32Array();

  const advance = async (): Promise<number> => {
    const place = step % perEpoch;
    if (place === 0)
      epochOrder = permutation(
        training.length,
        streamOf(keyOf(config.seed, "shuffle"), Math.floor(step / perEpoch)),
      ) as typeof epochOrder;
    const batch = Array.from(epochOrder.subarray(place * batchSize, (place + 1) * batchSize), (i) => training[i]!);
    const tokens = batch.reduce((total, row) => total + row.length - 1, 0);
    const lengths = batch.map((row) => row.length);
    const scale = scalar(1 / tokens);
    const layOut = (indices: Int32Array): Piece => {
      const chosen = Array.from(indices, (i) => batch[i]!);
      return { batch: forceRows(chosen, 1), inputs: { scale } };
    };
    const { gradients, pieces } = await trainer.gradients(weights, lengths, config.batch.microBatch, layOut);
    const loss = pieces.reduce((total, { outputs }) => total + outputs["loss"]!.data[0]!, 0);
    const gradNorm = await optimizer.norm(gradients);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      throw runtimeError({
        where: `step ${step + 1}`,
        expected: "a finite loss and gradient",
        got: `loss ${loss}, gradient norm ${gradNorm}`,
        fix: "lower optimizer.learningRate or set optimizer.maxGradNorm",
      });
    }
    const learningRate = learningRateAt(step + 1, { ...config.optimizer, steps });
    const updated = await optimizer.update(weights, gradients, adam, { learningRate, gradNorm, overwrite: true });
    for (const found of gradients) disposeAll(found);
    weights = updated.weights;
    adam = updated.state;
    step++;
    return loss;
  };

  const isStopped = (): boolean => context.signal?.aborted === true;
  await inPhase(context, "training", steps, "steps", async (progress) => {
    let recent = 0;
    let since = 0;
    while (step < steps && !isStopped()) {
      recent += await advance();
      since++;
      progress(step);
      if (step % config.evaluate.every === 0 || step === steps) {
        const { natsPerToken } = await heldOutLoss(device, model, weights, heldOut.slice(0, heldOutSample));
        onEvent({
          type: "notice",
          message: `step ${step}: loss ${(recent / since).toFixed(4)}, held-out ${natsPerToken.toFixed(4)} nats per token`,
        });
        recent = 0;
        since = 0;
      }
    }
  });
  await trainer.dispose();
  await optimizer.dispose();
  const { natsPerToken, tokens } = await heldOutLoss(device, model, weights, heldOut);
  if (!Number.isFinite(natsPerToken)) {
    const fix = "lower optimizer.learningRate or set optimizer.maxGradNorm";
    throw runtimeError({ where: `step ${step}`, expected: "a finite held-out loss", got: String(natsPerToken), fix });
  }
  await saveModelDirectory(
    files,
    out,
    {
      config: modelConfig,
      weights: await hostWeights(weights),
      extraFiles: extraFilesOf(modelConfig, endId, tokenizerJson, tokenizerConfig),
    },
    { dtype: config.dtype },
  );
  const report: PretrainReport = {
    out,
    parameters: Object.values(initial).reduce((total, held) => total + held.data.length, 0),
    vocabulary: tokenizer.vocabularySize,
    texts: { training: training.length, validation: heldOut.length, cut },
    steps: step,
    stopped: isStopped(),
    seconds: (context.clock() - opened) / 1000,
    validation: { natsPerToken, perplexity: Math.exp(natsPerToken), tokens },
  };
  await files.write(joinPath(out, "pretrain.json"), `${JSON.stringify(report, null, 2)}\n`);
  return report;
};

const extraFilesOf = (
  config: ModelConfig,
  endId: number,
  tokenizerJson: object,
  tokenizerConfig: object,
): Record<string, Uint8Array> => {
  const encode = (value: unknown): Uint8Array => new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
  const ids = { startId: endId, endIds: [endId] };
  return {
    "config.json": encode(hfConfigOf(config, ids)),
    "generation_config.json": encode({ bos_token_id: endId, eos_token_id: endId }),
    "tokenizer.json": new TextEncoder().encode(JSON.stringify(tokenizerJson)),
    "tokenizer_config.json": encode(tokenizerConfig),
  };
};

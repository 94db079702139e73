/**
 * The shapes that are measured, and their model directories: config.json, model.safetensors, tokenizer.json as Hugging Face has them, for this
 * process and for peers in Python. T is the embedded model; S and M have random weights and a made-up tokenizer.
 * No directory has an end token, so that every text is as long as every other.
 */

import { fileURLToPath } from "node:url";
import {
  f32,
  hfConfigOf,
  initialWeights,
  keyOf,
  loadModelDirectory,
  type ModelConfig,
  type NamedTensors,
  parameterShapes,
  parseModelConfig,
  saveModelDirectory,
  trainByteLevelBpe,
} from "tiltlm";
import { nodeFiles } from "tiltlm/node";

export type ShapeName = "S" | "M" | "T";

export interface ShapeInfo {
  readonly title: string;
  /** Sequences computed at once when scoring and training. */
  readonly microBatch: number;
  /** Sequences generated at once. */
  readonly batch: number;
  /** Sequences of one measurement: long enough to be timed, short enough to be repeated `n` times. */
  readonly training: number;
  readonly scoring: number;
  readonly generation: number;
  readonly n: number;
  /** Sequences and steps of the real run from which the rest of a step is read; absent where that would take too long. */
  readonly run?: { readonly count: number; readonly steps: number };
}

/** Tokens of every text. */
export const textLength = 40;

export const shapes: Readonly<Record<ShapeName, ShapeInfo>> = {
  S: { title: "GPT-2 small: D 768, L 12, V 50257", microBatch: 16, batch: 64, training: 256, scoring: 128, generation: 64, n: 3 },
  M: {
    title: "D 256, L 4, V 4096",
    microBatch: 16,
    batch: 256,
    training: 512,
    scoring: 512,
    generation: 512,
    n: 5,
    run: { count: 256, steps: 7 },
  },
  T: {
    title: "models/biographies-mini: D 128, L 4, V 1024",
    microBatch: 16,
    batch: 256,
    training: 512,
    scoring: 512,
    generation: 512,
    n: 7,
    run: { count: 512, steps: 9 },
  },
};

const gpt2 = (width: number, layers: number, heads: number, vocabularySize: number, contextLength: number): ModelConfig =>
  parseModelConfig(
    {
      model_type: "gpt2",
      n_embd: width,
      n_layer: layers,
      n_head: heads,
      n_positions: contextLength,
      vocab_size: vocabularySize,
    },
    "bench",
  );

const embedded = fileURLToPath(new URL("../models/biographies-mini", import.meta.url));

const letters = Array.from("abcdefghijklmnopqrstuvwxyz");

/** Merges of letters, short before long: " a", "ab", " ab", "abc", " abc", "abcd". Each joins two tokens that came before it. */
function* merges(): Generator<readonly [string, string]> {
  const pairs = letters.flatMap((a) => letters.map((b) => a + b));
  const space = "Ġ";
  for (const a of letters) yield [space, a];
  for (const pair of pairs) yield [pair[0]!, pair[1]!];
  for (const pair of pairs) yield [space + pair[0], pair[1]!];
  for (const pair of pairs) for (const c of letters) yield [pair, c];
  for (const pair of pairs) for (const c of letters) yield [space + pair, c];
  for (const left of pairs) for (const right of pairs) yield [left, right];
}

interface BpeJson {
  readonly added_tokens: readonly { readonly content: string }[];
  readonly model: { readonly vocab: Readonly<Record<string, number>> };
}

/**
 * A byte-level BPE tokenizer.json of exactly `size` tokens: the bytes, merges of letters, and last the token that starts a text.
 * @param size at least 257
 */
export const syntheticTokenizer = (size: number): object => {
  const special = "<|endoftext|>";
  const { tokenizerJson } = trainByteLevelBpe([], { vocabularySize: 257, specialTokens: [special] });
  const { added_tokens: added, model, ...rest } = tokenizerJson as BpeJson;
  const tokens = Object.keys(model.vocab).filter((token) => token !== special);
  const made: string[] = [];
  for (const [left, right] of merges()) {
    if (tokens.length >= size - 1) break;
    tokens.push(left + right);
    made.push(`${left} ${right}`);
  }
  const vocab = Object.fromEntries([...tokens, special].map((token, id) => [token, id]));
  return { ...rest, added_tokens: added.map((token) => ({ ...token, id: size - 1 })), model: { ...model, vocab, merges: made } };
};

const bytes = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

const withoutEnd = (config: ModelConfig, startId: number): Uint8Array => bytes(hfConfigOf(config, { startId, endIds: [] }));

/**
 * Weights as initialWeights has them, but of the random numbers there are only a million, over and over: GPT-2 small's would take half a minute, and
 * time does not depend on them.
 */
const cycledWeights = (config: ModelConfig, numbers: Float32Array): NamedTensors =>
  Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((size, axis) => size * axis, 1));
      if (shape.length === 1) data.fill(name.endsWith(".bias") ? 0 : 1);
      else for (let at = 0; at < data.length; at += numbers.length) data.set(numbers.subarray(0, data.length - at), at);
      return [name, f32(shape, data)];
    }),
  );

/** Writes the model directory of a shape; the same bytes every time. */
export const writeShape = async (name: ShapeName, directory: string): Promise<void> => {
  if (name === "T") {
    const base = await loadModelDirectory(nodeFiles, embedded);
    const kept = Object.entries(base.extraFiles).filter(([file]) => file.startsWith("tokenizer"));
    const extraFiles = { ...Object.fromEntries(kept), "config.json": withoutEnd(base.config, base.startId) };
    return saveModelDirectory(nodeFiles, directory, { ...base, extraFiles });
  }
  const medium = gpt2(256, 4, 8, 4096, 64);
  const config = name === "S" ? gpt2(768, 12, 12, 50257, 1024) : medium;
  const own = initialWeights(medium, keyOf(12, "bench"));
  const weights = name === "S" ? cycledWeights(config, own["transformer.wte.weight"]!.data) : own;
  const extraFiles = {
    "config.json": withoutEnd(config, config.vocabularySize - 1),
    "tokenizer.json": bytes(syntheticTokenizer(config.vocabularySize)),
    "tokenizer_config.json": bytes({ tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false }),
  };
  await saveModelDirectory(nodeFiles, directory, { config, weights, extraFiles });
};

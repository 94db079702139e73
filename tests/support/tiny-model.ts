/** A tiny random language model with a real tokenizer, for tests that need a whole one: a few thousand weights, texts that are noise. */

import type { Files } from "../../src/base/files.ts";
import { keyOf, streamOf } from "../../src/base/random.ts";
import { f32, type NamedTensors, sizeOf } from "../../src/base/tensor.ts";
import { hfConfigOf, type ModelConfig, parameterShapes } from "../../src/models/config.ts";
import { saveModelDirectory } from "../../src/models/directory.ts";
import type { Tokenizer } from "../../src/models/tokenizer.ts";
import { trainByteLevelBpe } from "../../src/models/tokenizer-training.ts";

const shared = { vocabularySize: 300, width: 16, layers: 2, contextLength: 24, normEpsilon: 1e-5, tiedEmbeddings: true } as const;

export const tinyConfigs: Readonly<Record<"gpt2" | "llama", ModelConfig>> = {
  gpt2: {
    ...shared,
    family: "gpt2",
    heads: 2,
    keyValueHeads: 2,
    headWidth: 8,
    innerWidth: 32,
    ropeTheta: 0,
    activation: "gelu-tanh",
    attentionBias: true,
    mlpBias: true,
  },
  llama: {
    ...shared,
    family: "llama",
    heads: 4,
    keyValueHeads: 2,
    headWidth: 4,
    innerWidth: 24,
    ropeTheta: 10_000,
    activation: "silu",
    attentionBias: false,
    mlpBias: false,
  },
};

/** Normal weights, large enough that nothing is trivial; norms around 1. */
export const tinyWeights = (config: ModelConfig, seed: number, spread = 0.3): NamedTensors =>
  Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape], index) => {
      const stream = streamOf(keyOf(seed, "tiny"), index);
      const centre = shape.length === 1 && name.endsWith("weight") ? 1 : 0;
      return [
        name,
        f32(
          shape,
          Float32Array.from({ length: sizeOf(shape) }, () => centre + spread * stream.normal()),
        ),
      ];
    }),
  );

const corpus = [
  "she saw the sea and she sang",
  "he ran to the hill and he hid",
  "the cat sat on the mat",
  "a dog and a bird and a bee",
];

/** Writes a Hugging Face directory. Token 0 starts and ends texts; about one token in eight is an end token. @param change to the family's config */
export const writeTinyModel = async (
  files: Files,
  path: string,
  family: "gpt2" | "llama",
  seed = 1,
  change: Partial<ModelConfig> = {},
): Promise<void> => {
  const { tokenizerJson, tokenizerConfig } = trainByteLevelBpe(corpus, { vocabularySize: 290, specialTokens: ["<|end|>"] });
  const config = { ...tinyConfigs[family], ...change };
  const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  await saveModelDirectory(files, path, {
    config,
    weights: tinyWeights(config, seed),
    extraFiles: {
      "config.json": encode(hfConfigOf(config, { startId: 0, endIds: [0] })),
      "generation_config.json": encode({ bos_token_id: 0, eos_token_id: 0 }),
      "tokenizer.json": encode(tokenizerJson),
      "tokenizer_config.json": encode(tokenizerConfig),
    },
  });
};

/** Texts are their token ids: for tests of which tokens are drawn. */
export const numberTokenizer: Tokenizer = {
  vocabularySize: 300,
  encode: () => [],
  decode: (ids) => Array.from(ids).join(" "),
  tokenOf: String,
  idOf: Number,
};

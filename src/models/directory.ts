/**
 * A Hugging Face model directory: config, weights, tokenizer and the ids that start and end a text, checked against each other
 * when it is read, and written so that transformers and others read it as their own.
 */

import { messageOf, runtimeError, type TiltError } from "../base/errors.ts";
import { type Files, joinPath } from "../base/files.ts";
import type { HostTensor, NamedTensors } from "../base/tensor.ts";
import { canonicalName, type ModelConfig, parameterShapes, parseModelConfig } from "./config.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";
import { readSafetensors, safetensorsParts, type WeightDType } from "./weights/safetensors.ts";

export interface ModelDirectory {
  readonly path: string;
  readonly config: ModelConfig;
  /** Exactly the names and shapes of `parameterShapes(config)`, in that order. */
  readonly weights: NamedTensors;
  readonly tokenizer: Tokenizer;
  /** The token every text starts with. */
  readonly startId: number;
  /** The tokens that end a text; there may be none. */
  readonly endIds: readonly number[];
  /** The small files beside the weights, verbatim, to be written out again. */
  readonly extraFiles: Readonly<Record<string, Uint8Array>>;
}

const extraNames = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.json",
  "merges.txt",
] as const;

type Json = Readonly<Record<string, unknown>>;

const parseObject = (bytes: Uint8Array, where: string): Json => {
  const fix = "the file is damaged: download or save it again";
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw runtimeError(
      { where, expected: "a JSON object", got: messageOf(error).replace(/\s+/g, " ").slice(0, 120), fix },
      error,
    );
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw runtimeError({ where, expected: "a JSON object", got: JSON.stringify(json).slice(0, 80), fix });
  }
  return json as Json;
};

const checkDirectory = async (files: Files, path: string): Promise<void> => {
  const info = await files.info(path);
  if (info?.isDirectory) return;
  const expected = "a directory with config.json, model.safetensors and tokenizer.json";
  if (info !== undefined)
    throw runtimeError({ where: path, expected, got: "a file", fix: "name the directory, not a file in it" });
  const isHubId = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(path);
  const name = path.split("/")[1] ?? "";
  const fix = isHubId
    ? `if it is a model of the Hugging Face hub, download it first (\`hf download ${path} --local-dir ${name}\`, or \`git clone https://huggingface.co/${path}\` with git-lfs) and name that directory`
    : "check the path";
  throw runtimeError({ where: path, expected, got: "nothing there", fix });
};

const readExtraFiles = async (files: Files, path: string): Promise<Readonly<Record<string, Uint8Array>>> => {
  const found: Record<string, Uint8Array> = {};
  for (const name of extraNames) {
    const info = await files.info(joinPath(path, name));
    if (info !== undefined && !info.isDirectory) found[name] = await files.read(joinPath(path, name));
  }
  return found;
};

const findWeightsFile = async (files: Files, path: string): Promise<string> => {
  for (const name of ["model.safetensors", "model.safetensors.index.json"]) {
    if ((await files.info(joinPath(path, name))) !== undefined) return joinPath(path, name);
  }
  const hasPickle = (await files.list(path)).some((name) => /^pytorch_model.*\.bin/.test(name));
  throw runtimeError({
    where: path,
    expected: "model.safetensors, or model.safetensors.index.json and its shards",
    got: hasPickle ? "only pytorch_model.bin, a pickle, which could run any code and is not read" : "neither",
    fix: hasPickle
      ? "load it with transformers and save it with save_pretrained(), which writes safetensors"
      : "download the weights too, or check the path",
  });
};

const shapeText = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

/** The first few of a list, and how many more there are. */
const someOf = (items: readonly string[]): string =>
  items.length <= 3 ? items.join(", ") : `${items.slice(0, 3).join(", ")} and ${items.length - 3} more`;

/** The weights in the order of `parameterShapes(config)`. @throws TiltError where one is missing, unexpected or of another shape */
const checkWeights = (weights: NamedTensors, config: ModelConfig, where: string): NamedTensors => {
  const shapes = parameterShapes(config);
  const complain = (expected: string, got: string): TiltError =>
    runtimeError({
      where,
      expected,
      got,
      fix: "take config.json and the weights from the same model, of a supported architecture",
    });
  const missing = Object.keys(shapes).filter((name) => !Object.hasOwn(weights, name));
  const unexpected = Object.keys(weights).filter((name) => !Object.hasOwn(shapes, name));
  if (missing.length > 0) {
    const besides =
      unexpected.length > 0
        ? `, but unexpected ${someOf(unexpected.map((name) => `${name} ${shapeText(weights[name]!.shape)}`))}`
        : "";
    throw complain(
      `the tensors ${someOf(missing.map((name) => `${name} ${shapeText(shapes[name]!)}`))}`,
      `none of that name${besides}`,
    );
  }
  if (unexpected.length > 0) {
    throw complain(
      "only the tensors that config.json implies",
      `also ${someOf(unexpected.map((name) => `${name} ${shapeText(weights[name]!.shape)}`))}`,
    );
  }
  const wrong = Object.keys(shapes).filter((name) => shapeText(weights[name]!.shape) !== shapeText(shapes[name]!));
  if (wrong.length > 0) {
    const list = (shapeOf: (name: string) => readonly number[]): string =>
      someOf(wrong.map((name) => `${name} ${shapeText(shapeOf(name))}`));
    throw complain(
      list((name) => shapes[name]!),
      list((name) => weights[name]!.shape),
    );
  }
  return Object.fromEntries(Object.keys(shapes).map((name) => [name, weights[name]!]));
};

const readWeights = async (files: Files, path: string, config: ModelConfig): Promise<NamedTensors> => {
  const where = await findWeightsFile(files, path);
  // A tied output projection is the embedding once more.
  const nameOf = (name: string): string | undefined =>
    name === "lm_head.weight" && config.tiedEmbeddings ? undefined : canonicalName(name);
  const { tensors } = await readSafetensors(files, where, { select: (name) => nameOf(name) !== undefined });
  const named = new Map<string, HostTensor<"f32">>();
  for (const [name, tensor] of Object.entries(tensors)) {
    const canonical = nameOf(name)!;
    if (named.has(canonical)) {
      const got = "it twice, with and without its prefix";
      throw runtimeError({ where, expected: `one tensor ${canonical}`, got, fix: "save the model again with transformers" });
    }
    named.set(canonical, tensor);
  }
  return checkWeights(Object.fromEntries(named), config, where);
};

/** What says which token starts and which end a text, the first that has a say winning: generation settings, the model, the tokenizer. */
interface IdSource {
  readonly where: string;
  readonly json: Json;
}

/** The ids under a key of the first source that has one; none where no source has. */
const findIds = (sources: readonly IdSource[], key: string, vocabularySize: number): readonly number[] => {
  for (const { where, json } of sources) {
    const value = json[key];
    if (value === undefined || value === null) continue;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    const wrong = ids.find((id) => !Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabularySize);
    if (wrong !== undefined) {
      const expected = `token ids below ${vocabularySize}, the number of rows of the embedding`;
      throw runtimeError({ where: `${where}: ${key}`, expected, got: JSON.stringify(value), fix: "correct the id in that file" });
    }
    return ids as number[];
  }
  return [];
};

/** The id of a token that tokenizer_config.json names for a role, as text or as an object with its content. */
const idOfRole = (tokenizer: Tokenizer, tokenizerConfig: Json, role: string): number | undefined => {
  const named = tokenizerConfig[role];
  const token = typeof named === "object" && named !== null ? (named as Json)["content"] : named;
  return typeof token === "string" ? tokenizer.idOf(token) : undefined;
};

/**
 * Reads a model directory. Which token starts and which end a text is what generation_config.json says, else config.json,
 * else the tokenizer's own roles.
 *
 * @throws TiltError (runtime) when a file is missing or damaged, or the files do not belong together
 */
export const loadModelDirectory = async (files: Files, path: string): Promise<ModelDirectory> => {
  await checkDirectory(files, path);
  const extraFiles = await readExtraFiles(files, path);
  const parse = (name: string): Json | undefined => {
    const bytes = extraFiles[name];
    return bytes === undefined ? undefined : parseObject(bytes, joinPath(path, name));
  };
  const configJson = parse("config.json");
  if (configJson === undefined) {
    const fix = "check the path, or download the whole model directory";
    throw runtimeError({ where: path, expected: "config.json", got: "none", fix });
  }
  const config = parseModelConfig(configJson, joinPath(path, "config.json"));
  const tokenizerJson = parse("tokenizer.json");
  if (tokenizerJson === undefined) {
    const fix = "download it too, or write it with AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers";
    throw runtimeError({ where: path, expected: "tokenizer.json", got: "none", fix });
  }
  const tokenizerConfig = parse("tokenizer_config.json") ?? {};
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig, joinPath(path, "tokenizer.json"));
  if (tokenizer.vocabularySize > config.vocabularySize) {
    throw runtimeError({
      where: path,
      expected: "a row of the embedding for each token",
      got: `tokenizer.json with ${tokenizer.vocabularySize} ids, while the embedding has ${config.vocabularySize} rows`,
      fix: "take the tokenizer and the weights from the same model",
    });
  }
  const sources = [
    { where: joinPath(path, "generation_config.json"), json: parse("generation_config.json") ?? {} },
    { where: joinPath(path, "config.json"), json: configJson },
  ];
  const startId = findIds(sources, "bos_token_id", config.vocabularySize)[0] ?? idOfRole(tokenizer, tokenizerConfig, "bos_token");
  if (startId === undefined) {
    const fix = "add it to generation_config.json: the id of the token that each text starts with";
    throw runtimeError({ where: path, expected: "a bos_token_id in generation_config.json or config.json", got: "none", fix });
  }
  const ends = findIds(sources, "eos_token_id", config.vocabularySize);
  const roleEnd = idOfRole(tokenizer, tokenizerConfig, "eos_token");
  const endIds = ends.length > 0 || roleEnd === undefined ? ends : [roleEnd];
  return { path, config, weights: await readWeights(files, path, config), tokenizer, startId, endIds, extraFiles };
};

const configDTypes: Readonly<Record<WeightDType, string>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/**
 * The config's text with its dtype changed and every other byte kept: other programs tell 1.0 from 1, so it is not parsed and written anew.
 * A config that names no dtype gets one, unless it is float32, which is understood.
 */
const withDType = (text: string, dtype: WeightDType): string => {
  const key = /("(?:torch_)?dtype"\s*:\s*)("[^"]*"|null)/g;
  if (key.test(text)) return text.replace(key, `$1"${configDTypes[dtype]}"`);
  return dtype === "F32" ? text : text.replace("{", `{\n  "torch_dtype": "${configDTypes[dtype]}",`);
};

export interface SaveOptions {
  /** What the weights are stored as; F32 by default. */
  readonly dtype?: WeightDType;
  /** The text of README.md, the model card. */
  readonly card?: string;
}

/**
 * Writes a model directory: the extra files as they are (config.json with the dtype of what is written), `model.safetensors`, and the card.
 * Each file is replaced whole; the weights come last, so that a directory with weights is complete.
 *
 * @throws TiltError (runtime) when the weights are not those of the config, there is no config.json, or a file cannot be written
 */
export const saveModelDirectory = async (
  files: Files,
  path: string,
  model: Pick<ModelDirectory, "config" | "weights" | "extraFiles">,
  { dtype = "F32", card }: SaveOptions = {},
): Promise<void> => {
  const weights = checkWeights(model.weights, model.config, path);
  const config = model.extraFiles["config.json"];
  if (config === undefined) {
    throw runtimeError({
      where: path,
      expected: "config.json among the extra files",
      got: "none",
      fix: "make one with hfConfigOf",
    });
  }
  await files.makeDirectory(path);
  for (const [name, bytes] of Object.entries(model.extraFiles)) {
    await files.write(joinPath(path, name), name === "config.json" ? withDType(new TextDecoder().decode(bytes), dtype) : bytes);
  }
  if (card !== undefined) await files.write(joinPath(path, "README.md"), card);
  await files.write(joinPath(path, "model.safetensors"), safetensorsParts(weights, { dtype }));
};

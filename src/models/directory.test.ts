import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TiltError } from "../base/errors.ts";
import { nodeFiles } from "../base/files.node.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { f32, type NamedTensors, sizeOf } from "../base/tensor.ts";
import { hfConfigOf, type ModelConfig, parameterShapes } from "./config.ts";
import { loadModelDirectory, saveModelDirectory } from "./directory.ts";
import { trainByteLevelBpe } from "./tokenizer-training.ts";
import { readSafetensors, safetensorsParts } from "./weights/safetensors.ts";

const gpt2: ModelConfig = {
  family: "gpt2",
  vocabularySize: 260,
  width: 4,
  layers: 2,
  heads: 2,
  keyValueHeads: 2,
  headWidth: 2,
  innerWidth: 8,
  contextLength: 6,
  normEpsilon: 1e-5,
  ropeTheta: 0,
  tiedEmbeddings: true,
  activation: "gelu-tanh",
  attentionBias: true,
  mlpBias: true,
};
const llama: ModelConfig = {
  ...gpt2,
  family: "llama",
  keyValueHeads: 1,
  ropeTheta: 1e4,
  activation: "silu",
  attentionBias: false,
  mlpBias: false,
};

/** Weights that every dtype can hold: multiples of 1/8 below 2. */
const weightsOf = (config: ModelConfig): NamedTensors => {
  const stream = streamOf(keyOf(1, "weights"));
  return Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => [
      name,
      f32(
        shape,
        Array.from({ length: sizeOf(shape) }, () => (stream.integer(31) - 15) / 8),
      ),
    ]),
  );
};

const { tokenizerJson, tokenizerConfig } = trainByteLevelBpe(["the the"], { vocabularySize: 259, specialTokens: ["<end>"] });
const encode = (json: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(json));
const extraOf = (config: ModelConfig): Record<string, Uint8Array> => ({
  "config.json": encode(hfConfigOf(config, { startId: 0, endIds: [0] })),
  "tokenizer.json": encode(tokenizerJson),
  "tokenizer_config.json": encode(tokenizerConfig),
});

let path = "";
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), "tiltlm-directory-"));
});
afterEach(() => rmSync(path, { recursive: true, force: true }));

const put = (name: string, content: unknown): void =>
  writeFileSync(join(path, name), content instanceof Uint8Array ? content : encode(content));
const json = (name: string): Record<string, unknown> => JSON.parse(readFileSync(join(path, name), "utf8"));
const load = () => loadModelDirectory(nodeFiles, path);
const save = (config: ModelConfig, extraFiles = extraOf(config)) =>
  saveModelDirectory(nodeFiles, path, { config, weights: weightsOf(config), extraFiles });
const putWeights = (weights: NamedTensors, name = "model.safetensors") =>
  nodeFiles.write(join(path, name), safetensorsParts(weights));

describe.each([
  ["gpt2", gpt2],
  ["llama", llama],
  ["llama with its own output projection", { ...llama, tiedEmbeddings: false }],
] as const)("%s", (_, config) => {
  test.each(["F32", "F16", "BF16"] as const)("is saved in %s and loaded as it was", async (dtype) => {
    const extraFiles = extraOf(config);
    await saveModelDirectory(nodeFiles, path, { config, weights: weightsOf(config), extraFiles }, { dtype, card: "# A model\n" });
    const loaded = await load();
    expect(loaded.config).toEqual(config);
    expect(Object.keys(loaded.weights)).toEqual(Object.keys(parameterShapes(config)));
    expect(loaded.weights).toEqual(weightsOf(config));
    expect(loaded.startId).toBe(0);
    expect(loaded.endIds).toEqual([0]);
    expect(loaded.tokenizer.decode(loaded.tokenizer.encode("the end"))).toBe("the end");
    expect(loaded.extraFiles["tokenizer.json"]).toEqual(extraFiles["tokenizer.json"]);
    expect(json("config.json")["torch_dtype"]).toBe({ F32: "float32", F16: "float16", BF16: "bfloat16" }[dtype]);
    const { dtypes } = await readSafetensors(nodeFiles, join(path, "model.safetensors"));
    expect(new Set(Object.values(dtypes))).toEqual(new Set([dtype]));
    expect(readFileSync(join(path, "README.md"), "utf8")).toBe("# A model\n");
  });
});

describe("weights of other files", () => {
  test("without the prefix, with masks of any dtype and a copy of the embedding, as openai-community/gpt2 has them", async () => {
    await save(gpt2);
    const bare = Object.entries(weightsOf(gpt2)).map(([name, tensor]) => [name.replace("transformer.", ""), tensor] as const);
    await putWeights(
      Object.fromEntries([
        ...bare,
        ["h.0.attn.bias", f32([1, 1, 6, 6], new Float32Array(36))],
        ["lm_head.weight", weightsOf(gpt2)["transformer.wte.weight"]!],
      ]),
    );
    const { weights } = await load();
    expect(weights).toEqual(weightsOf(gpt2));
  });

  test("in shards", async () => {
    await save(llama);
    rmSync(join(path, "model.safetensors"));
    const entries = Object.entries(weightsOf(llama));
    const parts = { "a.safetensors": entries.slice(0, 5), "b.safetensors": entries.slice(5) };
    for (const [name, part] of Object.entries(parts)) await putWeights(Object.fromEntries(part), name);
    put("model.safetensors.index.json", {
      weight_map: Object.fromEntries(Object.entries(parts).flatMap(([file, part]) => part.map(([name]) => [name, file]))),
    });
    expect((await load()).weights).toEqual(weightsOf(llama));
  });
});

describe("which token starts and which end a text", () => {
  test("generation_config.json goes before config.json, and may name several ends", async () => {
    await save(gpt2);
    put("generation_config.json", { bos_token_id: 7, eos_token_id: [8, 9] });
    expect(await load()).toMatchObject({ startId: 7, endIds: [8, 9] });
  });

  test("what it leaves open, config.json and then the tokenizer's roles say", async () => {
    await save(gpt2, { ...extraOf(gpt2), "config.json": encode(hfConfigOf(gpt2, { endIds: [5] })) });
    put("generation_config.json", { bos_token_id: null });
    put("tokenizer_config.json", { ...tokenizerConfig, bos_token: { content: "<end>" }, eos_token: "!" });
    expect(await load()).toMatchObject({ startId: 0, endIds: [5] });
    put("config.json", hfConfigOf(gpt2, { endIds: [] }));
    expect(await load()).toMatchObject({ startId: 0, endIds: [1] });
  });

  test("a text need not have an end", async () => {
    await save(gpt2, { ...extraOf(gpt2), "config.json": encode(hfConfigOf(gpt2, { startId: 0, endIds: [] })) });
    expect((await load()).endIds).toEqual([]);
  });
});

describe("config.json is written as it was", () => {
  const text = `{ "rope_theta": 10000.0,\n  "model_type": "llama", "dtype" : "bfloat16" }`;
  const saved = async (content: string, dtype: "F32" | "F16") => {
    const extraFiles = { "config.json": new TextEncoder().encode(content) };
    await saveModelDirectory(nodeFiles, path, { config: llama, weights: weightsOf(llama), extraFiles }, { dtype });
    return readFileSync(join(path, "config.json"), "utf8");
  };

  test("to the byte, but for the dtype", async () => {
    expect(await saved(text, "F32")).toBe(text.replace("bfloat16", "float32"));
    expect(await saved(text.replace('"bfloat16"', "null"), "F16")).toBe(text.replace("bfloat16", "float16"));
  });

  test("and gets a dtype where it has none and is not float32", async () => {
    expect(await saved('{"a": 1.0}', "F32")).toBe('{"a": 1.0}');
    expect(JSON.parse(await saved('{"a": 1.0}', "F16"))).toEqual({ a: 1, torch_dtype: "float16" });
  });
});

describe("one clear error for", () => {
  const refused = async (message: RegExp, where = path) => {
    const error = await loadModelDirectory(nodeFiles, where).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TiltError);
    expect((error as TiltError).message).toMatch(message);
    expect((error as TiltError).message).not.toContain("\n");
  };

  test("a path where nothing is", () =>
    refused(/nowhere: expected a directory with config\.json.* got nothing there; check the path$/, join(path, "nowhere")));
  test("a hub id", () =>
    refused(/^some-org\/gpt2: .* download it first \(`hf download some-org\/gpt2 --local-dir gpt2`/, "some-org/gpt2"));
  test("a file", async () => {
    put("file", {});
    await refused(/got a file; name the directory/, join(path, "file"));
  });
  test("an empty directory", () => refused(/expected config\.json, got none; check the path/));
  test("a config that is no JSON", async () => {
    put("config.json", new TextEncoder().encode("{"));
    await refused(/config\.json: expected a JSON object, got /);
  });
  test("an unknown architecture", async () => {
    put("config.json", { model_type: "bert" });
    await refused(/config\.json: model_type: expected gpt2 or llama, got "bert"/);
  });
  test("no tokenizer", async () => {
    await save(gpt2);
    rmSync(join(path, "tokenizer.json"));
    await refused(/expected tokenizer\.json, got none/);
  });
  test("no weights", async () => {
    await save(gpt2);
    rmSync(join(path, "model.safetensors"));
    await refused(/expected model\.safetensors, .* got neither; download the weights too/);
    put("pytorch_model.bin", new Uint8Array(3));
    await refused(/got only pytorch_model\.bin, a pickle, .* not read; load it with transformers/);
  });
  test("a tokenizer larger than the embedding", async () => {
    await save({ ...gpt2, vocabularySize: 200 });
    await refused(/got tokenizer\.json with 259 ids, while the embedding has 200 rows/);
  });
  test("a start or end token outside the vocabulary", async () => {
    await save(gpt2);
    put("generation_config.json", { bos_token_id: 0, eos_token_id: [0, 260] });
    await refused(/generation_config\.json: eos_token_id: expected token ids below 260, .* got \[0,260\]/);
    put("generation_config.json", { bos_token_id: -1 });
    await refused(/generation_config\.json: bos_token_id: expected token ids below 260, .* got -1/);
  });
  test("no start token", async () => {
    await save(gpt2, { ...extraOf(gpt2), "config.json": encode(hfConfigOf(gpt2, { endIds: [0] })) });
    await refused(/expected a bos_token_id in generation_config\.json or config\.json, got none/);
  });
  test("missing tensors", async () => {
    const { "transformer.wpe.weight": positions, ...rest } = weightsOf(gpt2);
    await save(gpt2);
    await putWeights(rest);
    await refused(/model\.safetensors: expected the tensors transformer\.wpe\.weight \[6, 4\], got none of that name; /);
    await putWeights({ ...rest, "transformer.positions": positions! });
    await refused(/got none of that name, but unexpected transformer\.positions \[6, 4\]/);
  });
  test("unexpected tensors, the first few of them named", async () => {
    await save(gpt2);
    await putWeights({
      ...weightsOf(gpt2),
      ...Object.fromEntries([1, 2, 3, 4, 5].map((i) => [`x.${i}`, f32([i], new Float32Array(i))])),
    });
    await refused(/expected only the tensors that config\.json implies, got also x\.1 \[1\], x\.2 \[2\], x\.3 \[3\] and 2 more;/);
  });
  test("a tensor of another shape", async () => {
    await save(gpt2);
    await putWeights({ ...weightsOf(gpt2), "transformer.ln_f.bias": f32([2, 2], [1, 2, 3, 4]) });
    await refused(/expected transformer\.ln_f\.bias \[4\], got transformer\.ln_f\.bias \[2, 2\];/);
  });
  test("a tensor with and without its prefix", async () => {
    await save(gpt2);
    await putWeights({ ...weightsOf(gpt2), "ln_f.bias": f32([4], [1, 2, 3, 4]) });
    await refused(/expected one tensor transformer\.ln_f\.bias, got it twice/);
  });
  test("weights cut short", async () => {
    await save(gpt2);
    put("model.safetensors", readFileSync(join(path, "model.safetensors")).subarray(0, -100));
    await refused(/model\.safetensors: tensor ".*": expected data up to byte \d+, got a file with \d+ bytes of data/);
  });
  test("saving weights that are not the config's, before anything is written", async () => {
    const weights = weightsOf(llama);
    await expect(
      saveModelDirectory(nodeFiles, join(path, "out"), { config: gpt2, weights, extraFiles: extraOf(gpt2) }),
    ).rejects.toThrow(/expected the tensors transformer\.wte\.weight \[260, 4\], .* and \d+ more, got none of that name/);
    expect(existsSync(join(path, "out"))).toBe(false);
  });
  test("saving without a config", async () => {
    await mkdir(path, { recursive: true });
    await expect(save(gpt2, {})).rejects.toThrow(/expected config\.json among the extra files/);
  });
});

const stories = process.env["TILTLM_STORIES"] ?? "../shared/models/stories260K";
describe.skipIf(!existsSync(stories))(
  "stories260K (skipped where ../shared/models/stories260K and TILTLM_STORIES are absent)",
  () => {
    test("loads, and is saved with the same weights", async () => {
      const model = await loadModelDirectory(nodeFiles, stories);
      expect(model).toMatchObject({
        startId: 1,
        endIds: [1],
        config: { family: "llama", layers: 5, headWidth: 8, tiedEmbeddings: true },
      });
      expect(model.tokenizer.vocabularySize).toBe(512);
      await saveModelDirectory(nodeFiles, path, model);
      const copy = await load();
      expect(copy.weights).toEqual(model.weights);
      expect(copy.extraFiles).toEqual(model.extraFiles);
    });
  },
);

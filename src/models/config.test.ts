import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TiltError } from "../base/errors.ts";
import { sizeOf } from "../base/tensor.ts";
import { canonicalName, hfConfigOf, type ModelConfig, parameterShapes, parseModelConfig } from "./config.ts";

// The sizes of openai-community/gpt2 and of stories260K, as their config.json have them.
const gpt2 = {
  activation_function: "gelu_new",
  architectures: ["GPT2LMHeadModel"],
  attn_pdrop: 0.1,
  bos_token_id: 50256,
  layer_norm_epsilon: 1e-5,
  model_type: "gpt2",
  n_ctx: 1024,
  n_embd: 768,
  n_head: 12,
  n_layer: 12,
  n_positions: 1024,
  vocab_size: 50257,
};
const llama = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 5,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
  vocab_size: 512,
};
const parameters = (config: ModelConfig): number =>
  Object.values(parameterShapes(config)).reduce((total, shape) => total + sizeOf(shape), 0);

describe("known models", () => {
  test("GPT-2 small: its options and its 124,439,808 parameters", () => {
    const config = parseModelConfig(gpt2, "config.json");
    expect(config).toEqual({
      family: "gpt2",
      vocabularySize: 50257,
      width: 768,
      layers: 12,
      heads: 12,
      keyValueHeads: 12,
      headWidth: 64,
      innerWidth: 3072,
      contextLength: 1024,
      normEpsilon: 1e-5,
      ropeTheta: 0,
      tiedEmbeddings: true,
      activation: "gelu-tanh",
      attentionBias: true,
      mlpBias: true,
    });
    expect(parameters(config)).toBe(124_439_808);
    expect(parameterShapes(config)["transformer.h.11.attn.c_attn.weight"]).toEqual([768, 2304]);
    expect(parameterShapes(config)["transformer.h.0.mlp.c_proj.weight"]).toEqual([3072, 768]);
  });

  test("stories260K: its 260,032 parameters, and head width and theta by default", () => {
    const config = parseModelConfig(llama, "config.json");
    expect(config).toMatchObject({ headWidth: 8, ropeTheta: 10_000, keyValueHeads: 4, attentionBias: false });
    expect(parameters(config)).toBe(260_032);
    expect(parameterShapes(config)["model.layers.4.self_attn.k_proj.weight"]).toEqual([32, 64]);
  });

  test("untied embeddings have an output projection, biases have tensors", () => {
    const plain = parseModelConfig({ ...llama, tie_word_embeddings: undefined }, "config.json");
    expect(parameterShapes(plain)["lm_head.weight"]).toEqual([512, 64]);
    expect(parameterShapes(parseModelConfig(llama, "config.json"))).not.toHaveProperty("lm_head.weight");
    const biased = parameterShapes(parseModelConfig({ ...llama, attention_bias: true, mlp_bias: true }, "config.json"));
    expect(biased["model.layers.0.self_attn.v_proj.bias"]).toEqual([32]);
    expect(biased["model.layers.0.mlp.down_proj.bias"]).toEqual([64]);
  });
});

describe("ways of saying the same", () => {
  test.each<[string, object, Partial<ModelConfig>]>([
    ["null for a default", { ...gpt2, n_inner: null, tie_word_embeddings: null }, { innerWidth: 3072, tiedEmbeddings: true }],
    [
      "GPT-2's defaults",
      { ...gpt2, layer_norm_epsilon: undefined, activation_function: undefined },
      { normEpsilon: 1e-5, activation: "gelu-tanh" },
    ],
    ["Llama's defaults", { ...llama, rms_norm_eps: undefined, hidden_act: undefined }, { normEpsilon: 1e-6, activation: "silu" }],
    ["n_ctx, as the first files have it", { ...gpt2, n_positions: undefined, n_ctx: 512 }, { contextLength: 512 }],
    ["n_inner", { ...gpt2, n_inner: 100 }, { innerWidth: 100 }],
    [
      "the other name of the tanh approximation",
      { ...gpt2, activation_function: "gelu_pytorch_tanh" },
      { activation: "gelu-tanh" },
    ],
    ["an option that changes only rounding", { ...gpt2, reorder_and_upcast_attn: true }, { family: "gpt2" }],
    ["theta in rope_parameters", { ...llama, rope_parameters: { rope_theta: 5e5, rope_type: "default" } }, { ropeTheta: 5e5 }],
    ["no scaling", { ...llama, rope_scaling: null, rope_theta: 2e4 }, { ropeTheta: 2e4 }],
    ["a head width of its own", { ...llama, head_dim: 16 }, { headWidth: 16 }],
    ["no key-value heads", { ...llama, num_key_value_heads: null }, { keyValueHeads: 8 }],
    ["only an architecture", { ...llama, model_type: undefined }, { family: "llama" }],
  ])("%s", (_, json, expected) => {
    expect(parseModelConfig(json, "config.json")).toMatchObject(expected);
  });
});

describe("one clear error for", () => {
  test.each<[string, unknown, RegExp]>([
    ["no object", [], /^config\.json: expected a JSON object, got \[\]; /],
    ["another architecture", { model_type: "bert" }, /^config\.json: model_type: expected gpt2 or llama, got "bert"; choose/],
    ["an architecture of an object's own properties", { model_type: "constructor" }, /expected gpt2 or llama, got "constructor"/],
    ["nothing known", {}, /model_type: expected gpt2 or llama, got nothing/],
    ["quantised weights", { ...llama, quantization_config: { bits: 4 } }, /quantization_config: expected none, got \{"bits":4\}/],
    [
      "a missing key",
      { ...gpt2, n_embd: undefined },
      /config\.json: n_embd: expected an integer from 1 to 1048576, got nothing; /,
    ],
    ["a string for a number", { ...gpt2, n_layer: "12" }, /n_layer: expected an integer from 1 to 1024, got "12"/],
    [
      "a size out of all bounds",
      { ...llama, vocab_size: 1e12 },
      /vocab_size: expected an integer from 1 to 16777216, got 1000000000000/,
    ],
    ["a fraction", { ...llama, hidden_size: 64.5 }, /hidden_size: expected an integer/],
    ["a negative epsilon", { ...llama, rms_norm_eps: -1 }, /rms_norm_eps: expected a positive number, got -1/],
    [
      "heads that do not divide the width",
      { ...gpt2, n_head: 11 },
      /n_embd: expected a multiple of n_head, which is 11, got 768/,
    ],
    [
      "key-value heads that do not divide the heads",
      { ...llama, num_key_value_heads: 3 },
      /num_key_value_heads: expected a divisor/,
    ],
    ["an odd head width", { ...llama, head_dim: 7 }, /head_dim: expected an even number/],
    [
      "an unknown activation",
      { ...gpt2, activation_function: "toString" },
      /activation_function: expected one of gelu_new, .* got "toString"/,
    ],
    ["another activation of Llama", { ...llama, hidden_act: "gelu" }, /hidden_act: expected silu, got "gelu"/],
    ["cross-attention", { ...gpt2, add_cross_attention: true }, /add_cross_attention: expected false, got true/],
    ["scaling by layer", { ...gpt2, scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx: expected false/],
    ["no scaling of attention", { ...gpt2, scale_attn_weights: false }, /scale_attn_weights: expected true/],
    [
      "scaled rotary positions",
      { ...llama, rope_scaling: { rope_type: "llama3", factor: 8 } },
      /rope_scaling: expected none.*got "llama3"/,
    ],
    [
      "old rotary scaling",
      { ...llama, rope_scaling: { type: "linear", factor: 2 } },
      /rope_scaling: expected none.*got "linear"/,
    ],
    ["new rotary scaling", { ...llama, rope_parameters: { rope_type: "yarn" } }, /rope_parameters: expected none.*got "yarn"/],
    ["partly rotated heads", { ...llama, partial_rotary_factor: 0.5 }, /partial_rotary_factor: expected 1, got 0\.5/],
  ])("%s", (_, json, message) => {
    const parse = () => parseModelConfig(json, "config.json");
    expect(parse).toThrow(TiltError);
    expect(parse).toThrow(message);
  });

  test("any JSON in any key, and nothing but a TiltError", () => {
    const base = fc.constantFrom<Record<string, unknown>>(gpt2, llama);
    const keys = [
      ...Object.keys(gpt2),
      ...Object.keys(llama),
      "rope_scaling",
      "rope_parameters",
      "n_inner",
      "head_dim",
      "quantization_config",
    ];
    fc.assert(
      fc.property(base, fc.constantFrom(...keys), fc.jsonValue(), (json, key, value) => {
        try {
          expect(parseModelConfig({ ...json, [key]: value }, "config.json")).toHaveProperty("family");
        } catch (error) {
          expect(error).toBeInstanceOf(TiltError);
        }
      }),
    );
  });
});

test("a fresh config reads back as itself", () => {
  const size = fc.integer({ min: 1, max: 64 });
  const shared = {
    vocabularySize: size,
    layers: size,
    innerWidth: size,
    contextLength: size,
    normEpsilon: fc.constantFrom(1e-5, 1e-6),
    tiedEmbeddings: fc.boolean(),
  };
  const gpt2s = fc
    .record({ ...shared, heads: size, headWidth: size, activation: fc.constantFrom("gelu-tanh", "gelu", "relu") })
    .map(
      (picked): ModelConfig => ({
        ...picked,
        family: "gpt2",
        width: picked.heads * picked.headWidth,
        keyValueHeads: picked.heads,
        ropeTheta: 0,
        attentionBias: true,
        mlpBias: true,
      }),
    );
  const llamas = fc
    .record({
      ...shared,
      width: size,
      keyValueHeads: size,
      group: size,
      half: size,
      ropeTheta: fc.constantFrom(1e4, 5e5),
      attentionBias: fc.boolean(),
      mlpBias: fc.boolean(),
    })
    .map(
      ({ group, half, ...picked }): ModelConfig => ({
        ...picked,
        family: "llama",
        heads: picked.keyValueHeads * group,
        headWidth: 2 * half,
        activation: "silu",
      }),
    );
  fc.assert(
    fc.property(fc.oneof(gpt2s, llamas), (config) => {
      const json: unknown = JSON.parse(JSON.stringify(hfConfigOf(config, { startId: 0, endIds: [0, 1] })));
      expect(json).toMatchObject({ bos_token_id: 0, eos_token_id: [0, 1] });
      expect(parseModelConfig(json, "config.json")).toEqual(config);
    }),
  );
});

test.each([
  ["h.0.ln_1.weight", "transformer.h.0.ln_1.weight"],
  ["wte.weight", "transformer.wte.weight"],
  ["ln_f.bias", "transformer.ln_f.bias"],
  ["layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"],
  ["norm.weight", "model.norm.weight"],
  ["transformer.h.0.attn.c_attn.bias", "transformer.h.0.attn.c_attn.bias"],
  ["lm_head.weight", "lm_head.weight"],
  ["h.0.attn.bias", undefined],
  ["transformer.h.11.attn.masked_bias", undefined],
  ["model.layers.0.self_attn.rotary_emb.inv_freq", undefined],
])("canonicalName(%s) = %s", (name, canonical) => {
  expect(canonicalName(name)).toBe(canonical);
});

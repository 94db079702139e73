/**
 * What a model is: the sizes and options of a GPT-2 or Llama model, read from a Hugging Face `config.json`, written as one,
 * and turned into the names and shapes of its weights.
 *
 * GPT-2: "Language Models are Unsupervised Multitask Learners" (2019). Llama: arXiv 2302.13971.
 * Whatever a config asks for that would change the mathematics and is not built here is refused, never ignored.
 */

import { z } from "zod";
import { runtimeError, type TiltError } from "../base/errors.ts";

export interface ModelConfig {
  readonly family: "gpt2" | "llama";
  /** V: rows of the embedding; a tokenizer may use fewer. */
  readonly vocabularySize: number;
  /** D */
  readonly width: number;
  /** L */
  readonly layers: number;
  /** H */
  readonly heads: number;
  /** Heads of keys and values, each shared by heads / keyValueHeads query heads; equal to `heads` for GPT-2. */
  readonly keyValueHeads: number;
  /** K */
  readonly headWidth: number;
  /** Width of the hidden layer of each MLP. */
  readonly innerWidth: number;
  /** The most tokens a text may have, the start token counted. */
  readonly contextLength: number;
  readonly normEpsilon: number;
  /** Base of the rotary frequencies (arXiv 2104.09864); 0 for GPT-2, which learns its positions. */
  readonly ropeTheta: number;
  /** Whether the output projection is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  readonly activation: "gelu-tanh" | "gelu" | "silu" | "relu";
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

// Far beyond any model of these families: a config that says more is damaged, and must not reach an allocation.
const mostTokens = 2 ** 24;
const mostLayers = 1024;
const widest = 2 ** 20;

const count = (most: number) => {
  const expected = `an integer from 1 to ${most}`;
  return z.int(expected).min(1, expected).max(most, expected);
};
const positive = z.number("a positive number").positive("a positive number");
const flag = z.boolean("true or false");
/** Hugging Face writes null for "the default" as often as it leaves the key out. */
const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);

const gpt2Schema = z.object({
  vocab_size: count(mostTokens),
  n_embd: count(widest),
  n_layer: count(mostLayers),
  n_head: count(widest),
  n_inner: optional(count(widest)),
  n_positions: optional(count(mostTokens)),
  n_ctx: optional(count(mostTokens)),
  layer_norm_epsilon: optional(positive),
  activation_function: optional(z.string("a name")),
  tie_word_embeddings: optional(flag),
  scale_attn_weights: optional(flag),
  scale_attn_by_inverse_layer_idx: optional(flag),
  add_cross_attention: optional(flag),
});

const ropeSchema = optional(
  z.object(
    {
      rope_theta: optional(positive),
      rope_type: optional(z.string("a name")),
      type: optional(z.string("a name")),
      partial_rotary_factor: optional(positive),
    },
    "an object",
  ),
);

const llamaSchema = z.object({
  vocab_size: count(mostTokens),
  hidden_size: count(widest),
  intermediate_size: count(widest),
  num_hidden_layers: count(mostLayers),
  num_attention_heads: count(widest),
  num_key_value_heads: optional(count(widest)),
  head_dim: optional(count(widest)),
  max_position_embeddings: count(mostTokens),
  rms_norm_eps: optional(positive),
  rope_theta: optional(positive),
  rope_scaling: ropeSchema,
  rope_parameters: ropeSchema,
  partial_rotary_factor: optional(positive),
  hidden_act: optional(z.string("a name")),
  tie_word_embeddings: optional(flag),
  attention_bias: optional(flag),
  mlp_bias: optional(flag),
});

/** A complaint about a key of the config at hand. */
type Complain = (key: string, expected: string, got: unknown, fix?: string) => TiltError;

const parseWith = <T>(schema: z.ZodType<T>, json: object, complain: Complain): T => {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json);
  throw complain(issue.path.join("."), issue.message, found);
};

const gpt2Activations: Readonly<Record<string, ModelConfig["activation"]>> = {
  gelu_new: "gelu-tanh",
  gelu_pytorch_tanh: "gelu-tanh",
  gelu: "gelu",
  relu: "relu",
};

const unsupported = "choose a model without it; only the plain architecture is built here";

const parseGpt2 = (json: object, complain: Complain): ModelConfig => {
  const raw = parseWith(gpt2Schema, json, complain);
  const name = raw.activation_function ?? "gelu_new";
  const activation = Object.hasOwn(gpt2Activations, name) ? gpt2Activations[name] : undefined;
  if (activation === undefined)
    throw complain("activation_function", `one of ${Object.keys(gpt2Activations).join(", ")}`, name, unsupported);
  if (raw.scale_attn_weights === false) throw complain("scale_attn_weights", "true", false, unsupported);
  if (raw.scale_attn_by_inverse_layer_idx) throw complain("scale_attn_by_inverse_layer_idx", "false", true, unsupported);
  if (raw.add_cross_attention) throw complain("add_cross_attention", "false", true, unsupported);
  if (raw.n_embd % raw.n_head !== 0) throw complain("n_embd", `a multiple of n_head, which is ${raw.n_head}`, raw.n_embd);
  return {
    family: "gpt2",
    vocabularySize: raw.vocab_size,
    width: raw.n_embd,
    layers: raw.n_layer,
    heads: raw.n_head,
    keyValueHeads: raw.n_head,
    headWidth: raw.n_embd / raw.n_head,
    innerWidth: raw.n_inner ?? 4 * raw.n_embd,
    contextLength: raw.n_positions ?? raw.n_ctx ?? 1024,
    normEpsilon: raw.layer_norm_epsilon ?? 1e-5,
    ropeTheta: 0,
    tiedEmbeddings: raw.tie_word_embeddings ?? true,
    activation,
    attentionBias: true,
    mlpBias: true,
  };
};

const parseLlama = (json: object, complain: Complain): ModelConfig => {
  const raw = parseWith(llamaSchema, json, complain);
  for (const key of ["rope_scaling", "rope_parameters"] as const) {
    const type = raw[key]?.rope_type ?? raw[key]?.type;
    // An object without a type says nothing but theta in rope_parameters; in rope_scaling it must be some old scaling.
    if (type === undefined ? key === "rope_scaling" && raw[key] !== undefined : type !== "default") {
      throw complain(
        key,
        'none, or the type "default": scaled rotary positions are not built here',
        type ?? raw[key],
        unsupported,
      );
    }
    const share = raw[key]?.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
    if (share !== 1) throw complain("partial_rotary_factor", "1", share, unsupported);
  }
  const { hidden_size: width, num_attention_heads: heads, hidden_act: act = "silu" } = raw;
  if (act !== "silu") throw complain("hidden_act", "silu", act, unsupported);
  const keyValueHeads = raw.num_key_value_heads ?? heads;
  if (heads % keyValueHeads !== 0)
    throw complain("num_key_value_heads", `a divisor of num_attention_heads, which is ${heads}`, keyValueHeads);
  if (raw.head_dim === undefined && width % heads !== 0)
    throw complain("hidden_size", `a multiple of num_attention_heads, which is ${heads}`, width);
  const headWidth = raw.head_dim ?? width / heads;
  if (headWidth % 2 !== 0) throw complain("head_dim", "an even number, since rotary positions turn pairs", headWidth);
  return {
    family: "llama",
    vocabularySize: raw.vocab_size,
    width,
    layers: raw.num_hidden_layers,
    heads,
    keyValueHeads,
    headWidth,
    innerWidth: raw.intermediate_size,
    contextLength: raw.max_position_embeddings,
    normEpsilon: raw.rms_norm_eps ?? 1e-6,
    ropeTheta: raw.rope_parameters?.rope_theta ?? raw.rope_theta ?? 10_000,
    tiedEmbeddings: raw.tie_word_embeddings ?? false,
    activation: "silu",
    attentionBias: raw.attention_bias ?? false,
    mlpBias: raw.mlp_bias ?? false,
  };
};

const families: Readonly<Record<ModelConfig["family"], (json: object, complain: Complain) => ModelConfig>> = {
  gpt2: parseGpt2,
  llama: parseLlama,
};
const architectures: Readonly<Record<string, ModelConfig["family"]>> = { GPT2LMHeadModel: "gpt2", LlamaForCausalLM: "llama" };

/**
 * The model that a Hugging Face `config.json` describes. Keys that are not needed are ignored.
 *
 * @param json  the parsed file
 * @param where the file's name, for messages
 * @throws TiltError (runtime) where a key is missing or impossible, or asks for something that is not built here
 */
export const parseModelConfig = (json: unknown, where: string): ModelConfig => {
  const complain: Complain = (
    key,
    expected,
    got,
    fix = "the config is damaged or of another kind: download it again or choose another model",
  ) =>
    runtimeError({
      where: key === "" ? where : `${where}: ${key}`,
      expected,
      got: JSON.stringify(got)?.slice(0, 80) ?? "nothing",
      fix,
    });
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw complain("", "a JSON object", json);
  const { model_type: type, architectures: classes, quantization_config: quantization } = json as Record<string, unknown>;
  const named = Array.isArray(classes) && typeof classes[0] === "string" ? classes[0] : "";
  const family = type ?? (Object.hasOwn(architectures, named) ? architectures[named] : undefined);
  if (typeof family !== "string" || !Object.hasOwn(families, family)) {
    throw complain(
      "model_type",
      Object.keys(families).join(" or "),
      type ?? classes,
      "choose a model of the GPT-2 or Llama architecture",
    );
  }
  if (quantization !== undefined && quantization !== null) {
    throw complain(
      "quantization_config",
      "none",
      quantization,
      "take the model's unquantised weights: a model cannot be tuned through quantised ones",
    );
  }
  return families[family as ModelConfig["family"]](json, complain);
};

const gpt2ActivationNames: Readonly<Record<ModelConfig["activation"], string>> = {
  "gelu-tanh": "gelu_new",
  gelu: "gelu",
  relu: "relu",
  silu: "silu",
};

/** A fresh Hugging Face `config.json`, for a model that did not come from one. `parseModelConfig` reads it back as the same config. */
export const hfConfigOf = (
  config: ModelConfig,
  ids: { startId?: number; endIds: readonly number[] },
): Record<string, unknown> => {
  const shared = {
    vocab_size: config.vocabularySize,
    tie_word_embeddings: config.tiedEmbeddings,
    // Written even where there are none: a missing key would stand for the ids of the family's first model.
    bos_token_id: ids.startId ?? null,
    eos_token_id: ids.endIds.length > 1 ? [...ids.endIds] : (ids.endIds[0] ?? null),
    torch_dtype: "float32",
  };
  if (config.family === "gpt2") {
    return {
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      n_embd: config.width,
      n_layer: config.layers,
      n_head: config.heads,
      n_inner: config.innerWidth,
      n_positions: config.contextLength,
      layer_norm_epsilon: config.normEpsilon,
      activation_function: gpt2ActivationNames[config.activation],
      ...shared,
    };
  }
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: config.width,
    intermediate_size: config.innerWidth,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headWidth,
    max_position_embeddings: config.contextLength,
    rms_norm_eps: config.normEpsilon,
    rope_theta: config.ropeTheta,
    hidden_act: config.activation,
    attention_bias: config.attentionBias,
    mlp_bias: config.mlpBias,
    ...shared,
  };
};

const gpt2Shapes = ({ vocabularySize, width, layers, contextLength, innerWidth }: ModelConfig): [string, number[]][] => {
  // Matrices are stored [in, out]: GPT-2 was trained with 1x1 convolutions.
  const affine = (name: string, from: number, to: number): [string, number[]][] => [
    [`${name}.weight`, [from, to]],
    [`${name}.bias`, [to]],
  ];
  const norm = (name: string): [string, number[]][] => [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
  return [
    ["transformer.wte.weight", [vocabularySize, width]],
    ["transformer.wpe.weight", [contextLength, width]],
    ...Array.from({ length: layers }, (_, layer) => `transformer.h.${layer}`).flatMap((block) => [
      ...norm(`${block}.ln_1`),
      ...affine(`${block}.attn.c_attn`, width, 3 * width),
      ...affine(`${block}.attn.c_proj`, width, width),
      ...norm(`${block}.ln_2`),
      ...affine(`${block}.mlp.c_fc`, width, innerWidth),
      ...affine(`${block}.mlp.c_proj`, innerWidth, width),
    ]),
    ...norm("transformer.ln_f"),
  ];
};

const llamaShapes = (config: ModelConfig): [string, number[]][] => {
  const { vocabularySize, width, layers, heads, keyValueHeads, headWidth, innerWidth, attentionBias, mlpBias } = config;
  // Matrices are stored [out, in].
  const linear = (name: string, to: number, from: number, bias: boolean): [string, number[]][] => [
    [`${name}.weight`, [to, from]],
    ...(bias ? [[`${name}.bias`, [to]] as [string, number[]]] : []),
  ];
  return [
    ["model.embed_tokens.weight", [vocabularySize, width]],
    ...Array.from({ length: layers }, (_, layer) => `model.layers.${layer}`).flatMap((block): [string, number[]][] => [
      [`${block}.input_layernorm.weight`, [width]],
      ...linear(`${block}.self_attn.q_proj`, heads * headWidth, width, attentionBias),
      ...linear(`${block}.self_attn.k_proj`, keyValueHeads * headWidth, width, attentionBias),
      ...linear(`${block}.self_attn.v_proj`, keyValueHeads * headWidth, width, attentionBias),
      ...linear(`${block}.self_attn.o_proj`, width, heads * headWidth, attentionBias),
      [`${block}.post_attention_layernorm.weight`, [width]],
      ...linear(`${block}.mlp.gate_proj`, innerWidth, width, mlpBias),
      ...linear(`${block}.mlp.up_proj`, innerWidth, width, mlpBias),
      ...linear(`${block}.mlp.down_proj`, width, innerWidth, mlpBias),
    ]),
    ["model.norm.weight", [width]],
  ];
};

/** The name and shape of each weight of a model, as transformers saves them today, from the embedding up. */
export const parameterShapes = (config: ModelConfig): Readonly<Record<string, readonly number[]>> =>
  Object.fromEntries([
    ...(config.family === "gpt2" ? gpt2Shapes(config) : llamaShapes(config)),
    ...(config.tiedEmbeddings ? [] : [["lm_head.weight", [config.vocabularySize, config.width]] as const]),
  ]);

/**
 * The name of a file's tensor as `parameterShapes` has it: files of the bare model, such as openai-community/gpt2, lack the prefix.
 * Undefined for buffers that older versions of transformers saved: masks and rotary frequencies, which are computed. Other names are kept.
 */
export const canonicalName = (name: string): string | undefined => {
  if (/(^|\.)(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)$/.test(name)) return undefined;
  if (/^(wte|wpe|h|ln_f)\./.test(name)) return `transformer.${name}`;
  if (/^(embed_tokens|layers|norm)\./.test(name)) return `model.${name}`;
  return name;
};

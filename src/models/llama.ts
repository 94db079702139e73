/** The Llama architecture: rotary positions, RMSNorm before each part, grouped key/value heads, SwiGLU. Weights lie as [out, in]. */

import type { Value } from "../engine/graph.ts";
import { gatherRows, gemm, mul, rmsNorm, silu } from "../engine/ops/index.ts";
import type { Architecture, Parameters } from "./architecture.ts";
import type { ModelConfig } from "./config.ts";

/** x Wᵀ (+ bias, where the model has one). */
const linear = (p: Parameters, name: string, x: Value): Value =>
  gemm(x, p[`${name}.weight`]!, p[`${name}.bias`], { transposeB: true });

export const llama = (config: ModelConfig): Architecture => ({
  embed: (p, tokens) => gatherRows(p["model.embed_tokens.weight"]!, tokens),
  project: (p, layer, x) => {
    const at = `model.layers.${layer}`;
    const normal = rmsNorm(x, p[`${at}.input_layernorm.weight`]!, config.normEpsilon);
    return {
      query: linear(p, `${at}.self_attn.q_proj`, normal),
      key: linear(p, `${at}.self_attn.k_proj`, normal),
      value: linear(p, `${at}.self_attn.v_proj`, normal),
    };
  },
  merge: (p, layer, attended) => linear(p, `model.layers.${layer}.self_attn.o_proj`, attended),
  feedForward: (p, layer, x) => {
    const at = `model.layers.${layer}`;
    const normal = rmsNorm(x, p[`${at}.post_attention_layernorm.weight`]!, config.normEpsilon);
    return linear(
      p,
      `${at}.mlp.down_proj`,
      mul(silu(linear(p, `${at}.mlp.gate_proj`, normal)), linear(p, `${at}.mlp.up_proj`, normal)),
    );
  },
  finish: (p, x) => rmsNorm(x, p["model.norm.weight"]!, config.normEpsilon),
  head: (p) => p[config.tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"]!,
});

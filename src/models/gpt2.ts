/** The GPT-2 architecture: learned positions, LayerNorm before each part, one fused projection, GELU. Weights lie as [in, out]. */

import type { Value } from "../engine/graph.ts";
import { add, erf, gatherRows, gelu, gemm, layerNorm, mul, relu, slice } from "../engine/ops/index.ts";
import type { Architecture } from "./architecture.ts";
import type { ModelConfig } from "./config.ts";

const activations: Readonly<Record<ModelConfig["activation"], ((x: Value) => Value) | undefined>> = {
  "gelu-tanh": gelu,
  gelu: (x) => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
  relu,
  silu: undefined,
};

export const gpt2 = (config: ModelConfig): Architecture => {
  const activate = activations[config.activation] ?? gelu;
  const width = config.heads * config.headWidth;
  return {
    embed: (p, tokens, positions) =>
      add(gatherRows(p["transformer.wte.weight"]!, tokens), gatherRows(p["transformer.wpe.weight"]!, positions)),
    project: (p, layer, x) => {
      const h = `transformer.h.${layer}`;
      const normal = layerNorm(x, p[`${h}.ln_1.weight`]!, p[`${h}.ln_1.bias`]!, config.normEpsilon);
      const joint = gemm(normal, p[`${h}.attn.c_attn.weight`]!, p[`${h}.attn.c_attn.bias`]!);
      return {
        query: slice(joint, 1, 0, width),
        key: slice(joint, 1, width, 2 * width),
        value: slice(joint, 1, 2 * width, 3 * width),
      };
    },
    merge: (p, layer, attended) =>
      gemm(attended, p[`transformer.h.${layer}.attn.c_proj.weight`]!, p[`transformer.h.${layer}.attn.c_proj.bias`]!),
    feedForward: (p, layer, x) => {
      const h = `transformer.h.${layer}`;
      const normal = layerNorm(x, p[`${h}.ln_2.weight`]!, p[`${h}.ln_2.bias`]!, config.normEpsilon);
      const inner = activate(gemm(normal, p[`${h}.mlp.c_fc.weight`]!, p[`${h}.mlp.c_fc.bias`]!));
      return gemm(inner, p[`${h}.mlp.c_proj.weight`]!, p[`${h}.mlp.c_proj.bias`]!);
    },
    finish: (p, x) => layerNorm(x, p["transformer.ln_f.weight"]!, p["transformer.ln_f.bias"]!, config.normEpsilon),
    head: (p) => p[config.tiedEmbeddings ? "transformer.wte.weight" : "lm_head.weight"]!,
  };
};

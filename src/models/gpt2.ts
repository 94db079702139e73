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
      // Each part is a product with its own columns of the weights: cutting those is cheaper than cutting the product, and padding its gradient.
      const part = (start: number): Value =>
        gemm(
          normal,
          slice(p[`${h}.attn.c_attn.weight`]!, 1, start, start + width),
          slice(p[`${h}.attn.c_attn.bias`]!, 0, start, start + width),
        );
      return { query: part(0), key: part(width), value: part(2 * width) };
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

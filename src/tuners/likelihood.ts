/** Maximum likelihood: the loss of pretraining, minus the mean log-probability per token. */

import type { Value } from "../engine/graph.ts";
import { mul, neg, sum } from "../engine/ops/index.ts";
import type { Objective } from "./training.ts";

/** loss = -scale sum_{b,t} log pi(x_bt); `scale` is 1 over the tokens of the whole batch, so that the loss is in nats per token. */
export const likelihoodObjective: Objective = {
  inputs: { scale: { dtype: "f32", shape: [] } },
  build: ({ tokenLogPolicy }, inputs: Readonly<Record<string, Value>>) => ({
    loss: neg(mul(sum(tokenLogPolicy), inputs["scale"]!)),
    outputs: {},
  }),
};

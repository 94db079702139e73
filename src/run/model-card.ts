/** The README.md of a tuned model: what was asked, what came out, how to do it again. */

import { stringify } from "yaml";
import type { Estimate } from "../base/numeric.ts";
import { methodOf } from "../tuners/method.ts";
import { plainConfig, type RunConfig } from "./config.ts";
import type { Evaluation, Summary } from "./metrics.ts";

const shown = (estimate: Estimate | undefined): string =>
  estimate === undefined ? "" : `${estimate.value.toFixed(3)} ± ${estimate.stdError.toFixed(3)}`;

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

export const modelCard = (config: RunConfig, { before, target, steps, samples }: Summary, after: Evaluation): string => {
  const matching = methodOf(config.method).needs.target && config.method.name !== "reinforce-target";
  const base = config.base.replace(/\/+$/, "").split("/").at(-1) ?? config.base;
  const moments = Object.keys(after.moments).map((name) =>
    row([
      `moment of \`${name}\``,
      target?.targetMoments[name] === undefined ? "" : String(target.targetMoments[name]),
      shown(before.moments[name]!),
      shown(after.moments[name]!),
    ]),
  );
  return `---
library_name: transformers
tags: [tiltlm, ${matching ? "distribution-matching, " : ""}${JSON.stringify(config.method.name)}]
base_model: ${JSON.stringify(base)}
---

# ${base}, tuned ${matching ? "to a target distribution" : "to a reward"}

This is \`${base}\` after ${steps} steps of ${config.method.name} on ${samples} samples${after.averaged ? ", the average of its weights over steps" : ""}.
${
  matching
    ? "It was trained to a target distribution, the base's reweighted by features of the text (arXiv 2206.00761)."
    : "The method maximises a reward (arXiv 2206.00761 compares such methods with distribution matching)."
}
Estimates are from ${after.n} texts of each model
(top-p ${after.topP} for moments, full softmax for divergences), ± one standard error; divergences in nats per text.

${[
  row(["", "wanted", "before", "after"]),
  row(["---", "---", "---", "---"]),
  ...moments,
  ...(target === undefined ? [] : [row(["KL(p, pi)", "0", shown(before.klTargetPolicy), shown(after.klTargetPolicy)])]),
  row(["KL(pi, a)", shown(target?.klTargetBase), shown(before.klPolicyBase), shown(after.klPolicyBase)]),
  row(["distinct-1", "", shown(before.distinct1), shown(after.distinct1)]),
].join("\n")}

The config, complete:

\`\`\`yaml
${stringify(plainConfig({ ...config, base })).trimEnd()}
\`\`\`
`;
};

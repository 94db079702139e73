/** The README.md of a tuned model: what was asked, what came out, how to do it again. */

import { stringify } from "yaml";
import type { Estimate } from "../base/numeric.ts";
import { plainConfig, type RunConfig } from "./config.ts";
import type { Summary } from "./metrics.ts";

const shown = ({ value, stdError }: Estimate): string => `${value.toFixed(3)} ± ${stdError.toFixed(3)}`;

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

export const modelCard = (config: RunConfig, { before, after, target, steps, samples }: Summary): string => {
  const base = config.base.replace(/\/+$/, "").split("/").at(-1) ?? config.base;
  const moments = Object.keys(after.moments).map((name) =>
    row([
      `moment of \`${name}\``,
      target.targetMoments[name] === undefined ? "" : String(target.targetMoments[name]),
      shown(before.moments[name]!),
      shown(after.moments[name]!),
    ]),
  );
  return `---
library_name: transformers
tags: [tiltlm, distribution-matching, ${JSON.stringify(config.method.name)}]
base_model: ${JSON.stringify(base)}
---

# ${base}, tuned to a target distribution

This is \`${base}\` after ${steps} steps of ${config.method.name} (arXiv 2206.00761) on ${samples} samples: the distribution
nearest to it, in relative entropy, that has the wanted expectations. Estimates are from ${after.n} texts of each model
(top-p ${after.topP} for moments, full softmax for divergences), ± one standard error; divergences in nats per text.

${[
  row(["", "wanted", "before", "after"]),
  row(["---", "---", "---", "---"]),
  ...moments,
  row(["KL(p, pi)", "0", shown(before.klTargetPolicy), shown(after.klTargetPolicy)]),
  row(["KL(pi, a)", shown(target.klTargetBase), shown(before.klPolicyBase), shown(after.klPolicyBase)]),
  row(["distinct-1", "", shown(before.distinct1), shown(after.distinct1)]),
].join("\n")}

The config, complete:

\`\`\`yaml
${stringify(plainConfig({ ...config, base })).trimEnd()}
\`\`\`
`;
};

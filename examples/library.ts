import { parseRunConfig, tune } from "tiltlm";
import { nodeContext } from "tiltlm/node";

const config = parseRunConfig(
  {
    base: "models/biographies-mini",
    features: {
      women: { kind: "pronouns", label: "female" },
      short: ({ text }: { text: string }) => text.length < 130,
    },
    target: { moments: { women: 0.5, short: 0.3 } },
    optimizer: { learningRate: 1e-4, warmupSteps: 5, schedule: "linear" },
    sequence: { maxTokens: 48 },
    steps: 20,
  },
  "library example",
);

const { summary, out } = await tune(config, { out: "runs/library", resume: false }, nodeContext());
const { moments, klTargetPolicy, klPolicyBase } = summary.after;
console.log(out, moments, klTargetPolicy, klPolicyBase);

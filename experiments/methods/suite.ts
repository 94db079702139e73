/** What `npm run compare:methods` runs: two tasks, every method, the same base, samples, steps and evaluation for all. */

import type { RunInput } from "tiltlm";

/** A task states one wish twice: as the target that distribution matching is given, and as the reward that reward maximisation is given. */
export const tasks = {
  women: {
    title: "50% women",
    moments: { women: 0.5 },
    reward: { features: { women: 1 } },
    say: "one text in twelve is on a woman; half should be",
  },
  brilliant: {
    title: '100% "brilliant"',
    moments: { brilliant: 1 },
    reward: { features: { brilliant: 1 } },
    say: 'one text in twenty-six says "brilliant"; every one should',
  },
} as const;

export type TaskName = keyof typeof tasks;

/** The methods at their defaults, but for what would make a short run meaningless. */
export const methods: Readonly<Record<string, RunInput["method"]>> = {
  "gdc++": { name: "gdc++" },
  gdc: { name: "gdc" },
  dpg: { name: "dpg", baseline: "z" },
  "f-dpg, JS": { name: "f-dpg", divergence: "js" },
  "reinforce-target": { name: "reinforce-target" },
  reinforce: { name: "reinforce" },
  "kl-control": { name: "kl-control", klCoefficient: 0.1 },
  rloo: { name: "rloo" },
  grpo: { name: "grpo" },
  ppo: { name: "ppo" },
};

const steps = 32;

export const configOf = (task: TaskName, method: string): RunInput => {
  const spec = methods[method];
  const { moments, reward } = tasks[task];
  const offPolicy = ["gdc", "gdc++", "f-dpg"].includes(spec?.name ?? "gdc++");
  return {
    base: "models/biographies-mini",
    sequence: { maxTokens: 48 },
    features: {
      women: { kind: "pronouns", label: "female" },
      science: { kind: "words", words: ["chemist", "physicist", "biologist", "astronomer", "mathematician", "geologist"] },
      brilliant: { kind: "word", word: "brilliant" },
    },
    target: { moments, samples: 4096 },
    reward,
    method: spec,
    batch: { samples: 256, microBatch: 16 },
    optimizer: { learningRate: 3e-4, warmupSteps: 3, schedule: "linear", beta2: 0.99, maxGradNorm: 2.5 },
    ...(offPolicy ? { proposal: { updateEvery: 3, samples: 128 } } : {}),
    diagnostics: { every: 8, samples: 32 },
    steps,
    seed: 12,
    evaluate: { every: steps, samples: 1024 },
    checkpoint: { every: steps, keep: 1 },
  };
};

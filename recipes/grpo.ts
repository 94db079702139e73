/**
 * GRPO (arXiv 2402.03300): PPO's clipped surrogate without a critic. What a text is worth is told by the other texts of its
 * group, the answers to the same question; here all texts have the same prompt, so the batch is one group.
 *
 *   grpo      as in the paper: advantage (r - mean)/deviation, token losses averaged over each text, then over texts
 *   dr-grpo   without the two divisions, which favour questions of little spread and long wrong answers (arXiv 2503.20783)
 *
 *   npm run recipe -- recipes/grpo.ts [grpo | dr-grpo] [steps]
 */

import { createTuner, learningRateAt, logTargetOf, type MethodSpec, methodOf, rewardColumn, uploadAll } from "tiltlm";
import { drawOnce, fitToBase, play, type Setting, type Step, told } from "./setting.ts";

type Spec = Extract<MethodSpec, { name: "grpo" }>;

/** The paper's beta; the penalty is per token, and adaptive control (of which the paper knows nothing) is off. */
const control = { klCoefficient: 0.04, klControl: "fixed", klTarget: 6, klHorizon: 10_000 } as const;

export const specs = {
  grpo: { name: "grpo", clip: 0.2, scaleByDeviation: true, lengthScale: "sequence", ...control },
  "dr-grpo": { name: "grpo", clip: 0.2, scaleByDeviation: false, lengthScale: "constant", ...control },
} as const satisfies Readonly<Record<string, Spec>>;

export async function* grpo(setting: Setting, steps: number, spec: Spec): AsyncGenerator<Step> {
  const { device, model, base } = setting;
  const { batch, optimizer } = setting.choices;

  // To be measured against. GRPO does not end there: the gradient of its penalty is that of KL(a, pi) per token, not that of
  // KL(pi, a), so its fixed point is not KL control's a(x) exp(r(x)/beta) (docs/math.md M45).
  const { target } = await fitToBase(setting);

  const tuner = await createTuner(device, model, methodOf(spec), {
    adam: optimizer,
    microBatch: batch.microBatch,
    inPlace: true,
  });
  let policy = tuner.start(uploadAll(device, base.weights));
  const a = await setting.scorerOf(base.weights);

  try {
    for (let step = 1; step <= steps; step++) {
      // Draw a group from pi as it is now: the "old policy" of the paper, which makes one update per group, so that the ratio
      // pi/q starts at 1.
      const pi = tuner.policyWeights(policy);
      const count = batch.samples;
      const samples = await drawOnce(setting, pi, { count, key: setting.keyFor("train"), firstIndex: (step - 1) * count });

      // Score: r(x) of each text, and log a of each token for the penalty. On the first step pi is the base, and drawing has
      // already told them.
      const matrix = await setting.measure(samples);
      const { logProbs: logBase, tokenLogProbs: tokenLogBase } = step === 1 ? samples : await a.score(samples);
      const [reward, logTarget] = [rewardColumn(matrix)!, logTargetOf(target, matrix, logBase)];
      const texts = { samples, matrix, reward, logBase, tokenLogBase, logTarget };

      // Learn: one step up the clipped surrogate, every token of a text with the text's advantage, less beta (a/pi - log(a/pi) -
      // 1) per token. report.measures has the share of tokens that were clipped, and the penalty.
      const { state, report } = await tuner.step(policy, texts, learningRateAt(step, { ...optimizer, steps }));
      policy = state;

      yield told(step, texts, report, true);
    }
  } finally {
    await Promise.all([a.dispose(), tuner.dispose()]);
  }
}

await play(import.meta.url, grpo, specs);

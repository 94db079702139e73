/**
 * REINFORCE: bring pi to where the reward is greatest, and nothing else. It is what the other recipes are measured against, and
 * the reason for them: nothing holds pi near the base, so what it gains in reward it may pay for with everything it could write
 * before.
 *
 *   reinforce          the reward r(x)
 *   reinforce-target   the target's own P(x) as a reward: what distribution matching is not (arXiv 2012.11635 compares with it)
 *
 *   npm run recipe -- recipes/reinforce.ts [reinforce | reinforce-target] [steps]
 */

import { createTuner, learningRateAt, logTargetOf, type MethodSpec, methodOf, rewardColumn, uploadAll } from "tiltlm";
import { drawOnce, fitToBase, play, type Setting, type Step, told } from "./setting.ts";

type Spec = Extract<MethodSpec, { name: "reinforce" | "reinforce-target" }>;

export const specs = {
  // From the reward of each text the mean of the others' is subtracted. It does not depend on the text, so the gradient is the
  // same on average.
  reinforce: { name: "reinforce", baseline: "leave-one-out" },
  // E_pi[P(x)] is greatest when pi writes the one text of greatest P, over and over: the mode of p, not p. P is counted in units
  // of its batch mean, as its own scale, that of a whole text's probability, is far from 1.
  "reinforce-target": { name: "reinforce-target", baseline: "leave-one-out" },
} as const satisfies Readonly<Record<string, Spec>>;

export async function* reinforce(setting: Setting, steps: number, spec: Spec): AsyncGenerator<Step> {
  const { device, model, base } = setting;
  const { batch, optimizer } = setting.choices;

  // "reinforce" does not know of a target; it is fitted to say how far from it a reward alone leads.
  const { target } = await fitToBase(setting);

  // pi begins as the base a.
  const tuner = await createTuner(device, model, methodOf(spec), {
    adam: optimizer,
    microBatch: batch.microBatch,
    inPlace: true,
  });
  let policy = tuner.start(uploadAll(device, base.weights));
  const a = await setting.scorerOf(base.weights);

  try {
    for (let step = 1; step <= steps; step++) {
      // Draw, from pi as it is now: a policy gradient is an expectation over the policy's own texts.
      const pi = tuner.policyWeights(policy);
      const count = batch.samples;
      const samples = await drawOnce(setting, pi, { count, key: setting.keyFor("train"), firstIndex: (step - 1) * count });

      // Score: r(x), log a(x), log P(x). On the first step pi is the base, and drawing has already told log a(x).
      const matrix = await setting.measure(samples);
      const { logProbs: logBase } = step === 1 ? samples : await a.score(samples);
      const texts = { samples, matrix, reward: rewardColumn(matrix)!, logBase, logTarget: logTargetOf(target, matrix, logBase) };

      // Learn: one step up E_pi[ (r - B) grad log pi ], the gradient of E_pi[r].
      const { state, report } = await tuner.step(policy, texts, learningRateAt(step, { ...optimizer, steps }));
      policy = state;

      yield told(step, texts, report, true);
    }
  } finally {
    await Promise.all([a.dispose(), tuner.dispose()]);
  }
}

await play(import.meta.url, reinforce, specs);

/**
 * KL control (arXiv 1909.08593): reward, less a price for every nat that pi moves away from the base. It ascends
 *
 *   E_pi[ r(x) ] - beta KL(pi, a)
 *
 * whose optimum is a distribution, p_z(x) ~ a(x) exp(r(x)/beta): KL control is distribution matching too, by the reverse KL(pi,
 * p_z) and with lambda = 1/beta chosen by hand (arXiv 2206.00761, theorem 1). At beta = 0.4 this p_z has about the 50% women that
 * setting.ts asks for, so the distance that is printed should fall as it does in recipes/gdc.ts.
 *
 *   kl-control   beta as it is given
 *   adaptive     beta steered until KL(pi, a) is what was asked for (1909.08593, section 2.2)
 *   rloo         the penalised reward again, with the baseline of the others' mean (arXiv 2402.14740)
 *
 *   npm run recipe -- recipes/kl-control.ts [kl-control | adaptive | rloo] [steps]
 */

import { createTuner, learningRateAt, logTargetOf, type MethodSpec, methodOf, rewardColumn, uploadAll } from "tiltlm";
import { drawOnce, fitToBase, play, type Setting, type Step, told } from "./setting.ts";

type Spec = Extract<MethodSpec, { name: "kl-control" | "rloo" }>;

/** beta in reward per nat. klTarget (nats per text) and klHorizon (texts) are read by an adaptive beta only. */
const fixed = { klCoefficient: 0.4, klControl: "fixed", klTarget: 6, klHorizon: 10_000 } as const;

export const specs = {
  "kl-control": { name: "kl-control", baseline: "mean", ...fixed },
  // 0.6 nats is about KL(p, a) here. The paper's horizon, 10,000 texts, is for runs of many more steps than these.
  adaptive: { name: "kl-control", baseline: "mean", klCoefficient: 0.2, klControl: "adaptive", klTarget: 0.6, klHorizon: 1000 },
  rloo: { name: "rloo", ...fixed },
} as const satisfies Readonly<Record<string, Spec>>;

export async function* klControl(setting: Setting, steps: number, spec: Spec): AsyncGenerator<Step> {
  const { device, model, base } = setting;
  const { batch, optimizer } = setting.choices;

  // Nothing below needs the target: it is fitted to be measured against. Were it { coefficients: { reward: 1 / beta } }, it would
  // be p_z itself.
  const { target } = await fitToBase(setting);

  // pi begins as the base a, where the penalty is 0. beta is the method's to remember: it is part of the policy's state.
  const tuner = await createTuner(device, model, methodOf(spec), {
    adam: optimizer,
    microBatch: batch.microBatch,
    inPlace: true,
  });
  let policy = tuner.start(uploadAll(device, base.weights));
  const a = await setting.scorerOf(base.weights);

  try {
    for (let step = 1; step <= steps; step++) {
      // Draw, from pi as it is now.
      const pi = tuner.policyWeights(policy);
      const count = batch.samples;
      const samples = await drawOnce(setting, pi, { count, key: setting.keyFor("train"), firstIndex: (step - 1) * count });

      // Score: r(x), and log a(x) for the penalty. On the first step pi is the base, and drawing has already told log a(x).
      const matrix = await setting.measure(samples);
      const { logProbs: logBase } = step === 1 ? samples : await a.score(samples);
      const texts = { samples, matrix, reward: rewardColumn(matrix)!, logBase, logTarget: logTargetOf(target, matrix, logBase) };

      // Learn: one step up E_pi[ (R - B) grad log pi ] with R = r - beta log(pi/a). R depends on pi, but what the gradient of R
      // itself would add is beta E_pi[ grad log pi ] = 0. Where beta is adaptive, KL(pi, a) of this batch moves it for the next:
      // report.measures.klCoefficient.
      const { state, report } = await tuner.step(policy, texts, learningRateAt(step, { ...optimizer, steps }));
      policy = state;

      yield told(step, texts, report, true);
    }
  } finally {
    await Promise.all([a.dispose(), tuner.dispose()]);
  }
}

await play(import.meta.url, klControl, specs);

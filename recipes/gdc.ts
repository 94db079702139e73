/**
 * Distribution matching: bring pi to a target p(x) = P(x)/Z by descending KL(p, pi). Three methods, one story; they differ in who
 * writes the texts and in what their rewards are compared with.
 *
 *   dpg     pi itself writes them                                      (arXiv 1912.08517)
 *   gdc     a proposal q writes them, and follows pi now and then      (arXiv 2012.11635, Algorithm 1: KL-adaptive DPG)
 *   gdc++   as gdc, with the baseline Z pi/q                           (arXiv 2206.00761)
 *
 *   npm run recipe -- recipes/gdc.ts [gdc++ | gdc | dpg] [steps]
 */

import {
  createTuner,
  decideProposal,
  hasMass,
  learningRateAt,
  logTargetOf,
  type MethodSpec,
  methodOf,
  partitionEstimate,
  updatePartition,
  uploadAll,
} from "tiltlm";
import { fitToBase, logRatiosOf, play, type Setting, type Step, told } from "./setting.ts";

type Spec = Extract<MethodSpec, { name: "dpg" | "gdc" | "gdc++" }>;

export const specs = {
  // P/q alone is never negative: every text is pushed up, those that p wants more of only further than others. Right on average,
  // and noisy. With the baseline a text is pushed down where pi > p already, and nothing moves once pi = p. It costs no bias,
  // whatever Z is taken to be.
  "gdc++": { name: "gdc++", baseline: "z" },
  gdc: { name: "gdc", baseline: "none" },
  dpg: { name: "dpg", baseline: "none" },
} as const satisfies Readonly<Record<string, Spec>>;

/** When q is checked, from how many fresh texts, and what makes it move; "kl" wants a gain above its own standard error. */
export interface Checks {
  readonly updateEvery: number;
  readonly samples: number;
  readonly criterion: "kl" | "kl-authors" | "tv";
}

export async function* gdc(
  setting: Setting,
  steps: number,
  spec: Spec,
  checks: Checks = { updateEvery: 3, samples: 256, criterion: "kl" },
): AsyncGenerator<Step> {
  const { device, model, base } = setting;
  const { batch, optimizer } = setting.choices;

  // First the target: lambda of P(x) = a(x) exp(lambda . phi(x)) from texts of the base, so that p has the wanted moments and is,
  // of all distributions that have them, the nearest to a (2012.11635, section 2). Before any training it is known that the goal
  // can be had, and at what KL(p, a).
  const { target, ofBase, partition: fromFit } = await fitToBase(setting);
  let partition = fromFit;

  // pi and q both begin as the base a.
  const method = methodOf(spec);
  const tuner = await createTuner(device, model, method, { adam: optimizer, microBatch: batch.microBatch, inPlace: true });
  let policy = tuner.start(uploadAll(device, base.weights), ofBase);
  const a = await setting.scorerOf(base.weights);
  let q = await setting.generatorOf(base.weights);
  let qIsBase = true;

  /** Texts of q and all that is known of them: phi(x), log q(x), log a(x), log P(x), and what Z is taken to be. */
  const draw = async (purpose: "train" | "proposal", count: number, index: number) => {
    const samples = await q.generate({ count, key: setting.keyFor(purpose), firstIndex: index * count });
    const matrix = await setting.measure(samples);
    // As long as q is the base, drawing has already told log a(x).
    const { logProbs: logBase } = qIsBase ? samples : await a.score(samples);
    const logZ = partitionEstimate(partition).logZ.value;
    return { samples, matrix, logBase, logTarget: logTargetOf(target, matrix, logBase), logZ };
  };

  try {
    for (let step = 1; step <= steps; step++) {
      // Draw and score.
      const texts = await draw("train", batch.samples, step - 1);

      // Learn: one step up E_q[ A grad log pi ]. A = P/(Zq) - pi/q with the baseline, P/(Zq) without; pi/q is worked out here, by
      // the pi that learns. It is an estimation, not a search for the greatest reward: E_pi[P/pi] = Z for every pi, the reward
      // itself depends on the policy (2206.00761).
      const { state, report } = await tuner.step(policy, texts, learningRateAt(step, { ...optimizer, steps }));
      policy = state;

      // E_q[P/q] = Z for any q, so every batch makes Z better known. Only now: the batch that has just been weighted with Z had
      // no part in it.
      partition = updatePartition(partition, logRatiosOf(texts));

      // Move q: always on-policy; else when fresh texts of q say that pi is nearer to p, KL(p, pi) < KL(p, q). The nearer q is to
      // p, the more even are the weights P/q. The two divergences are compared on the same texts, so Z drops out of the
      // comparison and most of the noise with it.
      let moves = method.samplesFrom === "policy";
      if (!moves && step % checks.updateEvery === 0) {
        const fresh = await draw("proposal", checks.samples, step);
        const pi = await setting.scorerOf(tuner.policyWeights(policy));
        const { logProbs: logPolicy } = await pi.score(fresh.samples).finally(() => pi.dispose());
        partition = updatePartition(partition, logRatiosOf(fresh));
        const { logTarget, samples } = fresh;
        // Without a text that hard constraints allow there is nothing to decide from, and q stays.
        moves =
          hasMass(logTarget) && decideProposal(checks.criterion, { logTarget, logProposal: samples.logProbs, logPolicy }).update;
      }
      if (moves) {
        await q.dispose();
        q = await setting.generatorOf(tuner.policyWeights(policy));
        qIsBase = false;
      }

      yield told(step, texts, report, moves);
    }
  } finally {
    await Promise.all([q.dispose(), a.dispose(), tuner.dispose()]);
  }
}

await play(import.meta.url, gdc, specs);

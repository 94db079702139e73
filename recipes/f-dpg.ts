/**
 * f-DPG (arXiv 2302.08215): bring pi to a target p(x) = P(x)/Z by descending any f-divergence of the two, D_f = E_p[ f(pi/p) ].
 * The loop is that of distribution matching; what changes is the reward of a text, R = -f'(pi/p). With f = -log it is p/pi, and
 * this is GDC.
 *
 *   kl        KL(p, pi): covers all that p does; heavy weights where p is far above q
 *   js        Jensen-Shannon: the reward grows like log(p/pi) only; the balance that the paper likes best
 *   tv        total variation: the reward is +1/2 or -1/2, however far p and pi are apart
 *   reverse   KL(pi, p), on-policy: KL control's divergence, reached from the side of the target
 *
 *   npm run recipe -- recipes/f-dpg.ts [js | tv | kl | reverse] [steps]
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

type Spec = Extract<MethodSpec, { name: "f-dpg" }>;

export const specs = {
  js: { name: "f-dpg", divergence: "js", samplesFrom: "proposal", baseline: "running" },
  tv: { name: "f-dpg", divergence: "tv", samplesFrom: "proposal", baseline: "running" },
  kl: { name: "f-dpg", divergence: "kl", samplesFrom: "proposal", baseline: "running" },
  // Infinite as soon as pi writes what p rules out: not for targets with hard constraints.
  reverse: { name: "f-dpg", divergence: "reverse-kl", samplesFrom: "policy", baseline: "running" },
} as const satisfies Readonly<Record<string, Spec>>;

/** When q is checked, and from how many fresh texts. */
export interface Checks {
  readonly updateEvery: number;
  readonly samples: number;
}

export async function* fDpg(
  setting: Setting,
  steps: number,
  spec: Spec,
  checks: Checks = { updateEvery: 3, samples: 256 },
): AsyncGenerator<Step> {
  const { device, model, base } = setting;
  const { batch, optimizer } = setting.choices;

  // The target, fitted as for GDC: it does not depend on which divergence will lead to it.
  const { target, ofBase, partition: fromFit } = await fitToBase(setting);
  let partition = fromFit;

  // The running baseline starts at what the base's own texts would be rewarded with: E_a[R] at pi = a. From then on it follows
  // the batches; being made of earlier ones, it owes nothing to the texts it is subtracted from, so it costs no bias
  // (docs/math.md M41).
  const method = methodOf(spec);
  const tuner = await createTuner(device, model, method, { adam: optimizer, microBatch: batch.microBatch, inPlace: true });
  let policy = tuner.start(uploadAll(device, base.weights), ofBase);
  const a = await setting.scorerOf(base.weights);
  let q = await setting.generatorOf(base.weights);
  let qIsBase = true;

  /** Texts of q and all that is known of them. R needs p and not only P, so Z matters here for more than the step size. */
  const draw = async (purpose: "train" | "proposal", count: number, index: number) => {
    const samples = await q.generate({ count, key: setting.keyFor(purpose), firstIndex: index * count });
    const matrix = await setting.measure(samples);
    const { logProbs: logBase } = qIsBase ? samples : await a.score(samples);
    const logZ = partitionEstimate(partition).logZ.value;
    return { samples, matrix, logBase, logTarget: logTargetOf(target, matrix, logBase), logZ };
  };

  try {
    for (let step = 1; step <= steps; step++) {
      // Draw and score.
      const texts = await draw("train", batch.samples, step - 1);

      // Learn: one step up E_q[ (pi/q) (R - B) grad log pi ]. The paper draws from pi, where pi/q = 1; with the ratio a frozen q
      // does as well. R changes with pi, but no gradient goes through it: the derivative of D_f is this expectation (2302.08215,
      // theorem 1).
      const { state, report } = await tuner.step(policy, texts, learningRateAt(step, { ...optimizer, steps }));
      policy = state;
      partition = updatePartition(partition, logRatiosOf(texts));

      // Move q: after every step on-policy; else when pi is nearer to p, in KL(p, .) whatever the divergence descended, since
      // that is what makes the weights of the next batches even.
      let moves = method.samplesFrom === "policy";
      if (!moves && step % checks.updateEvery === 0) {
        const fresh = await draw("proposal", checks.samples, step);
        const pi = await setting.scorerOf(tuner.policyWeights(policy));
        const { logProbs: logPolicy } = await pi.score(fresh.samples).finally(() => pi.dispose());
        partition = updatePartition(partition, logRatiosOf(fresh));
        const scores = { logTarget: fresh.logTarget, logProposal: fresh.samples.logProbs, logPolicy };
        moves = hasMass(fresh.logTarget) && decideProposal("kl", scores).update;
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

await play(import.meta.url, fDpg, specs);

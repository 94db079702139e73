/** Fitting the target from samples of the base, where P(x)/a(x) needs no model. */

import { usageError } from "../base/errors.ts";
import type { Samples } from "../sampling/samples.ts";
import { logWeights } from "../targets/ebm.ts";
import type { FeatureMatrix } from "../targets/feature.ts";
import { type FittedTarget, fitProduct, fitTarget } from "../targets/fit.ts";
import { emptyPartition, type PartitionState, updatePartition } from "../targets/partition.ts";
import { type RunConfig, targetSpecsOf } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import type { FitReport } from "./metrics.ts";
import { openSetup, type Setup, using, withProbabilities } from "./setup.ts";

export interface Fit extends FittedTarget {
  /** Z as the samples of the fit estimate it, to be pooled with what training draws. */
  readonly partition: PartitionState;
  readonly samples: Samples;
  /** Of the samples: features, and the reward where there is one. */
  readonly matrix: FeatureMatrix;
}

/**
 * The config must have a target.
 * @throws TiltError when what is wanted cannot be had, with the reason
 */
export const fitFrom = async (setup: Setup, context: RunContext): Promise<Fit> => {
  const { config } = setup;
  if (config.target === undefined) throw new Error("fitFrom: expected a config with a target");
  const count = config.target.samples;
  const specs = targetSpecsOf(config.target);
  const samples = await inPhase(context, "sampling the base", count, "texts", (onProgress) =>
    using(setup.generatorOf(setup.baseWeights), (generator) =>
      generator.generate({ count, key: setup.keyFor("fit"), onProgress }),
    ),
  );
  const matrix = await setup.measure(withProbabilities(samples, config.base));
  const fitted = config.target.product === undefined ? fitTarget(matrix, specs[0]!) : fitProduct(matrix, specs);
  context.onEvent({ type: "fit", report: fitted.report });
  const partition = updatePartition(emptyPartition(config.partition), logWeights(fitted.target, matrix));
  return { ...fitted, samples, matrix, partition };
};

/** The verb `fit`. @throws TiltError (usage) for a config without a target */
export const fit = async (config: RunConfig, context: RunContext): Promise<FitReport> => {
  if (config.target === undefined) {
    const fix = "add target; a reward alone has nothing to fit";
    throw usageError({ where: "target", expected: "a target to fit", got: "none", fix });
  }
  return using(openSetup(config, context), async (setup) => (await fitFrom(setup, context)).report);
};

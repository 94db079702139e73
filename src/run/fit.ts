/** Fitting the target from samples of the base, where P(x)/a(x) needs no model. */

import type { Samples } from "../sampling/samples.ts";
import { logWeights } from "../targets/ebm.ts";
import { type FittedTarget, fitTarget } from "../targets/fit.ts";
import { emptyPartition, type PartitionState, updatePartition } from "../targets/partition.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import type { FitReport } from "./metrics.ts";
import { openSetup, type Setup, using, withProbabilities } from "./setup.ts";

export interface Fit extends FittedTarget {
  /** Z as the samples of the fit estimate it, to be pooled with what training draws. */
  readonly partition: PartitionState;
  readonly samples: Samples;
}

/** @throws TiltError when the wanted moments cannot be had, with the reason */
export const fitFrom = async (setup: Setup, context: RunContext): Promise<Fit> => {
  const { config } = setup;
  const count = config.target.samples;
  const samples = await inPhase(context, "sampling the base", count, "texts", (onProgress) =>
    using(setup.generatorOf(setup.base.weights), (generator) =>
      generator.generate({ count, key: setup.keyFor("fit"), onProgress }),
    ),
  );
  const matrix = await setup.measure(withProbabilities(samples, config.base));
  const fitted = fitTarget(matrix, config.target);
  context.onEvent({ type: "fit", report: fitted.report });
  return { ...fitted, samples, partition: updatePartition(emptyPartition, logWeights(fitted.target, matrix)) };
};

/** The verb `fit`. */
export const fit = async (config: RunConfig, context: RunContext): Promise<FitReport> =>
  (await fitFrom(await openSetup(config, context), context)).report;

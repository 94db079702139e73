/**
 * What the verbs call. Each is loaded when it is first used, so that `--help` and a misspelt flag are answered at once;
 * tests put their own in place.
 */

import type { PretrainConfig, RunConfig } from "../run/config.ts";
import type { RunContext } from "../run/context.ts";
import type { SampledText, SampleOptions, ScoredText } from "../run/generate.ts";
import type { Evaluation, FitReport } from "../run/metrics.ts";
import type { PretrainReport } from "../run/pretrain.ts";
import type { TargetSample, TargetSampleOptions } from "../run/quasi-rejection.ts";
import type { TuneResult } from "../run/tune.ts";

export type { TuneResult } from "../run/tune.ts";

/** What a verb hands to a run; the device is found here. */
export type Watch = Omit<RunContext, "openDevice">;

export interface Runs {
  tune(config: RunConfig, options: { out: string; resume: boolean }, watch: Watch): Promise<TuneResult>;
  fit(config: RunConfig, watch: Watch): Promise<FitReport>;
  evaluateDirectory(config: RunConfig, model: string, watch: Watch): Promise<{ evaluation: Evaluation; fit?: FitReport }>;
  sampleTexts(model: string, options: SampleOptions, watch: Watch): Promise<readonly SampledText[]>;
  sampleTarget(config: RunConfig, options: TargetSampleOptions, watch: Watch): Promise<TargetSample>;
  scoreFile(model: string, file: string, options: { device: RunConfig["device"] }, watch: Watch): AsyncIterable<ScoredText>;
  pretrain(config: PretrainConfig, options: { out: string }, watch: Watch): Promise<PretrainReport>;
}

const contextOf = async (watch: Watch): Promise<RunContext> => ({
  ...watch,
  openDevice: (await import("../engine/runtime/open.node.ts")).openDevice,
});

export const runs: Runs = {
  tune: async (config, options, watch) => (await import("../run/tune.ts")).tune(config, options, await contextOf(watch)),
  fit: async (config, watch) => (await import("../run/fit.ts")).fit(config, await contextOf(watch)),
  evaluateDirectory: async (config, model, watch) =>
    (await import("../run/evaluate.ts")).evaluateDirectory(config, model, await contextOf(watch)),
  sampleTexts: async (model, options, watch) =>
    (await import("../run/generate.ts")).sampleTexts(model, options, await contextOf(watch)),
  sampleTarget: async (config, options, watch) =>
    (await import("../run/quasi-rejection.ts")).sampleTarget(config, options, await contextOf(watch)),
  scoreFile: async function* (model, file, options, watch) {
    yield* (await import("../run/generate.ts")).scoreFile(model, file, options, await contextOf(watch));
  },
  pretrain: async (config, options, watch) =>
    (await import("../run/pretrain.ts")).pretrain(config, options, await contextOf(watch)),
};

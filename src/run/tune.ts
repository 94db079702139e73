/**
 * The verb `tune`: the one loop of every distribution-matching run. It draws, scores, learns, now and then moves the proposal, evaluates and saves;
 * what each of these means is said elsewhere. Everything random is keyed by the step, so a resumed run continues to the bit.
 */

import { runtimeError, TiltError } from "../base/errors.ts";
import { mean } from "../base/numeric.ts";
import { uploadAll } from "../engine/runtime/device.ts";
import { learningRateAt } from "../optim/schedule.ts";
import type { Generator } from "../sampling/generate.ts";
import type { Scorer } from "../sampling/log-prob.ts";
import type { Samples } from "../sampling/samples.ts";
import { klTargetPolicy, klTargetProposal } from "../targets/divergence.ts";
import { hasMass, logWeights } from "../targets/ebm.ts";
import { columnOf, type FeatureMatrix } from "../targets/feature.ts";
import { partitionEstimate, updatePartition } from "../targets/partition.ts";
import { createDpgTuner, type DpgTuner } from "../tuners/dpg.ts";
import { decideProposal } from "../tuners/proposal.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { measureModel, sampleLines } from "./evaluate.ts";
import { fitFrom } from "./fit.ts";
import type { Evaluation, StepMetrics, Summary } from "./metrics.ts";
import { openRunDirectory, type RunDirectory } from "./run-directory.ts";
import { openSetup, type Setup, using } from "./setup.ts";
import { hostWeights, type RunState } from "./state.ts";

export interface TuneResult {
  readonly summary: Summary;
  /** Whether it was stopped before its last step; it can be resumed. */
  readonly stopped: boolean;
  readonly out: string;
}

/** A batch of q with everything that is known of it. */
interface Draw {
  readonly samples: Samples;
  readonly matrix: FeatureMatrix;
  readonly logTarget: Float64Array;
  readonly sampleSeconds: number;
  readonly scoreSeconds: number;
}

/** Draws from q and scores under the target. While q is the base, log a(x) = log q(x) needs no second look. */
const draw = async (
  setup: Setup,
  state: RunState,
  generator: Generator,
  baseScorer: Scorer,
  request: { purpose: "train" | "proposal"; count: number; index: number },
  clock: () => number,
): Promise<Draw> => {
  const start = clock();
  const samples = await generator.generate({
    count: request.count,
    key: setup.keyFor(request.purpose),
    firstIndex: request.index * request.count,
  });
  const sampled = clock();
  const logBase = state.proposal === undefined ? samples.logProbs : (await baseScorer.score(samples)).logProbs;
  const matrix = await setup.measure(samples);
  const logTarget = logWeights(state.target, matrix).map((value, i) => value + logBase[i]!);
  return { samples, matrix, logTarget, sampleSeconds: (sampled - start) / 1000, scoreSeconds: (clock() - sampled) / 1000 };
};

/** KL(p, pi) and KL(p, q) from a batch of q; absent where no sample has any mass under the target. */
const batchDivergences = (
  { logTarget, samples }: Draw,
  logPolicy: Float64Array,
): { klTargetPolicy?: number; klTargetProposal?: number } => {
  if (!hasMass(logTarget)) return {};
  const scores = { logTarget, logProposal: samples.logProbs, logPolicy };
  return { klTargetPolicy: klTargetPolicy(scores).value, klTargetProposal: klTargetProposal(scores).value };
};

const logRatios = ({ logTarget, samples }: Draw): Float64Array => logTarget.map((value, i) => value - samples.logProbs[i]!);

/** Evaluates the policy and logs the result. */
const evaluatePolicy = async (
  setup: Setup,
  state: RunState,
  directory: RunDirectory,
  context: RunContext,
  seconds: () => number,
): Promise<{ state: RunState; evaluation: Evaluation }> => {
  const measured = await measureModel(setup, state.target, await hostWeights(state.policy.weights), "policy", context);
  const samples = state.samples + measured.drawn;
  const evaluation: Evaluation = { kind: "evaluation", step: state.step, samples, seconds: seconds(), ...measured.measures };
  await directory.log(evaluation, sampleLines(measured, state.step));
  context.onEvent({ type: "evaluation", evaluation, targetMoments: setup.config.target.moments });
  return { state: { ...state, samples, latest: evaluation }, evaluation };
};

/** A new run's state: the target fitted, the base evaluated. */
const begin = async (
  setup: Setup,
  tuner: DpgTuner,
  directory: RunDirectory,
  context: RunContext,
  seconds: () => number,
): Promise<RunState> => {
  const fitted = await fitFrom(setup, context).catch(async (error: unknown) => {
    // A target that cannot be had leaves nothing behind: the corrected config can go to the same place.
    if (error instanceof TiltError) await directory.discard();
    throw error;
  });
  await directory.writeTarget(fitted.report, fitted.target);
  const weights = uploadAll(setup.device, setup.base.weights);
  const fresh = {
    step: 0,
    samples: setup.config.target.samples,
    seconds: 0,
    policy: tuner.start(weights),
    proposal: undefined,
    target: fitted.target,
    fit: fitted.report,
    partition: fitted.partition,
    latest: undefined,
    logs: { metrics: 0, samples: 0 },
  };
  const { state, evaluation } = await evaluatePolicy(
    setup,
    { ...fresh, before: undefined as never },
    directory,
    context,
    seconds,
  );
  return { ...state, before: evaluation };
};

/**
 * Tunes the base of a config to its target, and leaves a run directory behind.
 * @param options.out    the run directory; must not exist unless `resume`
 * @param options.resume continues from the newest checkpoint
 * @throws TiltError for bad input, and when a step's loss is not finite (the last good state is saved first)
 */
export const tune = async (
  config: RunConfig,
  options: { readonly out: string; readonly resume: boolean },
  context: RunContext,
): Promise<TuneResult> => {
  const opened = context.clock();
  const setup = await openSetup(config, context);
  const directory = await openRunDirectory(config, setup, options, context);
  const tuner = await createDpgTuner(setup.device, setup.model, config.method, config.optimizer, config.batch.microBatch);
  const loaded = await directory.load(setup.device);
  const earlier = loaded?.seconds ?? 0;
  const seconds = (): number => earlier + (context.clock() - opened) / 1000;
  const checkpoint = async (at: RunState): Promise<RunState> => {
    const saved = { ...at, seconds: seconds(), logs: await directory.logSizes() };
    context.onEvent({ type: "checkpoint", path: await directory.save(saved), step: saved.step });
    return saved;
  };
  let state = loaded ?? (await checkpoint(await begin(setup, tuner, directory, context, seconds)));
  if (loaded !== undefined) {
    context.onEvent({ type: "fit", report: loaded.fit });
    context.onEvent({
      type: "notice",
      message: `resumed at step ${state.step} of ${config.steps}, with ${state.samples} samples drawn`,
    });
  }

  const baseScorer = await setup.scorerOf(setup.base.weights);
  let generator = await setup.generatorOf(state.proposal ?? setup.base.weights);
  const setProposal = async (at: RunState): Promise<RunState> => {
    const proposal = await hostWeights(at.policy.weights);
    await generator.dispose();
    generator = await setup.generatorOf(proposal);
    return { ...at, proposal };
  };

  /** One step: draw from q, learn, and at times check whether q should become pi. */
  const advance = async (): Promise<void> => {
    const step = state.step + 1;
    if (config.method.name === "dpg" && state.step > 0) state = await setProposal(state);
    const batch = await draw(
      setup,
      state,
      generator,
      baseScorer,
      { purpose: "train", count: config.batch.samples, index: state.step },
      context.clock,
    );
    const { logZ } = partitionEstimate(state.partition);
    const learningRate = learningRateAt(step, { ...config.optimizer, steps: config.steps });
    const trainStart = context.clock();
    const { state: policy, report } = await tuner.step(state.policy, { ...batch, logZ: logZ.value }, learningRate);
    const trainSeconds = (context.clock() - trainStart) / 1000;
    if (!report.finite) {
      await checkpoint(state);
      throw runtimeError({
        where: `step ${step}`,
        expected: "a finite loss and gradient",
        got: `loss ${report.loss}, gradient norm ${report.gradNorm}`,
        fix: `lower optimizer.learningRate or set method.clampLogWeight; step ${state.step} is saved in ${options.out}`,
      });
    }
    state = {
      ...state,
      step,
      policy,
      latest: undefined,
      samples: state.samples + batch.samples.count,
      partition: updatePartition(state.partition, logRatios(batch)),
    };
    const learned = state;
    let proposalUpdated = config.method.name === "dpg";
    let { sampleSeconds, scoreSeconds } = batch;
    if (config.method.name !== "dpg" && config.proposal.criterion !== "never" && step % config.proposal.updateEvery === 0) {
      const check = await draw(
        setup,
        state,
        generator,
        baseScorer,
        { purpose: "proposal", count: config.proposal.samples, index: step },
        context.clock,
      );
      const scoreStart = context.clock();
      const logPolicy = (
        await using(setup.scorerOf(await hostWeights(state.policy.weights)), (scorer) => scorer.score(check.samples))
      ).logProbs;
      sampleSeconds += check.sampleSeconds;
      scoreSeconds += check.scoreSeconds + (context.clock() - scoreStart) / 1000;
      state = {
        ...learned,
        samples: learned.samples + check.samples.count,
        partition: updatePartition(learned.partition, logRatios(check)),
      };
      if (hasMass(check.logTarget)) {
        proposalUpdated = decideProposal(config.proposal.criterion, {
          logTarget: check.logTarget,
          logProposal: check.samples.logProbs,
          logPolicy,
        }).update;
      }
      if (proposalUpdated) state = await setProposal(state);
    }
    const metrics: StepMetrics = {
      kind: "step",
      step,
      samples: state.samples,
      seconds: seconds(),
      loss: report.loss,
      gradNorm: report.gradNorm,
      learningRate,
      logZ: logZ.value,
      ...batchDivergences(batch, report.logPolicy),
      moments: Object.fromEntries(batch.matrix.names.map((name, f) => [name, mean(columnOf(batch.matrix, f))])),
      advantageMean: report.advantageMean,
      advantageMeanAbs: report.advantageMeanAbs,
      advantageVariance: report.advantageVariance,
      ess: report.ess,
      clampedWeights: report.clampedWeights,
      proposalUpdated,
      sampleSeconds,
      scoreSeconds,
      trainSeconds,
    };
    await directory.log(metrics);
    context.onEvent({ type: "step", metrics, targetMoments: config.target.moments });
  };

  const stopped = (): boolean => context.signal?.aborted === true;
  try {
    await inPhase(context, "tuning", config.steps, "steps", async (progress) => {
      progress(state.step);
      while (state.step < config.steps && !stopped()) {
        await advance();
        if (state.step % config.evaluate.every === 0)
          state = (await evaluatePolicy(setup, state, directory, context, seconds)).state;
        if (state.step % config.checkpoint.every === 0 || state.step === config.steps || stopped())
          state = await checkpoint(state);
        progress(state.step);
      }
    });
    const finished =
      state.latest === undefined && !stopped() ? (await evaluatePolicy(setup, state, directory, context, seconds)).state : state;
    const after = finished.latest ?? finished.before;
    const summary: Summary = {
      before: finished.before,
      after,
      target: finished.fit,
      steps: finished.step,
      seconds: seconds(),
      samples: finished.samples,
    };
    if (!stopped()) await directory.finish(summary, await hostWeights(state.policy.weights));
    return { summary, stopped: stopped(), out: options.out };
  } finally {
    await generator.dispose();
    await baseScorer.dispose();
    await tuner.dispose();
  }
};

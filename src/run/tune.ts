/**
 * The verb `tune`: the one loop of every run, whatever its method. It draws, scores, learns, now and then moves the proposal, evaluates and saves;
 * what each of these means is said elsewhere. Everything random is keyed by the step, so a resumed run continues to the bit.
 */

import { runtimeError, TiltError } from "../base/errors.ts";
import { logMeanExp, meanEstimate } from "../base/numeric.ts";
import { copyAll, disposeAll, type PlacedTensors } from "../engine/runtime/device.ts";
import { isLarge } from "../models/causal-model.ts";
import type { DeviceTensors } from "../optim/adam.ts";
import { averageStep, createAverager } from "../optim/average.ts";
import { learningRateAt } from "../optim/schedule.ts";
import type { Generator } from "../sampling/generate.ts";
import type { Scores } from "../sampling/log-prob.ts";
import { klTargetPolicy, klTargetProposal } from "../targets/divergence.ts";
import { hasMass, logTargetOf, logWeights } from "../targets/ebm.ts";
import { type FeatureMatrix, momentEstimates } from "../targets/feature.ts";
import { partitionEstimate, updatePartition } from "../targets/partition.ts";
import { rewardColumn } from "../targets/reward.ts";
import { type Method, methodOf, type ScoredSamples } from "../tuners/method.ts";
import { fitPrefixValue, logPrefixValues, prefixTexts } from "../tuners/prefix-value.ts";
import { decideProposal } from "../tuners/proposal.ts";
import { createTuner, type Tuner } from "../tuners/tuner.ts";
import type { RunConfig } from "./config.ts";
import { inPhase, type RunContext } from "./context.ts";
import { measureModel, type Reference, redrawReference, referenceOf, sampleLines } from "./evaluate.ts";
import { fitFrom } from "./fit.ts";
import type { Evaluation, StepMetrics, Summary } from "./metrics.ts";
import { openRunDirectory, type RunDirectory } from "./run-directory.ts";
import { openSetup, type Setup, using } from "./setup.ts";
import { type Goal, hostWeights, type RunState } from "./state.ts";

export interface TuneOptions {
  readonly out: string;
  readonly resume: boolean;
}

export interface TuneResult {
  readonly summary: Summary;
  /** Whether it was stopped before its last step; it can be resumed. */
  readonly stopped: boolean;
  readonly out: string;
}

/** A batch with everything that is known of it, and what it cost. */
interface Draw extends ScoredSamples {
  readonly matrix: FeatureMatrix;
  readonly sampleSeconds: number;
  readonly scoreSeconds: number;
}

/** About how much of a step's time drawing and scoring take together, and drawing of those: for progress within steps that take minutes. */
const beforeTraining = 0.4;
const drawingPart = 0.6;

/** The goal with what a batch says of Z pooled in. */
const withBatch = (goal: Goal | undefined, { logTarget, samples }: ScoredSamples): Goal | undefined => {
  if (goal === undefined || logTarget === undefined) return undefined;
  const logRatios = logTarget.map((value, i) => value - samples.logProbs[i]!);
  return { ...goal, partition: updatePartition(goal.partition, logRatios) };
};

/** KL(p, pi) and KL(p, q) from a batch of q; absent without a target, or where no sample has any mass under it. */
const batchDivergences = ({ logTarget, samples }: ScoredSamples, logPolicy: Float64Array) => {
  if (logTarget === undefined || !hasMass(logTarget)) return {};
  const scores = { logTarget, logProposal: samples.logProbs, logPolicy };
  return { klTargetPolicy: klTargetPolicy(scores), klTargetProposal: klTargetProposal(scores) };
};

/** Measures a model and logs the result, the average's under the same step as the policy's. */
const evaluateModel = async (
  setup: Setup,
  state: RunState,
  reference: Reference | undefined,
  { weights, model, averaged }: { weights: PlacedTensors; model: Evaluation["model"]; averaged?: true },
  directory: RunDirectory,
  context: RunContext,
  seconds: () => number,
): Promise<{ state: RunState; evaluation: Evaluation }> => {
  const against = state.goal && reference && { target: state.goal.target, reference };
  const measured = await measureModel(setup, against, weights, model, context);
  const samples = state.samples + measured.drawn;
  const { measures } = measured;
  const evaluation: Evaluation = {
    kind: "evaluation",
    step: state.step,
    samples,
    seconds: seconds(),
    ...measures,
    ...(averaged ? { averaged } : {}),
  };
  await directory.log(evaluation, sampleLines(measured, state.step, averaged));
  context.onEvent({ type: "evaluation", evaluation, targetMoments: state.goal?.fit.targetMoments ?? {} });
  return { state: { ...state, samples }, evaluation };
};

/** The base's own samples, as a method may ask for them before the first step. */
const baseBatch = ({ samples, matrix, target, partition }: Awaited<ReturnType<typeof fitFrom>>): ScoredSamples => ({
  samples,
  logBase: samples.logProbs,
  logTarget: logTargetOf(target, matrix, samples.logProbs),
  logZ: partitionEstimate(partition).logZ.value,
});

/** What prefixes promise of a fitted target, for methods that ask for it. */
const prefixValueOf = async (
  setup: Setup,
  { needs }: Method,
  { samples, matrix, target }: Awaited<ReturnType<typeof fitFrom>>,
  context: RunContext,
): Promise<Pick<Goal, "prefixValue">> => {
  if (!needs.prefixValue) return {};
  const { device, model, baseWeights } = setup;
  const logRatios = logWeights(target, matrix);
  const logZ = logMeanExp(logRatios);
  const ratios = logRatios.map((value) => Math.exp(value - logZ));
  const count = Math.min(samples.count, prefixTexts);
  const prefixValue = await inPhase(context, "fitting what prefixes promise", count, "texts", (onProgress) =>
    fitPrefixValue(device, model, baseWeights, samples, ratios, onProgress),
  );
  const share = Math.round(100 * Math.max(0, prefixValue.explained));
  context.onEvent({
    type: "notice",
    message: `what prefixes promise explains ${share}% of the variance of P/a, on texts held out`,
  });
  return { prefixValue };
};

/** A new run's state: the target fitted, where there is one, and the base evaluated. */
const begin = async (
  setup: Setup,
  method: Method,
  tuner: Tuner,
  directory: RunDirectory,
  context: RunContext,
  seconds: () => number,
): Promise<{ state: RunState; reference: Reference | undefined }> => {
  // A run that cannot begin leaves nothing behind: the corrected config can go to the same place.
  const orDiscard = async (error: unknown): Promise<never> => {
    if (error instanceof TiltError) await directory.discard();
    throw error;
  };
  const { config } = setup;
  const fitted = config.target === undefined ? undefined : await fitFrom(setup, context).catch(orDiscard);
  if (fitted !== undefined) await directory.writeTarget(fitted.report, fitted.target);
  const fresh: RunState = {
    step: 0,
    samples: config.target?.samples ?? 0,
    seconds: 0,
    policy: tuner.start(await copyAll(setup.device, setup.baseWeights), fitted === undefined ? undefined : baseBatch(fitted)),
    average: undefined,
    proposal: undefined,
    goal: fitted && {
      target: fitted.target,
      fit: fitted.report,
      partition: fitted.partition,
      ...(await prefixValueOf(setup, method, fitted, context).catch(orDiscard)),
    },
    before: undefined as never,
    latest: undefined,
    logs: { metrics: 0, samples: 0 },
  };
  const base = { weights: setup.baseWeights, model: "policy" } as const;
  const reference = fitted && referenceOf(fitted, config.evaluate.samples);
  const { state, evaluation } = await evaluateModel(setup, fresh, reference, base, directory, context, seconds).catch(orDiscard);
  return { state: { ...state, before: evaluation, latest: { policy: evaluation } }, reference };
};

/**
 * Tunes the base of a config by its method, and leaves a run directory behind.
 * @param options.out    the run directory; must not exist unless `resume`
 * @param options.resume continues from the newest checkpoint
 * @throws TiltError for bad input, and when a step's loss is not finite (the last good state is saved first)
 */
export const tune = (config: RunConfig, options: TuneOptions, context: RunContext): Promise<TuneResult> => {
  const opened = context.clock();
  return using(openSetup(config, context), (setup) => tuneIn(setup, options, context, opened));
};

const tuneIn = async (setup: Setup, options: TuneOptions, context: RunContext, opened: number): Promise<TuneResult> => {
  const { config } = setup;
  const directory = await openRunDirectory(config, setup, options, context);
  const method = methodOf(config.method);
  const onPolicy = method.samplesFrom === "policy";
  const { microBatch, epochs, miniBatches } = config.batch;
  const tuner = await createTuner(setup.device, setup.model, method, {
    adam: config.optimizer,
    microBatch,
    epochs,
    miniBatches,
    shuffleKey: setup.keyFor("shuffle"),
    inPlace: true,
  });
  const averager = config.average.kind === "none" ? undefined : await createAverager(setup.device, setup.model.parameterShapes);
  const loaded = await directory.load(setup.device);
  const earlier = loaded?.seconds ?? 0;
  const seconds = (): number => earlier + (context.clock() - opened) / 1000;
  /** The step of the newest checkpoint, which is not written a second time: nothing may happen to the only copy. */
  let savedStep = loaded?.step;
  const checkpoint = async (at: RunState, logs?: RunState["logs"]): Promise<RunState> => {
    if (at.step === savedStep) return at;
    const saved = { ...at, seconds: seconds(), logs: logs ?? (await directory.logSizes()) };
    context.onEvent({ type: "checkpoint", path: await directory.save(saved), step: saved.step });
    savedStep = saved.step;
    return saved;
  };
  const begun = loaded === undefined ? await begin(setup, method, tuner, directory, context, seconds) : undefined;
  let state = loaded ?? (await checkpoint(begun!.state));
  if (loaded !== undefined) {
    if (loaded.goal !== undefined) context.onEvent({ type: "fit", report: loaded.goal.fit });
    context.onEvent({
      type: "notice",
      message: `resumed at step ${state.step} of ${config.steps}, with ${state.samples} samples drawn`,
    });
  }

  const policyWeights = (): DeviceTensors => tuner.policyWeights(state.policy);
  const prefixValue = state.goal?.prefixValue;
  const baseScorer = await setup.scorerOf(setup.baseWeights, prefixValue?.probe);
  /**
   * What batches are drawn with: its weights are packed once. Not there while a model is evaluated, which takes as much room; of a large model not while it
   * learns either, which takes most.
   */
  let source: Generator | undefined;
  const closeSource = async (): Promise<void> => {
    await source?.dispose();
    source = undefined;
  };
  /** Whether what batches are drawn from is still the base. */
  const isBase = (): boolean => (onPolicy ? state.step === 0 : state.proposal === undefined);
  const proposalWeights = (): DeviceTensors => {
    if (isBase()) return setup.baseWeights;
    return onPolicy ? policyWeights() : state.proposal!;
  };
  const moveProposal = async (): Promise<void> => {
    await closeSource();
    if (state.proposal !== undefined) disposeAll(state.proposal);
    state = { ...state, proposal: await copyAll(setup.device, policyWeights()) };
  };

  /** Hears which part of the step under way is done, from 0 to 1. */
  let onStepPart = (_part: number): void => {};

  /**
   * Draws and scores. While q is the base, log a(x) = log q(x) needs no second look, unless it is for what prefixes promise. `onPart` hears which part is done,
   * from 0 to 1.
   */
  const draw = async (
    purpose: "train" | "proposal",
    count: number,
    index: number,
    onPart: (part: number) => void = () => {},
  ): Promise<Draw> => {
    const start = context.clock();
    source ??= await setup.generatorOf(proposalWeights());
    const samples = await source.generate({
      count,
      key: setup.keyFor(purpose),
      firstIndex: index * count,
      onProgress: (done) => onPart((drawingPart * done) / count),
    });
    const sampled = context.clock();
    // Features are measured on this thread while the lanes score.
    const scoring = async (): Promise<{ readonly base: Scores; readonly scored: number }> => {
      const onScored = (done: number): void => onPart(drawingPart + ((1 - drawingPart) * done) / count);
      const drawnFromBase = isBase();
      if (drawnFromBase && (prefixValue === undefined || purpose === "proposal"))
        return { base: samples, scored: context.clock() };
      const scores = await baseScorer.score(samples, onScored);
      const { logProbs, tokenLogProbs } = drawnFromBase ? samples : scores;
      return { base: { ...scores, logProbs, tokenLogProbs }, scored: context.clock() };
    };
    const [{ base, scored }, matrix] = await Promise.all([scoring(), setup.measure(samples)]);
    const { goal } = state;
    const reward = rewardColumn(matrix);
    return {
      samples,
      matrix,
      logBase: base.logProbs,
      tokenLogBase: base.tokenLogProbs,
      ...(prefixValue === undefined || base.probed === undefined
        ? {}
        : { logPrefixValues: logPrefixValues(prefixValue, base.probed, samples) }),
      ...(goal === undefined
        ? {}
        : {
            logTarget: logTargetOf(goal.target, matrix, base.logProbs),
            logZ: partitionEstimate(goal.partition).logZ.value,
          }),
      ...(reward === undefined ? {} : { reward }),
      sampleSeconds: (sampled - start) / 1000,
      scoreSeconds: (scored - sampled) / 1000,
    };
  };

  /** Whether the proposal should become the policy, of which these are samples with their scores; and what it cost to find out. */
  const checkProposal = async (check: Draw) => {
    const { criterion } = config.proposal!;
    const start = context.clock();
    const { logProbs: logPolicy } = await using(setup.scorerOf(policyWeights()), (scorer) => scorer.score(check.samples));
    state = { ...state, samples: state.samples + check.samples.count, goal: withBatch(state.goal, check) };
    const { logTarget } = check;
    const scored = { sampleSeconds: check.sampleSeconds, scoreSeconds: check.scoreSeconds + (context.clock() - start) / 1000 };
    if (logTarget === undefined || !hasMass(logTarget)) return { update: false, ...scored };
    const { update } = decideProposal(criterion, { logTarget, logProposal: check.samples.logProbs, logPolicy });
    return { update, ...scored };
  };

  /**
   * One step: draw, learn, and at times check whether the proposal should become the policy. All that can fail for what a user has written
   * (features, a reward) comes before the policy is updated, for from then on there is no way back.
   */
  const advance = async (): Promise<void> => {
    const step = state.step + 1;
    if (onPolicy) await closeSource();
    const batch = await draw("train", config.batch.samples, state.step, (part) => onStepPart(beforeTraining * part));
    const { proposal } = config;
    const isCheck = !onPolicy && proposal !== undefined && proposal.criterion !== "never" && step % proposal.updateEvery === 0;
    const drawnToCheck =
      isCheck && proposal.criterion !== "interval" ? await draw("proposal", proposal.samples, step) : undefined;
    const logZ = state.goal && partitionEstimate(state.goal.partition).logZ;
    const learningRate = learningRateAt(step, { ...config.optimizer, steps: config.steps });
    const trainStart = context.clock();
    if (isLarge(setup.model)) await closeSource();
    const { every, samples: diagnosed } = config.diagnostics;
    const diagnostics = every > 0 && step % every === 0 ? await tuner.diagnose(state.policy, batch, diagnosed) : undefined;
    const { state: policy, report } = await tuner.step(state.policy, batch, learningRate, (done) =>
      onStepPart(beforeTraining + ((1 - beforeTraining) * done) / (batch.samples.count * epochs)),
    );
    if (!report.finite) {
      const clamp = method.needs.target && config.method.name !== "reinforce-target" ? " or set method.clampLogWeight" : "";
      throw runtimeError({
        where: `step ${step} of ${config.method.name}`,
        expected: "a finite loss and gradient",
        got: `loss ${report.loss}, gradient norm ${report.gradNorm}`,
        fix: `lower optimizer.learningRate${clamp}; step ${state.step} is saved in ${options.out}`,
      });
    }
    state = {
      ...state,
      step,
      policy,
      latest: undefined,
      samples: state.samples + batch.samples.count,
      goal: withBatch(state.goal, batch),
    };
    if (averager !== undefined && config.average.kind !== "none" && step > config.average.from) {
      const { kind, decay } = config.average;
      const count = (state.average?.count ?? 0) + 1;
      const weights = tuner.policyWeights(policy);
      const sofar = state.average?.weights ?? weights;
      state = {
        ...state,
        average: { weights: await averager.include(sofar, weights, averageStep(kind, decay, count)), count },
      };
      if (sofar !== weights) disposeAll(sofar);
    }
    const trainSeconds = (context.clock() - trainStart) / 1000;
    const unchecked = { update: onPolicy || isCheck, sampleSeconds: 0, scoreSeconds: 0 };
    const check = drawnToCheck === undefined ? unchecked : await checkProposal(drawnToCheck);
    if (isCheck && check.update) await moveProposal();
    const metrics: StepMetrics = {
      kind: "step",
      step,
      samples: state.samples,
      seconds: seconds(),
      loss: report.loss,
      gradNorm: report.gradNorm,
      learningRate,
      moments: momentEstimates(batch.matrix),
      klProposalBase: meanEstimate(batch.samples.logProbs.map((value, i) => value - batch.logBase[i]!)),
      ...(logZ === undefined ? {} : { logZ }),
      ...batchDivergences(batch, report.logPolicy),
      ...(report.ess === undefined ? {} : { ess: report.ess }),
      advantageMean: report.advantageMean,
      advantageMeanAbs: report.advantageMeanAbs,
      advantageVariance: report.advantageVariance,
      clampedWeights: report.clampedWeights,
      clampedShare: report.clampedWeights / batch.samples.count,
      proposalUpdated: check.update,
      ...report.measures,
      ...(diagnostics === undefined ? {} : { diagnostics }),
      sampleSeconds: batch.sampleSeconds + check.sampleSeconds,
      scoreSeconds: batch.scoreSeconds + check.scoreSeconds,
      trainSeconds,
    };
    await directory.log(metrics);
    context.onEvent({ type: "step", metrics, targetMoments: state.goal?.fit.targetMoments ?? {} });
  };

  /** Texts of the base that evaluations look at; a resumed run draws them again when it first needs them. */
  let reference = begun?.reference;
  /** The policy, the average and the proposal, as far as the config asks and they differ. */
  const evaluateAll = async (): Promise<void> => {
    await closeSource();
    if (state.goal !== undefined) reference ??= await redrawReference(setup, state.goal.target, context);
    const evaluateOne = async (of: { weights: PlacedTensors; model: Evaluation["model"]; averaged?: true }) => {
      const { state: next, evaluation } = await evaluateModel(setup, state, reference, of, directory, context, seconds);
      state = next;
      return evaluation;
    };
    const policy = await evaluateOne({ weights: policyWeights(), model: "policy" });
    const { average } = state;
    const latest =
      average === undefined
        ? { policy }
        : {
            policy,
            average: await evaluateOne({ weights: average.weights, model: "policy", averaged: true }),
          };
    if (config.evaluate.proposal && !onPolicy) await evaluateOne({ weights: proposalWeights(), model: "proposal" });
    state = { ...state, latest };
  };

  /** A reward that fails, a step that is refused, an evaluation that cannot be: what was done before is saved. */
  const orSave = async (work: () => Promise<void>): Promise<void> => {
    const [sofar, logs] = [state, await directory.logSizes()];
    await work().catch(async (error: unknown) => {
      // Where saving fails too, it was the disk, and the error says so. An updated policy cannot be taken back.
      if (error instanceof TiltError && state.policy === sofar.policy) await checkpoint(sofar, logs).catch(() => {});
      throw error;
    });
  };

  const stopped = (): boolean => context.signal?.aborted === true;
  try {
    await inPhase(context, "tuning", config.steps, "steps", async (progress) => {
      progress(state.step);
      onStepPart = (part) => progress(state.step + Math.min(part, 0.999));
      while (state.step < config.steps && !stopped()) {
        await orSave(advance);
        if (state.step % config.evaluate.every === 0) await orSave(evaluateAll);
        if (state.step % config.checkpoint.every === 0 || state.step === config.steps || stopped())
          state = await checkpoint(state);
        progress(state.step);
      }
    });
    if (state.latest === undefined && !stopped()) await evaluateAll();
    const { before, latest, goal } = state;
    const summary: Summary = {
      before,
      after: latest?.policy ?? before,
      ...(latest?.average === undefined ? {} : { afterAverage: latest.average }),
      ...(goal === undefined ? {} : { target: goal.fit }),
      steps: state.step,
      seconds: seconds(),
      samples: state.samples,
    };
    if (!stopped()) {
      const average = state.average && (await hostWeights(state.average.weights));
      await directory.finish(summary, await hostWeights(policyWeights()), average);
    }
    return { summary, stopped: stopped(), out: options.out };
  } finally {
    await closeSource();
    await baseScorer.dispose();
    await averager?.dispose();
    await tuner.dispose();
    const { weights, adam } = state.policy;
    for (const held of [weights, adam.first, adam.second, state.proposal ?? {}, state.average?.weights ?? {}]) disposeAll(held);
  }
};

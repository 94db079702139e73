/**
 * The public API, layer by layer from the bottom. Nothing here touches a disk, a process or a native module, so it loads in a browser too;
 * what only Node has is in `tiltlm/node`. Anything that is not named here is internal and may change in any release.
 */

// --- base: errors, numbers, randomness, host tensors, the files port
export { type ErrorKind, TiltError } from "./base/errors.ts";
export type { FileInfo, Files } from "./base/files.ts";
export type { Estimate } from "./base/numeric.ts";
export { type Key, keyOf } from "./base/random.ts";
export { type DType, f32, type HostTensor, i32, type NamedTensors, scalar, tensor, zeros } from "./base/tensor.ts";

// --- engine: graphs, their gradients, and the devices that run them
export { gradients } from "./engine/autodiff.ts";
export { evaluate } from "./engine/evaluate.ts";
export { apply, defineOp, type Emitter, type Graph, type Op, type TypeOf, type Value } from "./engine/graph.ts";
export { onnxModel } from "./engine/onnx/model.ts";
export * as ops from "./engine/ops/index.ts";
export {
  adoptInTurns,
  type CompileOptions,
  copyAll,
  type Device,
  type DeviceName,
  type DeviceTensor,
  type PlacedTensors,
  type Program,
  readAll,
  uploadAll,
  uploadInTurns,
} from "./engine/runtime/device.ts";
export { referenceDevice } from "./engine/runtime/reference.ts";
export type { Axis, Shape } from "./engine/shape.ts";
// --- models: architectures, weights and tokenizers in Hugging Face's formats
export type { Parameters } from "./models/architecture.ts";
export { type CausalModel, createCausalModel, isLarge, type SequenceModel } from "./models/causal-model.ts";
export { hfConfigOf, type ModelConfig, parameterShapes, parseModelConfig } from "./models/config.ts";
export { loadModelDirectory, type ModelDirectory, type SaveOptions, saveModelDirectory } from "./models/directory.ts";
export { initialWeights } from "./models/initial.ts";
export { createTabularModel } from "./models/tabular.ts";
export { createTokenizer, type Tokenizer } from "./models/tokenizer.ts";
export { type TokenizerTraining, trainByteLevelBpe } from "./models/tokenizer-training.ts";
export { readSafetensors, type Safetensors, safetensorsParts, type WeightDType } from "./models/weights/safetensors.ts";
// --- optim
export { type AdamOptions, type AdamState, createOptimizer, type DeviceTensors, type Optimizer, zerosOn } from "./optim/adam.ts";
export { learningRateAt, type Schedule } from "./optim/schedule.ts";
// --- run: configs, and what the command line's verbs do
export {
  configHash,
  definePretrain,
  defineRun,
  type PretrainConfig,
  type PretrainInput,
  parsePretrainConfig,
  parseRunConfig,
  type RunConfig,
  type RunInput,
  rewardOf,
  targetSpecsOf,
} from "./run/config.ts";
export type { RunContext } from "./run/context.ts";
export { evaluateDirectory } from "./run/evaluate.ts";
export type { Listener, RunEvent } from "./run/events.ts";
export { fit } from "./run/fit.ts";
export { type SampledText, type SampleOptions, type ScoredText, sampleTexts, scoreFile } from "./run/generate.ts";
export type { Evaluation, StepMetrics, Summary } from "./run/metrics.ts";
export { type PretrainReport, pretrain } from "./run/pretrain.ts";
export {
  sampleTarget,
  type TargetSample,
  type TargetSampleOptions,
  type TargetSampleReport,
  type TargetText,
} from "./run/quasi-rejection.ts";
export { lanesFor } from "./run/setup.ts";
export { type TuneResult, tune } from "./run/tune.ts";
export { packageVersion } from "./run/versions.ts";
// --- sampling: drawing sequences, and the log-probability of given ones
export { createGenerator, type Generator, type GeneratorOptions, type Sampling, samplingOf } from "./sampling/generate.ts";
export {
  createScorer,
  forceRows,
  microBatches,
  type Scorer,
  type Scores as SequenceScores,
  type TeacherForcing,
  teacherForcing,
} from "./sampling/log-prob.ts";
export { type Samples, type Sequence, sequencesOf } from "./sampling/samples.ts";
// --- targets: features, energy-based models, their fit, and how far a policy is from them
export {
  entropy,
  importanceRatios,
  jsTargetPolicy,
  jsTargetProposal,
  klPolicyBase,
  klProposalMinusPolicy,
  klTargetPolicy,
  klTargetProposal,
  type PolicyScores,
  perplexity,
  type Ratios,
  type Scores,
  tvTargetPolicy,
  tvTargetProposal,
} from "./targets/divergence.ts";
export { type HardConstraint, hasMass, logTargetOf, logWeights, type Target, type TargetSpec } from "./targets/ebm.ts";
export {
  createFeature,
  type Feature,
  type FeatureMatrix,
  type FeatureSpec,
  featureMatrix,
  momentEstimates,
} from "./targets/feature.ts";
export { type FitOptions, type FitReport, type FittedTarget, fitProduct, fitTarget } from "./targets/fit.ts";
export {
  effectiveSampleSize,
  emptyPartition,
  logPartition,
  type PartitionEstimate,
  type PartitionState,
  partitionEstimate,
  updatePartition,
} from "./targets/partition.ts";
export {
  accepts,
  chooseLogBeta,
  logAcceptance,
  type QuasiRejectionReport,
  quasiRejectionReport,
} from "./targets/quasi-rejection.ts";
export { createReward, type Reward, type RewardSpec, rewardColumn, withReward } from "./targets/reward.ts";
export { distinct, selfBleus } from "./targets/text-metrics.ts";
// --- tuners: state and samples in, state and report out
export {
  type BatchBaseline,
  batchBaseline,
  explainedVariance,
  generalizedAdvantages,
  groupAdvantage,
  standardize,
} from "./tuners/advantage.ts";
export { clippedSurrogate, type GrpoOptions, grpoObjective, type PpoOptions, ppoObjective } from "./tuners/clipped.ts";
export { type GradientDiagnostics, gradientStatistics } from "./tuners/diagnostics.ts";
export { type DivergenceName, type FDivergence, fDivergences } from "./tuners/f-divergence.ts";
export { type KlControl, nextKlCoefficient } from "./tuners/kl-coefficient.ts";
export { likelihoodObjective } from "./tuners/likelihood.ts";
export {
  type Controls,
  type Method,
  type MethodName,
  type MethodSpec,
  methodOf,
  type SamplesFrom,
  type ScoredSamples,
} from "./tuners/method.ts";
export { type PolicyGradientOptions, type PseudoRewardName, policyGradientObjective } from "./tuners/policy-gradient.ts";
export { fitPrefixValue, logPrefixValues, type PrefixValue } from "./tuners/prefix-value.ts";
export { decideProposal, type ProposalCriterion, type ProposalDecision } from "./tuners/proposal.ts";
export { createTraining, type Objective, type SequenceValues, type Training } from "./tuners/training.ts";
export { createTuner, type StepReport, type Tuner, type TunerOptions, type TunerState } from "./tuners/tuner.ts";

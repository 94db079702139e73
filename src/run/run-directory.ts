/** A run's directory on disk: who may write to it, and in what form. The contract is in docs/run-directory.md. */

import { messageOf, runtimeError, usageError } from "../base/errors.ts";
import { type Files, joinPath, readText } from "../base/files.ts";
import type { NamedTensors } from "../base/tensor.ts";
import type { Device } from "../engine/runtime/device.ts";
import { saveModelDirectory } from "../models/directory.ts";
import type { Target } from "../targets/ebm.ts";
import { configDifferences, configHash, plainConfig, type RunConfig } from "./config.ts";
import type { RunContext } from "./context.ts";
import type { Evaluation, FitReport, StepMetrics, Summary } from "./metrics.ts";
import { modelCard } from "./model-card.ts";
import type { Setup } from "./setup.ts";
import { loadState, type RunState, saveState } from "./state.ts";
import { versions } from "./versions.ts";

export interface RunDirectory {
  /** The newest checkpoint's state, after cutting the logs back to it; undefined when there is none. */
  load(device: Device): Promise<RunState | undefined>;
  save(state: RunState): Promise<string>;
  /** Adds a line to metrics.jsonl, and lines of texts to samples.jsonl. */
  log(metrics: StepMetrics | Evaluation, sampleLines?: string): Promise<void>;
  logSizes(): Promise<RunState["logs"]>;
  writeTarget(report: FitReport, target: Target): Promise<void>;
  /** Writes the tuned model, the average beside it where there is one, and the summary. */
  finish(summary: Summary, weights: NamedTensors, average: NamedTensors | undefined): Promise<void>;
  /** Takes back a directory that this process made, of a run that could not begin; one that was to be resumed stays. */
  discard(): Promise<void>;
}

const sizeOrZero = async (files: Files, path: string): Promise<number> => (await files.info(path))?.size ?? 0;

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** Refuses a directory that exists, unless it is to be resumed with the config it was started with. */
const admit = async (files: Files, out: string, resume: boolean, config: RunConfig, hash: string): Promise<void> => {
  const exists = (await files.info(out)) !== undefined;
  if (!exists && resume)
    throw usageError({
      where: out,
      expected: "a run to resume",
      got: "nothing there",
      fix: "leave out --resume to start it, or check --out",
    });
  if (exists && !resume)
    throw usageError({
      where: out,
      expected: "a new directory",
      got: "one that exists",
      fix: "continue it with --resume, or choose another --out",
    });
  if (!exists) return;
  const where = joinPath(out, "run.json");
  if ((await files.info(where)) === undefined)
    throw usageError({
      where: out,
      expected: "a run directory (with run.json)",
      got: "something else",
      fix: "choose another --out",
    });
  let earlier: { readonly config?: unknown; readonly hash?: unknown };
  try {
    earlier = JSON.parse(await readText(files, where)) as { config?: unknown; hash?: unknown };
  } catch (error) {
    throw runtimeError(
      { where, expected: "JSON", got: messageOf(error), fix: "restore the file, or start a new run with another --out" },
      error,
    );
  }
  if (earlier.hash !== hash) {
    const changed = configDifferences(earlier.config, config);
    throw usageError({
      where: out,
      expected: "the config the run was started with",
      got: `other values of ${changed.length === 0 ? "some keys" : changed.join(", ")}`,
      fix: "resume without changes, or start a new run with another --out",
    });
  }
};

/** @throws TiltError (usage) for a directory that may not be used */
export const openRunDirectory = async (
  config: RunConfig,
  setup: Setup,
  { out, resume }: { readonly out: string; readonly resume: boolean },
  { files }: RunContext,
): Promise<RunDirectory> => {
  const hash = await configHash(config);
  await admit(files, out, resume, config, hash);
  const metricsPath = joinPath(out, "metrics.jsonl");
  const samplesPath = joinPath(out, "samples.jsonl");
  const checkpoints = joinPath(out, "checkpoints");
  const header = {
    config: plainConfig(config),
    hash,
    versions: versions(),
    device: setup.device.name,
    startedAt: new Date().toISOString(),
  };
  if (!resume) await files.write(joinPath(out, "run.json"), json(header));
  return {
    load: async (device) => {
      if (!resume) return undefined;
      const state = await loadState(files, checkpoints, hash, device);
      const kept = state?.logs ?? { metrics: 0, samples: 0 };
      for (const [path, size] of [
        [metricsPath, kept.metrics],
        [samplesPath, kept.samples],
      ] as const) {
        const found = await sizeOrZero(files, path);
        if (found < size)
          throw runtimeError({
            where: path,
            expected: `at least the ${size} bytes it had at step ${state?.step ?? 0}`,
            got: `${found}`,
            fix: "restore the file; a run is resumed with its logs",
          });
        if (found > size) await files.truncate(path, size);
      }
      return state;
    },
    save: (state) => saveState(files, checkpoints, state, hash, config.checkpoint.keep),
    log: async (metrics, sampleLines) => {
      if (sampleLines !== undefined) await files.append(samplesPath, sampleLines);
      await files.append(metricsPath, `${JSON.stringify(metrics)}\n`);
    },
    logSizes: async () => ({ metrics: await sizeOrZero(files, metricsPath), samples: await sizeOrZero(files, samplesPath) }),
    writeTarget: (report, target) => files.write(joinPath(out, "target.json"), json({ ...report, target })),
    finish: async (summary, weights, average) => {
      const saveModel = (name: string, tensors: NamedTensors, after: Evaluation) =>
        saveModelDirectory(
          files,
          joinPath(out, name),
          { config: setup.base.config, weights: tensors, extraFiles: setup.base.extraFiles },
          { dtype: "F32", card: modelCard(config, summary, after) },
        );
      await saveModel("model", weights, summary.after);
      if (average !== undefined) await saveModel("model-average", average, summary.afterAverage ?? summary.after);
      await files.write(joinPath(out, "summary.json"), json(summary));
    },
    discard: async () => {
      if (!resume) await files.remove(out);
    },
  };
};

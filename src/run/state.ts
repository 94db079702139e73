/** The whole state of a run between two steps, and how it lies in a checkpoint directory. Nothing that the next step depends on is anywhere else. */

import { runtimeError } from "../base/errors.ts";
import { type Files, joinPath, readText } from "../base/files.ts";
import type { NamedTensors } from "../base/tensor.ts";
import { adoptInTurns, type Device, readAll } from "../engine/runtime/device.ts";
import { readSafetensors, safetensorsParts } from "../models/weights/safetensors.ts";
import type { DeviceTensors } from "../optim/adam.ts";
import type { Target } from "../targets/ebm.ts";
import type { PartitionState } from "../targets/partition.ts";
import type { Controls } from "../tuners/method.ts";
import type { PrefixValue } from "../tuners/prefix-value.ts";
import type { TunerState } from "../tuners/tuner.ts";
import type { Evaluation, FitReport } from "./metrics.ts";

/** What a run with a target is after, and what it knows of it. */
export interface Goal {
  readonly target: Target;
  readonly fit: FitReport;
  readonly partition: PartitionState;
  /** What prefixes promise, where the method asks for it. */
  readonly prefixValue?: PrefixValue;
}

export interface RunState {
  /** Steps done. */
  readonly step: number;
  /** Sequences drawn so far, for every purpose. */
  readonly samples: number;
  /** Seconds spent so far, earlier parts of a resumed run included. */
  readonly seconds: number;
  readonly policy: TunerState;
  /** The average of the policy's weights, and how many sets of weights are in it; undefined until the first is. */
  readonly average: { readonly weights: DeviceTensors; readonly count: number } | undefined;
  /** Weights of q; undefined while it is the base. */
  readonly proposal: DeviceTensors | undefined;
  /** Undefined where the config has no target. */
  readonly goal: Goal | undefined;
  readonly before: Evaluation;
  /** The evaluations made after this very step, if there were any. */
  readonly latest: { readonly policy: Evaluation; readonly average?: Evaluation } | undefined;
  /** Bytes of the logs when the state was taken: what lies beyond belongs to a part that was lost. */
  readonly logs: { readonly metrics: number; readonly samples: number };
}

const version = 2;

type Plain = Omit<RunState, "policy" | "average" | "proposal"> & {
  readonly version: number;
  readonly hash: string;
  readonly adamStep: number;
  readonly controls: Controls;
  readonly averageCount: number;
  readonly hasProposal: boolean;
};

const directoryOf = (step: number): string => `step-${String(step).padStart(6, "0")}`;
const stepOf = (name: string): number | undefined => (/^step-\d{6,}$/.test(name) ? Number(name.slice(5)) : undefined);

export const hostWeights = async (tensors: DeviceTensors): Promise<NamedTensors> => (await readAll(tensors)) as NamedTensors;

/** Writes the state under `checkpoints/step-N`, whole or not at all, and removes all but the last `keep`. Returns the path. */
export const saveState = async (files: Files, root: string, state: RunState, hash: string, keep: number): Promise<string> => {
  const { policy, average, proposal, ...rest } = state;
  const path = joinPath(root, directoryOf(state.step));
  const temporary = `${path}.tmp`;
  await files.remove(temporary);
  const write = async (name: string, tensors: NamedTensors) => files.write(joinPath(temporary, name), safetensorsParts(tensors));
  try {
    await write("policy.safetensors", await hostWeights(policy.weights));
    await write("first.safetensors", await hostWeights(policy.adam.first));
    await write("second.safetensors", await hostWeights(policy.adam.second));
    if (proposal !== undefined) await write("proposal.safetensors", await hostWeights(proposal));
    if (average !== undefined) await write("average.safetensors", await hostWeights(average.weights));
    const plain: Plain = {
      version,
      hash,
      adamStep: policy.adam.step,
      controls: policy.controls,
      averageCount: average?.count ?? 0,
      hasProposal: proposal !== undefined,
      ...rest,
    };
    await files.write(joinPath(temporary, "state.json"), `${JSON.stringify(plain, null, 1)}\n`);
  } catch (error) {
    await files.remove(temporary);
    throw error;
  }
  await files.remove(path);
  await files.rename(temporary, path);
  const names = await files.list(root);
  const steps = names.map(stepOf).filter((step) => step !== undefined);
  for (const old of steps.sort((a, b) => b - a).slice(keep)) await files.remove(joinPath(root, directoryOf(old)));
  // What a killed process was writing.
  for (const name of names) if (/^step-\d{6,}\.tmp$/.test(name)) await files.remove(joinPath(root, name));
  return path;
};

/** The newest complete checkpoint under `root`, or undefined. @throws TiltError when it cannot be read or belongs to another config */
export const loadState = async (files: Files, root: string, hash: string, device: Device): Promise<RunState | undefined> => {
  if ((await files.info(root)) === undefined) return undefined;
  const steps = (await files.list(root)).map(stepOf).filter((step) => step !== undefined);
  if (steps.length === 0) return undefined;
  const path = joinPath(root, directoryOf(Math.max(...steps)));
  const where = joinPath(path, "state.json");
  let plain: Plain;
  try {
    plain = JSON.parse(await readText(files, where)) as Plain;
  } catch (error) {
    throw runtimeError(
      {
        where,
        expected: "the JSON of a checkpoint",
        got: "something else",
        fix: "remove this checkpoint to resume from the one before",
      },
      error,
    );
  }
  if (plain.version !== version)
    throw runtimeError({
      where,
      expected: `a checkpoint of version ${version}`,
      got: `version ${plain.version}`,
      fix: "resume with the release that wrote it",
    });
  if (plain.hash !== hash)
    throw runtimeError({
      where,
      expected: `the config ${hash.slice(0, 12)}`,
      got: `a state of ${String(plain.hash).slice(0, 12)}`,
      fix: "resume with the config it was started with, or choose another --out",
    });
  const read = async (name: string): Promise<NamedTensors> => (await readSafetensors(files, joinPath(path, name))).tensors;
  const upload = async (name: string): Promise<DeviceTensors> => adoptInTurns(device, await read(name));
  const { version: _v, hash: _h, adamStep, controls, averageCount, hasProposal, ...rest } = plain;
  return {
    ...rest,
    goal: rest.goal,
    latest: rest.latest,
    policy: {
      weights: await upload("policy.safetensors"),
      adam: { step: adamStep, first: await upload("first.safetensors"), second: await upload("second.safetensors") },
      controls,
    },
    average: averageCount === 0 ? undefined : { weights: await upload("average.safetensors"), count: averageCount },
    proposal: hasProposal ? await upload("proposal.safetensors") : undefined,
  };
};

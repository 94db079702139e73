/** Every figure: what it is, how it is read, what is wanted of it, and how it is taken from a process under test. */

import { availableParallelism } from "node:os";
import type { Ceiling } from "./ceiling.ts";
import { type Child, startSubject, withChild } from "./child.ts";
import { passFlops, type Sizes } from "./flops.ts";
import { type ShapeInfo, type ShapeName, shapes, textLength } from "./shapes.ts";

export type FigureName = "training" | "scoring" | "generation" | "rest" | "memory" | "step" | "quality";

export interface FigureInfo {
  readonly title: string;
  /** GB are 10^9 bytes. */
  readonly unit: "share of the matmul rate" | "share of the step" | "s of 512 × 40" | "GB of 512 × 40" | "s";
  /** Whether more is better. */
  readonly rises: boolean;
  readonly goal: Partial<Readonly<Record<ShapeName, number>>>;
}

export const figures: Readonly<Record<FigureName, FigureInfo>> = {
  quality: { title: "time to quality: the demo to 45% women", unit: "s", rises: false, goal: {} },
  training: {
    title: "training step: forward, backward, accumulation, Adam",
    unit: "share of the matmul rate",
    rises: true,
    goal: { S: 0.8, M: 0.75, T: 0.65 },
  },
  scoring: { title: "scoring, frozen weights", unit: "share of the matmul rate", rises: true, goal: { S: 0.88, M: 0.8, T: 0.7 } },
  generation: {
    title: "generation of 40 tokens",
    unit: "share of the matmul rate",
    rises: true,
    goal: { S: 0.75, M: 0.6, T: 0.45 },
  },
  rest: {
    title: "rest of a GDC++ step: features, weights, metrics, logging",
    unit: "share of the step",
    rises: false,
    goal: { S: 0.03, M: 0.05, T: 0.08 },
  },
  step: { title: "a whole GDC++ step", unit: "s of 512 × 40", rises: false, goal: {} },
  memory: { title: "peak resident memory of a GDC++ step", unit: "GB of 512 × 40", rises: false, goal: { S: 5, M: 1.5, T: 0.6 } },
};

/** Texts of the step that memory is measured with. */
export const stepCount = 512;

export type Pass = "training" | "scoring" | "generation";

/** A machine's best around a measurement, and the measurement. */
export interface Measured {
  /** FLOPs per second over those of the ceiling. */
  readonly share: number;
  readonly ms: number;
  readonly ceiling: Ceiling;
}

const requests: Readonly<Record<Pass, (info: ShapeInfo, count: number) => Readonly<Record<string, unknown>>>> = {
  training: ({ microBatch }, count) => ({ do: "train", count, microBatch }),
  scoring: ({ microBatch }, count) => ({ do: "score", count, microBatch }),
  generation: ({ batch }, count) => ({ do: "generate", count, batch }),
};

/** Sequences of one measurement. */
export const countOf = (pass: Pass, info: ShapeInfo, quick: boolean): number => {
  const count = info[pass];
  return quick && pass !== "generation" ? Math.min(count, 4 * info.microBatch) : count;
};

export const load = (child: Child, directory: string): Promise<unknown> =>
  child.ask({ do: "load", directory, threads: availableParallelism() });

/** A first time that does not count: sessions are made, memory is taken. */
export const warmUp = (child: Child, pass: Pass, info: ShapeInfo): Promise<unknown> =>
  child.ask(requests[pass](info, pass === "generation" ? info.generation : 8 * info.microBatch));

/** The ceiling, the figure, the ceiling again: the share is that of the mean of the two. */
export const measurePass = async (
  child: Child,
  pass: Pass,
  info: ShapeInfo,
  count: number,
  before: Ceiling,
): Promise<Measured> => {
  const { sizes } = await child.ask<{ sizes: Sizes }>({ do: "work" });
  const { ms } = await child.ask<{ ms: number }>(requests[pass](info, count));
  const after = await child.ask<Ceiling>({ do: "ceiling" });
  const best = (before.flopsPerSecond + after.flopsPerSecond) / 2;
  return { share: passFlops[pass](sizes, count, textLength) / (ms / 1000) / best, ms, ceiling: after };
};

export interface StepAnswer {
  readonly ms: number;
  readonly generateMs: number;
  readonly scoreMs: number;
  readonly trainMs: number;
}

/** One GDC++ step in a process that has done nothing else, and the most memory that it had. */
export const measureStep = (root: string, name: ShapeName, directory: string, count: number) =>
  withChild(startSubject(name, root), async (child) => {
    const { microBatch, batch } = shapes[name];
    await load(child, directory);
    const step = await child.ask<StepAnswer>({ do: "step", count, microBatch, batch });
    const { peakBytes } = await child.ask<{ peakBytes: number }>({ do: "memory" });
    return {
      seconds: step.ms / 1000,
      gigabytes: peakBytes / 1e9,
      rest: 1 - (step.generateMs + step.scoreMs + step.trainMs) / step.ms,
    };
  });

/** The rest of the steps of a real run. */
export const measureRest = (root: string, name: ShapeName, directory: string, run: NonNullable<ShapeInfo["run"]>) =>
  withChild(startSubject(name, root), async (child) => {
    await load(child, directory);
    const { rest } = await child.ask<{ rest: readonly number[] }>({ do: "run", microBatch: shapes[name].microBatch, ...run });
    return rest;
  });

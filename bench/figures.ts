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
  memory: { title: "peak resident memory of GDC++ steps", unit: "GB of 512 × 40", rises: false, goal: { S: 5, M: 1.5, T: 0.6 } },
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

/** FLOPs per second of the machine that the amounts of work were chosen on. */
export const usualRate = 4e11;

/** The same with fewer and shorter measurements on a slower machine, so that all of them keep to ten minutes. */
export const paced = (info: ShapeInfo, rate: number): ShapeInfo => {
  const pace = Math.min(1, rate / usualRate);
  const texts = (count: number): number =>
    Math.max(8 * info.microBatch, Math.round((count * pace) / info.microBatch) * info.microBatch);
  const n = Math.max(2, Math.round(info.n * pace));
  return {
    ...info,
    training: Math.min(info.training, texts(info.training)),
    scoring: Math.min(info.scoring, texts(info.scoring)),
    n: Math.min(info.n, n),
    ...(info.run === undefined || pace === 1
      ? {}
      : { run: { count: info.run.count, steps: Math.max(5, Math.round(info.run.steps * pace)) } }),
  };
};

/** Work done per second over what could be, by the mean of the rates before and after. */
const shareOf = (flops: number, ms: number, before: number, after: number): number =>
  flops / (ms / 1000) / ((before + after) / 2);

/** The ceiling, the figure, the ceiling again. */
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
  const flops = passFlops[pass](sizes, count, textLength);
  return { share: shareOf(flops, ms, before.flopsPerSecond, after.flopsPerSecond), ms, ceiling: after };
};

export interface StepAnswer {
  readonly ms: number;
  readonly generateMs: number;
  readonly scoreMs: number;
  readonly trainMs: number;
  /** FLOPs per second of the ceiling before the parts, between them and after them. */
  readonly ceilings: readonly [number, number, number, number];
}

/**
 * One GDC++ step in a process that has done nothing else; and the most memory that it had after another one, of one batch, which has
 * what a first step has not: the optimizer's moments from the start, and what the runtime keeps.
 */
export const measureStep = (root: string, name: ShapeName, directory: string, count: number) =>
  withChild(startSubject(name, root), async (child) => {
    const { microBatch, batch } = shapes[name];
    await load(child, directory);
    const step = await child.ask<StepAnswer>({ do: "step", count, microBatch, batch, ceilings: true });
    await child.ask({ do: "step", count: Math.min(count, batch), microBatch, batch });
    const { peakBytes } = await child.ask<{ peakBytes: number }>({ do: "memory" });
    const { sizes } = await child.ask<{ sizes: Sizes }>({ do: "work" });
    const share = (pass: Pass, ms: number, part: 0 | 1 | 2): number =>
      shareOf(passFlops[pass](sizes, count, textLength), ms, step.ceilings[part], step.ceilings[part + 1]!);
    return {
      seconds: step.ms / 1000,
      gigabytes: peakBytes / 1e9,
      rest: 1 - (step.generateMs + step.scoreMs + step.trainMs) / step.ms,
      shares: {
        generation: share("generation", step.generateMs, 0),
        scoring: share("scoring", step.scoreMs, 1),
        training: share("training", step.trainMs, 2),
      },
    };
  });

/** The rest of the steps of a real run. */
export const measureRest = (root: string, name: ShapeName, directory: string, run: NonNullable<ShapeInfo["run"]>) =>
  withChild(startSubject(name, root), async (child) => {
    await load(child, directory);
    const { rest } = await child.ask<{ rest: readonly number[] }>({ do: "run", microBatch: shapes[name].microBatch, ...run });
    return rest;
  });

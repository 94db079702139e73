/**
 * npm run bench: every figure of this revision, into history.jsonl and the table of README.md. At most ten minutes on two cores.
 *
 *   npm run bench -- [--only training,scoring] [--shape M,T] [--quick] [--against HEAD~1]
 *
 * With --against two revisions are timed by turns, and nothing but their ratio is said.
 */

import { parseArgs } from "node:util";
import { compareWith } from "./against.ts";
import type { Ceiling } from "./ceiling.ts";
import { startSubject, withChild } from "./child.ts";
import {
  countOf,
  type FigureName,
  figures,
  load,
  measurePass,
  measureRest,
  measureStep,
  type Pass,
  paced,
  stepCount,
  usualRate,
  warmUp,
} from "./figures.ts";
import { chosen } from "./flags.ts";
import { appendHistory, digits, figuresTable, machineLine, type Result, updateReadme } from "./history.ts";
import { describeMachine, describeRevision, loadWarning, root } from "./machine.ts";
import { createPlan } from "./progress.ts";
import { timeToQuality } from "./quality.ts";
import { type ShapeInfo, type ShapeName, shapes } from "./shapes.ts";
import { summarize } from "./statistics.ts";
import { withWorkspace } from "./workspace.ts";

const { values: flags } = parseArgs({
  options: {
    only: { type: "string" },
    shape: { type: "string" },
    quick: { type: "boolean", default: false },
    against: { type: "string" },
  },
});

const { quick } = flags;
const all = Object.keys(figures) as FigureName[];
/** What takes minutes for one number is not quick. */
const brief = all.filter((name) => !["quality", "step", "memory"].includes(name));
const only = chosen(all, flags.only ?? (quick ? brief : all).join(","), "--only");
const allShapes = Object.keys(shapes) as ShapeName[];
const names = chosen(allShapes, flags.shape ?? (quick ? "M,T" : allShapes.join(",")), "--shape");

/** Seconds that each job takes, roughly: two cores of an AMD EPYC. */
const expected: Readonly<Record<"write" | "step" | "rest" | Pass, Readonly<Record<ShapeName, number>>>> = {
  write: { S: 8, M: 3, T: 1 },
  training: { S: 55, M: 22, T: 15 },
  scoring: { S: 25, M: 18, T: 10 },
  generation: { S: 30, M: 12, T: 8 },
  rest: { S: 0, M: 45, T: 35 },
  step: { S: 100, M: 8, T: 6 },
};
const qualitySeconds = 60;

interface Job {
  readonly name: string;
  readonly seconds: number;
  readonly work: () => Promise<readonly Result[]>;
}

const ceilings: Ceiling[] = [];

const passes = ["training", "scoring", "generation"] as const satisfies readonly FigureName[];

const measurePasses =
  (shape: ShapeName, info: ShapeInfo, directory: () => Promise<string>, pass: Pass) => (): Promise<Result[]> =>
    withChild(startSubject(shape, root), async (child) => {
      await load(child, await directory());
      await warmUp(child, pass, info);
      let before = await child.ask<Ceiling>({ do: "ceiling" });
      ceilings.push(before);
      const shares: number[] = [];
      for (let i = 0; i < (quick ? 2 : info.n); i++) {
        const measured = await measurePass(child, pass, info, countOf(pass, info, quick), before);
        before = measured.ceiling;
        ceilings.push(before);
        shares.push(measured.share);
      }
      return [{ figure: pass, shape, ...summarize(shares) }];
    });

/** FLOPs per second of this machine, by a few looks. */
const ratePerSecond = (directory: string): Promise<number> =>
  withChild(startSubject("T", root), async (child) => {
    await load(child, directory);
    const looks: number[] = [];
    for (let i = 0; i < 5; i++) looks.push((await child.ask<Ceiling>({ do: "ceiling" })).flopsPerSecond);
    return summarize(looks).median;
  });

const jobsOf = (shape: ShapeName, rate: number, directory: () => Promise<string>): Job[] => {
  const info = paced(shapes[shape], rate);
  const { run } = info;
  const slowness = Math.max(1, usualRate / rate);
  const wantsStep = only.includes("step") || only.includes("memory") || (run === undefined && only.includes("rest"));
  const count = quick ? 64 : stepCount;
  // Where a step takes minutes its parts are long enough to be figures themselves, and there is no time for others.
  const fromStep = wantsStep && shape === "S" && slowness > 1.5;
  const step = async (): Promise<Result[]> => {
    const { seconds, gigabytes, rest, shares } = await measureStep(root, shape, await directory(), count);
    const found: Result[] = [
      ...(fromStep ? passes.map((pass) => ({ figure: pass, shape, ...summarize([shares[pass]]) }) as const) : []),
      { figure: "step", shape, ...summarize([seconds]) },
      { figure: "memory", shape, ...summarize([gigabytes]) },
      ...(run === undefined ? [{ figure: "rest", shape, ...summarize([rest]) } as const] : []),
    ];
    return found.filter(({ figure }) => only.includes(figure));
  };
  const rest = async (of: NonNullable<typeof run>): Promise<Result[]> => {
    const shares = await measureRest(root, shape, await directory(), quick ? { count: 2 * info.microBatch, steps: 5 } : of);
    return [{ figure: "rest", shape, ...summarize(shares) }];
  };
  const job = (name: string, seconds: number, work: Job["work"]): Job => ({ name: `${shape}: ${name}`, seconds, work });
  return [
    job("model directory", expected.write[shape], async () => directory().then(() => [])),
    ...passes
      .filter((pass) => only.includes(pass) && !fromStep)
      .map((pass) => job(pass, expected[pass][shape], measurePasses(shape, info, directory, pass))),
    ...(run !== undefined && only.includes("rest")
      ? [job("rest of a step", (expected.rest[shape] * slowness * run.steps) / shapes[shape].run!.steps, () => rest(run))]
      : []),
    ...(wantsStep ? [job(`a step of ${count} × 40`, expected.step[shape] * slowness, step)] : []),
  ];
};

const start = performance.now();
const [machine, revision] = [describeMachine(), describeRevision()];
const warning = loadWarning(machine);
if (warning !== undefined) process.stderr.write(`${warning}\n`);
const common = {
  date: new Date().toISOString(),
  ...revision,
  command: ["npm run bench --", ...process.argv.slice(2)].join(" ").replace(/ --$/, ""),
  machine,
  quick,
} as const;
const seconds = (): number => Math.round((performance.now() - start) / 1000);

await withWorkspace(async (workspace) => {
  if (flags.against !== undefined) {
    // Only what is asked for by name takes minutes.
    const wanted = flags.only === undefined ? passes : only;
    const { results, table } = await compareWith(flags.against, workspace, names, wanted, quick);
    await appendHistory({ ...common, kind: "against", against: flags.against, results, seconds: seconds() });
    console.log(`${table}\n\n${machineLine(machine)}.`);
    return;
  }
  const rate = await ratePerSecond(await workspace.shape("T"));
  const quality: Job = {
    name: "the demo",
    seconds: (qualitySeconds * usualRate) / Math.min(rate, usualRate),
    work: async () => [{ figure: "quality", ...summarize([(await timeToQuality(root)).seconds]) }],
  };
  const jobs = [
    ...(only.includes("quality") ? [quality] : []),
    ...(only.every((name) => name === "quality") ? [] : names.flatMap((name) => jobsOf(name, rate, () => workspace.shape(name)))),
  ];
  const plan = createPlan(
    "bench",
    jobs.reduce((total, job) => total + job.seconds * (quick ? 0.5 : 1), 0),
  );
  const results: Result[] = [];
  for (const { name, seconds: planned, work } of jobs) {
    try {
      results.push(...(await plan.during(name, planned * (quick ? 0.5 : 1), work)));
    } catch (error) {
      // The others are still worth having.
      plan.say(`${name} failed: ${error instanceof Error ? error.message : error}`);
      process.exitCode = 1;
    }
  }
  plan.finish();
  const ceiling =
    ceilings.length === 0
      ? {}
      : {
          ceiling: {
            product: summarize(ceilings.map(({ flopsPerSecond }) => flopsPerSecond / 1e9)),
            copy: summarize(ceilings.map(({ bytesPerSecond }) => bytesPerSecond / 1e9)),
          },
        };
  const entry = { ...common, kind: "bench", ...ceiling, results, seconds: seconds() } as const;
  await appendHistory(entry);
  await updateReadme();
  console.log(figuresTable([{ ...entry, quick: false }]));
  console.log(`\n${machineLine(machine)}; ${entry.seconds} s.`);
  if (entry.ceiling !== undefined)
    console.log(`Ceiling: ${digits(entry.ceiling.product.median)} GFLOP/s, ${digits(entry.ceiling.copy.median)} GB/s copied.`);
});

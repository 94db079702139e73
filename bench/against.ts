/** Two revisions by turns: the present one and another, each in a process of its own that answers the same requests. */

import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { Ceiling } from "./ceiling.ts";
import { type Child, startSubject, withChild } from "./child.ts";
import { countOf, type FigureName, figures, load, measurePass, measureStep, type Pass, warmUp } from "./figures.ts";
import { digits, type Result, tableOf } from "./history.ts";
import { git, root } from "./machine.ts";
import { createPlan } from "./progress.ts";
import { timeToQuality } from "./quality.ts";
import { type ShapeName, shapes } from "./shapes.ts";
import { spreadOf, summarize } from "./statistics.ts";
import type { Workspace } from "./workspace.ts";

/** A copy of a revision, built with the compiler and the packages of the present one. @throws Error where there is no such revision, or it does not compile */
export const checkOut = (revision: string, place: string): string => {
  const commit = git("rev-parse", "--verify", `${revision}^{commit}`);
  const directory = join(place, "against");
  mkdirSync(directory, { recursive: true });
  const archive = execFileSync("git", ["archive", commit], { cwd: root, maxBuffer: 2 ** 30 });
  execFileSync("tar", ["-x", "-C", directory], { input: archive });
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
  execFileSync(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-b", "tsconfig.build.json"], {
    cwd: directory,
  });
  return directory;
};

interface Turn {
  readonly present: number;
  readonly other: number;
}

/** What a figure is worth in each revision, by turns: ms. */
type Turns = readonly Turn[];

const passTurns =
  (present: Child, other: Child, shape: ShapeName, directory: string, quick: boolean) =>
  async (pass: Pass): Promise<Turns> => {
    const info = shapes[shape];
    const count = countOf(pass, info, quick);
    const sides = [present, other] as const;
    for (const child of sides) await load(child, directory);
    for (const child of sides) await warmUp(child, pass, info);
    const turns: Turn[] = [];
    for (let i = 0; i < (quick ? 2 : info.n); i++) {
      const each: number[] = [];
      for (const child of sides) {
        const before = await child.ask<Ceiling>({ do: "ceiling" });
        // Shares of the machine's best at that moment: what else goes on there falls out.
        each.push(1 / (await measurePass(child, pass, info, count, before)).share);
      }
      turns.push({ present: each[0]!, other: each[1]! });
    }
    return turns;
  };

/** Texts of a step: not 512, so that it may be repeated. */
const turnCount = 128;

export const compareWith = async (
  revision: string,
  workspace: Workspace,
  names: readonly ShapeName[],
  only: readonly FigureName[],
  quick: boolean,
): Promise<{ readonly results: readonly Result[]; readonly table: string }> => {
  const directory = checkOut(revision, workspace.place);
  const found: { readonly figure: FigureName; readonly shape?: ShapeName; readonly turns: Turns }[] = [];
  const passes = only.filter((name): name is Pass => ["training", "scoring", "generation"].includes(name));
  const steps = only.filter((name): name is "step" | "memory" => name === "step" || name === "memory");
  const jobs: { readonly name: string; readonly seconds: number; readonly work: () => Promise<void> }[] = names.flatMap(
    (shape) => [
      ...passes.map((pass) => ({
        name: `${shape}: ${pass}`,
        seconds: { S: 90, M: 30, T: 20 }[shape],
        work: () =>
          withChild(startSubject("present", root), (present) =>
            withChild(startSubject(revision, directory), async (other) => {
              const turns = await passTurns(present, other, shape, await workspace.shape(shape), quick)(pass);
              found.push({ figure: pass, shape, turns });
            }),
          ),
      })),
      ...(steps.length === 0
        ? []
        : [
            {
              name: `${shape}: a step of ${turnCount} × 40`,
              seconds: { S: 180, M: 25, T: 15 }[shape],
              work: async () => {
                const model = await workspace.shape(shape);
                const turns: { step: Turn; memory: Turn }[] = [];
                for (let i = 0; i < (quick ? 1 : 3); i++) {
                  const present = await measureStep(root, shape, model, turnCount);
                  const other = await measureStep(directory, shape, model, turnCount);
                  turns.push({
                    step: { present: present.seconds, other: other.seconds },
                    memory: { present: present.gigabytes, other: other.gigabytes },
                  });
                }
                for (const figure of steps) found.push({ figure, shape, turns: turns.map((turn) => turn[figure]) });
              },
            },
          ]),
    ],
  );
  if (only.includes("quality"))
    jobs.push({
      name: "the demo, twice",
      seconds: 200,
      work: async () => {
        const present = (await timeToQuality(root)).seconds;
        found.push({ figure: "quality", turns: [{ present, other: (await timeToQuality(directory)).seconds }] });
      },
    });
  const plan = createPlan(
    `against ${revision}`,
    jobs.reduce((total, { seconds }) => total + seconds, 0),
  );
  try {
    for (const { name, seconds, work } of jobs) await plan.during(name, seconds, work);
  } finally {
    plan.finish();
  }
  const results = found.map(({ figure, shape, turns }) => ({
    figure,
    ...(shape === undefined ? {} : { shape }),
    ...summarize(turns.map(({ present, other }) => other / present)),
  }));
  const rows = results.map((result) => [
    figures[result.figure].title,
    result.shape ?? "T",
    digits(result.median),
    digits(result.minimum),
    `${(100 * spreadOf(result)).toFixed(0)}%`,
    String(result.n),
  ]);
  const what = `${revision} / present (above 1: the present needs less)`;
  const table = tableOf(["figure", "shape", what, "minimum", "spread", "n"], rows);
  return { results, table: steps.length === 0 ? table : `${table}\n\nA step has ${turnCount} texts of 40 tokens.` };
};

/**
 * Every method on two tasks, one table: npm run compare:methods
 *
 * Two worker processes with one thread each share the runs. Finished runs under runs/compare-methods are kept and used again as long as their config
 * is the same, so an interrupted comparison goes on where it was. Writes results.json and results.md beside this file.
 */

import { fork } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { configHash, type Estimate, type Evaluation, parseRunConfig, type StepMetrics, type Summary, tune } from "tiltlm";
import { cpuDevice, nodeContext } from "tiltlm/node";
import { configOf, methods, type TaskName, tasks } from "./suite.ts";

interface Job {
  readonly task: TaskName;
  readonly method: string;
}

interface Result extends Job {
  readonly before: Evaluation;
  readonly after: Evaluation;
  readonly klTargetBase: Estimate;
  readonly samples: number;
  readonly seconds: number;
  /** Means over the diagnosed steps. */
  readonly gradientVariance: number;
  readonly gradientSignalToNoise: number;
}

const outOf = ({ task, method }: Job): string =>
  `runs/compare-methods/${task}-${method.replace(/[^a-z+-]+/g, "-").replace(/-$/, "")}`;

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

const run = async (job: Job): Promise<Result> => {
  const out = outOf(job);
  const config = parseRunConfig(configOf(job.task, job.method), job.method);
  const finished = existsSync(`${out}/summary.json`)
    ? (JSON.parse(await readFile(`${out}/run.json`, "utf8")) as { hash: string }).hash === (await configHash(config))
    : false;
  if (!finished) {
    await rm(out, { recursive: true, force: true });
    await tune(config, { out, resume: false }, nodeContext({ openDevice: () => cpuDevice({ threads: 1 }) }));
  }
  const summary = JSON.parse(await readFile(`${out}/summary.json`, "utf8")) as Summary;
  const lines = (await readFile(`${out}/metrics.jsonl`, "utf8")).trimEnd().split("\n");
  const diagnosed = lines.map((line) => JSON.parse(line) as StepMetrics).flatMap(({ diagnostics }) => diagnostics ?? []);
  return {
    ...job,
    before: summary.before,
    after: summary.after,
    klTargetBase: summary.target!.klTargetBase,
    samples: summary.samples,
    seconds: summary.seconds,
    gradientVariance: mean(diagnosed.map(({ gradientVariance }) => gradientVariance.value)),
    gradientSignalToNoise: mean(diagnosed.map(({ gradientSignalToNoise }) => gradientSignalToNoise.value)),
  };
};

/** Two digits that count. */
const digits = (value: number): string => {
  const size = Math.abs(value);
  return size >= 1000 || size < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
};
const shown = ({ value, stdError }: Estimate): string => {
  const places = stdError >= 1 ? 1 : stdError >= 0.01 ? 2 : 3;
  return `${value.toFixed(places)} ± ${stdError.toFixed(places)}`;
};

const tableOf = (task: TaskName, results: readonly Result[]): string => {
  const of = results.filter((result) => result.task === task);
  const feature = Object.keys(tasks[task].moments)[0]!;
  const row = (name: string, e: Evaluation, rest: readonly string[]): string =>
    `| ${[
      name,
      shown(e.moments[feature]!),
      e.klTargetPolicy === undefined ? "" : shown(e.klTargetPolicy),
      shown(e.klPolicyBase),
      shown(e.entropy),
      e.distinct1.value.toFixed(3),
      e.distinct2.value.toFixed(3),
      e.selfBleu5.value.toFixed(3),
      e.selfBleuCharacters5.value.toFixed(3),
      ...rest,
    ].join(" | ")} |`;
  const head = [
    "method",
    `E φ (${feature})`,
    "KL(p, π)",
    "KL(π, a)",
    "entropy",
    "distinct-1",
    "distinct-2",
    "self-BLEU-5",
    "the same, characters",
    "gradient variance",
    "signal to noise",
    "samples",
  ];
  return [
    `### ${tasks[task].title}`,
    "",
    `KL(p, a) = ${shown(of[0]!.klTargetBase)}: the least drift that meets the target.`,
    "",
    `| ${head.join(" | ")} |`,
    `| ${head.map((_, i) => (i === 0 ? "---" : "---:")).join(" | ")} |`,
    row("(base)", of[0]!.before, ["", "", ""]),
    ...of.map((result) =>
      row(result.method, result.after, [
        digits(result.gradientVariance),
        digits(result.gradientSignalToNoise),
        String(result.samples),
      ]),
    ),
  ].join("\n");
};

const jobs: Job[] = (Object.keys(tasks) as TaskName[]).flatMap((task) =>
  Object.keys(methods).map((method) => ({ task, method })),
);

/** Node 20 does not run TypeScript by itself. */
const loader = ["--import", "jiti/register"];

/** Runs the jobs on `count` processes, each taking the next when it is done. */
const shareOut = async (count: number): Promise<Result[]> => {
  const results: Result[] = [];
  const start = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < jobs.length; i = next++) {
      const job = jobs[i]!;
      results[i] = await new Promise<Result>((resolve, reject) => {
        const child = fork(fileURLToPath(import.meta.url), ["--worker", JSON.stringify(job)], { execArgv: loader });
        child.once("message", (message) => resolve(message as Result));
        child.once("exit", (code) => reject(new Error(`${job.task} ${job.method}: ended with exit code ${code}`)));
      });
      const done = results.filter(Boolean).length;
      const seconds = (performance.now() - start) / 1000;
      const left = (seconds / done) * (jobs.length - done);
      process.stderr.write(
        `${done}/${jobs.length} ${job.task} ${job.method}: ${results[i]!.seconds.toFixed(0)} s; about ${(left / 60).toFixed(1)} min left\n`,
      );
    }
  };
  await Promise.all(Array.from({ length: count }, worker));
  return results;
};

const place = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

if (process.argv[2] === "--worker") {
  process.send!(await run(JSON.parse(process.argv[3]!) as Job), () => process.exit(0));
} else {
  const processes = 2;
  const results = await shareOut(processes);
  const minutes = (results.reduce((total, { seconds }) => total + seconds, 0) / processes / 60).toFixed(1);
  const tables = (Object.keys(tasks) as TaskName[]).map((task) => tableOf(task, results)).join("\n\n");
  const machine = `${cpus().length} cores ${cpus()[0]?.model.trim()}, Node ${process.versions.node}; ${minutes} minutes, the runs shared by ${processes} processes`;
  await writeFile(place("results.json"), `${JSON.stringify({ machine, results }, null, 1)}\n`);
  await writeFile(place("results.md"), `<!-- written by npm run compare:methods -->\n\n${tables}\n\n${machine}.\n`);
  console.log(`${tables}\n\n${machine}.`);
}

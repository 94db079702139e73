/**
 * npm run bench:growth: how the cost of a GDC++ step grows with batch, length, vocabulary, width and depth, one at a time. Every point is measured in
 * a process of its own, so that its peak memory is its own. Writes growth.md: times, memory, and the exponents that fit neighbouring points.
 *
 *   npm run bench:growth -- [--axis batch,length]
 */

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  createCausalModel,
  createGenerator,
  createScorer,
  createTuner,
  initialWeights,
  keyOf,
  lanesFor,
  methodOf,
  parseModelConfig,
  type Tokenizer,
  uploadAll,
} from "tiltlm";
import { openDevice } from "tiltlm/node";
import { startChild, withChild } from "./child.ts";
import { chosen } from "./flags.ts";
import { digits, machineLine, tableOf } from "./history.ts";
import { describeMachine, loadWarning } from "./machine.ts";
import { createPlan } from "./progress.ts";

/** A model and a batch of its texts. */
interface Point {
  readonly batch: number;
  readonly length: number;
  readonly vocabulary: number;
  readonly width: number;
  readonly depth: number;
}
type Axis = keyof Point;

interface Cost {
  readonly generate: number;
  readonly score: number;
  readonly train: number;
  /** Bytes. */
  readonly memory: number;
}

/** What the other axes are while one changes. */
const centre: Point = { batch: 128, length: 40, vocabulary: 4096, width: 256, depth: 4 };

const axes: Readonly<Record<Axis, { readonly values: readonly number[]; readonly expected: string }>> = {
  batch: {
    values: [32, 128, 512, 2048],
    expected: "1: every sequence costs the same; below, what a step costs anyway (Adam, weights to the lanes)",
  },
  length: {
    values: [16, 64, 256, 512],
    expected: "1, and 2 for attention, which overtakes the rest at lengths of about 6 widths",
  },
  vocabulary: { values: [1024, 4096, 16384, 65536, 131072], expected: "1 of the head, 0 of the layers: from 0 to 1" },
  width: { values: [64, 128, 256, 512], expected: "2 of the layers, 1 of the head" },
  depth: { values: [1, 2, 4, 8], expected: "1 of the layers, 0 of the head" },
};

/** One step of the point, measured after one that does not count. Milliseconds. */
const measure = async (point: Point): Promise<Cost> => {
  const { batch, length, vocabulary, width, depth } = point;
  const config = parseModelConfig(
    {
      model_type: "gpt2",
      n_embd: width,
      n_layer: depth,
      n_head: width / 32,
      n_positions: Math.max(64, length),
      vocab_size: vocabulary,
    },
    "growth",
  );
  const model = createCausalModel(config);
  const weights = initialWeights(config, keyOf(1, "growth"));
  const device = openDevice("cpu", lanesFor(model));
  const tokenizer: Tokenizer = { vocabularySize: vocabulary, encode: () => [], decode: () => "", tokenOf: String, idOf: Number };
  const sampling = { kind: "full", temperature: 1 } as const;
  const generator = await createGenerator(device, model, weights, {
    sampling,
    prompt: [0],
    maxTokens: length,
    endIds: [],
    tokenizer,
  });
  const scorer = await createScorer(device, model, weights);
  const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
  // Long texts are taken fewer at once, so that a micro-batch has about as many tokens.
  const microBatch = Math.max(1, Math.min(16, Math.round(640 / length)));
  const tuner = await createTuner(device, model, methodOf({ name: "gdc++", baseline: "z" }), { adam, microBatch, inPlace: true });
  let state = tuner.start(uploadAll(device, weights));
  const step = async (count: number): Promise<Omit<Cost, "memory">> => {
    const times = [performance.now()];
    const samples = await generator.generate({ count, key: keyOf(2, "growth") });
    times.push(performance.now());
    const { logProbs } = await scorer.score(samples);
    times.push(performance.now());
    ({ state } = await tuner.step(state, { samples, logBase: logProbs, logTarget: logProbs, logZ: 0 }, 0));
    times.push(performance.now());
    const [generate, score, train] = times.slice(1).map((time, i) => time - times[i]!) as [number, number, number];
    return { generate, score, train };
  };
  await step(Math.min(batch, 32));
  const found = await step(batch);
  return { ...found, memory: process.resourceUsage().maxRSS * 1024 };
};

/** The exponent of y between two points that differ in x: log y2/y1 over log x2/x1. */
export const exponentOf = (x: readonly [number, number], y: readonly [number, number]): number =>
  Math.log(y[1] / y[0]) / Math.log(x[1] / x[0]);

const kinds = ["generate", "score", "train", "memory"] as const;

const tableFor = (axis: Axis, costs: readonly Cost[]): string => {
  const { values, expected } = axes[axis];
  const show = (kind: keyof Cost, cost: Cost): string =>
    kind === "memory" ? digits(cost.memory / 1e9) : digits(cost[kind] / 1000);
  const exponent = (kind: keyof Cost, i: number): string =>
    i === 0 ? "" : exponentOf([values[i - 1]!, values[i]!], [costs[i - 1]![kind], costs[i]![kind]]).toFixed(2);
  const rows = costs.map((cost, i) => [String(values[i]), ...kinds.flatMap((kind) => [show(kind, cost), exponent(kind, i)])]);
  const head = [axis, "generate, s", "^", "score, s", "^", "train, s", "^", "memory, GB", "^"];
  return `## ${axis}\n\nExpected exponent: ${expected}.\n\n${tableOf(head, rows)}\n`;
};

const main = async (wanted: readonly Axis[]): Promise<void> => {
  const points = wanted.flatMap((axis) => axes[axis].values.map((value) => ({ axis, point: { ...centre, [axis]: value } })));
  const plan = createPlan("bench:growth", points.length * 12);
  const machine = describeMachine();
  const warning = loadWarning(machine);
  if (warning !== undefined) plan.say(warning);
  const found = new Map<Axis, Cost[]>();
  for (const { axis, point } of points) {
    const child = startChild("growth", process.execPath, [
      "--import",
      "jiti/register",
      fileURLToPath(import.meta.url),
      "--point",
      JSON.stringify(point),
    ]);
    const cost = await plan.during(`${axis} ${point[axis]}`, 12, () => withChild(child, (held) => held.ask<Cost>({})));
    found.set(axis, [...(found.get(axis) ?? []), cost]);
  }
  plan.finish();
  const { batch, length, vocabulary, width, depth } = centre;
  const text = `# How the cost of a step grows

Written by \`npm run bench:growth\`. One axis at a time, the others at ${batch} texts of ${length} tokens, V ${vocabulary}, D ${width}, L ${depth}. Columns
\`^\` are the exponents between a point and the one before it: how many times the cost doubles where the axis does. Each point is one step in a process of
its own, after one of 32 texts that does not count; memory is the most that was resident.

${[...found].map(([axis, costs]) => tableFor(axis, costs)).join("\n")}
${machineLine(machine)}
`;
  await writeFile(fileURLToPath(new URL("growth.md", import.meta.url)), text);
  console.log(text);
};

const { values: flags } = parseArgs({ options: { axis: { type: "string" }, point: { type: "string" } } });
if (flags.point !== undefined) {
  const point = JSON.parse(flags.point) as Point;
  process.stdin.once("data", () => {
    measure(point).then(
      (cost) => {
        console.log(JSON.stringify(cost));
        process.exit(0);
      },
      (error: unknown) => {
        console.log(JSON.stringify({ error: String(error) }));
        process.exit(1);
      },
    );
  });
} else {
  const all = Object.keys(axes) as Axis[];
  await main(flags.axis === undefined ? all : chosen(all, flags.axis, "--axis"));
}

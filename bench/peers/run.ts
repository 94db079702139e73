/**
 * npm run bench:peers: the same work here and in Python, by turns. Both sides stay as processes that answer the requests of subject.ts, read the same model
 * directory, and have to agree on log-probabilities and loss before they are timed. Writes results.md, and a line of ../history.jsonl.
 *
 *   npm run bench:peers -- [--peer torch,torch-plain,torch-compile,disco,trl] [--shape M,T] [--quick] [--python VENV]
 */

import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { type Child, startChild, startSubject, withChild } from "../child.ts";
import { load } from "../figures.ts";
import { chosen } from "../flags.ts";
import { appendHistory, digits, type Entry, machineLine, type PeerResult, readHistory, tableOf } from "../history.ts";
import { describeMachine, describeRevision, loadWarning, root } from "../machine.ts";
import { createPlan } from "../progress.ts";
import { type ShapeName, shapes, textLength } from "../shapes.ts";
import { type Summary, spreadOf, summarize } from "../statistics.ts";
import { withWorkspace } from "../workspace.ts";
import { type Check, disagreement } from "./agreement.ts";
import { peerFile, pythonFor } from "./python.ts";

type Work = "step" | "grpo" | "train" | "score" | "generate";
/** Memory was that of one step once; such rows are still in the history. */
type What = Work | "memory" | "memoryOfTwo";

const titles: Readonly<Record<What, string>> = {
  step: "a whole GDC++ step",
  grpo: "a whole GRPO step",
  train: "training alone",
  score: "scoring alone",
  generate: "generation alone",
  memory: "peak memory of a first step",
  memoryOfTwo: "peak memory of two steps",
};

interface Peer {
  readonly title: string;
  readonly script: string;
  readonly args: readonly string[];
  readonly requirements: string;
  readonly works: readonly Work[];
  /** How many times as fast we want to be; of memory, how much of the peer's we may take. */
  readonly goals: Partial<Readonly<Record<What, number>>>;
}

const torchWorks = ["step", "train", "score", "generate", "grpo"] as const;
const torchGoals = { step: 2, train: 1.4, memory: 1, memoryOfTwo: 1 } as const;
const peers = {
  torch: {
    title: "PyTorch, eager, products by the faster library",
    script: "torch_peer.py",
    args: [],
    requirements: "requirements-torch.txt",
    works: torchWorks,
    goals: torchGoals,
  },
  "torch-plain": {
    title: "PyTorch, eager, its own products",
    script: "torch_peer.py",
    args: ["--linear", "mkl"],
    requirements: "requirements-torch.txt",
    works: torchWorks,
    goals: torchGoals,
  },
  "torch-compile": {
    title: "PyTorch, torch.compile",
    script: "torch_peer.py",
    args: ["--compile"],
    requirements: "requirements-torch.txt",
    works: torchWorks,
    goals: torchGoals,
  },
  disco: {
    title: "disco",
    script: "disco_peer.py",
    args: [],
    requirements: "requirements-disco.txt",
    works: ["step"],
    goals: { step: 5 },
  },
  trl: { title: "TRL", script: "trl_peer.py", args: [], requirements: "requirements-trl.txt", works: ["grpo"], goals: {} },
} as const satisfies Readonly<Record<string, Peer>>;
type PeerName = keyof typeof peers;

/** Texts of a step, and of what is timed alone: short enough to be repeated. */
const counts: Readonly<Record<ShapeName, { readonly step: number; readonly alone: number; readonly n: number }>> = {
  S: { step: 64, alone: 32, n: 3 },
  M: { step: 512, alone: 512, n: 5 },
  T: { step: 512, alone: 512, n: 7 },
};

const { values: flags } = parseArgs({
  options: {
    peer: { type: "string" },
    shape: { type: "string", default: "M,T" },
    quick: { type: "boolean", default: false },
    python: { type: "string" },
  },
});
const { quick } = flags;
const allPeers = Object.keys(peers) as PeerName[];
const peerNames = chosen(allPeers, flags.peer ?? allPeers.join(","), "--peer");
const shapeNames = chosen(Object.keys(shapes) as ShapeName[], flags.shape, "--shape");

/** Eight texts of no meaning, and advantages of both signs, at most 1. */
const checkRequest = (vocabulary: number, startId: number): Readonly<Record<string, unknown>> => ({
  do: "check",
  rows: Array.from({ length: 8 }, (_, b) => [
    startId,
    ...Array.from({ length: textLength }, (_, t) => ((b * textLength + t) * 7919 + 1) % vocabulary),
  ]),
  advantages: Array.from({ length: 8 }, (_, b) => (b - 3.5) / 4),
});

/** T's texts start with token 0, those of S and M with the last one. */
const check = async (ours: Child, theirs: Child, shape: ShapeName): Promise<string | undefined> => {
  const { sizes } = await ours.ask<{ sizes: { vocabularySize: number } }>({ do: "work" });
  const request = checkRequest(sizes.vocabularySize, shape === "T" ? 0 : sizes.vocabularySize - 1);
  return disagreement(await ours.ask<Check>(request), await theirs.ask<Check>(request));
};

/** Texts computed at once are each side's own choice: a peer takes what it found to be fastest. */
const ourChoice = (shape: ShapeName) => ({ microBatch: shapes[shape].microBatch, batch: shapes[shape].batch });

const repeated = quick ? 2 : undefined;

/** Times by turns: ours, theirs, ours, theirs. The first turn does not count. */
const timeByTurns = async (ours: Child, theirs: Child, what: Work, shape: ShapeName) => {
  const { step, alone, n } = counts[shape];
  const whole = what === "step" || what === "grpo" ? step : alone;
  const count = quick ? Math.min(whole, 64) : whole;
  const [mine, other]: [number[], number[]] = [[], []];
  for (let i = -1; i < (repeated ?? n); i++) {
    const turn = [
      (await ours.ask<{ ms: number }>({ do: what, count, ...ourChoice(shape) })).ms,
      (await theirs.ask<{ ms: number }>({ do: what, count })).ms,
    ] as const;
    if (i < 0) continue;
    mine.push(turn[0]);
    other.push(turn[1]);
  }
  const ratio = summarize(mine.map((ms, i) => other[i]! / ms));
  return { ratio, ours: summarize(mine), theirs: summarize(other), unit: "ms" } as const;
};

/** The most memory of two steps in a process that did nothing before: the second has what the first leaves behind. */
const peakOf = (child: Child, directory: string, request: Readonly<Record<string, unknown>>): Promise<number> =>
  withChild(child, async () => {
    await load(child, directory);
    for (let step = 0; step < 2; step++) await child.ask(request);
    return (await child.ask<{ peakBytes: number }>({ do: "memory" })).peakBytes / 1e9;
  });

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").slice(0, 500);

/** Everything about one peer and shape; what cannot be had is told with its reason. */
const comparePeer = async (name: PeerName, shape: ShapeName, directory: string): Promise<PeerResult[]> => {
  const peer: Peer = peers[name];
  const results: PeerResult[] = [];
  const failed = (what: string, error: unknown): void =>
    void results.push({ peer: name, shape, what, failure: messageOf(error) });
  let python: string;
  try {
    python = await pythonFor(peer.requirements, flags.python);
  } catch (error) {
    failed("start", error);
    return results;
  }
  const start = (): Child => startChild(peer.title, python, [peerFile(peer.script), ...peer.args], { PYTHONUNBUFFERED: "1" });
  try {
    await withChild(startSubject("tiltlm", root), (ours) =>
      withChild(start(), async (theirs) => {
        await load(ours, directory);
        await load(theirs, directory);
        const different = await check(ours, theirs, shape);
        if (different !== undefined) throw new Error(`not timed, because it computes something else: ${different}`);
        for (const what of peer.works) {
          try {
            results.push({ peer: name, shape, what, ...(await timeByTurns(ours, theirs, what, shape)) });
          } catch (error) {
            failed(what, error);
          }
        }
      }),
    );
    const request = { do: peer.works[0]!, count: quick ? 64 : counts[shape].step };
    const mine = await peakOf(startSubject("tiltlm", root), directory, { ...request, ...ourChoice(shape) });
    const other = await peakOf(start(), directory, request);
    const one = (value: number): Summary => summarize([value]);
    results.push({
      peer: name,
      shape,
      what: "memoryOfTwo",
      ratio: one(mine / other),
      ours: one(mine),
      theirs: one(other),
      unit: "GB",
    });
  } catch (error) {
    failed("start", error);
  }
  return results;
};

const goalOf = ({ peer, what, ratio }: PeerResult): string => {
  const goal = (peers[peer as PeerName] as Peer).goals[what as What];
  if (goal === undefined || ratio === undefined) return "";
  return what.startsWith("memory")
    ? `≤ ${goal} ${ratio.median <= goal ? "✓" : "✗"}`
    : `≥ ${goal} ${ratio.median >= goal ? "✓" : "✗"}`;
};

const rowOf = (result: PeerResult): string[] => {
  const { peer, shape, what, ratio, ours, theirs, unit, failure } = result;
  const title = (peers[peer as PeerName] as Peer).title;
  const named = titles[what as What] ?? "everything";
  if (ratio === undefined || ours === undefined || theirs === undefined)
    return [title, shape, named, "", "", "", "", "", failure ?? ""];
  return [
    title,
    shape,
    named,
    `${digits(ours.median)} ${unit}`,
    `${digits(theirs.median)} ${unit}`,
    digits(ratio.median),
    goalOf(result),
    `${(100 * spreadOf(ratio)).toFixed(0)}%, ${ratio.n}`,
    "",
  ];
};

const begun = performance.now();
const [machine, revision] = [describeMachine(), describeRevision()];
const warning = loadWarning(machine);
if (warning !== undefined) process.stderr.write(`${warning}\n`);
const results: PeerResult[] = [];
await withWorkspace(async (workspace) => {
  const seconds: Readonly<Record<ShapeName, number>> = quick ? { S: 200, M: 40, T: 20 } : { S: 600, M: 180, T: 120 };
  const jobs = shapeNames.flatMap((shape) => peerNames.map((peer) => ({ shape, peer })));
  const plan = createPlan(
    "bench:peers",
    jobs.reduce((total, { shape }) => total + seconds[shape], 0),
  );
  try {
    for (const { shape, peer } of jobs)
      results.push(
        ...(await plan.during(`${shape}: ${peers[peer].title}`, seconds[shape], async () =>
          comparePeer(peer, shape, await workspace.shape(shape)),
        )),
      );
  } finally {
    plan.finish();
  }
});
const head = [
  "peer",
  "shape",
  "work",
  "ours",
  "theirs",
  "times as fast, or our part of the memory",
  "goal",
  "spread, n",
  "not timed because",
];
const given = process.argv.slice(2).filter((word, i, words) => !word.startsWith("--python") && words[i - 1] !== "--python");
const command = ["npm run bench:peers --", ...given].join(" ").replace(/ --$/, "");
await appendHistory({
  date: new Date().toISOString(),
  ...revision,
  kind: "peers",
  command,
  machine,
  quick,
  peers: results,
  seconds: Math.round((performance.now() - begun) / 1000),
});
console.log(tableOf(head, results.map(rowOf)));

/** The newest of each, from every run that was not quick. */
const newest = new Map<string, { readonly result: PeerResult; readonly entry: Entry }>();
for (const entry of await readHistory())
  if (!entry.quick)
    for (const result of entry.peers ?? [])
      newest.set(`${entry.machine.cpu} ${result.shape} ${result.peer} ${result.what}`, { result, entry });
const orderOf = ({ result, entry }: { readonly result: PeerResult; readonly entry: Entry }): string =>
  `${result.shape} ${entry.machine.cpu}`;
const rows = [...newest.values()].sort((a, b) => orderOf(a).localeCompare(orderOf(b)));
const entries = [...new Set(rows.map(({ entry }) => entry))];
const about = entries.map(
  (entry) =>
    `- \`${entry.command}\`, ${entry.date.slice(0, 10)}, revision ${entry.commit}${entry.dirty ? "+" : ""}; ${machineLine(entry.machine)}`,
);
const sizes = (Object.keys(counts) as ShapeName[])
  .map((shape) => `${shape} ${counts[shape].step} texts a step, ${counts[shape].alone} alone`)
  .join("; ");
await writeFile(
  peerFile("results.md"),
  `<!-- written by npm run bench:peers -->

# Peers, by turns

${tableOf(
  ["processor", ...head],
  rows.map(({ result, entry }) => [entry.machine.cpu, ...rowOf(result)]),
)}

Medians of turns, float32, a thread per core on each side, texts of ${textLength} tokens: ${sizes}.

${about.join("\n")}
`,
);

/**
 * The library as a process under test: a JSON object a line comes in, one goes out. Peers in Python (peers/*.py) answer the same requests, so that
 * both can be kept running and timed by turns. The library is that of --root, as built: this revision or another one.
 *
 *   node --import jiti/register bench/subject.ts [--root DIR]
 *
 * | request | answer |
 * | --- | --- |
 * | `{"do":"load","directory":D,"threads":2}` | `{"parameters":N}`; threads: one per core |
 * | `{"do":"check","rows":[[ids]],"advantages":[A]}` | `{"logProbs":[log p(x)],"loss":x}`, nats; a row is the start token, then x; loss = -(1/n) sum A log p(x) |
 * | `{"do":"train","count":n,"microBatch":m}` | `{"ms":t}`: forward, backward, accumulation, Adam on n fixed texts of 40 tokens |
 * | `{"do":"score","count":n,"microBatch":m}` | `{"ms":t}`: log a(x) of as many, frozen weights |
 * | `{"do":"generate","count":n,"batch":b}` | `{"ms":t}`: n texts of 40 tokens after the start token, none ends early |
 * | `{"do":"step","count":n}` | `{"ms":t}`: a whole GDC++ step: draw from q with log q, decode, a regex feature, score under a, weights, training |
 * | `{"do":"grpo","count":n}` | `{"ms":t}`: a whole GRPO step, drawn from the policy as it is |
 * | `{"do":"memory"}` | `{"peakBytes":n}`: the most that was resident since the process began |
 *
 * `step` and `grpo` may be given `microBatch` and `batch` too, else each program chooses; here `step` also tells its parts, and with `"ceilings":true`
 * the rate of products before, between and after them, which does not count as time of the step. Only here:
 *
 * | `{"do":"ceiling"}` | `{"flopsPerSecond":x,"bytesPerSecond":x}` |
 * | `{"do":"work"}` | `{"sizes":{...}}`: what flops.ts counts with |
 * | `{"do":"run","count":n,"steps":k}` | `{"rest":[share]}`: of the steps of a real `tune` what is neither drawing nor scoring nor training |
 *
 * What fails is answered with `{"error":"..."}`. Lines that are not JSON objects may be on stdout in between, and mean nothing.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type * as Library from "../src/index.ts";
import type * as LibraryOnNode from "../src/node.ts";
import { type Ceiling, type CeilingProbe, openCeiling } from "./ceiling.ts";
import { type ShapeInfo, textLength } from "./shapes.ts";

const { values: flags } = parseArgs({
  options: { root: { type: "string", default: fileURLToPath(new URL("..", import.meta.url)) } },
});
const built = (name: string): Promise<unknown> => import(pathToFileURL(join(flags.root, "dist", name)).href);
const library = (await built("index.js")) as typeof Library;
const { cpuDevice, nodeContext, nodeFiles, openDevice } = (await built("node.js")) as typeof LibraryOnNode;

type Sizes = Partial<Pick<ShapeInfo, "microBatch" | "batch">>;
interface Amount extends Sizes {
  readonly count: number;
}

/** Made once per name, then kept. */
const keeper = <T>() => {
  const kept = new Map<string, Promise<T>>();
  return (name: string | number, make: () => Promise<T>): Promise<T> => {
    const key = String(name);
    const found = kept.get(key) ?? make();
    kept.set(key, found);
    return found;
  };
};

const timed = async <T>(work: () => Promise<T>): Promise<{ readonly result: T; readonly ms: number }> => {
  const start = performance.now();
  const result = await work();
  return { result, ms: performance.now() - start };
};

/** What a run is tuned to: three vowels in a row. About half of the texts of a random model, and a good part of the biographies, have them. */
const vowels = /[aeiou]{3}/i;
const adam = { name: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;
const learningRate = 1e-5;
const gdc = { name: "gdc++", baseline: "z" } as const;
const grpo = {
  name: "grpo",
  clip: 0.2,
  scaleByDeviation: true,
  lengthScale: "sequence",
  klCoefficient: 0.04,
  klControl: "fixed",
  klTarget: 6,
  klHorizon: 10_000,
} as const;

/** Rows of the same start token and their labels as samples of a q under which each of them is as probable as is said. */
const samplesOf = (rows: readonly (readonly number[])[], logProbs: Float64Array): Library.Samples => {
  const maxTokens = Math.max(...rows.map((row) => row.length - 1));
  const ids = new Int32Array(rows.length * maxTokens);
  for (const [b, row] of rows.entries()) ids.set(row.slice(1), b * maxTokens);
  return {
    count: rows.length,
    maxTokens,
    prompt: [rows[0]![0]!],
    ids,
    lengths: Int32Array.from(rows, (row) => row.length - 1),
    ended: new Uint8Array(rows.length),
    tokenLogProbs: new Float32Array(rows.length * maxTokens),
    logProbs,
    texts: rows.map(() => ""),
  };
};

const tensorsOf = ({ weights, adam: { first, second } }: Library.TunerState): Library.DeviceTensor[] =>
  [weights, first, second].flatMap((record) => Object.values(record));

const open = async (directory: string, threads: number) => {
  if (threads !== availableParallelism())
    throw new Error(
      `expected as many threads as there are cores, ${availableParallelism()}, which is what the device takes; got ${threads}`,
    );
  const { weights, ...base } = await library.loadModelDirectory(nodeFiles, directory);
  const parameters = Object.values(weights).reduce((total, { data }) => total + data.length, 0);
  const model = library.createCausalModel(base.config);
  // As a run opens it; a revision of before there were lanes has no say in it.
  const device = openDevice("cpu", library.lanesFor?.(model) ?? {});
  // As a run holds them, on the device and nowhere else; before there was a way to, on the host.
  const { adoptInTurns } = library as Partial<typeof Library>;
  const held = adoptInTurns === undefined ? undefined : await adoptInTurns(device, weights);
  const baseWeights = (held ?? weights) as typeof weights;
  const { tokenizer, startId } = base;
  const V = base.config.vocabularySize;
  const probes = keeper<CeilingProbe>();
  const probe = () => probes("", () => openCeiling(library, cpuDevice({ threads })));
  const scorers = keeper<Library.Scorer>();
  const generators = keeper<Library.Generator>();
  const tuners = keeper<{ readonly tuner: Library.Tuner; state: Library.TunerState }>();
  // Those of peers/peerlib.py.
  const feature = library.createFeature("amazing", { kind: "regex", pattern: "\\bamazing\\b" });
  const target: Library.Target = { names: ["amazing"], hard: [], coefficients: [1], logZ: 0 };
  let partition = library.updatePartition(library.emptyPartition(), Float64Array.of(0));

  const openTuner = async (spec: Library.MethodSpec, microBatch: number) => {
    const tuner = await library.createTuner(device, model, library.methodOf(spec), { adam, microBatch, inPlace: true });
    return {
      tuner,
      state: tuner.start(held === undefined ? library.uploadAll(device, weights) : await library.copyAll(device, held)),
    };
  };
  const tunerOf = (spec: Library.MethodSpec, microBatch: number) =>
    tuners(`${spec.name} ${microBatch}`, () => openTuner(spec, microBatch));
  const scorerOf = (microBatch: number) =>
    scorers(microBatch, () => library.createScorer(device, model, baseWeights, microBatch));
  const openGenerator = (of: Library.PlacedTensors, batch: number): Promise<Library.Generator> =>
    library.createGenerator(device, model, of, {
      sampling: { kind: "full", temperature: 1 },
      prompt: [startId],
      maxTokens: textLength,
      endIds: [],
      tokenizer,
      batch,
    });
  const generatorOf = (batch: number) => generators(batch, () => openGenerator(baseWeights, batch));
  const key = library.keyOf(12, "bench");

  /** Texts of no meaning, as probable under q as any. */
  const fixed = (count: number): Library.Samples => {
    const row = (b: number) => [startId, ...Array.from({ length: textLength }, (_, t) => ((b * textLength + t) * 7919 + 1) % V)];
    return samplesOf(
      Array.from({ length: count }, (_, b) => row(b)),
      new Float64Array(count).fill(-textLength * Math.log(V)),
    );
  };
  const learn = async (
    held: { readonly tuner: Library.Tuner; state: Library.TunerState },
    batch: Library.ScoredSamples,
  ): Promise<Library.StepReport> => {
    const { state, report } = await held.tuner.step(held.state, batch, learningRate);
    if (!report.finite) throw new Error(`expected a finite step, got loss ${report.loss}`);
    // A revision that did not work in place leaves it to the caller to give back what went in.
    const still = new Set(tensorsOf(state));
    for (const tensor of tensorsOf(held.state)) if (!still.has(tensor)) tensor.dispose();
    held.state = state;
    return report;
  };
  const measure = (samples: Library.Samples) => library.featureMatrix([feature], library.sequencesOf(samples));

  return {
    parameters,
    sizes: base.config,

    ceiling: async (): Promise<Ceiling> => {
      const { flopsPerSecond, bytesPerSecond } = await probe();
      return { bytesPerSecond: bytesPerSecond(), flopsPerSecond: await flopsPerSecond() };
    },

    /** The first pass tells log pi(x) as training sees it; with that as log q(x), pi/q is 1 and REINFORCE's loss the one that is asked for. */
    check: async (rows: readonly (readonly number[])[], advantages: readonly number[]) => {
      const held = await openTuner({ name: "reinforce", baseline: "none" }, 16);
      const reward = Float64Array.from(advantages);
      const pass = async (logProbs: Float64Array) => {
        const step = await held.tuner.step(held.state, { samples: samplesOf(rows, logProbs), logBase: logProbs, reward }, 0);
        held.state = step.state;
        return step;
      };
      const scored = await (await scorerOf(16)).score(samplesOf(rows, new Float64Array(rows.length)));
      const { logPolicy } = (await pass(scored.logProbs)).report;
      const { loss } = (await pass(logPolicy)).report;
      await held.tuner.dispose();
      return { logProbs: [...scored.logProbs], loss };
    },

    train: async ({ count, microBatch = 16 }: Amount) => {
      const held = await tunerOf(gdc, microBatch);
      const samples = fixed(count);
      const batch = { samples, logBase: samples.logProbs, logTarget: samples.logProbs, logZ: 0 };
      return (await timed(() => learn(held, batch))).ms;
    },
    score: async ({ count, microBatch = 16 }: Amount) => {
      const scorer = await scorerOf(microBatch);
      const samples = fixed(count);
      return (await timed(() => scorer.score(samples))).ms;
    },
    generate: async ({ count, batch = 256 }: Amount) => {
      const generator = await generatorOf(batch);
      return (await timed(() => generator.generate({ count, key }))).ms;
    },

    step: async ({ count, microBatch = 16, batch = 256, ceilings: wanted = false }: Amount & { readonly ceilings?: boolean }) => {
      const held = await tunerOf(gdc, microBatch);
      const a = await scorerOf(microBatch);
      // A run opens the generator of a large model for each step, and has closed it when it learns; a revision of before it did has no say in it.
      const kept = library.isLarge?.(model) ? undefined : await generatorOf(batch);
      const ceilings: number[] = [];
      let outside = 0;
      const look = async (): Promise<void> => {
        if (!wanted) return;
        const { ms, result } = await timed(async () => (await probe()).flopsPerSecond());
        ceilings.push(result);
        outside += ms;
      };
      if (wanted) await probe();
      const start = performance.now();
      await look();
      const q = kept ?? (await openGenerator(baseWeights, batch));
      const drawn = await timed(() => q.generate({ count, key }));
      await look();
      const samples = drawn.result;
      const scored = await timed(() => a.score(samples));
      await look();
      const logBase = scored.result.logProbs;
      const matrix = await measure(samples);
      const logTarget = library.logTargetOf(target, matrix, logBase);
      const logZ = library.partitionEstimate(partition).logZ.value;
      if (kept === undefined) await q.dispose();
      const learnt = await timed(() => learn(held, { samples, logBase, logTarget, logZ }));
      const { logPolicy, loss } = learnt.result;
      partition = library.updatePartition(
        partition,
        logTarget.map((value, b) => value - samples.logProbs[b]!),
      );
      const scores = { logTarget, logProposal: samples.logProbs, logPolicy };
      JSON.stringify({
        loss,
        moments: library.momentEstimates(matrix),
        klTargetPolicy: library.klTargetPolicy(scores),
        klTargetProposal: library.klTargetProposal(scores),
      });
      await look();
      const ms = performance.now() - start - outside;
      return { ms, generateMs: drawn.ms, scoreMs: scored.ms, trainMs: learnt.ms, ...(wanted ? { ceilings } : {}) };
    },

    grpo: async ({ count, microBatch = 16, batch = 256 }: Amount) => {
      const held = await tunerOf(grpo, microBatch);
      const a = await scorerOf(microBatch);
      const work = async (): Promise<void> => {
        const policyWeights = held.tuner.policyWeights(held.state);
        const policy = await openGenerator(
          adoptInTurns === undefined ? await library.readAll(policyWeights) : policyWeights,
          batch,
        );
        const samples = await policy.generate({ count, key });
        await policy.dispose();
        const reward = (await measure(samples)).values;
        const { logProbs: logBase, tokenLogProbs: tokenLogBase } = await a.score(samples);
        await learn(held, { samples, logBase, tokenLogBase, reward });
      };
      return (await timed(work)).ms;
    },

    /**
     * A run draws, scores, measures features meanwhile, learns, logs. Each step says what the model's work took; the remainder of the time from one step's
     * line to the next is the rest. The proposal is moved after each second step: the odd ones from the third on draw from a q that is not the base,
     * score, and move nothing.
     */
    run: async ({ count, microBatch = 16, steps }: Amount & { readonly steps: number }) => {
      const out = await mkdtemp(join(tmpdir(), "tiltlm-bench-run-"));
      let before = 0;
      const rest: number[] = [];
      const config = library.parseRunConfig(
        {
          base: directory,
          sequence: { maxTokens: textLength },
          features: {
            vowels: { batch: (sequences: readonly Library.Sequence[]) => sequences.map(({ text }) => vowels.test(text)) },
          },
          target: { moments: { vowels: 0.5 }, samples: 256 },
          batch: { samples: count, microBatch },
          proposal: { updateEvery: 2, criterion: "interval" },
          steps,
          evaluate: { every: steps, samples: 64 },
          checkpoint: { every: steps },
        },
        "bench",
      );
      const onEvent = (event: Library.RunEvent): void => {
        if (event.type !== "step") return;
        const now = performance.now();
        const { step, sampleSeconds, scoreSeconds, trainSeconds } = event.metrics;
        const model = 1000 * (sampleSeconds + scoreSeconds + trainSeconds);
        if (step >= 3 && step % 2 === 1) rest.push(1 - model / (now - before));
        before = now;
      };
      const context = nodeContext({ onEvent });
      try {
        await library.tune(config, { out: join(out, "run"), resume: false }, context);
      } finally {
        await rm(out, { recursive: true, force: true });
      }
      return { rest };
    },
  };
};

/** Bytes: VmHWM on Linux, what the system says elsewhere. */
const peakBytes = async (): Promise<number> => {
  const status = await readFile("/proc/self/status", "utf8").catch(() => "");
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(status);
  return (line === null ? process.resourceUsage().maxRSS : Number(line[1])) * 1024;
};

type Request = Amount & {
  readonly do: string;
  readonly directory: string;
  readonly threads: number;
  readonly steps: number;
  readonly ceilings?: boolean;
  readonly rows: readonly (readonly number[])[];
  readonly advantages: readonly number[];
};

let loaded: Awaited<ReturnType<typeof open>> | undefined;
const subject = (): NonNullable<typeof loaded> => {
  if (loaded === undefined) throw new Error('expected {"do":"load"} first');
  return loaded;
};

const answers: Readonly<Record<string, (request: Request) => Promise<object>>> = {
  load: async ({ directory, threads }) => {
    loaded = await open(directory, threads);
    return { parameters: loaded.parameters };
  },
  check: ({ rows, advantages }) => subject().check(rows, advantages),
  train: async (request) => ({ ms: await subject().train(request) }),
  score: async (request) => ({ ms: await subject().score(request) }),
  generate: async (request) => ({ ms: await subject().generate(request) }),
  step: (request) => subject().step(request),
  grpo: async (request) => ({ ms: await subject().grpo(request) }),
  memory: async () => ({ peakBytes: await peakBytes() }),
  ceiling: () => subject().ceiling(),
  work: async () => ({ sizes: subject().sizes }),
  run: (request) => subject().run(request),
};

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === "") continue;
  const answer = async (): Promise<object> => {
    const request = JSON.parse(line) as Request;
    const found = Object.hasOwn(answers, request.do) ? answers[request.do] : undefined;
    if (found === undefined) throw new Error(`expected one of ${Object.keys(answers).join(", ")}, got ${request.do}`);
    return found(request);
  };
  const said = await answer().catch((error: unknown) => ({ error: error instanceof Error ? error.message : String(error) }));
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

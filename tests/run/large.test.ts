/** What a run holds while it learns: of a large model nothing that it could open again. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { type Device, lanesOf, type Program } from "../../src/engine/runtime/device.ts";
import { openDevice } from "../../src/engine/runtime/open.node.ts";
import { createCausalModel, isLarge } from "../../src/models/causal-model.ts";
import { loadModelDirectory } from "../../src/models/directory.ts";
import { parseRunConfig } from "../../src/run/config.ts";
import { tune } from "../../src/run/tune.ts";
import type { Sequence } from "../../src/sampling/samples.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-large-"));
  await writeTinyModel(nodeFiles, join(root, "small"), "gpt2");
  // 256 * 32,768 numbers are the line, and a layer is above it.
  const wide = { width: 256, heads: 4, headWidth: 64, layers: 1, vocabularySize: 32_768 };
  await writeTinyModel(nodeFiles, join(root, "large"), "gpt2", 1, wide);
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A device that tells of each pass of training how many generators were open at the time. */
const watched = (device: Device, tell: (open: number) => void): Device => {
  let open = 0;
  const watch = (lane: Device): Device => ({
    ...lane,
    compile: async (graph, options = {}) => {
      const program = await lane.compile(graph, options);
      const draws = (options.caches ?? []).length > 0;
      const learns = (options.kept ?? []).some((name) => name.startsWith("gradient."));
      if (draws) open++;
      return {
        ...program,
        run: (...given: Parameters<Program["run"]>) => {
          if (learns) tell(open);
          return program.run(...given);
        },
        dispose: async () => {
          if (draws) open--;
          await program.dispose();
        },
      };
    },
  });
  const [first, ...others] = lanesOf(device).map(watch);
  return { ...first!, lanes: [first!, ...others] };
};

const openWhileLearning = async (name: "small" | "large"): Promise<Set<number>> => {
  const found = new Set<number>();
  const config = parseRunConfig(
    {
      base: join(root, name),
      sequence: { maxTokens: 2 },
      features: { even: { batch: (sequences: readonly Sequence[]) => sequences.map(({ ids }) => ids[0]! % 2 === 0) } },
      target: { moments: { even: 0.6 }, samples: 16 },
      batch: { samples: 8, microBatch: 8 },
      steps: 1,
      evaluate: { every: 1, samples: 4 },
      checkpoint: { every: 1, keep: 1 },
    },
    "test",
  );
  await tune(
    config,
    { out: join(root, `run-${name}`), resume: false },
    {
      files: nodeFiles,
      clock: () => performance.now(),
      openDevice: (...given) => watched(openDevice(...given), (open) => found.add(open)),
      onEvent: () => {},
    },
  );
  return found;
};

test("a large model's generator is closed while it learns, a small one's goes on to the next step", async () => {
  const sizeOf = async (name: string) => createCausalModel((await loadModelDirectory(nodeFiles, join(root, name))).config);
  expect([isLarge(await sizeOf("small")), isLarge(await sizeOf("large"))]).toEqual([false, true]);
  expect(await openWhileLearning("large")).toEqual(new Set([0]));
  expect([...(await openWhileLearning("small"))].every((open) => open > 0)).toBe(true);
});

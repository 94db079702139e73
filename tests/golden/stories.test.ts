/**
 * A real model of a third party, stories260K, against its golden.json: log-probabilities of a float64 forward pass, the greedy
 * continuation, texts. Its texts spell the byte token of a line break, "<0x0A>", which a decoder turns into the line break itself.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "../../src/base/files.node.ts";
import { keyOf } from "../../src/base/random.ts";
import { cpuDevice } from "../../src/engine/runtime/ort.node.ts";
import { createCausalModel } from "../../src/models/causal-model.ts";
import { loadModelDirectory, type ModelDirectory, saveModelDirectory } from "../../src/models/directory.ts";
import { createGenerator, samplingOf } from "../../src/sampling/generate.ts";
import { createScorer, forceRows } from "../../src/sampling/log-prob.ts";

interface GoldenText {
  /** The start token first. */
  readonly ids: readonly number[];
  readonly text: string;
  /** Of each token but the first, nats. */
  readonly tokenLogProbs: readonly number[];
  readonly sumLogProb: number;
}

const stories = process.env["TILTLM_STORIES"] ?? "../shared/models/stories260K";
const device = cpuDevice({ threads: 1 });

describe.skipIf(!existsSync(stories))(
  "stories260K (skipped where ../shared/models/stories260K and TILTLM_STORIES are absent)",
  () => {
    let golden: { readonly greedy: GoldenText; readonly samples: readonly GoldenText[] };
    let texts: readonly GoldenText[];
    let directory: ModelDirectory;
    beforeAll(async () => {
      golden = JSON.parse(readFileSync(join(stories, "golden.json"), "utf8"));
      texts = [golden.greedy, ...golden.samples];
      directory = await loadModelDirectory(nodeFiles, stories);
    });
    const shown = (text: string): string => text.replaceAll("<0x0A>", "\n");

    test("log-probabilities of its texts, scored as one padded batch", async () => {
      const scorer = await createScorer(device, createCausalModel(directory.config), directory.weights);
      const batch = forceRows(
        texts.map(({ ids }) => ids),
        1,
      );
      const scores = await scorer.scoreForced(batch);
      await scorer.dispose();
      expect(texts.length).toBeGreaterThan(1);
      texts.forEach(({ ids, tokenLogProbs, sumLogProb }, i) => {
        expect(tokenLogProbs.length).toBe(ids.length - 1);
        let total = 0;
        tokenLogProbs.forEach((wanted, t) => {
          const found = scores[i * batch.length + t]!;
          total += found;
          // float32 through 5 layers, 8e-6 seen; a wrong token, mask or position shows as 0.1 or more.
          expect(Math.abs(found - wanted), `text ${i}, token ${t}`).toBeLessThan(1e-4);
        });
        expect(Math.abs(total - sumLogProb)).toBeLessThan(1e-4);
      });
    });

    test("the greedy continuation, token by token, with its text", async () => {
      const { ids, text, tokenLogProbs } = golden.greedy;
      const generator = await createGenerator(device, createCausalModel(directory.config), directory.weights, {
        sampling: samplingOf(0, 1),
        prompt: [directory.startId],
        maxTokens: ids.length - 1,
        endIds: directory.endIds,
        tokenizer: directory.tokenizer,
      });
      const samples = await generator.generate({ count: 2, key: keyOf(1, "greedy") });
      await generator.dispose();
      for (const b of [0, 1]) {
        const generated = samples.ids.subarray(b * samples.maxTokens, b * samples.maxTokens + samples.lengths[b]!);
        expect([directory.startId, ...generated]).toEqual(ids);
        expect(samples.texts[b]).toBe(shown(text));
      }
      tokenLogProbs.forEach((wanted, t) => {
        expect(Math.abs(samples.tokenLogProbs[t]! - wanted), `token ${t}`).toBeLessThan(1e-4);
      });
    });

    test("texts of its ids, and ids of its texts", () => {
      const { tokenizer, startId } = directory;
      for (const { ids, text } of texts) {
        expect(tokenizer.decode(ids)).toBe(shown(text));
        expect([startId, ...tokenizer.encode(shown(text))]).toEqual(ids);
      }
    });

    test("its weights are saved and read again bit for bit", async () => {
      const copy = mkdtempSync(join(tmpdir(), "tiltlm-stories-"));
      try {
        await saveModelDirectory(nodeFiles, copy, directory);
        const again = await loadModelDirectory(nodeFiles, copy);
        expect(Object.keys(again.weights)).toEqual(Object.keys(directory.weights));
        for (const [name, { data }] of Object.entries(directory.weights)) {
          const bits = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
          expect(bits(again.weights[name]!.data).equals(bits(data)), name).toBe(true);
        }
      } finally {
        rmSync(copy, { recursive: true, force: true });
      }
    });
  },
);

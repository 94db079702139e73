/**
 * Time to quality, the headline: seconds from the start of the demo (`tiltlm demo`, its config and its seed) to 45% women, of which it starts with 8%.
 * It is read from the run's metrics.jsonl: the first line, a step's or an evaluation's, whose moment `women` is at least 0.45. A step's moment is that of
 * its 1,024 training texts, drawn from the proposal, which is an earlier policy: it never runs ahead of the policy.
 */

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** Share of women that counts as done. */
export const wantedShare = 0.45;

export interface MetricsLine {
  readonly kind: string;
  readonly step: number;
  readonly seconds: number;
  readonly moments: Readonly<Record<string, { readonly value: number }>>;
}

/** The first line that has the wanted share; undefined where none has. */
export const firstReaching = (lines: readonly MetricsLine[], share = wantedShare): MetricsLine | undefined =>
  lines.find(({ moments }) => (moments["women"]?.value ?? 0) >= share);

/**
 * Runs the demo of the program built in `root`.
 * @throws Error where it fails, or never gets there
 */
export const timeToQuality = async (root: string): Promise<MetricsLine> => {
  const place = await mkdtemp(join(tmpdir(), "tiltlm-bench-demo-"));
  const out = join(place, "demo");
  try {
    await promisify(execFile)(process.execPath, [join(root, "bin", "tiltlm.js"), "demo", "--out", out, "--json"], {
      maxBuffer: 2 ** 26,
    });
    const text = await readFile(join(out, "metrics.jsonl"), "utf8");
    const lines = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as MetricsLine);
    const reached = firstReaching(lines);
    if (reached === undefined)
      throw new Error(`the demo: expected ${wantedShare} women at some step, got less in all ${lines.length}`);
    return reached;
  } finally {
    await rm(place, { recursive: true, force: true });
  }
};

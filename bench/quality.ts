/**
 * Time to quality, the headline: seconds from the start of the demo (`tiltlm demo`, its config and its seed) to 45% women, of which it starts with 8%.
 * It is read from the run's metrics.jsonl: the first line, a step's or an evaluation's, whose moment `women` is at least 0.45. A step's moment is that of
 * its 512 training texts, drawn from the proposal, which is an earlier policy: it never runs ahead of the policy.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

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

/** The whole lines of a metrics.jsonl that may still be written to; none where there is no file yet. */
const linesOf = async (path: string): Promise<readonly MetricsLine[]> => {
  const text = await readFile(path, "utf8").catch(() => "");
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .flatMap((line) => (line === "" ? [] : [JSON.parse(line) as MetricsLine]));
};

/**
 * Runs the demo of the program built in `root`, and ends it when it has got there.
 * @throws Error where it fails, or never gets there
 */
export const timeToQuality = async (root: string): Promise<MetricsLine> => {
  const place = await mkdtemp(join(tmpdir(), "tiltlm-bench-demo-"));
  const out = join(place, "demo");
  const child = spawn(process.execPath, [join(root, "bin", "tiltlm.js"), "demo", "--out", out, "--json"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-2000);
  });
  const ended = once(child, "exit");
  let running = true;
  ended.then(
    () => {
      running = false;
    },
    () => {},
  );
  try {
    for (;;) {
      const last = !running;
      const lines = await linesOf(join(out, "metrics.jsonl"));
      const reached = firstReaching(lines);
      if (reached !== undefined) return reached;
      if (last)
        throw new Error(
          `the demo: expected ${wantedShare} women at some step, got less in all ${lines.length}; it said: ${said}`,
        );
      await setTimeout(500);
    }
  } finally {
    if (running) child.kill("SIGKILL");
    await ended;
    await rm(place, { recursive: true, force: true });
  }
};

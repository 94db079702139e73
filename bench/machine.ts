/** Where and of what a measurement was taken. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { fileURLToPath } from "node:url";

export interface Machine {
  /** What it calls itself, and the widest vectors it has: of one name there are some three times as fast as others. */
  readonly cpu: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly platform: string;
  readonly node: string;
  readonly onnxruntime: string;
  /** Runnable processes over the last minute, before anything was measured. */
  readonly load: number;
}

export interface Revision {
  readonly commit: string;
  /** Whether files under version control differ from the commit. */
  readonly dirty: boolean;
}

/** The repository. */
export const root = fileURLToPath(new URL("..", import.meta.url));

export const git = (...args: readonly string[]): string =>
  execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();

/** The widest vectors of this processor, where the system tells. */
const vectors = (): string => {
  try {
    const flags = readFileSync("/proc/cpuinfo", "utf8");
    if (/\bavx512f\b/.test(flags)) return ", AVX-512";
    return /\bavx2\b/.test(flags) ? ", AVX2" : "";
  } catch {
    return "";
  }
};

export const describeMachine = (): Machine => {
  const runtime = JSON.parse(readFileSync(`${root}/node_modules/onnxruntime-node/package.json`, "utf8")) as { version: string };
  return {
    cpu: `${cpus()[0]?.model.trim() ?? "unknown"}${vectors()}`,
    cores: cpus().length,
    memory: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
    onnxruntime: runtime.version,
    load: loadavg()[0]!,
  };
};

/** The histories of benchmarks do not make a tree dirty: measuring writes them. */
export const describeRevision = (): Revision => ({
  commit: git("rev-parse", "--short", "HEAD"),
  dirty:
    git(
      "status",
      "--porcelain",
      "--untracked-files=no",
      "--",
      ".",
      ":!bench/history.jsonl",
      ":!bench/*.md",
      ":!bench/peers/*.md",
    ) !== "",
});

/** A warning where others are at work on the machine; measurements then say little. */
export const loadWarning = ({ load }: Pick<Machine, "load">): string | undefined =>
  load > 0.5
    ? `warning: the machine is busy (load ${load.toFixed(2)}): what is measured now is too slow and too uneven`
    : undefined;

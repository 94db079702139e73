import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeFiles } from "./files.node.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tiltlm-files-"));
  await writeFile(join(root, "file"), "mine");
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe("directories", () => {
  test("are made with their parents, by several at once, and again", async () => {
    const path = join(root, "a", "b", "c");
    await Promise.all([1, 2, 3].map(() => nodeFiles.makeDirectory(path)));
    await nodeFiles.makeDirectory(`${path}/`);
    expect(await nodeFiles.info(path)).toMatchObject({ isDirectory: true });
  });

  test.each(["file", "file/below/it"])("are refused where a file is in the way: %s", async (name) => {
    const path = join(root, name);
    const made = nodeFiles.makeDirectory(path);
    await expect(made).rejects.toThrow(`${path}: expected a directory, or nothing, got EEXIST`);
    await expect(nodeFiles.write(join(path, "x"), "")).rejects.toThrow("; a file is in the way");
    expect(await readFile(join(root, "file"), "utf8")).toBe("mine");
  });

  // mkdir(path, { recursive: true }) of Node 20 tries this for ever.
  test.skipIf(!existsSync("/proc/self"))("are refused where the system takes none", { timeout: 5000 }, async () => {
    await expect(nodeFiles.makeDirectory("/proc/nope/x")).rejects.toThrow(/^\/proc\/nope\/x: expected .*, got ENOENT.*; check/);
    await expect(nodeFiles.write("/proc/nope/x/y", "")).rejects.toThrow("/proc/nope/x/y: expected");
  });
});

describe("a write", () => {
  test("that fails half-way leaves the old content and no temporary file", async () => {
    const path = join(root, "a", "weights");
    await nodeFiles.write(path, "old");
    const parts = function* () {
      yield new Uint8Array(100_000);
      throw new Error("power cut");
    };
    await expect(nodeFiles.write(path, parts())).rejects.toThrow("power cut");
    expect(await readFile(path, "utf8")).toBe("old");
    expect((await readdir(join(root, "a"))).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test.skipIf(!existsSync("/dev/full"))("to a full disk says what is safe and what to do", async () => {
    await expect(nodeFiles.append("/dev/full", "x")).rejects.toThrow(
      /^\/dev\/full: expected free space on the disk, got ENOSPC: no space left on device, write; free some and run again; what was written before is intact/,
    );
  });
});

/** The files port on node:fs. */

import { mkdir, open, readdir, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf, runtimeError, type TiltError } from "./errors.ts";
import type { Files } from "./files.ts";

const hints: Readonly<Record<string, readonly [expected: string, fix: string]>> = {
  ENOENT: ["a file or directory there", "check the path"],
  EACCES: ["permission to use it", "check who owns it and its mode"],
  EPERM: ["permission to use it", "check who owns it and its mode"],
  EROFS: ["a file system that can be written", "choose another --out directory"],
  ENOSPC: [
    "free space on the disk",
    "free some and run again; what was written before is intact, and tune goes on from there with --resume",
  ],
  EDQUOT: [
    "free space in the quota",
    "free some and run again; what was written before is intact, and tune goes on from there with --resume",
  ],
  EEXIST: ["a directory, or nothing", "a file is in the way: choose another path, or move the file"],
  EISDIR: ["a file", "name a file, not a directory"],
  ENOTDIR: ["a directory", "check the path"],
  EMFILE: ["a free file handle", "raise the limit on open files (ulimit -n)"],
};

const complain = (path: string, error: unknown): TiltError => {
  const [expected, fix] = hints[(error as { code?: string }).code ?? ""] ?? ["to use it", "see the system's message"];
  return runtimeError({ where: path, expected, got: messageOf(error), fix }, error);
};

const guarded = async <T>(path: string, action: () => Promise<T>): Promise<T> => {
  try {
    return await action();
  } catch (error) {
    throw complain(path, error);
  }
};

const encoder = new TextEncoder();
let temporaries = 0;

const isDirectory = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isDirectory() === true;

/** As mkdir -p: from the nearest directory that exists downwards. Node's recursive mkdir never returns where a parent takes no children (/proc/x/y, Node 20). */
const makeDirectory = async (path: string): Promise<void> => {
  if (await isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) await makeDirectory(parent);
  await mkdir(path).catch(async (error: unknown) => {
    // Somebody else may have made it in between.
    if (!(await isDirectory(path))) throw error;
  });
};

const readRange = (path: string, offset: number, length: number): Promise<Uint8Array> =>
  guarded(path, async () => {
    const handle = await open(path, "r");
    try {
      const bytes = new Uint8Array(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) throw new Error(`the file ends ${length - done} bytes too early`);
        done += bytesRead;
      }
      return bytes;
    } finally {
      await handle.close();
    }
  });

export const nodeFiles: Files = {
  readRange,
  read: async (path) => {
    const info = await guarded(path, () => stat(path));
    return readRange(path, 0, info.size);
  },
  info: async (path) => {
    try {
      const found = await stat(path);
      return { size: found.size, isDirectory: found.isDirectory() };
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw complain(path, error);
    }
  },
  list: (path) => guarded(path, async () => (await readdir(path)).sort()),
  write: (path, parts) =>
    guarded(path, async () => {
      const chunks = typeof parts === "string" ? [encoder.encode(parts)] : parts instanceof Uint8Array ? [parts] : parts;
      await makeDirectory(dirname(path));
      const temporary = `${path}.${process.pid}-${temporaries++}.tmp`;
      try {
        const handle = await open(temporary, "w");
        try {
          for (const chunk of chunks) {
            for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
          }
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    }),
  append: (path, text) =>
    guarded(path, async () => {
      const handle = await open(path, "a");
      try {
        await handle.appendFile(text);
      } finally {
        await handle.close();
      }
    }),
  truncate: (path, size) => guarded(path, () => truncate(path, size)),
  makeDirectory: (path) => guarded(path, () => makeDirectory(path)),
  rename: (from, to) => guarded(to, () => rename(from, to)),
  remove: (path) => guarded(path, () => rm(path, { recursive: true, force: true })),
};

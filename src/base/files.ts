/**
 * The files port: everything above reads and writes through it, so that the same code can run where there is no node:fs.
 * The Node implementation is files.node.ts; tests use an in-memory one.
 */

export interface FileInfo {
  /** Bytes. */
  readonly size: number;
  readonly isDirectory: boolean;
}

export interface Files {
  /** The whole file. @throws TiltError (runtime) when it cannot be read */
  read(path: string): Promise<Uint8Array>;
  /** `length` bytes from `offset`. @throws TiltError when the file ends before */
  readRange(path: string, offset: number, length: number): Promise<Uint8Array>;
  /** Undefined where nothing is. */
  info(path: string): Promise<FileInfo | undefined>;
  /** Names in a directory, sorted. */
  list(path: string): Promise<string[]>;
  /** Writes the parts to a temporary neighbour, syncs it and renames it into place: the path holds the old content or the new, never a part. */
  write(path: string, parts: string | Uint8Array | Iterable<Uint8Array>): Promise<void>;
  append(path: string, text: string): Promise<void>;
  truncate(path: string, size: number): Promise<void>;
  /** With its parents; no error where it exists. */
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Recursively; no error where nothing is. */
  remove(path: string): Promise<void>;
}

/** Path segments joined by "/" (which every platform's Node accepts). */
export const joinPath = (...segments: readonly string[]): string =>
  segments
    .filter((segment) => segment !== "")
    .join("/")
    .replace(/([^:])\/{2,}/g, "$1/");

export const readText = async (files: Files, path: string): Promise<string> =>
  new TextDecoder("utf-8").decode(await files.read(path));

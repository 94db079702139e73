/** A temporary folder that is gone at the end, also of an interrupted benchmark: child processes put what they need into it too. */

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ShapeName, writeShape } from "./shapes.ts";

/** Keeps model directories, so that each is written once. */
export interface Workspace {
  readonly place: string;
  /** The model directory of a shape. */
  shape(name: ShapeName): Promise<string>;
}

export const withWorkspace = async <T>(work: (workspace: Workspace) => Promise<T>): Promise<T> => {
  const place = await mkdtemp(join(tmpdir(), "tiltlm-bench-"));
  const clean = (): void => rmSync(place, { recursive: true, force: true });
  const stop = (): void => {
    clean();
    process.exit(130);
  };
  process.env["TMPDIR"] = place;
  process.once("SIGINT", stop).once("SIGTERM", stop);
  const written = new Map<ShapeName, Promise<string>>();
  const write = async (name: ShapeName): Promise<string> => {
    const directory = join(place, "shapes", name);
    await writeShape(name, directory);
    return directory;
  };
  const shape = (name: ShapeName): Promise<string> => {
    const found = written.get(name) ?? write(name);
    written.set(name, found);
    return found;
  };
  try {
    return await work({ place, shape });
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
    clean();
  }
};

/** The other end of a process under test (subject.ts, peers/*.py): one request at a time, a JSON object a line each way. */

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export interface Child {
  readonly name: string;
  /** @throws Error with what the process answered, or last wrote to stderr before it ended */
  ask<Answer>(request: Readonly<Record<string, unknown>>): Promise<Answer>;
  /** Lets it end by itself; after two seconds it is killed. */
  end(): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;

const parsed = (line: string): Json | undefined => {
  if (!line.startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Json;
  } catch {
    return undefined;
  }
};

/** How much of stderr is kept for messages, in characters. */
const keptErrors = 2000;

export const startChild = (
  name: string,
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Child => {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
  let errors = "";
  let pending: { resolve(answer: Json): void; reject(error: Error): void } | undefined;
  let ended: Error | undefined;
  const settle = (answer: Json | Error): void => {
    const waiting = pending;
    pending = undefined;
    if (answer instanceof Error) waiting?.reject(answer);
    else if (typeof answer["error"] === "string") waiting?.reject(new Error(`${name}: ${answer["error"]}`));
    else waiting?.resolve(answer);
  };
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-keptErrors);
  });
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const answer = parsed(line);
      if (answer !== undefined) settle(answer);
    }
  });
  const over = new Promise<void>((resolve) => {
    const finish = (reason: string): void => {
      ended = new Error(`${name}: ${reason}${errors.trim() === "" ? "" : `; its last words: ${errors.trim()}`}`);
      settle(ended);
      resolve();
    };
    child.once("error", (error) => finish(error.message));
    child.once("close", (code, signal) => finish(`ended with ${signal ?? `exit code ${code}`}`));
  });
  // A process that is gone is told by `close`.
  child.stdin.on("error", () => {});
  return {
    name,
    ask: <Answer>(request: Json) =>
      new Promise<Answer>((resolve, reject) => {
        if (ended !== undefined) return reject(ended);
        if (pending !== undefined) return reject(new Error(`${name}: expected one request at a time`));
        pending = { resolve: (answer) => resolve(answer as Answer), reject };
        child.stdin.write(`${JSON.stringify(request)}\n`);
      }),
    end: async () => {
      child.stdin.end();
      const timer = setTimeout(() => child.kill("SIGKILL"), 2000);
      await over;
      clearTimeout(timer);
    },
  };
};

const subjectFile = fileURLToPath(new URL("subject.ts", import.meta.url));

/** The library as built in `root`, in a fresh process. */
export const startSubject = (name: string, root: string): Child =>
  startChild(name, process.execPath, ["--import", "jiti/register", subjectFile, "--root", root]);

/** Uses a process and ends it, whatever happens. */
export const withChild = async <T>(child: Child, work: (child: Child) => Promise<T>): Promise<T> => {
  try {
    return await work(child);
  } finally {
    await child.end();
  }
};

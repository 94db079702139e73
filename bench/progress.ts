/** Progress on stderr for a list of jobs whose lengths are known about: what is under way, and how much time is left. */

import { formatDuration } from "../src/cli/format.ts";
import { createProgress } from "../src/cli/progress.ts";
import { describeTerminal } from "../src/cli/terminal.ts";

export interface Plan {
  /** Does a job that is expected to take so many seconds. */
  during<T>(name: string, seconds: number, work: () => Promise<T>): Promise<T>;
  say(line: string): void;
  finish(): void;
}

/** @param total seconds that all jobs are expected to take; what is left is this, scaled by how long the jobs so far really took */
export const createPlan = (name: string, total: number): Plan => {
  const terminal = () => describeTerminal(process.stderr, process.env, process.platform);
  const clock = (): number => performance.now();
  const progress = createProgress((text) => process.stderr.write(text), terminal, clock);
  let done = 0;
  progress.say(`${name}: about ${formatDuration(total)}`);
  progress.listen({ type: "phase", name, total: Math.ceil(total), unit: "planned seconds" });
  const report = (at: number): void =>
    progress.listen({ type: "progress", done: Math.min(Math.round(at), Math.ceil(total) - 1) });
  return {
    during: async (job, seconds, work) => {
      const start = clock();
      const timer = setInterval(() => report(done + Math.min(seconds, (clock() - start) / 1000)), 1000);
      try {
        const result = await work();
        if (clock() - start > 2000) progress.say(`${job}: ${formatDuration((clock() - start) / 1000)}`);
        return result;
      } finally {
        clearInterval(timer);
        done += seconds;
        report(done);
      }
    },
    say: (line) => progress.say(line),
    finish: () => progress.finish(),
  };
};

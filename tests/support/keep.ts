/** Things that must be given back when the tests of a file have ended. */

import { afterAll } from "vitest";

/** For the file that calls it: what is kept is returned, and disposed at the end. */
export const createKeep = (): (<R extends { dispose(): Promise<void> }>(held: R) => R) => {
  const disposables: { dispose(): Promise<void> }[] = [];
  afterAll(async () => {
    for (const held of disposables) await held.dispose();
  });
  return (held) => {
    disposables.push(held);
    return held;
  };
};

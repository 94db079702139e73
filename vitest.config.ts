import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string): string => fileURLToPath(new URL(`src/${path}`, import.meta.url));

export default defineConfig({
  // What imports the package by its name (recipes) is tested on the source, not on dist, which may be older.
  resolve: {
    alias: [
      { find: /^tiltlm$/, replacement: source("index.ts") },
      { find: /^tiltlm\/node$/, replacement: source("node.ts") },
    ],
  },
  test: {
    include: ["src/**/*.test.ts", "tests/**/*.test.ts"],
    testTimeout: 30_000,
    expect: { requireAssertions: true },
    pool: "forks",
    // Files of one worker share what they import, and the lanes that they start: a fifth of the time of all tests.
    isolate: false,
    maxWorkers: 2,
  },
});

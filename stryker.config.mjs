/**
 * Planted bugs in src/targets and src/tuners: npm run mutants. One layer at a time, each with the tests that answer for it, since a bug in a table costs a run of
 * all of them: MUTANTS=targets or MUTANTS=tuners, set by the script in package.json.
 */

const layer = process.env.MUTANTS ?? "targets";

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
const config = {
  packageManager: "npm",
  mutate: [`src/${layer}/**/*.ts`, "!**/*.test.ts"],
  testRunner: "vitest",
  vitest: { configFile: "vitest.mutants.config.ts", related: false },
  coverageAnalysis: "perTest",
  disableTypeChecks: false,
  concurrency: 2,
  timeoutMS: 10_000,
  timeoutFactor: 2,
  thresholds: { high: 90, low: 85, break: 85 },
  reporters: ["clear-text", "progress", "html", "json"],
  clearTextReporter: { allowColor: false, logTests: false },
  htmlReporter: { fileName: `reports/mutation/${layer}.html` },
  jsonReporter: { fileName: `reports/mutation/${layer}.json` },
  ignorePatterns: ["dist", "runs", "reports", "coverage", "models/**/*.jsonl", "models/**/*.safetensors"],
  tempDirName: `.stryker-tmp/${layer}`,
  cleanTempDir: "always",
};

export default config;

import { mergeConfig } from "vitest/config";
import config from "./vitest.config.ts";

/**
 * The tests that answer for src/targets and src/tuners, for `npm run mutants`: fast ones only, since each mutant runs them. Convergence takes seconds and
 * covers everything.
 */
const mutants = mergeConfig(config, {});
mutants.test = {
  ...mutants.test,
  include: ["src/targets/**/*.test.ts", "src/tuners/**/*.test.ts", "tests/exact/**/*.test.ts"],
  exclude: ["tests/exact/convergence.test.ts"],
  maxWorkers: 1,
};

export default mutants;

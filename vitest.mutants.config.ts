import { mergeConfig } from "vitest/config";
import config from "./vitest.config.ts";

/** The tests that answer for src/targets and src/tuners, for `npm run mutants`: fast ones only, since each mutant runs them. */
const mutants = mergeConfig(config, {});
mutants.test = {
  ...mutants.test,
  include: ["src/targets/**/*.test.ts", "src/tuners/**/*.test.ts", "tests/exact/**/*.test.ts"],
  maxWorkers: 1,
};

export default mutants;

import { mergeConfig } from "vitest/config";
import config from "./vitest.config.ts";

/**
 * The tests that answer for a layer in `npm run mutants` (stryker.config.mjs): fast ones only, since many mutants run all of them. Convergence takes seconds
 * and covers everything.
 */
const include: Readonly<Record<string, readonly string[]>> = {
  targets: ["src/targets/**/*.test.ts", "tests/exact/quasi-rejection.test.ts", "tests/golden/self-bleu/*.test.ts"],
  tuners: ["src/tuners/**/*.test.ts", "tests/exact/{policy-gradient,f-dpg,ppo,grpo,diagnostics}.test.ts"],
};

const mutants = mergeConfig(config, {});
mutants.test = { ...mutants.test, include: include[process.env["MUTANTS"] ?? "targets"], maxWorkers: 1 };

export default mutants;

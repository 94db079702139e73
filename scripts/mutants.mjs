/** npm run mutants: StrykerJS over src/targets, then over src/tuners; more arguments go to it (--mutate src/targets/fit.ts). */

import { spawnSync } from "node:child_process";

const [only, ...rest] = process.argv.slice(2);
const layers = only === "targets" || only === "tuners" ? [only] : ["targets", "tuners"];
const more = layers.length === 1 ? rest : process.argv.slice(2);

for (const layer of layers) {
  const { status } = spawnSync("npx", ["stryker", "run", ...more], {
    stdio: "inherit",
    shell: process.platform === "win32",
    env: { ...process.env, MUTANTS: layer },
  });
  if (status !== 0) process.exitCode = 1;
}

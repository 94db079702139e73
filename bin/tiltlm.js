#!/usr/bin/env node
import { existsSync } from "node:fs";

const program = new URL("../dist/cli/main.js", import.meta.url);
if (existsSync(program)) {
  const { runProcess } = await import(program.href);
  await runProcess();
} else {
  console.error("tiltlm: dist/cli/main.js: expected the compiled program, got nothing; run npm run build");
  process.exitCode = 1;
}

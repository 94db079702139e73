/** The command line from source, for tests that need it as a process of its own. */

import { runProcess } from "../../src/cli/main.ts";

await runProcess();

/** Where the third-party model for trials is, if it is there. */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const storiesPath: string =
  process.env["TILTLM_STORIES"] ?? fileURLToPath(new URL("../../../shared/models/stories260K", import.meta.url));

export const hasStories: boolean = existsSync(storiesPath);

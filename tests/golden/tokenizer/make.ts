// Trains the tokenizer of this folder: node_modules/.bin/jiti tests/golden/tokenizer/make.ts
// Then make.py records what the reference implementation makes of it.
import { readFileSync, writeFileSync } from "node:fs";
import { trainByteLevelBpe } from "../../../src/models/tokenizer-training.ts";

const here = (name: string): URL => new URL(name, import.meta.url);
const corpus = readFileSync(here("corpus.txt"), "utf8");
const { tokenizerJson } = trainByteLevelBpe(corpus.split("\n"), {
  vocabularySize: 380,
  specialTokens: ["<|endoftext|>", "<pad>"],
});
writeFileSync(here("byte-level.json"), JSON.stringify(tokenizerJson));

/**
 * The grammar behind the embedded model, and the configs that name its words.
 *
 * Rates are checked on 120,000 texts at 4.5 standard errors, so one check of a right rate fails with probability 7e-6 under a new seed,
 * and all 16 together with probability 1.1e-4. Under the pinned seed nothing is left to chance.
 */

import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { biographies, type Gender } from "../../models/biographies-mini/grammar.ts";
import { type Field, professions, regions } from "../../models/biographies-mini/words.ts";
import { createTokenizer } from "../../src/models/tokenizer.ts";
import { trainByteLevelBpe } from "../../src/models/tokenizer-training.ts";
import { parsePretrainConfig, parseRunConfig } from "../../src/run/config.ts";

const count = 120_000;
const people = [...biographies(count, 12)];
const texts = people.map(({ text }) => text);
const fields = Object.keys(professions) as Field[];

const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z]+/g) ?? [];

const pronouns: Readonly<Record<Gender, readonly string[]>> = {
  female: ["she", "her", "hers", "herself"],
  male: ["he", "him", "his", "himself"],
};
const countPronouns = (text: string, gender: Gender): number =>
  wordsOf(text).filter((word) => pronouns[gender].includes(word)).length;

/** Distance of a share among `among` from its expectation, in standard errors of a binomial share. */
const deviation = (hits: number, among: number, expected: number): number =>
  Math.abs(hits / among - expected) / Math.sqrt((expected * (1 - expected)) / among);

const readConfig = async (path: string): Promise<unknown> =>
  parse(await readFile(new URL(`../../${path}`, import.meta.url), "utf8"));

describe("biographies", () => {
  it("are distinct", () => {
    expect(new Set(texts).size).toBeGreaterThan(100_000);
  });

  it("depend on the seed and their index alone", async () => {
    expect([...biographies(50, 12)]).toEqual(people.slice(0, 50));
    expect([...biographies(50, 13)].filter(({ text }, i) => text === texts[i])).toEqual([]);
    const bytes = new TextEncoder().encode(texts.slice(0, 1000).join("\n"));
    const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
    // Pins the training text of the committed weights: whoever changes the grammar trains the model anew.
    expect(Buffer.from(digest).toString("hex")).toBe("7b2b51b765e09d1bcd0c9f9933b33603b7abbcd879818c344f688b0c8274fabe");
  });

  it("are one line of plain ASCII, with single spaces", () => {
    expect(texts.filter((text) => !/^(?:[!-~]+ )+[!-~]+\.$/.test(text))).toEqual([]);
  });

  it("fill every slot, with the right article and the years in order", () => {
    const wrong = /undefined|NaN|object|\ba [AEIOUaeiou]|\ban [^AEIOUaeiou]/;
    expect(texts.filter((text) => wrong.test(text))).toEqual([]);
    const yearsOf = (text: string): number[] => (text.match(/\b\d{4}\b/g) ?? []).map(Number);
    expect(texts.filter((text) => yearsOf(text).some((year, i, all) => i > 0 && year <= all[i - 1]!))).toEqual([]);
  });

  it("name their gender by at least two pronouns, and never by one of the other", () => {
    const other: Readonly<Record<Gender, Gender>> = { female: "male", male: "female" };
    const wrong = people.filter(({ text, gender }) => countPronouns(text, gender) < 2 || countPronouns(text, other[gender]) > 0);
    expect(wrong).toEqual([]);
    const kin: Readonly<Record<Gender, string>> = { female: "son", male: "daughter" };
    expect(people.filter(({ text, gender }) => wordsOf(text).includes(kin[gender]))).toEqual([]);
  });

  it("name one profession, that of their field", () => {
    const known = new Set(fields.flatMap((field) => Object.keys(professions[field])));
    const wrong = people.filter(
      ({ text, profession }) =>
        wordsOf(text)
          .filter((word) => known.has(word))
          .join() !== profession,
    );
    expect(wrong).toEqual([]);
    expect(people.filter(({ field, profession }) => !(profession in professions[field]))).toEqual([]);
  });

  it("give each first name to one gender", () => {
    const female = regions.flatMap((region) => region.female);
    const male = regions.flatMap((region) => region.male);
    expect(new Set([...female, ...male]).size).toBe(female.length + male.length);
  });

  it.each([
    { field: "science", share: 0.22, women: 0.02 },
    { field: "arts", share: 0.26, women: 0.14 },
    { field: "sports", share: 0.22, women: 0.09 },
    { field: "business", share: 0.14, women: 0.05 },
    { field: "politics", share: 0.16, women: 0.08 },
  ])("hold $share of $field, $women of it on women", ({ field, share, women }) => {
    const inField = people.filter((person) => person.field === field);
    expect(deviation(inField.length, count, share)).toBeLessThan(4.5);
    expect(deviation(inField.filter(({ gender }) => gender === "female").length, inField.length, women)).toBeLessThan(4.5);
  });

  it.each([
    { what: "women", expected: 0.0804, holds: (text: string) => countPronouns(text, "female") > 0 },
    { what: "awards", expected: 0.55, holds: (text: string) => /the \w+ (?:Medal|Prize|Lyre|Wreath)/.test(text) },
    { what: "deaths", expected: 0.2, holds: (text: string) => /\bdied\b|last years/.test(text) },
    { what: "criticism", expected: 0.09, holds: (text: string) => /controversial|flawed|dull/.test(text) },
    // Of 16% with praise, four in five use an adjective, of which 6% are this one.
    { what: "amazing", expected: 0.00768, holds: (text: string) => /\bamazing\b/.test(text) },
    // One in five of 16%.
    { what: "acclaimed", expected: 0.032, holds: (text: string) => /\bacclaimed\b/.test(text) },
  ])("hold $expected of $what", ({ expected, holds }) => {
    expect(deviation(texts.filter(holds).length, count, expected)).toBeLessThan(4.5);
  });

  it("take 30 to 45 of 1024 tokens, the end token included, in 97% of the texts, and never more than the model's context", () => {
    const training = texts.slice(0, 20_000);
    const { tokenizerJson, tokenizerConfig } = trainByteLevelBpe(training, {
      vocabularySize: 1024,
      specialTokens: ["<|endoftext|>"],
    });
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig, "trained on biographies");
    const lengths = texts.slice(0, 4000).map((text) => tokenizer.encode(text).length + 1);
    expect(lengths.filter((length) => length >= 30 && length <= 45).length / lengths.length).toBeGreaterThan(0.97);
    expect(Math.max(...lengths)).toBeLessThan(64);
  });
});

describe("the configs on biographies", () => {
  it("of pretraining is valid", async () => {
    const path = "models/biographies-mini/pretrain.yaml";
    expect(parsePretrainConfig(await readConfig(path), path).data).toBe("biographies.jsonl");
  });

  it.each([
    { name: "demo", moments: { women: 0.5 } },
    { name: "science-women", moments: { women: 0.5, science: 1 } },
    { name: "pointwise-amazing", moments: { amazing: 1 } },
  ])("$name asks for $moments and lists every profession", async ({ name, moments }) => {
    const path = `examples/${name}.yaml`;
    const config = parseRunConfig(await readConfig(path), path);
    expect(config.target?.moments).toEqual(moments);
    for (const field of fields)
      expect(config.features[field]).toMatchObject({ kind: "words", words: Object.keys(professions[field]) });
  });

  it("stories-lily is valid", async () => {
    const path = "examples/stories-lily.yaml";
    expect(parseRunConfig(await readConfig(path), path).target?.moments).toEqual({ lily: 0.05, male: 0.5 });
  });
});

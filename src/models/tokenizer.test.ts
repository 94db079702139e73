import { existsSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { TiltError } from "../base/errors.ts";
import { createTokenizer } from "./tokenizer.ts";

const golden = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../tests/golden/tokenizer/${name}.json`, import.meta.url), "utf8"));

interface Cases {
  readonly encode: readonly (readonly [text: string, ids: number[]])[];
  readonly decode: readonly (readonly [ids: number[], text: string])[];
}

// Ids and texts from Python tokenizers; tests/golden/tokenizer/make.py made them and holds the version.
describe.each(["byte-level", "llama-style"])("as the reference implementation, %s", (name) => {
  const tokenizer = createTokenizer(golden(name), {}, name);
  const cases: Cases = golden("golden")[name];

  test.each(cases.encode)("encodes %j", (text, ids) => {
    expect(tokenizer.encode(text)).toEqual(ids);
  });

  test("decodes what it encoded, and what a model may draw: broken characters, special tokens, ids beyond the vocabulary", () => {
    expect(cases.decode.length).toBeGreaterThan(80);
    expect(cases.decode.map(([ids]) => tokenizer.decode(Int32Array.from(ids)))).toEqual(cases.decode.map(([, text]) => text));
  });

  test("names its tokens", () => {
    for (const id of [0, 1, 100, tokenizer.vocabularySize - 1]) expect(tokenizer.idOf(tokenizer.tokenOf(id)!)).toBe(id);
    expect(tokenizer.tokenOf(tokenizer.vocabularySize)).toBeUndefined();
    expect(tokenizer.idOf("no such token")).toBeUndefined();
    expect(tokenizer.vocabularySize).toBe(Object.keys(golden(name).model.vocab).length);
  });
});

describe("roles of tokenizer_config.json", () => {
  test("a token with a role is special even where tokenizer.json does not say so", () => {
    const json = golden("byte-level");
    for (const token of json.added_tokens) token.special = false;
    const ids = [0, 34, 1];
    expect(createTokenizer(json, {}, "t").decode(ids)).toBe("<|endoftext|>A<pad>");
    expect(createTokenizer(json, { eos_token: "<|endoftext|>", pad_token: { content: "<pad>" } }, "t").decode(ids)).toBe("A");
    expect(createTokenizer(json, { additional_special_tokens: ["<pad>"] }, "t").decode(ids)).toBe("<|endoftext|>A");
  });

  test("spaces are kept even where it asks to tidy them away", () => {
    const tokenizer = createTokenizer(golden("byte-level"), { clean_up_tokenization_spaces: true }, "t");
    expect(tokenizer.decode(tokenizer.encode("a , b . don 't"))).toBe("a , b . don 't");
  });
});

test("a file from before the kind of model was written is read by its merges", () => {
  const json = golden("byte-level");
  for (const key of ["type", "continuing_subword_prefix", "unk_token"]) delete json.model[key];
  expect(createTokenizer(json, {}, "t").encode("the fox")).toEqual(
    createTokenizer(golden("byte-level"), {}, "t").encode("the fox"),
  );
});

describe("one clear error for", () => {
  const broken = (change: (json: ReturnType<typeof golden>) => unknown) => {
    const json = golden("byte-level");
    return change(json) ?? json;
  };
  const set = (path: readonly string[], value: unknown) =>
    broken((json) => {
      const parent = path.slice(0, -1).reduce((place, key) => place[key], json);
      if (value === undefined) delete parent[path.at(-1)!];
      else parent[path.at(-1)!] = value;
    });
  test.each<[string, unknown, RegExp]>([
    ["no object", 3, /^t\.json: expected a JSON object, got 3; download/],
    ["no model", set(["model"], undefined), /t\.json: model: expected an object, got nothing/],
    ["no vocabulary", set(["model", "vocab"], undefined), /model\.vocab: expected an object of ids, got nothing/],
    [
      "an id that is no number",
      set(["model", "vocab", "A"], "34"),
      /model\.vocab\.A: expected an integer id below 16777216, got "34"/,
    ],
    [
      "an enormous id",
      set(["model", "vocab", "A"], 4e9),
      /model\.vocab\.A: expected an integer id below 16777216, got 4000000000/,
    ],
    ["no merges", set(["model", "merges"], undefined), /model\.merges: expected a list of merges, got nothing/],
    ["a merge of three", set(["model", "merges"], [["a", "b", "c"]]), /model\.merges: expected pairs of tokens/],
    [
      "a merge of unknown tokens",
      set(["model", "merges"], ["q Q"]),
      /model\.merges: expected tokens of the vocabulary, got "q Q"/,
    ],
    [
      "an added token without an id",
      set(["added_tokens"], [{ content: "x" }]),
      /added_tokens: expected objects with an id and a content/,
    ],
    [
      "an unknown decoder",
      set(["decoder"], { type: "Rot13" }),
      /expected a tokenizer in Hugging Face's format, got Unknown Decoder type: Rot13/,
    ],
    ["an unknown model", set(["model", "type"], "WordLevel"), /model\.type: expected BPE, Unigram or WordPiece, got "WordLevel"/],
    [
      "a broken pattern",
      set(["pre_tokenizer"], { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" }),
      /got Invalid regular expression/,
    ],
  ])("%s", (_, json, message) => {
    const create = () => createTokenizer(json, {}, "t.json");
    expect(create).toThrow(TiltError);
    expect(create).toThrow(message);
  });

  test("any JSON in any place: it works, or a TiltError tells why", () => {
    // The library mentions some faults on the console before it goes on.
    vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const places = [
      "added_tokens",
      "normalizer",
      "pre_tokenizer",
      "post_processor",
      "decoder",
      "model",
      "model.vocab",
      "model.merges",
      "model.unk_token",
      "model.type",
    ];
    const value = fc.oneof(
      fc.jsonValue(),
      fc.record({
        type: fc.constantFrom("ByteLevel", "Sequence", "Replace", "Strip", "Metaspace", "BPE", "Unigram", "WordPiece"),
      }),
    );
    fc.assert(
      fc.property(fc.constantFrom(...places), value, (place, replacement) => {
        try {
          const tokenizer = createTokenizer(set(place.split("."), replacement), {}, "t.json");
          expect(typeof tokenizer.decode(tokenizer.encode("Any text."))).toBe("string");
        } catch (error) {
          expect(error).toBeInstanceOf(TiltError);
        }
      }),
      { numRuns: 200 },
    );
  });
});

const stories = process.env["TILTLM_STORIES"] ?? "../shared/models/stories260K";
describe.skipIf(!existsSync(stories))(
  "stories260K (skipped where ../shared/models/stories260K and TILTLM_STORIES are absent)",
  () => {
    const read = (name: string) => JSON.parse(readFileSync(`${stories}/${name}`, "utf8"));

    test("its golden texts, there and back", () => {
      const tokenizer = createTokenizer(read("tokenizer.json"), read("tokenizer_config.json"), "tokenizer.json");
      const { greedy, samples } = read("golden.json") as Record<
        "greedy" | "samples",
        { ids: number[]; text: string } & { ids: number[]; text: string }[]
      >;
      for (const { ids, text } of [greedy, ...samples]) {
        // The golden texts spell the token of a line break; decoded, it is one.
        const shown = text.replaceAll("<0x0A>", "\n");
        expect(tokenizer.decode(ids)).toBe(shown);
        expect([1, ...tokenizer.encode(shown)]).toEqual(ids);
      }
    });
  },
);

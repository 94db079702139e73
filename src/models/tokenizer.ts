/**
 * Text to token ids and back: an adapter over @huggingface/tokenizers (pure JavaScript), which reads a Hugging Face `tokenizer.json`.
 *
 * What the library leaves to its caller, and where it departs from the reference implementation (Python tokenizers), is settled here:
 * no special tokens are added, special tokens are not shown, no spaces are tidied away, and byte tokens decode exactly.
 */

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { messageOf, runtimeError, type TiltError } from "../base/errors.ts";

export interface Tokenizer {
  /** The largest id, plus one. An embedding may have more rows than that. */
  readonly vocabularySize: number;
  /** The tokens of a text; none are added at its ends. */
  encode(text: string): number[];
  /** The text of the tokens, in full: special tokens and ids without a token are skipped, spaces are kept as they are. */
  decode(ids: ArrayLike<number>): string;
  /** The token as the vocabulary spells it, for example "Ġthe" or "<0x0A>". */
  tokenOf(id: number): string | undefined;
  idOf(token: string): number | undefined;
}

/** What is used of the library: its own declarations import without file extensions, which TypeScript cannot follow from an ES module. */
interface LibraryDecoder {
  readonly config: { readonly type: string };
  readonly decoders?: readonly LibraryDecoder[];
  text_decoder?: { decode(bytes: Uint8Array): string };
}
interface LibraryTokenizer {
  readonly decoder: LibraryDecoder | null;
  readonly model: { readonly vocab: readonly string[] };
  encode(text: string, options: { readonly add_special_tokens: boolean }): { readonly ids: number[] };
  decode(ids: readonly number[], options: { readonly clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

/** Larger than any vocabulary: the library fills an array up to the largest id, so a damaged one must not reach it. */
const largestId = 2 ** 24;
const isId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < largestId;

/** The kind of model; files from before 2021 leave it to be guessed. */
const kindOf = ({ type, merges, vocab }: Json): unknown =>
  type ?? (merges !== undefined ? "BPE" : Array.isArray(vocab) ? "Unigram" : "WordPiece");

/** What is wrong with a tokenizer.json, of all that the library takes on trust: the place, what it should be, what it is. */
const findFault = (json: Json): readonly [place: string, expected: string, got: unknown] | undefined => {
  const { model, added_tokens: added = [] } = json;
  if (!isObject(model)) return ["model", "an object", model];
  const { vocab, merges } = model;
  const kind = kindOf(model);
  // The library would take any other kind for a list of whole words.
  if (kind !== "BPE" && kind !== "Unigram" && kind !== "WordPiece") return ["model.type", "BPE, Unigram or WordPiece", kind];
  const known = new Set<unknown>();
  if (Array.isArray(vocab)) {
    const wrong = vocab.find((piece) => !Array.isArray(piece) || typeof piece[0] !== "string" || typeof piece[1] !== "number");
    if (wrong !== undefined) return ["model.vocab", "pairs of a token and its score", wrong];
  } else if (isObject(vocab)) {
    for (const [token, id] of Object.entries(vocab)) {
      if (!isId(id)) return [`model.vocab.${token}`, `an integer id below ${largestId}`, id];
      known.add(token);
    }
  } else return ["model.vocab", "an object of ids", vocab];
  if (kind === "BPE") {
    if (!Array.isArray(merges)) return ["model.merges", "a list of merges", merges];
    for (const merge of merges) {
      const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
      if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string"))
        return ["model.merges", "pairs of tokens", merge];
      if (![...pair, pair.join("")].every((part) => known.has(part))) return ["model.merges", "tokens of the vocabulary", merge];
    }
  }
  if (!Array.isArray(added)) return ["added_tokens", "a list", added];
  const wrong = added.find(
    (token) => !isObject(token) || !isId(token["id"]) || typeof token["content"] !== "string" || token["content"] === "",
  );
  return wrong === undefined ? undefined : ["added_tokens", "objects with an id and a content", wrong];
};

/**
 * Bytes to text as the reference implementation does it: a run of byte tokens that is not UTF-8 becomes one U+FFFD a byte.
 * The library's own decoder gives one for each broken sequence, and drops a byte order mark from the start of a run.
 */
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const byteRunDecoder = {
  decode(bytes: Uint8Array): string {
    try {
      return strictUtf8.decode(bytes);
    } catch {
      return "\ufffd".repeat(bytes.length);
    }
  },
};

const repairDecoder = (decoder: LibraryDecoder | null): void => {
  if (decoder?.config.type === "ByteFallback") decoder.text_decoder = byteRunDecoder;
  for (const part of decoder?.decoders ?? []) repairDecoder(part);
};

/** Unless told not to, the library removes the space before a punctuation mark, which would make texts of what the model never wrote. */
const exactSpaces = { clean_up_tokenization_spaces: false };

/** Tokens that tokenizer_config.json names for a role; transformers counts them as special even where tokenizer.json does not. */
const rolesOf = (config: Json): string[] =>
  [
    config["bos_token"],
    config["eos_token"],
    config["unk_token"],
    config["pad_token"],
    ...[config["additional_special_tokens"]].flat(),
  ]
    .map((token) => (isObject(token) ? token["content"] : token))
    .filter((token) => typeof token === "string");

/**
 * A tokenizer from the parsed `tokenizer.json` and `tokenizer_config.json` (`{}` where there is none).
 *
 * @param where the file's name, for messages
 * @throws TiltError (runtime) when either is malformed or uses a part that the library does not have
 */
export const createTokenizer = (tokenizerJson: unknown, tokenizerConfig: unknown, where: string): Tokenizer => {
  const complain = (place: string, expected: string, got: string, cause?: unknown): TiltError => {
    const fix = "download the tokenizer again, or save it with save_pretrained() of transformers";
    return runtimeError(
      { where: place === "" ? where : `${where}: ${place}`, expected, got: got.replace(/\s+/g, " ").slice(0, 120), fix },
      cause,
    );
  };
  if (!isObject(tokenizerJson)) throw complain("", "a JSON object", JSON.stringify(tokenizerJson) ?? "nothing");
  if (!isObject(tokenizerConfig))
    throw complain("tokenizer_config", "a JSON object", JSON.stringify(tokenizerConfig) ?? "nothing");
  const fault = findFault(tokenizerJson);
  if (fault !== undefined) throw complain(fault[0], fault[1], JSON.stringify(fault[2]) ?? "nothing");

  const guarded = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      throw complain("", "a tokenizer in Hugging Face's format", messageOf(error), error);
    }
  };
  const model = tokenizerJson["model"] as Json;
  const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...tokenizerJson };
  const added = (tokenizerJson["added_tokens"] ?? []) as readonly { id: number; content: string; special?: boolean }[];
  const library = guarded(
    (): LibraryTokenizer =>
      new HuggingFaceTokenizer({ ...parts, added_tokens: added, model: { ...model, type: kindOf(model) } }, tokenizerConfig),
  );
  repairDecoder(library.decoder);
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  for (const token of rolesOf(tokenizerConfig)) {
    const id = library.token_to_id(token);
    if (id !== undefined) special.add(id);
  }

  // Some faults show only in use; better here, where the file is named, than in the middle of a run.
  guarded(() =>
    library.decode(
      [0, ...library.encode("A text, 1.\n", { add_special_tokens: false }).ids.filter(Number.isInteger)],
      exactSpaces,
    ),
  );

  return {
    vocabularySize: library.model.vocab.length,
    encode: (text) =>
      guarded(() => {
        const { ids } = library.encode(text, { add_special_tokens: false });
        if (!ids.every(Number.isInteger)) throw new Error("a text that its vocabulary cannot spell, and no unknown token");
        return ids;
      }),
    decode: (ids) =>
      guarded(() => {
        const shown = Array.from(ids).filter((id) => !special.has(id) && library.id_to_token(id) !== undefined);
        // The library refuses an empty list.
        return shown.length === 0 ? "" : library.decode(shown, exactSpaces);
      }),
    tokenOf: (id) => library.id_to_token(id),
    idOf: (token) => library.token_to_id(token),
  };
};

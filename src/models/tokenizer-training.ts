/**
 * Byte-level byte-pair encoding in the style of GPT-2 (Sennrich et al., arXiv 1508.07909): starting from the 256 bytes,
 * the most frequent pair of neighbouring tokens inside a word becomes a token, until the vocabulary is full.
 *
 * Counts are kept per word type, and each merge revisits only the words that hold its pair, so the cost is that of the distinct words.
 * Everything is deterministic: among equally frequent pairs the one with the smaller left id wins, then the smaller right id.
 */

import { usageError } from "../base/errors.ts";

export interface TokenizerTraining {
  /** The most tokens, the special ones and the 256 bytes included; fewer where no pair occurs twice any more. */
  readonly vocabularySize: number;
  /** They get the first ids, in this order, and split the texts they occur in. */
  readonly specialTokens: readonly string[];
  /** Called after each merge with the number done and the number wanted. */
  readonly onProgress?: (merges: number, total: number) => void;
}

/** GPT-2's words: English clitics, and runs of letters, digits or other marks, each with the space before it; then what space is left. */
const wordPattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The character that stands for each byte: itself where it is visible in Latin-1, else the next one from U+0100 on ("Ġ" for a space). */
const byteCharacters: readonly string[] = (() => {
  const isVisible = (byte: number): boolean => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isVisible(byte) ? byte : next++));
})();

/** A kind of word: its tokens so far, and how often it occurs. */
interface Word {
  tokens: readonly number[];
  readonly occurrences: number;
}

/** A pair of tokens as one number; ids stay below 2^21, so it is exact, and orders by left id, then right id. */
const radix = 2 ** 21;
const pairOf = (left: number, right: number): number => left * radix + right;

/** A heap of pairs, the most frequent first, then the smallest. A pair may be in it several times, with counts of the past. */
interface Candidate {
  readonly count: number;
  readonly pair: number;
}
const isBefore = (a: Candidate, b: Candidate): boolean => a.count > b.count || (a.count === b.count && a.pair < b.pair);

const push = (heap: Candidate[], candidate: Candidate): void => {
  let at = heap.length;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(candidate, heap[parent]!)) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = candidate;
};

const pop = (heap: Candidate[]): Candidate | undefined => {
  const top = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
    if (child >= heap.length || !isBefore(heap[child]!, last)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return top;
};

/** The tokens with each occurrence of the pair, from the left, replaced by the merged token. */
const merged = (tokens: readonly number[], left: number, right: number, id: number): number[] => {
  const result: number[] = [];
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i] === left && tokens[i + 1] === right) {
      result.push(id);
      i++;
    } else result.push(tokens[i]!);
  }
  return result;
};

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** The words of the texts, split as they will be when they are encoded, each with how often it occurs. */
const countWords = (texts: Iterable<string>, specialTokens: readonly string[]): Map<string, number> => {
  // Longest first, as when encoding, where a special token may begin with another.
  const boundaries = [...specialTokens].sort((a, b) => b.length - a.length).map(escaped);
  const boundary = boundaries.length === 0 ? undefined : new RegExp(boundaries.join("|"), "u");
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const section of boundary === undefined ? [text] : text.split(boundary)) {
      for (const word of section.match(wordPattern) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
};

const checkOptions = ({ vocabularySize, specialTokens }: TokenizerTraining): void => {
  const where = "tokenizer training";
  const least = specialTokens.length + byteCharacters.length;
  if (!Number.isInteger(vocabularySize) || vocabularySize < least || vocabularySize > radix) {
    const expected = `a vocabulary of ${least} (the bytes and the special tokens) to ${radix} tokens`;
    throw usageError({ where, expected, got: String(vocabularySize), fix: "choose another vocabularySize" });
  }
  const wrong = specialTokens.find(
    (token, i) => token === "" || byteCharacters.includes(token) || specialTokens.indexOf(token) !== i,
  );
  if (wrong !== undefined) {
    const expected = "special tokens that are distinct, not empty and not a single byte's character";
    throw usageError({ where, expected, got: JSON.stringify(wrong), fix: "rename or drop it" });
  }
};

/**
 * A tokenizer trained on texts, as the contents of a Hugging Face `tokenizer.json` and `tokenizer_config.json`.
 *
 * @throws TiltError (usage) when the vocabulary is too small for the bytes, or a special token cannot be one
 */
export const trainByteLevelBpe = (
  texts: Iterable<string>,
  options: TokenizerTraining,
): { tokenizerJson: object; tokenizerConfig: object } => {
  const { vocabularySize, specialTokens, onProgress } = options;
  checkOptions(options);

  const tokens = [...specialTokens, ...[...byteCharacters].sort()];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const idOfByte = byteCharacters.map((character) => idOf.get(character)!);
  const encoder = new TextEncoder();
  const words: Word[] = [];
  for (const [word, occurrences] of countWords(texts, specialTokens)) {
    words.push({ tokens: Array.from(encoder.encode(word), (byte) => idOfByte[byte]!), occurrences });
  }

  const counts = new Map<number, number>();
  const holders = new Map<number, Set<Word>>();
  const count = (word: Word, sign: 1 | -1): void => {
    for (let i = 1; i < word.tokens.length; i++) {
      const pair = pairOf(word.tokens[i - 1]!, word.tokens[i]!);
      counts.set(pair, (counts.get(pair) ?? 0) + sign * word.occurrences);
      if (sign === 1) {
        const held = holders.get(pair);
        if (held === undefined) holders.set(pair, new Set([word]));
        else held.add(word);
      }
    }
  };
  for (const word of words) count(word, 1);
  const heap: Candidate[] = [];
  for (const [pair, occurrences] of counts) push(heap, { pair, count: occurrences });

  const merges: string[] = [];
  const total = vocabularySize - tokens.length;
  while (merges.length < total) {
    const best = pop(heap);
    // A pair that occurs once says nothing about other texts.
    if (best === undefined || best.count < 2) break;
    const current = counts.get(best.pair) ?? 0;
    if (current !== best.count) {
      // Its count fell since it was pushed (a count that rose was pushed anew).
      if (current < best.count && current > 0) push(heap, { pair: best.pair, count: current });
      continue;
    }
    const left = Math.floor(best.pair / radix);
    const right = best.pair % radix;
    const token = tokens[left]! + tokens[right]!;
    // Merges never cross the ends of what becomes a token, so the same text is never made in a second way. It can only be the
    // name of a special token, where that looks like bytes ("Ġa" and " a").
    if (idOf.has(token)) continue;
    const id = tokens.push(token) - 1;
    idOf.set(token, id);
    merges.push(`${tokens[left]} ${tokens[right]}`);
    const affected = holders.get(best.pair) ?? [];
    holders.delete(best.pair);
    const created = new Set<number>();
    for (const word of affected) {
      const next = merged(word.tokens, left, right, id);
      if (next.length === word.tokens.length) continue;
      count(word, -1);
      word.tokens = next;
      count(word, 1);
      // Only pairs with the new token can have become more frequent.
      for (let i = 1; i < next.length; i++) if (next[i - 1] === id || next[i] === id) created.add(pairOf(next[i - 1]!, next[i]!));
    }
    for (const pair of created) push(heap, { pair, count: counts.get(pair)! });
    onProgress?.(merges.length, total);
  }

  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizerJson = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  return { tokenizerJson, tokenizerConfig: { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false } };
};

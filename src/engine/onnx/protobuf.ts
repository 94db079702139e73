/**
 * Writes protocol buffers: just the wire types that ONNX models need (varint, 32-bit, length-delimited).
 * A message is a list of byte chunks, so that large tensors are referred to and not copied until the model is joined.
 */

import { createPauses } from "../../base/pause.ts";

/** Bytes that are not here: how many they are, and what knows them. */
export interface Gap {
  readonly length: number;
  readonly of: object;
}

export type Chunk = Uint8Array | Gap;

export interface Message {
  readonly chunks: readonly Chunk[];
  readonly size: number;
}

const varint = (value: number | bigint): Uint8Array => {
  // Nearly all there are: tags, lengths, axes.
  if (value >= 0 && value < 128) return Uint8Array.of(Number(value));
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return Uint8Array.from(bytes);
};

/** Bytes that are copied together at once: thousands of arrays of a few bytes each take longer to hand on. */
const smallSize = 4096;

const sizeOfAll = (chunks: readonly Chunk[]): number => chunks.reduce((total, chunk) => total + chunk.length, 0);

const messageOf = (chunks: readonly Chunk[]): Message => {
  const size = sizeOfAll(chunks);
  const isSmall = size <= smallSize && chunks.every((chunk) => !("of" in chunk));
  return { chunks: isSmall ? [joinBytes(chunks as readonly Uint8Array[])] : chunks, size };
};

const of = (...chunks: Chunk[]): Message => messageOf(chunks);

export const join = (parts: readonly Message[]): Message => messageOf(parts.flatMap((part) => part.chunks));

const tag = (field: number, wire: number): Uint8Array => varint((field << 3) | wire);

export const integerField = (field: number, value: number | bigint): Message => of(tag(field, 0), varint(value));

export const floatField = (field: number, value: number): Message => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return of(tag(field, 5), bytes);
};

export const bytesField = (field: number, bytes: Chunk): Message => of(tag(field, 2), varint(bytes.length), bytes);

const encoder = new TextEncoder();
export const textField = (field: number, text: string): Message => bytesField(field, encoder.encode(text));

export const messageField = (field: number, message: Message): Message =>
  join([of(tag(field, 2), varint(message.size)), message]);

/** Bytes that are copied in a few milliseconds. */
const pieceSize = 4 * 2 ** 20;

/** One array of them all; where there is only one, that. */
export const joinBytes = (chunks: readonly Uint8Array[]): Uint8Array => {
  if (chunks.length === 1) return chunks[0]!;
  const bytes = new Uint8Array(sizeOfAll(chunks));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
};

/** The same in turns, and always a new array: of a large model it takes most of a second. */
const joinBytesInTurns = async (chunks: readonly Uint8Array[]): Promise<Uint8Array> => {
  const bytes = new Uint8Array(sizeOfAll(chunks));
  const pause = createPauses();
  let at = 0;
  for (const chunk of chunks) {
    for (let start = 0; start < chunk.length; start += pieceSize) {
      bytes.set(chunk.subarray(start, start + pieceSize), at + start);
      await pause();
    }
    at += chunk.length;
  }
  return bytes;
};

/** A message that has no gaps as one array. */
export const toBytes = ({ chunks }: Message): Uint8Array => joinBytes(chunks as readonly Uint8Array[]);

/** A message in turns: what lies between its gaps is joined. */
export const toPartsInTurns = async ({ chunks }: Message): Promise<Chunk[]> => {
  const parts: Chunk[] = [];
  let own: Uint8Array[] = [];
  for (const chunk of chunks) {
    if ("of" in chunk) {
      parts.push(await joinBytesInTurns(own), chunk);
      own = [];
    } else own.push(chunk);
  }
  return [...parts, await joinBytesInTurns(own)];
};

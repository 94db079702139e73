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
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return Uint8Array.from(bytes);
};

export const join = (parts: readonly Message[]): Message => ({
  chunks: parts.flatMap((part) => part.chunks),
  size: parts.reduce((total, part) => total + part.size, 0),
});

const of = (...chunks: Chunk[]): Message => ({ chunks, size: chunks.reduce((total, chunk) => total + chunk.length, 0) });

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

/** Copies chunks into one array, piece by piece. */
function* copying(chunks: readonly Uint8Array[]): Generator<void, Uint8Array> {
  const bytes = new Uint8Array(chunks.reduce((total, chunk) => total + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    for (let start = 0; start < chunk.length; start += pieceSize) {
      const piece = chunk.subarray(start, start + pieceSize);
      bytes.set(piece, at);
      at += piece.length;
      yield;
    }
  }
  return bytes;
}

/** One array of them all; where there is only one, that. */
export const joinBytes = (chunks: readonly Uint8Array[]): Uint8Array => {
  if (chunks.length === 1) return chunks[0]!;
  const copy = copying(chunks);
  for (;;) {
    const { done, value } = copy.next();
    if (done) return value;
  }
};

/** The same in turns: of a large model it takes most of a second. */
export const joinBytesInTurns = async (chunks: readonly Uint8Array[]): Promise<Uint8Array> => {
  const copy = copying(chunks);
  const pause = createPauses();
  for (;;) {
    const { done, value } = copy.next();
    if (done) return value;
    await pause();
  }
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

/**
 * Writes protocol buffers: just the wire types that ONNX models need (varint, 32-bit, length-delimited).
 * A message is a list of byte chunks, so that large tensors are referred to and not copied until the model is joined.
 */

import { createPauses } from "../../base/pause.ts";

export interface Message {
  readonly chunks: readonly Uint8Array[];
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

const of = (...chunks: Uint8Array[]): Message => ({ chunks, size: chunks.reduce((total, chunk) => total + chunk.length, 0) });

const tag = (field: number, wire: number): Uint8Array => varint((field << 3) | wire);

export const integerField = (field: number, value: number | bigint): Message => of(tag(field, 0), varint(value));

export const floatField = (field: number, value: number): Message => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return of(tag(field, 5), bytes);
};

export const bytesField = (field: number, bytes: Uint8Array): Message => of(tag(field, 2), varint(bytes.length), bytes);

const encoder = new TextEncoder();
export const textField = (field: number, text: string): Message => bytesField(field, encoder.encode(text));

export const messageField = (field: number, message: Message): Message =>
  join([of(tag(field, 2), varint(message.size)), message]);

/** Bytes that are copied in a few milliseconds. */
const pieceSize = 4 * 2 ** 20;

/** Copies a message into one array, piece by piece. */
function* copying(message: Message): Generator<void, Uint8Array> {
  const bytes = new Uint8Array(message.size);
  let at = 0;
  for (const chunk of message.chunks) {
    for (let start = 0; start < chunk.length; start += pieceSize) {
      const piece = chunk.subarray(start, start + pieceSize);
      bytes.set(piece, at);
      at += piece.length;
      yield;
    }
  }
  return bytes;
}

/** One contiguous array. */
export const toBytes = (message: Message): Uint8Array => {
  const copy = copying(message);
  for (;;) {
    const { done, value } = copy.next();
    if (done) return value;
  }
};

/** The same in turns: of a large model it takes most of a second. */
export const toBytesInTurns = async (message: Message): Promise<Uint8Array> => {
  const copy = copying(message);
  const pause = createPauses();
  for (;;) {
    const { done, value } = copy.next();
    if (done) return value;
    await pause();
  }
};

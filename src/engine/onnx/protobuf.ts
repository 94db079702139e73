/**
 * Writes protocol buffers: just the wire types that ONNX models need (varint, 32-bit, length-delimited).
 * A message is a list of byte chunks, so that large tensors are referred to and not copied until the model is joined.
 */

export interface Message {
  readonly chunks: readonly Uint8Array[];
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

const sizeOfAll = (chunks: readonly Uint8Array[]): number => chunks.reduce((total, chunk) => total + chunk.length, 0);

const joinBytes = (chunks: readonly Uint8Array[]): Uint8Array => {
  const bytes = new Uint8Array(sizeOfAll(chunks));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
};

const messageOf = (chunks: readonly Uint8Array[]): Message => {
  const size = sizeOfAll(chunks);
  return { chunks: size <= smallSize ? [joinBytes(chunks)] : chunks, size };
};

const of = (...chunks: Uint8Array[]): Message => messageOf(chunks);

export const join = (parts: readonly Message[]): Message => messageOf(parts.flatMap((part) => part.chunks));

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

/** A message as one array of bytes, of its own. */
export const toBytes = ({ chunks }: Message): Uint8Array => joinBytes(chunks);

import { expect, test } from "vitest";
import { bytesField, type Chunk, join, joinBytes, messageField, toBytes, toPartsInTurns } from "./protobuf.ts";

test("in turns the bytes are the same, and others have theirs meanwhile", async () => {
  const large = Uint8Array.from({ length: 9 * 2 ** 20 + 5 }, (_, i) => i * 7);
  const message = join([bytesField(1, large), bytesField(2, Uint8Array.of(1, 2, 3))]);
  const parts = await toPartsInTurns(message);
  expect(parts).toHaveLength(1);
  expect(Buffer.compare(parts[0] as Uint8Array, toBytes(message))).toBe(0);
  // Long enough for several turns of 20 ms on any machine: 512 MB.
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await toPartsInTurns(join(Array.from({ length: 56 }, () => bytesField(1, large))));
  clearInterval(timer);
  expect(turns).toBeGreaterThan(1);
});

test("bytes that are elsewhere leave a gap, and count", async () => {
  const elsewhere = {};
  const bytes = Uint8Array.of(4, 5, 6);
  const field = (chunk: Chunk) =>
    join([bytesField(1, Uint8Array.of(1)), messageField(3, bytesField(2, chunk)), bytesField(4, bytes)]);
  const whole = toBytes(field(bytes));
  const message = field({ length: bytes.length, of: elsewhere });
  expect(message.size).toBe(whole.length);
  const parts = await toPartsInTurns(message);
  expect(parts.map((part) => ("of" in part ? part.of : undefined))).toEqual([undefined, elsewhere, undefined]);
  expect(joinBytes(parts.map((part) => ("of" in part ? bytes : part)))).toEqual(whole);
});

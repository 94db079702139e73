import { expect, test } from "vitest";
import { bytesField, join, toBytes, toBytesInTurns } from "./protobuf.ts";

test("in turns the bytes are the same, and others have theirs meanwhile", async () => {
  const large = Uint8Array.from({ length: 9 * 2 ** 20 + 5 }, (_, i) => i * 7);
  const message = join([bytesField(1, large), bytesField(2, Uint8Array.of(1, 2, 3))]);
  expect(Buffer.compare(await toBytesInTurns(message), toBytes(message))).toBe(0);
  // Long enough for several turns of 20 ms on any machine: 512 MB.
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await toBytesInTurns(join(Array.from({ length: 56 }, () => bytesField(1, large))));
  clearInterval(timer);
  expect(turns).toBeGreaterThan(1);
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./float16.ts";

const formats = [
  { name: "F16", widen: float16ToFloat32, narrow: float32ToFloat16, infinity: 0x7c00 },
  { name: "BF16", widen: bfloat16ToFloat32, narrow: float32ToBfloat16, infinity: 0x7f80 },
];

describe.each(formats)("$name", ({ widen, narrow, infinity }) => {
  const all = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
  const isNaNBits = (bits: number) => (bits & 0x7fff) > infinity;

  test("every number survives the way there and back, bit for bit; every NaN stays a NaN", () => {
    const values = widen(all);
    const back = narrow(values);
    const changed = [...all].filter((bits) =>
      isNaNBits(bits) ? !Number.isNaN(values[bits]) || !isNaNBits(back[bits]!) : back[bits] !== bits,
    );
    expect(changed).toEqual([]);
  });

  test("between two neighbours the nearest wins, and a tie goes to the even one", () => {
    // Every finite neighbour pair, with infinity standing for the step beyond the largest number.
    const values = widen(all.slice(0, infinity));
    const wrong: number[] = [];
    const nudge = new Float32Array(3);
    const bits = new Uint32Array(nudge.buffer);
    for (let below = 0; below < infinity; below++) {
      const step = below + 1 < infinity ? values[below + 1]! : 2 * values[below]! - values[below - 1]!;
      nudge.fill((values[below]! + step) / 2);
      // float32 holds every midpoint of either format exactly; its own neighbours lie just below and just above the tie.
      bits[0]! -= 1;
      bits[2]! += 1;
      const [low, tie, high] = narrow(nudge);
      if (low !== below || high !== below + 1 || tie !== (below % 2 === 0 ? below : below + 1)) wrong.push(below);
    }
    expect(wrong).toEqual([]);
  });

  test("the sign never changes the magnitude", () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (value) => {
        const [plus, minus] = narrow(Float32Array.of(value, -value));
        expect(plus! ^ minus!).toBe(0x8000);
      }),
    );
  });
});

test("known values", () => {
  expect([
    ...float32ToFloat16(Float32Array.of(0, -0, 1, -2, 65504, 65519, 65520, Infinity, 2 ** -24, 2 ** -25, 2 ** -14)),
  ]).toEqual([0, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 1, 0, 0x400]);
  expect([...float32ToBfloat16(Float32Array.of(0, -0, 1, -2, 3.4e38, -Infinity))]).toEqual([
    0, 0x8000, 0x3f80, 0xc000, 0x7f80, 0xff80,
  ]);
  expect(float16ToFloat32(Uint16Array.of(0x3555))[0]).toBe(0.333251953125);
  const hiddenPayload = new Float32Array(Uint32Array.of(0x7f800001).buffer);
  expect([...float32ToBfloat16(hiddenPayload), ...float32ToFloat16(hiddenPayload)]).toEqual([0x7fc0, 0x7e00]);
});

/**
 * Half precision to float32 and back: IEEE 754 binary16 (F16: 1 sign, 5 exponent, 10 fraction bits) and bfloat16
 * (BF16: 1, 8, 7; the upper half of a float32). Widening is exact; narrowing rounds to nearest, ties to even,
 * keeps subnormals and signed zeros, overflows to infinity and keeps NaN a NaN.
 *
 * Raw bits travel as Uint16Array, since Node 20 has no Float16Array.
 */

const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

/** F16 bits to the float32 values they denote. */
export const float16ToFloat32 = (halves: Uint16Array): Float32Array => {
  const values = new Float32Array(halves.length);
  const bits = bitsOf(values);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i]!;
    const sign = (half & 0x8000) << 16;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) values[i] = (sign === 0 ? 1 : -1) * fraction * 2 ** -24;
    else if (exponent === 31) bits[i] = sign | 0x7f800000 | (fraction << 13);
    else bits[i] = sign | ((exponent + 112) << 23) | (fraction << 13);
  }
  return values;
};

/** The even neighbour on a tie; exact for 0 <= value < 2^52. */
const roundHalfToEven = (value: number): number => {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
};

/** The F16 bits nearest to each value. */
export const float32ToFloat16 = (values: Float32Array): Uint16Array => {
  const halves = new Uint16Array(values.length);
  const bits = bitsOf(values);
  for (let i = 0; i < values.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fffffff;
    if (magnitude > 0x7f800000) halves[i] = sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
    // 65520 is half way between the largest finite F16, 65504, and the next step: the tie goes to infinity.
    else if (magnitude >= 0x477ff000) halves[i] = sign | 0x7c00;
    // Below 2^-14 the F16 numbers are the multiples of 2^-24; 1024 of them is the smallest normal one, whose bits follow on.
    else if (magnitude < 0x38800000) halves[i] = sign | roundHalfToEven(Math.abs(values[i]!) * 2 ** 24);
    else halves[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  return halves;
};

/** BF16 bits to the float32 values they denote. */
export const bfloat16ToFloat32 = (halves: Uint16Array): Float32Array => {
  const values = new Float32Array(halves.length);
  const bits = bitsOf(values);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return values;
};

/** The BF16 bits nearest to each value. */
export const float32ToBfloat16 = (values: Float32Array): Uint16Array => {
  const halves = new Uint16Array(values.length);
  const bits = bitsOf(values);
  for (let i = 0; i < values.length; i++) {
    const word = bits[i]!;
    const notANumber = (word & 0x7fffffff) > 0x7f800000;
    // A NaN whose payload lies in the lower half must not turn into infinity, so its quiet bit is set.
    halves[i] = notANumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return halves;
};

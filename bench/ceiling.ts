/**
 * What this machine gives at best, measured with the runtime and in the process of the figures that are compared with it: the rate of one large
 * float32 product, and of copying memory.
 */

import type * as Library from "../src/index.ts";

export interface Ceiling {
  /** FLOPs per second of a product of [1024, 768] by [768, 3072]. */
  readonly flopsPerSecond: number;
  /** Bytes copied per second, 64 MiB at a time. */
  readonly bytesPerSecond: number;
}

const [rows, inner, columns] = [1024, 768, 3072];
/** Products per measurement: a quarter of a second or half of one on two cores. */
const products = 16;
const copiedBytes = 64 * 2 ** 20;

/** The one and the other, measured each time they are called. */
export interface CeilingProbe {
  flopsPerSecond(): Promise<number>;
  bytesPerSecond(): number;
}

/**
 * Makes a probe, of 30 MB until bytes are asked for. The product is cut to a row and summed in the graph, so that no result has to be copied out.
 * @param device one that shares a product out to all cores
 */
export const openCeiling = async (
  { f32, ops }: Pick<typeof Library, "f32" | "ops">,
  device: Library.Device,
): Promise<CeilingProbe> => {
  const noise = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => ((i * 7919) % 1013) / 1013 - 0.5);
  const a = ops.input("a", "f32", [rows, inner]);
  const b = ops.input("b", "f32", [inner, columns]);
  const graph = { inputs: { a, b }, outputs: { sum: ops.sum(ops.slice(ops.gemm(a, b), 0, 0, 1)) } };
  const program = await device.compile(graph, { frozen: { b: f32([inner, columns], noise(inner * columns)) } });
  const given = { a: f32([rows, inner], noise(rows * inner)) };
  const secondsSince = (start: number): number => (performance.now() - start) / 1000;
  let arrays: readonly [from: Float32Array, to: Float32Array] | undefined;
  await program.run(given);
  return {
    flopsPerSecond: async () => {
      const start = performance.now();
      for (let i = 0; i < products; i++) await (await program.run(given))["sum"]!.read();
      return (products * 2 * rows * inner * columns) / secondsSince(start);
    },
    bytesPerSecond: () => {
      arrays ??= [new Float32Array(copiedBytes / 4).fill(1), new Float32Array(copiedBytes / 4).fill(2)];
      const start = performance.now();
      arrays[1].set(arrays[0]);
      return copiedBytes / secondsSince(start);
    },
  };
};

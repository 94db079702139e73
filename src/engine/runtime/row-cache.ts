/**
 * Tensors [B, ..., C, K] that grow by one row along their second to last axis after every run of a program: keys and values of attention.
 * The program only reads them; its outputs of the same names [B, ..., K] are the rows to add. Writing rows into a buffer that is passed
 * without a copy is nearly twice as fast as passing whole caches in and out (docs/performance.md).
 */

import { allocate, type DataOf, type HostTensor, sizeOf, tensor } from "../../base/tensor.ts";
import type { TypeOf } from "../graph.ts";

export interface RowCaches {
  /** The caches as inputs. @param batch how many sequences there are, where they are empty yet */
  tensors(batch: number): Readonly<Record<string, HostTensor>>;
  /** Adds a row to each cache. */
  append(rows: Readonly<Record<string, HostTensor>>): void;
  /** Forgets everything. */
  empty(): void;
  /** Keeps some sequences, in ascending order. */
  keep(sequences: Int32Array): void;
  /** Forgets everything, and lets go of the memory, which is returned. */
  clear(): readonly ArrayBufferView[];
}

/** Room is taken in pieces of this many rows: reading room that is not filled yet costs time. */
const capacityStep = 8;

/** A cache: a buffer that is kept for the next batch too (fresh memory costs a page fault every 4 KiB), of which the beginning is in use. */
interface Cache<D extends "f32" | "f64"> {
  readonly groups: number;
  readonly inner: readonly number[];
  readonly width: number;
  buffer: DataOf[D];
}

/**
 * @param types what the caches are as inputs: the first axis is of sequences, the second to last of rows
 * @param rows  how many there will be, as far as is known
 */
export const createRowCaches = <D extends "f32" | "f64">(
  types: Readonly<Record<string, TypeOf>>,
  dtype: D,
  rows = 0,
): RowCaches => {
  const caches = Object.entries(types).map(([name, { shape }]): readonly [string, Cache<D>] => {
    const inner = shape.slice(1, -2) as number[];
    return [name, { groups: sizeOf(inner), inner, width: shape[shape.length - 1] as number, buffer: allocate(dtype, 0) }];
  });
  let batch = 0;
  let filled = 0;
  let capacity = capacityStep;

  const reserve = (cache: Cache<D>): void => {
    const ofRow = batch * cache.groups * cache.width;
    if (cache.buffer.length >= ofRow * capacity) return;
    const larger = allocate(dtype, ofRow * Math.max(capacity, capacityStep * Math.ceil(rows / capacityStep)));
    larger.set(cache.buffer);
    cache.buffer = larger;
  };

  const empty = (): void => {
    filled = 0;
    capacity = capacityStep;
  };

  return {
    tensors: (sequences) => {
      if (filled === 0) {
        batch = sequences;
        for (const [, cache] of caches) {
          reserve(cache);
          // Numbers of an earlier batch would be masked, but 0 times infinity is not 0.
          cache.buffer.fill(0, 0, batch * cache.groups * capacity * cache.width);
        }
      }
      return Object.fromEntries(
        caches.map(([name, { groups, inner, width, buffer }]) => {
          const used = buffer.subarray(0, batch * groups * capacity * width) as DataOf[D];
          return [name, tensor(dtype, [batch, ...inner, capacity, width], used)];
        }),
      );
    },
    append: (rows) => {
      if (filled === capacity) {
        const old = capacity;
        capacity += capacityStep;
        for (const [, cache] of caches) {
          reserve(cache);
          const { buffer, groups, width } = cache;
          // Apart from each other, the last first: none is written over before it has been moved.
          for (let at = batch * groups - 1; at >= 0; at--) {
            buffer.copyWithin(at * capacity * width, at * old * width, (at + 1) * old * width);
            buffer.fill(0, (at * capacity + old) * width, (at + 1) * capacity * width);
          }
        }
      }
      for (const [name, { buffer, width }] of caches) {
        const { data: row } = rows[name]!;
        for (let from = 0, to = filled * width; from < row.length; from += width, to += capacity * width)
          for (let k = 0; k < width; k++) buffer[to + k] = row[from + k]!;
      }
      filled++;
    },
    empty,
    clear: () => {
      empty();
      return caches.map(([, cache]) => {
        const { buffer } = cache;
        cache.buffer = allocate(dtype, 0);
        return buffer;
      });
    },
    keep: (sequences) => {
      for (const [, { buffer, groups, width }] of caches) {
        const size = groups * capacity * width;
        for (const [to, from] of sequences.entries()) buffer.copyWithin(to * size, from * size, (from + 1) * size);
      }
      batch = sequences.length;
    },
  };
};

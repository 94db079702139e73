/**
 * Tensors [B, ..., C, K] that grow by one row along their second to last axis after every run of a program: keys and values of attention.
 * The program only reads them; its outputs of the same names [B, ..., K] are the rows to add. Writing rows into a buffer that is passed
 * without a copy is nearly twice as fast as passing whole caches in and out (docs/performance.md).
 */

import { allocate, type HostTensor, sizeOf, tensor, zeros } from "../../base/tensor.ts";
import type { TypeOf } from "../graph.ts";

export interface RowCaches {
  /** The caches as inputs. @param batch how many sequences there are, where they are empty yet */
  tensors(batch: number): Readonly<Record<string, HostTensor>>;
  /** Adds a row to each cache. */
  append(rows: Readonly<Record<string, HostTensor>>): void;
  /** Forgets everything. */
  empty(): void;
  /** Keeps some sequences, in this order. */
  keep(sequences: Int32Array): void;
}

/** Room is taken in pieces of this many rows: reading room that is not filled yet costs time. */
const capacityStep = 16;

/** @param types what the caches are as inputs: the first axis is of sequences, the second to last of rows */
export const createRowCaches = (types: Readonly<Record<string, TypeOf>>, dtype: "f32" | "f64" = "f32"): RowCaches => {
  let held: Record<string, HostTensor<"f32" | "f64">> | undefined;
  let filled = 0;
  let capacity = capacityStep;

  /** Every cache made anew with this many sequences and rows, and `copy` to say what goes where. */
  const remake = (sequences: Int32Array, room: number): void => {
    for (const [name, { shape, data }] of Object.entries(held!)) {
      const width = shape[shape.length - 1]!;
      const groups = sizeOf(shape.slice(1, -2));
      const remade = allocate(dtype, sequences.length * groups * room * width);
      sequences.forEach((b, to) => {
        for (let group = 0; group < groups; group++) {
          const from = (b * groups + group) * capacity * width;
          remade.set(data.subarray(from, from + filled * width), (to * groups + group) * room * width);
        }
      });
      held![name] = tensor(dtype, [sequences.length, ...shape.slice(1, -2), room, width], remade);
    }
    capacity = room;
  };

  const sequencesOf = (cache: HostTensor): number => cache.shape[0]!;

  return {
    tensors: (batch) => {
      held ??= Object.fromEntries(
        Object.entries(types).map(([name, { shape }]) => {
          const sizes = [batch, ...(shape.slice(1, -2) as number[]), capacity, shape[shape.length - 1] as number];
          return [name, zeros(dtype, sizes)];
        }),
      );
      return held;
    },
    append: (rows) => {
      if (filled === capacity) {
        const [first] = Object.values(held!);
        remake(
          Int32Array.from({ length: sequencesOf(first!) }, (_, b) => b),
          capacity + capacityStep,
        );
      }
      for (const [name, { shape, data }] of Object.entries(held!)) {
        const width = shape[shape.length - 1]!;
        const { data: row } = rows[name]!;
        for (let from = 0, to = filled * width; from < row.length; from += width, to += capacity * width)
          for (let k = 0; k < width; k++) data[to + k] = row[from + k]!;
      }
      filled++;
    },
    empty: () => {
      held = undefined;
      filled = 0;
      capacity = capacityStep;
    },
    keep: (sequences) => {
      if (held !== undefined) remake(sequences, capacity);
    },
  };
};

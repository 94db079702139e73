/** Every op. `records` is what the conformance and gradient tests go through: an op that is missing there has no test. */

import type { Op } from "../graph.ts";
import * as composite from "./composite.ts";
import * as elementwise from "./elementwise.ts";
import * as gather from "./gather.ts";
import * as layout from "./layout.ts";
import * as matmul from "./matmul.ts";
import * as reduce from "./reduce.ts";
import * as source from "./source.ts";

export * from "./composite.ts";
export * from "./elementwise.ts";
export * from "./gather.ts";
export { concat, count, expand, pad, reshape, slice, sum, sumTo, transpose } from "./layout.ts";
export { gemm, matmul } from "./matmul.ts";
export { argMax, cumulativeSum, logSumExp, max, mean, sortDescending } from "./reduce.ts";
export { constant, input, iota, table } from "./source.ts";

const isOp = (value: unknown): value is Op => typeof value === "object" && value !== null && "lower" in value;

/** All op records, by name. */
export const records: Readonly<Record<string, Op>> = Object.fromEntries(
  [source, layout, elementwise, reduce, matmul, gather, composite]
    .flatMap((module) => Object.values(module) as unknown[])
    .filter(isOp)
    .map((op) => [op.name, op]),
);

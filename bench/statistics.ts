/** Few measurements of the same thing, summed up. */

export interface Summary {
  readonly n: number;
  readonly median: number;
  readonly minimum: number;
  readonly maximum: number;
}

/** @throws RangeError without values, or where one is not finite */
export const summarize = (values: readonly number[]): Summary => {
  if (values.length === 0 || !values.every(Number.isFinite)) throw new RangeError(`expected finite numbers, got [${values}]`);
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return {
    n: sorted.length,
    median: sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2,
    minimum: sorted[0]!,
    maximum: sorted.at(-1)!,
  };
};

/** (maximum - minimum) / median: how far a figure can be trusted. */
export const spreadOf = ({ median, minimum, maximum }: Summary): number => (median === 0 ? 0 : (maximum - minimum) / median);

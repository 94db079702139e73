/**
 * Shapes with named axes. An axis is a number, a name ("B"), or an expression over names ("B*T", "C+1"): documentation, check and
 * ONNX dimension name at once. Two symbolic axes are equal when they are written the same.
 */

import { runtimeError, TiltError } from "../base/errors.ts";
import type { DType } from "../base/tensor.ts";

export type Axis = number | string;
export type Shape = readonly Axis[];

export const showShape = (shape: Shape): string => `[${shape.join(", ")}]`;

/** A mistake in how a graph is put together: a bug of the caller, found while building. */
export const shapeError = (where: string, expected: string, got: string): TiltError =>
  new TiltError("runtime", `${where}: expected ${expected}, got ${got}; check the axes of the inputs`);

/** @throws TiltError when an input is of a dtype that the op has no kernel for */
export const needDTypes = (where: string, inputs: readonly { readonly dtype: DType }[], allowed: readonly DType[]): void => {
  for (const { dtype } of inputs)
    if (!allowed.includes(dtype)) throw shapeError(where, `inputs of dtype ${allowed.join(" or ")}`, dtype);
};

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((axis, i) => axis === b[i]);

/** The axis of the product of axes: numbers multiply, names join with "*". */
export const timesAxes = (axes: Shape): Axis => {
  const numbers = axes.filter((axis) => typeof axis === "number").reduce((product, axis) => product * axis, 1);
  const names = axes.filter((axis) => typeof axis === "string");
  if (numbers === 0 || names.length === 0) return numbers;
  if (names.some((name) => name.includes("+"))) throw shapeError("timesAxes", "names or products of names", names.join(" and "));
  return [...(numbers === 1 ? [] : [String(numbers)]), ...names].join("*");
};

/** The axis of two axes end to end: names first, in order, and one number last, so that equal sums are written the same. */
export const plusAxes = (a: Axis, b: Axis): Axis => {
  const terms = [a, b].flatMap((axis) =>
    typeof axis === "number" ? [axis] : axis.split("+").map((term) => (/^\d+$/.test(term) ? Number(term) : term)),
  );
  const number = terms.reduce<number>((total, term) => (typeof term === "number" ? total + term : total), 0);
  const names = terms.filter((term) => typeof term === "string");
  return names.length === 0 ? number : [...names, ...(number === 0 ? [] : [number])].join("+");
};

export type Bindings = ReadonlyMap<string, number>;

/** The names in an axis expression. */
export const namesIn = (axis: Axis): string[] =>
  typeof axis === "number" ? [] : axis.split(/[+*]/).filter((term) => !/^\d+$/.test(term));

/** The number an axis stands for. @throws TiltError when a name is not bound */
export const resolveAxis = (axis: Axis, bindings: Bindings): number => {
  if (typeof axis === "number") return axis;
  const sizeOfTerm = (term: string): number => {
    if (/^\d+$/.test(term)) return Number(term);
    const bound = bindings.get(term);
    if (bound === undefined) throw shapeError("resolveAxis", `axis "${term}" to be bound by an input`, "no binding");
    return bound;
  };
  return axis
    .split("+")
    .map((product) => product.split("*").reduce((total, term) => total * sizeOfTerm(term), 1))
    .reduce((a, b) => a + b, 0);
};

export const resolveShape = (shape: Shape, bindings: Bindings): number[] => shape.map((axis) => resolveAxis(axis, bindings));

/** Binds the plain names of `shape` to the sizes of a concrete shape. @throws TiltError on a rank or size that disagrees */
export const bindShape = (where: string, shape: Shape, actual: readonly number[], bindings: Map<string, number>): void => {
  const complain = () => shapeError(where, `shape ${showShape(shape)}`, showShape(actual));
  if (shape.length !== actual.length) throw complain();
  shape.forEach((axis, i) => {
    const size = actual[i]!;
    if (typeof axis === "string" && !/[+*]/.test(axis)) {
      const bound = bindings.get(axis);
      if (bound === undefined) bindings.set(axis, size);
      else if (bound !== size) throw shapeError(where, `axis ${axis} = ${bound}, as bound by another input`, showShape(actual));
    } else if (typeof axis === "number" && axis !== size) throw complain();
  });
};

interface Held {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * What the axis names of the named inputs stand for, measured from what is given for each.
 * @throws TiltError when one is missing, is of another dtype or does not fit its shape
 */
export const bindInputs = (
  where: string,
  declared: Readonly<Record<string, { readonly dtype: DType; readonly shape: Shape }>>,
  given: Readonly<Record<string, Held>>,
): Map<string, number> => {
  const bindings = new Map<string, number>();
  for (const [name, { dtype, shape }] of Object.entries(declared)) {
    const held = given[name];
    if (held === undefined) throw runtimeError({ where, expected: `a value for input "${name}"`, got: "none", fix: "pass it" });
    if (held.dtype !== dtype && !(dtype === "f32" && held.dtype === "f64")) {
      throw runtimeError({ where: `${where}: input "${name}"`, expected: `dtype ${dtype}`, got: held.dtype, fix: "convert it" });
    }
    bindShape(`${where}: input "${name}"`, shape, held.shape, bindings);
  }
  // Products and sums can be checked only now that all names are bound.
  for (const [name, { shape }] of Object.entries(declared)) {
    if (shape.every((axis) => namesIn(axis).every((term) => bindings.has(term)))) {
      bindShape(`${where}: input "${name}"`, resolveShape(shape, bindings), given[name]!.shape, bindings);
    }
  }
  return bindings;
};

/** NumPy broadcasting on named axes: equal, or one of them 1, aligned at the last axis. */
export const broadcastShapes = (where: string, a: Shape, b: Shape): Shape => {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const left = a[i - (rank - a.length)] ?? 1;
    const right = b[i - (rank - b.length)] ?? 1;
    if (left === right || right === 1) return left;
    if (left === 1) return right;
    throw shapeError(where, "axes that are equal or 1", `${showShape(a)} and ${showShape(b)}`);
  });
};

/** A non-negative axis index. @throws TiltError when it is out of range */
export const axisIndex = (where: string, axis: number, rank: number): number => {
  const index = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(index) || index < 0 || index >= rank) throw shapeError(where, `an axis below ${rank}`, String(axis));
  return index;
};

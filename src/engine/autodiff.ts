/**
 * Reverse-mode differentiation: the gradient of a scalar as more graph.
 * Walks the values between the scalar and what it is differentiated by, last first, and adds up what each op's rule sends back.
 */

import { TiltError } from "../base/errors.ts";
import { ancestors, type Value } from "./graph.ts";
import { add } from "./ops/elementwise.ts";
import { expand } from "./ops/layout.ts";
import { constant } from "./ops/source.ts";

/**
 * d output / d each of `withRespectTo`, as values of the same shapes; zero where the output does not depend on it.
 * @throws TiltError when the output is no scalar
 */
export const gradients = (output: Value, withRespectTo: readonly Value[]): Value[] => {
  if (output.shape.length !== 0) {
    throw new TiltError("runtime", `gradients: expected a scalar output, got shape [${output.shape.join(", ")}]; sum it first`);
  }
  const order = ancestors([output]);
  const relevant = new Set<Value>(withRespectTo);
  for (const value of order) if (value.inputs.some((input) => relevant.has(input))) relevant.add(value);

  const received = new Map<Value, Value>([[output, constant(1)]]);
  for (const value of order.reverse()) {
    const gradient = received.get(value);
    if (gradient === undefined || value.op.gradient === "none" || !value.inputs.some((input) => relevant.has(input))) continue;
    value.op.gradient(gradient, value).forEach((part, i) => {
      const input = value.inputs[i]!;
      if (part === undefined || !relevant.has(input)) return;
      const sofar = received.get(input);
      received.set(input, sofar === undefined ? part : add(sofar, part));
    });
  }
  return withRespectTo.map((value) => received.get(value) ?? expand(constant(0), value.shape));
};

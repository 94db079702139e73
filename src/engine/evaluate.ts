/** The float64 reference interpreter: runs a graph value by value with each op's own rule. The oracle for every device and gradient. */

import { runtimeError } from "../base/errors.ts";
import { type HostTensor, tensor } from "../base/tensor.ts";
import { ancestors, type Graph, type Value } from "./graph.ts";
import { isInput } from "./ops/source.ts";
import { bindShape, resolveShape, sameShape } from "./shape.ts";

const widen = (x: HostTensor): HostTensor => (x.dtype === "f32" ? tensor("f64", x.shape, Float64Array.from(x.data)) : x);

/** The outputs of a graph in float64. @throws TiltError when an input is missing or has the wrong shape */
export const evaluate = (graph: Graph, inputs: Readonly<Record<string, HostTensor>>): Record<string, HostTensor> => {
  const bindings = new Map<string, number>();
  const results = new Map<Value, HostTensor>();
  for (const [name, value] of Object.entries(graph.inputs)) {
    const given = inputs[name];
    if (given === undefined) throw runtimeError({ where: "evaluate", expected: `a value for input "${name}"`, got: "none", fix: "pass it" });
    bindShape(`evaluate: input "${name}"`, value.shape, given.shape, bindings);
    results.set(value, widen(given));
  }
  for (const value of ancestors(Object.values(graph.outputs))) {
    if (results.has(value)) continue;
    if (isInput(value)) throw runtimeError({ where: "evaluate", expected: "every input to be named in the graph", got: `a free input "${value.attributes.name}"`, fix: "list it among the graph's inputs" });
    const shape = resolveShape(value.shape, bindings);
    const result = value.op.evaluate(
      value.inputs.map((source) => results.get(source)!),
      value.attributes,
      shape,
    );
    if (!sameShape(result.shape, shape)) throw new Error(`${value.op.name}: evaluated to [${result.shape.join(", ")}], inferred [${shape.join(", ")}]`);
    results.set(value, result);
  }
  return Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, results.get(value)!]));
};

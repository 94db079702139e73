/** The float64 reference interpreter: runs a graph value by value with each op's own rule. The oracle for every device and gradient. */

import { runtimeError } from "../base/errors.ts";
import { type HostTensor, tensor } from "../base/tensor.ts";
import { ancestors, type Graph, type Value } from "./graph.ts";
import { isInput } from "./ops/source.ts";
import { bindInputs, resolveShape, sameShape } from "./shape.ts";

const widen = (x: HostTensor): HostTensor => (x.dtype === "f32" ? tensor("f64", x.shape, Float64Array.from(x.data)) : x);

/** The outputs of a graph in float64. @throws TiltError when an input is missing or has the wrong shape */
export const evaluate = (graph: Graph, inputs: Readonly<Record<string, HostTensor>>): Record<string, HostTensor> => {
  const bindings = bindInputs("reference", graph.inputs, inputs);
  const results = new Map<Value, HostTensor>(Object.entries(graph.inputs).map(([name, value]) => [value, widen(inputs[name]!)]));
  for (const value of ancestors(Object.values(graph.outputs))) {
    if (results.has(value)) continue;
    if (isInput(value))
      throw runtimeError({
        where: "evaluate",
        expected: "every input to be named in the graph",
        got: `a free input "${value.attributes.name}"`,
        fix: "list it among the graph's inputs",
      });
    const shape = resolveShape(value.shape, bindings);
    const result = value.op.evaluate(
      value.inputs.map((source) => results.get(source)!),
      value.attributes,
      shape,
    );
    if (!sameShape(result.shape, shape))
      throw new Error(`${value.op.name}: evaluated to [${result.shape.join(", ")}], inferred [${shape.join(", ")}]`);
    results.set(value, result);
  }
  return Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, results.get(value)!]));
};

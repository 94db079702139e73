/** What Scan (onnx/model.ts) means, in so many words: for runtimes that do not do it themselves, and for programs with caches between the times. */

import { allocate, type HostTensor, sizeOf, tensor } from "../../base/tensor.ts";
import type { Scan } from "../onnx/model.ts";

type Tensors = Readonly<Record<string, HostTensor>>;

/** Part `i` of a tensor along its first axis: a view. */
const partOf = ({ dtype, shape, data }: HostTensor, i: number): HostTensor => {
  const size = sizeOf(shape.slice(1));
  return tensor(dtype, shape.slice(1), data.subarray(i * size, (i + 1) * size));
};

/** Equal tensors as parts along a new first axis. */
const stack = (parts: readonly HostTensor[]): HostTensor => {
  const { dtype, shape } = parts[0]!;
  const size = sizeOf(shape);
  const data = allocate(dtype, parts.length * size);
  for (const [i, part] of parts.entries()) data.set(part.data, i * size);
  return tensor(dtype, [parts.length, ...shape], data);
};

/** @param once runs the graph on the inputs of one time */
export const runTimes = async (
  { carried, sliced }: Scan,
  inputs: Tensors,
  once: (inputs: Tensors) => Promise<Tensors>,
): Promise<Record<string, HostTensor>> => {
  const pick = (from: Tensors): Tensors => Object.fromEntries(carried.map((name) => [name, from[name]!]));
  let state = pick(inputs);
  const results: Tensors[] = [];
  for (let time = 0; time < inputs[sliced[0]!]!.shape[0]!; time++) {
    const own = Object.fromEntries(sliced.map((name) => [name, partOf(inputs[name]!, time)]));
    const found = await once({ ...inputs, ...state, ...own });
    state = pick(found);
    results.push(found);
  }
  const rest = Object.keys(results[0]!).filter((name) => !carried.includes(name));
  return { ...state, ...Object.fromEntries(rest.map((name) => [name, stack(results.map((found) => found[name]!))])) };
};

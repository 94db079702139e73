/**
 * Adam (arXiv 1412.6980) and AdamW (decoupled weight decay, arXiv 1711.05101) with clipping by the global norm, as one graph:
 * weights, gradients and moments go in, new weights and moments come out, wherever they are kept. docs/math.md (Adam).
 */

import { f32, type HostTensor, prefixed, scalar } from "../base/tensor.ts";
import type { Graph, Value } from "../engine/graph.ts";
import { add, div, input, maximum, minimum, mul, sqrt, sub, sum } from "../engine/ops/index.ts";
import { type Device, type DeviceTensor, lanesOf, type Program } from "../engine/runtime/device.ts";

export interface AdamOptions {
  /** adam adds no decay; adamw shrinks weights of two or more axes (matrices, not biases and norms) by learningRate * weightDecay. */
  readonly name: "adam" | "adamw";
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Global norm above which the gradient is scaled down to it. */
  readonly maxGradNorm?: number;
}

export type Shapes = Readonly<Record<string, readonly number[]>>;
export type DeviceTensors = Readonly<Record<string, DeviceTensor>>;

export interface AdamState {
  /** Updates made so far. */
  readonly step: number;
  /** Running means of the gradient and of its square, per weight. */
  readonly first: DeviceTensors;
  readonly second: DeviceTensors;
}

/**
 * One update of all weights as a graph; inputs and outputs are `weight.*`, `first.*`, `second.*`, inputs also `gradient0.*`, `gradient1.*`, ...
 * @param parts how many gradients there are to be added up, one from each lane
 */
export const adamGraph = (
  shapes: Shapes,
  { name, beta1, beta2, epsilon, weightDecay, maxGradNorm }: AdamOptions,
  parts = 1,
): Graph => {
  const inputs: Record<string, Value> = {
    learningRate: input("learningRate", "f32", []),
    // 1 - beta^step, computed in float64 by the caller
    correction1: input("correction1", "f32", []),
    correction2: input("correction2", "f32", []),
  };
  const outputs: Record<string, Value> = {};
  const names = Object.keys(shapes);
  const take = (kind: string, weight: string): Value => {
    const value = input(`${kind}.${weight}`, "f32", shapes[weight]!);
    inputs[`${kind}.${weight}`] = value;
    return value;
  };
  const gradientOf = Object.fromEntries(
    names.map((weight) => [weight, Array.from({ length: parts }, (_, part) => take(`gradient${part}`, weight)).reduce(add)]),
  );
  const gradNorm = sqrt(names.map((weight) => sum(mul(gradientOf[weight]!, gradientOf[weight]!))).reduce(add));
  outputs["gradNorm"] = gradNorm;
  const scale = maxGradNorm === undefined ? undefined : minimum(div(maxGradNorm, maximum(gradNorm, 1e-30)), 1);
  for (const weight of names) {
    const gradient = scale === undefined ? gradientOf[weight]! : mul(gradientOf[weight]!, scale);
    const old = take("weight", weight);
    const first = add(mul(take("first", weight), beta1), mul(gradient, 1 - beta1));
    const second = add(mul(take("second", weight), beta2), mul(mul(gradient, gradient), 1 - beta2));
    const update = div(div(first, inputs["correction1"]!), add(sqrt(div(second, inputs["correction2"]!)), epsilon));
    const decayed =
      name === "adamw" && weightDecay > 0 && shapes[weight]!.length >= 2 ? add(update, mul(old, weightDecay)) : update;
    outputs[`weight.${weight}`] = sub(old, mul(decayed, inputs["learningRate"]!));
    outputs[`first.${weight}`] = first;
    outputs[`second.${weight}`] = second;
  }
  return { inputs, outputs };
};

export interface Optimizer {
  /** Moments at zero. */
  start(): AdamState;
  /**
   * One descent step.
   * @param gradients    what each lane found, to be added up; one at least
   * @param learningRate of this step
   * @returns new weights and state, and the global norm of the gradient before clipping. Nothing that went in has changed, so a caller may refuse the result.
   */
  update(
    weights: DeviceTensors,
    gradients: readonly Readonly<Record<string, HostTensor | DeviceTensor>>[],
    state: AdamState,
    learningRate: number,
  ): Promise<{ weights: DeviceTensors; state: AdamState; gradNorm: number }>;
  dispose(): Promise<void>;
}

/** All-zero device tensors of the given shapes. */
export const zerosOn = (device: Device, shapes: Shapes): DeviceTensors =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, device.zeros(shape)]));

export const createOptimizer = async (device: Device, shapes: Shapes, options: AdamOptions): Promise<Optimizer> => {
  const names = Object.keys(shapes);
  const kept = ["weight", "first", "second"].flatMap((kind) => names.map((name) => `${kind}.${name}`));
  const programs = new Map<number, Promise<Program>>();
  const programFor = (parts: number): Promise<Program> => {
    const known = programs.get(parts) ?? device.compile(adamGraph(shapes, options, parts), { kept });
    programs.set(parts, known);
    return known;
  };
  await programFor(lanesOf(device).length);
  const pickNamed = (prefix: string, from: Record<string, DeviceTensor>): DeviceTensors =>
    Object.fromEntries(names.map((name) => [name, from[`${prefix}.${name}`]!]));
  return {
    start: () => ({ step: 0, first: zerosOn(device, shapes), second: zerosOn(device, shapes) }),
    update: async (weights, gradients, state, learningRate) => {
      const step = state.step + 1;
      const scalars: Record<string, HostTensor> = {
        learningRate: scalar(learningRate),
        correction1: f32([], [1 - options.beta1 ** step]),
        correction2: f32([], [1 - options.beta2 ** step]),
      };
      const program = await programFor(gradients.length);
      const result = await program.run({
        ...scalars,
        ...prefixed("weight", weights),
        ...Object.assign({}, ...gradients.map((part, i) => prefixed(`gradient${i}`, part))),
        ...prefixed("first", state.first),
        ...prefixed("second", state.second),
      });
      const gradNorm = (await result["gradNorm"]!.read()).data[0]!;
      return {
        weights: pickNamed("weight", result),
        state: { step, first: pickNamed("first", result), second: pickNamed("second", result) },
        gradNorm,
      };
    },
    dispose: async () => {
      for (const program of programs.values()) await (await program).dispose();
    },
  };
};

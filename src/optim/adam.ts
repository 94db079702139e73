/**
 * Adam (arXiv 1412.6980) and AdamW (decoupled weight decay, arXiv 1711.05101) with clipping by the global norm: one graph for the norm, one for the
 * update of a tensor, which is run in pieces that fit the cache. Weights, gradients and moments go in, new weights and moments come out, wherever
 * they are kept. docs/math.md (Adam).
 */

import { prefixed, scalar } from "../base/tensor.ts";
import type { Graph, Value } from "../engine/graph.ts";
import { add, div, input, mul, sqrt, sub, sum } from "../engine/ops/index.ts";
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

/** The global norm of a gradient that comes in parts to be added up: inputs `0.*`, `1.*`, ..., output `gradNorm`. */
const normGraph = (shapes: Shapes, parts: number): Graph => {
  const inputs: Record<string, Value> = {};
  const squares = Object.entries(shapes).map(([name, shape]) => {
    const found = Array.from({ length: parts }, (_, part): Value => {
      const value = input(`${part}.${name}`, "f32", shape);
      inputs[`${part}.${name}`] = value;
      return value;
    });
    const gradient = found.reduce(add);
    return sum(mul(gradient, gradient));
  });
  return { inputs, outputs: { gradNorm: sqrt(squares.reduce(add)) } };
};

/**
 * The update of any one tensor, element by element: inputs and outputs `weight`, `first`, `second`; inputs also `gradient0`, `gradient1`, ... to be
 * added up, and numbers that are worked out in float64 by the caller: 1 - beta^step as `correction1` and `correction2`, `clip`, by which the gradient
 * is scaled, and `decay`.
 */
export const adamGraph = ({ beta1, beta2, epsilon }: AdamOptions, parts: number): Graph => {
  const [weight, oldFirst, oldSecond] = ["weight", "first", "second"].map((name) => input(name, "f32", ["N"])) as [
    Value,
    Value,
    Value,
  ];
  const found = Array.from({ length: parts }, (_, part): Value => input(`gradient${part}`, "f32", ["N"]));
  const numbers = Object.fromEntries(
    ["learningRate", "correction1", "correction2", "clip", "decay"].map((name) => [name, input(name, "f32", [])] as const),
  );
  const { learningRate, correction1, correction2, clip, decay } = numbers as Record<string, Value>;
  const gradient = mul(found.reduce(add), clip!);
  const first = add(mul(oldFirst, beta1), mul(gradient, 1 - beta1));
  const second = add(mul(oldSecond, beta2), mul(mul(gradient, gradient), 1 - beta2));
  const update = div(div(first, correction1!), add(sqrt(div(second, correction2!)), epsilon));
  return {
    inputs: {
      weight,
      first: oldFirst,
      second: oldSecond,
      ...Object.fromEntries(found.map((value, part) => [`gradient${part}`, value])),
      ...numbers,
    },
    outputs: { weight: sub(weight, mul(add(update, mul(weight, decay!)), learningRate!)), first, second },
  };
};

export interface Optimizer {
  /** Moments at zero. */
  start(): AdamState;
  /** The global norm of a gradient that comes in parts, to be added up; one at least. */
  norm(gradients: readonly DeviceTensors[]): Promise<number>;
  /**
   * One descent step.
   * @param gradients         as norm's
   * @param options.gradNorm  their norm, by which they are clipped
   * @param options.overwrite weights and state that go in are given up for those that come out (device.ts); else nothing that went in changes
   */
  update(
    weights: DeviceTensors,
    gradients: readonly DeviceTensors[],
    state: AdamState,
    options: { readonly learningRate: number; readonly gradNorm: number; readonly overwrite?: boolean },
  ): Promise<{ weights: DeviceTensors; state: AdamState }>;
  dispose(): Promise<void>;
}

/** All-zero device tensors of the given shapes. */
export const zerosOn = (device: Device, shapes: Shapes): DeviceTensors =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, device.zeros(shape)]));

export const createOptimizer = async (device: Device, shapes: Shapes, options: AdamOptions): Promise<Optimizer> => {
  const names = Object.keys(shapes);
  const { beta1, beta2, maxGradNorm } = options;
  const programs = new Map<number, Promise<readonly [norm: Program, update: Program]>>();
  const programsFor = (parts: number): Promise<readonly [norm: Program, update: Program]> => {
    const known =
      programs.get(parts) ??
      Promise.all([
        device.compile(normGraph(shapes, parts)),
        device.compile(adamGraph(options, parts), { piecewise: true, kept: ["weight", "first", "second"] }),
      ]);
    programs.set(parts, known);
    return known;
  };
  await programsFor(lanesOf(device).length);
  return {
    start: () => ({ step: 0, first: zerosOn(device, shapes), second: zerosOn(device, shapes) }),
    norm: async (gradients) => {
      const [norm] = await programsFor(gradients.length);
      const found = await norm.run(Object.assign({}, ...gradients.map((part, i) => prefixed(`${i}`, part))));
      return (await found["gradNorm"]!.read()).data[0]!;
    },
    update: async (weights, gradients, state, { learningRate, gradNorm, overwrite = false }) => {
      const step = state.step + 1;
      const [, update] = await programsFor(gradients.length);
      const numbers = {
        learningRate: scalar(learningRate),
        correction1: scalar(1 - beta1 ** step),
        correction2: scalar(1 - beta2 ** step),
        clip: scalar(maxGradNorm === undefined ? 1 : Math.min(1, maxGradNorm / Math.max(gradNorm, 1e-30))),
      };
      const results = await Promise.all(
        names.map((name) =>
          update.run(
            {
              ...numbers,
              decay: scalar(options.name === "adamw" && shapes[name]!.length >= 2 ? options.weightDecay : 0),
              weight: weights[name]!,
              first: state.first[name]!,
              second: state.second[name]!,
              ...Object.fromEntries(gradients.map((part, i) => [`gradient${i}`, part[name]!])),
            },
            { overwrite },
          ),
        ),
      );
      const pick = (kind: string): DeviceTensors => Object.fromEntries(names.map((name, i) => [name, results[i]![kind]!]));
      return { weights: pick("weight"), state: { step, first: pick("first"), second: pick("second") } };
    },
    dispose: async () => {
      for (const held of programs.values()) for (const program of await held) await program.dispose();
    },
  };
};

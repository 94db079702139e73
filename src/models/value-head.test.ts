import { describe, expect, test } from "vitest";
import { tinyConfigs, tinyWeights } from "../../tests/support/tiny-model.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { f32, i32, type NamedTensors, tensor } from "../base/tensor.ts";
import { gradients } from "../engine/autodiff.ts";
import { input, sum } from "../engine/ops/index.ts";
import type { Device } from "../engine/runtime/device.ts";
import { cpuDevice } from "../engine/runtime/ort.node.ts";
import { referenceDevice } from "../engine/runtime/reference.ts";
import { createCausalModel, parameterInputs, type SequenceModel, underInputNames } from "./causal-model.ts";
import { createTabularModel, prefixRow } from "./tabular.ts";
import { initialValueHead, withValueHead } from "./value-head.ts";

const stream = streamOf(keyOf(1, "value-head"));
const normals = (length: number): Float32Array => Float32Array.from({ length }, () => stream.normal());

/** States [B, T, D], values [B, T], log-probabilities [B, T] of the tokens that follow, and the head's gradient of the sum of values. */
const run = async (device: Device, model: SequenceModel, weights: NamedTensors, rows: readonly (readonly number[])[]) => {
  const tokens = input("tokens", "i32", ["B", "T"]);
  const labels = input("labels", "i32", ["B", "T"]);
  const parameters = parameterInputs(model);
  const states = model.states(parameters, tokens);
  const values = model.tokenValues!(parameters, states);
  const [weight, bias] = gradients(sum(values), [parameters["value-head.weight"]!, parameters["value-head.bias"]!]);
  const program = await device.compile({
    inputs: { ...underInputNames(parameters), tokens, labels },
    outputs: { states, values, logProbs: model.tokenLogProbs(parameters, states, labels), weight: weight!, bias: bias! },
  });
  const given = i32([rows.length, rows[0]!.length], rows.flat());
  const result = await program.run({ ...underInputNames(weights), tokens: given, labels: given });
  const read = async (name: string) => Array.from((await result[name]!.read()).data);
  return {
    shape: result["values"]!.shape,
    states: await read("states"),
    values: await read("values"),
    logProbs: await read("logProbs"),
    weight: await read("weight"),
    bias: await read("bias"),
  };
};
const headOf = (model: SequenceModel): NamedTensors => ({
  "value-head.weight": f32([model.width], normals(model.width)),
  "value-head.bias": f32([1], [0.7]),
});

describe("on a table", () => {
  const model = createTabularModel(3, 3);
  const table = { logits: f32([model.width, 3], normals(3 * model.width)) };
  const rows = [
    [0, 1, 2],
    [0, 2, 0],
  ];

  test("adds two weights, and leaves the model as it is", () => {
    const whole = withValueHead(model);
    expect(whole.parameterShapes).toEqual({ logits: [13, 3], "value-head.weight": [13], "value-head.bias": [1] });
    expect(model.parameterShapes).toEqual({ logits: [13, 3] });
    expect(model.tokenValues).toBeUndefined();
    expect([whole.width, whole.states, whole.tokenLogProbs]).toEqual([model.width, model.states, model.tokenLogProbs]);
  });
  test("says 0 at the start, and can learn from there", async () => {
    const initial = initialValueHead(model);
    expect(Object.fromEntries(Object.entries(initial).map(([name, { dtype, shape }]) => [name, [dtype, shape]]))).toEqual({
      "value-head.weight": ["f32", [13]],
      "value-head.bias": ["f32", [1]],
    });
    const { values, weight, bias } = await run(referenceDevice, withValueHead(model), { ...table, ...initial }, rows);
    expect(values).toEqual([0, 0, 0, 0, 0, 0]);
    // Each prefix as often as it is met: the empty one twice.
    expect(weight[0]).toBe(2);
    expect(weight.reduce((total, value) => total + value, 0)).toBe(6);
    expect(bias).toEqual([6]);
  });
  test("is V of the prefix before each token", async () => {
    const head = headOf(model);
    const { values, shape } = await run(referenceDevice, withValueHead(model), { ...table, ...head }, rows);
    expect(shape).toEqual([2, 3]);
    // The first of what the model reads is the start token, no part of a prefix.
    const prefixes = [[], [1], [1, 2], [], [2], [2, 0]];
    const { data } = head["value-head.weight"]!;
    for (const [i, prefix] of prefixes.entries()) expect(values[i]).toBe(data[prefixRow(prefix, 3)]! + Math.fround(0.7));
  });
});

describe.each(["gpt2", "llama"] as const)("on %s", (family) => {
  const model = createCausalModel(tinyConfigs[family]);
  const whole = withValueHead(model);
  const weights = { ...tinyWeights(tinyConfigs[family], 1), ...headOf(model) };
  const rows = [
    [0, 5, 9, 2],
    [0, 7, 7, 30],
  ];
  const [B, T, D] = [2, 4, model.width];

  test("is w . h + b, h being the state that the model's own head reads", async () => {
    const { states, values } = await run(referenceDevice, whole, weights, rows);
    const { data } = weights["value-head.weight"]!;
    for (let place = 0; place < B * T; place++) {
      const product = states.slice(place * D, (place + 1) * D).reduce((total, value, d) => total + value * data[d]!, 0);
      // Sums of 16 float64 terms.
      expect(values[place]).toBeCloseTo(product + Math.fround(0.7), 12);
    }
  });
  test("knows nothing of the token at its place or of later ones", async () => {
    const [before, after] = await Promise.all([9, 11].map((token) => run(referenceDevice, whole, weights, [[0, 5, token, 2]])));
    // Place t reads tokens up to t and speaks for what comes next; place 2 is the first to have read the changed token.
    expect(after!.values.slice(0, 2)).toEqual(before!.values.slice(0, 2));
    for (const t of [2, 3]) expect(Math.abs(after!.values[t]! - before!.values[t]!)).toBeGreaterThan(1e-3);
  });
  test("does not move the policy", async () => {
    const other = { ...weights, "value-head.weight": f32([D], normals(D)), "value-head.bias": tensor("f32", [1], [-3]) };
    const [one, two] = [await run(referenceDevice, whole, weights, rows), await run(referenceDevice, whole, other, rows)];
    expect(two.logProbs).toEqual(one.logProbs);
    expect(two.values).not.toEqual(one.values);
  });
  test("is the same on the CPU", async () => {
    const [wanted, found] = [
      await run(referenceDevice, whole, weights, rows),
      await run(cpuDevice({ threads: 1 }), whole, weights, rows),
    ];
    // Two layers of width 16 in float32; values of order one to ten.
    for (const name of ["values", "weight", "bias"] as const)
      for (const [i, value] of wanted[name].entries()) expect(Math.abs(found[name][i]! - value)).toBeLessThan(1e-4);
  });
});

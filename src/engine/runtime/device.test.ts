/** What every device must do alike: errors, symbolic sizes, frozen inputs, state in and out, the same bytes twice. */

import { describe, expect, test } from "vitest";
import { f32, type HostTensor, i32, tensor } from "../../base/tensor.ts";
import { gradients } from "../autodiff.ts";
import type { Value } from "../graph.ts";
import * as ops from "../ops/index.ts";
import { input } from "../ops/index.ts";
import { type Device, type RunOptions, readAll } from "./device.ts";
import { laneDevice } from "./lane.node.ts";
import { openDevice } from "./open.node.ts";
import { cpuDevice } from "./ort.node.ts";
import { referenceDevice } from "./reference.ts";

const devices: readonly (readonly [string, Device])[] = [
  ["reference", referenceDevice],
  ["cpu", cpuDevice({ threads: 1 })],
  ["cpu, on a lane", laneDevice()],
];

describe.each(devices)("%s", (_title, device) => {
  const { name } = device;
  const x = input("x", "f32", ["B", 2]);
  const weight = input("weight", "f32", [2, 2]);
  const graph = { inputs: { x, weight }, outputs: { weight: ops.mul(weight, 2), y: ops.gemm(x, weight) } };
  const one = f32([1, 2], [1, 2]);
  const identity = f32([2, 2], [1, 0, 0, 1]);

  test.each<[string, Record<string, HostTensor>, string]>([
    ["missing", { weight: identity }, `${name}: expected a value for input "x", got none; pass it`],
    [
      "of the wrong rank",
      { x: f32([2], [1, 2]), weight: identity },
      `${name}: input "x": expected shape [B, 2], got [2]; check the axes of the inputs`,
    ],
    [
      "of the wrong size",
      { x: one, weight: f32([2, 1], [1, 2]) },
      `${name}: input "weight": expected shape [2, 2], got [2, 1]; check the axes of the inputs`,
    ],
    [
      "of the wrong dtype",
      { x: i32([1, 2], [1, 2]), weight: identity },
      `${name}: input "x": expected dtype f32, got i32; convert it`,
    ],
  ])("an input that is %s is refused", async (_what, given, message) => {
    const program = await device.compile(graph);
    await expect(program.run(given)).rejects.toThrow(message);
    await program.dispose();
  });

  test("one program runs at any size of a named axis, on host and device tensors, and hands state on under the same name", async () => {
    const program = await device.compile(graph);
    const first = await program.run({ x: one, weight: device.upload(identity) });
    const second = await program.run({ x: f32([3, 2], [1, 2, 3, 4, 5, 6]), weight: first["weight"]! });
    const { y } = await readAll(second);
    expect([y!.shape, [...y!.data]]).toEqual([
      [3, 2],
      [2, 4, 6, 8, 10, 12],
    ]);
    expect([...(await second["weight"]!.read()).data]).toEqual([4, 0, 0, 4]);
    for (const held of Object.values(first)) held.dispose();
    await program.dispose();
  });

  test("a scan hands state from one time to the next, gives each time its part, and keeps what is the same", async () => {
    const state = input("state", "f32", [2]);
    const part = input("part", "f32", ["B", 2]);
    const factor = input("factor", "f32", []);
    const next = ops.add(ops.mul(state, factor), ops.sum(part, 0));
    const scanned = {
      inputs: { state, part, factor },
      outputs: { double: ops.mul(part, 2), state: next, before: ops.sum(state) },
    };
    const program = await device.compile(scanned, { scan: { carried: ["state"], sliced: ["part"] } });
    const given = { state: f32([2], [1, 0]), factor: f32([], [10]), part: f32([3, 1, 2], [1, 2, 3, 4, 5, 6]) };
    const results = await readAll(await program.run(given));
    expect(Object.fromEntries(Object.entries(results).map(([key, { shape, data }]) => [key, [shape, [...data]]]))).toEqual({
      // ((1 * 10 + 1) * 10 + 3) * 10 + 5, and the same of 0 with 2, 4, 6
      state: [[2], [1135, 246]],
      before: [[3], [1, 13, 137]],
      double: [
        [3, 1, 2],
        [2, 4, 6, 8, 10, 12],
      ],
    });
    await expect(program.run({ ...given, part: f32([1, 2], [1, 2]) })).rejects.toThrow(
      "expected shape [times, B, 2], got [1, 2]",
    );
    await program.dispose();
  });

  test("a piecewise program takes tensors of any shape, in pieces, and gives back the same shape", async () => {
    const [a, b] = [input("a", "f32", ["N"]), input("b", "f32", ["N"])];
    const s = input("s", "f32", []);
    const sum = { inputs: { a, b, s }, outputs: { y: ops.add(ops.mul(a, s), b) } };
    const program = await device.compile(sum, { piecewise: true, kept: ["y"] });
    // Two whole pieces and a part of one.
    const size = 2 * 2 ** 18 + 6;
    const counted = f32(
      [2, size / 2],
      Float32Array.from({ length: size }, (_, i) => i % 1000),
    );
    const y = await (await program.run({ a: device.upload(counted), b: counted, s: f32([], [2]) }))["y"]!.read();
    expect(y.shape).toEqual([2, size / 2]);
    expect(y.data.every((value, i) => value === 3 * (i % 1000))).toBe(true);
    await expect(program.run({ a: f32([2], [1, 2]), b: f32([3], [1, 2, 3]), s: f32([], [1]) })).rejects.toThrow(
      "axis N = 2, as bound by another input",
    );
    await program.dispose();
  });

  test("a piecewise program may write over what it is given, but for what lies in the host's memory", async () => {
    const [a, b] = [input("a", "f32", ["N"]), input("b", "f32", ["N"])];
    const sum = { inputs: { a, b }, outputs: { a: ops.add(a, b), b: ops.mul(b, 2) } };
    const program = await device.compile(sum, { piecewise: true, kept: ["a", "b"] });
    const host = f32([2], [1, 2]);
    const given = { a: device.upload(host), b: device.upload(f32([2], [10, 20])) };
    const first = await program.run(given);
    const second = await program.run(given, { overwrite: true });
    for (const found of [first, second])
      expect(Object.values(await readAll(found)).map(({ data }) => [...data])).toEqual([
        [11, 22],
        [20, 40],
      ]);
    expect([...host.data]).toEqual([1, 2]);
    // What was given up may be given back like anything else.
    given.a.dispose();
    const third = await program.run(second, { overwrite: true });
    expect([...(await third["a"]!.read()).data]).toEqual([31, 62]);
    expect([...(await first["a"]!.read()).data]).toEqual([11, 22]);
    await program.dispose();
  });

  test("a tensor is moved in and out", async () => {
    const held = device.adopt(f32([2], [3, 4]));
    expect([...(await held.read()).data]).toEqual([3, 4]);
    expect([...(await held.take()).data]).toEqual([3, 4]);
    held.dispose();
  });

  test("caches grow by a row a run, are emptied, and keep chosen sequences", async () => {
    const token = input("token", "f32", ["B"]);
    const filled = input("filled", "i32", [1]);
    const cache = input("cache", "f32", ["B", 1, "C", 2]);
    const row = ops.expand(ops.reshape(token, ["B", 1, 1]), ["B", 1, 2]);
    // What is in the cache so far, by its filled places only.
    const seen = ops.where(ops.less(ops.iota("C"), filled), 1, 0);
    const total = ops.sum(ops.mul(cache, ops.reshape(seen, [1, 1, "C", 1])), [1, 2, 3]);
    const program = await device.compile(
      { inputs: { token, filled, cache }, outputs: { cache: row, total } },
      { caches: ["cache"] },
    );
    const run = async (tokens: number[], at: number, options?: RunOptions): Promise<number[]> => {
      const result = await program.run({ token: f32([tokens.length], tokens), filled: i32([1], [at]) }, options);
      expect(Object.keys(result)).toEqual(["total"]);
      return [...(await result["total"]!.read()).data];
    };
    expect(await run([1, 10, 100], 0, { caches: "empty" })).toEqual([0, 0, 0]);
    expect(await run([2, 20, 200], 1)).toEqual([2, 20, 200]);
    expect(await run([3, 300], 2, { caches: Int32Array.of(0, 2) })).toEqual([6, 600]);
    // Beyond the room that is taken at first.
    for (let at = 3; at < 40; at++) await run([1, 1], at);
    expect(await run([1, 1], 40)).toEqual([2 * (6 + 37), 2 * (600 + 37)]);
    expect(await run([5], 0, { caches: "empty" })).toEqual([0]);
    await program.clear();
    expect(await run([6, 60], 0)).toEqual([0, 0]);
    expect(await run([7, 70], 1)).toEqual([6 + 6, 60 + 60]);
    await program.dispose();
  });

  test("what a run gave out stays as it is in later runs", async () => {
    const program = await device.compile(graph);
    const { y } = await program.run({ x: one, weight: identity });
    await program.run({ x: f32([1, 2], [7, 8]), weight: identity });
    expect([...(await y!.read()).data]).toEqual([1, 2]);
    await program.dispose();
  });

  test("a frozen input need not be passed", async () => {
    const program = await device.compile(graph, { frozen: { weight: f32([2, 2], [0, 1, 1, 0]) } });
    const { y } = await program.run({ x: one });
    expect([...(await y!.read()).data]).toEqual([2, 1]);
    await program.dispose();
  });

  test("frozen inputs may be of any name, type and size, and lie anywhere", async () => {
    const mixed = {
      x: input("x", "f32", ["B", 2]),
      "../größe/1": input("../größe/1", "f32", [2, 2]),
      order: input("order", "i32", [2]),
      kept: input("kept", "bool", [2]),
      none: input("none", "f32", [0, 2]),
      scale: input("scale", "f32", []),
    };
    const product = ops.gemm(mixed.x, ops.gatherRows(mixed["../größe/1"], mixed.order));
    const y = ops.mul(ops.concat([ops.where(mixed.kept, product, 0), mixed.none], 0), mixed.scale);
    const weight = device.upload(tensor("f32", [2, 2], Float32Array.of(9, 1, 2, 3, 4, 9).subarray(1, 5)));
    const frozen = {
      "../größe/1": weight,
      order: laneDevice().upload(i32([2], [1, 0])),
      kept: tensor("bool", [2], [1, 0]),
      none: f32([0, 2], []),
      scale: tensor("f64", [], [0.5]),
      stranger: f32([1], [1]),
    };
    const program = await device.compile({ inputs: mixed, outputs: { y } }, { frozen });
    weight.dispose();
    const result = await (await program.run({ x: f32([2, 2], [1, 2, 3, 4]) }))["y"]!.read();
    // [1, 2] and [3, 4] times [[3, 4], [1, 2]], of which the first column stays
    expect([result.shape, [...result.data]]).toEqual([
      [2, 2],
      [(3 + 2 * 1) / 2, 0, (3 * 3 + 4 * 1) / 2, 0],
    ]);
    await program.dispose();
  });

  test.each([2, 300])("a product with a transposed left operand and %i columns", async (columns) => {
    const [a, b] = [input("a", "f32", ["N", 3]), input("b", "f32", ["N", columns])];
    const [named, more] = [input("named", "f32", [2, "B"]), input("more", "f32", [3, columns])];
    const outputs = {
      sum: ops.gemm(a, b, more, { transposeA: true }),
      turned: ops.gemm(a, ops.transpose(b, [1, 0]), undefined, { transposeA: true, transposeB: true }),
      open: ops.gemm(named, ops.slice(more, 0, 0, 2), undefined, { transposeA: true }),
    };
    const program = await device.compile({ inputs: { a, b, named, more }, outputs });
    const counted = (rows: number, width: number): HostTensor =>
      f32(
        [rows, width],
        Float32Array.from({ length: rows * width }, (_, i) => (i % 7) - 3),
      );
    const given = { a: counted(4, 3), b: counted(4, columns), named: counted(2, 5), more: counted(3, columns) };
    const found = await readAll(await program.run(given));
    const at = ({ shape, data }: HostTensor, i: number, j: number): number => data[i * shape[1]! + j]!;
    const product = (left: HostTensor, right: HostTensor, i: number, j: number): number =>
      Array.from({ length: left.shape[0]! }, (_, k) => at(left, k, i) * at(right, k, j)).reduce((x, y) => x + y);
    // Small whole numbers: without any rounding.
    for (let j = 0; j < columns; j++) {
      for (let i = 0; i < 3; i++) {
        expect(at(found["sum"]!, i, j) - at(given.more, i, j) === product(given.a, given.b, i, j)).toBe(true);
        expect(at(found["turned"]!, i, j) === product(given.a, given.b, i, j)).toBe(true);
      }
      for (let i = 0; i < 5; i++) expect(at(found["open"]!, i, j) === product(given.named, given.more, i, j)).toBe(true);
    }
    expect(found["open"]!.shape).toEqual([5, columns]);
    await program.dispose();
  });

  test("an index outside its table is an error that says where it happened", async () => {
    const at = input("at", "i32", [1]);
    const program = await device.compile({ inputs: { weight, at }, outputs: { y: ops.gatherRows(weight, at) } });
    await expect(program.run({ weight: identity, at: i32([1], [2]) })).rejects.toThrow(
      name === "cpu"
        ? /^cpu: expected ONNX Runtime to run the graph, got .*Gather/
        : "gatherRows: expected indices within 0..1, got 2",
    );
    await program.dispose();
  });

  test("inputs may be called like anything", async () => {
    const names = ["v0", "v2", "axis:B", "größe 1", "y"];
    const inputs = Object.fromEntries(names.map((each) => [each, input(each, "f32", ["B", 2])]));
    const program = await device.compile({
      inputs,
      outputs: {
        y: ops.sum(
          ops.mul(
            Object.values(inputs).reduce<Value>((a, b) => ops.add(a, b), ops.constant(0)),
            1,
          ),
          1,
        ),
      },
    });
    const { y } = await program.run(Object.fromEntries(names.map((each, i) => [each, f32([1, 2], [10 ** i, 0])])));
    expect([...(await y!.read()).data]).toEqual([11111]);
    await program.dispose();
  });
});

test("ONNX Runtime has what it needs of frozen inputs once it has compiled: small or large, to be packed or looked up", async () => {
  // If it went on reading them, giving them back would be reading freed memory.
  for (const size of [2, 300]) {
    const x = input("x", "f32", [1, size]);
    const at = input("at", "i32", [1]);
    const inputs = { factor: input("factor", "f32", [size, size]), table: input("table", "f32", [size, size]) };
    const graph = {
      inputs: { x, at, ...inputs },
      outputs: { y: ops.add(ops.gemm(x, inputs.factor), ops.gatherRows(inputs.table, at)) },
    };
    const ones = () => tensor("f32", [size, size], new Float32Array(size * size).fill(1));
    const frozen = { factor: ones(), table: ones() };
    const program = await cpuDevice({ threads: 1 }).compile(graph, { frozen });
    for (const { data } of Object.values(frozen)) data.fill(7);
    const { y } = await readAll(
      await program.run({ x: tensor("f32", [1, size], new Float32Array(size).fill(1)), at: i32([1], [1]) }),
    );
    expect(y!.data.every((number) => number === size + 1)).toBe(true);
    await program.dispose();
  }
});

test("a frozen input that does not fit is refused when compiling", async () => {
  const weight = input("weight", "f32", [2, 2]);
  const graph = { inputs: { weight }, outputs: { y: ops.neg(weight) } };
  await expect(cpuDevice({ threads: 1 }).compile(graph, { frozen: { weight: f32([2], [1, 2]) } })).rejects.toThrow(
    'cpu: input "weight": expected shape [2, 2], got [2]',
  );
});

test("a device that is not there", () => {
  expect(() => openDevice("cuda")).toThrow(
    "device cuda: expected cpu or reference, got cuda; GPU devices are not in this version yet; use device: cpu",
  );
  expect(openDevice("cpu").name).toBe("cpu");
  expect(openDevice("reference")).toBe(referenceDevice);
});

describe("two threads", () => {
  const device = cpuDevice({ threads: 2 });
  /** Numbers of no pattern between -1 and 1. */
  const noise = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => Math.sin(i * i * 0.37 + i));

  test("give the same bytes each time: products, softmax, sums and their gradients", async () => {
    const x = input("x", "f32", ["N", 64]);
    const w = input("w", "f32", [64, 512]);
    const loss = ops.sum(ops.mul(ops.softmax(ops.gemm(x, w)), ops.gemm(x, w)));
    const [toX, toW] = gradients(loss, [x, w]) as [Value, Value];
    const program = await device.compile({ inputs: { x, w }, outputs: { loss, toX, toW } });
    const feeds = { x: f32([256, 64], noise(256 * 64)), w: f32([64, 512], noise(64 * 512)) };
    const bytes = async (): Promise<Uint8Array[]> =>
      Object.values(await readAll(await program.run(feeds))).map(({ data }) =>
        new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(),
      );
    const first = await bytes();
    expect(first.map(({ length }) => length)).toEqual([4, 4 * 256 * 64, 4 * 64 * 512]);
    for (let i = 0; i < 3; i++) expect((await bytes()).every((again, k) => Buffer.compare(again, first[k]!) === 0)).toBe(true);
    await program.dispose();
  });

  test("lose no update when many rows are added to few", async () => {
    // 20,000 rows of ones onto 100: with a kernel that adds without a lock, most runs came out short.
    const [count, rows, width] = [20_000, 100, 64];
    const updates = input("updates", "f32", ["N", width]);
    const at = input("at", "i32", ["N"]);
    const program = await device.compile({ inputs: { updates, at }, outputs: { y: ops.scatterAddRows(updates, at, rows) } });
    const feeds = {
      updates: tensor("f32", [count, width], new Float32Array(count * width).fill(1)),
      at: i32(
        [count],
        Int32Array.from({ length: count }, (_, i) => (i * 7919) % rows),
      ),
    };
    for (let i = 0; i < 8; i++) {
      const y = await (await program.run(feeds))["y"]!.read();
      expect(y.data.every((number) => number === count / rows)).toBe(true);
    }
    await program.dispose();
  });
});

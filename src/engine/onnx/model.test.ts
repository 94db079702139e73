/**
 * The ONNX writer against a decoder that is not ours (@bufbuild/protobuf), which knows of ONNX only the field numbers and types of
 * onnx.proto (IR version 10), written down here.
 */

import { create, createFileRegistry, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Type as Kind,
  FieldDescriptorProto_Label as Label,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { f32, type HostTensor, i32, tensor } from "../../base/tensor.ts";
import { apply, type Graph, type Op, type Value } from "../graph.ts";
import * as ops from "../ops/index.ts";
import { constant, input } from "../ops/index.ts";
import { onnxModel, outputName } from "./model.ts";

/** name: [number, type, repeated]; a type that is a string is a message. */
type Fields = Readonly<Record<string, readonly [number, Kind | string, boolean?]>>;

const messages: Readonly<Record<string, Fields>> = {
  ModelProto: {
    ir_version: [1, Kind.INT64],
    producer_name: [2, Kind.STRING],
    graph: [7, "GraphProto"],
    opset_import: [8, "OperatorSetIdProto", true],
  },
  OperatorSetIdProto: { domain: [1, Kind.STRING], version: [2, Kind.INT64] },
  GraphProto: {
    node: [1, "NodeProto", true],
    name: [2, Kind.STRING],
    initializer: [5, "TensorProto", true],
    input: [11, "ValueInfoProto", true],
    output: [12, "ValueInfoProto", true],
  },
  NodeProto: {
    input: [1, Kind.STRING, true],
    output: [2, Kind.STRING, true],
    name: [3, Kind.STRING],
    op_type: [4, Kind.STRING],
    attribute: [5, "AttributeProto", true],
    domain: [7, Kind.STRING],
  },
  AttributeProto: {
    name: [1, Kind.STRING],
    f: [2, Kind.FLOAT],
    i: [3, Kind.INT64],
    s: [4, Kind.BYTES],
    ints: [8, Kind.INT64, true],
    type: [20, Kind.INT32],
  },
  TensorProto: {
    dims: [1, Kind.INT64, true],
    data_type: [2, Kind.INT32],
    name: [8, Kind.STRING],
    raw_data: [9, Kind.BYTES],
    external_data: [13, "StringStringEntryProto", true],
    data_location: [14, Kind.INT32],
  },
  StringStringEntryProto: { key: [1, Kind.STRING], value: [2, Kind.STRING] },
  ValueInfoProto: { name: [1, Kind.STRING], type: [2, "TypeProto"] },
  TypeProto: { tensor_type: [1, "TypeProto.Tensor"] },
  "TypeProto.Tensor": { elem_type: [1, Kind.INT32], shape: [2, "TensorShapeProto"] },
  TensorShapeProto: { dim: [1, "Dimension", true] },
  Dimension: { dim_value: [1, Kind.INT64], dim_param: [2, Kind.STRING] },
};

const file = create(FileDescriptorProtoSchema, {
  name: "onnx.proto",
  package: "onnx",
  syntax: "proto2",
  messageType: Object.entries(messages).map(([name, fields]) => ({
    name: name.replace(".", ""),
    field: Object.entries(fields).map(([field, [number, type, repeated]]) => ({
      name: field,
      number,
      label: repeated ? Label.REPEATED : Label.OPTIONAL,
      ...(typeof type === "string" ? { type: Kind.MESSAGE, typeName: `.onnx.${type.replace(".", "")}` } : { type }),
    })),
  })),
});
const schema = createFileRegistry(file, () => undefined).getMessage("onnx.ModelProto")!;

interface Tensor {
  readonly name: string;
  readonly dims: readonly bigint[];
  readonly dataType: number;
  readonly rawData: Uint8Array;
  readonly dataLocation: number;
  readonly externalData: readonly { readonly key: string; readonly value: string }[];
}
interface Attribute {
  readonly name: string;
  readonly type: number;
  readonly f: number;
  readonly i: bigint;
  readonly s: Uint8Array;
  readonly ints: readonly bigint[];
}
interface Node {
  readonly name: string;
  readonly opType: string;
  readonly domain: string;
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly attribute: readonly Attribute[];
}
interface Info {
  readonly name: string;
  readonly type: {
    readonly tensorType: {
      readonly elemType: number;
      readonly shape: { readonly dim: readonly { readonly dimValue: bigint; readonly dimParam: string }[] };
    };
  };
}
interface Model {
  readonly irVersion: bigint;
  readonly producerName: string;
  readonly opsetImport: readonly { readonly domain: string; readonly version: bigint }[];
  readonly graph: {
    readonly name: string;
    readonly node: readonly Node[];
    readonly initializer: readonly Tensor[];
    readonly input: readonly Info[];
    readonly output: readonly Info[];
  };
}

/** Every message below this one that holds a field unknown to onnx.proto, or one of another wire type. */
const strangers = (value: unknown): unknown[] => {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return [];
  const own = (value as Message).$unknown ?? [];
  return [...own, ...Object.entries(value).flatMap(([key, inner]) => (key === "$unknown" ? [] : strangers(inner)))];
};

const decode = (bytes: Uint8Array): Model => {
  const message = fromBinary(schema, bytes);
  expect(strangers(message)).toEqual([]);
  // Lengths and varints are as short as they can be, and nothing is written twice.
  expect(toBinary(schema, message).length).toBe(bytes.length);
  return message as unknown as Model;
};
const written = (graph: Graph, frozen: Readonly<Record<string, HostTensor>> = {}): Model =>
  decode(onnxModel(graph, { device: "cpu", frozen }));

const showInfo = ({ name, type: { tensorType } }: Info): string =>
  `${name}: ${tensorType.elemType}[${tensorType.shape.dim.map(({ dimValue, dimParam }) => (dimParam === "" ? String(dimValue) : dimParam)).join(", ")}]`;

/** The value of a one-node graph whose op lowers to the given node. */
const custom = (lower: Op<null>["lower"], x: Value): Value => apply<null>({ ...ops.expOp, lower }, [x], null);

test("a model says what it is: IR version, opsets, producer, axes", () => {
  const x = input("x", "f32", ["B", "T"]);
  const { irVersion, producerName, opsetImport, graph } = written({ inputs: { x }, outputs: { y: ops.exp(x) } });
  expect({ irVersion, producerName, name: graph.name }).toEqual({ irVersion: 10n, producerName: "tiltlm", name: "tiltlm(B, T)" });
  expect(opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
    ["", 21n],
    ["com.microsoft", 1n],
  ]);
});

test("inputs and outputs carry names, types, sizes and axis names", () => {
  const inputs = {
    scores: input("scores", "f32", ["B", 4]),
    labels: input("labels", "i32", ["B"]),
    mask: input("mask", "bool", ["C+1", 300]),
    scalar: input("scalar", "f32", []),
    "größe ≤ 𝄞": input("größe ≤ 𝄞", "f32", [0, "B*T"]),
  };
  const outputs = { best: ops.argMax(inputs.scores), scalar: ops.add(inputs.scalar, 1) };
  const { graph } = written({ inputs, outputs });
  expect(graph.input.map(showInfo)).toEqual([
    "scores: 1[B, 4]",
    "labels: 6[B]",
    "mask: 9[C+1, 300]",
    "scalar: 1[]",
    "größe ≤ 𝄞: 1[0, B*T]",
  ]);
  expect(graph.output.map(showInfo)).toEqual([`${outputName("best")}: 6[B]`, `${outputName("scalar")}: 1[]`]);
});

test("nodes name their op, domain, inputs and outputs, each after those it needs", () => {
  const a = input("a", "f32", ["B", 2]);
  const b = input("b", "f32", ["B", 2]);
  const { graph } = written({ inputs: { a, b }, outputs: { y: ops.gelu(ops.sub(b, a)), z: b } });
  expect(graph.node.map(({ opType, domain }) => [opType, domain])).toEqual([
    ["Sub", ""],
    ["FastGelu", "com.microsoft"],
    ["Identity", ""],
    ["Identity", ""],
  ]);
  expect(graph.node[0]!.input).toEqual(["b", "a"]);
  const known = new Set(["a", "b"]);
  for (const { input, output } of graph.node) {
    expect(input.every((name) => known.has(name))).toBe(true);
    for (const name of output) {
      expect(known.has(name)).toBe(false);
      known.add(name);
    }
  }
  expect(new Set(graph.node.map(({ name }) => name)).size).toBe(graph.node.length);
  expect(graph.output.every(({ name }) => known.has(name))).toBe(true);
});

test("attributes keep their kind and value", () => {
  const x = input("x", "f32", [2]);
  const given = {
    zero: 0,
    minus: -1,
    large: 2 ** 31 + 5,
    largest: Number.MAX_SAFE_INTEGER,
    least: -(2 ** 40),
    list: [3, -2, 0, 2 ** 33],
    none: [],
    text: "größe ≤ 𝄞",
    empty: "",
    half: { float: -0.5 },
    third: { float: 1 / 3 },
  };
  const { graph } = written({ inputs: { x }, outputs: { y: custom((emit, inputs) => emit.node("Any", inputs, given), x) } });
  const got = graph.node[0]!.attribute.map(({ name, type, f, i, s, ints }) => [
    name,
    type,
    type === 1 ? f : type === 2 ? i : type === 3 ? new TextDecoder().decode(s) : ints,
  ]);
  expect(got).toEqual([
    ["zero", 2, 0n],
    ["minus", 2, -1n],
    ["large", 2, 2147483653n],
    ["largest", 2, 9007199254740991n],
    ["least", 2, -1099511627776n],
    ["list", 7, [3n, -2n, 0n, 8589934592n]],
    ["none", 7, []],
    ["text", 3, "größe ≤ 𝄞"],
    ["empty", 3, ""],
    ["half", 1, -0.5],
    ["third", 1, Math.fround(1 / 3)],
  ]);
});

test("property: any safe integer and any string come back", () => {
  const x = input("x", "f32", [2]);
  fc.assert(
    fc.property(
      fc.maxSafeInteger(),
      fc.array(fc.maxSafeInteger(), { maxLength: 5 }),
      fc.string({ unit: "grapheme" }),
      (one, list, text) => {
        const { graph } = written({
          inputs: { x },
          outputs: { y: custom((emit, inputs) => emit.node("Any", inputs, { one, list, text }), x) },
        });
        const [first, second, third] = graph.node[0]!.attribute as [Attribute, Attribute, Attribute];
        expect([first.i, second.ints, new TextDecoder().decode(third.s)]).toEqual([BigInt(one), list.map(BigInt), text]);
      },
    ),
    { numRuns: 100 },
  );
});

describe("initializers hold the numbers, little-endian", () => {
  const initializersOf = (...values: Value[]) => {
    const { graph } = written({ inputs: {}, outputs: Object.fromEntries(values.map((value, i) => [String(i), value])) });
    return graph.initializer.map(({ dims, dataType, rawData }) => ({ dims: dims.map(Number), dataType, bytes: [...rawData] }));
  };
  const bytesOf = (array: Float32Array | Int32Array): number[] => [...new Uint8Array(array.buffer)];

  test("of each dtype", () => {
    expect(
      initializersOf(
        constant(f32([2, 1], [1.5, -0])),
        constant(i32([2], [-1, 2 ** 31 - 1])),
        constant(tensor("bool", [3], [1, 0, 1])),
        constant(1 / 3),
      ),
    ).toEqual([
      { dims: [2, 1], dataType: 1, bytes: bytesOf(Float32Array.of(1.5, -0)) },
      { dims: [2], dataType: 6, bytes: [255, 255, 255, 255, 255, 255, 255, 127] },
      { dims: [3], dataType: 9, bytes: [1, 0, 1] },
      { dims: [], dataType: 1, bytes: bytesOf(Float32Array.of(1 / 3)) },
    ]);
  });

  test("of a view that begins inside its buffer, and of nothing", () => {
    const whole = Float32Array.of(9, 1, 2, 9);
    expect(initializersOf(constant(tensor("f32", [2], whole.subarray(1, 3))), constant(f32([0, 3], [])))).toEqual([
      { dims: [2], dataType: 1, bytes: bytesOf(Float32Array.of(1, 2)) },
      { dims: [0, 3], dataType: 1, bytes: [] },
    ]);
  });

  test("of many numbers, whose length takes a varint of several bytes", () => {
    const numbers = Float32Array.from({ length: 5000 }, (_, i) => i / 8);
    expect(initializersOf(constant(f32([50, 100], numbers)))).toEqual([
      { dims: [50, 100], dataType: 1, bytes: bytesOf(numbers) },
    ]);
  });

  test("64-bit integers, once for equal lists", () => {
    const x = input("x", "f32", [2, 3]);
    const { graph } = written({ inputs: { x }, outputs: { a: ops.sum(x, 1), b: ops.mean(x, 1), c: ops.sum(x, [0, 1]) } });
    const lists = graph.initializer.map(({ dataType, dims, rawData }) => [
      dataType,
      dims,
      [...new BigInt64Array(rawData.slice().buffer)],
    ]);
    expect(lists).toEqual([
      [7, [1n], [1n]],
      [7, [2n], [0n, 1n]],
    ]);
  });
});

test("frozen inputs become initializers of that name and are no inputs any more", () => {
  const x = input("x", "f32", ["B", 2]);
  const weight = input("weight", "f32", [2, 2]);
  const graph = { inputs: { x, weight }, outputs: { y: ops.gemm(x, weight) } };
  const model = written(graph, { weight: f32([2, 2], [1, 2, 3, 4]), stranger: f32([1], [1]) }).graph;
  expect(model.input.map(({ name }) => name)).toEqual(["x"]);
  expect(model.initializer.map(({ name, dims, rawData }) => [name, dims, [...new Float32Array(rawData.slice().buffer)]])).toEqual(
    [["weight", [2n, 2n], [1, 2, 3, 4]]],
  );
  expect(model.node[0]!.input).toEqual(["x", "weight"]);
});

test("numbers of frozen inputs that are elsewhere stay outside, under the input's name", () => {
  const x = input("x", "f32", ["B", 2]);
  const weight = input("weight", "f32", [2, 2]);
  const graph = { inputs: { x, weight }, outputs: { y: ops.gemm(x, weight) } };
  const { initializer } = decode(onnxModel(graph, { device: "cpu", frozen: { weight: { dtype: "f32", shape: [2, 2] } } })).graph;
  expect(
    initializer.map(({ name, dims, dataType, rawData, dataLocation, externalData }) => ({
      tensor: [name, dims, dataType, rawData.length, dataLocation],
      outside: externalData.map(({ key, value }) => [key, value]),
    })),
  ).toEqual([{ tensor: ["weight", [2n, 2n], 1, 0, 1], outside: [["location", "weight"]] }]);
});

test("a named axis is measured from the input that has it, once", () => {
  const x = input("x", "f32", [3, "B", "T"]);
  const outputs = { a: ops.iota("B"), b: ops.expand(constant(1), ["B", 2]), c: ops.expand(constant(2), ["B*T", "B+1"]) };
  const { graph } = written({ inputs: { x }, outputs });
  expect(graph.node.filter(({ opType }) => opType === "Shape").map(({ input }) => input)).toEqual([["x"], ["x"]]);
  expect(graph.node.map(({ opType }) => opType)).toContain("Mul");
});

describe("errors", () => {
  const x = input("x", "f32", ["B"]);

  test("an input that the graph does not name", () => {
    const free = input("free", "f32", ["B"]);
    expect(() => onnxModel({ inputs: { x }, outputs: { y: ops.add(x, free) } }, { device: "cpu" })).toThrow(
      'onnxModel: expected every input to be named in the graph, got a free input "free"; list it among the graph\'s inputs',
    );
  });

  test("an axis that no input has, or only inside a product", () => {
    const product = input("product", "f32", ["B*T"]);
    expect(() => onnxModel({ inputs: { x, product }, outputs: { y: ops.iota("T") } }, { device: "cpu" })).toThrow(
      "onnxModel: expected axis T to be an axis of an input, got none; give the graph an input that has it",
    );
  });

  test("an axis that only a frozen input has", () => {
    const frozen = input("frozen", "f32", ["N"]);
    expect(() =>
      onnxModel(
        { inputs: { x, frozen }, outputs: { y: ops.iota("N") } },
        { device: "cpu", frozen: { frozen: f32([2], [1, 2]) } },
      ),
    ).toThrow("expected axis N to be an axis of an input");
  });

  test("more than 2 GiB", () => {
    // 33 inputs share one array of 64 MiB; the model is refused before it is put together.
    const held = tensor("f32", [2 ** 24], new Float32Array(2 ** 24));
    const names = Array.from({ length: 33 }, (_, i) => `weight${i}`);
    const inputs = Object.fromEntries(names.map((name) => [name, input(name, "f32", [2 ** 24])]));
    const graph = { inputs, outputs: { y: ops.sum(inputs["weight0"]!) } };
    expect(() => onnxModel(graph, { device: "cpu", frozen: Object.fromEntries(names.map((name) => [name, held])) })).toThrow(
      "onnxModel: expected a model of at most 2 GiB, got 2.1 GiB; use a smaller model",
    );
  });
});

/**
 * Writes a graph as an ONNX model (IR version 10, opset 21). Field numbers are those of onnx.proto.
 * Inputs with a frozen tensor become initializers, which the runtime packs once; their numbers are in the model or beside it.
 */

import { runtimeError } from "../../base/errors.ts";
import type { DType, HostTensor } from "../../base/tensor.ts";
import { type Attribute, ancestors, type DeviceName, type Emitter, type Graph, type TypeOf, type Value } from "../graph.ts";
import { input, isInput } from "../ops/source.ts";
import { type Axis, namesIn, type Shape, showShape } from "../shape.ts";
import { bytesField, floatField, integerField, join, type Message, messageField, textField, toBytes } from "./protobuf.ts";

const int64Type = 7;
const types: Readonly<Record<DType, number>> = { f32: 1, f64: 1, i32: 6, bool: 9 };

/** A tensor whose numbers are not in the model, which says no more of them than the tensor's name: ONNX's external data. */
export interface Elsewhere {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Numbers as a model keeps them. */
export const rawBytes = ({ dtype, data }: HostTensor): Uint8Array => {
  const stored = dtype === "f64" ? Float32Array.from(data) : data;
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
};

const tensorProto = (name: string, type: number, shape: readonly number[], numbers: Message): Message =>
  join([...shape.map((size) => integerField(1, size)), integerField(2, type), textField(8, name), numbers]);

const ownNumbers = (raw: Uint8Array): Message => bytesField(9, raw);

/** TensorProto.external_data, one location per tensor, and its data_location. */
const numbersOutside = (name: string): Message =>
  join([messageField(13, join([textField(1, "location"), textField(2, name)])), integerField(14, 1)]);

const attributeProto = (name: string, value: Attribute): Message => {
  const named = textField(1, name);
  if (typeof value === "number") return join([named, integerField(3, value), integerField(20, 2)]);
  if (typeof value === "string") return join([named, textField(4, value), integerField(20, 3)]);
  if ("float" in value) return join([named, floatField(2, value.float), integerField(20, 1)]);
  return join([named, ...value.map((item) => integerField(8, item)), integerField(20, 7)]);
};

const valueInfo = (name: string, { dtype, shape }: TypeOf): Message => {
  const dimension = (axis: Axis) => messageField(1, typeof axis === "number" ? integerField(1, axis) : textField(2, axis));
  const tensorType = join([integerField(1, types[dtype]), messageField(2, join(shape.map(dimension)))]);
  return join([textField(1, name), messageField(2, messageField(1, tensorType))]);
};

/**
 * A graph that is run many times over in one go, state handed from one time to the next (ONNX's Scan): what is large stays inside the runtime.
 * The model's `sliced` inputs have one more axis in front, of the times; so have all outputs but the carried ones.
 */
export interface Scan {
  /** Inputs that are given what the output of the same name was, the time before. */
  readonly carried: readonly string[];
  /** Inputs of which each time is given its own part. All others are the same every time. */
  readonly sliced: readonly string[];
}

/** The axis of the times. */
export const scanAxis = "times";

/** What a scanned model takes in: the graph's inputs, the sliced ones with one more axis. */
export const scannedInputs = (inputs: Graph["inputs"], scan: Scan | undefined): Readonly<Record<string, TypeOf>> =>
  Object.fromEntries(
    Object.entries(inputs).map(([name, { dtype, shape }]) => [
      name,
      { dtype, shape: scan?.sliced.includes(name) ? [scanAxis, ...shape] : shape },
    ]),
  );

export interface ModelOptions {
  readonly device: DeviceName;
  /** Inputs to be constants: built in, or left outside under their names. */
  readonly frozen?: Readonly<Record<string, HostTensor | Elsewhere>>;
  readonly scan?: Scan;
}

/** Largest protobuf message: 2 GiB less one byte. */
const protobufLimit = 0x7fffffff;

/** What an output is called in the model: ONNX has one name space for inputs and outputs, graphs have two. */
export const outputName = (name: string): string => `output:${name}`;

/** The graph as the bytes of an ONNX model. @throws TiltError when it would pass 2 GiB */
export const onnxModel = (graph: Graph, { device, frozen = {}, scan }: ModelOptions): Uint8Array => {
  const nodes: Message[] = [];
  const initializers: Message[] = [];
  const names = new Map<Value, string>();
  const cached = new Map<string, string>();
  const once = (key: string, make: () => string): string => {
    const known = cached.get(key);
    if (known !== undefined) return known;
    const made = make();
    cached.set(key, made);
    return made;
  };
  let counter = 0;
  const fresh = (): string => {
    const name = `v${counter++}`;
    return name in graph.inputs ? fresh() : name;
  };

  /** What an input or output of the graph is called where the graph is calculated: within a loop it may not have the name it has outside. */
  const inner = (name: string): string => (scan === undefined ? name : `inner:${name}`);
  const ownName = (name: string): string => (scan?.carried.includes(name) || scan?.sliced.includes(name) ? inner(name) : name);

  /** Plain axis names, and the input and place where each can be measured. */
  const measured = new Map<string, { readonly input: string; readonly at: number }>();
  for (const [name, { shape }] of Object.entries(graph.inputs)) {
    if (name in frozen) continue;
    shape.forEach((axis, at) => {
      if (typeof axis === "string" && !/[+*]/.test(axis) && !measured.has(axis)) measured.set(axis, { input: ownName(name), at });
    });
  }

  const emit: Emitter = {
    device,
    int64Type,
    type: (dtype) => types[dtype],
    node: (operator, inputs, attributes = {}, options = {}) => {
      const outputs = Array.from({ length: options.outputs ?? 1 }, fresh);
      nodes.push(
        join([
          ...inputs.map((name) => textField(1, name)),
          ...outputs.map((name) => textField(2, name)),
          textField(3, `${operator}_${outputs[0]}`),
          textField(4, operator),
          ...Object.entries(attributes).map(([name, value]) => messageField(5, attributeProto(name, value))),
          ...(options.domain === undefined ? [] : [textField(7, options.domain)]),
        ]),
      );
      return outputs[0]!;
    },
    initializer: (held) => {
      const name = fresh();
      initializers.push(tensorProto(name, types[held.dtype], held.shape, ownNumbers(rawBytes(held))));
      return name;
    },
    int64: (values) =>
      once(`int64:${values.join(",")}`, () => {
        const name = fresh();
        const raw = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
        initializers.push(tensorProto(name, int64Type, [values.length], ownNumbers(raw)));
        return name;
      }),
    axis: (axis) => {
      if (typeof axis === "number") return emit.int64([axis]);
      return once(`axis:${axis}`, () => {
        const combine = (operator: string, terms: readonly string[]) =>
          terms.map((term) => emit.axis(/^\d+$/.test(term) ? Number(term) : term)).reduce((a, b) => emit.node(operator, [a, b]));
        if (axis.includes("+")) return combine("Add", axis.split("+"));
        if (axis.includes("*")) return combine("Mul", axis.split("*"));
        const place = measured.get(axis);
        if (place === undefined)
          throw runtimeError({
            where: "onnxModel",
            expected: `axis ${axis} to be an axis of an input`,
            got: "none",
            fix: "give the graph an input that has it",
          });
        return emit.node("Slice", [emit.node("Shape", [place.input]), emit.int64([place.at]), emit.int64([place.at + 1])]);
      });
    },
    shape: (shape: Shape) =>
      shape.every((axis) => typeof axis === "number")
        ? emit.int64(shape as number[])
        : once(`shape:${showShape(shape)}`, () =>
            emit.node(
              "Concat",
              shape.map((axis) => emit.axis(axis)),
              { axis: 0 },
            ),
          ),
    inline: () => {
      throw new Error("inline is given the types of its inputs by lower");
    },
  };

  const lower = (value: Value): string => {
    const done = names.get(value);
    if (done !== undefined) return done;
    const inputs = value.inputs.map((source) => names.get(source)!);
    const inline: Emitter["inline"] = (given, build) => {
      const stand = value.inputs.map((source, i) => input(`inline${i}`, source.dtype, source.shape));
      for (const [i, placeholder] of stand.entries()) names.set(placeholder, given[i]!);
      return ancestors([build(...stand)])
        .map(lower)
        .at(-1)!;
    };
    const name = value.op.lower({ ...emit, inline }, inputs, value);
    names.set(value, name);
    return name;
  };

  for (const [name, value] of Object.entries(graph.inputs)) {
    names.set(value, ownName(name));
    const held = frozen[name];
    if (held === undefined) continue;
    const numbers = "data" in held ? ownNumbers(rawBytes(held)) : numbersOutside(name);
    initializers.push(tensorProto(name, types[held.dtype], held.shape, numbers));
  }
  for (const value of ancestors(Object.values(graph.outputs))) {
    if (isInput(value) && !names.has(value))
      throw runtimeError({
        where: "onnxModel",
        expected: "every input to be named in the graph",
        got: `a free input "${value.attributes.name}"`,
        fix: "list it among the graph's inputs",
      });
    lower(value);
  }
  const isCarried = (name: string): boolean => scan?.carried.includes(name) ?? false;
  const outputNames = [...(scan?.carried ?? []), ...Object.keys(graph.outputs).filter((name) => !isCarried(name))];
  const outputs = outputNames.map((name) => {
    const value = graph.outputs[name]!;
    const given = inner(outputName(name));
    nodes.push(
      join([textField(1, names.get(value)!), textField(2, given), textField(3, `Identity_${name}`), textField(4, "Identity")]),
    );
    return messageField(12, valueInfo(given, value));
  });
  const symbolic = Object.values(graph.inputs).flatMap((value) => value.shape.flatMap(namesIn));
  const described = textField(2, `tiltlm(${[...new Set(symbolic)].join(", ")})`);
  const calculation = [...nodes.map((node) => messageField(1, node)), described];
  const fed = Object.entries(scannedInputs(graph.inputs, scan)).filter(([name]) => !(name in frozen));
  const surroundings = [
    ...initializers.map((held) => messageField(5, held)),
    ...fed.map(([name, type]) => messageField(11, valueInfo(name, type))),
  ];
  const loop = ({ carried, sliced }: Scan): Message => {
    const own = [...carried, ...sliced];
    const body = join([
      ...calculation,
      ...own.map((name) => messageField(11, valueInfo(inner(name), graph.inputs[name]!))),
      ...outputs,
    ]);
    const node = join([
      ...own.map((name) => textField(1, name)),
      ...outputNames.map((name) => textField(2, outputName(name))),
      textField(4, "Scan"),
      messageField(5, join([textField(1, "body"), messageField(6, body), integerField(20, 5)])),
      messageField(5, attributeProto("num_scan_inputs", sliced.length)),
    ]);
    const ends = outputNames.map((name) => {
      const { dtype, shape } = graph.outputs[name]!;
      return messageField(12, valueInfo(outputName(name), { dtype, shape: isCarried(name) ? shape : [scanAxis, ...shape] }));
    });
    return join([messageField(1, node), described, ...surroundings, ...ends]);
  };
  const body = scan === undefined ? join([...calculation, ...surroundings, ...outputs]) : loop(scan);
  const opset = (domain: string, version: number) => messageField(8, join([textField(1, domain), integerField(2, version)]));
  const model = join([
    integerField(1, 10),
    textField(2, "tiltlm"),
    messageField(7, body),
    opset("", 21),
    opset("com.microsoft", 1),
  ]);
  if (model.size > protobufLimit) {
    throw runtimeError({
      where: "onnxModel",
      expected: "a model of at most 2 GiB",
      got: `${(model.size / 2 ** 30).toFixed(1)} GiB`,
      fix: "use a smaller model",
    });
  }
  return toBytes(model);
};

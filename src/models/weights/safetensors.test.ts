import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { runtimeError, TiltError } from "../../base/errors.ts";
import type { Files } from "../../base/files.ts";
import { f32, type NamedTensors, sizeOf } from "../../base/tensor.ts";
import { readSafetensors, safetensorsParts, type WeightDType } from "./safetensors.ts";

/** Files in memory, which refuse to hand out more than they hold: a lying header must be caught before it is believed. */
const memory = (contents: Record<string, Uint8Array>): Files => {
  const bytesOf = (path: string): Uint8Array => {
    const found = contents[path];
    if (found === undefined) throw runtimeError({ where: path, expected: "a file", got: "nothing", fix: "check the path" });
    return found;
  };
  const unused = (): never => {
    throw new Error("not a reader's business");
  };
  return {
    read: async (path) => bytesOf(path),
    readRange: async (path, offset, length) => {
      if (offset + length > bytesOf(path).length)
        throw new Error(`asked for ${length} bytes from ${offset} of ${bytesOf(path).length}`);
      // A view that begins at an odd byte, as the port allows.
      const bytes = new Uint8Array(length + 1).subarray(1);
      bytes.set(bytesOf(path).subarray(offset, offset + length));
      return bytes;
    },
    info: async (path) => (contents[path] === undefined ? undefined : { size: contents[path].length, isDirectory: false }),
    list: unused,
    write: unused,
    append: unused,
    truncate: unused,
    makeDirectory: unused,
    rename: unused,
    remove: unused,
  };
};

const joined = (parts: Iterable<Uint8Array>): Uint8Array => Uint8Array.from([...parts].flatMap((part) => [...part]));
const file = (header: unknown, dataBytes = 0): Uint8Array => {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(json.length), true);
  return joined([prefix, json, new Uint8Array(dataBytes)]);
};
const read = (bytes: Uint8Array) => readSafetensors(memory({ "m.safetensors": bytes }), "m.safetensors");

const names = fc
  .oneof(fc.string(), fc.constantFrom("__proto__", "constructor", "0", "lm_head.weight"))
  .filter((name) => name !== "__metadata__");
const arrays = fc
  .tuple(
    fc.array(fc.nat(3), { maxLength: 3 }),
    fc.array(fc.float({ noDefaultInfinity: true, noNaN: true }), { minLength: 27, maxLength: 27 }),
  )
  .map(([shape, values]) => f32(shape, values.slice(0, sizeOf(shape))));
const models: fc.Arbitrary<NamedTensors> = fc
  .uniqueArray(fc.tuple(names, arrays), { selector: ([name]) => name, maxLength: 5 })
  .map((entries) => Object.fromEntries(entries));

describe("round trip", () => {
  test("float32 comes back bit for bit, with its metadata", async () => {
    await fc.assert(
      fc.asyncProperty(models, fc.dictionary(fc.string(), fc.string()), async (model, metadata) => {
        const bytes = joined(safetensorsParts(model, { metadata }));
        const back = await read(bytes);
        expect(Object.keys(back.tensors).sort()).toEqual(Object.keys(model).sort());
        for (const name of Object.keys(model)) expect(back.tensors[name]).toEqual(model[name]);
        expect(Object.entries(back.metadata).sort()).toEqual(Object.entries(metadata).sort());
        expect(new DataView(bytes.buffer).getBigUint64(0, true) % 8n).toBe(0n);
      }),
    );
  });

  test.each(["F16", "BF16"] as const)(
    "what %s can hold comes back, and a second trip changes nothing",
    async (dtype: WeightDType) => {
      const model = { b: f32([3], [0.5, -2, 0]), a: f32([1], [1.0009765625]) };
      const { tensors, dtypes } = await read(joined(safetensorsParts(model, { dtype })));
      expect([...tensors["b"]!.data]).toEqual([0.5, -2, 0]);
      // 1 + 2^-10 is an F16 number; BF16 keeps 7 fraction bits of it.
      expect(tensors["a"]!.data[0]).toBe(dtype === "F16" ? 1.0009765625 : 1);
      expect(dtypes).toEqual({ a: dtype, b: dtype });
      expect((await read(joined(safetensorsParts(tensors, { dtype })))).tensors).toEqual(tensors);
    },
  );

  test("a view into a larger buffer is written as what it shows", async () => {
    const view = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
    expect((await read(joined(safetensorsParts({ view: f32([2], view) })))).tensors["view"]!.data).toEqual(Float32Array.of(1, 2));
  });
});

test("reads what the reference implementation wrote (Python safetensors 0.8.0, numpy 2.4.6)", async () => {
  const base64 =
    "AAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJhIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMCw4XX0sImUiOns" +
    "iZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzAsM10sImRhdGFfb2Zmc2V0cyI6WzgsOF19LCJzIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOls4LD" +
    "EyXX0sImIuaGFsZiI6eyJkdHlwZSI6IkYxNiIsInNoYXBlIjpbMiwzXSwiZGF0YV9vZmZzZXRzIjpbMTIsMjRdfX0gAADAPwAAUMAAAOBAADwAwAA4/3sBAACA";
  const { tensors, metadata, dtypes } = await read(Uint8Array.from(Buffer.from(base64, "base64")));
  expect(metadata).toEqual({ format: "pt" });
  expect(dtypes).toEqual({ a: "F32", e: "F32", s: "F32", "b.half": "F16" });
  expect(tensors).toEqual({
    a: f32([2], [1.5, -3.25]),
    e: f32([0, 3], []),
    s: f32([], [7]),
    "b.half": f32([2, 3], [1, -2, 0.5, 65504, 2 ** -24, -0]),
  });
});

describe("one clear error for", () => {
  const entry = (extra: object = {}) => ({ dtype: "F32", shape: [2], data_offsets: [0, 8], ...extra });
  test.each<[string, Uint8Array, RegExp]>([
    [
      "an empty file",
      new Uint8Array(0),
      /^m\.safetensors: expected a safetensors file, which has at least 8 bytes, got 0 bytes; /,
    ],
    [
      "a header longer than the file",
      Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 127, 0),
      /expected a header of at most 1 bytes, got one that claims/,
    ],
    [
      "a git-lfs pointer",
      new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\n"),
      /git-lfs pointer.*git lfs pull/,
    ],
    ["broken JSON", file('{"a":'), /expected a header of JSON, got /],
    ["a header that is no object", file([1]), /expected a JSON object as header, got \[1\]/],
    ["metadata that is not of strings", file({ __metadata__: { a: 1 } }), /__metadata__ of strings/],
    ["a tensor that is no object", file({ a: 3 }), /tensor "a": expected an object with dtype/],
    [
      "an integer dtype",
      file({ a: entry({ dtype: "I32" }) }, 8),
      /tensor "a": expected the dtype F32, F16 or BF16, got "I32"; convert/,
    ],
    [
      "an unknown dtype",
      file({ a: entry({ dtype: "Q4" }) }, 8),
      /tensor "a": expected the dtype F32, F16 or BF16, got "Q4"; convert/,
    ],
    ["a dtype of an object's own properties", file({ a: entry({ dtype: "constructor" }) }, 8), /got "constructor"/],
    [
      "a negative shape",
      file({ a: entry({ shape: [-2] }) }, 8),
      /tensor "a": expected a shape of non-negative integers, got \[-2\]/,
    ],
    ["a shape beyond counting", file({ a: entry({ shape: [2 ** 40, 2 ** 40] }) }, 8), /a shape whose size can be counted/],
    [
      "lengths that disagree",
      file({ a: entry({ data_offsets: [0, 4] }) }, 4),
      /expected 8 bytes for F32 \[2\], got data_offsets \[0,4\], which are 4/,
    ],
    ["offsets in the wrong order", file({ a: entry({ data_offsets: [8, 0] }) }, 8), /got data_offsets \[8,0\]/],
    ["offsets that are no pair", file({ a: entry({ data_offsets: [0, 8, 8] }) }, 8), /expected data_offsets of two/],
    ["data beyond the end", file({ a: entry() }, 7), /tensor "a": expected data up to byte 8, got a file with 7 bytes of data/],
    [
      "an overlap",
      file({ a: entry(), b: entry({ data_offsets: [4, 12] }) }, 12),
      /tensor "b": expected its data to begin at byte 8, got byte 4, which overlaps/,
    ],
    ["a hole", file({ a: entry({ data_offsets: [4, 12] }) }, 12), /tensor "a": .* got byte 4, which leaves a hole/],
    ["trailing bytes", file({ a: entry() }, 9), /m\.safetensors: expected 8 bytes of data, got 9/],
    ["nesting without end", file(`${"[".repeat(100_000)}${"]".repeat(100_000)}`), /expected a JSON object as header/],
  ])("%s", async (_, bytes, message) => {
    const error = await read(bytes).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TiltError);
    expect((error as TiltError).message).toMatch(message);
    expect((error as TiltError).message).not.toContain("\n");
  });

  test("nothing there", async () => {
    await expect(readSafetensors(memory({}), "gone.safetensors")).rejects.toThrow(
      /gone\.safetensors: expected a safetensors file, got nothing there/,
    );
  });
});

test("a tensor that is not selected may have any dtype and is not loaded", async () => {
  const bytes = file(
    { "attn.bias": { dtype: "BOOL", shape: [4], data_offsets: [0, 4] }, w: { dtype: "F32", shape: [1], data_offsets: [4, 8] } },
    8,
  );
  const { tensors } = await readSafetensors(memory({ m: bytes }), "m", { select: (name) => name === "w" });
  expect(Object.keys(tensors)).toEqual(["w"]);
});

describe("malformed files end in a TiltError, nothing else", () => {
  const onlyTiltErrors = async (bytes: Uint8Array): Promise<void> => {
    const outcome = await read(bytes).catch((error: unknown) => error);
    if (outcome instanceof Error) expect(outcome).toBeInstanceOf(TiltError);
    else expect(outcome).toHaveProperty("tensors");
  };
  const valid = joined(safetensorsParts({ a: f32([2, 3], [1, 2, 3, 4, 5, 6]), b: f32([1], [7]) }));

  test("any JSON as header", () =>
    fc.assert(fc.asyncProperty(fc.json(), fc.nat(16), (json, bytes) => onlyTiltErrors(file(json, bytes)))));

  test("headers that are nearly right", () => {
    const value = fc.oneof(
      fc.constantFrom("F32", "F16", "U8", -1, 0, 1.5, 8, 2 ** 53, 1e300, null, [], [0], [2], [0, 8], [8, 0], [0, 2 ** 52]),
      fc.jsonValue(),
    );
    const entry = fc.record({ dtype: value, shape: value, data_offsets: value }, { requiredKeys: [] });
    const header = fc.dictionary(fc.constantFrom("a", "b", "__metadata__", "__proto__"), fc.oneof(entry, value));
    return fc.assert(
      fc.asyncProperty(header, fc.nat(16), (claims, bytes) => onlyTiltErrors(file(claims, bytes))),
      { numRuns: 500 },
    );
  });

  test("any bytes", () => fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), onlyTiltErrors)));

  test("a valid file cut short is always refused", () =>
    fc.assert(
      fc.asyncProperty(fc.nat(valid.length - 1), async (length) => {
        await expect(read(valid.slice(0, length))).rejects.toBeInstanceOf(TiltError);
      }),
    ));

  test("a valid file with one byte changed", () =>
    fc.assert(
      fc.asyncProperty(fc.nat(valid.length - 1), fc.nat(255), (at, byte) =>
        onlyTiltErrors(valid.map((old, i) => (i === at ? byte : old))),
      ),
    ));
});

describe("shards", () => {
  const one = joined(safetensorsParts({ a: f32([1], [1]) }));
  const two = joined(safetensorsParts({ b: f32([1], [2]), c: f32([1], [3]) }));
  const sharded = (map: unknown) =>
    readSafetensors(
      memory({
        "d/1.safetensors": one,
        "d/2.safetensors": two,
        "d/m.index.json": new TextEncoder().encode(JSON.stringify({ weight_map: map })),
      }),
      "d/m.index.json",
    );
  const right = { a: "1.safetensors", b: "2.safetensors", c: "2.safetensors" };

  test("are read together", async () => {
    const { tensors, metadata } = await sharded(right);
    expect(Object.entries(tensors).map(([name, { data }]) => [name, data[0]])).toEqual([
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ]);
    expect(metadata).toEqual({ format: "pt" });
  });

  test.each<[string, unknown, RegExp]>([
    ["no map", undefined, /d\/m\.index\.json: expected an object with a weight_map/],
    ["a path as shard", { ...right, a: "../1.safetensors" }, /without a path, for "a", got "\.\.\/1\.safetensors"/],
    ["a Windows path as shard", { ...right, a: "..\\1.safetensors" }, /without a path, for "a"/],
    ["a missing shard", { ...right, a: "3.safetensors" }, /d\/3\.safetensors: expected a safetensors file, got nothing there/],
    ["a missing tensor", { ...right, x: "1.safetensors" }, /expected tensor "x" in 1\.safetensors, got none there/],
    [
      "a tensor in the wrong shard",
      { ...right, b: "1.safetensors" },
      /d\/2\.safetensors: expected only the tensors .* got also "b"/,
    ],
  ])("with %s are refused", async (_, map, message) => {
    const error = await sharded(map).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TiltError);
    expect((error as TiltError).message).toMatch(message);
  });
});

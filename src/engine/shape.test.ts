import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { f32, i32, tensor } from "../base/tensor.ts";
import {
  type Axis,
  axisIndex,
  bindInputs,
  bindShape,
  broadcastShapes,
  namesIn,
  plusAxes,
  resolveAxis,
  resolveShape,
  type Shape,
  sameShape,
  timesAxes,
} from "./shape.ts";

const bindings = new Map([
  ["B", 2],
  ["C", 5],
  ["T", 3],
]);

test.each([
  [4, 4],
  ["B", 2],
  ["B*T", 6],
  ["2*B*T", 12],
  ["C+1", 6],
  ["B*T+C", 11],
  ["C+T+10", 18],
])("axis %s stands for %d", (axis, size) => {
  expect(resolveAxis(axis, bindings)).toBe(size);
});

test("an axis that no input has cannot be resolved", () => {
  expect(() => resolveShape(["B", "V+1"], bindings)).toThrow(
    'resolveAxis: expected axis "V" to be bound by an input, got no binding; check the axes of the inputs',
  );
});

test("names in an axis", () => {
  expect([namesIn(7), namesIn("B"), namesIn("2*B*T"), namesIn("C+T+1")]).toEqual([[], ["B"], ["B", "T"], ["C", "T"]]);
});

test("products of axes", () => {
  expect([
    timesAxes([]),
    timesAxes([2, 3]),
    timesAxes(["B", "T"]),
    timesAxes([2, "B", 3]),
    timesAxes(["B", 0]),
    timesAxes(["B", 1]),
  ]).toEqual([1, 6, "B*T", "6*B", 0, "B"]);
  expect(() => timesAxes(["B", "C+1"])).toThrow("timesAxes: expected names or products of names, got B and C+1");
});

test("sums of axes are written one way", () => {
  expect([
    plusAxes(1, 2),
    plusAxes("C", 0),
    plusAxes(0, "C"),
    plusAxes("C", 1),
    plusAxes(1, "C"),
    plusAxes("C+1", 1),
    plusAxes("C+1", "T+2"),
  ]).toEqual([3, "C", "C", "C+1", "C+1", "C+2", "C+T+3"]);
  expect(plusAxes("B*T", 1)).toBe("B*T+1");
});

const axis = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constantFrom("B", "C", "T", "B*T", "2*B"));

test("property: products and sums of axes stand for the product and the sum of what the axes stand for", () => {
  fc.assert(
    fc.property(fc.array(axis, { maxLength: 4 }), (axes) => {
      const sizes = resolveShape(axes, bindings);
      expect(resolveAxis(timesAxes(axes), bindings)).toBe(sizes.reduce((a, b) => a * b, 1));
      expect(resolveAxis(axes.reduce<Axis>(plusAxes, 0), bindings)).toBe(sizes.reduce((a, b) => a + b, 0));
    }),
  );
});

describe("binding", () => {
  const bound = (shape: Shape, actual: readonly number[], known: readonly (readonly [string, number])[] = []) => {
    const map = new Map(known);
    bindShape("place", shape, actual, map);
    return [...map];
  };

  test("names take the sizes; numbers and expressions bind nothing", () => {
    expect(bound(["B", 4, "T", "B*T"], [2, 4, 3, 99])).toEqual([
      ["B", 2],
      ["T", 3],
    ]);
  });

  test.each([
    ["rank", ["B", 4], [2], "place: expected shape [B, 4], got [2]; check the axes of the inputs"],
    ["fixed size", ["B", 4], [2, 5], "place: expected shape [B, 4], got [2, 5]; check the axes of the inputs"],
    [
      "a name twice",
      ["B", "B"],
      [2, 3],
      "place: expected axis B = 2, as bound by another input, got [2, 3]; check the axes of the inputs",
    ],
  ] as const)("complains of the %s", (_what, shape, actual, message) => {
    expect(() => bound(shape, actual)).toThrow(message);
  });

  test("a name keeps its size over all inputs", () => {
    expect(() => bound(["B"], [3], [["B", 2]])).toThrow("axis B = 2, as bound by another input, got [3]");
  });

  const declared = {
    x: { dtype: "f32", shape: ["B", "T"] },
    flat: { dtype: "f32", shape: ["B*T"] },
    labels: { dtype: "i32", shape: ["B"] },
  } as const;
  const x = f32([2, 3], [1, 2, 3, 4, 5, 6]);
  const flat = f32([6], [1, 2, 3, 4, 5, 6]);
  const labels = i32([2], [0, 1]);

  test("inputs bind the names of all", () => {
    expect([...bindInputs("place", declared, { x, flat, labels })]).toEqual([
      ["B", 2],
      ["T", 3],
    ]);
  });

  test("float64 may stand for float32", () => {
    expect(() =>
      bindInputs("place", declared, { x: tensor("f64", [2, 3], Float64Array.from(x.data)), flat, labels }),
    ).not.toThrow();
  });

  test.each([
    ["missing", { x, flat }, 'place: expected a value for input "labels", got none; pass it'],
    ["of another dtype", { x, flat, labels: f32([2], [0, 1]) }, 'place: input "labels": expected dtype i32, got f32; convert it'],
    [
      "integer where floats go",
      { x: i32([2, 3], [1, 2, 3, 4, 5, 6]), flat, labels },
      'place: input "x": expected dtype f32, got i32; convert it',
    ],
    [
      "not the product of its axes",
      { x, flat: f32([5], [1, 2, 3, 4, 5]), labels },
      'place: input "flat": expected shape [6], got [5]; check the axes of the inputs',
    ],
    [
      "not as long as another",
      { x, flat, labels: i32([1], [0]) },
      'place: input "labels": expected axis B = 2, as bound by another input, got [1]',
    ],
  ])("an input that is %s is refused", (_what, given, message) => {
    expect(() => bindInputs("place", declared, given as never)).toThrow(message);
  });
});

describe("broadcasting", () => {
  test.each([
    [[], ["B", 3], ["B", 3]],
    [["B", 1], ["T"], ["B", "T"]],
    [
      ["B", 1, 3],
      [1, "T", 1],
      ["B", "T", 3],
    ],
    [
      ["B", "T"],
      ["B", "T"],
      ["B", "T"],
    ],
    [[1], [0], [0]],
  ] as const)("%j and %j give %j", (a, b, both) => {
    expect(broadcastShapes("place", a, b)).toEqual(both);
    expect(broadcastShapes("place", b, a)).toEqual(both);
  });

  test.each([
    [["B"], ["T"]],
    [["B"], [2]],
    [[2, 3], [2]],
    [["B*T"], ["T*B"]],
  ] as const)("%j and %j do not fit", (a, b) => {
    expect(() => broadcastShapes("add", a, b)).toThrow(
      `add: expected axes that are equal or 1, got [${a.join(", ")}] and [${b.join(", ")}]`,
    );
  });

  test("property: a shape cut at the front and with ones put in broadcasts back to it", () => {
    const shape = fc.array(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constantFrom("B", "T")), { maxLength: 4 });
    fc.assert(
      fc.property(
        shape,
        fc.integer({ min: 0, max: 4 }),
        fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
        (full, cut, ones) => {
          const part: Shape = full.slice(Math.min(cut, full.length)).map((size, i) => (ones[i] ? 1 : size));
          expect(sameShape(broadcastShapes("place", part, full), full)).toBe(true);
        },
      ),
    );
  });
});

test("axis indices count from either end", () => {
  expect([axisIndex("sum", 0, 3), axisIndex("sum", 2, 3), axisIndex("sum", -1, 3), axisIndex("sum", -3, 3)]).toEqual([
    0, 2, 2, 0,
  ]);
  for (const axis of [3, -4, 0.5]) expect(() => axisIndex("sum", axis, 3)).toThrow(`sum: expected an axis below 3, got ${axis}`);
  expect(() => axisIndex("sum", 0, 0)).toThrow("sum: expected an axis below 0, got 0");
});

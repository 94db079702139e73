import { expect, test } from "vitest";
import { nodeContext, nodeFiles } from "./node.ts";

test("a context of Node has its disk, its devices and a clock, and takes what is given instead", () => {
  const context = nodeContext();
  expect(context.files).toBe(nodeFiles);
  expect(context.openDevice("cpu").name).toBe("cpu");
  const before = context.clock();
  expect(context.clock()).toBeGreaterThanOrEqual(before);
  expect(context.onEvent({ type: "notice", message: "unheard" })).toBeUndefined();
  expect(nodeContext({ clock: () => 7 }).clock()).toBe(7);
});

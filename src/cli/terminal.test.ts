import { describe, expect, it } from "vitest";
import { describeTerminal, paintFor, symbolsFor } from "./terminal.ts";

const tty = { isTTY: true, columns: 80 };

describe("describeTerminal", () => {
  it("is plain where nobody watches", () => {
    expect(describeTerminal({}, {}, "linux")).toEqual({ live: false, width: 100, color: false, unicode: true });
  });

  it("is live and coloured on a terminal, but not on a dumb one", () => {
    expect(describeTerminal(tty, {}, "linux")).toEqual({ live: true, width: 80, color: true, unicode: true });
    expect(describeTerminal(tty, { TERM: "dumb" }, "linux")).toMatchObject({ live: false, color: false });
  });

  it.each([
    [tty, { NO_COLOR: "1" }, false],
    [tty, { NO_COLOR: "" }, true],
    [{}, { FORCE_COLOR: "1" }, true],
    [tty, { FORCE_COLOR: "0" }, false],
    [tty, { FORCE_COLOR: "1", NO_COLOR: "1" }, true],
  ])("colours %j in %j: %s", (screen, env, color) => expect(describeTerminal(screen, env, "linux").color).toBe(color));

  it.each([
    [{ LANG: "en_US.UTF-8" }, "linux", true],
    [{ LC_ALL: "C", LANG: "en_US.UTF-8" }, "linux", false],
    [{ TERM: "linux" }, "linux", false],
    [{}, "win32", false],
    [{ WT_SESSION: "x" }, "win32", true],
  ])("has Unicode in %j on %s: %s", (env, platform, unicode) =>
    expect(describeTerminal(tty, env, platform).unicode).toBe(unicode),
  );
});

describe("paintFor", () => {
  it("colours, or leaves a text as it is", () => {
    expect(paintFor({ color: true }).bold("a")).toBe("\u001b[1ma\u001b[22m");
    expect(paintFor({ color: false }).bold("a")).toBe("a");
  });
  it("has a name for every symbol", () => {
    expect(Object.values(symbolsFor({ unicode: false })).join("")).toMatch(/^[\x20-\x7e]+$/);
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { applyOverrides, loadConfigFile, readConfig, resolvePaths } from "./config-file.node.ts";

const directory = mkdtempSync(join(tmpdir(), "tiltlm-config-"));
afterAll(() => rmSync(directory, { recursive: true }));
const file = (name: string, content: string | Uint8Array): string => {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
};

describe("loadConfigFile", () => {
  it("reads YAML, JSON, TypeScript and JavaScript alike", async () => {
    const content = { base: "./a", optimizer: { learningRate: 1e-5 }, words: ["a", "b"] };
    const module = `export default defineRun(${JSON.stringify(content)} as never);`;
    const paths = [
      file("a.yaml", "\uFEFFbase: ./a\noptimizer: { learningRate: 1e-5 }\nwords: [a, b]\n"),
      file("a.json", JSON.stringify(content, null, "\t")),
      file("a.ts", `import { defineRun } from "tiltlm";\n${module}`),
      file("a.mjs", `export default Promise.resolve(${JSON.stringify(content)});`),
    ];
    for (const path of paths) expect(await loadConfigFile(path)).toEqual(content);
  });

  it.each([
    ["b.yaml", "a: 1\nb: [1,\nc: 2\n", /b\.yaml:3:1: expected YAML, got Flow sequence .*; correct the file there$/],
    ["c.yaml", "a: 1\na: 2\n", /c\.yaml:2:1: expected YAML, got Map keys must be unique/],
    ["d.yaml", "a: *x\n", /d\.yaml: expected YAML, got Unresolved alias/],
    ["e.json", '{\n  "a": nope\n}', /e\.json:2:8: expected JSON, got /],
    ["f.ts", "export default {", /f\.ts: expected a module that loads, got /],
    ["g.ts", "export const config = {};", /g\.ts: expected the config as default export, got config; write: export default/],
    ["h.toml", "a = 1", /h\.toml: expected a file ending in \.yaml, .*, got "\.toml"/],
    ["i.yaml", Uint8Array.of(0x61, 0x3a, 0x20, 0xff), /i\.yaml: expected text in UTF-8/],
  ])("explains %s", async (name, content, message) => {
    const failure = await loadConfigFile(file(name, content)).catch((error: Error) => error.message);
    expect(failure).toMatch(message);
    expect(failure).not.toContain("\n");
  });

  it("explains what is no file", async () => {
    await expect(loadConfigFile(join(directory, "absent.yaml"))).rejects.toThrow(
      /absent\.yaml: expected a config file, got nothing there/,
    );
    await expect(loadConfigFile(directory)).rejects.toThrow(/expected a config file, got a directory; name the file in it/);
  });
});

describe("applyOverrides", () => {
  it("sets scalars, lists and mappings, makes what is missing, and leaves the input alone", () => {
    const input = Object.freeze({ a: Object.freeze({ b: 1, c: 2 }), kept: true });
    const overrides = ["a.b=1e-4", "list=[x, y]", "new.deep.key={ every: 5 }", "text=a=b", "a.b=7", "__proto__.polluted=1"];
    const result = applyOverrides(input, overrides) as Record<string, unknown>;
    expect(result).toMatchObject({
      a: { b: 7, c: 2 },
      kept: true,
      list: ["x", "y"],
      new: { deep: { key: { every: 5 } } },
      text: "a=b",
    });
    expect(input).toEqual({ a: { b: 1, c: 2 }, kept: true });
    expect(Object.hasOwn(result, "__proto__")).toBe(true);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  it.each([
    ["steps", /--set steps: expected key\.path=value, got "steps"/],
    ["=1", /expected key\.path=value/],
    ["a..b=1", /expected key\.path=value/],
    ["a=[1", /--set a=\[1:1:3: expected YAML/],
    ["steps.deep=1", /--set steps\.deep=1: expected a mapping to hold "deep", got 3/],
  ])("refuses %s", (override, message) => {
    expect(() => applyOverrides({ steps: 3 }, [override])).toThrow(message);
  });
});

describe("paths", () => {
  it("are resolved where they are written", async () => {
    const path = file("p.yaml", "base: ../model\ndata: text.txt\n");
    expect(await readConfig(path)).toEqual({ base: join(directory, "..", "model"), data: join(directory, "text.txt") });
    expect(await readConfig(path, ["base=../x"], join(directory, "elsewhere"))).toMatchObject({ base: join(directory, "x") });
  });

  it("of a hub id stay, unless such a directory is there", () => {
    expect(resolvePaths({ base: "openai-community/gpt2" }, directory)).toEqual({ base: "openai-community/gpt2" });
    expect(resolvePaths({ base: "src/run" }, process.cwd())).toEqual({ base: join(process.cwd(), "src/run") });
    expect(resolvePaths({ base: "gpt2" }, directory)).toEqual({ base: join(directory, "gpt2") });
  });
});

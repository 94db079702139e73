import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TiltError } from "../base/errors.ts";
import { editDistance, nearest } from "../base/suggestion.ts";
import {
  configDifferences,
  configHash,
  definePretrain,
  defineRun,
  parsePretrainConfig,
  parseRunConfig,
  plainConfig,
} from "./config.ts";

const smallest = { base: "./a", features: { lily: { kind: "word", word: "Lily" } }, target: { moments: { lily: 0.05 } } };
const problem = (input: unknown, parse: (input: unknown, where: string) => unknown = parseRunConfig): string => {
  try {
    parse(input, "run.yaml");
  } catch (error) {
    expect(error).toBeInstanceOf(TiltError);
    expect((error as TiltError).kind).toBe("usage");
    expect((error as TiltError).message).not.toContain("\n");
    return (error as TiltError).message;
  }
  throw new Error("accepted");
};

describe("parseRunConfig", () => {
  it("fills in every default of the contract", () => {
    expect(parseRunConfig(smallest, "run.yaml")).toEqual({
      base: "./a",
      sequence: { maxTokens: 64, prompt: "" },
      features: { lily: { kind: "word", word: "Lily", caseSensitive: true } },
      target: { moments: { lily: 0.05 }, samples: 8192 },
      method: { name: "gdc++", baseline: "z-policy-over-proposal" },
      batch: { samples: 512, microBatch: 64 },
      optimizer: {
        name: "adam",
        learningRate: 1.41e-5,
        warmupSteps: 100,
        schedule: "constant",
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weightDecay: 0,
      },
      proposal: { updateEvery: 10, criterion: "kl", samples: 1024 },
      steps: 300,
      seed: 12,
      evaluate: { every: 20, samples: 2048, topP: 1 },
      checkpoint: { every: 20, keep: 2 },
      device: "cpu",
    });
  });

  it.each([
    ["dpg", "none"],
    ["gdc", "none"],
    ["gdc++", "z-policy-over-proposal"],
  ])("gives %s its own baseline", (name, baseline) => {
    expect(parseRunConfig({ ...smallest, method: { name } }, "").method).toEqual({ name, baseline });
    expect(parseRunConfig({ ...smallest, method: { name, baseline: "z" } }, "").method.baseline).toBe("z");
  });

  it("decays weights with adamw only", () => {
    expect(parseRunConfig({ ...smallest, optimizer: { name: "adamw" } }, "").optimizer.weightDecay).toBe(0.01);
    expect(problem({ ...smallest, optimizer: { weightDecay: 0.1 } })).toBe(
      "run.yaml: optimizer.weightDecay: expected no weight decay with adam, got 0.1; use optimizer.name: adamw or remove it",
    );
  });

  it("takes functions as features, per sample or per batch, and is idempotent", () => {
    const long = ({ text }: { text: string }) => text.length;
    const input = defineRun({
      ...(smallest as { base: string }),
      features: {
        plain: ({ text }) => text.startsWith("A"),
        long: { sample: long, binary: false },
        many: { batch: (all) => all.map(() => 1) },
      },
      target: { moments: { plain: 0.5, long: 12 } },
    });
    const config = parseRunConfig(input, "run.ts");
    expect(config.features["long"]).toEqual({ kind: "function", binary: false, perSample: long });
    expect(config.features["many"]).toMatchObject({ kind: "function", perBatch: expect.any(Function) });
    expect(parseRunConfig(config, "run.ts")).toEqual(config);
    expect(plainConfig(config)).toMatchObject({ features: { long: { perSample: { function: "({ text }) => text.length" } } } });
  });

  it.each([
    [
      { optimizer: { learningrate: 1 } },
      /^run\.yaml: optimizer\.learningrate: expected a known key \(name, learningRate, .*\), got "learningrate"; did you mean "learningRate"\?$/,
    ],
    [{ zzzzzz: 1 }, /^run\.yaml: zzzzzz: expected a known key \(base, .*\), got "zzzzzz"; remove it$/],
    [{ base: undefined }, /^run\.yaml: base: expected a text, got nothing; add base$/],
    [{ steps: "300" }, /^run\.yaml: steps: expected a number, got "300"; remove the quotes$/],
    [{ steps: 1.5 }, /^run\.yaml: steps: expected a whole number, got 1\.5; correct the value$/],
    [{ steps: 0 }, /^run\.yaml: steps: expected a number at least 1, got 0; /],
    [{ sequence: { maxTokens: 5000 } }, /sequence\.maxTokens: expected a number at most 4096, got 5000/],
    [{ optimizer: { learningRate: 0 } }, /optimizer\.learningRate: expected a number above 0, got 0/],
    [{ optimizer: null }, /optimizer: expected a mapping of keys, got nothing; give it a value or remove the key/],
    [{ method: { name: "gdc+" } }, /method\.name: expected one of dpg, gdc, gdc\+\+, got "gdc\+"; did you mean/],
    [
      { features: { lily: { kind: "wurd", word: "Lily" } } },
      /features\.lily\.kind: expected one of word, words, .*, got "wurd"; did you mean "word"\?/,
    ],
    [
      { features: { lily: { kind: "word", wrod: "Lily" } } },
      /features\.lily\.wrod: .*did you mean "word"\? \(and 1 more problem\)$/,
    ],
    [{ features: { lily: { sample: 3 } } }, /features\.lily\.sample: expected a function of .*, got 3/],
    [
      { features: { lily: { kind: "regex", pattern: "(" } } },
      /^run\.yaml: features\.lily: expected a JavaScript regular expression, got /,
    ],
    [{ target: { moments: { lilly: 0.5 } } }, /^run\.yaml: target\.moments\.lilly: .*did you mean "lily"\?/],
    [{ target: { moments: { lily: 1.5 } } }, /^run\.yaml: target\.moments\.lily: expected a moment between 0 and 1.*, got 1\.5/],
    [{ target: { moments: { lily: Number.NaN } } }, /target\.moments\.lily: expected a number, got NaN/],
    [{ target: { moments: {} } }, /^run\.yaml: target\.moments: expected at least one/],
    [{ batch: { samples: 32 } }, /batch\.microBatch: expected at most batch\.samples \(32\), got 64/],
    [{ evaluate: { every: 0, topP: 2 } }, /evaluate\.every: .* \(and 1 more problem\)$/],
  ])("refuses %j", (change, message) => {
    expect(problem({ ...smallest, ...change })).toMatch(message);
  });

  it("refuses what is no mapping", () => {
    expect(problem(null)).toMatch(/^run\.yaml: expected a mapping of keys, got nothing/);
    expect(problem([])).toMatch(/^run\.yaml: expected a mapping of keys, got a list of 0/);
  });

  it("suggests the known key for any single typing slip, anywhere", () => {
    const known: readonly (readonly [section: string | undefined, key: string])[] = [
      [undefined, "sequence"],
      ["sequence", "maxTokens"],
      ["optimizer", "warmupSteps"],
      ["proposal", "updateEvery"],
      ["evaluate", "samples"],
      ["checkpoint", "every"],
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...known),
        fc.nat(),
        fc.constantFrom("drop", "double", "replace"),
        ([section, key], at, slip) => {
          const i = at % key.length;
          const middle = { drop: "", double: key[i]! + key[i]!, replace: "_" }[slip];
          const typo = key.slice(0, i) + middle + key.slice(i + 1);
          const message = problem({ ...smallest, ...(section === undefined ? { [typo]: {} } : { [section]: { [typo]: 1 } }) });
          const path = section === undefined ? typo : `${section}.${typo}`;
          expect(message.startsWith(`run.yaml: ${path}: expected a known key`)).toBe(true);
          expect(message).toContain(`did you mean "${key}"?`);
        },
      ),
    );
  });

  it("never throws anything but a usage error of one line", () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(parseRunConfig(smallest, ""))), fc.jsonValue(), (key, value) => {
        try {
          parseRunConfig({ ...smallest, [key]: value }, "x");
          expect(true).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(TiltError);
          // Without its feature, it is the moment that has no meaning.
          expect((error as TiltError).message).toMatch(new RegExp(`^x: (${key}|target)[^\\n]*$`));
        }
      }),
    );
  });
});

describe("parsePretrainConfig", () => {
  it("fills in defaults, is idempotent, and takes steps or epochs", () => {
    const config = parsePretrainConfig(definePretrain({ data: "a.txt" }), "p.yaml");
    expect(config).toMatchObject({
      validationShare: 0.02,
      tokenizer: { vocabularySize: 1024 },
      model: { family: "gpt2", layers: 4, width: 128, heads: 4, contextLength: 64 },
      batch: { samples: 128, microBatch: 128 },
      optimizer: { learningRate: 1e-3, schedule: "cosine", warmupSteps: 100 },
      steps: 1000,
      dtype: "F32",
    });
    expect(parsePretrainConfig(config, "p.yaml")).toEqual(config);
    expect(parsePretrainConfig({ data: "a.txt", epochs: 2 }, "p.yaml")).not.toHaveProperty("steps");
    expect(problem({ data: "a", steps: 1, epochs: 2 }, parsePretrainConfig)).toMatch(/epochs: expected either steps or epochs/);
  });

  it.each([
    [{ width: 100, heads: 3 }, /model\.heads: expected a divisor of model\.width \(100\), got 3/],
    [{ keyValueHeads: 2 }, /model\.keyValueHeads: expected family: llama, got gpt2/],
    [{ family: "llama", keyValueHeads: 3 }, /model\.keyValueHeads: expected a divisor of model\.heads \(4\), got 3/],
    [{ family: "llama", width: 12 }, /model\.heads: expected an even width per head.*, got 3/],
  ])("refuses the model %j", (model, message) => {
    expect(problem({ data: "a", model }, parsePretrainConfig)).toMatch(message);
  });
});

describe("identity of a config", () => {
  const config = (change: object = {}) => parseRunConfig({ ...smallest, ...change }, "");

  it("does not depend on the order of keys, and survives JSON", async () => {
    const forth = config({ steps: 10, seed: 1 });
    const back = Object.fromEntries(Object.entries(forth).reverse()) as typeof forth;
    expect(await configHash(back)).toBe(await configHash(forth));
    expect(await configHash(forth)).toMatch(/^[0-9a-f]{64}$/);
    expect(configDifferences(JSON.parse(JSON.stringify(plainConfig(forth))), forth)).toEqual([]);
  });

  it("lets a run of constant schedule be extended, and no other", async () => {
    const linear = { optimizer: { schedule: "linear" } };
    expect(await configHash(config({ steps: 10 }))).toBe(await configHash(config({ steps: 20 })));
    expect(configDifferences(config({ steps: 10 }), config({ steps: 20 }))).toEqual([]);
    expect(await configHash(config({ steps: 10, ...linear }))).not.toBe(await configHash(config({ steps: 20, ...linear })));
    expect(configDifferences(config({ steps: 10, ...linear }), config({ steps: 20, ...linear }))).toEqual(["steps"]);
  });

  it("names each key that differs", async () => {
    const a = config({ features: { lily: (x: { text: string }) => x.text === "a" }, seed: 1 });
    const b = config({ features: { lily: (x: { text: string }) => x.text === "b" }, seed: 2, method: { clampLogWeight: 5 } });
    expect(configDifferences(a, b)).toEqual(["features.lily.perSample.function", "method.clampLogWeight", "seed"]);
    expect(await configHash(a)).not.toBe(await configHash(b));
  });
});

describe("nearest", () => {
  it("counts edits", () => {
    expect([
      editDistance("", "abc"),
      editDistance("kitten", "sitting"),
      editDistance("form", "from"),
      editDistance("A", "a"),
    ]).toEqual([3, 3, 1, 0]);
  });
  it("takes a beginning, and nothing far", () => {
    expect(nearest("micro", ["samples", "microBatch"])).toBe("microBatch");
    expect(nearest("banana", ["samples", "microBatch"])).toBeUndefined();
  });
});

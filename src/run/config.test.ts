import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TiltError } from "../base/errors.ts";
import { editDistance, nearest } from "../base/suggestion.ts";
import { methodNames, methodOf } from "../tuners/method.ts";
import {
  configDifferences,
  configHash,
  definePretrain,
  defineRun,
  parsePretrainConfig,
  parseRunConfig,
  plainConfig,
  type RunInput,
  rewardOf,
  targetSpecsOf,
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
      method: { name: "gdc++", baseline: "z" },
      batch: { samples: 512, microBatch: 16, epochs: 1, miniBatches: 1 },
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
      partition: { rule: "cumulative", window: 10 },
      average: { kind: "none", decay: 0.99, from: 0 },
      diagnostics: { every: 0, samples: 32 },
      steps: 300,
      seed: 12,
      evaluate: { every: 20, samples: 2048, topP: 1, proposal: false },
      checkpoint: { every: 20, keep: 2 },
      device: "cpu",
    });
  });

  const adaptive = { klControl: "adaptive", klTarget: 6, klHorizon: 10000 } as const;
  const fixed = { ...adaptive, klControl: "fixed" } as const;
  it.each([
    [{ name: "reinforce", baseline: "leave-one-out" }, 1],
    [{ name: "reinforce-target", baseline: "leave-one-out" }, 1],
    [{ name: "kl-control", baseline: "leave-one-out", klCoefficient: 0.1, ...fixed }, 1],
    [{ name: "rloo", klCoefficient: 0.05, ...fixed }, 1],
    [{ name: "grpo", klCoefficient: 0.04, ...fixed, clip: 0.2, scaleByDeviation: true, lengthScale: "sequence" }, 1],
    [
      {
        name: "ppo",
        klCoefficient: 0.2,
        ...adaptive,
        discount: 1,
        gaeLambda: 0.95,
        clip: 0.2,
        valueClip: 0.2,
        valueCoefficient: 0.1,
        whiten: true,
      },
      4,
    ],
    [{ name: "dpg", baseline: "none" }, 1],
    [{ name: "gdc", baseline: "none" }, 1],
    [{ name: "gdc++", baseline: "z" }, 1],
    [{ name: "f-dpg", divergence: "kl", samplesFrom: "proposal", baseline: "running" }, 1],
  ] as const)("gives %o its defaults, a proposal where it samples from one, and is idempotent", (method, epochs) => {
    const { name } = method;
    const reward = { features: { lily: 1 } };
    const input = { ...smallest, method: { name }, ...("klControl" in method || name === "reinforce" ? { reward } : {}) };
    const config = parseRunConfig(input, "");
    expect(config.method).toEqual(method);
    expect(config.batch.epochs).toBe(epochs);
    expect("proposal" in config).toBe(["gdc", "gdc++", "f-dpg"].includes(name));
    expect(methodOf(config.method).samplesFrom).toBe("proposal" in config ? "proposal" : "policy");
    // As text: the order of keys is part of what a dry run prints.
    expect(JSON.stringify(parseRunConfig(config, ""))).toBe(JSON.stringify(config));
    expect(Object.keys(config).slice(0, 3)).toEqual(["base", "sequence", "features"]);
    expect(parseRunConfig({ ...input, batch: { epochs: 3 } }, "").batch.epochs).toBe(3);
  });

  it("has a schema for every method there is", () => {
    expect(problem({ ...smallest, method: { name: "?" } })).toContain(`expected one of ${methodNames.join(", ")}, got`);
  });

  it("lets f-dpg sample from the policy, and then has no proposal", () => {
    const config = parseRunConfig({ ...smallest, method: { name: "f-dpg", samplesFrom: "policy" } }, "");
    expect(config).not.toHaveProperty("proposal");
    expect(methodOf(config.method).samplesFrom).toBe("policy");
    expect(parseRunConfig(config, "")).toEqual(config);
  });

  it("takes the KL coefficient of the target where a method has none of its own", () => {
    const emergent = { reward: { features: { lily: 1 } }, klCoefficient: 0.7 };
    const coefficientOf = (name: string, target: object | undefined, method: object = {}) => {
      const reward = JSON.stringify(target ?? {}).includes("reward") ? {} : { reward: { features: { lily: 1 } } };
      const { target: _, ...rest } = smallest;
      const config = parseRunConfig(
        { ...rest, ...reward, ...(target === undefined ? {} : { target }), method: { name, ...method } },
        "",
      );
      expect(parseRunConfig(config, "")).toEqual(config);
      return (config.method as { klCoefficient?: number }).klCoefficient;
    };
    for (const name of ["kl-control", "rloo", "grpo", "ppo"]) {
      expect(coefficientOf(name, emergent)).toBe(0.7);
      expect(coefficientOf(name, { product: [{ moments: { lily: 0.5 } }, emergent] })).toBe(0.7);
      expect(coefficientOf(name, emergent, { klCoefficient: 0.3 })).toBe(0.3);
    }
    expect(coefficientOf("kl-control", undefined)).toBe(0.1);
    expect(coefficientOf("ppo", { moments: { lily: 0.5 } })).toBe(0.2);
    // exp(r/0.5) exp(r/0.25) = exp(r/(1/6))
    expect(coefficientOf("rloo", { product: [{ klCoefficient: 0.5 }, { klCoefficient: 0.25 }] })).toBeCloseTo(1 / 6, 14);
    expect(coefficientOf("reinforce", emergent)).toBeUndefined();
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
        many: { batch: (all) => all.map(() => 1), timeoutSeconds: 5 },
      },
      target: { moments: { plain: 0.5, long: 12 } },
    });
    const config = parseRunConfig(input, "run.ts");
    expect(config.features["long"]).toEqual({ kind: "function", binary: false, timeoutSeconds: 60, perSample: long });
    expect(config.features["plain"]).toEqual({ kind: "function", timeoutSeconds: 60, perSample: expect.any(Function) });
    expect(config.features["many"]).toEqual({ kind: "function", timeoutSeconds: 5, perBatch: expect.any(Function) });
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
    [
      { method: { name: "gdc+" } },
      /method\.name: expected one of reinforce, .*, ppo, dpg, gdc, gdc\+\+, f-dpg, got "gdc\+"; did you mean/,
    ],
    [{ method: { name: "pop" } }, /method\.name: .*, f-dpg, got "pop"; did you mean "ppo"\?/],
    [{ method: { name: 3 } }, /method\.name: .*, f-dpg, got 3; choose one of them$/],
    [
      { method: { name: "ppo", gaelambda: 1 } },
      /^run\.yaml: method\.gaelambda: expected a known key \(name, klCoefficient, .*\), got "gaelambda"; did you mean "gaeLambda"\?/,
    ],
    [{ method: { baselines: "z" } }, /method\.baselines: expected a known key \(name, baseline, .*did you mean "baseline"\?/],
    [{ method: { name: "gdc++", baseline: "mean" } }, /method\.baseline: expected one of none, z, prefix, got "mean"/],
    [{ method: { name: "kl-control", klCoefficient: 0 } }, /method\.klCoefficient: expected a number above 0, got 0/],
    [{ method: { name: "grpo", clip: 1 } }, /method\.clip: expected a number below 1, got 1/],
    [{ method: { name: "ppo", discount: 0 } }, /method\.discount: expected a number above 0, got 0/],
    [{ proposal: { criterion: "tvd" } }, /proposal\.criterion: expected one of kl, kl-authors, tv, interval, never, got "tvd"/],
    [
      { partition: { rule: "window" } },
      /partition\.rule: expected one of cumulative, windowed, ess, .*did you mean "windowed"\?/,
    ],
    [{ average: { decay: 1 } }, /average\.decay: expected a number below 1, got 1/],
    [{ diagnostics: { every: 1, samples: 600 } }, /diagnostics\.samples: expected at most batch\.samples \(512\), got 600/],
    [
      { reward: { features: { lily: 1 } }, method: { name: "ppo", klHorizon: 100 } },
      /method\.klHorizon: expected above batch\.samples \/ 5 \(102\.4\), got 100; raise it/,
    ],
    [{ diagnostics: { samples: 1 } }, /diagnostics\.samples: expected a number at least 3, got 1/],
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
    [{ batch: { samples: 8 } }, /batch\.microBatch: expected at most batch\.samples \(8\), got 16/],
    [
      { batch: { samples: 16, miniBatches: 2 } },
      /batch\.microBatch: expected at most batch\.samples \/ batch\.miniBatches \(8\), got 16/,
    ],
    [
      { batch: { samples: 32, microBatch: 8, miniBatches: 33 } },
      /batch\.miniBatches: expected at most batch\.samples \(32\), got 33/,
    ],
    [{ evaluate: { every: 0, topP: 2 } }, /evaluate\.every: .* \(and 1 more problem\)$/],
  ])("refuses %j", (change, message) => {
    expect(problem({ ...smallest, ...change })).toMatch(message);
  });

  it("divides a batch with a remainder: 65 sequences in two mini-batches are computed 33 at once", () => {
    const batch = { samples: 65, microBatch: 33, miniBatches: 2 };
    expect(parseRunConfig({ ...smallest, batch }, "").batch).toEqual({ ...batch, epochs: 1 });
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

describe("rewards and targets", () => {
  const words = { lily: { kind: "word", word: "Lily" }, tom: { kind: "word", word: "Tom" } } as const;
  const run = (change: object): unknown => ({ base: "./a", features: words, ...change });
  const lily = { features: { lily: 2 } };

  it("takes a reward as features or as a function, and is idempotent", () => {
    const r = ({ text }: { text: string }) => text.length;
    const many = (all: readonly { text: string }[]) => all.map(r);
    const forms: [RunInput["reward"], object][] = [
      [lily, lily],
      [r, { sample: r, timeoutSeconds: 60 }],
      [{ sample: r }, { sample: r, timeoutSeconds: 60 }],
      [
        { batch: many, timeoutSeconds: 0.5 },
        { batch: many, timeoutSeconds: 0.5 },
      ],
    ];
    for (const [written, complete] of forms) {
      const atTop = parseRunConfig(run({ reward: written, method: { name: "rloo" } }), "");
      const inTarget = parseRunConfig(run({ target: { reward: written, klCoefficient: 1 } }), "");
      const product = [{ moments: { tom: 0.5 } }, { reward: written, klCoefficient: 1 }];
      const inProduct = parseRunConfig(run({ target: { product } }), "");
      for (const config of [atTop, inTarget, inProduct]) {
        expect(rewardOf(config)).toEqual(complete);
        expect(parseRunConfig(config, "")).toEqual(config);
      }
      expect([atTop.reward, inTarget.target!.reward, inProduct.target!.product![1]!.reward]).toEqual([
        complete,
        complete,
        complete,
      ]);
    }
    expect(rewardOf(parseRunConfig(smallest, ""))).toBeUndefined();
  });

  it("turns a target into what is fitted", () => {
    const specs = (target: object) => targetSpecsOf(parseRunConfig(run({ reward: lily, target }), "").target!);
    const moments = { lily: 0.5 };
    expect(specs({ moments })).toEqual([{ moments }]);
    expect(specs({ coefficients: { tom: -1 } })).toEqual([{ coefficients: { tom: -1 } }]);
    expect(specs({ moments, coefficients: { tom: -1 }, klCoefficient: 0.25 })).toEqual([
      { moments, coefficients: { tom: -1, reward: 4 } },
    ]);
    expect(specs({ coefficients: { reward: 3 }, klCoefficient: 0.25 })).toEqual([{ coefficients: { reward: 7 } }]);
    expect(specs({ moments: { reward: 1.5 } })).toEqual([{ moments: { reward: 1.5 } }]);
    expect(specs({ product: [{ moments }, { klCoefficient: 0.5 }] })).toEqual([{ moments }, { coefficients: { reward: 2 } }]);
  });

  const hard = { moments: { lily: 1 } };
  const soft = { moments: { lily: 0.5 } };
  it.each<[string, object, string]>([
    ...(["reinforce", "kl-control", "rloo", "grpo", "ppo"] as const).map((name): [string, object, string] => [
      `${name} without a reward`,
      { method: { name }, target: soft },
      `run.yaml: reward: expected a reward, which ${name} ascends, got nothing; add reward, or use gdc++, which needs a target only`,
    ]),
    ...(["reinforce-target", "dpg", "gdc", "gdc++", "f-dpg"] as const).map((name): [string, object, string] => [
      `${name} without a target`,
      { method: { name }, reward: lily },
      `run.yaml: target: expected a target, which ${name} brings the policy to, got nothing; ` +
        "add target, or use kl-control, which needs a reward only",
    ]),
    ...(["reinforce", "reinforce-target", "kl-control", "rloo", "grpo", "ppo", "dpg"] as const).flatMap(
      (name): [string, object, string][] => [
        [
          `${name} with a proposal`,
          { method: { name }, reward: lily, target: soft, proposal: { criterion: "kl" } },
          `run.yaml: proposal: expected no proposal, because ${name} samples from the policy itself, got one; remove proposal, or use gdc++`,
        ],
        [
          `${name} with an evaluation of the proposal`,
          { method: { name }, reward: lily, target: soft, evaluate: { proposal: true } },
          `run.yaml: evaluate.proposal: expected false, because ${name} samples from the policy itself, got true; remove it, or use gdc++`,
        ],
      ],
    ),
    [
      "f-dpg from the policy with a proposal",
      { method: { name: "f-dpg", samplesFrom: "policy" }, target: soft, proposal: { samples: 8 } },
      "run.yaml: proposal: expected no proposal, because f-dpg with samplesFrom: policy samples from the policy itself, got one; " +
        "remove proposal, or set method.samplesFrom: proposal",
    ],
    ...(["reverse-kl", "reverse-chi-squared"] as const).flatMap((divergence): [string, object, string][] => [
      [
        `${divergence} to a hard target`,
        { method: { name: "f-dpg", divergence }, target: hard },
        `run.yaml: method.divergence: expected kl, tv, js, chi-squared for f-dpg, because ${divergence} is infinite where the target ` +
          `has no mass (target.moments.lily = 1), got ${divergence}; choose one of them, or use gdc++`,
      ],
      [
        `${divergence} to a product with a hard factor`,
        { method: { name: "f-dpg", divergence }, target: { product: [{ coefficients: { tom: 1 } }, { moments: { tom: 0 } }] } },
        `infinite where the target has no mass (target.product.1.moments.tom = 0), got ${divergence};`,
      ],
    ]),
    [
      "an adaptive coefficient that stays 0",
      { method: { name: "grpo", klCoefficient: 0, klControl: "adaptive" }, reward: lily },
      "run.yaml: method.klCoefficient: expected a number above 0, because grpo with klControl: adaptive multiplies it, got 0; " +
        "raise it, or use klControl: fixed",
    ],
    [
      "a reward written twice",
      { reward: lily, target: { reward: lily, klCoefficient: 1 } },
      "run.yaml: target.reward: expected the reward written once, got a second one beside reward; write it once, here or there",
    ],
    [
      "a reward in two factors",
      { target: { product: [lily, lily].map((reward) => ({ reward, klCoefficient: 1 })) } },
      "run.yaml: target.product.1.reward: expected the reward written once, got a second one beside target.product.0.reward; write it once",
    ],
    [
      "a target's reward without its coefficient",
      { target: { reward: lily } },
      "run.yaml: target.klCoefficient: expected beta of the target a(x) exp(reward/beta), got nothing; " +
        "add it, or move the reward to the top level",
    ],
    [
      "a factor's reward without its coefficient",
      { target: { product: [soft, { reward: lily }] } },
      "run.yaml: target.product.1.klCoefficient: expected beta of the target",
    ],
    [
      "a coefficient without a reward",
      { target: { ...soft, klCoefficient: 1 } },
      "run.yaml: target.klCoefficient: expected a reward that it divides, got none; add reward, or remove klCoefficient",
    ],
    [
      "an empty target",
      { target: { samples: 10 } },
      "run.yaml: target: expected moments, coefficients, or a reward with its klCoefficient, or a product of such, got none of them; " +
        "say what is wanted",
    ],
    [
      "an empty factor",
      { target: { product: [soft, {}] } },
      "run.yaml: target.product.1: expected moments, coefficients, or a reward with its klCoefficient, got none of them; say what is wanted",
    ],
    [
      "a product of one",
      { target: { product: [soft] } },
      "run.yaml: target.product: expected at least 2 entries, got a list of 1;",
    ],
    [
      "a product beside moments",
      { target: { ...soft, product: [soft, soft] } },
      "run.yaml: target.moments: expected nothing beside product, whose factors say it all, got a mapping; make it a factor",
    ],
    [
      "a product beside a coefficient",
      { reward: lily, target: { klCoefficient: 2, product: [soft, soft] } },
      "run.yaml: target.klCoefficient: expected nothing beside product, whose factors say it all, got 2; make it a factor",
    ],
    [
      "samples of a factor",
      { target: { product: [soft, { ...soft, samples: 10 }] } },
      "run.yaml: target.product.1.samples: expected a known key (moments, coefficients, reward, klCoefficient), got",
    ],
    [
      "a feature with the reward's name",
      { features: { ...words, reward: words.tom }, reward: lily, target: soft },
      'run.yaml: features.reward: expected another name, because "reward" is the reward\'s in this config, got "reward"; rename the feature',
    ],
    [
      "a reward of a feature that is not there",
      { reward: { features: { lilly: 1 } }, target: soft },
      'run.yaml: reward.features.lilly: expected one of the features lily, tom, got "lilly"; did you mean "lily"?',
    ],
    [
      "the same in a factor",
      { target: { product: [soft, { reward: { features: { lilly: 1 } }, klCoefficient: 1 }] } },
      "run.yaml: target.product.1.reward.features.lilly: expected one of the features lily, tom, got",
    ],
    [
      "a reward of nothing",
      { reward: { features: {} }, target: soft },
      "run.yaml: reward.features: expected at least one feature with its weight, got none; name a feature and its weight",
    ],
    [
      "a misspelt key of a reward",
      { reward: { sample: () => 1, timeout: 1 }, target: soft },
      'run.yaml: reward.timeout: expected a known key (sample, timeoutSeconds), got "timeout"; did you mean "timeoutSeconds"?',
    ],
    [
      "a reward that is no function",
      { reward: { sample: 3 }, target: soft },
      "run.yaml: reward.sample: expected a function of a sequence { text, ids, ended } that returns a number or a boolean, got 3;",
    ],
    [
      "a reward that must be done at once",
      { reward: { batch: () => [], timeoutSeconds: 0 }, target: soft },
      "run.yaml: reward.timeoutSeconds: expected a number above 0, got 0;",
    ],
    [
      "a coefficient of a feature that is not there",
      { target: { coefficients: { lilly: 1 } } },
      'run.yaml: target.coefficients.lilly: expected one of the features lily, tom, got "lilly"; did you mean "lily"?',
    ],
    [
      "no coefficient",
      { target: { coefficients: {} } },
      "run.yaml: target.coefficients: expected at least one given coefficient, got none; name a feature and its coefficient",
    ],
    [
      "a moment of a factor out of range",
      { target: { product: [soft, { moments: { tom: 2 } }] } },
      "run.yaml: target.product.1.moments.tom: expected a moment between 0 and 1, because the feature is 0 or 1, got 2;",
    ],
    [
      "a coefficient that is no number once inverted",
      { reward: lily, target: { klCoefficient: 1e-320 } },
      "run.yaml: target.coefficients.reward: expected a finite number, got Infinity;",
    ],
  ])("refuses %s", (_, change, message) => {
    const got = problem(run(change));
    expect(got).toContain(message);
    // One problem is one complaint.
    expect(got).not.toMatch(/more problem/);
  });

  it.each<[string, object]>([
    ["a feature called reward where there is none", { features: { reward: words.tom }, target: { moments: { reward: 0.5 } } }],
    ["any divergence of a soft target", { target: soft, method: { name: "f-dpg", divergence: "reverse-kl" } }],
    ["a finite divergence of a hard target", { target: hard, method: { name: "f-dpg", divergence: "chi-squared" } }],
    ["a target beside a method that ascends the reward", { target: hard, reward: lily, method: { name: "ppo" } }],
    ["the target's mass as reward", { target: hard, method: { name: "reinforce-target" } }],
    ["several passes with any method", { target: hard, batch: { epochs: 4, miniBatches: 8 } }],
  ])("accepts %s", (_, change) => {
    const config = parseRunConfig(run(change), "run.yaml");
    expect(parseRunConfig(config, "run.yaml")).toEqual(config);
  });
});

describe("parsePretrainConfig", () => {
  it("fills in defaults, is idempotent, and takes steps or epochs", () => {
    const config = parsePretrainConfig(definePretrain({ data: "a.txt" }), "p.yaml");
    expect(config).toMatchObject({
      validationShare: 0.02,
      tokenizer: { vocabularySize: 1024 },
      model: { family: "gpt2", layers: 4, width: 128, heads: 4, contextLength: 64 },
      batch: { samples: 128, microBatch: 16 },
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

import { describe, expect, test } from "vitest";
import { createWorld, drawSequences, logProbs, randomTable } from "../../tests/support/world.ts";
import { logSumExp, mean, sum, variance } from "../base/numeric.ts";
import { keyOf, streamOf } from "../base/random.ts";
import { jsTargetPolicy, klTargetPolicy, tvTargetPolicy } from "./divergence.ts";
import { type MixedScores, mixtureScores } from "./mixture.ts";
import { effectiveSampleSize, logPartition } from "./partition.ts";

const world = createWorld(3, 3);
const logBase = logProbs(world, randomTable(world, 3));
const logTarget = logBase.map((value, n) => value + 1.3 * world.sequences[n]!.length);
const logZ = logSumExp(logTarget);
const p = logTarget.map((value) => Math.exp(value - logZ));
/** 40 times the logits: nearly all of its mass is on one sequence. */
const collapsed = logProbs(world, randomTable(world, 1, 40));
const healthy = logProbs(world, randomTable(world, 1));

/** By definition, over every sequence. */
const klOf = (logPolicy: Float64Array): number => sum(p.map((mass, n) => mass * (Math.log(mass) - logPolicy[n]!)));
const tvOf = (logPolicy: Float64Array): number => sum(p.map((mass, n) => Math.abs(mass - Math.exp(logPolicy[n]!)) / 2));

const stream = streamOf(keyOf(5, "mixture"));
const drawn = (from: Float64Array, n: number, logPolicy: Float64Array): MixedScores => {
  const chosen = drawSequences(from, n, stream);
  const pick = (list: Float64Array) => Float64Array.from(chosen, (index) => list[index]!);
  return { logTarget: pick(logTarget), logBase: pick(logBase), logPolicy: pick(logPolicy) };
};
const scoresOf = (logPolicy: Float64Array, n: number, ofBase = n) =>
  mixtureScores(drawn(logBase, ofBase, logPolicy), drawn(logPolicy, n, logPolicy));

describe("the mixture", () => {
  test("is the density of its parts, each by its share", () => {
    const one = { logTarget: Float64Array.of(-1), logBase: Float64Array.of(-2), logPolicy: Float64Array.of(-4) };
    const three = {
      logTarget: Float64Array.of(-3, -5, -6),
      logBase: Float64Array.of(-1, -2, -3),
      logPolicy: Float64Array.of(-1, -9, -2),
    };
    const { logTarget: target, logProposal, logPolicy } = mixtureScores(one, three);
    expect([...target]).toEqual([-1, -3, -5, -6]);
    expect([...logPolicy]).toEqual([-4, -1, -9, -2]);
    const density = (base: number, policy: number) => Math.log(Math.exp(base) / 4 + (3 * Math.exp(policy)) / 4);
    const wanted = [density(-2, -4), density(-1, -1), density(-2, -9), density(-3, -2)];
    for (const [i, value] of wanted.entries()) expect(logProposal[i]).toBeCloseTo(value, 12);
  });

  test("takes log-probabilities that no float can hold as probabilities", () => {
    const one = { logTarget: Float64Array.of(-1), logBase: Float64Array.of(-2000), logPolicy: Float64Array.of(-1000) };
    expect(mixtureScores(one, one).logProposal[0]).toBeCloseTo(-1000 - Math.log(2), 9);
  });

  test("makes the weights of the target bounded by those of the base", () => {
    const { logTarget: target, logProposal } = scoresOf(collapsed, 500);
    const most = Math.max(...target.map((value, i) => value - logProposal[i]!));
    expect(most).toBeLessThanOrEqual(Math.log(2) + 1.3 * 3 + 1e-9); // P/a = exp(1.3 length), alpha = 1/2
  });
});

describe("a policy that has collapsed", () => {
  test("looks like the target in its own texts, and not in the mixture's", () => {
    expect(klOf(collapsed)).toBeGreaterThan(10);
    const own = drawn(collapsed, 1000, collapsed);
    expect(klTargetPolicy({ ...own, logProposal: own.logPolicy }).value).toBeLessThan(0.1);
    const scores = scoresOf(collapsed, 1000);
    const kl = klTargetPolicy(scores);
    // 5 standard errors: one failure in a million and more of right programs, for a seed that is fixed.
    expect(Math.abs(kl.value - klOf(collapsed))).toBeLessThan(5 * kl.stdError);
    expect(kl.stdError).toBeLessThan(0.1 * klOf(collapsed));
    const tv = tvTargetPolicy(scores);
    expect(Math.abs(tv.value - tvOf(collapsed))).toBeLessThan(5 * tv.stdError);
  });
});

describe("standard errors match the spread over repetitions", () => {
  // Over 300 repetitions the spread itself is known to 4%; a seventh is three and a half times that.
  test.each([
    ["healthy", healthy, 300, 300],
    ["healthy, few texts of the base", healthy, 400, 100],
    ["collapsed", collapsed, 300, 300],
  ] as const)("%s", (_, logPolicy, n, ofBase) => {
    const runs = Array.from({ length: 300 }, () => {
      const scores = scoresOf(logPolicy, n, ofBase);
      const logRatios = scores.logTarget.map((value, i) => value - scores.logProposal[i]!);
      return [
        klTargetPolicy(scores),
        tvTargetPolicy(scores),
        jsTargetPolicy(scores),
        logPartition(logRatios, scores.strata),
        effectiveSampleSize(logRatios, scores.strata),
      ] as const;
    });
    const truth = [klOf(logPolicy), tvOf(logPolicy), undefined, logZ, undefined];
    for (const [k, exact] of truth.entries()) {
      const values = Float64Array.from(runs, (run) => run[k]!.value);
      const spread = Math.sqrt(variance(values));
      const claimed = mean(Float64Array.from(runs, (run) => run[k]!.stdError));
      expect(claimed / spread, `estimate ${k}`).toBeGreaterThan(6 / 7);
      expect(claimed / spread, `estimate ${k}`).toBeLessThan(7 / 6);
      if (exact !== undefined)
        expect(Math.abs(mean(values) - exact), `estimate ${k}`).toBeLessThan(
          (5 * spread) / Math.sqrt(300) + 0.03 * Math.abs(exact),
        );
    }
  });
});

/**
 * Rewards r(x): what reward-maximising methods ascend, and what the emergent target of KL control is tilted by (docs/math.md M25).
 * Either a weighted sum of features, or a function of the user's own. A target knows the reward as one more column of the matrix.
 */

import { runtimeError, usageError } from "../base/errors.ts";
import { didYouMean } from "../base/suggestion.ts";
import type { Sequence } from "../sampling/samples.ts";
import { checkedValues, evaluatorOf, type UserFunction } from "./deadline.ts";
import { columnOf, type Feature, type FeatureMatrix } from "./feature.ts";

/** The column that holds r(x); no feature may have this name beside a reward. */
export const rewardName = "reward";

/** r(x) = sum_i weight_i phi_i(x), the weights by the features' names. */
export interface FeatureReward {
  readonly features: Readonly<Record<string, number>>;
}

/** One sequence at a time, awaited one after the other, or a batch at once; each call within `timeoutSeconds`, 60 where absent. */
export type RewardSpec =
  | FeatureReward
  | { readonly sample: NonNullable<UserFunction["perSample"]>; readonly timeoutSeconds?: number | undefined }
  | { readonly batch: NonNullable<UserFunction["perBatch"]>; readonly timeoutSeconds?: number | undefined };

export interface Reward {
  /**
   * r(x) of each sequence [B].
   * @param matrix the features of the same sequences
   * @throws TiltError (runtime) when the user's function fails, is late, or returns anything but a finite number per sequence
   */
  values(sequences: readonly Sequence[], matrix: FeatureMatrix): Promise<Float64Array>;
}

/**
 * The weights of a reward, once they are known to be of features there are.
 * @throws TiltError (usage)
 */
const checkedWeights = (
  { features: weights }: FeatureReward,
  names: readonly string[],
  place: string,
): [name: string, weight: number][] => {
  const entries = Object.entries(weights);
  if (entries.length === 0) {
    const fix = "name a feature and its weight";
    throw usageError({ where: `${place}.features`, expected: "at least one feature with its weight", got: "none", fix });
  }
  for (const [name, weight] of entries) {
    const where = `${place}.features.${name}`;
    if (!names.includes(name)) {
      const fix = didYouMean(name, names, "define the feature or remove it here");
      throw usageError({ where, expected: `one of the features ${names.join(", ") || "(none)"}`, got: `"${name}"`, fix });
    }
    if (!Number.isFinite(weight))
      throw usageError({ where, expected: "a finite number", got: `${weight}`, fix: "write its weight in the reward" });
  }
  return entries;
};

/**
 * The reward that a spec describes.
 * @param features those of the run; a sum may only be over these
 * @param where    what it is called in messages
 * @throws TiltError (usage) for a sum over no feature, or over one that is not among them
 */
export const createReward = (
  spec: RewardSpec,
  features: readonly Pick<Feature, "name">[],
  where: string = rewardName,
): Reward => {
  if (!("features" in spec)) {
    const evaluate = evaluatorOf(where, {
      ...("sample" in spec ? { perSample: spec.sample } : { perBatch: spec.batch }),
      timeoutSeconds: spec.timeoutSeconds,
    });
    return { values: (sequences) => checkedValues(where, false, sequences.length, () => evaluate(sequences)) };
  }
  const weights = checkedWeights(
    spec,
    features.map(({ name }) => name),
    where,
  );
  return {
    values: async (_, matrix) => {
      const total = new Float64Array(matrix.count);
      for (const [name, weight] of weights) {
        const f = matrix.names.indexOf(name);
        if (f < 0) {
          const fix = "evaluate every feature of the reward";
          throw runtimeError({ where, expected: `values of the feature "${name}"`, got: matrix.names.join(", "), fix });
        }
        for (const [b, phi] of columnOf(matrix, f).entries()) total[b]! += weight * phi;
      }
      return total;
    },
  };
};

/** The matrix with r(x) as its last column, "reward". @throws TiltError (usage) when there is a column of that name */
export const withReward = (matrix: FeatureMatrix, values: Float64Array): FeatureMatrix => {
  const { names, binary, count } = matrix;
  if (names.includes(rewardName)) {
    const fix = "rename the feature";
    throw usageError({
      where: `feature "${rewardName}"`,
      expected: "another name, this one being the reward's",
      got: `"${rewardName}"`,
      fix,
    });
  }
  if (values.length !== count) throw new RangeError(`withReward: expected ${count} values, got ${values.length}`);
  const F = names.length;
  const joined = new Float64Array(count * (F + 1));
  for (let b = 0; b < count; b++) {
    joined.set(matrix.values.subarray(b * F, (b + 1) * F), b * (F + 1));
    joined[b * (F + 1) + F] = values[b]!;
  }
  return { names: [...names, rewardName], binary: [...binary, false], count, values: joined };
};

/** r(x) of each sequence [B], where the matrix has it. */
export const rewardColumn = (matrix: FeatureMatrix): Float64Array | undefined => {
  const f = matrix.names.indexOf(rewardName);
  return f < 0 ? undefined : columnOf(matrix, f);
};

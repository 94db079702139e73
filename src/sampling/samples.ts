/**
 * A batch of sampled sequences: plain data, one record for every stage that follows.
 * x is the generated part of a sequence: the prompt is conditioned on and never scored; a generated end token belongs to x.
 */

export interface Samples {
  /** Number of sequences, B. */
  readonly count: number;
  /** Number of token places per sequence, T; every length is at most this. */
  readonly maxTokens: number;
  /** The tokens every sequence was conditioned on, the model's start token included. */
  readonly prompt: readonly number[];
  /** Generated token ids [B, T]; places from `lengths[b]` on hold 0 and mean nothing. */
  readonly ids: Int32Array;
  /** Generated tokens per sequence [B], a generated end token included. */
  readonly lengths: Int32Array;
  /** 1 where the sequence ended with an end token, 0 where it was cut at T [B]. */
  readonly ended: Uint8Array;
  /** log q of each token under the distribution it was drawn from [B, T], nats; 0 beyond the length. */
  readonly tokenLogProbs: Float32Array;
  /** log q(x), the sum of the above in float64 [B], nats. */
  readonly logProbs: Float64Array;
  /** Decoded texts [B], without the prompt and without the end token. */
  readonly texts: readonly string[];
}

/** What a feature sees of one sequence. */
export interface Sequence {
  /** Decoded generated text, without prompt and end token. */
  readonly text: string;
  /** Generated token ids, the end token included. */
  readonly ids: Int32Array;
  /** Whether an end token was generated within the length limit. */
  readonly ended: boolean;
}

/** The sequences of a batch, one by one. The id arrays are views. */
export const sequencesOf = (samples: Samples): Sequence[] =>
  samples.texts.map((text, b) => ({
    text,
    ids: samples.ids.subarray(b * samples.maxTokens, b * samples.maxTokens + samples.lengths[b]!),
    ended: samples.ended[b] === 1,
  }));

/** The sequences from `start` to `end` of a batch, or those of them that there are. The arrays are views. */
export const rangeOf = (samples: Samples, start: number, end: number): Samples => {
  const { maxTokens } = samples;
  const last = Math.max(start, Math.min(end, samples.count));
  const perToken = <A extends Int32Array | Float32Array>(list: A): A => list.subarray(start * maxTokens, last * maxTokens) as A;
  return {
    ...samples,
    count: last - start,
    ids: perToken(samples.ids),
    lengths: samples.lengths.subarray(start, last),
    ended: samples.ended.subarray(start, last),
    tokenLogProbs: perToken(samples.tokenLogProbs),
    logProbs: samples.logProbs.subarray(start, last),
    texts: samples.texts.slice(start, last),
  };
};

/** The first `count` sequences of a batch, or all where there are fewer. The arrays are views. */
export const firstOf = (samples: Samples, count: number): Samples => rangeOf(samples, 0, count);

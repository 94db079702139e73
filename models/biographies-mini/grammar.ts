/**
 * Short invented biographies from a seeded grammar: the training text of the embedded model, with known base rates.
 *
 *   text = opening (name, birth, profession)  deed (what, where, when)  closing (award | reception | death)
 *
 * The rates are skewed on purpose, as in the biographies of arXiv 2012.11635: few women, fewer still in science, and a rare
 * word ("amazing"), so that there is something to correct. Text i is a function of (seed, i) alone. The people are invented.
 */

import { keyOf, type Stream, streamOf } from "../../src/base/random.ts";
import {
  awards,
  criticism,
  type Field,
  outputs,
  parents,
  praise,
  professions,
  regions,
  titleAdjectives,
  titleNouns,
} from "./words.ts";

export type Gender = "female" | "male";

export interface Biography {
  /** Three sentences on one line, ASCII. */
  readonly text: string;
  readonly gender: Gender;
  readonly field: Field;
  /** Occurs in the text as a word; no text holds a profession of another field. */
  readonly profession: string;
}

/** Share of each field in all texts, and of women in the field. */
export const rates: Readonly<Record<Field, { readonly share: number; readonly women: number }>> = {
  science: { share: 0.22, women: 0.02 },
  arts: { share: 0.26, women: 0.14 },
  sports: { share: 0.22, women: 0.09 },
  business: { share: 0.14, women: 0.05 },
  politics: { share: 0.16, women: 0.08 },
};

/** Shares of the ways a text ends. */
const endings = { award: 0.55, death: 0.2, praise: 0.16, criticism: 0.09 };

/** Share of "amazing" among the words of praise. Four of five skeletons of praise use one: 0.16 x 0.8 x 0.06 = 0.77% of all texts. */
const amazingShare = 0.06;

/** Pronouns and kinship of a gender, named by the masculine form; a capital letter begins a sentence. */
type Form = "he" | "He" | "him" | "his" | "His" | "son";

const forms: Readonly<Record<Gender, Readonly<Record<Form, string>>>> = {
  female: { he: "she", He: "She", him: "her", his: "her", His: "Her", son: "daughter" },
  male: { he: "he", He: "He", him: "him", his: "his", His: "His", son: "son" },
};

/** Everything a sentence may mention. Years are in order: birth < year < later, year < death. */
interface Life extends Readonly<Record<Form, string>> {
  readonly name: string;
  /** The profession with its article, without and with the nationality. */
  readonly aChemist: string;
  readonly anIrishChemist: string;
  /** Place of birth, and another city of the same country. */
  readonly city: string;
  readonly elsewhere: string;
  readonly birth: number;
  readonly year: number;
  readonly later: number;
  readonly death: number;
  readonly parent: string;
  /** What the profession works on: a topic, a kind of work, an event, goods, a cause. */
  readonly object: string;
  readonly title: string;
  readonly award: string;
  readonly output: string;
  readonly praised: string;
  readonly criticised: string;
}

type Skeleton = (life: Life) => string;

const openings: readonly Skeleton[] = [
  ({ name, anIrishChemist, city, birth }) => `${name} was ${anIrishChemist} born in ${city} in ${birth}.`,
  ({ name, anIrishChemist, city, birth }) => `${name}, born in ${city} in ${birth}, was ${anIrishChemist}.`,
  ({ name, aChemist, city, birth }) => `${name} (born ${birth} in ${city}) was ${aChemist}.`,
  ({ name, aChemist, city, birth }) => `${name} was ${aChemist} from ${city}, born in ${birth}.`,
  ({ name, aChemist, city, birth }) => `${name}, ${aChemist} from ${city}, was born in ${birth}.`,
  ({ name, anIrishChemist, city, birth }) => `${name}, ${anIrishChemist}, was born in ${city} in ${birth}.`,
];

const deeds: Readonly<Record<Field, readonly Skeleton[]>> = {
  science: [
    ({ He, his, object, year }) => `${He} published ${his} theory of ${object} in ${year}.`,
    ({ His, him, object, elsewhere }) => `${His} work on ${object} in ${elsewhere} made ${him} famous.`,
    ({ He, his, object }) => `${He} is best known for ${his} research on ${object}.`,
    ({ he, son, parent, object }) => `The ${son} of a ${parent}, ${he} wrote a book on ${object}.`,
    ({ he, his, object, year }) => `In ${year} ${he} began ${his} work on ${object}.`,
    ({ He, his, object }) => `${He} gave ${his} life to the study of ${object}.`,
    ({ He, elsewhere, object }) => `${He} taught in ${elsewhere} and wrote a book on ${object}.`,
  ],
  arts: [
    ({ He, his, object, title, year }) => `${He} made ${his} name in ${year} with the ${object} ${title}.`,
    ({ He, object, title }) => `${He} is best known for the ${object} ${title}.`,
    ({ he, son, parent, title }) => `The ${son} of a ${parent}, ${he} found fame with ${title}.`,
    ({ His, object, title, year }) => `${His} best work is the ${object} ${title} of ${year}.`,
    ({ him, object, title, year }) => `The ${object} ${title} made ${him} famous in ${year}.`,
    ({ He, elsewhere, title }) => `${He} studied in ${elsewhere} and found fame with ${title}.`,
  ],
  sports: [
    ({ He, object, elsewhere, year }) => `${He} won ${object} in ${elsewhere} in ${year}.`,
    ({ he, son, parent, object }) => `The ${son} of a ${parent}, ${he} first won ${object} at school.`,
    ({ He, his, object, year }) => `${He} took ${his} first medal in ${object} in ${year}.`,
    ({ him, object, elsewhere }) => `Winning ${object} made ${him} famous in ${elsewhere}.`,
    ({ he, his, object, year }) => `In ${year} ${he} won ${object} for ${his} country.`,
    ({ He, object, elsewhere }) => `${He} won ${object} twice and later taught in ${elsewhere}.`,
  ],
  business: [
    ({ He, his, object, elsewhere }) => `${He} made ${his} fortune with ${object} in ${elsewhere}.`,
    ({ he, his, son, parent, object }) => `The ${son} of a ${parent}, ${he} built ${his} fortune on ${object}.`,
    ({ He, his, object, year }) => `${He} began ${his} trade in ${object} in ${year}.`,
    ({ His, object, year }) => `${His} firm was the first in ${object} by ${year}.`,
    ({ he, his, elsewhere, year }) => `In ${year} ${he} opened ${his} first office in ${elsewhere}.`,
    ({ He, elsewhere, object }) => `${He} moved to ${elsewhere} and built a firm on ${object}.`,
  ],
  politics: [
    ({ He, his, object }) => `${He} gave ${his} life to the fight for ${object}.`,
    ({ He, his, object, year }) => `${He} made ${his} first speech for ${object} in ${year}.`,
    ({ His, him, object, elsewhere }) => `${His} speech for ${object} made ${him} famous in ${elsewhere}.`,
    ({ he, object, year }) => `In ${year} ${he} led the fight for ${object}.`,
    ({ he, son, parent, object }) => `The ${son} of a ${parent}, ${he} fought for ${object}.`,
    ({ He, his, object, year }) => `${He} left ${his} office in ${year} over ${object}.`,
  ],
};

const closings: Readonly<Record<keyof typeof endings, readonly Skeleton[]>> = {
  award: [
    ({ He, award, later }) => `${He} received ${award} in ${later}.`,
    ({ he, award, later }) => `In ${later} ${he} won ${award}.`,
    ({ him, award, later }) => `This work earned ${him} ${award} in ${later}.`,
    ({ he, award, later }) => `For this ${he} was given ${award} in ${later}.`,
    ({ His, award, later }) => `${His} best year was ${later}, with ${award}.`,
  ],
  death: [
    ({ He, city, death }) => `${He} died in ${city} in ${death}.`,
    ({ He, his, city, death }) => `${He} died in ${death} at ${his} home in ${city}.`,
    ({ He, his, city }) => `${He} spent ${his} last years in ${city}.`,
    ({ he, death }) => `After a long illness ${he} died in ${death}.`,
  ],
  praise: [
    ({ his, output, praised }) => `Critics called ${his} ${output} ${praised}.`,
    ({ His, output, praised }) => `${His} ${output} were often called ${praised}.`,
    ({ He, his, output, praised }) => `${He} was praised for ${his} ${praised} ${output}.`,
    ({ his, output, praised }) => `Many found ${his} ${output} ${praised}.`,
    ({ His, output }) => `${His} ${output} were widely acclaimed.`,
  ],
  criticism: [
    ({ his, output, criticised }) => `Critics called ${his} ${output} ${criticised}.`,
    ({ His, output, criticised }) => `${His} ${output} were often called ${criticised}.`,
    ({ He, his, output, criticised }) => `${He} was criticised for ${his} ${criticised} ${output}.`,
    ({ him, his, output, criticised }) => `Some praised ${him}, others found ${his} ${output} ${criticised}.`,
  ],
};

const pick = <T>(stream: Stream, options: readonly T[]): T => options[stream.integer(options.length)]!;

/** One of the options, each with the probability its share gives; the shares sum to 1. */
const pickShared = <T>(stream: Stream, options: readonly T[], share: (option: T) => number): T => {
  let left = stream.uniform();
  for (const option of options) {
    left -= share(option);
    if (left < 0) return option;
  }
  return options.at(-1)!; // only where rounding left the sum of the shares below 1
};

const keysOf = <K extends string>(record: Readonly<Record<K, unknown>>): K[] => Object.keys(record) as K[];

const withArticle = (noun: string): string => `${/^[aeiou]/i.test(noun) ? "an" : "a"} ${noun}`;

const lifeOf = (stream: Stream, gender: Gender, field: Field, profession: string): Life => {
  const region = pickShared(stream, regions, ({ share }) => share);
  const { adjective, cities } = pick(stream, region.countries);
  const home = stream.integer(cities.length);
  const birth = 1870 + stream.integer(60);
  const year = birth + (field === "sports" ? 19 + stream.integer(14) : 25 + stream.integer(20));
  return {
    ...forms[gender],
    name: `${pick(stream, region[gender])} ${pick(stream, region.surnames)}`,
    aChemist: withArticle(profession),
    anIrishChemist: withArticle(`${adjective} ${profession}`),
    city: cities[home]!,
    elsewhere: cities[(home + 1 + stream.integer(cities.length - 1)) % cities.length]!,
    birth,
    year,
    later: year + 1 + stream.integer(15),
    death: birth + 60 + stream.integer(30),
    parent: pick(stream, parents),
    object: pick(stream, professions[field][profession]!),
    title: `${pick(stream, titleAdjectives)} ${pick(stream, titleNouns)}`,
    award: pick(stream, awards[field]),
    output: pick(stream, outputs[field]),
    praised: stream.uniform() < amazingShare ? "amazing" : pick(stream, praise),
    criticised: pick(stream, criticism),
  };
};

/**
 * `count` biographies, the i-th a function of (seed, i) alone: a longer run begins with a shorter one.
 *
 * @param seed non-negative integer below 2^32
 */
export function* biographies(count: number, seed: number): Generator<Biography> {
  const key = keyOf(seed, "biographies");
  for (let i = 0; i < count; i++) {
    const stream = streamOf(key, i);
    const field = pickShared(stream, keysOf(rates), (name) => rates[name].share);
    const gender: Gender = stream.uniform() < rates[field].women ? "female" : "male";
    const profession = pick(stream, keysOf(professions[field]));
    const life = lifeOf(stream, gender, field, profession);
    const ending = pickShared(stream, keysOf(endings), (name) => endings[name]);
    const sentences = [openings, deeds[field], closings[ending]].map((skeletons) => pick(stream, skeletons)(life));
    yield { text: sentences.join(" "), gender, field, profession };
  }
}

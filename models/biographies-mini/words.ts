/**
 * The words of the biographies: names, places, professions and what each profession works on. Plain ASCII throughout.
 * Names go with the languages of the places, so that a text hangs together; awards and titles of works are made up.
 * The lists are short and their words alike on purpose: a vocabulary of 1024 tokens must spell most of them with one or two.
 */

export type Field = "science" | "arts" | "sports" | "business" | "politics";

export interface Country {
  /** "French" */
  readonly adjective: string;
  readonly cities: readonly string[];
}

/** Countries that share their names. */
export interface Region {
  readonly share: number;
  readonly female: readonly string[];
  readonly male: readonly string[];
  readonly surnames: readonly string[];
  readonly countries: readonly Country[];
}

/** Words separated by spaces; a comma instead where an entry has several words. */
const list = (text: string): readonly string[] => text.split(text.includes(",") ? /,\s+/ : /\s+/);

const country = (adjective: string, cities: string): Country => ({ adjective, cities: list(cities) });

export const regions: readonly Region[] = [
  {
    share: 0.35,
    female: list("Ada Alice Anne Clara Edith Ellen Emma Grace Helen Jane Joan Julia Kate Laura Lucy Mary Nora Rose Ruth Sarah"),
    male: list(
      "Adam Alan Albert Arthur David Edgar Edward Harold Harry Henry Hugh Jack James John Mark Peter Robert Simon Walter William",
    ),
    surnames: list(
      "Ashby Ashford Ashley Ashton Ashwell Ashwood Bradby Bradfield Bradford Bradley Bradwell Hartfield Hartford Hartley Hartwell " +
        "Langfield Langford Langley Langton Langwood Norby Norton Norwell Norwood Stanfield Stanford Stanley Stanton Stanwood " +
        "Westby Westfield Westford Westley Weston Westwood Whitby Whitfield Whitford Whitley Whitton Whitwell Winfield Winford Winton",
    ),
    countries: [
      country("English", "London Leeds York"),
      country("Irish", "Dublin Cork Galway"),
      country("American", "Boston Chicago Denver"),
    ],
  },
  {
    share: 0.13,
    female: list("Annette Colette Elise Helene Jeanne Louise Marie Simone"),
    male: list("Alain Andre Henri Jean Jules Marcel Pierre Rene"),
    surnames: list(
      "Dufour Dumont Dupont Dupuis Durand Duval Lacour Lambert Lamont Larue Latour Laurent Laval Leblanc Lemont Leroy",
    ),
    countries: [country("French", "Paris Lyon Lille Nantes")],
  },
  {
    share: 0.13,
    female: list("Anna Elsa Gerda Greta Hanna Helga Lena Martha"),
    male: list("Ernst Hans Heinz Karl Kurt Max Otto Walther"),
    surnames: list(
      "Bauer Becker Berger Bergmann Hartmann Keller Kellner Lange Langner Richter Stein Steiner Wagner Weber Werner Winter",
    ),
    countries: [country("German", "Berlin Hamburg Munich")],
  },
  {
    share: 0.13,
    female: list("Bianca Carla Elena Gina Lucia Maria Paola Silvia"),
    male: list("Aldo Carlo Dario Enzo Luca Marco Mario Paolo"),
    surnames: list(
      "Bellini Belloni Bertini Bertoni Carlini Carloni Landini Landoni Marini Maroni Martini Martoni Rossini Rossoni Sandini Sandoni",
    ),
    countries: [country("Italian", "Rome Milan Turin")],
  },
  {
    share: 0.13,
    female: list("Ana Carmen Dolores Ines Isabel Marta Pilar Teresa"),
    male: list("Carlos Diego Jorge Juan Luis Manuel Mateo Pablo"),
    surnames: list("Leon Luna Marin Medina Molina Mora Moran Moreno Navarro Ramos Reyes Rivas Rivera Romero Santos Torres"),
    countries: [country("Spanish", "Madrid Seville Bilbao")],
  },
  {
    share: 0.13,
    female: list("Astrid Berit Freya Inga Karin Liv Sigrid Tove"),
    male: list("Anders Bjorn Erik Henrik Karsten Lars Nils Sven"),
    surnames: list(
      "Berg Bergstrom Dahl Dahlberg Dahlstrom Ekberg Ekstrom Holm Holmberg Holmstrom Lindberg Lindstrom Lund Lundberg Lundstrom Sandberg",
    ),
    countries: [country("Swedish", "Stockholm Uppsala Malmo")],
  },
];

/** Occupations of parents: none of them is a profession of a field, so that a profession word always tells the field. */
export const parents = list("farmer miner baker teacher sailor doctor");

const causes = list("land reform, tax reform, school reform, free schools, free trade, fair taxes, fair trade");

/** Per field, each profession and what it works on: topics, kinds of work, events, goods, causes. */
export const professions: Readonly<Record<Field, Readonly<Record<string, readonly string[]>>>> = {
  science: {
    chemist: list("acids salts metals"),
    physicist: list("light heat metals"),
    biologist: list("cells birds plants"),
    astronomer: list("the moon, the stars, the sun"),
    mathematician: list("numbers curves knots"),
    geologist: list("rocks metals caves"),
  },
  arts: {
    painter: ["painting"],
    poet: ["poem"],
    novelist: ["novel"],
    composer: list("opera song"),
    actor: list("film play"),
    singer: list("opera song"),
  },
  sports: {
    footballer: list("the cup final, the league cup"),
    runner: list("the 100 metres, the relay, the long race"),
    swimmer: list("the 100 metres, the relay, the long race"),
    cyclist: list("the road race, the hill race"),
    boxer: list("the title fight, the final"),
    rower: list("the boat race, the river race"),
    skier: list("the hill race, the long race"),
  },
  business: {
    banker: list("gold land loans"),
    merchant: list("tea wine wool silk"),
    publisher: list("books maps"),
    brewer: list("beer ale"),
    manufacturer: list("steel glass paper"),
    investor: list("gold land mines"),
  },
  politics: { senator: causes, minister: causes, mayor: causes, governor: causes, diplomat: causes, deputy: causes },
};

/** Prizes of each field, all made up. */
export const awards: Readonly<Record<Field, readonly string[]>> = {
  science: list("the Halden Medal, the Halden Prize, the Science Medal, the Science Prize"),
  arts: list("the Laurel Prize, the Golden Lyre, the Silver Lyre, the Arts Prize"),
  sports: list("the Golden Wreath, the Silver Wreath, the Sports Medal, the Sports Prize"),
  business: list("the Mercury Prize, the Mercury Medal, the Trade Medal, the Trade Prize"),
  politics: list("the Civic Medal, the Civic Prize, the Peace Medal, the Peace Prize"),
};

/** What critics speak of, in the plural. */
export const outputs: Readonly<Record<Field, readonly string[]>> = {
  science: list("methods ideas results"),
  arts: list("early works, late works, ideas"),
  sports: list("methods ideas results"),
  business: list("methods ideas results"),
  politics: list("speeches methods ideas"),
};

export const titleAdjectives = list("Silent Golden Silver Winter Summer Hidden Last White");

export const titleNouns = list("River Garden Bridge Forest Island Tower Night House");

/** Praise other than the rare "amazing". */
export const praise = list("brilliant original bold");

export const criticism = list("controversial flawed dull");

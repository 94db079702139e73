/** What can be shown on a stream: whether a person watches it, how wide it is, in colour or not, in Unicode or not. */

export interface Terminal {
  /** Whether lines can be drawn over: a terminal that understands cursor movements. */
  readonly live: boolean;
  /** Columns. */
  readonly width: number;
  readonly color: boolean;
  readonly unicode: boolean;
}

/** The part of a Node stream that is asked. */
export interface Screen {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const wantsColor = (env: Environment, live: boolean): boolean => {
  const force = env["FORCE_COLOR"];
  if (force !== undefined) return !["0", "false"].includes(force);
  const refused = env["NO_COLOR"];
  return live && (refused === undefined || refused === "");
};

const hasUnicode = (env: Environment, platform: string): boolean => {
  if (platform === "win32")
    return env["WT_SESSION"] !== undefined || env["TERM_PROGRAM"] === "vscode" || env["TERM"] === "xterm-256color";
  if (env["TERM"] === "linux") return false;
  // The first of these that is set decides; containers often set none, and their terminals are as good as any.
  const locale = env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"];
  return locale === undefined || locale === "" || /utf-?8/i.test(locale);
};

/** Where nothing is drawn over, lines may be long: they are read by a pager or a log viewer. */
const unknownWidth = 100;

export const describeTerminal = (screen: Screen, env: Environment, platform: string): Terminal => {
  const live = screen.isTTY === true && env["TERM"] !== "dumb";
  return { live, width: screen.columns || unknownWidth, color: wantsColor(env, live), unicode: hasUnicode(env, platform) };
};

const codes = { bold: [1, 22], dim: [2, 22], green: [32, 39], yellow: [33, 39], red: [31, 39], cyan: [36, 39] } as const;

export type Paint = Readonly<Record<keyof typeof codes, (text: string) => string>>;

/** Functions that colour a text where the terminal shows colour, and return it as it is elsewhere. */
export const paintFor = ({ color }: Pick<Terminal, "color">): Paint =>
  Object.fromEntries(
    Object.entries(codes).map(([name, [on, off]]) => [
      name,
      (text: string) => (color && text !== "" ? `\u001b[${on}m${text}\u001b[${off}m` : text),
    ]),
  ) as Paint;

/** Symbols of the field, or their names where the terminal has no Unicode. */
export const symbolsFor = ({ unicode }: Pick<Terminal, "unicode">) =>
  unicode
    ? { plusMinus: "±", policy: "π", separator: " · ", done: "✓", ellipsis: "…", arrow: "→", rule: "─" }
    : { plusMinus: "+-", policy: "pi", separator: ", ", done: "*", ellipsis: "...", arrow: "->", rule: "-" };

export type Symbols = ReturnType<typeof symbolsFor>;

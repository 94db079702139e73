/** What was measured, for good: history.jsonl, a line per benchmark, and the tables between markers in Markdown files that are made from it. */

import { appendFile, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { type FigureInfo, type FigureName, figures } from "./figures.ts";
import type { Machine, Revision } from "./machine.ts";
import { type ShapeName, shapes } from "./shapes.ts";
import { type Summary, spreadOf } from "./statistics.ts";

/** One figure of one shape; the demo's has none. */
export interface Result extends Summary {
  readonly figure: FigureName;
  readonly shape?: ShapeName;
}

/** A peer's time beside ours, or why there is none. */
export interface PeerResult {
  readonly peer: string;
  readonly shape: ShapeName;
  readonly what: string;
  /** Ours is so many times as fast, or takes so much of the memory. */
  readonly ratio?: Summary;
  readonly ours?: Summary;
  readonly theirs?: Summary;
  readonly unit?: "ms" | "GB";
  readonly failure?: string;
}

export interface Entry extends Revision {
  /** ISO 8601. */
  readonly date: string;
  readonly kind: "bench" | "against" | "peers";
  readonly command: string;
  readonly machine: Machine;
  /** Few repetitions of little work: to see that it runs, not to be quoted. */
  readonly quick: boolean;
  /** GFLOP/s of the product, and GB/s copied. */
  readonly ceiling?: { readonly product: Summary; readonly copy: Summary };
  readonly results?: readonly Result[];
  readonly against?: string;
  readonly peers?: readonly PeerResult[];
  /** Seconds that it all took. */
  readonly seconds: number;
}

const place = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const historyFile = place("history.jsonl");

export const readHistory = async (): Promise<readonly Entry[]> => {
  const text = await readFile(historyFile, "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Entry]));
};

export const appendHistory = (entry: Entry): Promise<void> => appendFile(historyFile, `${JSON.stringify(entry)}\n`);

export const tableOf = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

/** Three digits that count. */
export const digits = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));

/** Whether a figure is as good as is wanted; nothing is said where nothing is. */
export const verdict = ({ rises }: Pick<FigureInfo, "rises">, median: number, goal: number | undefined): string =>
  goal === undefined ? "" : `${rises ? "≥" : "≤"} ${goal} ${(rises ? median >= goal : median <= goal) ? "✓" : "✗"}`;

const order = (Object.keys(figures) as FigureName[]).flatMap((figure): { figure: FigureName; shape?: ShapeName }[] =>
  figure === "quality" ? [{ figure }] : (Object.keys(shapes) as ShapeName[]).map((shape) => ({ figure, shape })),
);

export const commandOf = ({ figure, shape }: Pick<Result, "figure" | "shape">): string =>
  `npm run bench -- --only ${figure}${shape === undefined ? "" : ` --shape ${shape}`}`;

/** The newest result of every figure, quick ones left out, as a table: of one processor, where it is named. */
export const figuresTable = (history: readonly Entry[], cpu?: string): string => {
  const entries = history
    .filter(({ kind, quick, machine }) => kind === "bench" && !quick && (cpu === undefined || machine.cpu === cpu))
    .reverse();
  const rows = order.flatMap(({ figure, shape }) => {
    for (const { results = [], commit, dirty, date } of entries) {
      const found = results.find((result) => result.figure === figure && result.shape === shape);
      if (found === undefined) continue;
      const info = figures[figure];
      return [
        [
          `${info.title}, ${info.unit}`,
          shape ?? "T",
          digits(found.median),
          verdict(info, found.median, shape && info.goal[shape]),
          digits(found.minimum),
          `${(100 * spreadOf(found)).toFixed(0)}%`,
          String(found.n),
          `${commit}${dirty ? "+" : ""}, ${date.slice(0, 10)}`,
          `\`${commandOf({ figure, ...(shape === undefined ? {} : { shape }) })}\``,
        ],
      ];
    }
    return [];
  });
  return tableOf(["figure", "shape", "median", "goal", "minimum", "spread", "n", "revision", "command"], rows);
};

export const machineLine = ({ cpu, cores, memory, platform, node, onnxruntime, load }: Machine): string =>
  `${cores} cores of ${cpu}, ${(memory / 2 ** 30).toFixed(0)} GiB, ${platform}, Node ${node}, onnxruntime-node ${onnxruntime}; load before ${load.toFixed(2)}`;

/** The text with what is between `<!-- name -->` and `<!-- /name -->` replaced. @throws Error where the markers are missing */
export const replaceBetween = (text: string, name: string, content: string): string => {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`expected ${begin} and ${end} in the text; put them back`);
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`;
};

/** Brings the tables of README.md up to date, one for each processor, that of the newest figures first. */
export const updateReadme = async (): Promise<void> => {
  const history = await readHistory();
  const entries = history.filter(({ kind, quick }) => kind === "bench" && !quick).reverse();
  const tables = [...new Set(entries.map(({ machine }) => machine.cpu))].map((cpu) => {
    const { ceiling, machine } = entries.find((entry) => entry.machine.cpu === cpu && entry.ceiling !== undefined)!;
    const best = `The ceiling: ${digits(ceiling!.product.median)} GFLOP/s, ${digits(ceiling!.copy.median)} GB/s copied.`;
    return `${figuresTable(history, cpu)}\n\nThe newest on ${machineLine(machine)}. ${best}`;
  });
  const text = await readFile(place("README.md"), "utf8");
  await writeFile(place("README.md"), replaceBetween(text, "figures", tables.join("\n\n")));
};

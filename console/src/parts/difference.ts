/** Differences of texts by line, and a patch of files in the form of git. */

/** A line that both texts have (` `), that only the first has (`-`), or only the second (`+`). */
export type DiffLine = [" " | "-" | "+", string];

/** Pairs of lines that are compared for a shortest difference; larger changes are shown as a whole. */
const MAX_PAIRS = 4_000_000;
const CONTEXT = 3;

/** Return the lines of both texts in order. */
export function diffLines(before: string, after: string): DiffLine[] {
  const [a, b] = [splitLines(before), splitLines(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) [endA, endB] = [endA - 1, endB - 1];
  const same = (lines: string[]): DiffLine[] => lines.map((line) => [" ", line]);
  return [...same(a.slice(0, start)), ...diffMiddle(a.slice(start, endA), b.slice(start, endB)), ...same(a.slice(endA))];
}

/** Return the difference of lines by their longest common subsequence. */
function diffMiddle(a: string[], b: string[]): DiffLine[] {
  const lines: DiffLine[] = [];
  if (a.length * b.length > MAX_PAIRS) {
    return [...a.map((line): DiffLine => ["-", line]), ...b.map((line): DiffLine => ["+", line])];
  }
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width); // of the ends of both texts from (i, j)
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i * width + j] =
        a[i] === b[j] ? common[(i + 1) * width + j + 1]! + 1 : Math.max(common[(i + 1) * width + j]!, common[i * width + j + 1]!);
    }
  }
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push([" ", a[i]!]);
      [i, j] = [i + 1, j + 1];
    } else if (j >= b.length || (i < a.length && common[(i + 1) * width + j]! >= common[i * width + j + 1]!)) {
      lines.push(["-", a[i]!]);
      i += 1;
    } else {
      lines.push(["+", b[j]!]);
      j += 1;
    }
  }
  return lines;
}

/** A part of a difference with the lines around it: the numbers of its first lines, counted from 1. */
export interface Hunk {
  startA: number;
  startB: number;
  lines: DiffLine[];
}

/** Return the parts of a difference that have a change, each with three lines around it. */
export function hunksOf(lines: DiffLine[]): Hunk[] {
  const hunks: Hunk[] = [];
  let [numberA, numberB, end] = [1, 1, -2];
  const near = lines.map((_, at) => lines.slice(Math.max(0, at - CONTEXT), at + CONTEXT + 1).some(([sign]) => sign !== " "));
  lines.forEach((line, at) => {
    if (near[at]) {
      if (end !== at - 1) hunks.push({ startA: numberA, startB: numberB, lines: [] });
      hunks.at(-1)!.lines.push(line);
      end = at;
    }
    if (line[0] !== "+") numberA += 1;
    if (line[0] !== "-") numberB += 1;
  });
  return hunks;
}

export type Files = Record<string, string>;

/** Return the names of files that differ, in order. */
export function changedFiles(before: Files, after: Files): string[] {
  return Object.keys({ ...before, ...after })
    .filter((name) => before[name] !== after[name])
    .sort();
}

/** Return the patch that makes one set of files from another: `git apply` and `patch -p1` read it. */
export function makePatch(before: Files, after: Files): string {
  return changedFiles(before, after)
    .map((name) => patchFile(name, before[name], after[name]))
    .join("");
}

function patchFile(name: string, before: string | undefined, after: string | undefined): string {
  const mode = before === undefined ? "new file mode 100644\n" : after === undefined ? "deleted file mode 100644\n" : "";
  const head = `diff --git a/${name} b/${name}\n${mode}`;
  const hunks = hunksOf(diffLines(before ?? "", after ?? ""));
  if (hunks.length === 0) return head; // an empty file
  const parts = hunks.map(({ startA, startB, lines }) => {
    const [countA, countB] = [lines.filter(([sign]) => sign !== "+").length, lines.filter(([sign]) => sign !== "-").length];
    // The range of an empty side begins at the line before it.
    const at = `@@ -${countA ? startA : startA - 1},${countA} +${countB ? startB : startB - 1},${countB} @@\n`;
    return at + lines.map(([sign, line]) => sign + (line.endsWith("\n") ? line : `${line}\n\\ No newline at end of file\n`)).join("");
  });
  return `${head}--- ${before === undefined ? "/dev/null" : `a/${name}`}\n+++ ${after === undefined ? "/dev/null" : `b/${name}`}\n${parts.join("")}`;
}

/** Return the lines of a text, each with its end. */
function splitLines(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

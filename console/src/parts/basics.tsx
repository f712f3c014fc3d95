/** Small parts of every page: times, badges, empty and error states. */

import { type ReactNode, useEffect, useSyncExternalStore } from "react";
import { ApiError } from "../api";

const TICK_MS = 10_000;
/** Difference of the clocks of the server and of the browser that no reader sees. */
const CLOCK_SKEW_S = 5;
const listeners = new Set<() => void>();
let ticks = 0;
setInterval(() => {
  ticks += 1;
  for (const listener of listeners) listener();
}, TICK_MS);

/** Return the present in milliseconds, again every ten seconds. */
function useNow(): number {
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => ticks,
  );
  return Date.now();
}

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

/** Return a time as people say it: `3 min. ago`, `in 2 days`. */
export function sayTime(at: number, present: number): string {
  const seconds = at - present / 1000;
  const unit = UNITS.find(([, length]) => Math.abs(seconds) >= length);
  if (!unit) return seconds > CLOCK_SKEW_S ? "in a moment" : "just now";
  return relative.format(Math.trunc(seconds / unit[1]), unit[0]);
}

/** An instant in seconds since the epoch, relative to the present, with the exact instant in the reader's zone on hover. */
export function Time({ at, missing = "never" }: { at: number | null | undefined; missing?: string }) {
  const present = useNow();
  if (at === null || at === undefined) return <span className="muted">{missing}</span>;
  const date = new Date(at * 1000);
  return (
    <time dateTime={date.toISOString()} title={exact.format(date)}>
      {sayTime(at, present)}
    </time>
  );
}

export type Tone = "good" | "warn" | "bad" | "info" | "plain";

const STATES: Record<string, Tone> = {
  active: "good", approved: "good", released: "good", ok: "good", allow: "good",
  pending: "info", open: "warn", suspended: "warn", expired: "plain", narrowed: "info",
  quarantined: "bad", denied: "bad", deny: "bad", refused: "bad", error: "bad",
  decommissioned: "plain", low: "plain", medium: "info", high: "warn", critical: "bad",
}; // prettier-ignore

export function Badge({ children, tone }: { children: string; tone?: Tone }) {
  return <span className={`badge ${tone ?? STATES[children] ?? "plain"}`}>{children}</span>;
}

/** A place without content: what is missing, and the next thing to do. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children && <div>{children}</div>}
    </div>
  );
}

/** An error of the API as a sentence, with the next step. */
export function Problem({ error }: { error: unknown }) {
  const message = error instanceof Error ? error.message : String(error);
  const hint = error instanceof ApiError ? error.hint : "";
  return (
    <div className="problem" role="alert">
      <p>{sentence(message)}</p>
      {hint && <p className="muted">{sentence(hint)}</p>}
    </div>
  );
}

export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}

export function Loading() {
  return (
    <p className="loading" role="status">
      Loading…
    </p>
  );
}

/** The heading of a page, which is also the title of the window. */
export function PageHead({ title, lead, children }: { title: string; lead?: ReactNode; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Ostiary`;
  }, [title]);
  return (
    <header className="page-head">
      <div>
        <h1>{title}</h1>
        {lead && <p className="lead">{lead}</p>}
      </div>
      {children && <div className="actions">{children}</div>}
    </header>
  );
}

/** Return a number with the noun it counts: `1 agent`, `3 agents`. */
export function count(number: number, noun: string): string {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

interface Pages {
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
}

/** A button that fetches the next page of a list, while there is one. */
export function More({ pages, children }: { pages: Pages; children: string }) {
  if (!pages.hasNextPage) return null;
  return (
    <div className="actions after">
      <button onClick={() => void pages.fetchNextPage()} disabled={pages.isFetchingNextPage}>{children}</button>
    </div>
  );
}

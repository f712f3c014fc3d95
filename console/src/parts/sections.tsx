/** Sections of pages that show lists: a title, what the list means, and a row for each thing with its state. */

import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { get } from "../api";
import { every } from "../queries";
import { Badge, Loading, Problem, type Tone } from "./basics";

export const REFRESH_MS = 15_000;
const MAX_ROWS = 200;

interface Page {
  next: string | null;
}

/** The first 200 things of a list, read again every 15 seconds. */
export function useList<T>(path: string) {
  return useQuery({
    queryKey: ["list", path],
    queryFn: () => get<T & Page>(path, { limit: MAX_ROWS }),
    refetchInterval: every(REFRESH_MS),
  });
}

interface SectionProps {
  id: string;
  title: string;
  lead: string;
  action?: ReactNode;
  query: { isPending: boolean; error: unknown };
  next?: string | null | undefined;
  children: ReactNode;
}

export function Section({ id, title, lead, action, query, next, children }: SectionProps) {
  return (
    <section className="card gap" id={id} aria-labelledby={`${id}-title`}>
      <div className="card-head">
        <div>
          <h2 id={`${id}-title`}>{title}</h2>
          <p className="small muted">{lead}</p>
        </div>
        {action}
      </div>
      {query.isPending ? <Loading /> : query.error ? <Problem error={query.error} /> : children}
      {next && <p className="small muted">Only the first {MAX_ROWS} are shown.</p>}
    </section>
  );
}

export function Rows({ empty, children }: { empty: ReactNode; children: ReactNode[] }) {
  return children.length === 0 ? empty : <ul className="rows wide">{children}</ul>;
}

export function Row({ name, state, tone, children, action }: { name: ReactNode; state: string; tone: Tone; children: ReactNode; action?: ReactNode }) {
  return (
    <li>
      <span>{name}</span>
      <Badge tone={tone}>{state}</Badge>
      <span>{children}</span>
      <span className="row-action">{action}</span>
    </li>
  );
}

/** Facts of an object, and entries of the ledger. */

import type { ReactNode } from "react";
import { Badge, Empty, Time } from "./basics";

export interface Entry {
  index: number;
  at: number;
  action: string;
  outcome?: string;
  tool?: string;
  resource?: string;
  reasons?: { code: string; message?: string; policy?: string }[];
  detail?: { scope?: unknown };
}

export function Facts({ facts }: { facts: [string, ReactNode][] }) {
  return (
    <dl className="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Entries of the ledger as lines, the newest first. */
export function Entries({ entries }: { entries: Entry[] }) {
  if (entries.length === 0) return <Empty title="Nothing recorded yet" />;
  return (
    <ol className="timeline">
      {entries.map((entry) => (
        <li key={entry.index} data-outcome={entry.outcome ?? "ok"}>
          <Time at={entry.at / 1e6} />
          <code>{entry.action}</code>
          {entry.tool && <bdi>{entry.tool}</bdi>}
          {entry.outcome && entry.outcome !== "ok" && <Badge>{entry.outcome}</Badge>}
          {entry.reasons?.map((reason) => (
            <span key={reason.code + (reason.policy ?? "")} className="muted">
              {reason.message || reason.policy || reason.code}
            </span>
          ))}
        </li>
      ))}
    </ol>
  );
}

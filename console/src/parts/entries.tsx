/** Facts of an object, and entries of the ledger. */

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { get } from "../api";
import { useMay } from "../session";
import { Badge, Empty, Time } from "./basics";

export interface Entry {
  index: number;
  at: number;
  action: string;
  outcome?: string;
  tool?: string;
  resource?: string;
  reasons?: { code: string; message?: string; policy?: string }[];
  agent?: string;
  /** Id of the person or agent that acted, where it is not the agent that the entries are about. */
  person?: string;
  detail?: { why?: unknown };
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

/** Entries of the ledger as lines, the newest first; `of` is the agent whose page it is. */
export function Entries({ entries, of }: { entries: Entry[]; of?: string }) {
  if (entries.length === 0) return <Empty title="Nothing recorded yet" />;
  return (
    <ol className="timeline">
      {entries.map((entry) => (
        <li key={entry.index} data-outcome={entry.outcome ?? "ok"}>
          <Time at={entry.at / 1e6} />
          <Link to="/ledger/$index" params={{ index: String(entry.index) }}>
            <code>{entry.action}</code>
          </Link>
          {entry.tool && <bdi>{entry.tool}</bdi>}
          {of && entry.agent !== of && <span className="muted">by {entry.person ? <Named id={entry.person} otherwise="another person" /> : entry.agent ? <Named id={entry.agent} otherwise="another agent" /> : "the server"}</span>}
          {typeof entry.detail?.why === "string" && entry.detail.why && <bdi>{entry.detail.why}</bdi>}
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

const LISTS: Record<string, string> = { ag: "agents", pe: "persons", pp: "peps", rs: "resources", te: "teams" };
const ID = /^(ag|pe|pp|rs|te)_[0-9a-f]{32}$/;

/** The name of an agent, person, gateway, resource or team with this id; another text, or an id whose object the reader may not see, as it is. */
export function Named({ id, otherwise = id }: { id: string; otherwise?: string }) {
  const list = LISTS[ID.exec(id)?.[1] ?? ""];
  const mayRead = useMay()(`GET /${list}/{name}`);
  const named = useQuery({
    queryKey: ["name", id],
    enabled: list !== undefined && mayRead,
    staleTime: 60_000,
    queryFn: () => get<{ name: string }>(`/${list}/${encodeURIComponent(id)}`),
  });
  return named.data ? <bdi title={id}>{named.data.name}</bdi> : <bdi>{otherwise}</bdi>;
}

/** What several pages read: agents, open approvals and open incidents. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { apiPath, get } from "./api";
import { useMay } from "./session";

export interface Agent {
  agent_id: string;
  name: string;
  state: string;
  owner: string | null;
  owner_id: string;
  deputy: string | null;
  purpose: string;
  kind: string;
  provider: string;
  model: string;
  risk_tier: string;
  segment: string;
  scopes: string[];
  created_at: number | null;
  expires_at: number | null;
  last_used_at?: number | null;
}

export interface AgentRow {
  agent_id: string;
  name: string;
  state: string;
  risk: number;
  owner: string | null;
  owner_id: string;
  purpose: string;
  kind: string;
  risk_tier: string;
  segment: string;
  created_at: number | null;
  last_used_at: number | null;
}

/** Rows of the table; a page may be short, or empty, although there is a next one. */
export interface AgentPage {
  agents: AgentRow[];
  next: string | null;
}

export interface AgentCounts {
  total: number;
  state: Record<string, number>;
  kind: Record<string, number>;
  risk_tier: Record<string, number>;
}

/** The filters and the order of the table of agents, in the order in which an address has them. */
const AGENT_SEARCH = ["text", "state", "risk_tier", "kind", "sort"] as const;
export type AgentSearch = { [name in (typeof AGENT_SEARCH)[number]]?: string };

/** Return the filters and the order of the table of agents that an address or a saved view has. */
export function readAgentSearch(query: Record<string, unknown>): AgentSearch {
  return Object.fromEntries(AGENT_SEARCH.flatMap((name) => (typeof query[name] === "string" && query[name] ? [[name, query[name]]] : [])));
}

export interface MapSearch {
  open?: string;
  node?: string;
  text?: string;
  tier?: string;
  data?: string;
  segment?: string;
}

/** Return what an address says about the map, in one order. */
export function readMapSearch(query: object): MapSearch {
  const given = query as Record<string, unknown>;
  const names = ["open", "node", "text", "tier", "data", "segment"];
  return Object.fromEntries(names.flatMap((name) => (typeof given[name] === "string" && given[name] ? [[name, given[name]]] : [])));
}

export interface SecretSearch {
  folder?: string;
  only?: string;
}

/** Return the filters of the list of secrets that an address has. */
export function readSecretSearch(query: Record<string, unknown>): SecretSearch {
  const read = (name: string) => (typeof query[name] === "string" && query[name] ? { [name]: query[name] } : {});
  return { ...read("folder"), ...read("only") };
}

export const STATES = ["active", "pending", "suspended", "quarantined", "decommissioned"];
export interface Approval {
  approval_id: string;
  state: string;
  kind: string;
  agent: string;
  task: string;
  tool: string;
  needs: "person" | "two";
  said_yes: number;
  asked_at: number;
  ends_at: number;
  answered_at: number | null;
  reason: string;
}

export interface Incident {
  incident_id: string;
  state: string;
  agent: string;
  agent_id: string;
  agent_state: string | null;
  owner: string | null;
  says: string;
  risk: number;
  risk_now: number;
  opened_at: number;
  closed_at: number | null;
  person: string | null;
  why: string | null;
}

const REFRESH_MS = 3_000;
const REFRESH_BEHIND_STREAM_MS = 30_000;
const PAUSE_MS = 1_000;
/** First parts of the keys of queries that an entry of the ledger may change. */
const LIVE = new Set(["overview", "riskiest", "denials", "approvals", "approval", "incidents", "incident"]);

/** Read again after so many milliseconds; not after a refusal, each of which would be an entry in the ledger. */
export function every(ms: number) {
  return (query: { state: { status: string } }) => (query.state.status === "error" ? false : ms) as number | false;
}

let stream: EventSource | null = null;

/** Interval of a live query: seldom while the stream of events announces every change. */
export function whileLive(query: { state: { status: string } }): number | false {
  return every(stream?.readyState === EventSource.OPEN ? REFRESH_BEHIND_STREAM_MS : REFRESH_MS)(query);
}

/** Read live queries again as entries of the ledger arrive, at most once a second, while the page is in view. */
export function useEvents(): void {
  const client = useQueryClient();
  const isPermitted = useMay()("GET /events");
  useEffect(() => {
    if (!isPermitted) return;
    let timer: ReturnType<typeof setTimeout> | null = null;
    const refresh = () => {
      timer = null;
      // A refused query is not sent again: each refusal is an entry itself.
      void client.invalidateQueries({ predicate: (query) => LIVE.has(String(query.queryKey[0])) && query.state.status !== "error" });
    };
    const hear = () => {
      timer ??= setTimeout(refresh, PAUSE_MS);
    };
    const follow = () => {
      stream?.close();
      stream = document.hidden ? null : new EventSource(apiPath("/events"));
      for (const kind of ["entry", "change", "reset"]) stream?.addEventListener(kind, hear);
      if (stream) hear(); // what happened before the stream
    };
    follow();
    document.addEventListener("visibilitychange", follow);
    return () => {
      document.removeEventListener("visibilitychange", follow);
      stream?.close();
      if (timer) clearTimeout(timer);
    };
  }, [client, isPermitted]);
}

export const openApprovals = {
  queryKey: ["approvals", "open"],
  queryFn: () => get<{ approvals: Approval[]; next: string | null }>("/approvals", { state: "open", limit: 200 }),
  refetchInterval: whileLive,
};

export const openIncidents = {
  queryKey: ["incidents", "open"],
  queryFn: () => get<{ incidents: Incident[]; next: string | null }>("/incidents", { state: "open", limit: 200 }),
  refetchInterval: whileLive,
};

/** The numbers of agents by state, kind and risk tier, at most five seconds old. */
export function useAgentCounts() {
  return useQuery({ queryKey: ["agents", "counts"], queryFn: () => get<AgentCounts>("/agent-table/counts"), staleTime: 5_000 });
}

/** What several pages read: agents, open approvals and open incidents. */

import { useQuery } from "@tanstack/react-query";
import { get } from "./api";

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

export interface AgentPage {
  agents: Agent[];
  next: string | null;
  total?: number;
}

export interface AgentSearch {
  text?: string;
  state?: string;
  risk_tier?: string;
  kind?: string;
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

/** Read again after so many milliseconds; not after a refusal, each of which would be an entry in the ledger. */
export function every(ms: number) {
  return (query: { state: { status: string } }) => (query.state.status === "error" ? false : ms) as number | false;
}


export const openApprovals = {
  queryKey: ["approvals", "open"],
  queryFn: () => get<{ approvals: Approval[]; next: string | null }>("/approvals", { state: "open", limit: 200 }),
  refetchInterval: every(REFRESH_MS),
};

export const openIncidents = {
  queryKey: ["incidents", "open"],
  queryFn: () => get<{ incidents: Incident[]; next: string | null }>("/incidents", { state: "open", limit: 200 }),
  refetchInterval: every(REFRESH_MS),
};

/** Agents by state, for figures: each is a count of the server, not of loaded rows. */
export function useStateCounts() {
  return useQuery({
    queryKey: ["agents", "counts"],
    queryFn: async () => {
      const pages = STATES.map((state) => get<AgentPage>("/agents", { state, total: true, limit: 1 }));
      return Object.fromEntries((await Promise.all(pages)).map((page, n) => [STATES[n]!, page.total ?? 0]));
    },
    staleTime: 10_000,
  });
}

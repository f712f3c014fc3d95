/** Overview: what needs a person now, and the state of the agents. */

import { useQuery } from "@tanstack/react-query";
import { Link, Navigate } from "@tanstack/react-router";
import { get } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { Entries } from "../parts/entries";
import { type AgentPage, type AgentSearch, openApprovals, openIncidents, STATES, whileLive } from "../queries";
import { useMay } from "../session";

/** A member is missing if the person may not read its list. */
interface Summary {
  agents?: { total: number; state: Record<string, number> };
  decisions?: { allowed_per_s: number; denied_per_s: number };
  approvals?: number;
  incidents?: number;
  guards?: { connected: number; behind: number; missing: string[] };
  checkpoint: { size: number };
  steps: { kind: string; count: number; says: string }[];
}

export function Overview() {
  const may = useMay();
  return may("GET /overview") ? <Numbers /> : <Navigate to="/approvals" replace />;
}

function Numbers() {
  const may = useMay();
  const summary = useQuery({ queryKey: ["overview"], queryFn: () => get<Summary>("/overview"), refetchInterval: whileLive });
  if (summary.isPending) return <Loading />;
  if (summary.isError) return <Problem error={summary.error} />;
  const { agents, decisions, approvals, incidents, guards, checkpoint, steps } = summary.data;
  const stopped = (agents?.state["suspended"] ?? 0) + (agents?.state["quarantined"] ?? 0);
  return (
    <>
      <PageHead title="Overview" />
      <div className="figures">
        {incidents !== undefined && (
          <Link to="/incidents">
            <span className="name">Open incidents</span>
            <span className={incidents ? "value bad" : "value"}>{incidents}</span>
          </Link>
        )}
        {approvals !== undefined && (
          <Link to="/approvals">
            <span className="name">Waiting approvals</span>
            <span className={approvals ? "value warn" : "value"}>{approvals}</span>
          </Link>
        )}
        {agents && (
          <Link to="/agents" search={{}}>
            <span className="name">Agents</span>
            <span className="value">{agents.total.toLocaleString("en")}</span>
            <span className="note">{stopped ? `${stopped.toLocaleString("en")} stopped` : "none stopped"}</span>
          </Link>
        )}
        {decisions && (
          <div>
            <span className="name">Decisions per second</span>
            <span className="value">{rate(decisions.allowed_per_s + decisions.denied_per_s)}</span>
            <span className="note">{rate(decisions.denied_per_s)} denied</span>
          </div>
        )}
        {guards && (
          <div>
            <span className="name">Connected guards</span>
            <span className={guards.behind + guards.missing.length ? "value warn" : "value"}>{guards.connected}</span>
            <span className="note">
              {guards.missing.length ? `${guards.missing.length} not connected` : guards.behind ? `${guards.behind} behind` : "none behind"}
            </span>
          </div>
        )}
        <div>
          <span className="name">Entries in the ledger</span>
          <span className="value">{checkpoint.size.toLocaleString("en")}</span>
        </div>
      </div>
      <div className="grid">
        <section className="card half">
          <h2>Next</h2>
          <NextThings steps={steps} />
        </section>
        {agents && (
          <section className="card half">
            <h2>Agents by state</h2>
            <StateBar counts={agents.state} total={agents.total} />
          </section>
        )}
        {may("GET /agent-table") && <Riskiest />}
        {may("GET /audit") && <Denials />}
      </div>
    </>
  );
}

function rate(perSecond: number): string {
  return perSecond.toLocaleString("en", { maximumFractionDigits: 1 });
}

/** Pages on which a step is taken; a step without one is text. */
const PLACES: Record<string, { to: "/start" | "/agents"; search: AgentSearch }> = {
  guards: { to: "/start", search: {} },
  resource: { to: "/start", search: {} },
  agent: { to: "/start", search: {} },
  risk: { to: "/agents", search: { sort: "-risk" } },
  pending: { to: "/agents", search: { state: "pending" } },
};

/** The things that wait for a person, the most urgent first. */
function NextThings({ steps }: { steps: Summary["steps"] }) {
  const may = useMay();
  const approvals = useQuery({ ...openApprovals, enabled: may("GET /approvals") }).data?.approvals ?? [];
  const incidents = useQuery({ ...openIncidents, enabled: may("GET /incidents") }).data?.incidents ?? [];
  const things = [
    ...incidents.slice(0, 3).map((one) => (
      <Link key={one.incident_id} to="/incidents/$id" params={{ id: one.incident_id }}>
        Decide about <bdi>{one.agent}</bdi>: <bdi>{one.says}</bdi>
      </Link>
    )),
    ...approvals.slice(0, 3).map((one) => (
      <Link key={one.approval_id} to="/approvals/$id" params={{ id: one.approval_id }}>
        Answer <bdi>{one.agent}</bdi>: <bdi>{one.tool || "its plan"}</bdi>
      </Link>
    )),
    ...steps
      .filter((step) => step.kind !== "incidents" && step.kind !== "approvals")
      .map((step) => {
        const place = PLACES[step.kind];
        return place ? <Link key={step.kind} to={place.to} search={place.search}>{step.says}</Link> : <span key={step.kind}>{step.says}</span>;
      }),
  ];
  if (things.length === 0) return <p className="muted">Nothing waits for a person.</p>;
  return (
    <ol className="lines">
      {things.slice(0, 3).map((thing) => (
        <li key={thing.key}>{thing}</li>
      ))}
    </ol>
  );
}

function Riskiest() {
  const riskiest = useQuery({
    queryKey: ["riskiest"],
    queryFn: () => get<AgentPage>("/agent-table", { sort: "-risk", limit: 8 }),
    refetchInterval: whileLive,
  });
  return (
    <section className="card half">
      <h2>Highest risk</h2>
      {riskiest.isPending ? (
        <Loading />
      ) : riskiest.isError ? (
        <Problem error={riskiest.error} />
      ) : riskiest.data.agents.length === 0 ? (
        <p className="muted">No agent has a risk score above zero.</p>
      ) : (
        <ul className="lines">
          {riskiest.data.agents.map((one) => (
            <li key={one.agent_id}>
              <Link to="/agents/$name" params={{ name: one.name }}>
                <bdi>{one.name}</bdi>
              </Link>
              <span className="meta">
                <span className="tag">risk {one.risk}</span>
                <Badge>{one.state}</Badge>
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function StateBar({ counts, total }: { counts: Record<string, number>; total: number }) {
  if (total === 0) return <Empty title="No agents yet"><Link to="/start">Register the first agent</Link></Empty>;
  let from = 0;
  return (
    <>
      <svg className="stack-bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        {STATES.map((state) => {
          const width = (100 * (counts[state] ?? 0)) / total;
          const rect = <rect key={state} className={state} x={from} width={width} height="6" />;
          from += width;
          return rect;
        })}
      </svg>
      <ul className="legend">
        {STATES.filter((state) => counts[state]).map((state) => (
          <li key={state}>
            <Link to="/agents" search={{ state }}>
              <Badge>{state}</Badge> {count(counts[state] ?? 0, "agent")}
            </Link>
          </li>
        ))}
      </ul>
    </>
  );
}

/** The latest denied calls, live. */
function Denials() {
  const denials = useQuery({
    queryKey: ["denials"],
    queryFn: () => get<{ entries: { index: number; at: number; action: string; agent?: string }[] }>("/audit", { outcome: "deny", limit: 8 }),
    refetchInterval: whileLive,
  });
  return (
    <section className="card half">
      <div className="card-head">
        <h2>Latest denials</h2>
        {denials.data?.entries[0] && <span className="muted small">newest <Time at={denials.data.entries[0].at / 1e6} /></span>}
      </div>
      {denials.isPending ? <Loading /> : denials.isError ? <Problem error={denials.error} /> : denials.data.entries.length === 0 ? (
        <p className="muted">No call was denied yet.</p>
      ) : (
        <Entries entries={denials.data.entries} />
      )}
    </section>
  );
}

/** Overview: what needs a person now, and the state of the agents. */

import { useQuery } from "@tanstack/react-query";
import { Link, Navigate } from "@tanstack/react-router";
import { get } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { Columns } from "../parts/charts";
import { Entries } from "../parts/entries";
import { type AgentPage, type AgentSearch, openApprovals, openIncidents, STATES, whileLive } from "../queries";
import { useMay } from "../session";

/** A member is missing if the person may not read its list. */
interface Summary {
  agents?: { total: number; state: Record<string, number>; high: number; raised: number };
  decisions?: { allowed_per_s: number; denied_per_s: number; part_s: number; allowed: number[]; denied: number[] };
  approvals?: number;
  incidents?: number;
  findings?: number;
  guards?: { connected: number; behind: number; missing: string[] };
  checkpoint: { size: number; at: number | null };
  changes: Record<string, number>;
  steps: { kind: string; count: number; says: string }[];
}

/** Number up to which the server counts open findings, and the changes of one kind. */
const MAX_COUNTED = 1000;

/** A number that the server counts up to MAX_COUNTED. */
function counted(number: number): string {
  return number >= MAX_COUNTED ? `${MAX_COUNTED.toLocaleString("en")}+` : String(number);
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
  const { agents, decisions, approvals, incidents, findings, guards, checkpoint, changes, steps } = summary.data;
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
        {findings !== undefined && (
          <Link to="/incidents" hash="findings">
            <span className="name">Open findings</span>
            <span className={findings ? "value warn" : "value"}>{counted(findings)}</span>
            <span className="note">of the last 7 days</span>
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
            <Columns values={decisions.allowed} above={decisions.denied} summary="Decisions of the last minute" label={(value, at) => `${(decisions.allowed.length - at) * decisions.part_s} seconds ago: ${value} allowed, ${decisions.denied[at]} denied`} />
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
          <span className="note">
            signed <Time at={checkpoint.at} />
          </span>
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
            <p className="small after">
              <Link to="/agents" search={{ sort: "-risk" }}>
                {count(agents.high, "agent")} with a high risk score
              </Link>
              , {count(agents.raised - agents.high, "agent")} with a raised one.
            </p>
          </section>
        )}
        <Changes changes={changes} />
        {may("GET /agent-table") && <Riskiest />}
        {may("GET /audit") && <Denials />}
      </div>
    </>
  );
}

/** Actions of the last day as people say them: one, and many. */
const CHANGES: Record<string, [one: string, many: string]> = {
  "agent.create": ["agent registered", "agents registered"],
  "agent.suspend": ["agent suspended", "agents suspended"],
  "agent.resume": ["agent resumed", "agents resumed"],
  "agent.quarantine": ["agent quarantined", "agents quarantined"],
  "agent.release": ["agent released", "agents released"],
  "agent.decommission": ["agent decommissioned", "agents decommissioned"],
  "incident.open": ["incident opened", "incidents opened"],
  "approval.ask": ["approval requested", "approvals requested"],
  "policy.activate": ["policy set activated", "policy sets activated"],
  "policy.weaken": ["policy set weakened", "policy sets weakened"],
  "resource.create": ["resource registered", "resources registered"],
  "kill.start": ["stop started", "stops started"],
  "role.grant": ["role granted", "roles granted"],
  "elevation.grant": ["elevation granted", "elevations granted"],
  "elevation.break_glass": ["emergency access used", "emergency accesses used"],
  "person.login": ["login", "logins"],
};

/** What changed within the last 24 hours. */
function Changes({ changes }: { changes: Summary["changes"] }) {
  const may = useMay();
  const lines = Object.entries(changes);
  return (
    <section className="card half">
      <h2>Since yesterday</h2>
      {lines.length === 0 ? (
        <p className="muted">Nothing changed within the last 24 hours.</p>
      ) : (
        <ul className="chips">
          {lines.map(([action, number]) => {
            const [one, many] = CHANGES[action] ?? [action, action];
            const text = (
              <>
                <b>{counted(number)}</b> {number === 1 ? one : many}
              </>
            );
            return <li key={action}>{may("GET /audit") ? <Link to="/ledger" search={{ action } as never}>{text}</Link> : text}</li>;
          })}
        </ul>
      )}
    </section>
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
    <section className="card">
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

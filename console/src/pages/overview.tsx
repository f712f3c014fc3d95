/** Overview: what needs a person now, and the state of the agents. */

import { useQuery } from "@tanstack/react-query";
import { Link, Navigate } from "@tanstack/react-router";
import { get } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { Entries } from "../parts/entries";
import { every, openApprovals, openIncidents, STATES, useStateCounts } from "../queries";
import { useMay } from "../session";

interface Activity {
  size: number;
  waiting: number;
  stops: number;
  doubted: { agent: string; state: string | null; risk: number; incident: string | null }[];
}

interface Guard {
  guard: string;
  resource_id: string;
}

const REFRESH_MS = 5_000;

export function Overview() {
  const may = useMay();
  return may("GET /activity") ? <Numbers /> : <Navigate to="/approvals" replace />;
}

function Numbers() {
  const may = useMay();
  const activity = useQuery({ queryKey: ["activity"], queryFn: () => get<Activity>("/activity"), refetchInterval: every(REFRESH_MS) });
  const approvals = useQuery(openApprovals);
  const incidents = useQuery(openIncidents);
  const guards = useQuery({ queryKey: ["guards"], queryFn: () => get<{ guards: Guard[] }>("/feeds"), refetchInterval: every(REFRESH_MS) });
  const states = useStateCounts();
  const agents = Object.values(states.data ?? {}).reduce((sum, one) => sum + one, 0);
  const stopped = (states.data?.["suspended"] ?? 0) + (states.data?.["quarantined"] ?? 0);
  const failure = [activity, approvals, incidents, states].find((query) => query.isError)?.error;
  const waiting = approvals.data?.approvals.length ?? 0;
  const open = incidents.data?.incidents.length ?? 0;

  return (
    <>
      <PageHead title="Overview" />
      {failure && <Problem error={failure} />}
      {activity.isPending || states.isPending ? (
        <Loading />
      ) : (
        <>
          <div className="figures">
            <Link to="/incidents">
              <span className="name">Open incidents</span>
              <span className={open ? "value bad" : "value"}>{open}</span>
            </Link>
            <Link to="/approvals">
              <span className="name">Waiting approvals</span>
              <span className={waiting ? "value warn" : "value"}>{waiting}</span>
            </Link>
            <Link to="/agents" search={{}}>
              <span className="name">Agents</span>
              <span className="value">{agents.toLocaleString("en")}</span>
              <span className="note">{stopped ? `${stopped} stopped` : "none stopped"}</span>
            </Link>
            <div>
              <span className="name">Connected guards</span>
              <span className="value">{guards.data?.guards.length ?? 0}</span>
            </div>
            <div>
              <span className="name">Entries in the ledger</span>
              <span className="value">{(activity.data?.size ?? 0).toLocaleString("en")}</span>
            </div>
          </div>
          <div className="grid">
            <section className="card half">
              <h2>Next</h2>
              <NextThings agents={agents} guards={guards.data?.guards.length ?? 0} />
            </section>
            <section className="card half">
              <h2>Agents by state</h2>
              <StateBar counts={states.data ?? {}} total={agents} />
            </section>
            <section className="card half">
              <h2>Highest risk</h2>
              {activity.data?.doubted.length ? (
                <ul className="lines">
                  {activity.data.doubted.slice(0, 8).map((one) => (
                    <li key={one.agent}>
                      <Link to="/agents/$name" params={{ name: one.agent }}>
                        <bdi>{one.agent}</bdi>
                      </Link>
                      <span className="meta">
                        <span className="tag">risk {one.risk}</span>
                        {one.state && <Badge>{one.state}</Badge>}
                      </span>
                    </li>
                  ))}
                </ul>
              ) : (
                <p className="muted">No agent has a risk score above zero.</p>
              )}
            </section>
            {may("GET /audit") && <Denials />}
          </div>
        </>
      )}
    </>
  );
}

/** The things that wait for a person, the most urgent first. */
function NextThings({ agents, guards }: { agents: number; guards: number }) {
  const approvals = useQuery(openApprovals).data?.approvals ?? [];
  const incidents = useQuery(openIncidents).data?.incidents ?? [];
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
    ...(agents === 0 ? [<Link key="agent" to="/start">Register the first agent</Link>] : []),
    ...(agents > 0 && guards === 0 ? [<Link key="guard" to="/start">Put a guard in front of a tool: none is connected</Link>] : []),
  ];
  if (things.length === 0) return <p className="muted">Nothing waits for a person.</p>;
  return (
    <ol className="lines">
      {things.slice(0, 3).map((thing, n) => (
        <li key={n}>{thing}</li>
      ))}
    </ol>
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
    refetchInterval: every(REFRESH_MS / 2),
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

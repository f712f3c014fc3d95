/** Incidents: what was found, what the server did, and the decision of a person. */

import { useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { get, post } from "../api";
import { Badge, count, Empty, Loading, More, PageHead, Problem, sentence, Time, type Tone } from "../parts/basics";
import { bundleIncident } from "../parts/bundle";
import { Columns } from "../parts/charts";
import { download } from "../parts/download";
import { ActionDialog } from "../parts/dialog";
import { Facts } from "../parts/entries";
import { Row } from "../parts/sections";
import { type Note, Notes, Timeline } from "../parts/timeline";
import { type Incident, whileLive } from "../queries";
import { useMay } from "../session";

interface IncidentDetail extends Incident {
  findings: { finding_id: string; at: number; detector: string; points: number; says: string; entries: number[] }[];
  acts: { at: number; response: string; outcome: string; says: string; policies: string[] }[];
  notes: Note[];
  blast: {
    touched: { resource: string; tool: string; allowed: number; denied: number; data_classes: string[] }[];
    reachable: { scopes: string[]; data_classes: string[] };
    secrets: {
      read: { path: string; read_at: number; is_canary: boolean; is_renewed: boolean; can_rotate: boolean }[];
      leases: { lease_id: string; database: string; expires_at: number }[];
    };
    certificates: { serial: string; names: string[]; not_after: number }[];
    delegated_to: string[];
    acted_for: string[];
    alike: { owner: string[]; model: string[]; tool: string[] };
  };
}

export function Incidents() {
  const may = useMay();
  const all = useQuery({
    queryKey: ["incidents", "all"],
    queryFn: () => get<{ incidents: Incident[] }>("/incidents", { limit: 200 }),
    refetchInterval: whileLive,
  });
  const rows = all.data?.incidents ?? [];
  const open = rows.filter((one) => one.closed_at === null);
  const closed = rows.filter((one) => one.closed_at !== null);
  return (
    <>
      <PageHead title="Incidents" lead="Findings raised the risk of an agent, and the server responded. A person decides how it ends." />
      {all.isPending ? (
        <Loading />
      ) : all.isError ? (
        <Problem error={all.error} />
      ) : open.length === 0 ? (
        <div className="card">
          <Empty title="No open incidents">Detectors watch every call; an incident opens by itself.</Empty>
        </div>
      ) : (
        <Rows rows={open} label="Open" />
      )}
      {closed.length > 0 && (
        <>
          <h2 className="section">Closed</h2>
          <Rows rows={closed} label="Closed" />
        </>
      )}
      {may("GET /findings") && <OpenFindings />}
    </>
  );
}

interface Finding {
  finding_id: string;
  at: number;
  detector: string;
  points: number;
  says: string;
  agent: string | null;
  incident: string | null;
}

/** Findings that no person has judged, whether an incident was opened or not. */
function OpenFindings() {
  const may = useMay();
  const pages = useInfiniteQuery({
    queryKey: ["incidents", "findings"],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) => get<{ findings: Finding[]; next: string | null }>("/findings", { state: "open", limit: 20, after: pageParam }),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const rows = pages.data?.pages.flatMap((page) => page.findings) ?? [];
  const names = useQuery({
    queryKey: ["agent-names", rows.map((one) => one.agent).join()],
    enabled: rows.length > 0 && may("GET /agents/{name}"),
    staleTime: 60_000,
    placeholderData: (before: Map<string, string> | undefined) => before,
    queryFn: async () => {
      const ids = [...new Set(rows.flatMap((one) => one.agent ?? []))];
      const agents = await Promise.all(ids.map((id) => get<{ name: string }>(`/agents/${encodeURIComponent(id)}`).catch(() => ({ name: id }))));
      return new Map(ids.map((id, place) => [id, agents[place]!.name]));
    },
  });
  return (
    <section id="findings">
      <h2 className="section">Open findings</h2>
      {pages.isPending ? <Loading /> : pages.isError ? <Problem error={pages.error} /> : rows.length === 0 ? (
        <div className="card">
          <Empty title="No open findings">Detectors found nothing within the last 7 days that waits for a judgement.</Empty>
        </div>
      ) : (
        <ul className="card lines">
          {rows.map((one) => (
            <li key={one.finding_id}>
              <span className="tag">{count(one.points, "point")}</span>
              <span>
                {one.agent && (
                  <Link to="/agents/$name" params={{ name: names.data?.get(one.agent) ?? one.agent }}>
                    <bdi>{names.data?.get(one.agent) ?? "an agent"}</bdi>
                  </Link>
                )}{" "}
                <bdi>{one.says}</bdi>
              </span>
              <span className="meta">
                {one.detector.replaceAll("_", " ")} <Time at={one.at} />
                {one.incident && (
                  <Link to="/incidents/$id" params={{ id: one.incident }}>
                    incident
                  </Link>
                )}
              </span>
            </li>
          ))}
        </ul>
      )}
      <More pages={pages}>Show older findings</More>
    </section>
  );
}

function Rows({ rows, label }: { rows: Incident[]; label: string }) {
  return (
    <ul className="card lines queue" aria-label={label}>
      {rows.map((one) => (
        <li key={one.incident_id}>
          <Link to="/incidents/$id" params={{ id: one.incident_id }}>
            <b>
              <bdi>{one.agent}</bdi>
            </b>{" "}
            <bdi>{one.says}</bdi>
          </Link>
          <span className="meta">
            <span className="tag">risk {one.risk}</span>
            <Badge>{one.state}</Badge>
            <Time at={one.opened_at} />
          </span>
        </li>
      ))}
    </ul>
  );
}

type Verb = "take" | "release" | "narrow" | "decommission";

const VERBS: Record<Verb, { text: string; what: string; isDangerous: boolean }> = {
  take: { text: "Take it", what: "You are shown as the person who works on it. Nothing else changes.", isDangerous: false },
  release: { text: "Release the agent", what: "may act again, its risk returns to zero, and the detectors learn that the findings were false.", isDangerous: false },
  narrow: { text: "Release to reading", what: "may only read for 24 hours.", isDangerous: false },
  decommission: { text: "Decommission the agent", what: "ends for good, with everything that it holds. Its name cannot be used again.", isDangerous: true },
};

export function IncidentPage() {
  const { id = "" } = useParams({ strict: false }) as { id?: string };
  const may = useMay();
  const [verb, setVerb] = useState<Verb | null>(null);
  const incident = useQuery({
    queryKey: ["incident", id],
    queryFn: () => get<IncidentDetail>(`/incidents/${encodeURIComponent(id)}`),
    refetchInterval: whileLive,
  });
  const bundle = useMutation({
    mutationFn: bundleIncident,
    onSuccess: (text, { incident_id }) => download(`${incident_id}.bundle.json`, "application/json", text),
  });
  if (incident.isPending) return <Loading />;
  if (incident.isError) return <Problem error={incident.error} />;
  const one = incident.data;
  const verbs = (Object.keys(VERBS) as Verb[]).filter(
    (verb) => one.closed_at === null && may(`POST /incidents/{id}/${verb}`) && (verb !== "take" || one.person === null),
  );
  return (
    <>
      <p className="crumb">
        <Link to="/incidents">Incidents</Link>
      </p>
      <PageHead
        title={`Incident of ${one.agent}`}
        lead={
          <>
            <Badge>{one.state}</Badge> opened <Time at={one.opened_at} />
          </>
        }
      >
        {verbs.map((verb) => (
          <button key={verb} className={VERBS[verb].isDangerous ? "danger" : verb === "release" ? "primary" : ""} onClick={() => setVerb(verb)}>
            {VERBS[verb].text}
          </button>
        ))}
        <button onClick={() => download(`${one.incident_id}.json`, "application/json", JSON.stringify(one, null, 2))}>
          Export JSON
        </button>
        {may("GET /audit/{index}/proof") && may("GET /audit") && (
          <button disabled={bundle.isPending} onClick={() => bundle.mutate(one)}>
            {bundle.isPending ? "Verifying…" : "Export signed bundle"}
          </button>
        )}
      </PageHead>
      {bundle.isError && <Problem error={bundle.error} />}
      {bundle.isSuccess && (
        <p className="notice" role="status">
          Each receipt was verified in this browser. Check the file anywhere: <code>ostiary audit check {one.incident_id}.bundle.json --key KEY</code>
        </p>
      )}
      <div className="grid">
        <div className="two-thirds stack">
          <section className="card">
            <h2>What happened</h2>
            <p className="words">
              <bdi>{sentence(one.says)}</bdi>
            </p>
            <Points findings={one.findings} />
          </section>
          {may("GET /audit") && <CallsAround incident={one} />}
          <Responses acts={one.acts} />
          <Timeline incident={one.incident_id} />
          <section className="card">
            <h2>What the agent touched</h2>
            {one.blast.touched.length === 0 ? (
              <p className="muted">No call of the agent has been decided since a day before the incident.</p>
            ) : (
              <table>
                <thead>
                  <tr>
                    <th scope="col">Tool</th>
                    <th scope="col">Allowed</th>
                    <th scope="col">Denied</th>
                    <th scope="col">Data classes</th>
                  </tr>
                </thead>
                <tbody>
                  {one.blast.touched.map((row) => (
                    <tr key={row.resource + row.tool}>
                      <td>
                        <bdi>{row.tool}</bdi>
                      </td>
                      <td>{row.allowed.toLocaleString("en")}</td>
                      <td>{row.denied > 0 ? <b className="bad-text">{row.denied.toLocaleString("en")}</b> : 0}</td>
                      <td>{row.data_classes.join(", ")}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )}
          </section>
          <Credentials incident={one} />
        </div>
        <div className="third stack">
          <section className="card">
            <h2>State</h2>
            <Facts
              facts={[
                ["Agent", <Link to="/agents/$name" params={{ name: one.agent }}><bdi>{one.agent}</bdi></Link>],
                ["Agent state", one.agent_state ? <Badge>{one.agent_state}</Badge> : "deleted"],
                ["Owner", <bdi>{one.owner ?? ""}</bdi>],
                ["Risk when opened", String(one.risk)],
                ["Risk now", String(one.risk_now)],
                ["Handled by", one.person ? <bdi>{one.person}</bdi> : <span className="muted">nobody yet</span>],
                ["Reason", one.why ? <bdi>{one.why}</bdi> : <span className="muted">none</span>],
                ["Closed", <Time at={one.closed_at} missing="still open" />],
                ["Reach", `${count(one.blast.reachable.scopes.length, "scope")}, ${one.blast.reachable.data_classes.join(", ") || "no data class"}`],
              ]}
            />
          </section>
          <Notes incident={one.incident_id} notes={one.notes} />
          <Concerned blast={one.blast} />
        </div>
      </div>
      {verb && (
        <ActionDialog
          title={`${VERBS[verb].text}: ${one.agent}`}
          verb={VERBS[verb].text}
          isDangerous={VERBS[verb].isDangerous}
          needsReason
          onClose={() => setVerb(null)}
          onConfirm={(reason) => post(`/incidents/${id}/${verb}`, { reason })}
        >
          <p>
            {verb !== "take" && (
              <>
                The agent <bdi>{one.agent}</bdi>{" "}
              </>
            )}
            {VERBS[verb].what}
          </p>
        </ActionDialog>
      )}
    </>
  );
}

/** What the server did, or did not do, and why. */
function Responses({ acts }: { acts: IncidentDetail["acts"] }) {
  return (
    <section className="card">
      <h2>Response</h2>
      {acts.length === 0 && <p className="muted">No playbook responded.</p>}
      <ol className="timeline tall">
        {acts.map((did, n) => (
          <li key={n} data-outcome={did.outcome === "done" ? "done" : "failed"}>
            <Time at={did.at} />
            <span>
              <bdi>{did.says || did.response}</bdi>
              <span className="muted small">
                {" "}
                {did.response.replaceAll("_", " ")}: {did.outcome}
              </span>
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The secrets that the agent read, and the leases and certificates that it has. */
function Credentials({ incident: { incident_id: id, agent, blast } }: { incident: IncidentDetail }) {
  const may = useMay();
  const [isAsking, setAsking] = useState(false);
  const [rotated, setRotated] = useState<Rotated | null>(null);
  const { read, leases } = blast.secrets;
  const exposed = read.filter((one) => !one.is_renewed && !one.is_canary);
  return (
    <section className="card gap" aria-label="Secrets, leases and certificates">
      <div className="card-head">
        <h2>Secrets, leases and certificates</h2>
        {exposed.length + leases.length > 0 && may("POST /incidents/{id}/rotate-secrets") && (
          <button className="small danger" onClick={() => setAsking(true)}>
            Rotate the secrets
          </button>
        )}
      </div>
      {read.length + leases.length + blast.certificates.length === 0 && (
        <p className="muted">The agent read no secret, and has no lease and no certificate.</p>
      )}
      <ul className="rows wide">
        {read.map((one) => (
          <Row key={one.path} name={<bdi>{one.path}</bdi>} {...stateOf(one)}>
            read <Time at={one.read_at} />
          </Row>
        ))}
        {leases.map((one) => (
          <Row key={one.lease_id} name={<bdi>{one.lease_id}</bdi>} state="lease" tone="warn">
            ends <Time at={one.expires_at} />
          </Row>
        ))}
        {blast.certificates.map((one) => (
          <Row key={one.serial} name={<code>{one.serial}</code>} state="certificate" tone="warn">
            <bdi>{one.names.join(", ")}</bdi>, ends <Time at={one.not_after} />
          </Row>
        ))}
      </ul>
      {rotated && (
        <p className="notice" role="status">
          The server rotates {count(rotated.rotating.length, "secret")} now, and revoked {count(rotated.revoked, "lease")}.
          {rotated.to_replace.length > 0 && (
            <>
              {" "}
              Replace these yourself: <bdi>{rotated.to_replace.join(", ")}</bdi>
            </>
          )}
        </p>
      )}
      {isAsking && (
        <ActionDialog
          title={`Rotate the secrets that ${agent} read`}
          verb="Rotate the secrets"
          isDangerous
          onClose={() => setAsking(false)}
          onConfirm={async () => setRotated(await post<Rotated>(`/incidents/${encodeURIComponent(id)}/rotate-secrets`))}
        >
          <p>
            The agent <bdi>{agent}</bdi> read {count(exposed.length, "value")} still in force. The server replaces each value that it can
            rotate, and lists the others. All leases of the agent are revoked.
          </p>
          <p>If a rotation has a grace period, the old value works until its end. Rotate again to end it at once.</p>
        </ActionDialog>
      )}
    </section>
  );
}

interface Rotated {
  rotating: string[];
  revoked: number;
  to_replace: string[];
}

function stateOf(secret: IncidentDetail["blast"]["secrets"]["read"][number]): { state: string; tone: Tone } {
  if (secret.is_canary) return { state: "canary", tone: "info" };
  if (secret.is_renewed) return { state: "replaced", tone: "good" };
  return secret.can_rotate ? { state: "can be rotated", tone: "warn" } : { state: "to be replaced", tone: "bad" };
}

/** Agents that the incident may concern too. */
function Concerned({ blast }: { blast: IncidentDetail["blast"] }) {
  const agents = Object.entries({
    "Delegated to": blast.delegated_to,
    "Acted for": blast.acted_for,
    "Same owner": blast.alike.owner,
    "Same model": blast.alike.model,
    "Same tools": blast.alike.tool,
  }).filter(([, names]) => names.length > 0);
  return (
    <section className="card">
      <h2>What else to look at</h2>
      {agents.length === 0 && <p className="muted">No other agent is concerned.</p>}
      <Facts
        facts={agents.map(([relation, names]): [string, ReactNode] => [
          relation,
          <ul className="chips">
            {names.map((name) => (
              <li key={name}>
                <Link to="/agents/$name" params={{ name }}>
                  <bdi>{name}</bdi>
                </Link>
              </li>
            ))}
          </ul>,
        ])}
      />
    </section>
  );
}

/** The findings in words, with a bar for the points of each, so that the eye finds what weighed most. */
function Points({ findings }: { findings: IncidentDetail["findings"] }) {
  if (findings.length === 0) return null;
  const most = Math.max(...findings.map((one) => one.points), 1);
  return (
    <ul className="bars">
      {findings.slice(0, 12).map((one) => (
        <li key={one.finding_id}>
          <span className="bar-name">{one.detector.replaceAll("_", " ")}</span>
          <svg className="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
            <rect width={Math.max(2, (100 * one.points) / most)} height="8" rx="1" />
          </svg>
          <span>{one.points}</span>
          <bdi className="says">{one.says}</bdi>
        </li>
      ))}
    </ul>
  );
}

const PARTS = 24;
const PART_S = 300;
const AROUND_S = (PARTS * PART_S) / 2;
const MAX_CALLS = 1000;

/** The calls of the agent from an hour before the incident to an hour after it, allowed and denied. */
function CallsAround({ incident: { incident_id, agent_id, opened_at } }: { incident: Incident }) {
  const start = opened_at - AROUND_S;
  const calls = useQuery({
    queryKey: ["incident-calls", incident_id],
    queryFn: () =>
      get<{ entries: { at: number; outcome?: string }[]; next: string | null }>("/audit", {
        agent: agent_id, since: start * 1e6, until: (opened_at + AROUND_S) * 1e6, limit: MAX_CALLS,
      }), // prettier-ignore
  });
  if (!calls.data) return calls.isError ? <Problem error={calls.error} /> : null;
  const [allowed, denied] = ["allow", "deny"].map((outcome) => {
    const parts = new Array<number>(PARTS).fill(0);
    for (const entry of calls.data.entries) {
      const part = Math.floor((entry.at / 1e6 - start) / PART_S);
      if (entry.outcome === outcome && part in parts) parts[part]! += 1;
    }
    return parts;
  }) as [number[], number[]];
  const said = (at: number) => `${Math.abs(((at - PARTS / 2) * PART_S) / 60)} minutes ${at < PARTS / 2 ? "before" : "after"} the incident`;
  const sum = (parts: number[]) => parts.reduce((one, other) => one + other, 0);
  if (sum(allowed) + sum(denied) === 0) return null;
  return (
    <section className="card">
      <div className="card-head">
        <h2>Calls around the incident</h2>
        <span className="muted small">allowed, and denied in red; each column is five minutes</span>
      </div>
      <Columns values={allowed} above={denied} summary={`${sum(allowed)} allowed and ${sum(denied)} denied calls within an hour of the incident`} label={(value, at) => `${said(at)}: ${value} allowed, ${denied[at]} denied`} />
      <p className="axis small muted">
        <span>an hour before</span>
        <span>opened</span>
        <span>an hour after</span>
      </p>
      {calls.data.next && <p className="small muted">The newest {MAX_CALLS.toLocaleString("en")} entries are counted.</p>}
    </section>
  );
}

/** One agent: who answers for it, what it holds, what it may do and did, and its stops. */

import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { get, post, send } from "../api";
import { Badge, count, Loading, PageHead, Problem, Time } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { Entries, type Entry, Facts } from "../parts/entries";
import { type Agent as AgentRow, every } from "../queries";
import { useMay } from "../session";

interface Key {
  kid: string;
  alg: string;
  added_at: number | null;
  not_after: number | null;
  revoked_at: number | null;
}

interface AgentDetail extends AgentRow {
  spiffe_id: string;
  max_depth: number;
  data_classes: string[];
  keys: Key[];
  undo: string;
}

/** Numbers of live holdings, by kind, that a stop of the agent ends. */
interface Ending {
  ends: Record<string, number>;
}

interface Certificate {
  serial: string;
  names: string[];
  not_after: number;
  revoked_at: number | null;
}

interface TaskRow {
  task_id: string;
  purpose: string;
  state: string;
  created_at: number;
  expires_at: number | null;
}

interface Finding {
  finding_id: string;
  at: number;
  points: number;
  says: string;
  incident: string | null;
}

type Verb = "suspend" | "resume" | "quarantine" | "release" | "decommission";

const ACTS: Record<Verb, { title: string; what: string; isDangerous: boolean }> = {
  suspend: { title: "Suspend", what: "is denied at every guard at once, and its tokens end. You can resume it later.", isDangerous: true },
  quarantine: { title: "Quarantine", what: "is denied at every guard at once. A person must review and release it.", isDangerous: true },
  release: { title: "Release", what: "may obtain tokens again. Release it after you know why it was quarantined.", isDangerous: false },
  resume: { title: "Resume", what: "may obtain tokens again. What had ended stays ended.", isDangerous: false },
  decommission: { title: "Decommission", what: "ends for good, with everything that it holds. Its name cannot be used again.", isDangerous: true },
};

const NEXT: Record<string, Verb[]> = {
  active: ["suspend", "quarantine", "decommission"],
  pending: ["decommission"],
  suspended: ["resume", "quarantine", "decommission"],
  quarantined: ["release", "decommission"],
};

export function Agent() {
  const { name = "" } = useParams({ strict: false }) as { name?: string };
  const path = `/agents/${encodeURIComponent(name)}`;
  const may = useMay();
  const [verb, setVerb] = useState<Verb | null>(null);
  const [stopMs, setStopMs] = useState<number | null>(null);
  const agent = useQuery({ queryKey: ["agent", name], queryFn: () => get<AgentDetail>(path) });
  if (agent.isPending) return <Loading />;
  if (agent.isError) return <Problem error={agent.error} />;
  const row = agent.data;
  // The command that undoes a stop names the incident that waits for a person, where one does.
  const incident = /^ostiary incident release (\S+)/.exec(row.undo)?.[1];
  const verbs = (NEXT[row.state] ?? []).filter(
    (one) => may(`POST /agents/{name}/${one}`) && !(incident && (one === "release" || one === "resume")),
  );
  const isStopped = row.state === "suspended" || row.state === "quarantined";
  return (
    <>
      <p className="crumb">
        <Link to="/agents">Agents</Link>
      </p>
      <PageHead
        title={row.name}
        lead={
          <>
            <Badge>{row.state}</Badge> <bdi>{row.purpose}</bdi>
          </>
        }
      >
        {verbs.map((one) => (
          <button key={one} className={ACTS[one].isDangerous ? "danger" : "primary"} onClick={() => setVerb(one)}>
            {ACTS[one].title}
          </button>
        ))}
      </PageHead>
      {stopMs !== null && row.state !== "active" && (
        <p className="notice" role="status">
          The server confirmed the stop after {Math.round(stopMs)} ms. Connected guards deny from then on.
        </p>
      )}
      {isStopped && incident && (
        <p className="notice warn">
          The agent waits for a decision about{" "}
          <Link to="/incidents/$id" params={{ id: incident }}>
            its incident
          </Link>
          .
        </p>
      )}
      <div className="grid">
        <section className="card third">
          <h2>Identity</h2>
          <Facts
            facts={[
              ["Owner", <bdi>{row.owner ?? row.owner_id}</bdi>],
              ["Deputy", row.deputy ? <bdi>{row.deputy}</bdi> : <span className="muted">none</span>],
              ["Kind", row.kind],
              ["Model", [row.provider, row.model].filter(Boolean).join(" / ") || <span className="muted">not stated</span>],
              ["Risk tier", <Badge>{row.risk_tier}</Badge>],
              ["Segment", <bdi>{row.segment}</bdi>],
              ["Registered", <Time at={row.created_at} />],
              ["Last used", <Time at={row.last_used_at} />],
              ["Ends", <Time at={row.expires_at} missing="no end" />],
              ["SPIFFE ID", <code>{row.spiffe_id}</code>],
            ]}
          />
        </section>
        <div className="two-thirds stack">
          <Permissions agent={row} />
          <Holdings agent={row} />
        </div>
        <Findings agent={row} />
        <Timeline agent={row} />
      </div>
      {verb && (
        <ActionDialog
          title={`${ACTS[verb].title} ${row.name}`}
          verb={ACTS[verb].title}
          isDangerous={ACTS[verb].isDangerous}
          needsReason
          onClose={() => setVerb(null)}
          onConfirm={async (why) => {
            const start = performance.now();
            await post(`${path}/${verb}`, { why });
            setStopMs(verb === "release" || verb === "resume" ? null : performance.now() - start);
          }}
        >
          <p>
            The agent <bdi>{row.name}</bdi> {ACTS[verb].what}
          </p>
          {ACTS[verb].isDangerous && <Ends path={path} />}
        </ActionDialog>
      )}
    </>
  );
}

/** What a stop ends, as the server counts it when the dialog opens. */
function Ends({ path }: { path: string }) {
  const ending = useQuery({ queryKey: ["ending", path], queryFn: () => get<Ending>(`${path}/holdings`), staleTime: 0 });
  if (ending.isPending) return <Loading />;
  if (ending.isError) return <Problem error={ending.error} />;
  const kinds = Object.entries(ending.data.ends);
  if (kinds.length === 0) return <p>It holds nothing that ends.</p>;
  return (
    <>
      <p>These end for good, also those of everyone to whom it delegated:</p>
      <ul className="names">
        {kinds.map(([kind, number]) => (
          <li key={kind}>{count(number, kind.replaceAll("_", " "))}</li>
        ))}
      </ul>
    </>
  );
}

const DAYS = 30;

/** Granted against used: scopes of tokens in the last 30 days. Scopes without use are removed in one step. */
function Permissions({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const [dropped, setDropped] = useState<string[] | null>(null);
  const used = useQuery({
    queryKey: ["agent", agent.name, "scopes"],
    enabled: may("GET /audit"),
    queryFn: async () => {
      const since = (Date.now() - DAYS * 86_400_000) * 1000;
      const page = await get<{ entries: Entry[]; next: unknown }>("/audit", { agent: agent.agent_id, since, limit: 1000 });
      const scopes = page.entries.flatMap((entry) => (typeof entry.detail?.scope === "string" ? entry.detail.scope.split(" ") : []));
      return { scopes: new Set(scopes), isComplete: page.next === null };
    },
  });
  // An agent that never obtained a token shows nothing about what it needs.
  const seen = used.data?.isComplete && used.data.scopes.size > 0 ? used.data.scopes : undefined;
  const unused = seen ? agent.scopes.filter((scope) => !seen.has(scope)) : [];
  return (
    <section className="card">
      <div className="card-head">
        <h2>Granted and used</h2>
        {unused.length > 0 && may("PATCH /agents/{name}") && (
          <button className="small" onClick={() => setDropped(unused)}>
            Remove {count(unused.length, "unused scope")}
          </button>
        )}
      </div>
      {agent.scopes.length === 0 ? (
        <p className="muted">The agent has no scope, so every call is denied.</p>
      ) : (
        <ul className="chips">
          {agent.scopes.map((scope) => (
            <li key={scope}>
              <code>{scope}</code>
              {used.data && (
                <span className="muted">
                  {used.data.scopes.has(scope) ? "used" : used.data.isComplete ? `not used in ${DAYS} days` : "not used lately"}
                </span>
              )}
            </li>
          ))}
        </ul>
      )}
      {agent.data_classes.length > 0 && (
        <p className="small after">
          Reaches the data classes <b>{agent.data_classes.join(", ")}</b>.
        </p>
      )}
      {dropped && (
        <ActionDialog
          title={`Remove ${count(dropped.length, "scope")} from ${agent.name}`}
          verb={`Remove ${count(dropped.length, "scope")}`}
          isDangerous
          onClose={() => setDropped(null)}
          onConfirm={() =>
            send("PATCH", `/agents/${encodeURIComponent(agent.name)}`, {
              body: { scopes: agent.scopes.filter((scope) => !dropped.includes(scope)) },
            })
          }
        >
          <p>No token of the last {DAYS} days had these scopes. Calls that need them are denied from now on:</p>
          <ul className="names">
            {dropped.map((scope) => (
              <li key={scope}>
                <code>{scope}</code>
              </li>
            ))}
          </ul>
        </ActionDialog>
      )}
    </section>
  );
}

/** Everything that ends with the agent. */
function Holdings({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const certificates = useQuery({
    queryKey: ["agent", agent.name, "certificates"],
    enabled: may("GET /certificates"),
    queryFn: () => get<{ certificates: Certificate[] }>("/certificates", { holder: agent.agent_id, limit: 50 }),
  });
  const tasks = useQuery({
    queryKey: ["agent", agent.name, "tasks"],
    enabled: may("GET /tasks"),
    queryFn: () => get<{ tasks: TaskRow[] }>("/tasks", { agent: agent.agent_id, limit: 20 }),
  });
  const live = certificates.data?.certificates.filter((one) => one.revoked_at === null && one.not_after * 1000 > Date.now()) ?? [];
  const keys = agent.keys.filter((key) => key.revoked_at === null);
  const open = tasks.data?.tasks.filter((task) => task.state === "live") ?? [];
  return (
    <section className="card">
      <h2>Holdings</h2>
      <ul className="lines">
        {keys.map((key) => (
          <li key={key.kid}>
            <span className="tag">Key</span>
            <code className="cut">{key.kid}</code>
            <span className="muted">
              {key.alg}, added <Time at={key.added_at} />
            </span>
          </li>
        ))}
        {live.map((one) => (
          <li key={one.serial}>
            <span className="tag">Certificate</span>
            <code className="cut">{one.names[0] ?? one.serial}</code>
            <span className="muted">
              ends <Time at={one.not_after} />
            </span>
          </li>
        ))}
        {open.map((task) => (
          <li key={task.task_id}>
            <span className="tag">Task</span>
            <bdi className="cut">{task.purpose}</bdi>
            <span className="muted">
              ends <Time at={task.expires_at} missing="with the agent" />
            </span>
          </li>
        ))}
      </ul>
      {keys.length + live.length + open.length === 0 && <p className="muted">The agent holds nothing that is in force.</p>}
    </section>
  );
}

function Findings({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const findings = useQuery({
    queryKey: ["agent", agent.name, "findings"],
    enabled: may("GET /findings"),
    queryFn: () => get<{ findings: Finding[] }>("/findings", { agent: agent.agent_id, limit: 10 }),
  });
  const rows = findings.data?.findings ?? [];
  if (rows.length === 0) return null;
  return (
    <section className="card">
      <h2>Findings</h2>
      <ul className="lines">
        {rows.map((one) => (
          <li key={one.finding_id}>
            <span className="tag">{one.points} points</span>
            <bdi>{one.says}</bdi>
            <span className="muted">
              <Time at={one.at} />
              {one.incident && (
                <>
                  {" "}
                  <Link to="/incidents/$id" params={{ id: one.incident }}>
                    incident
                  </Link>
                </>
              )}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Timeline({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const entries = useQuery({
    queryKey: ["agent", agent.name, "entries"],
    enabled: may("GET /audit"),
    refetchInterval: every(5_000),
    queryFn: () => get<{ entries: Entry[] }>("/audit", { agent: agent.agent_id, limit: 40 }),
  });
  if (!may("GET /audit")) return null;
  return (
    <section className="card">
      <h2>What it did</h2>
      {entries.isPending ? <Loading /> : entries.isError ? <Problem error={entries.error} /> : <Entries entries={entries.data.entries} />}
    </section>
  );
}

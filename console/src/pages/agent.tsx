/** One agent: who answers for it, what it holds, what it may do and did, and its stops. */

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { get, post, send } from "../api";
import { Badge, count, Loading, More, PageHead, Problem, sentence, Time } from "../parts/basics";
import { Columns } from "../parts/charts";
import { ActionDialog } from "../parts/dialog";
import { Entries, type Entry, Facts } from "../parts/entries";
import { type Agent as AgentRow, every } from "../queries";
import { ACTS, NEXT, type Verb } from "../verbs";
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

interface ClientSecret {
  id: string;
  expires_at: number;
}

interface AccessKey {
  access_key_id: string;
  expires_at: number;
}

interface Holding {
  id: string;
  kind: string;
  task: string | null;
  audience: string | null;
  expires_at: number;
}

/** Kinds of holdings that are listed by more than their id. */
const LISTED = new Set(["certificate", "access_key"]);
const PAGE_HOLDINGS = 10;

function nameKind(kind: string): string {
  return kind.replaceAll("_", " ");
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

/** A stop: its place in the feed, when it was committed (microseconds), and how long the person waited. */
interface Stop {
  seq: number;
  committed_at: number;
  ms: number;
}

interface StoppedGuard {
  guard: string;
  stream: string;
  ms: number | null;
}

/** How long the page waits for guards. */
const GUARDS_MS = 5_000;

export function Agent() {
  const { name = "" } = useParams({ strict: false }) as { name?: string };
  const path = `/agents/${encodeURIComponent(name)}`;
  const may = useMay();
  const [verb, setVerb] = useState<Verb | null>(null);
  const [stop, setStop] = useState<Stop | null>(null);
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
      {stop && row.state !== "active" && <Stopwatch stop={stop} />}
      {row.state === "pending" && (
        <p className="notice">
          The agent has no key, so it gets no token. Add a key: <code>ostiary key add {row.name} --generate-key FILE</code>
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
          <BehaviourCard agent={row} />
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
            const { seq, committed_at } = await post<{ seq: number; committed_at: number }>(`${path}/${verb}`, { why });
            setStop(ACTS[verb].isDangerous ? { seq, committed_at, ms: performance.now() - start } : null);
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

/** After how many milliseconds a stop was committed, and in force at each connected guard. */
function Stopwatch({ stop }: { stop: Stop }) {
  const may = useMay();
  const guards = useQuery({
    queryKey: ["stop", stop.seq],
    enabled: may("GET /feeds"),
    queryFn: () => get<{ guards: StoppedGuard[] }>("/feeds", { seq: stop.seq, since: stop.committed_at, wait_ms: GUARDS_MS }),
    staleTime: Infinity,
  });
  return (
    <div className="notice" role="status">
      <p>The server confirmed the stop after {Math.round(stop.ms)} ms.</p>
      {guards.data?.guards.length === 0 && <p className="small">No guard is connected.</p>}
      <ul className="names">
        {guards.data?.guards.map((guard) => (
          <li key={guard.stream}>
            The guard of <bdi>{guard.guard}</bdi> {guard.ms === null ? "has not answered; it denies when its feed is stale" : `denies, ${guard.ms.toFixed(1)} ms after the commit`}.
          </li>
        ))}
      </ul>
    </div>
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
          <li key={kind}>{count(number, nameKind(kind))}</li>
        ))}
      </ul>
    </>
  );
}

interface Behaviour {
  scopes: { scope: string; use: "used" | "unused" | "unknown" }[];
  resources: { resource: string; tasks: number; peers: number; tools: { tool: string; scope: string; tasks: number; untrusted: number; peers: number }[] }[];
  days: number[];
}

function useBehaviour(agent: AgentDetail) {
  const may = useMay();
  return useQuery({
    queryKey: ["agent", agent.name, "behaviour"],
    enabled: may("GET /agents/{name}/behaviour"),
    queryFn: () => get<Behaviour>(`/agents/${encodeURIComponent(agent.name)}/behaviour`),
  });
}

const USES = { used: "used", unused: "not used", unknown: "no call reported" };

/** Granted against used: scopes that recent tasks used. Scopes without use are removed in one step. */
function Permissions({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const [dropped, setDropped] = useState<string[] | null>(null);
  const behaviour = useBehaviour(agent);
  const uses = new Map(behaviour.data?.scopes.map((one) => [one.scope, one.use]));
  const unused = agent.scopes.filter((scope) => uses.get(scope) === "unused");
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
      {behaviour.isError && <Problem error={behaviour.error} />}
      {agent.scopes.length === 0 ? (
        <p className="muted">
          The agent has no scope, so every call is denied. Allow one: <code>ostiary agent allow {agent.name} RESOURCE:CLASS</code>
        </p>
      ) : (
        <ul className="chips">
          {agent.scopes.map((scope) => {
            const use = uses.get(scope);
            return (
              <li key={scope}>
                <code>{scope}</code>
                {use && <span className={use === "unused" ? "warn-text" : "muted"}>{USES[use]}</span>}
              </li>
            );
          })}
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
          <p>No call in the recent tasks of the agent needed these scopes. Calls that need them are denied from now on:</p>
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

const SHOWN_TOOLS = 12;
const DAY_MS = 86_400_000;

/** What the agent does, against its own past and its peers. */
function BehaviourCard({ agent }: { agent: AgentDetail }) {
  const { data } = useBehaviour(agent);
  if (!data || data.resources.length + Math.max(...data.days) === 0) return null;
  const [today = 0, ...past] = data.days.toReversed();
  const usual = past.toSorted((a, b) => a - b)[Math.floor(past.length / 2)] ?? 0;
  const tools = data.resources.flatMap((one) => one.tools.map((tool) => ({ ...tool, of: one })));
  return (
    <section className="card" aria-label="Behaviour">
      <h2>Behaviour</h2>
      <p className="small">
        <b>{today.toLocaleString("en")}</b> {today === 1 ? "act" : "acts"} in the last 24 hours; on a usual day of the last two weeks {usual.toLocaleString("en")}.
      </p>
      <Columns values={data.days} summary={`Acts on each of the last ${data.days.length} days: ${data.days.join(", ")}`} label={(value, at) => `${count(value, "act")} ${at === data.days.length - 1 ? "in the last 24 hours" : `until ${new Date(Date.now() - (data.days.length - 1 - at) * DAY_MS).toLocaleDateString("en-GB")}`}`} />
      {tools.length > 0 && (
        <table className="after">
          <caption className="hidden">Tools that the agent used in its recent tasks, and how many of its peers use them</caption>
          <thead>
            <tr>
              <th scope="col">Tool</th>
              <th scope="col">Recent tasks</th>
              <th scope="col">Peers that use it</th>
            </tr>
          </thead>
          <tbody>
            {tools.slice(0, SHOWN_TOOLS).map(({ tool, tasks, untrusted, peers, of }) => (
              <tr key={`${of.resource}/${tool}`}>
                <td>
                  <bdi>
                    {of.resource}/{tool}
                  </bdi>
                  {untrusted > 0 && <span className="next-step small">{count(untrusted, "task")} with values that nobody vouches for</span>}
                </td>
                <td>
                  <Share part={tasks} of={of.tasks} />
                </td>
                <td>
                  <Share part={peers} of={of.peers} isUnusual={tasks > 0 && of.peers >= PEERS_TO_COMPARE && peers === 0} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {tools.length > SHOWN_TOOLS && <p className="small muted after">and {count(tools.length - SHOWN_TOOLS, "more tool")} that it may call.</p>}
    </section>
  );
}

const PEERS_TO_COMPARE = 3;

/** A part of a whole as a bar and in numbers. */
function Share({ part, of, isUnusual }: { part: number; of: number; isUnusual?: boolean }) {
  if (of === 0) return <span className="muted">none yet</span>;
  return (
    <span className="share">
      <svg className={isUnusual ? "bar" : "bar calm"} viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect className="rest" width="100" height="8" rx="1" />
        <rect width={(100 * part) / of} height="8" rx="1" />
      </svg>
      <span>
        {part} of {of}
      </span>
      {isUnusual && <Badge tone="warn">only this agent</Badge>}
    </span>
  );
}

/** Everything that ends with the agent. */
function Holdings({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const certificates = useQuery({
    queryKey: ["agent", agent.name, "certificates"],
    enabled: may("GET /certificates"),
    queryFn: () => get<{ certificates: Certificate[]; next: string | null }>("/certificates", { holder: agent.agent_id, limit: 50 }),
  });
  const tasks = useQuery({
    queryKey: ["agent", agent.name, "tasks"],
    enabled: may("GET /tasks"),
    queryFn: () => get<{ tasks: TaskRow[] }>("/tasks", { agent: agent.agent_id, limit: 20 }),
  });
  const live = certificates.data?.certificates.filter((one) => one.revoked_at === null && one.not_after * 1000 > Date.now()) ?? [];
  const path = `/agents/${encodeURIComponent(agent.name)}`;
  const secrets = useQuery({
    queryKey: ["agent", agent.name, "secrets"],
    enabled: may("GET /agents/{name}/secrets"),
    queryFn: () => get<{ secrets: ClientSecret[] }>(`${path}/secrets`),
  });
  const accessKeys = useQuery({
    queryKey: ["agent", agent.name, "access-keys"],
    enabled: may("GET /agents/{name}/access-keys"),
    queryFn: () => get<{ keys: AccessKey[] }>(`${path}/access-keys`),
  });
  const held = useInfiniteQuery({
    queryKey: ["agent", agent.name, "holdings"],
    enabled: may("GET /agents/{name}/holdings"),
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) => get<Ending & { holdings: Holding[]; next: string | null }>(`${path}/holdings`, { limit: PAGE_HOLDINGS, after: pageParam }),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const isLive = ({ expires_at }: { expires_at: number }) => expires_at * 1000 > Date.now();
  const clientSecrets = secrets.data?.secrets.filter(isLive) ?? [];
  const aws = accessKeys.data?.keys.filter(isLive) ?? [];
  const counted = Object.entries(held.data?.pages[0]?.ends ?? {}).filter(([kind]) => !LISTED.has(kind));
  const holdings = held.data?.pages.flatMap((page) => page.holdings).filter((one) => !LISTED.has(one.kind)) ?? [];
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
        {certificates.data?.next && (
          <li>
            <Link to="/certificates" search={{ holder: agent.name }}>
              All certificates
            </Link>
          </li>
        )}
        {clientSecrets.map((one) => (
          <li key={one.id}>
            <span className="tag">Client secret</span>
            <code className="cut">{one.id}</code>
            <span className="muted">
              ends <Time at={one.expires_at} />
            </span>
          </li>
        ))}
        {aws.map((one) => (
          <li key={one.access_key_id}>
            <span className="tag">Access key</span>
            <code className="cut">{one.access_key_id}</code>
            <span className="muted">
              ends <Time at={one.expires_at} />
            </span>
          </li>
        ))}
        {open.map((task) => (
          <li key={task.task_id}>
            <span className="tag">Task</span>
            <Link className="cut" to="/tasks/$id" params={{ id: task.task_id }}>
              <bdi>{task.purpose || task.task_id}</bdi>
            </Link>
            <span className="muted">
              ends <Time at={task.expires_at} missing="with the agent" />
            </span>
          </li>
        ))}
        {holdings.map((one) => (
          <li key={one.id}>
            <span className="tag">{sentence(nameKind(one.kind)).slice(0, -1)}</span>
            <code className="cut" title={one.id}>{one.audience ?? one.id}</code>
            <span className="muted">
              {one.task && !one.task.endsWith(agent.agent_id.slice(3)) && (
                <>
                  <Link to="/tasks/$id" params={{ id: one.task }}>
                    its task
                  </Link>
                  ,{" "}
                </>
              )}
              ends <Time at={one.expires_at} />
            </span>
          </li>
        ))}
      </ul>
      <More pages={held}>Show more tokens and leases</More>
      {counted.length > 0 && (
        <p className="small after">
          A stop ends {counted.map(([kind, number]) => count(number, nameKind(kind))).join(", ")}, those of agents to which it delegated included.
        </p>
      )}
      {keys.length + live.length + open.length + clientSecrets.length + aws.length + counted.length === 0 && <p className="muted">The agent holds nothing that is in force.</p>}
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

/** Acts of the agent, and what others did to it, such as stops; the newest first. */
function Timeline({ agent }: { agent: AgentDetail }) {
  const may = useMay();
  const entries = useQuery({
    queryKey: ["agent", agent.name, "entries"],
    enabled: may("GET /audit"),
    refetchInterval: every(5_000),
    queryFn: async () => {
      const both = await Promise.all(
        ["agent", "about"].map((filter) => get<{ entries: Entry[] }>("/audit", { [filter]: agent.agent_id, limit: SHOWN_ENTRIES })),
      );
      const merged = new Map(both.flatMap((page) => page.entries).map((entry) => [entry.index, entry]));
      return [...merged.values()].toSorted((a, b) => b.index - a.index).slice(0, SHOWN_ENTRIES);
    },
  });
  if (!may("GET /audit")) return null;
  return (
    <section className="card" aria-label="Timeline">
      <h2>What it did, and what was done to it</h2>
      {entries.isPending ? <Loading /> : entries.isError ? <Problem error={entries.error} /> : <Entries entries={entries.data} of={agent.agent_id} />}
    </section>
  );
}

const SHOWN_ENTRIES = 40;

/** Tasks: what an agent is for at the moment, its bounds in words, what is left of its budgets, and its calls. */

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { get } from "../api";
import { Badge, Empty, Loading, More, PageHead, Problem, Time } from "../parts/basics";
import { ORIGINS, UNTRUSTED } from "../parts/origins";
import { useMay } from "../session";

interface Task {
  task_id: string;
  agent: string;
  agent_id: string;
  parent: string | null;
  depth: number;
  purpose: string;
  state: string;
  on_behalf_of: string | null;
  scopes: string[];
  created_at: number;
  expires_at: number | null;
  ended_at: number | null;
}

type Scalar = string | number | boolean;

interface Condition {
  eq?: Scalar;
  one_of?: Scalar[];
  prefix?: string;
  glob?: string;
  min?: number | string;
  max?: number | string;
  max_length?: number;
}

interface Bound {
  locations: string[];
  actions?: string[];
  datatypes?: string[];
  arguments?: Record<string, Condition>;
}

interface Balance {
  id: string;
  limit: { kind: string; limit: number | string; tools?: string[]; argument?: string };
  left: string;
  spent: string;
  daily?: boolean;
}

interface TaskDetail extends Task {
  bounds?: Bound[];
  budgets?: Balance[];
}

interface Call {
  index: number;
  at: number;
  action: string;
  outcome?: string;
  resource?: string;
  tool?: string;
  arguments?: Record<string, unknown>;
  digest?: string;
  reasons?: { code: string; message?: string }[];
  /** What the guard knew of the call; `origin` has the origin of each argument by its path. */
  detail?: { origins?: { origin?: Record<string, string> } };
}

const MICROSECONDS = 1_000_000;
const MAX_TREE = 200;

export function Tasks() {
  const { agent } = getRouteApi("/tasks").useSearch() as { agent?: string };
  const navigate = useNavigate();
  const pages = useInfiniteQuery({
    queryKey: ["tasks", agent],
    queryFn: ({ pageParam }) =>
      get<{ tasks: Task[]; next: string | null }>("/tasks", { agent, limit: 50, after: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const tasks = pages.data?.pages.flatMap((page) => page.tasks) ?? [];
  return (
    <>
      <PageHead title="Tasks" lead="A task bounds what an agent may do for one purpose. The newest come first." />
      <form
        className="card filters"
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          const text = String(new FormData(event.currentTarget).get("agent") ?? "").trim();
          void navigate({ to: "/tasks", search: (text ? { agent: text } : {}) as never });
        }}
      >
        <div className="field">
          <label htmlFor="task-agent">Agent</label>
          <input id="task-agent" name="agent" key={agent} defaultValue={agent ?? ""} autoComplete="off" />
        </div>
        <div className="actions">
          <button className="primary">Show</button>
          <Link to="/tasks" className="button">Clear</Link>
        </div>
      </form>
      {pages.isPending ? <Loading /> : pages.isError ? <Problem error={pages.error} /> : tasks.length === 0 ? (
        <Empty title="No declared tasks">
          An agent declares one with its token request, or a person starts one: <code>ostiary task start</code>.
        </Empty>
      ) : (
        <section className="card" aria-label="Tasks">
          <ul className="rows">
            {tasks.map((task) => <TaskRow key={task.task_id} task={task} />)}
          </ul>
          <More pages={pages}>Show older tasks</More>
        </section>
      )}
    </>
  );
}

function TaskRow({ task }: { task: Task }) {
  return (
    <li>
      <Link to="/tasks/$id" params={{ id: task.task_id }}>
        <bdi>{task.purpose || task.task_id}</bdi>
      </Link>
      <Badge>{task.state}</Badge>
      <bdi className="muted">
        {task.agent}
        {task.on_behalf_of && ` for ${task.on_behalf_of}`}
      </bdi>
      <Time at={task.created_at} />
    </li>
  );
}

export function TaskPage() {
  const { id } = getRouteApi("/tasks/$id").useParams() as { id: string };
  const may = useMay();
  const task = useQuery({ queryKey: ["task", id], queryFn: () => get<TaskDetail>(`/tasks/${encodeURIComponent(id)}`) });
  if (task.isPending) return <Loading />;
  if (task.isError) return <Problem error={task.error} />;
  const { purpose, agent, state, on_behalf_of, scopes, created_at, expires_at, ended_at, bounds, budgets } = task.data;
  return (
    <>
      <PageHead title={purpose || "Task"} lead={<Link to="/tasks">Tasks</Link>} />
      <div className="grid">
        <section className="card half" aria-label="Facts">
          <h2>Facts</h2>
          <dl className="facts">
            <Fact name="Agent"><Link to="/agents/$name" params={{ name: agent }}><bdi>{agent}</bdi></Link></Fact>
            <Fact name="State"><Badge>{state}</Badge></Fact>
            <Fact name="On behalf of"><bdi>{on_behalf_of ?? "nobody"}</bdi></Fact>
            <Fact name="Scopes"><bdi>{scopes?.join(", ") || "none"}</bdi></Fact>
            <Fact name="Started"><Time at={created_at} /></Fact>
            {ended_at ? <Fact name="Ended"><Time at={ended_at} /></Fact> : <Fact name="Ends"><Time at={expires_at} /></Fact>}
            <Fact name="Id"><code>{id}</code></Fact>
          </dl>
        </section>
        <section className="card half" aria-label="Bounds and budgets">
          <h2>Bounds</h2>
          {bounds && bounds.length > 0 ? <ul className="stack small">{bounds.map((bound, at) => <li key={at}>{sayBound(bound)}</li>)}</ul> : (
            <p className="muted">Only the scopes bound this task.</p>
          )}
          <h2>Budgets</h2>
          {budgets && budgets.length > 0 ? budgets.map((budget) => <BudgetLine key={budget.id} budget={budget} />) : (
            <p className="muted">No budget limits this task.</p>
          )}
        </section>
        {state !== "pruned" && <Tree id={id} />}
        {may("GET /audit") && <Calls id={id} />}
      </div>
    </>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** Return a bound as a sentence. */
export function sayBound({ locations, actions, datatypes, arguments: conditions }: Bound): string {
  const tools = `${actions?.join(", ") ?? "Any tool"} at ${locations.join(", ")}`;
  const data = datatypes ? `, with no other data than ${datatypes.join(", ")}` : "";
  const limits = Object.entries(conditions ?? {}).map(([name, one]) => `${name} ${sayCondition(one)}`);
  return `${tools}${data}${limits.length > 0 ? `, where ${limits.join("; ")}` : ""}.`;
}

function sayCondition({ eq, one_of, prefix, glob, min, max, max_length }: Condition): string {
  const parts = [
    eq !== undefined && `is ${eq}`,
    one_of && `is one of ${one_of.join(", ")}`,
    prefix !== undefined && `begins with ${prefix}`,
    glob !== undefined && `matches ${glob}`,
    min !== undefined && `is at least ${min}`,
    max !== undefined && `is at most ${max}`,
    max_length !== undefined && `has at most ${max_length} characters`,
  ];
  return parts.filter(Boolean).join(" and ");
}

const UNITS: Record<string, string> = { calls: "calls", amount: "", volume: "" };

function BudgetLine({ budget: { limit, left, spent, daily } }: { budget: Balance }) {
  const of = Number(limit.limit);
  const about = [limit.argument, limit.tools?.join(", ")].filter(Boolean).join(" of ");
  return (
    <div className="budget small">
      <p>
        {left} of {String(limit.limit)} {UNITS[limit.kind] ?? limit.kind} left{daily && " today"}
        {about && <bdi className="muted"> ({about})</bdi>}, {spent} spent
      </p>
      {of > 0 && <meter min={0} max={of} value={Number(left)} aria-label={`${left} of ${limit.limit} left`} />}
    </div>
  );
}

function Tree({ id }: { id: string }) {
  const tree = useQuery({
    queryKey: ["task-tree", id],
    queryFn: () => get<{ tasks: Task[]; next: string | null }>(`/tasks/${encodeURIComponent(id)}/tree`, { limit: MAX_TREE }),
  });
  if (tree.isPending) return <Loading />;
  if (tree.isError) return <Problem error={tree.error} />;
  const { tasks, next } = tree.data;
  const top = Math.min(...tasks.map((task) => task.depth));
  return (
    <section className="card" aria-label="Parts of the task">
      <h2>Parts of the task</h2>
      {tasks.length < 2 ? <p className="muted">The agent has given no part of this task to another agent.</p> : (
        <ul className="rows">
          {tasks.map((task) => (
            <li key={task.task_id}>
              <span>
                <span className="muted" aria-hidden="true">{"— ".repeat(task.depth - top)}</span>
                <Link to="/tasks/$id" params={{ id: task.task_id }}>
                  <bdi>{task.purpose || task.task_id}</bdi>
                </Link>
              </span>
              <Badge>{task.state}</Badge>
              <bdi className="muted">{task.agent}</bdi>
              <Time at={task.created_at} />
            </li>
          ))}
        </ul>
      )}
      {next !== null && <p className="muted small">Only the first {MAX_TREE} parts are shown.</p>}
    </section>
  );
}

function Calls({ id }: { id: string }) {
  const pages = useInfiniteQuery({
    queryKey: ["task-calls", id],
    queryFn: ({ pageParam }) =>
      get<{ entries: Call[]; next: string | null }>("/audit", { task: id, limit: 50, before: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  if (pages.isPending) return <Loading />;
  if (pages.isError) return <Problem error={pages.error} />;
  const entries = pages.data.pages.flatMap((page) => page.entries);
  return (
    <section className="card" aria-label="Calls and acts">
      <h2>Calls and acts</h2>
      <p className="small muted">
        Values have an origin where the task states what the person asked, and the value names a recipient, an object or an amount.
      </p>
      {entries.length === 0 ? <p className="muted">Nothing was done under this task.</p> : (
        <ul className="rows calls">
          {entries.map((entry) => (
            <li key={entry.index}>
              <Link to="/ledger/$index" params={{ index: String(entry.index) }}>
                <bdi>{entry.tool ? `${entry.action} ${entry.tool}` : entry.action}</bdi>
              </Link>
              <Badge>{entry.outcome ?? "ok"}</Badge>
              <div className="muted">
                <bdi>{entry.reasons?.map((one) => one.message || one.code).join("; ") || entry.resource}</bdi>
                <Origins call={entry} />
              </div>
              <Time at={entry.at / MICROSECONDS} />
            </li>
          ))}
        </ul>
      )}
      <More pages={pages}>Show older calls</More>
    </section>
  );
}

/** Each argument of a call: its value where the guard records values, and where the value came from. */
function Origins({ call: { arguments: values, detail } }: { call: Call }) {
  const origins = detail?.origins?.origin ?? {};
  // An origin has a path such as `to.address`; a value is recorded by the name of the argument.
  const names = [...new Set([...Object.keys(values ?? {}), ...Object.keys(origins).map((path) => path.split(/[.[]/)[0]!)])];
  if (names.length === 0) return null;
  return (
    <dl className="origins" aria-label={Object.keys(origins).length > 0 ? "Arguments and their origins" : "Arguments"}>
      {names.map((name) => {
        const of = new Set(Object.entries(origins).flatMap(([path, origin]) => (path.split(/[.[]/)[0] === name ? [origin] : [])));
        return (
          <div key={name}>
            <dt>
              <code>{name}</code>
            </dt>
            <dd>
              {values && name in values && <bdi className="cut">{JSON.stringify(values[name])}</bdi>}
              {[...of].map((origin) => (
                <Badge key={origin} tone={UNTRUSTED.has(origin) ? "warn" : "plain"}>
                  {ORIGINS[origin] ?? origin}
                </Badge>
              ))}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

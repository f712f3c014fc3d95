/** Approvals: the queue of questions, and one question with everything that a person needs to answer it. */

import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { Fragment, useEffect, useState } from "react";
import { get, post } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { Facts } from "../parts/entries";
import { ORIGINS, UNTRUSTED } from "../parts/origins";
import { NotifySwitch } from "../parts/notify";
import { type Approval, openApprovals, whileLive } from "../queries";
import { useMay } from "../session";

interface ApprovalDetail extends Approval {
  words: string[];
  covers: string;
  may_cover: string[];
  uses: number;
  at_most: Record<string, string>;
  lines: string[];
  must_state: string;
  arguments: Record<string, unknown>;
  hidden: string[];
  outgoing: Record<string, unknown>;
  foreign: Record<string, string[]>;
  origins: Record<string, string>;
  policy: string;
  reasons: { policy?: string; code?: string; message?: string }[];
  asks: { agent: string; owner: string | null; purpose: string; task_purpose: string; on_behalf_of: string | null; state: string };
  answers: { person: string | null; says: string; reason: string; at: number }[];
  flood: { open_of_agent: number; within_an_hour: number };
  before: { at: number; action: string; outcome: string; tool: string }[];
}

export function Approvals() {
  const open = useQuery(openApprovals);
  const past = useQuery({
    queryKey: ["approvals", "all"],
    queryFn: () => get<{ approvals: Approval[] }>("/approvals", { limit: 50 }),
  });
  const answered = past.data?.approvals.filter((one) => one.state !== "open") ?? [];
  return (
    <>
      <PageHead
        title="Approvals"
        lead="An agent waits until a person answers. A yes is for exactly one request, or for what you choose to cover."
      >
        <NotifySwitch />
      </PageHead>
      {open.isPending ? (
        <Loading />
      ) : open.isError ? (
        <Problem error={open.error} />
      ) : open.data.approvals.length === 0 ? (
        <div className="card">
          <Empty title="No request waits for an answer">
            A request appears here as soon as a policy asks for a person.
          </Empty>
        </div>
      ) : (
        <Queue rows={open.data.approvals} label="Waiting" />
      )}
      {answered.length > 0 && (
        <>
          <h2 className="section">Answered</h2>
          <Queue rows={answered} label="Answered" />
        </>
      )}
    </>
  );
}

function Queue({ rows, label }: { rows: Approval[]; label: string }) {
  return (
    <ul className="card lines queue" aria-label={label}>
      {rows.map((one) => (
        <li key={one.approval_id}>
          <Link to="/approvals/$id" params={{ id: one.approval_id }}>
            <b>
              <bdi>{one.agent}</bdi>
            </b>{" "}
            {one.kind === "plan" ? "asks about its plan" : <>wants to call <bdi>{one.tool}</bdi></>}
          </Link>
          <span className="meta">
            {one.needs === "two" && <span className="tag">two people</span>}
            <Badge>{one.state}</Badge>
            <Time at={one.asked_at} />
          </span>
        </li>
      ))}
    </ul>
  );
}

type Answer = { says: "approve" | "deny"; covers?: "call" | "task" };

export function ApprovalPage() {
  const { id = "" } = useParams({ strict: false }) as { id?: string };
  const may = useMay();
  const navigate = useNavigate();
  const [answer, setAnswer] = useState<Answer | null>(null);
  const approval = useQuery({
    queryKey: ["approval", id],
    queryFn: () => get<ApprovalDetail>(`/approvals/${encodeURIComponent(id)}`),
    refetchInterval: whileLive,
  });
  const queue = useQuery(openApprovals);
  const one = approval.data;
  const isOpen = one?.state === "open" && may("POST /approvals/{id}/approve");
  const coversTask = one?.may_cover?.includes("task") ?? false;

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.target instanceof Element && event.target.closest("input, textarea, select, dialog")) return;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (isOpen && event.key === "a") setAnswer({ says: "approve", covers: "call" });
      else if (isOpen && event.key === "t" && coversTask) setAnswer({ says: "approve", covers: "task" });
      else if (isOpen && event.key === "d") setAnswer({ says: "deny" });
      else if (event.key === "j" || event.key === "k") {
        const ids = queue.data?.approvals.map((row) => row.approval_id) ?? [];
        const next = ids[ids.indexOf(id) + (event.key === "j" ? 1 : -1)];
        if (next) void navigate({ to: "/approvals/$id", params: { id: next } });
      } else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [isOpen, coversTask, queue.data, id, navigate]);

  if (approval.isPending) return <Loading />;
  if (approval.isError) return <Problem error={approval.error} />;
  if (!one?.words) return <Problem error={new Error("only people who may answer see this request in full")} />;
  return (
    <>
      <p className="crumb">
        <Link to="/approvals">Approvals</Link>
      </p>
      <PageHead
        title={one.kind === "plan" ? `Plan of ${one.agent}` : `${one.agent}: ${one.tool}`}
        lead={
          <>
            <Badge>{one.state}</Badge> asked <Time at={one.asked_at} />
            {one.state === "open" && (
              <>
                , ends <Time at={one.ends_at} />
              </>
            )}
            {one.needs === "two" && ` · two people must approve, ${one.said_yes} of 2 did`}
          </>
        }
      />
      <div className="grid">
        <div className="two-thirds stack">
          <section className="card">
            <h2>What the agent wants</h2>
            <div className="words">
              {one.words.map((line, n) => (
                <p key={n} className={line.startsWith("Careful: ") ? "notice warn" : ""}>
                  <bdi>{line}</bdi>
                </p>
              ))}
            </div>
          </section>
          <Arguments one={one} />
          {Object.entries(one.outgoing).map(([name, text]) => (
            <section key={name} className="card">
              <h2>Outgoing text: {name}</h2>
              <pre className="outgoing">
                <Marked text={typeof text === "string" ? text : JSON.stringify(text, null, 2)} parts={one.foreign[name] ?? []} />
              </pre>
              {(one.foreign[name]?.length ?? 0) > 0 && (
                <p className="small muted">Marked parts come neither from the person nor from records of the person.</p>
              )}
            </section>
          ))}
        </div>
        <div className="third stack">
          <section className="card">
            <h2>Who asks</h2>
            <Facts
              facts={[
                ["Agent", <Link to="/agents/$name" params={{ name: one.asks.agent }}><bdi>{one.asks.agent}</bdi></Link>],
                ["Owner", <bdi>{one.asks.owner ?? ""}</bdi>],
                ["For", <bdi>{one.asks.on_behalf_of ?? "its owner"}</bdi>],
                ["Task", <bdi>{one.asks.task_purpose || one.asks.purpose}</bdi>],
                ["Requests", `${one.flood.open_of_agent} open, ${one.flood.within_an_hour} within an hour`],
              ]}
            />
          </section>
          <section className="card">
            <h2>What policy said</h2>
            {one.reasons.map((reason, n) => (
              <p key={n}>
                {reason.policy && <code>{reason.policy}</code>} <bdi>{reason.message || ""}</bdi>
              </p>
            ))}
            <p className="muted small after">
              Asks {one.needs === "two" ? "two people" : "a person"}. Policy set{" "}
              <code title={one.policy}>{one.policy.slice(0, 12)}</code>
            </p>
          </section>
          {one.answers.length > 0 && (
            <section className="card">
              <h2>Answers</h2>
              <ul className="lines">
                {one.answers.map((said) => (
                  <li key={said.at}>
                    <Badge tone={said.says === "approve" ? "good" : "bad"}>{said.says}</Badge>
                    <span>
                      <bdi>{said.person ?? ""}</bdi>: <bdi>{said.reason}</bdi>
                    </span>
                    <Time at={said.at} />
                  </li>
                ))}
              </ul>
            </section>
          )}
          <section className="card">
            <h2>Before this request</h2>
            {one.before.length === 0 && <p className="muted">The agent did nothing in this task yet.</p>}
            <ol className="timeline">
              {one.before.slice(0, 10).map((entry, n) => (
                <li key={n} data-outcome={entry.outcome}>
                  <Time at={entry.at} />
                  <code>{entry.action}</code>
                  <bdi>{entry.tool}</bdi>
                </li>
              ))}
            </ol>
          </section>
        </div>
      </div>
      {isOpen && (
        <div className="answer-bar" role="toolbar" aria-label="Answer">
          <button className="primary" onClick={() => setAnswer({ says: "approve", covers: "call" })}>
            {one.kind === "call" ? "Approve once" : "Approve"} <kbd>a</kbd>
          </button>
          {coversTask && (
            <button onClick={() => setAnswer({ says: "approve", covers: "task" })}>
              Approve for the task <kbd>t</kbd>
            </button>
          )}
          <button className="danger" onClick={() => setAnswer({ says: "deny" })}>
            Deny <kbd>d</kbd>
          </button>
          <span className="muted small">
            <kbd>j</kbd> <kbd>k</kbd> next and previous
          </span>
        </div>
      )}
      {answer && <AnswerDialog one={one} answer={answer} onClose={() => setAnswer(null)} />}
    </>
  );
}

/** The dialog of an answer. An approval may be for less than the agent asked for. */
function AnswerDialog({ one, answer, onClose }: { one: ApprovalDetail; answer: Answer; onClose: () => void }) {
  const [value, setValue] = useState("");
  const [uses, setUses] = useState("");
  const [atMost, setAtMost] = useState<Record<string, string>>({});
  const [struck, setStruck] = useState<number[]>([]);
  const denies = answer.says === "deny";
  const isPlan = one.kind === "plan";
  const isElevation = one.kind === "elevate";
  const narrows = !denies && (isPlan || isElevation || answer.covers === "task");
  const approval = {
    ...(!isPlan && { covers: answer.covers }),
    ...(one.must_state && { value }),
    ...(uses && { uses: Number(uses) }),
    at_most: Object.fromEntries(Object.entries(atMost).filter(([, limit]) => limit)),
    strike: struck,
  };
  return (
    <ActionDialog
      title={
        denies
          ? "Deny this request"
          : isPlan
            ? "Approve the plan"
            : isElevation
              ? "Approve the elevation"
              : answer.covers === "task"
                ? "Approve similar calls of the task"
                : "Approve this call once"
      }
      verb={denies ? "Deny" : "Approve"}
      isDangerous={denies}
      needsReason
      onClose={onClose}
      onConfirm={(reason) => post(`/approvals/${one.approval_id}/${answer.says}`, denies ? { reason } : { reason, ...approval })}
    >
      <p>
        <bdi>{one.words[0]}</bdi>
      </p>
      <p className="muted">
        {denies
          ? "The agent is told that the request was denied, and why."
          : one.needs === "two" && one.said_yes === 0
            ? "A second person must approve too. That person sees the request as you approve it."
            : isPlan
              ? "Calls of these lines are allowed until the task ends."
              : isElevation
                ? "The agent gets the scopes for these minutes, once."
                : answer.covers === "task"
                  ? "This call, and calls that differ in nothing that matters, are allowed until the task ends."
                  : "The agent gets a token for exactly these arguments, which works once."}
      </p>
      {!denies && one.must_state && (
        <label className="field">
          Value of {one.must_state}
          <input value={value} onChange={(event) => setValue(event.target.value)} required maxLength={256} autoComplete="off" />
          <span className="hint">Take the value from a source that you trust. The call runs only if it has the same value.</span>
        </label>
      )}
      {narrows && (
        <fieldset>
          <legend>Approve less than the agent asks for</legend>
          {one.lines.map((line, n) => (
            <label key={n} className="check">
              <input
                type="checkbox"
                checked={!struck.includes(n + 1)}
                onChange={() => setStruck(struck.includes(n + 1) ? struck.filter((other) => other !== n + 1) : [...struck, n + 1])}
              />
              <bdi>{line}</bdi>
            </label>
          ))}
          {one.uses > 0 && (
            <label className="field">
              {isPlan ? "Calls of each line" : "Further calls"}
              <input type="number" min={1} max={one.uses} placeholder={`${one.uses}`} value={uses} onChange={(event) => setUses(event.target.value)} />
            </label>
          )}
          {Object.entries(one.at_most).map(([name, limit]) => (
            <label key={name} className="field">
              {isElevation ? "Minutes" : `Largest ${name} of further calls`}
              <input
                type="number"
                step={isElevation ? 1 : "any"}
                min={isElevation ? 1 : 0}
                max={limit}
                placeholder={limit}
                value={atMost[name] ?? ""}
                onChange={(event) => setAtMost({ ...atMost, [name]: event.target.value })}
              />
            </label>
          ))}
        </fieldset>
      )}
    </ActionDialog>
  );
}

function Arguments({ one }: { one: ApprovalDetail }) {
  const names = Object.keys(one.arguments);
  return (
    <section className="card">
      <div className="card-head">
        <h2>Exact arguments</h2>
        <span className="muted small">{count(names.length, "argument")}</span>
      </div>
      {names.length === 0 ? (
        <p className="muted">The call has no arguments.</p>
      ) : (
        <dl className="arguments">
          {names.map((name) => (
            <Fragment key={name}>
              <dt>
                <code>{name}</code>
                {one.origins[name] && <span className={UNTRUSTED.has(one.origins[name]) ? "origin" : "origin muted"}>{ORIGINS[one.origins[name]] ?? one.origins[name]}</span>}
              </dt>
              <dd>
                {one.hidden.includes(name) ? (
                  <span className="muted">hidden from everyone</span>
                ) : (
                  <pre>{typeof one.arguments[name] === "string" ? (one.arguments[name] as string) : JSON.stringify(one.arguments[name], null, 2)}</pre>
                )}
              </dd>
            </Fragment>
          ))}
        </dl>
      )}
    </section>
  );
}

/** A text in which each of `parts` is marked. */
export function Marked({ text, parts }: { text: string; parts: string[] }) {
  const found = parts.filter((part) => part && text.includes(part));
  if (found.length === 0) return <>{text}</>;
  const first = found.reduce((one, other) => (text.indexOf(other) < text.indexOf(one) ? other : one));
  const at = text.indexOf(first);
  return (
    <>
      {text.slice(0, at)}
      <mark>{first}</mark>
      <Marked text={text.slice(at + first.length)} parts={parts} />
    </>
  );
}

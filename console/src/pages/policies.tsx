/** Policies: the sets and their differences, and an editor that tests a change before anything is switched on. */

import { useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link, useBlocker, useParams } from "@tanstack/react-router";
import { useEffect, useMemo, useRef, useState } from "react";
import { ApiError, apiPath, get, send } from "../api";
import { Badge, count, Loading, More, PageHead, Problem, Time } from "../parts/basics";
import { readSchema } from "../parts/cedar";
import { changedFiles, diffLines, type Files, hunksOf, makePatch } from "../parts/difference";
import { download } from "../parts/download";
import { Editor, Highlighted } from "../parts/editor";
import { useMay } from "../session";

const PAGE_ROWS = 50;
const SHORT = 12;
const DAYS = 7;

interface PolicySet {
  hash: string;
  active: boolean;
  watching?: boolean;
  policies: number;
  safeguards: number;
  tests: number;
  created_at: number;
  created_by: string | null;
}

interface PolicySetDetail extends PolicySet {
  files: Files;
  extends: Files;
  left_out: string[];
}

interface Item {
  id: string;
  effect: string;
  mode: string;
}

interface Tested {
  hash: string;
  policies: number;
  tests: number;
  notes: string[];
  plan: {
    added: Item[];
    changed: { id: string; before: Item; after: Item }[];
    removed: Item[];
    files: Record<string, string>;
    loses: string[];
  };
}

interface Change {
  direction: string;
  who: string;
  what: string;
  before: string[];
  after: string[];
  because: string;
  count: number;
  agents: number;
  example: number;
}

interface Report {
  replayed: number;
  changed: number;
  to_deny: number;
  to_allow: number;
  unknown: Record<string, number>;
  changes: Change[];
  ungrouped: number;
}

type Line = { done: number; of: number } | { report: Report } | { error: string; message: string; hint: string };

const setQuery = (hash: string) => ({
  queryKey: ["policy", hash],
  queryFn: () => get<PolicySetDetail>(`/policies/${encodeURIComponent(hash)}`),
  staleTime: Infinity,
});

function useSets() {
  return useInfiniteQuery({
    queryKey: ["policies"],
    queryFn: ({ pageParam }) => get<{ policies: PolicySet[]; next: string | null }>("/policies", { limit: PAGE_ROWS, after: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
}

export function Policies() {
  const sets = useSets();
  const stored = sets.data?.pages.flatMap((page) => page.policies) ?? [];
  const rows = [...stored.filter((one) => one.active), ...stored.filter((one) => !one.active)];
  return (
    <>
      <PageHead title="Policies" lead="A set of policies is named by the hash of its files. One set decides; earlier sets stay stored.">
        {rows.some((one) => one.active) && <EditLink hash={rows.find((one) => one.active)!.hash} />}
      </PageHead>
      {sets.isPending ? <Loading /> : sets.isError ? <Problem error={sets.error} /> : (
        <section className="card" aria-label="Policy sets">
          <ul className="rows wide">
            {rows.map((one) => (
              <li key={one.hash}>
                <Link to="/policies/$hash" params={{ hash: one.hash }}>
                  <code>{one.hash.slice(0, SHORT)}</code>
                </Link>
                <SetBadge set={one} />
                <span className="muted">
                  {count(one.policies, "policy").replace("policys", "policies")}, {count(one.safeguards, "safeguard")}, {count(one.tests, "test")}
                </span>
                {one.created_at === 0 ? <span>part of the server</span> : <Time at={one.created_at} />}
              </li>
            ))}
          </ul>
          <More pages={sets}>Show earlier sets</More>
        </section>
      )}
    </>
  );
}

function SetBadge({ set }: { set: PolicySet }) {
  if (set.active) return <Badge tone="good">decides</Badge>;
  return set.watching ? <Badge tone="info">watches</Badge> : <Badge tone="plain">stored</Badge>;
}

function EditLink({ hash }: { hash: string }) {
  const may = useMay();
  if (!may("POST /policies") && !may("POST /policies/whatif")) return null;
  return (
    <Link to="/policies/$hash/edit" params={{ hash }} className="button primary">
      Propose a change
    </Link>
  );
}

export function PolicySetPage() {
  const { hash = "" } = useParams({ strict: false }) as { hash?: string };
  const { against } = getRouteApi("/policies/$hash").useSearch() as { against?: string };
  const navigate = getRouteApi("/policies/$hash").useNavigate();
  const set = useQuery(setQuery(hash));
  const sets = useSets();
  const others = sets.data?.pages.flatMap((page) => page.policies).filter((one) => one.hash !== hash) ?? [];
  const other = useQuery({ ...setQuery(against ?? ""), enabled: against !== undefined });
  if (set.isPending) return <Loading />;
  if (set.isError) return <Problem error={set.error} />;
  const { files, left_out } = set.data;
  return (
    <>
      <p className="crumb">
        <Link to="/policies">Policies</Link>
      </p>
      <PageHead
        title={`Set ${hash.slice(0, SHORT)}`}
        lead={
          <>
            <SetBadge set={set.data} /> {set.data.created_at === 0 ? "part of the server" : <>put <Time at={set.data.created_at} /></>}
            {set.data.created_by && <> by <bdi>{set.data.created_by}</bdi></>}
          </>
        }
      >
        <EditLink hash={hash} />
      </PageHead>
      {left_out.length > 0 && (
        <p className="notice warn">
          Safeguards of the server that do not apply under this set: <bdi>{left_out.join(", ")}</bdi>.
        </p>
      )}
      {others.length > 0 && (
        <label className="field narrow">
          Compare with
          <select value={against ?? ""} onChange={(event) => void navigate({ search: (event.target.value ? { against: event.target.value } : {}) as never })}>
            <option value="">nothing</option>
            {others.map((one) => (
              <option key={one.hash} value={one.hash}>
                {one.hash.slice(0, SHORT)} {one.active ? "(decides)" : `(${new Date(one.created_at * 1000).toISOString().slice(0, 10)})`}
              </option>
            ))}
          </select>
        </label>
      )}
      {against === undefined ? <FileTexts files={files} /> : other.isPending ? <Loading /> : other.isError ? <Problem error={other.error} /> : (
        <Difference before={other.data.files} after={files} />
      )}
      <section className="card gap">
        <details>
          <summary>
            <b>{count(Object.keys(set.data.extends).length, "safeguard")} of the server</b>
          </summary>
          <FileTexts files={Object.fromEntries(Object.entries(set.data.extends).map(([id, text]) => [`${id}.cedar`, text]))} isNested />
        </details>
      </section>
    </>
  );
}

function FileTexts({ files, isNested }: { files: Files; isNested?: boolean }) {
  const names = Object.keys(files).sort();
  return (
    <>
      {names.map((name) => (
        <section key={name} className={isNested ? "after" : "card gap"} aria-label={name}>
          <h2><bdi>{name}</bdi></h2>
          <pre className="code" tabIndex={0}>
            <Highlighted name={name} text={files[name]!} />
          </pre>
        </section>
      ))}
    </>
  );
}

const SIGNS = { " ": "", "-": "removed", "+": "added" };

function Difference({ before, after }: { before: Files; after: Files }) {
  const names = useMemo(() => changedFiles(before, after), [before, after]);
  if (names.length === 0) return <p className="notice">The files are the same.</p>;
  return (
    <>
      {names.map((name) => (
        <section key={name} className="card gap" aria-label={`Changes of ${name}`}>
          <div className="card-head">
            <h2><bdi>{name}</bdi></h2>
            {!(name in before) ? <Badge tone="good">new</Badge> : !(name in after) ? <Badge tone="bad">removed</Badge> : null}
          </div>
          <pre className="code diff" tabIndex={0}>
            {hunksOf(diffLines(before[name] ?? "", after[name] ?? "")).map((hunk) => (
              <span key={`${hunk.startA} ${hunk.startB}`} className="hunk">
                {hunk.lines.map(([sign, line], at) => (
                  <span key={at} className={`line ${SIGNS[sign]}`}>
                    {sign} {line.replace(/\n$/, "")}{"\n"}
                  </span>
                ))}
              </span>
            ))}
          </pre>
        </section>
      ))}
    </>
  );
}

const NEW_FILE = /^[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(cedar|cedarschema|test\.toml|entities\.json|safeguards\.toml|rego|data\.json|opa\.toml)$/;

export function PolicyEditor() {
  const { hash = "" } = useParams({ strict: false }) as { hash?: string };
  const set = useQuery(setQuery(hash));
  const schema = useQuery({ queryKey: ["policy-schema"], queryFn: () => get<{ schema: string }>("/policies/schema"), staleTime: Infinity });
  if (set.isPending || schema.isPending) return <Loading />;
  if (set.isError || schema.isError) return <Problem error={set.error ?? schema.error} />;
  return <Draft key={hash} hash={hash} before={set.data.files} base={schema.data.schema} />;
}

function Draft({ hash, before, base }: { hash: string; before: Files; base: string }) {
  const may = useMay();
  const [files, setFiles] = useState(before);
  const names = Object.keys(files).sort();
  const [chosen, setName] = useState(names[0] ?? "");
  const name = chosen in files ? chosen : (names[0] ?? "");
  const patch = useMemo(() => makePatch(before, files), [before, files]);
  const [isCopied, setCopied] = useState(false);
  const own = names.filter((one) => one.endsWith(".cedarschema")).map((one) => files[one]!);
  const schema = useMemo(() => readSchema(base, ...own), [base, own.join("\n")]);
  useBlocker({ shouldBlockFn: () => patch !== "" && !window.confirm("Leave the page? The change is not kept."), enableBeforeUnload: patch !== "" });
  const change = (next: Files) => {
    setFiles(next);
    setCopied(false);
  };
  return (
    <>
      <p className="crumb">
        <Link to="/policies">Policies</Link> / <Link to="/policies/$hash" params={{ hash }}>{hash.slice(0, SHORT)}</Link>
      </p>
      <PageHead title="Propose a change" lead="Nothing here is switched on. Test the change, see what it would have decided, and take it as a patch." />
      <section className="card gap" aria-label="Files">
        <div className="card-head">
          <div className="actions" role="group" aria-label="Files of the set">
            {names.map((one) => (
              <button key={one} className="small" aria-pressed={one === name} onClick={() => setName(one)}>
                <bdi>{one}</bdi>
                {files[one] !== before[one] && <span className="badge info">changed</span>}
              </button>
            ))}
          </div>
          <NewFile
            files={files}
            onAdd={(added) => {
              change({ ...files, [added]: "" });
              setName(added);
            }}
          />
        </div>
        <Editor key={name} name={name} text={files[name] ?? ""} schema={schema} onChange={(text) => change({ ...files, [name]: text })} />
        <div className="actions after">
          {files[name] !== before[name] && before[name] !== undefined && (
            <button className="small" onClick={() => change({ ...files, [name]: before[name]! })}>
              Undo the changes of this file
            </button>
          )}
          {names.length > 1 && (
            <button className="small danger" onClick={() => change(Object.fromEntries(Object.entries(files).filter(([one]) => one !== name)))}>
              Leave out this file
            </button>
          )}
          <span className="small muted">Ctrl+Space offers words from the schema.</span>
        </div>
      </section>
      {may("POST /policies") && <Tests files={files} />}
      {may("POST /policies/whatif") && <WhatIf files={files} />}
      <section className="card gap" aria-label="Patch">
        <div className="card-head">
          <h2>Patch for git</h2>
          {patch && (
            <div className="actions">
              <button className="small" onClick={() => void navigator.clipboard.writeText(patch).then(() => setCopied(true))}>
                {isCopied ? "Copied" : "Copy"}
              </button>
              <button className="small" onClick={() => download("policies.patch", "text/x-diff", patch)}>
                Save
              </button>
            </div>
          )}
        </div>
        {patch ? (
          <>
            <pre className="code" tabIndex={0} aria-label="Text of the patch">{patch}</pre>
            <p className="small muted after">
              In the folder of the set: <code>git apply policies.patch</code>, then <code>ostiary policy put .</code>
            </p>
          </>
        ) : (
          <p className="muted">No file is changed yet.</p>
        )}
      </section>
    </>
  );
}

function NewFile({ files, onAdd }: { files: Files; onAdd: (name: string) => void }) {
  const [problem, setProblem] = useState("");
  return (
    <form
      className="actions"
      onSubmit={(event) => {
        event.preventDefault();
        const name = String(new FormData(event.currentTarget).get("file"));
        const why = name in files ? "the set has this file already" : NEW_FILE.test(name) ? "" : "a name ends with .cedar, .cedarschema, .test.toml or another kind of the reference";
        setProblem(why);
        if (why) return;
        onAdd(name);
        event.currentTarget.reset();
      }}
    >
      <input name="file" aria-label="Name of a new file" placeholder="payments.test.toml" required maxLength={200} autoComplete="off" />
      <button className="small">Add a file</button>
      {problem && <Problem error={problem} />}
    </form>
  );
}

/** The check of the server: it parses, validates, runs the tests of the set, and plans the switch; it stores nothing. */
function Tests({ files }: { files: Files }) {
  const check = useMutation({
    mutationFn: (sent: Files) => send<Tested>("POST", "/policies", { query: { dry_run: true }, body: { files: sent } }).then((tested) => ({ tested, sent })),
  });
  const isOld = check.data !== undefined && check.data.sent !== files;
  return (
    <section className="card gap" aria-label="Tests">
      <div className="card-head">
        <h2>Tests</h2>
        <button className="small primary" onClick={() => check.mutate(files)} disabled={check.isPending}>
          {check.isPending ? "Testing…" : "Validate and test"}
        </button>
      </div>
      {check.isError ? <Problem error={check.error} /> : check.data ? (
        <>
          <p>
            {isOld ? <Badge tone="warn">before the last edit</Badge> : <Badge tone="good">valid</Badge>} {count(check.data.tested.tests, "test")} passed.
          </p>
          {check.data.tested.notes.map((note) => <p key={note} className="notice warn after"><bdi>{note}</bdi></p>)}
          <PlanList plan={check.data.tested.plan} />
        </>
      ) : <p className="muted">Cases are in files that end with <code>.test.toml</code>: a request, and the expected decision.</p>}
    </section>
  );
}

function PlanList({ plan }: { plan: Tested["plan"] }) {
  const lines: [string, string, string][] = [
    ...plan.added.map((one): [string, string, string] => ["added", one.id, `${one.effect}, ${one.mode}`]),
    ...plan.changed.map(({ id, after }): [string, string, string] => ["changed", id, `${after.effect}, ${after.mode}`]),
    ...plan.removed.map((one): [string, string, string] => ["removed", one.id, one.effect]),
    ...Object.entries(plan.files).map(([name, what]): [string, string, string] => [what, name, "file"]),
    ...plan.loses.map((id): [string, string, string] => ["lost", id, "safeguard of the server"]),
  ];
  if (lines.length === 0) return <p className="muted">Nothing changes against the set that decides now.</p>;
  return (
    <ul className="rows after" aria-label="Changes against the set that decides now">
      {lines.map(([what, id, about]) => (
        <li key={what + id}>
          <bdi>{id}</bdi>
          <Badge tone={what === "added" ? "good" : what === "changed" ? "info" : "bad"}>{what}</Badge>
          <span className="muted">{about}</span>
          <span />
        </li>
      ))}
    </ul>
  );
}

/** The verdicts of the last seven days, replayed by the server under the changed set. */
function WhatIf({ files }: { files: Files }) {
  const may = useMay();
  const [progress, setProgress] = useState<{ done: number; of: number } | null>(null);
  const running = useRef<AbortController>(null);
  useEffect(() => () => running.current?.abort(), []); // the server replays one set at a time
  const ask = useMutation({
    mutationFn: async (sent: Files) => {
      running.current = new AbortController();
      return { sent, report: await askWhatIf(sent, setProgress, running.current.signal) };
    },
    onSettled: () => setProgress(null),
  });
  const report = ask.data?.report;
  return (
    <section className="card gap" aria-label="What if">
      <div className="card-head">
        <h2>What would the last {DAYS} days have said?</h2>
        <button className="small" onClick={() => ask.mutate(files)} disabled={ask.isPending}>
          {ask.isPending ? "Replaying…" : "Replay"}
        </button>
      </div>
      {progress && progress.of > 0 && <progress max={progress.of} value={progress.done} aria-label="Entries replayed" />}
      {ask.isError ? <Problem error={ask.error} /> : report ? (
        <>
          <p>
            {ask.data!.sent !== files && <Badge tone="warn">before the last edit</Badge>} {report.replayed.toLocaleString("en")} decisions replayed:{" "}
            <b>{report.to_deny.toLocaleString("en")}</b> would be denied that were allowed, <b>{report.to_allow.toLocaleString("en")}</b> would be allowed that were denied.
          </p>
          {report.changes.length > 0 && (
            <ul className="rows after" aria-label="Verdicts that change">
              {report.changes.map((one) => (
                <li key={`${one.direction} ${one.who} ${one.what} ${one.example}`}>
                  <bdi>{one.who} → {one.what}</bdi>
                  <Badge tone={one.direction === "to_allow" ? "warn" : "bad"}>{one.direction === "to_allow" ? "would allow" : "would deny"}</Badge>
                  <bdi className="muted">
                    {[one.before.join(", "), one.after.join(", ")].filter(Boolean).join(" → ") || one.because}, {count(one.count, "decision")}
                  </bdi>
                  {may("GET /audit/{index}/proof") ? <Link to="/ledger/$index" params={{ index: String(one.example) }}>example</Link> : <span />}
                </li>
              ))}
            </ul>
          )}
          {report.ungrouped > 0 && <p className="small muted">{report.ungrouped.toLocaleString("en")} further changes are not listed.</p>}
          {Object.entries(report.unknown).map(([why, number]) => (
            <p key={why} className="small muted"><bdi>{why}</bdi>: {count(number, "decision")} could not be replayed.</p>
          ))}
        </>
      ) : !ask.isPending && <p className="muted">The recorded requests are decided again under this set. Nothing is switched on.</p>}
    </section>
  );
}

/** Send the question, and read the lines of the answer until the report. Throws ApiError. */
async function askWhatIf(files: Files, onProgress: (line: { done: number; of: number }) => void, signal: AbortSignal): Promise<Report> {
  const since = (Date.now() - DAYS * 86_400_000) * 1000;
  const response = await fetch(apiPath("/policies/whatif"), {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/jsonl, application/json" },
    body: JSON.stringify({ files, since }),
    credentials: "same-origin",
    signal,
  });
  if (!response.ok || !response.body) throw new ApiError(response.status, (await response.json().catch(() => ({}))) as object);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the server ended the replay without a report");
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const text of lines) {
      const line = JSON.parse(text) as Line;
      if ("report" in line) return line.report;
      if ("error" in line) throw new ApiError(response.status, line);
      onProgress(line);
    }
  }
}

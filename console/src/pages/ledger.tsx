/** The ledger: search, and each entry with its proof, which this browser verifies itself. */

import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useMemo } from "react";
import { get } from "../api";
import { trustKey, type Verified, verifyEntry, verifyLog } from "../ledger";
import { Badge, count, Empty, Loading, More, PageHead, Problem, Time } from "../parts/basics";
import { download } from "../parts/download";
import { Unproved } from "../tlog";

interface Entry {
  index: number;
  at: number;
  action: string;
  outcome?: string;
  agent?: string;
  person?: string;
  resource?: string;
  tool?: string;
  task?: string;
  object?: string;
  reasons?: { code: string; message?: string }[];
}

const FILTERS = ["action", "agent", "task", "person", "resource", "outcome"] as const;
type Filter = (typeof FILTERS)[number];
type Search = Partial<Record<Filter, string>>;

const MICROSECONDS = 1_000_000;

export function Ledger() {
  const search = getRouteApi("/ledger").useSearch() as Search;
  const navigate = useNavigate();
  const pages = useInfiniteQuery({
    queryKey: ["audit", search],
    queryFn: ({ pageParam }) =>
      get<{ entries: Entry[]; next: string | null }>("/audit", { ...search, reads: "no", limit: 50, before: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const entries = pages.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <>
      <PageHead title="Ledger" lead="Every act and every decision, in an order that nobody can change unnoticed." />
      <Proof />
      <form
        className="card filters"
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const filled = FILTERS.map((name) => [name, String(form.get(name) ?? "").trim()]).filter(([, text]) => text);
          void navigate({ to: "/ledger", search: Object.fromEntries(filled) as never });
        }}
      >
        {FILTERS.map((name) => (
          <div className="field" key={name}>
            <label htmlFor={`filter-${name}`}>{name[0]!.toUpperCase() + name.slice(1)}</label>
            <input id={`filter-${name}`} name={name} key={search[name]} defaultValue={search[name] ?? ""} autoComplete="off" />
          </div>
        ))}
        <div className="actions">
          <button className="primary">Search</button>
          <Link to="/ledger" className="button">Clear</Link>
        </div>
      </form>
      {pages.isPending ? <Loading /> : pages.isError ? <Problem error={pages.error} /> : entries.length === 0 ? (
        <Empty title="No entry matches">Remove a filter, or write the whole action, such as <code>tool.call</code>.</Empty>
      ) : (
        <section className="card" aria-label="Entries">
          <ul className="rows">
            {entries.map((entry) => <EntryRow key={entry.index} entry={entry} />)}
          </ul>
          <More pages={pages}>Show older entries</More>
        </section>
      )}
    </>
  );
}

function EntryRow({ entry }: { entry: Entry }) {
  const about = [entry.resource, entry.tool].filter(Boolean).join(" / ") || entry.object;
  return (
    <li>
      <Link to="/ledger/$index" params={{ index: String(entry.index) }}>
        <span className="mono">{entry.index}</span> {entry.action}
      </Link>
      <Badge>{entry.outcome ?? "ok"}</Badge>
      <bdi className="muted">{[entry.agent ?? entry.person, about].filter(Boolean).join(" → ")}</bdi>
      <Time at={entry.at / MICROSECONDS} />
    </li>
  );
}

export function LedgerEntry() {
  const { index } = getRouteApi("/ledger/$index").useParams() as { index: string };
  const proof = useQuery({ queryKey: ["proof", index], queryFn: () => verifyEntry(index), retry: false });
  return (
    <>
      <PageHead title={`Entry ${index}`} lead={<Link to="/ledger">Ledger</Link>}>
        {proof.data && (
          <button onClick={() => download(`entry-${index}.json`, "application/json", JSON.stringify(proof.data.receipt))}>Download the receipt</button>
        )}
      </PageHead>
      {proof.isPending ? <Loading /> : proof.isError ? <Refused error={proof.error} /> : (
        <>
          <Seal verified={proof.data.verified}>
            This browser computed the path from the entry to the signed root, and both match.
          </Seal>
          <EntryFacts text={proof.data.receipt.entry} />
        </>
      )}
    </>
  );
}

function EntryFacts({ text }: { text: string }) {
  const entry = useMemo(() => JSON.parse(text) as Record<string, unknown>, [text]);
  return (
    <section className="card" aria-label="Content">
      <h2>Content</h2>
      <dl className="facts">
        {Object.entries(entry).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              {name === "at" ? <Time at={Number(value) / MICROSECONDS} /> : typeof value === "string" ? <bdi>{value}</bdi> : (
                <pre>{JSON.stringify(value, null, 2)}</pre>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Proof() {
  const log = useQuery({ queryKey: ["log"], queryFn: verifyLog, retry: false });
  if (log.isPending) return <Loading />;
  if (log.isError) return <Refused error={log.error} />;
  const { before } = log.data;
  return (
    <Seal verified={log.data}>
      {before === null
        ? "This browser trusts the key that it saw now; compare the key with a copy from elsewhere."
        : `The log extends the one of ${count(before.size, "entry").replace("entrys", "entries")} that this browser verified before.`}
    </Seal>
  );
}

function Seal({ verified, children }: { verified: Verified; children: string }) {
  const { checkpoint, vkey } = verified;
  return (
    <div className="notice" role="status">
      <p>
        <Badge tone="good">Verified in this browser</Badge> {children}
      </p>
      <p className="small muted">
        {checkpoint.size.toLocaleString("en")} entries of <bdi>{checkpoint.origin}</bdi>, signed by <code>{vkey}</code>
      </p>
    </div>
  );
}

function Refused({ error }: { error: unknown }) {
  const queries = useQueryClient();
  if (!(error instanceof Unproved)) return <Problem error={error} />;
  return (
    <div className="notice bad" role="alert">
      <p>
        <Badge tone="bad">Not proved</Badge> Do not believe this answer: {error.message}.
      </p>
      <p className="small">
        Tell an auditor, and keep this page. After a change of the key that you have compared with a copy from elsewhere:
      </p>
      <button
        className="danger small"
        onClick={() => {
          trustKey();
          void queries.invalidateQueries();
        }}
      >
        Forget the trusted key and checkpoint of this browser
      </button>
    </div>
  );
}

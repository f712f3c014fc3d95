/** The ledger: search, and each entry with its proof, which this browser verifies itself. */

import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useId, useMemo, useState } from "react";
import { get, type Query } from "../api";
import { bundleSearch, compareCheckpoints, type KeptCheckpoint, readNewest, trustKey, type Verified, verifyEntry, verifyLog } from "../ledger";
import { Badge, Empty, Loading, More, PageHead, Problem, Time } from "../parts/basics";
import { download } from "../parts/download";
import { Named } from "../parts/entries";
import { useMay } from "../session";
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
const SPAN = ["since", "until"] as const;
type Filter = (typeof FILTERS)[number] | (typeof SPAN)[number];
type Search = Partial<Record<Filter, string>>;

const MICROSECONDS = 1_000_000;

/** The filters that accept a name: the list of their objects, and the member that entries contain in place of the name. */
const NAMED = { agent: ["agents", "agent_id"], person: ["persons", "person_id"], resource: ["resources", "uri"] } as const;

/** Return the query of a search: its times are those of the reader's zone in the address, and microseconds in the query.
 * Names become what entries contain. Tokens for the server's own API are left out, unless the search names an action or a resource. */
async function queryOf(search: Search): Promise<Query> {
  const times = SPAN.filter((name) => search[name]).map((name) => [name, readTime(search[name]!) * 1000]);
  const named = Object.entries(NAMED).map(async ([name, [list, member]]) => {
    const text = search[name as keyof typeof NAMED];
    if (!text || /^(ag|pe)_|:\/\//.test(text)) return [name, text];
    return [name, (await get<Record<string, string>>(`/${list}/${encodeURIComponent(text)}`))[member]];
  });
  return { ...search, ...Object.fromEntries(await Promise.all(named)), ...Object.fromEntries(times), ...(search.action || search.resource ? {} : { reads: "no" }) };
}

/** Return a day, or a day and a time, of the reader's zone in milliseconds since the epoch; NaN for anything else. */
function readTime(text: string): number {
  return Date.parse(text.length === 10 ? `${text}T00:00` : text.replace(" ", "T"));
}

export function Ledger() {
  const search = getRouteApi("/ledger").useSearch() as Search;
  const navigate = useNavigate();
  const may = useMay();
  const bundle = useMutation({
    mutationFn: async () => bundleSearch(await queryOf(search)),
    onSuccess: ({ text }) => download("ledger.bundle.json", "application/json", text),
  });
  const pages = useInfiniteQuery({
    queryKey: ["audit", search],
    queryFn: async ({ pageParam }) => get<{ entries: Entry[]; next: string | null }>("/audit", { ...(await queryOf(search)), limit: 50, before: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const entries = pages.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <>
      <PageHead title="Ledger" lead="Every act and every decision, in an order that nobody can change unnoticed." />
      <Proof />
      {may("GET /audit/checkpoints") && <Comparison />}
      <form
        className="card filters"
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const filled = [...FILTERS, ...SPAN].map((name) => [name, String(form.get(name) ?? "").trim()]).filter(([, text]) => text);
          void navigate({ to: "/ledger", search: Object.fromEntries(filled) as never });
        }}
      >
        {FILTERS.map((name) => (
          <div className="field" key={name}>
            <label htmlFor={`filter-${name}`}>{name[0]!.toUpperCase() + name.slice(1)}</label>
            <input id={`filter-${name}`} name={name} key={search[name]} defaultValue={search[name] ?? ""} autoComplete="off" />
          </div>
        ))}
        {SPAN.map((name) => (
          <div className="field" key={name}>
            <label htmlFor={`filter-${name}`}>{name === "since" ? "From" : "Until"}</label>
            <input id={`filter-${name}`} name={name} key={search[name]} defaultValue={search[name] ?? ""} pattern="\d{4}-\d\d-\d\d( \d\d:\d\d)?" title="A day, or a day and a time: 2026-01-31 17:00" placeholder="2026-01-31 17:00" autoComplete="off" />
          </div>
        ))}
        <div className="actions">
          <button className="primary">Search</button>
          <Link to="/ledger" className="button">Clear</Link>
          {may("GET /audit/receipts") && entries.length > 0 && (
            <button type="button" disabled={bundle.isPending} onClick={() => bundle.mutate()}>
              {bundle.isPending ? "Verifying…" : "Download a bundle"}
            </button>
          )}
        </div>
      </form>
      {bundle.isError && <Refused error={bundle.error} />}
      {bundle.isSuccess && (
        <p className="notice" role="status">
          This browser verified {bundle.data.count === 1 ? "1 receipt" : `${bundle.data.count.toLocaleString("en")} receipts`}
          {bundle.data.isCut && ", of the newest entries"}. Check the file anywhere: <code>ostiary audit check ledger.bundle.json --key KEY</code>
        </p>
      )}
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
  const actor = entry.agent ?? entry.person;
  const about = [entry.resource, entry.tool].filter(Boolean).join(" / ");
  return (
    <li>
      <Link to="/ledger/$index" params={{ index: String(entry.index) }}>
        <span className="mono">{entry.index}</span> {entry.action}
      </Link>
      <Badge>{entry.outcome ?? "ok"}</Badge>
      <span className="muted">
        {actor && <Named id={actor} />}
        {actor && (about || entry.object) && " → "}
        {about ? <bdi>{about}</bdi> : entry.object && <Named id={entry.object} />}
      </span>
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
              {name === "at" ? <Time at={Number(value) / MICROSECONDS} /> : typeof value === "string" ? <Identified text={value} /> : (
                <pre>{JSON.stringify(value, null, 2)}</pre>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** A text of an entry; behind an id, the name that its object has now, which is no part of the entry. */
function Identified({ text }: { text: string }) {
  return (
    <>
      <bdi>{text}</bdi> <span className="muted"><Named id={text} otherwise="" /></span>
    </>
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
        : `The log extends the one of ${entriesOf(before.size)} that this browser verified before.`}
    </Seal>
  );
}

const NEWEST = "newest";
const PASTED = "pasted";

/** The comparison of two checkpoints that the person chooses, by the hashes of the log and in this browser. */
function Comparison() {
  const kept = useQuery({
    queryKey: ["checkpoints"],
    queryFn: () => get<{ checkpoints: KeptCheckpoint[] }>("/audit/checkpoints", { limit: 1000 }),
  });
  const compare = useMutation({
    mutationFn: async (form: FormData) => {
      const notes = ["one", "other"].map(async (name) => {
        const chosen = String(form.get(name));
        return chosen === NEWEST ? readNewest() : chosen === PASTED ? String(form.get(`${name}-note`)) : chosen;
      });
      return compareCheckpoints((await Promise.all(notes)) as [string, string]);
    },
  });
  const rows = kept.data?.checkpoints ?? [];
  return (
    <details className="card compare">
      <summary>Compare two checkpoints</summary>
      <p className="small muted">
        A checkpoint is a signed statement of the log: its number of entries, and the root over all of them. The server keeps one an hour; paste
        one that you have from elsewhere, such as an export or a guard. Choose two: this browser computes both roots from the hashes of the log.
      </p>
      {kept.isError && <Problem error={kept.error} />}
      <form
        className="filters"
        onSubmit={(event) => {
          event.preventDefault();
          compare.mutate(new FormData(event.currentTarget));
        }}
        onChange={() => compare.reset()}
      >
        <CheckpointField name="one" label="Checkpoint" rows={rows} chosen={rows[0]?.note ?? PASTED} key={`one-${rows.length > 0}`} />
        <CheckpointField name="other" label="Other checkpoint" rows={rows} chosen={NEWEST} />
        <div className="actions">
          <button className="primary" disabled={compare.isPending}>
            {compare.isPending ? "Verifying…" : "Verify"}
          </button>
        </div>
      </form>
      {compare.isError && <Refused error={compare.error} />}
      {compare.isSuccess && (
        <div className="notice" role="status">
          <p>
            <Badge tone="good">Consistent</Badge> The log of {entriesOf(compare.data.later.size)} extends that of {entriesOf(compare.data.earlier.size)}: no
            entry was changed, removed or put between.
          </p>
          <p className="small muted">
            Both signed by <code>{compare.data.vkey}</code>
          </p>
        </div>
      )}
    </details>
  );
}

function entriesOf(size: number): string {
  return `${size.toLocaleString("en")} ${size === 1 ? "entry" : "entries"}`;
}

function CheckpointField({ name, label, rows, chosen }: { name: string; label: string; rows: KeptCheckpoint[]; chosen: string }) {
  const [value, setValue] = useState(chosen);
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} name={name} value={value} onChange={(event) => setValue(event.target.value)}>
        <option value={NEWEST}>The newest one</option>
        {rows.map((one) => (
          <option key={one.size} value={one.note}>
            {entriesOf(one.size)}, {new Date(one.at / 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}
          </option>
        ))}
        <option value={PASTED}>Paste one…</option>
      </select>
      {value === PASTED && <textarea name={`${name}-note`} aria-label={`${label} as signed note`} required maxLength={4000} spellCheck={false} className="mono" />}
    </div>
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

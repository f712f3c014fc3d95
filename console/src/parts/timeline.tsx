/** The timeline of an incident across agents, and the notes of people. */

import { useInfiniteQuery, useMutation } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { get, post } from "../api";
import { every } from "../queries";
import { useMay } from "../session";
import { Badge, Empty, Loading, More, Problem, Time } from "./basics";

export interface Note {
  number: number;
  at: number;
  person: string;
  text: string;
}

interface Row {
  at: number;
  kind: "entry" | "finding" | "response" | "note";
  agent: string;
  says: string;
  action: string | null;
  outcome: string | null;
  person: string | null;
  index: number | null;
}

interface Page {
  connected: { agent: string; relation: string }[];
  rows: Row[];
  next: string | null;
}

const RELATIONS: Record<string, string> = {
  incident: "of the incident",
  delegated_to: "received work from it",
  acted_for: "gave it work",
  same_owner: "same owner",
  same_model: "same model",
};
const KINDS: Record<Row["kind"], string> = { entry: "", finding: "Finding", response: "Response", note: "Note" };
const REFRESH_MS = 10_000;

export function Timeline({ incident }: { incident: string }) {
  const [agent, setAgent] = useState("");
  const may = useMay();
  const pages = useInfiniteQuery({
    queryKey: ["timeline", incident, agent],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) => get<Page>(`/incidents/${encodeURIComponent(incident)}/timeline`, { agent, limit: 50, after: pageParam }),
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: (before) => before,
    refetchInterval: (query) => ((query.state.data?.pages.length ?? 1) > 1 ? false : every(REFRESH_MS)(query)),
  });
  const connected = pages.data?.pages[0]?.connected ?? [];
  const rows = pages.data?.pages.flatMap((page) => page.rows) ?? [];
  return (
    <section className="card" aria-label="Timeline">
      <div className="card-head">
        <h2>Timeline across agents</h2>
        {connected.length > 1 && (
          <label className="inline">
            <span className="hidden">Agent</span>
            <select value={agent} onChange={(event) => setAgent(event.target.value)}>
              <option value="">All {connected.length} agents</option>
              {connected.map((one) => (
                <option key={one.agent} value={one.agent}>
                  {one.agent} ({RELATIONS[one.relation] ?? one.relation})
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      {!may("GET /audit") && <p className="small muted">You see findings, responses and notes. Calls are entries of the ledger, which your roles do not let you read.</p>}
      {pages.isPending ? <Loading /> : pages.isError ? <Problem error={pages.error} /> : rows.length === 0 ? (
        <Empty title="Nothing happened around the incident">Choose another agent to see what it did.</Empty>
      ) : (
        <ol className="timeline across">
          {rows.map((row, place) => <TimelineRow key={row.index ?? `${row.kind}${row.at}${place}`} row={row} />)}
        </ol>
      )}
      <More pages={pages}>Show what was before</More>
    </section>
  );
}

function TimelineRow({ row }: { row: Row }) {
  const tone = row.kind === "entry" ? row.outcome ?? "ok" : row.kind === "response" ? row.outcome ?? "" : row.kind;
  return (
    <li data-outcome={tone}>
      <Time at={row.at} />
      <Link className="who cut" to="/agents/$name" params={{ name: row.agent }} title={row.agent}>
        <bdi>{row.agent}</bdi>
      </Link>
      <span className="what">
        {KINDS[row.kind] && <span className="tag">{KINDS[row.kind]}</span>}{" "}
        {row.index === null ? row.action && <span className="muted">{row.action.replaceAll("_", " ")}</span> : (
          <Link to="/ledger/$index" params={{ index: String(row.index) }}>
            <code>{row.action}</code>
          </Link>
        )}{" "}
        {row.outcome && row.outcome !== "ok" && <Badge>{row.outcome}</Badge>} <bdi>{row.says}</bdi>
        {row.person && (
          <span className="muted">
            {" "}
            by <bdi>{row.person}</bdi>
          </span>
        )}
      </span>
    </li>
  );
}

const MAX_NOTE = 2000;

export function Notes({ incident, notes }: { incident: string; notes: Note[] }) {
  const may = useMay();
  const [text, setText] = useState("");
  const add = useMutation({
    mutationFn: () => post<Note>(`/incidents/${encodeURIComponent(incident)}/notes`, { text: text.trim() }),
    onSuccess: async (_made, _nothing, _result, { client }) => {
      setText("");
      await Promise.all([client.invalidateQueries({ queryKey: ["incident", incident] }), client.invalidateQueries({ queryKey: ["timeline", incident] })]);
    },
  });
  return (
    <section className="card" aria-label="Notes">
      <h2>Notes</h2>
      {notes.length === 0 && <p className="muted">No notes yet. A note does not change the incident.</p>}
      <ol className="notes">
        {notes.map((note) => (
          <li key={note.number}>
            <p className="small muted">
              <b>
                <bdi>{note.person}</bdi>
              </b>{" "}
              <Time at={note.at} />
            </p>
            <p className="written">
              <bdi>{note.text}</bdi>
            </p>
          </li>
        ))}
      </ol>
      {may("POST /incidents/{id}/notes") && (
        <form
          className="after"
          onSubmit={(event) => {
            event.preventDefault();
            add.mutate();
          }}
        >
          <label className="field">
            Add a note
            <textarea value={text} onChange={(event) => setText(event.target.value)} required maxLength={MAX_NOTE} />
            <span className="hint">The note is kept in the ledger with your name.</span>
          </label>
          {add.isError && <Problem error={add.error} />}
          <div className="actions">
            <button disabled={add.isPending || text.trim() === ""}>{add.isPending ? "Saving…" : "Add note"}</button>
          </div>
        </form>
      )}
    </section>
  );
}

/** Agents: search, facets, order, bulk stop and export of the whole list. */

import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useState } from "react";
import { apiPath, get, post, send } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { type Column, VirtualTable } from "../parts/table";
import { type SavedView, useViews } from "../views";
import { type AgentPage, type AgentRow, type AgentSearch, STATES, useAgentCounts } from "../queries";
import { useMay } from "../session";
import { ACTS, NEXT, type Verb } from "../verbs";

const TIERS = ["low", "medium", "high", "critical"];
const PAGE_ROWS = 500;
const TYPING_MS = 250;
const BY_RISK = "-risk";
const ORDERS: Record<string, string> = { name: "Name", "-name": "Name, descending", "-created": "Newest", created: "Oldest", [BY_RISK]: "Risk" };

const COLUMNS: Column<AgentRow>[] = [
  {
    name: "Agent",
    width: "minmax(0, 2.4fr)",
    cell: (agent) => (
      <Link to="/agents/$name" params={{ name: agent.name }}>
        <bdi>{agent.name}</bdi>
      </Link>
    ),
  },
  { name: "State", width: "7rem", cell: (agent) => <Badge>{agent.state}</Badge> },
  { name: "Risk", width: "2.5rem", isMinor: true, cell: (agent) => agent.risk || <span className="muted">0</span> },
  { name: "Purpose", width: "minmax(0, 2fr)", isMinor: true, isOnlyWide: true, cell: (agent) => <bdi>{agent.purpose}</bdi> },
  { name: "Owner", width: "minmax(0, 1fr)", isMinor: true, cell: (agent) => <bdi>{agent.owner ?? agent.owner_id}</bdi> },
  { name: "Risk tier", width: "4.75rem", isMinor: true, cell: (agent) => <Badge>{agent.risk_tier}</Badge> },
  { name: "Last used", width: "6rem", isMinor: true, cell: (agent) => <Time at={agent.last_used_at} /> },
];

export function Agents() {
  const search: AgentSearch = useSearch({ strict: false });
  const navigate = useNavigate();
  const may = useMay();
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [bulk, setBulk] = useState<Verb | "segment" | null>(null);
  const [text, setText] = useState(search.text ?? "");
  const narrow = useCallback(
    (change: AgentSearch) => void navigate({ to: "/agents", search: { ...search, ...change }, replace: true }),
    [navigate, search],
  );
  useEffect(() => {
    if (text === (search.text ?? "")) return;
    const timer = setTimeout(() => narrow({ text: text || undefined }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, search.text, narrow]);

  const list = useInfiniteQuery({
    queryKey: ["agents", "table", search],
    initialPageParam: "",
    queryFn: ({ pageParam }) => get<AgentPage>("/agent-table", { ...search, limit: PAGE_ROWS, after: pageParam }),
    getNextPageParam: (page) => page.next,
  });
  const rows = useMemo(() => list.data?.pages.flatMap((page) => page.agents) ?? [], [list.data]);
  const counts = useAgentCounts().data;
  const chosen = useMemo(() => rows.filter((agent) => selected.has(agent.name)), [rows, selected]);
  const targets = (verb: Verb | "segment") =>
    chosen.filter((agent) => (verb === "segment" ? agent.state in NEXT : NEXT[agent.state]?.includes(verb))).map((agent) => agent.name);
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = list;
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);

  const isSearching = rows.length === 0 && hasNextPage;
  useEffect(() => {
    if (isSearching) onEnd();
  }, [isSearching, onEnd]);

  const { sort, ...filters } = search;
  const isNarrowed = Object.values(filters).some(Boolean) || sort === BY_RISK;
  const loaded = `${rows.length.toLocaleString("en")}${hasNextPage ? "+" : ""} of `;
  const lead = counts ? `${isNarrowed ? loaded : ""}${count(counts.total, "agent")}` : " ";
  const csv = apiPath("/agent-table/csv", { ...filters, sort: sort === BY_RISK ? undefined : sort });

  return (
    <>
      <PageHead title="Agents" lead={lead}>
        {BULK.filter((verb) => may(`POST /agents/{name}/${verb}`) && targets(verb).length > 0).map((verb) => (
          <button key={verb} className={ACTS[verb].isDangerous ? "danger" : ""} onClick={() => setBulk(verb)}>
            {ACTS[verb].title} {count(targets(verb).length, "agent")}
          </button>
        ))}
        {targets("segment").length > 0 && may("PATCH /agents/{name}") && (
          <button onClick={() => setBulk("segment")}>Move to a segment</button>
        )}
        {may("POST /agents") && (
          <Link className="button" to="/start">
            Register an agent
          </Link>
        )}
        {rows.length > 0 && (
          <a className="button" href={csv} download>
            Export CSV
          </a>
        )}
      </PageHead>
      <search className="filters">
        <label className="grow">
          <span className="hidden">Search</span>
          <input
            type="search"
            placeholder="Search name or purpose"
            value={text}
            maxLength={200}
            onChange={(event) => setText(event.target.value)}
          />
        </label>
        <Facet name="State" value={search.state} values={STATES} counts={counts?.state} onChange={(state) => narrow({ state })} />
        <Facet
          name="Risk tier"
          value={search.risk_tier}
          values={TIERS}
          counts={counts?.risk_tier}
          onChange={(risk_tier) => narrow({ risk_tier })}
        />
        <label>
          <span className="hidden">Order</span>
          <select value={search.sort ?? "name"} onChange={(event) => narrow({ sort: event.target.value })}>
            {Object.entries(ORDERS).map(([value, name]) => (
              <option key={value} value={value}>
                By: {name}
              </option>
            ))}
          </select>
        </label>
        {isNarrowed && (
          <button
            className="ghost"
            onClick={() => {
              setText("");
              void navigate({ to: "/agents", search: {}, replace: true });
            }}
          >
            Clear
          </button>
        )}
      </search>
      <Views search={search} isNarrowed={isNarrowed} onChoose={(view) => setText(view.text ?? "")} />
      {list.isPending || isSearching ? (
        <Loading />
      ) : list.isError ? (
        <Problem error={list.error} />
      ) : rows.length > 0 ? (
        <VirtualTable
          label="Agents"
          columns={COLUMNS}
          rows={rows}
          rowKey={(agent) => agent.name}
          onEnd={onEnd}
          selected={selected}
          onSelect={setSelected}
        />
      ) : isNarrowed ? (
        <Empty title="No agent matches">Clear a filter to see more.</Empty>
      ) : (
        <Empty title="No agents yet">
          {may("POST /agents") ? (
            <Link className="button primary" to="/start">
              Register the first agent
            </Link>
          ) : (
            "An administrator registers agents."
          )}
        </Empty>
      )}
      {bulk && (
        <BulkDialog
          verb={bulk}
          names={targets(bulk)}
          onDone={(name) => setSelected((before) => new Set([...before].filter((one) => one !== name)))}
          onClose={() => setBulk(null)}
        />
      )}
    </>
  );
}

const BULK: Verb[] = ["suspend", "quarantine", "resume", "release"];
const SHOWN_NAMES = 12;

interface BulkProps {
  verb: Verb | "segment";
  names: string[];
  /** Called for each agent that was changed, so that a refused one stays selected. */
  onDone: (name: string) => void;
  onClose: () => void;
}

/** One change of several agents, one request each. The first refusal ends it, and names its agent. */
function BulkDialog({ verb, names, onDone, onClose }: BulkProps) {
  const [all] = useState(names);
  const [segment, setSegment] = useState("");
  const many = count(all.length, "agent");
  const title = verb === "segment" ? `Move ${many} to a segment` : `${ACTS[verb].title} ${many}`;
  return (
    <ActionDialog
      title={title}
      verb={verb === "segment" ? `Move ${many}` : title}
      isDangerous={verb === "segment" || ACTS[verb].isDangerous}
      needsReason={verb !== "segment"}
      onClose={onClose}
      onConfirm={async (why) => {
        for (const name of all.filter((one) => names.includes(one))) {
          const path = `/agents/${encodeURIComponent(name)}`;
          try {
            await (verb === "segment" ? send("PATCH", path, { body: { segment: segment.trim() } }) : post(`${path}/${verb}`, { why }));
          } catch (error) {
            throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`);
          }
          onDone(name);
        }
      }}
    >
      <p>{verb === "segment" ? "Each of these agents gets the segment, and its tokens end:" : `Each of these agents ${ACTS[verb].what}`}</p>
      <ul className="names">
        {all.slice(0, SHOWN_NAMES).map((name) => (
          <li key={name}>
            <bdi>{name}</bdi>
          </li>
        ))}
      </ul>
      {all.length > SHOWN_NAMES && <p>and {count(all.length - SHOWN_NAMES, "more agent")}.</p>}
      {verb === "segment" && (
        <label className="field">
          Segment
          <input value={segment} onChange={(event) => setSegment(event.target.value)} required maxLength={64} autoComplete="off" />
        </label>
      )}
    </ActionDialog>
  );
}

interface FacetProps {
  name: string;
  value: string | undefined;
  values: string[];
  counts: Record<string, number> | undefined;
  onChange: (value: string | undefined) => void;
}

function Facet({ name, value, values, counts, onChange }: FacetProps) {
  return (
    <label>
      <span className="hidden">{name}</span>
      <select value={value ?? ""} onChange={(event) => onChange(event.target.value || undefined)}>
        <option value="">{name}: any</option>
        {values.map((one) => (
          <option key={one} value={one}>
            {counts ? `${one} (${(counts[one] ?? 0).toLocaleString("en")})` : one}
          </option>
        ))}
      </select>
    </label>
  );
}

interface ViewsProps {
  search: AgentSearch;
  isNarrowed: boolean;
  onChoose: (view: AgentSearch) => void;
}

/** Views that the person saved in this browser: a name for each, and the filters and the order as a link. */
function Views({ search, isNarrowed, onChoose }: ViewsProps) {
  const [views, save] = useViews();
  const [isNaming, setNaming] = useState(false);
  const isShown = ({ search: other }: SavedView) => JSON.stringify(sorted(other)) === JSON.stringify(sorted(search));
  const isSaved = views.some(isShown);
  if (views.length === 0 && !isNarrowed) return null;
  return (
    <div className="views" role="group" aria-label="Saved views">
      {views.map((view) => (
        <span key={view.name} className="view" data-shown={isShown(view)}>
          <Link to="/agents" search={view.search} aria-current={isShown(view) ? "true" : undefined} onClick={() => onChoose(view.search)}>
            <bdi>{view.name}</bdi>
          </Link>
          <button className="ghost" aria-label={`Remove the view ${view.name}`} onClick={() => save(views.filter((one) => one !== view))}>
            ×
          </button>
        </span>
      ))}
      {isNaming ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const name = String(new FormData(event.currentTarget).get("view")).trim();
            if (name) save([...views.filter((one) => one.name !== name), { name, search }]);
            setNaming(false);
          }}
        >
          <input name="view" aria-label="Name of the view" placeholder="Name of the view" maxLength={60} required autoFocus autoComplete="off" />
          <button className="small">Save</button>
        </form>
      ) : (
        isNarrowed && !isSaved && (
          <button className="small" onClick={() => setNaming(true)}>
            Save this view
          </button>
        )
      )}
    </div>
  );
}

function sorted(search: AgentSearch): [string, unknown][] {
  return Object.entries(search).filter(([, value]) => value).sort();
}

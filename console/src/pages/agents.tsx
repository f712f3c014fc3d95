/** Agents: search, facets, bulk stop and export of the whole list. */

import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useState } from "react";
import { get, post } from "../api";
import { Badge, count, Empty, Loading, PageHead, Problem, Time } from "../parts/basics";
import { download, toCsv } from "../parts/csv";
import { ActionDialog } from "../parts/dialog";
import { type Column, VirtualTable } from "../parts/table";
import { type Agent, type AgentPage, type AgentSearch, STATES } from "../queries";
import { useMay } from "../session";

const TIERS = ["low", "medium", "high", "critical"];
const PAGE_ROWS = 500;
const TYPING_MS = 250;

const COLUMNS: Column<Agent>[] = [
  {
    name: "Agent",
    width: "minmax(9rem, 1.6fr)",
    cell: (agent) => (
      <Link to="/agents/$name" params={{ name: agent.name }}>
        <bdi>{agent.name}</bdi>
      </Link>
    ),
  },
  { name: "State", width: "7.5rem", cell: (agent) => <Badge>{agent.state}</Badge> },
  { name: "Purpose", width: "minmax(8rem, 2.4fr)", isMinor: true, cell: (agent) => <bdi>{agent.purpose}</bdi> },
  { name: "Owner", width: "minmax(6rem, 1fr)", isMinor: true, cell: (agent) => <bdi>{agent.owner ?? agent.owner_id}</bdi> },
  { name: "Risk tier", width: "5.5rem", isMinor: true, cell: (agent) => <Badge>{agent.risk_tier}</Badge> },
  { name: "Segment", width: "minmax(5rem, .8fr)", isMinor: true, cell: (agent) => <bdi>{agent.segment}</bdi> },
  { name: "Registered", width: "7rem", isMinor: true, cell: (agent) => <Time at={agent.created_at} /> },
];

export function Agents() {
  const search: AgentSearch = useSearch({ strict: false });
  const navigate = useNavigate();
  const may = useMay();
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [isStopping, setStopping] = useState(false);
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
    queryKey: ["agents", search],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      get<AgentPage>("/agents", { ...search, limit: PAGE_ROWS, after: pageParam, total: pageParam === "" }),
    getNextPageParam: (page) => page.next,
  });
  const rows = useMemo(() => list.data?.pages.flatMap((page) => page.agents) ?? [], [list.data]);
  const total = list.data?.pages[0]?.total;
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = list;
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);

  const exported = async () => {
    const all: Agent[] = [];
    for (let after: string | null = ""; after !== null; ) {
      const page: AgentPage = await get("/agents", { ...search, limit: 1000, after });
      all.push(...page.agents);
      after = page.next;
    }
    const columns = ["agent_id", "name", "state", "owner", "purpose", "kind", "provider", "model", "risk_tier", "segment", "scopes"];
    download("agents.csv", "text/csv", toCsv(all as unknown as Record<string, unknown>[], columns));
  };
  const isNarrowed = Object.values(search).some(Boolean);

  return (
    <>
      <PageHead title="Agents" lead={total === undefined ? " " : count(total, isNarrowed ? "matching agent" : "agent")}>
        {selected.size > 0 && may("POST /agents/{name}/suspend") && (
          <button className="danger" onClick={() => setStopping(true)}>
            Suspend {count(selected.size, "agent")}
          </button>
        )}
        <button onClick={() => void exported()} disabled={rows.length === 0}>
          Export CSV
        </button>
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
        <Facet name="State" value={search.state} values={STATES} onChange={(state) => narrow({ state })} />
        <Facet name="Risk tier" value={search.risk_tier} values={TIERS} onChange={(risk_tier) => narrow({ risk_tier })} />
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
      {list.isPending ? (
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
      {isStopping && (
        <ActionDialog
          title={`Suspend ${count(selected.size, "agent")}`}
          verb={`Suspend ${count(selected.size, "agent")}`}
          isDangerous
          needsReason
          onClose={() => setStopping(false)}
          onConfirm={async (why) => {
            const remaining = new Set(selected);
            for (const name of selected) {
              await post(`/agents/${encodeURIComponent(name)}/suspend`, { why });
              remaining.delete(name);
              setSelected(new Set(remaining));
            }
          }}
        >
          <p>Each of these agents is denied at every guard at once, and its tokens end:</p>
          <ul className="names">
            {[...selected].slice(0, 12).map((name) => (
              <li key={name}>
                <bdi>{name}</bdi>
              </li>
            ))}
          </ul>
          {selected.size > 12 && <p>and {count(selected.size - 12, "more agent")}.</p>}
        </ActionDialog>
      )}
    </>
  );
}

interface FacetProps {
  name: string;
  value: string | undefined;
  values: string[];
  onChange: (value: string | undefined) => void;
}

function Facet({ name, value, values, onChange }: FacetProps) {
  return (
    <label>
      <span className="hidden">{name}</span>
      <select value={value ?? ""} onChange={(event) => onChange(event.target.value || undefined)}>
        <option value="">{name}: any</option>
        {values.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}

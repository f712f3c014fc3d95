/** The map: people, agents, tools and data classes; who acts for whom now, what each can reach, and what would end. */

import { useQueries, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { memo, type PointerEvent, useCallback, useDeferredValue, useEffect, useMemo, useRef, useState } from "react";
import { get } from "../api";
import {
  type AgentFacts,
  buildGraph,
  type Catalogue,
  drawnPart,
  type Edge,
  type Filter,
  filterGraph,
  type Graph,
  type Kind,
  layOut,
  NODE,
  type Node,
  type Place,
  reachedBy,
  reachOf,
  type ResourceFacts,
  type TaskFacts,
} from "../map";
import { Badge, count, Empty, Loading, PageHead, Problem } from "../parts/basics";
import { type AgentCounts, type AgentPage, type AgentRow, every, type MapSearch, readMapSearch } from "../queries";
import { useMay } from "../session";

const REFRESH_MS = 10_000;
const AGENTS_OF_SEGMENT = 200;
const RESOURCES = 200;
const TASKS = 1000;
/** Letters from which closed segments are searched too, and the agents that are shown of them. */
const SEARCHED = 2;
const MATCHES = 20;
/** Estates up to this size are shown opened. */
const SMALL_ESTATE = 60;
const SMALL_TOOLBOX = 5;
const TIERS = ["low", "medium", "high", "critical"];

const route = getRouteApi("/map");

/** Return what the map shows, and a function that changes it at once; the address follows after the next frame. */
function useMapSearch(): [MapSearch, (next: MapSearch) => void] {
  const address = route.useSearch() as MapSearch;
  const navigate = route.useNavigate();
  const [shown, setShown] = useState(address);
  const latest = useRef(shown);
  const sent = useRef("");
  const show = (search: MapSearch) => {
    latest.current = search;
    setShown(search);
  };
  useEffect(() => {
    const text = JSON.stringify(readMapSearch(address));
    if (sent.current === text) sent.current = "";
    else if (!sent.current) show(address); // a link, or back
  }, [address]);
  const change = (next: MapSearch) => {
    const search = readMapSearch({ ...latest.current, ...next });
    show(search);
    sent.current = JSON.stringify(search);
    requestAnimationFrame(() =>
      setTimeout(() => {
        if (sent.current === JSON.stringify(search)) void navigate({ search: search as never, replace: true });
      }),
    );
  };
  return [shown, change];
}

export function MapPage() {
  const [search, change] = useMapSearch();
  const may = useMay();
  const counts = useQuery({ queryKey: ["map", "counts"], queryFn: () => get<AgentCounts & { segment: Record<string, number> }>("/agent-table/counts"), refetchInterval: every(REFRESH_MS) });
  const listed = useQuery({
    queryKey: ["map", "resources"],
    enabled: may("GET /resources"),
    queryFn: () => get<{ resources: ResourceFacts[]; next: string | null }>("/resources", { limit: RESOURCES }),
  });
  const tasks = useQuery({
    queryKey: ["map", "tasks"],
    enabled: may("GET /tasks"),
    queryFn: () => get<{ tasks: TaskFacts[]; next: string | null }>("/tasks", { state: "live", limit: TASKS }),
    refetchInterval: every(REFRESH_MS),
  });
  const segments = counts.data?.segment ?? {};
  const resources = listed.data?.resources ?? [];
  const open = useMemo(() => readOpen(search.open, segments, resources), [search.open, counts.data, listed.data]);
  const openSegments = Object.keys(segments).filter((name) => open.has(`segment:${name}`));
  const openResources = resources.filter((one) => open.has(`resource:${one.name}`)).map((one) => one.name);
  const pages = useQueries({
    queries: openSegments.map((segment) => ({
      queryKey: ["map", "agents", segment],
      queryFn: () => get<{ agents: AgentFacts[]; next: string | null }>("/agents", { segment, limit: AGENTS_OF_SEGMENT }),
      refetchInterval: every(REFRESH_MS),
    })),
  });
  const catalogues = useQueries({
    queries: openResources.map((name) => ({
      queryKey: ["map", "resource", name],
      enabled: may("GET /resources/{name}"),
      queryFn: () => get<{ catalogue: Catalogue | null }>(`/resources/${encodeURIComponent(name)}`),
    })),
  });
  const loaded = [...pages, ...catalogues, tasks].map((query) => query.dataUpdatedAt).join();
  const graph = useMemo(
    () =>
      buildGraph({
        segments,
        agents: pages.flatMap((page) => page.data?.agents ?? []),
        openSegments: new Set(openSegments),
        resources: resources.map(({ name }) => {
          const found = openResources.indexOf(name);
          const data = found < 0 ? undefined : catalogues[found]?.data;
          return { name, catalogue: data ? (data.catalogue ?? { tools: [] }) : undefined };
        }),
        tasks: tasks.data?.tasks ?? [],
      }),
    [segments, resources, open, loaded],
  );
  const filter = { text: search.text ?? "", riskTier: search.tier ?? "", data: search.data ?? "", segment: search.segment ?? "" };
  const text = useDeferredValue(filter.text); // each letter is shown at once
  const chosen = useMemo(() => filterGraph(graph, { ...filter, text }), [graph, text, search.tier, search.data, search.segment]);
  const drawn = useMemo(() => drawnPart(chosen), [chosen]);
  const listedPart = useDeferredValue(drawn); // the drawing is shown first
  const selected = drawn.nodes.find((node) => node.id === search.node);
  const failure = [counts, listed, ...pages, ...catalogues].find((query) => query.isError)?.error;
  const toggle = (node: Node) => {
    const next = new Set(open);
    if (!next.delete(node.id)) next.add(node.id);
    change({ open: [...next].join(" ") || "none", node: node.id });
  };
  // One function for all renderings, so that a node is drawn again only if it changed.
  const latest = useRef<(node: Node) => void>(undefined);
  latest.current = (node) => (node.kind === "segment" || node.kind === "resource" ? toggle(node) : change({ node: node.id }));
  const choose = useCallback((node: Node) => latest.current?.(node), []);
  if (counts.isPending || (listed.isPending && may("GET /resources"))) return <Loading />;
  const notes = [
    chosen.nodes.length > drawn.nodes.length && `${drawn.nodes.length} of ${chosen.nodes.length} nodes are drawn: close a cluster, or filter.`,
    pages.some((page) => page.data?.next) && `The first ${AGENTS_OF_SEGMENT} agents of a large segment are shown.`,
    listed.data?.next && `The first ${RESOURCES} resources are shown.`,
    tasks.data?.next && `The newest ${TASKS} live tasks are shown.`,
    tasks.isError && "Your role does not let you see who acts for whom.",
  ].filter(Boolean);
  return (
    <>
      <PageHead title="Map" lead="Who answers for whom, who acts for whom now, and what each agent can reach by its scopes. Tasks and policies can deny more." />
      {failure && <Problem error={failure} />}
      <Filters filter={filter} graph={graph} segments={Object.keys(segments).sort()} onSegment={(name) => change({ segment: name, open: name ? [...open, `segment:${name}`].join(" ") : search.open })} onChange={change} />
      {text.length >= SEARCHED && may("GET /agent-table") && (
        <Elsewhere text={text} open={open} onOpen={(agent) => change({ open: [...open, `segment:${agent.segment}`].join(" "), segment: "", node: `agent:${agent.agent_id}` })} />
      )}
      {graph.nodes.length === 0 ? (
        <Empty title="Nothing to draw yet">
          Register an agent and a resource: <Link to="/start">First run</Link>
        </Empty>
      ) : drawn.nodes.length === 0 ? (
        <Empty title="Nothing matches">Remove a filter, or open a segment.</Empty>
      ) : (
        <div className="map-frame">
          <Drawing graph={drawn} selected={selected} onChoose={choose} />
          {selected && <Selected node={selected} graph={chosen} onClose={() => change({ node: "" })} />}
        </div>
      )}
      {notes.map((note) => (
        <p key={String(note)} className="small muted after" role="status">
          {note}
        </p>
      ))}
      {drawn.nodes.length > 0 && <List graph={listedPart} selected={selected} onChoose={choose} />}
    </>
  );
}

/** Agents of closed segments that match a search: a click opens the segment, and chooses the agent. */
function Elsewhere({ text, open, onOpen }: { text: string; open: Set<string>; onOpen: (agent: AgentRow) => void }) {
  const matches = useQuery({
    queryKey: ["map", "search", text],
    staleTime: REFRESH_MS,
    placeholderData: (before: AgentPage | undefined) => before,
    queryFn: () => get<AgentPage>("/agent-table", { text, limit: MATCHES }),
  });
  const agents = matches.data?.agents.filter((agent) => !open.has(`segment:${agent.segment}`)) ?? [];
  if (agents.length === 0) return null;
  return (
    <section className="card elsewhere" aria-label="In closed segments">
      <h2>In closed segments</h2>
      <ul className="chips">
        {agents.map((agent) => (
          <li key={agent.agent_id}>
            <button className="link" onClick={() => onOpen(agent)}>
              <bdi>{agent.name}</bdi>
            </button>
            <span className="muted">
              <bdi>{agent.segment}</bdi>
            </span>
          </li>
        ))}
      </ul>
      {matches.data?.next && <p className="small muted after">More agents may match: search in the table of agents.</p>}
    </section>
  );
}

/** Return the ids of open clusters: those of the URL, or everything of a small estate. */
function readOpen(text: string | undefined, segments: Record<string, number>, resources: ResourceFacts[]): Set<string> {
  if (text !== undefined) return new Set(text.split(" ").filter((id) => id !== "none"));
  const total = Object.values(segments).reduce((sum, size) => sum + size, 0);
  return new Set([
    ...(total <= SMALL_ESTATE ? Object.keys(segments).map((name) => `segment:${name}`) : []),
    ...(resources.length <= SMALL_TOOLBOX ? resources.map((one) => `resource:${one.name}`) : []),
  ]);
}

interface FiltersProps {
  filter: Filter;
  graph: Graph;
  segments: string[];
  onSegment: (name: string) => void;
  onChange: (next: MapSearch) => void;
}

function Filters({ filter, graph, segments, onSegment, onChange }: FiltersProps) {
  const classes = graph.nodes.filter((node) => node.kind === "data").map((node) => node.name);
  return (
    <search className="filters">
      <label className="field">
        Name
        <input type="search" value={filter.text} onChange={(event) => onChange({ text: event.target.value })} maxLength={100} />
      </label>
      <label className="field">
        Segment
        <select value={filter.segment} onChange={(event) => onSegment(event.target.value)}>
          <option value="">all</option>
          {segments.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label className="field">
        Risk tier
        <select value={filter.riskTier} onChange={(event) => onChange({ tier: event.target.value })}>
          <option value="">all</option>
          {TIERS.map((tier) => (
            <option key={tier}>{tier}</option>
          ))}
        </select>
      </label>
      <label className="field">
        Reaches data of class
        <select value={filter.data} onChange={(event) => onChange({ data: event.target.value })}>
          <option value="">any or none</option>
          {classes.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
    </search>
  );
}

const MARGIN = 8;
const SHOWN_CHARACTERS = 17;
/** Distance of the two lines between an agent and a person who owns it and for whom it acts. */
const BESIDE = 7;

interface DrawingProps {
  graph: Graph;
  selected: Node | undefined;
  onChoose: (node: Node) => void;
}

/** The graph as a picture that is panned by scrolling or dragging. The list below it has the same content. */
function Drawing({ graph, selected, onChoose }: DrawingProps) {
  const places = useMemo(() => layOut(graph), [graph]);
  const frame = useRef<HTMLDivElement>(null);
  const drag = useRef<Place | null>(null);
  const next = useMemo(() => new Set(graph.edges.flatMap(({ from, to }) => (from === selected?.id ? [to] : to === selected?.id ? [from] : []))), [graph, selected?.id]);
  const lit = useMemo(() => selected && new Set([selected.id, ...reachOf(graph, selected.id)]), [graph, selected?.id]);
  const width = Math.max(...[...places.values()].map(({ x }) => x)) + NODE.width + 2 * MARGIN;
  const height = Math.max(...[...places.values()].map(({ y }) => y)) + NODE.height + 2 * MARGIN;
  const pan = (event: PointerEvent<HTMLDivElement>) => {
    if (!drag.current || event.pointerType !== "mouse") return; // a touch scrolls by itself
    frame.current!.scrollLeft += drag.current.x - event.clientX;
    frame.current!.scrollTop += drag.current.y - event.clientY;
    drag.current = { x: event.clientX, y: event.clientY };
  };
  return (
    <div
      className="map"
      ref={frame}
      tabIndex={0}
      role="region"
      aria-label="Drawing of the map"
      onPointerDown={(event) => (drag.current = { x: event.clientX, y: event.clientY })}
      onPointerMove={pan}
      onPointerUp={() => (drag.current = null)}
      onPointerLeave={() => (drag.current = null)}
    >
      <svg width={width} height={height} viewBox={`${-MARGIN} ${-MARGIN} ${width} ${height}`} role="img" aria-label={`${count(graph.nodes.length, "node")}, ${count(graph.edges.length, "relation")}: the list below has the same content`}>
        {graph.edges.filter(({ relation }) => relation !== "in" && relation !== "has").map((edge) => (
          <Line key={`${edge.from} ${edge.to} ${edge.relation}`} edge={edge} from={places.get(edge.from)!} to={places.get(edge.to)!} look={lookOf(edge, selected, lit)} />
        ))}
        {graph.nodes.map((node) => (
          <Box key={node.id} node={node} place={places.get(node.id)!} look={node.id === selected?.id ? "chosen" : !lit || lit.has(node.id) || next.has(node.id) ? "" : "dim"} onChoose={onChoose} />
        ))}
      </svg>
    </div>
  );
}

function lookOf({ from, to, relation }: Edge, selected: Node | undefined, lit: Set<string> | undefined): string {
  if (!lit) return "";
  if (from === selected?.id || to === selected?.id || (relation !== "acts for" && lit.has(from) && lit.has(to))) return "lit";
  return "dim";
}

const Line = memo(function Line({ edge, from, to, look }: { edge: Edge; from: Place; to: Place; look: string }) {
  const isBack = edge.relation === "acts for"; // from an agent to a person, who stands left of it
  const [x1, x2] = isBack ? [from.x, to.x + NODE.width] : [from.x + NODE.width, Math.abs(from.x - to.x) < NODE.width ? to.x + NODE.width : to.x];
  const [y1, y2] = [from, to].map(({ y }) => y + NODE.height / 2 + (isBack ? BESIDE : 0)) as [number, number];
  const bend = isBack ? -NODE.gapX / 2 : NODE.gapX / 2;
  const bendTo = !isBack && x2 > to.x ? bend : -bend;
  return <path className={`edge ${edge.relation.replaceAll(" ", "-")} ${look}`} d={`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 + bendTo} ${y2} ${x2} ${y2}`} />;
});

const Box = memo(
  function Box({ node, place, look, onChoose }: { node: Node; place: Place; look: string; onChoose: (node: Node) => void }) {
    const mark = node.isOpen === undefined ? "" : node.isOpen ? "− " : "+ ";
    const size = node.size === undefined ? "" : ` (${node.size.toLocaleString("en")})`;
    const text = node.name.length > SHOWN_CHARACTERS ? `${node.name.slice(0, SHOWN_CHARACTERS - 1)}…` : node.name;
    return (
      <g className={`node ${node.kind} ${node.state ?? ""} ${look}`} transform={`translate(${place.x} ${place.y})`} onClick={() => onChoose(node)}>
        <title>{node.name}</title>
        <rect width={NODE.width} height={NODE.height} rx="6" />
        <text x="10" y="20">
          {mark + text + size}
        </text>
      </g>
    );
  },
  (before, after) => before.node === after.node && before.look === after.look && before.place.x === after.place.x && before.place.y === after.place.y && before.onChoose === after.onChoose,
);

/** What is known about the chosen node: its relations, what it reaches, and what would end with it. */
function Selected({ node, graph, onClose }: { node: Node; graph: Graph; onClose: () => void }) {
  const reach = useMemo(() => reachOf(graph, node.id), [graph, node.id]);
  const reached = (kind: Kind) => graph.nodes.filter((one) => one.kind === kind && reach.has(one.id)).map((one) => one.name);
  const related = (relation: string, isForward: boolean) =>
    graph.edges
      .filter((edge) => edge.relation === relation && (isForward ? edge.from : edge.to) === node.id)
      .map((edge) => nameOf(graph, isForward ? edge.to : edge.from));
  const leading = node.kind === "tool" || node.kind === "data" || node.kind === "resource" ? reachedBy(graph, node.id) : new Set<string>();
  const callers = graph.nodes.filter((one) => one.kind === "agent" && leading.has(one.id));
  const lines: [string, string[]][] = [
    ["Answered for by", related("answers for", false)],
    ["Answers for", related("answers for", true)],
    ["Acts now for", related("acts for", true)],
    ["Has acting for them now", related("acts for", false)],
    ["Delegates now to", related("delegates to", true)],
    ["Works now for", related("delegates to", false)],
    ["Reaches the tools", [...reached("tool"), ...reached("resource").filter((name) => node.kind !== "resource" || name !== node.name)]],
    ["Reaches data of class", reached("data")],
    ["Reached by", callers.map((one) => one.name)],
  ];
  return (
    <section className="card map-selected" aria-label="Chosen node">
      <div className="card-head">
        <h2>
          <bdi>{node.name}</bdi>
        </h2>
        <button className="small" onClick={onClose}>
          Close
        </button>
      </div>
      <p className="small muted">
        {KINDS[node.kind][0]} {node.state && <Badge>{node.state}</Badge>} {node.riskTier && <>risk tier <Badge>{node.riskTier}</Badge></>}
      </p>
      <dl className="facts">
        {lines.map(([name, values]) => values.length > 0 && (
          <div key={name}>
            <dt>{name}</dt>
            <dd><bdi>{values.join(", ")}</bdi></dd>
          </div>
        ))}
      </dl>
      {node.kind === "agent" && <Ends name={node.name} />}
    </section>
  );
}

function nameOf({ nodes }: Graph, id: string): string {
  return nodes.find((node) => node.id === id)?.name ?? "";
}

/** What a stop of the agent would end, as the server counts it now. */
function Ends({ name }: { name: string }) {
  const may = useMay();
  const ending = useQuery({
    queryKey: ["ending", name],
    enabled: may("GET /agents/{name}/holdings"),
    queryFn: () => get<{ ends: Record<string, number> }>(`/agents/${encodeURIComponent(name)}/holdings`),
  });
  const kinds = Object.entries(ending.data?.ends ?? {});
  return (
    <>
      {ending.isError && <Problem error={ending.error} />}
      {ending.data && (
        <p className="after">
          {kinds.length === 0
            ? "It holds nothing that a stop would end."
            : `A stop ends ${kinds.map(([kind, number]) => count(number, kind.replaceAll("_", " "))).join(", ")}, also of everyone to whom it delegated.`}
        </p>
      )}
      <p className="after">
        <Link to="/agents/$name" params={{ name }}>
          Open the agent
        </Link>
      </p>
    </>
  );
}

const KINDS: Record<Kind, [one: string, many: string]> = {
  person: ["Person", "People"],
  segment: ["Segment of agents", "Segments"],
  agent: ["Agent", "Agents"],
  resource: ["Resource", "Resources"],
  tool: ["Tool", "Tools"],
  data: ["Data class", "Data classes"],
};

/** The same nodes and relations in words. */
const List = memo(function List({ graph, selected, onChoose }: DrawingProps) {
  const relations = useMemo(() => {
    const names = new Map(graph.nodes.map((node) => [node.id, node.name]));
    const lines = new Map<string, Map<string, string[]>>();
    for (const { from, to, relation } of graph.edges) {
      const own = lines.get(from) ?? new Map<string, string[]>();
      own.set(relation, [...(own.get(relation) ?? []), names.get(to)!]);
      lines.set(from, own);
    }
    return lines;
  }, [graph]);
  return (
    <section className="card gap after" aria-label="List of the map">
      <h2>The same as a list</h2>
      {(Object.keys(KINDS) as Kind[]).map((kind) => {
        const nodes = graph.nodes.filter((node) => node.kind === kind);
        if (nodes.length === 0) return null;
        return (
          <details key={kind} className="after" open={nodes.length <= 12}>
            <summary>
              {KINDS[kind][1]} ({nodes.length})
            </summary>
            <ul className="map-list">
              {nodes.map((node) => (
                <li key={node.id}>
                  <button className="link" aria-pressed={node.isOpen === undefined ? node.id === selected?.id : undefined} aria-expanded={node.isOpen} onClick={() => onChoose(node)}>
                    <bdi>{node.name}</bdi>
                  </button>
                  {node.size !== undefined && <span className="muted"> {count(node.size, "agent")}</span>}
                  {node.state && <> <Badge>{node.state}</Badge></>}
                  {[...(relations.get(node.id) ?? [])].map(([relation, names]) => (
                    <bdi key={relation} className="muted">
                      {" "}
                      {relation === "in" ? "with" : relation} {names.join(", ")};
                    </bdi>
                  ))}
                </li>
              ))}
            </ul>
          </details>
        );
      })}
    </section>
  );
});

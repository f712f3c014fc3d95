/** The map as a graph: people, agents, tools and data classes, what each can reach, and at most 300 nodes to draw. */

export type Kind = "person" | "segment" | "agent" | "resource" | "tool" | "data";

export interface Node {
  id: string;
  kind: Kind;
  name: string;
  /** State of an agent, or the effect of a tool. */
  state?: string;
  riskTier?: string;
  /** Number of objects that a closed cluster stands for. */
  size?: number;
  isOpen?: boolean;
}

export type Relation = "answers for" | "acts for" | "delegates to" | "in" | "may call" | "has" | "touches";

export interface Edge {
  from: string;
  to: string;
  relation: Relation;
}

export interface Graph {
  nodes: Node[];
  edges: Edge[];
}

export interface AgentFacts {
  agent_id: string;
  name: string;
  state: string;
  owner: string | null;
  owner_id: string;
  risk_tier: string;
  segment: string;
  scopes: string[];
}

export interface TaskFacts {
  task_id: string;
  agent: string;
  agent_id: string;
  parent: string | null;
  on_behalf_of: string | null;
  state: string;
}

export interface ToolFacts {
  name: string;
  /** The class of the scope that a call needs; by default it follows from the effect. */
  scope?: string;
  effect?: string;
  data_classes?: string[];
}

export interface Catalogue {
  tools: ToolFacts[];
  data_classes?: string[];
}

export interface ResourceFacts {
  name: string;
  /** The catalogue of an opened resource. */
  catalogue?: Catalogue | undefined;
}

export interface Estate {
  /** Numbers of agents by segment. */
  segments: Record<string, number>;
  /** Agents of the opened segments. */
  agents: AgentFacts[];
  openSegments: ReadonlySet<string>;
  resources: ResourceFacts[];
  tasks: TaskFacts[];
}

/** Nodes that are drawn at once. */
export const MAX_NODES = 300;
/** Columns of the drawing, from those who answer to what is reached. */
export const COLUMNS: Kind[][] = [["person"], ["segment", "agent"], ["resource", "tool"], ["data"]];

/** Return the graph of what is known about an estate. */
export function buildGraph({ segments, agents, openSegments, resources, tasks }: Estate): Graph {
  const nodes = new Map<string, Node>();
  const edges = new Map<string, Edge>();
  const add = (node: Node) => nodes.has(node.id) || nodes.set(node.id, node);
  const join = (from: string, to: string, relation: Relation) => {
    if (nodes.has(from) && nodes.has(to) && from !== to) edges.set(`${from} ${to} ${relation}`, { from, to, relation });
  };
  for (const [name, size] of Object.entries(segments)) {
    add({ id: `segment:${name}`, kind: "segment", name, size, isOpen: openSegments.has(name) });
  }
  for (const one of resources) {
    add({ id: `resource:${one.name}`, kind: "resource", name: one.name, isOpen: one.catalogue !== undefined });
    for (const tool of one.catalogue?.tools ?? []) {
      const id = `tool:${one.name}/${tool.name}`;
      add({ id, kind: "tool", name: `${one.name}/${tool.name}`, ...(tool.effect ? { state: tool.effect } : {}) });
      join(`resource:${one.name}`, id, "has");
      for (const data of new Set([...(one.catalogue?.data_classes ?? []), ...(tool.data_classes ?? [])])) {
        add({ id: `data:${data}`, kind: "data", name: data });
        join(id, `data:${data}`, "touches");
      }
    }
  }
  for (const agent of agents) {
    const id = `agent:${agent.agent_id}`;
    add({ id, kind: "agent", name: agent.name, state: agent.state, riskTier: agent.risk_tier });
    const owner = agent.owner ?? agent.owner_id;
    add({ id: `person:${owner}`, kind: "person", name: owner });
    join(`person:${owner}`, id, "answers for");
    join(`segment:${agent.segment}`, id, "in");
    for (const scope of agent.scopes) {
      const resource = resources.find((one) => one.name === scope.split(":")[0]);
      if (!resource) continue;
      if (!resource.catalogue?.tools.length) join(id, `resource:${resource.name}`, "may call");
      for (const tool of resource.catalogue?.tools ?? []) {
        if (scope === `${resource.name}:${scopeClass(tool)}`) join(id, `tool:${resource.name}/${tool.name}`, "may call");
      }
    }
  }
  const live = new Map(tasks.filter((task) => task.state === "live").map((task) => [task.task_id, task]));
  for (const task of live.values()) {
    const id = `agent:${task.agent_id}`;
    if (task.on_behalf_of && nodes.has(id)) {
      add({ id: `person:${task.on_behalf_of}`, kind: "person", name: task.on_behalf_of });
      join(id, `person:${task.on_behalf_of}`, "acts for");
    }
    const above = task.parent === null ? undefined : live.get(task.parent);
    if (above) join(`agent:${above.agent_id}`, id, "delegates to");
  }
  return { nodes: [...nodes.values()], edges: [...edges.values()] };
}

function scopeClass({ scope, effect }: ToolFacts): string {
  return scope ?? (effect === "read" || effect === "administer" ? effect : "write");
}

interface Neighbours {
  forward: Map<string, string[]>;
  backward: Map<string, string[]>;
}

const neighboursOf = new WeakMap<Graph, Neighbours>();

function put(lists: Map<string, string[]>, key: string, value: string): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** Return the neighbours of each node, computed once for a graph. An agent does not reach the person for whom it acts. */
function listNeighbours(graph: Graph): Neighbours {
  let made = neighboursOf.get(graph);
  if (made === undefined) {
    made = { forward: new Map(), backward: new Map() };
    for (const { from, to, relation } of graph.edges) {
      if (relation === "acts for") continue;
      put(made.forward, from, to);
      put(made.backward, to, from);
    }
    neighboursOf.set(graph, made);
  }
  return made;
}

function follow(next: Map<string, string[]>, start: string): Set<string> {
  const reached = new Set<string>();
  const waiting = [start];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    for (const one of next.get(id) ?? []) {
      if (one !== start && !reached.has(one)) {
        reached.add(one);
        waiting.push(one);
      }
    }
  }
  return reached;
}

/** Return the ids of everything that a node leads to: whom its tasks reach, which tools they call, which data these touch. */
export function reachOf(graph: Graph, start: string): Set<string> {
  return follow(listNeighbours(graph).forward, start);
}

/** Return the ids of everything that leads to a node. */
export function reachedBy(graph: Graph, end: string): Set<string> {
  return follow(listNeighbours(graph).backward, end);
}

export interface Filter {
  segment: string;
  text: string;
  riskTier: string;
  data: string;
}

/** Return a segment with everything that its agents reach, and everyone who answers for them or has them acting. */
function partOf(graph: Graph, segment: string): Graph {
  const inside = new Set(graph.edges.filter(({ from, relation }) => from === segment && relation === "in").map(({ to }) => to));
  const kept = reachOf(graph, segment).add(segment);
  for (const { from, to } of graph.edges) {
    if (inside.has(from)) kept.add(to);
    if (inside.has(to)) kept.add(from);
  }
  return within(graph, kept);
}

/** Return the part of a graph that a filter leaves: of a segment, what leads to a data class, and in it matching nodes with their neighbours. */
export function filterGraph(whole: Graph, { segment, text, riskTier, data }: Filter): Graph {
  const graph = segment ? partOf(whole, `segment:${segment}`) : whole;
  const target = `data:${data}`;
  const leading = data ? within(graph, reachedBy(graph, target).add(target)) : graph;
  if (!text && !riskTier) return leading;
  const lower = text.toLowerCase();
  const isChosen = (node: Node) => node.name.toLowerCase().includes(lower) && (!riskTier || node.riskTier === riskTier);
  const chosen = new Set(leading.nodes.filter(isChosen).map((node) => node.id));
  const kept = new Set(chosen);
  for (const { from, to } of leading.edges) {
    if (chosen.has(from)) kept.add(to);
    if (chosen.has(to)) kept.add(from);
  }
  return within(leading, kept);
}

/** Return the part of a graph that is drawn: at most 300 nodes, clusters and connected nodes first. */
export function drawnPart(graph: Graph): Graph {
  if (graph.nodes.length <= MAX_NODES) return graph;
  const degree = new Map<string, number>();
  for (const { from, to } of graph.edges) for (const id of [from, to]) degree.set(id, (degree.get(id) ?? 0) + 1);
  const isCluster = (node: Node) => node.kind === "segment" || node.kind === "resource";
  const order = graph.nodes.toSorted((a, b) => Number(isCluster(b)) - Number(isCluster(a)) || (degree.get(b.id) ?? 0) - (degree.get(a.id) ?? 0));
  return within(graph, new Set(order.slice(0, MAX_NODES).map((node) => node.id)));
}

function within({ nodes, edges }: Graph, ids: ReadonlySet<string>): Graph {
  return { nodes: nodes.filter((node) => ids.has(node.id)), edges: edges.filter(({ from, to }) => ids.has(from) && ids.has(to)) };
}

export const NODE = { width: 146, height: 30, gapX: 34, gapY: 10, indent: 16 };

const collator = new Intl.Collator("en", { numeric: true });

export interface Place {
  x: number;
  y: number;
}

/** Return the place of each node: a column for each kind, and what a cluster holds below it. */
export function layOut({ nodes, edges }: Graph): Map<string, Place> {
  const places = new Map<string, Place>();
  const clusterOf = new Map(edges.filter(({ relation }) => relation === "in" || relation === "has").map(({ from, to }) => [to, from]));
  const neighbours = new Map<string, string[]>();
  for (const { from, to } of edges) {
    put(neighbours, from, to);
    put(neighbours, to, from);
  }
  const meanRow = (id: string) => {
    const near = (neighbours.get(id) ?? []).flatMap((other) => places.get(other)?.y ?? []);
    return near.length ? near.reduce((sum, y) => sum + y, 0) / near.length : 0;
  };
  COLUMNS.forEach((kinds, column) => {
    const rows = new Map(nodes.filter((node) => kinds.includes(node.kind)).map((node) => [node.id, { node, mean: meanRow(node.id) }]));
    const compare = (a: string, b: string) => rows.get(a)!.mean - rows.get(b)!.mean || collator.compare(rows.get(a)!.node.name, rows.get(b)!.node.name);
    const tops = [...rows.keys()].filter((id) => !rows.has(clusterOf.get(id) ?? "")).sort(compare);
    let row = 0;
    const place = (id: string, indent: number) => {
      places.set(id, { x: column * (NODE.width + NODE.gapX) + indent, y: row * (NODE.height + NODE.gapY) });
      row += 1;
    };
    const inside = new Map<string, string[]>();
    for (const id of rows.keys()) if (clusterOf.has(id)) put(inside, clusterOf.get(id)!, id);
    for (const top of tops) {
      place(top, 0);
      for (const id of (inside.get(top) ?? []).sort(compare)) place(id, NODE.indent);
    }
  });
  return places;
}

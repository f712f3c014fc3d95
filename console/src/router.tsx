/** The pages of the console and their paths below `/console`. */

import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Link, type RouteComponent } from "@tanstack/react-router";
import { BASE, get } from "./api";
import { Empty, Problem } from "./parts/basics";
import { readAgentSearch, readMapSearch, readSecretSearch } from "./queries";
import { Shell } from "./shell";

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => (
    <Empty title="There is no such page">
      <Link to="/">Go to the overview</Link>
    </Empty>
  ),
  errorComponent: Failure,
});

/** A page that failed to open, and the way to open it again. */
function Failure({ error }: { error: unknown }) {
  return (
    <>
      <Problem error={error} />
      <div className="actions">
        <button onClick={() => void router.invalidate()}>Try again</button>
      </div>
    </>
  );
}

/** A page that is loaded when it is first opened. While the server does not answer, the console stays and says so. */
const page: typeof lazyRouteComponent = (load, name) => lazyRouteComponent(() => load().catch(explain), name);

/** Throw that the server does not answer. If it answers, throw `error`: the page has a new name, and the router reloads. */
async function explain(error: unknown): Promise<never> {
  await get("/session");
  throw error;
}

function at<const Path extends string>(path: Path, component: RouteComponent) {
  return createRoute({ getParentRoute: () => root, path, component });
}

const pages = [
  at("/", page(() => import("./pages/overview"), "Overview")),
  createRoute({
    getParentRoute: () => root,
    path: "/agents",
    validateSearch: readAgentSearch,
    component: page(() => import("./pages/agents"), "Agents"),
  }),
  at("/agents/$name", page(() => import("./pages/agent"), "Agent")),
  at("/approvals", page(() => import("./pages/approvals"), "Approvals")),
  at("/approvals/$id", page(() => import("./pages/approvals"), "ApprovalPage")),
  at("/incidents", page(() => import("./pages/incidents"), "Incidents")),
  at("/incidents/$id", page(() => import("./pages/incidents"), "IncidentPage")),
  at("/tasks", page(() => import("./pages/tasks"), "Tasks")),
  at("/tasks/$id", page(() => import("./pages/tasks"), "TaskPage")),
  at("/ledger", page(() => import("./pages/ledger"), "Ledger")),
  at("/ledger/$index", page(() => import("./pages/ledger"), "LedgerEntry")),
  createRoute({
    getParentRoute: () => root,
    path: "/map",
    validateSearch: readMapSearch,
    component: page(() => import("./pages/map"), "MapPage"),
  }),
  at("/policies", page(() => import("./pages/policies"), "Policies")),
  createRoute({
    getParentRoute: () => root,
    path: "/policies/$hash",
    validateSearch: ({ against }: Record<string, unknown>) => (typeof against === "string" ? { against } : {}),
    component: page(() => import("./pages/policies"), "PolicySetPage"),
  }),
  at("/policies/$hash/edit", page(() => import("./pages/policies"), "PolicyEditor")),
  createRoute({
    getParentRoute: () => root,
    path: "/secrets",
    validateSearch: readSecretSearch,
    component: page(() => import("./pages/secrets"), "Secrets"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/certificates",
    validateSearch: ({ holder }: Record<string, unknown>) => (typeof holder === "string" && holder ? { holder } : {}),
    component: page(() => import("./pages/certificates"), "Certificates"),
  }),
  at("/accounts", page(() => import("./pages/accounts"), "Accounts")),
  at("/connections", page(() => import("./pages/connections"), "Connections")),
  at("/people", page(() => import("./pages/people"), "People")),
  at("/start", page(() => import("./pages/start"), "Start")),
];

export const router = createRouter({
  routeTree: root.addChildren(pages),
  basepath: `${BASE}/console`,
  defaultPreload: "intent",
  defaultPendingMs: 300,
  defaultErrorComponent: Failure,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

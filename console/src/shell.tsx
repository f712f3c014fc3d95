/** The frame of every page: navigation, theme, the person, and a live region for results of actions. */

import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useRouterState } from "@tanstack/react-router";
import { Suspense, useEffect, useState } from "react";
import { BASE } from "./api";
import icon from "./icon.svg";
import { Loading } from "./parts/basics";
import { Icon } from "./parts/icons";
import { openApprovals, openIncidents, useEvents } from "./queries";
import { signOut, useMay, useSession } from "./session";
import { applyTheme, chosenTheme, type Theme } from "./theme";

const LINKS = [
  { to: "/", label: "Overview", icon: "overview", needs: "GET /overview" },
  { to: "/agents", label: "Agents", icon: "agents", needs: "GET /agent-table" },
  { to: "/map", label: "Map", icon: "map", needs: "GET /agent-table/counts" },
  { to: "/approvals", label: "Approvals", icon: "approvals", needs: "GET /approvals" },
  { to: "/incidents", label: "Incidents", icon: "incidents", needs: "GET /incidents" },
  { to: "/tasks", label: "Tasks", icon: "tasks", needs: "GET /tasks" },
  { to: "/ledger", label: "Ledger", icon: "ledger", needs: "GET /audit" },
  { to: "/policies", label: "Policies", icon: "policies", needs: "GET /policies" },
  { to: "/secrets", label: "Secrets", icon: "secrets", needs: "GET /secrets/uses" },
  { to: "/certificates", label: "Certificates", icon: "certificates", needs: "GET /authorities" },
  { to: "/accounts", label: "Accounts", icon: "accounts", needs: "GET /connected-accounts" },
  { to: "/connections", label: "Connections", icon: "connections", needs: "GET /resources" },
  { to: "/people", label: "People", icon: "people", needs: "GET /persons" },
  { to: "/start", label: "First run", icon: "start", needs: "POST /agents" },
] as const;

export function Shell() {
  const path = useRouterState({ select: (state) => state.location.pathname });
  const [isOpen, setOpen] = useState(false);
  useEffect(() => setOpen(false), [path]);
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <div className="frame">
        <aside className="side" data-open={isOpen}>
          <div className="brand">
            <img src={icon} alt="" width="28" height="28" />
            <span>Ostiary</span>
            <button className="menu ghost" aria-expanded={isOpen} aria-controls="nav" onClick={() => setOpen(!isOpen)}>
              <Icon name="menu" /> Menu
            </button>
          </div>
          <Suspense fallback={<nav id="nav" />}>
            <Navigation />
          </Suspense>
          <Suspense fallback={null}>
            <Person />
          </Suspense>
        </aside>
        <main id="main" tabIndex={-1}>
          <Suspense fallback={<Loading />}>
            <Outlet />
          </Suspense>
        </main>
      </div>
    </>
  );
}

function Navigation() {
  const may = useMay();
  useEvents();
  const approvals = useQuery({ ...openApprovals, enabled: may("GET /approvals") });
  const incidents = useQuery({ ...openIncidents, enabled: may("GET /incidents") });
  return (
    <nav id="nav" aria-label="Console">
      {LINKS.filter((link) => may(link.needs)).map((link) => (
        <Link key={link.to} to={link.to} activeOptions={{ exact: link.to === "/" }}>
          <Icon name={link.icon} />
          {link.label}
          {link.to === "/approvals" && <Pill number={approvals.data?.approvals.length} noun="waiting" />}
          {link.to === "/incidents" && <Pill number={incidents.data?.incidents.length} noun="open" />}
        </Link>
      ))}
    </nav>
  );
}

function Pill({ number, noun }: { number: number | undefined; noun: string }) {
  if (!number) return null;
  return (
    <span className="pill" aria-label={`${number} ${noun}`}>
      {number}
    </span>
  );
}

function Person() {
  const { name, roles } = useSession();
  const [theme, setTheme] = useState(chosenTheme);
  return (
    <div className="person">
      <div className="person-name">
        <bdi>{name}</bdi>
        <span className="muted">{roles.join(", ") || "no role"}</span>
      </div>
      <div className="person-links">
        <a href={`${BASE}/account`}>Account</a>
        <button className="link" onClick={() => void signOut()}>
          Sign out
        </button>
        <label>
          <span className="hidden">Theme</span>
          <select
            value={theme}
            onChange={(event) => {
              const chosen = event.target.value as Theme;
              setTheme(chosen);
              applyTheme(chosen);
            }}
          >
            <option value="system">Auto</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
        </label>
      </div>
    </div>
  );
}

/** First run: owner, agent, guard, first denied call. Each step is detected live. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type FormEvent, type ReactNode, useState } from "react";
import { get, post } from "../api";
import { Badge, count, PageHead, Problem, Time } from "../parts/basics";
import { newKey } from "../parts/credential";
import { type Agent, every } from "../queries";
import { useMay, useSession } from "../session";

const REFRESH_MS = 2_000;

interface Resource {
  name: string;
  uri: string;
}

interface Entry {
  index: number;
  at: number;
  tool?: string;
  reasons?: { code: string; message?: string }[];
}

export function Start() {
  const session = useSession();
  const live = { refetchInterval: every(REFRESH_MS) };
  const agents = useQuery({ queryKey: ["start", "agents"], queryFn: () => get<{ agents: Agent[] }>("/agents", { limit: 20 }), ...live });
  const resources = useQuery({ queryKey: ["start", "resources"], queryFn: () => get<{ resources: Resource[] }>("/resources", { limit: 20 }), ...live });
  const guards = useQuery({ queryKey: ["start", "guards"], queryFn: () => get<{ guards: { guard: string }[] }>("/feeds"), ...live });
  const denied = useQuery({ queryKey: ["start", "denied"], queryFn: () => get<{ entries: Entry[] }>("/audit", { action: "tool.call", outcome: "deny", limit: 1 }), ...live });

  // The administrator's own identity and the API of this server are no agent and no tool that a guard would ever see.
  const known = agents.data?.agents.filter((agent) => !agent.scopes.some((scope) => scope.startsWith("ostiary:"))) ?? [];
  const mine = known.findLast((agent) => agent.owner === session.name) ?? known.at(-1);
  const resource = resources.data?.resources.findLast((one) => one.uri !== `${session.issuer}/api/v1`);
  const guardCount = guards.data?.guards.length ?? 0;
  const denial = denied.data?.entries[0];
  const failure = [agents, resources, guards].find((query) => query.isError)?.error;

  return (
    <>
      <PageHead title="First run" lead="Four steps from an empty server to the first denied call. Each step ticks by itself." />
      {failure && <Problem error={failure} />}
      <ol className="steps">
        <Step n={1} title="An owner" isDone>
          <p>
            Every agent has an accountable owner. You are <bdi>{session.name}</bdi>, so you can own the first agent.
          </p>
        </Step>
        <Step n={2} title="An agent" isDone={mine !== undefined}>
          {mine ? (
            <>
              <p>
                <Link to="/agents/$name" params={{ name: mine.name }}>
                  <bdi>{mine.name}</bdi>
                </Link>{" "}
                is registered. <Badge>{mine.state}</Badge>
              </p>
              <details className="after">
                <summary>Register another agent</summary>
                <NewAgent owner={session.name} issuer={session.issuer} />
              </details>
            </>
          ) : (
            <NewAgent owner={session.name} issuer={session.issuer} />
          )}
        </Step>
        <Step n={3} title="A guard in front of a tool" isDone={guardCount > 0}>
          {guardCount > 0 ? (
            <p>{count(guardCount, "guard")} connected to this server.</p>
          ) : resource ? (
            <>
              <p>
                The resource <bdi>{resource.name}</bdi> at <code>{resource.uri}</code> is registered. Start its guard:
              </p>
              <pre className="code">{guardCode(resource)}</pre>
              <p>
                Install the packages first: <code>pip install "ostiary[mcp]"</code>
              </p>
            </>
          ) : (
            <NewResource issuer={session.issuer} />
          )}
        </Step>
        <Step n={4} title="The first denied call" isDone={denial !== undefined}>
          {denial ? (
            <p>
              <bdi>{denial.tool ?? "A call"}</bdi> was denied <Time at={denial.at / 1e6} />
              {denial.reasons?.[0] && (
                <>
                  : <bdi>{denial.reasons[0].message || denial.reasons[0].code}</bdi>
                </>
              )}
              .
            </p>
          ) : (
            <>
              <p>The agent has no scope yet, so the guard denies its first call. Run this beside the credential of the agent:</p>
              <pre className="code">{callCode(mine?.name ?? "AGENT", resource?.uri ?? "URI")}</pre>
            </>
          )}
        </Step>
      </ol>
    </>
  );
}

const LOCAL = ["127.0.0.1", "localhost", "[::1]"];

/** Return a program that serves an MCP server behind its guard: at the port of a URI on this machine, otherwise for a proxy. */
function guardCode({ name, uri }: Resource): string {
  const { hostname, port } = new URL(uri);
  const at = LOCAL.includes(hostname) && port ? port : "8000";
  return `import uvicorn
from my_server import mcp_server  # your MCP server
from ostiary import Guard
from ostiary.mcp import protect

with Guard("${name}.json", spool_dir="spool") as guard:  # chmod 600 ${name}.json first
    uvicorn.run(protect(mcp_server, guard), host="${hostname === "[::1]" ? "::1" : "127.0.0.1"}", port=${at})`;
}

/** Return a program that calls the first tool of an MCP server as an agent. */
function callCode(agent: string, uri: string): string {
  return `import asyncio

import httpx2
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from ostiary import AsyncAgent

URI = "${uri}"


async def main() -> None:
    agent = AsyncAgent.from_credential("${agent}.json")  # chmod 600 ${agent}.json first
    async with agent, httpx2.AsyncClient(auth=agent.auth(URI)) as http:
        async with Client(streamable_http_client(URI, http_client=http)) as client:
            tools = (await client.list_tools()).tools
            try:
                print(await client.call_tool(tools[0].name, {}))
            except MCPError as error:
                print(error.message)


asyncio.run(main())`;
}

function Step({ n, title, isDone, children }: { n: number; title: string; isDone: boolean; children: ReactNode }) {
  return (
    <li className="card step" data-done={isDone}>
      <span className="step-mark" aria-hidden="true">
        {isDone ? "✓" : n}
      </span>
      <div>
        <h2>
          {title} <span className="hidden">{isDone ? "(done)" : "(to do)"}</span>
        </h2>
        {children}
      </div>
    </li>
  );
}

function NewAgent({ owner, issuer }: { owner: string; issuer: string }) {
  const may = useMay();
  const client = useQueryClient();
  const create = useMutation({
    mutationFn: async (form: FormData) => {
      const name = String(form.get("name"));
      const key = await newKey();
      const made = await post<Agent>("/agents", { name, owner, purpose: String(form.get("purpose")), jwk: key.publicJwk });
      key.save(name, made.agent_id, issuer);
    },
    onSuccess: () => client.invalidateQueries(),
  });
  if (!may("POST /agents")) return <p className="muted">An administrator registers agents.</p>;
  return (
    <form onSubmit={submitTo(create.mutate)}>
      <label className="field">
        Name
        <input name="name" required maxLength={64} pattern="[a-z0-9][a-z0-9._\-]*" placeholder="report-writer" />
        <span className="hint">Lower-case letters, digits, dot, dash.</span>
      </label>
      <label className="field">
        Purpose
        <input name="purpose" required maxLength={500} placeholder="Writes the monthly report" />
      </label>
      {create.isError && <Problem error={create.error} />}
      <button className="primary" disabled={create.isPending}>
        Register and save its key
      </button>
      <p className="small muted after">The key is made in this browser and saved as a file. The server sees its public half only.</p>
    </form>
  );
}

function NewResource({ issuer }: { issuer: string }) {
  const may = useMay();
  const client = useQueryClient();
  const [name, setName] = useState("");
  const create = useMutation({
    mutationFn: async (form: FormData) => {
      const key = await newKey();
      const made = await post<{ resource_id: string }>("/resources", { name, uri: String(form.get("uri")), jwk: key.publicJwk });
      key.save(name, made.resource_id, issuer);
    },
    onSuccess: () => client.invalidateQueries(),
  });
  if (!may("POST /resources")) return <p className="muted">An administrator registers resources.</p>;
  return (
    <form onSubmit={submitTo(create.mutate)}>
      <label className="field">
        Name of the tool server
        <input required maxLength={64} value={name} onChange={(event) => setName(event.target.value)} placeholder="files" />
      </label>
      <label className="field">
        URL
        <input name="uri" type="url" required maxLength={500} placeholder="https://files.example/mcp" />
      </label>
      {create.isError && <Problem error={create.error} />}
      <button className="primary" disabled={create.isPending}>
        Register and save the key of its guard
      </button>
    </form>
  );
}

function submitTo(run: (form: FormData) => void) {
  return (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    run(new FormData(event.currentTarget));
  };
}

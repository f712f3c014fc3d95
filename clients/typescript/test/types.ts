/** Calls that the compiler accepts, and calls that it must refuse. */

import { Client, Refusal, type Row } from "../src/index.js";

export async function accepted(client: Client): Promise<string[]> {
  const { agents, next } = await client.call("GET /api/v1/agents", { query: { state: "active", limit: 10 } });
  const page: string | null = next;
  const made = await client.call("POST /api/v1/teams", { body: { name: "ops", members: ["olga"] } });
  const names: string[] = [made.name, page ?? ""];
  for (const row of agents) if (!("cut" in row)) names.push(row.name);
  for await (const row of client.rows("GET /api/v1/agents")) names.push(nameOf(row));
  const shown = await client.call("GET /api/v1/agents/{name}", { path: { name: "a" }, signal: AbortSignal.timeout(1) });
  const used: number | null | undefined = shown.last_used_at;
  return [...names, String(used)];
}

function nameOf(row: Row<"GET /api/v1/agents">): string {
  return "cut" in row ? row.cut.join() : row.name;
}

export async function refused(client: Client, refusal: Refusal): Promise<void> {
  // @ts-expect-error no such operation
  await client.call("GET /api/v1/agent");
  // @ts-expect-error the path has a parameter
  await client.call("GET /api/v1/agents/{name}");
  // @ts-expect-error the body is required
  await client.call("POST /api/v1/teams", {});
  // @ts-expect-error a member of the body is missing
  await client.call("POST /api/v1/teams", { body: { members: [] } });
  // @ts-expect-error the query has no such parameter
  await client.call("GET /api/v1/agents", { query: { nosuch: 1 } });
  // @ts-expect-error not a state
  await client.call("GET /api/v1/agents", { query: { state: "asleep" } });
  // @ts-expect-error the operation has no body
  await client.call("GET /api/v1/agents", { body: {} });
  // @ts-expect-error the operation has no pages
  client.rows("GET /api/v1/agents/{name}", { path: { name: "a" } });
  // @ts-expect-error the code is text
  const code: number = refusal.code;
  return void code;
}

/** The person who is signed in, and the operations that the person's roles permit. */

import { queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { BASE, get, send } from "./api";

export interface Session {
  person_id: string;
  name: string;
  acr: string;
  roles: string[];
  operations: string[];
  issuer: string;
}

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: () => get<Session>("/session"),
  staleTime: 60_000,
});

export function useSession(): Session {
  return useSuspenseQuery(sessionQuery).data;
}

/** Return a function that says whether the person may use an operation, such as `POST /agents/{name}/suspend`. */
export function useMay(): (operation: string) => boolean {
  const { operations } = useSession();
  return (operation) => operations.includes(operation.replace(" /", " /api/v1/"));
}

/** End the session, and show the login page. */
export async function signOut(): Promise<void> {
  await send("DELETE", "/session");
  location.assign(`${BASE}/login?${new URLSearchParams({ return_to: "/console" })}`);
}

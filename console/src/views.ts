/** Views of the table of agents, saved by name in this browser. A view is what the address of the page has. */

import { useState } from "react";
import { type AgentSearch, readAgentSearch } from "./queries";

export interface SavedView {
  name: string;
  search: AgentSearch;
}

const STORE = "ostiary-agent-views";
const MAX_VIEWS = 20;

function read(): SavedView[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    if (!Array.isArray(stored)) return [];
    return stored.flatMap((one) => (typeof one?.name === "string" ? [{ name: one.name, search: readAgentSearch(one.search ?? {}) }] : []));
  } catch {
    return []; // another program wrote there
  }
}

/** Return the saved views, and a function that saves others in their place: the newest 20. */
export function useViews(): [SavedView[], (views: SavedView[]) => void] {
  const [views, setViews] = useState(read);
  const save = (next: SavedView[]) => {
    const kept = next.slice(-MAX_VIEWS);
    localStorage.setItem(STORE, JSON.stringify(kept));
    setViews(kept);
  };
  return [views, save];
}

/** The entries of an incident with their proofs, as one file that `ostiary audit check` verifies offline. */

import { get } from "../api";
import { type Receipt, verifyEntry } from "../ledger";

interface Entry {
  index: number;
  object?: string;
}

interface Incident {
  incident_id: string;
  agent_id: string;
  opened_at: number;
  findings: { entries: number[] }[];
}

/** Return the indexes of entries about an incident: its own acts, and the entries on which its findings rest. */
async function findEntries({ incident_id, agent_id, opened_at, findings }: Incident): Promise<number[]> {
  const since = Math.floor(opened_at * 1e6);
  const pages = await Promise.all(["agent", "about"].map((filter) => get<{ entries: Entry[] }>("/audit", { [filter]: agent_id, since, limit: 1000 })));
  const own = pages.flatMap((page) => page.entries).filter((entry) => entry.object === incident_id);
  const found = findings.flatMap((one) => one.entries);
  return [...new Set([...own.map((entry) => entry.index), ...found])].sort((a, b) => a - b);
}

/** Return the bundle as text. Each receipt is verified in this browser first. Throws Unproved. */
export async function bundleIncident(incident: Incident): Promise<string> {
  const receipts: Receipt[] = [];
  let key = "";
  for (const index of await findEntries(incident)) {
    const { receipt, verified } = await verifyEntry(String(index));
    receipts.push(receipt);
    key = verified.vkey;
  }
  if (receipts.length === 0) throw new Error("the ledger has no entry about this incident");
  return JSON.stringify({ incident, key, receipts }, null, 2);
}

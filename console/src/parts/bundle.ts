/** The entries of an incident with their proofs, as one file that `ostiary audit check` verifies offline. */

import { get } from "../api";
import { type Receipt, verifyEntry } from "../ledger";

const MAX_RECEIPTS = 200;

interface Entry {
  index: number;
  object?: string;
}

interface Incident {
  incident_id: string;
  agent_id: string;
}

/** Return the indexes of entries about an incident: its own acts, and the entries on which its findings rest. */
async function findEntries({ incident_id, agent_id }: Incident): Promise<number[]> {
  const [acts, done, findings] = await Promise.all([
    get<{ entries: Entry[] }>("/audit", { agent: agent_id, limit: 1000 }),
    get<{ entries: Entry[] }>("/audit", { about: agent_id, limit: 1000 }),
    get<{ findings: { incident: string | null; entries: number[] }[] }>("/findings", { agent: agent_id, limit: 200 }),
  ]);
  const own = [...acts.entries, ...done.entries].filter((entry) => entry.object === incident_id).map((entry) => entry.index);
  const found = findings.findings.filter((one) => one.incident === incident_id).flatMap((one) => one.entries);
  return [...new Set([...own, ...found])].sort((a, b) => a - b).slice(0, MAX_RECEIPTS);
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

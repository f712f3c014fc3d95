/** The log as this browser trusts it: the key that it saw first, and the newest checkpoint that it verified. */

import { BASE, get, type Query } from "./api";
import { type Checkpoint, openCheckpoint, Unproved, verifyExtension, verifyReceipt } from "./tlog";

const STORE = "ostiary-log";

interface Trusted {
  vkey: string;
  /** The signed note of the newest verified checkpoint. */
  note: string;
  /** Seconds since the epoch at which that checkpoint was verified. */
  at: number;
}

export interface Verified {
  checkpoint: Checkpoint;
  vkey: string;
  /** The checkpoint that this browser had verified before, which the new one extends; null at the first visit. */
  before: { size: number; at: number } | null;
}

export interface Receipt {
  index: number;
  entry: string;
  proof: string;
}

/** Verify the newest checkpoint: signed by the trusted key, and an extension of the checkpoint from before. */
export async function verifyLog(): Promise<Verified> {
  const [note, stated] = await Promise.all([readText("checkpoint"), readText("key")]);
  return extend(note, stated.trim());
}

/** Verify that an entry is in the log, from its receipt alone; the server's own words about it are not used. */
export async function verifyEntry(index: string): Promise<{ receipt: Receipt; verified: Verified }> {
  const [receipt, stated] = await Promise.all([get<Receipt>(`/audit/${index}/proof`), readText("key")]);
  const vkey = trusted()?.vkey ?? stated.trim();
  const proved = await verifyReceipt(receipt.proof, receipt.entry, vkey);
  if (String(proved.index) !== index) throw new Unproved(`the server sent entry ${proved.index} instead of ${index}`);
  return { receipt, verified: await extend(proved.note, stated.trim()) };
}

/** A signed checkpoint that the server has kept, at a time in microseconds. */
export interface KeptCheckpoint {
  size: number;
  at: number;
  note: string;
}

/** Read the newest checkpoint, as a signed note that nobody has verified yet. */
export const readNewest = () => readText("checkpoint");

/** Verify that the larger of two signed checkpoints extends the smaller one, by the hashes of the log. Throws Unproved. */
export async function compareCheckpoints(notes: [string, string]): Promise<{ earlier: Checkpoint; later: Checkpoint; vkey: string }> {
  const vkey = trusted()?.vkey ?? (await readText("key")).trim();
  const [one, other] = await Promise.all(notes.map((note) => openCheckpoint(`${note.trim()}\n`, vkey)) as [Promise<Checkpoint>, Promise<Checkpoint>]);
  const [earlier, later] = one.size <= other.size ? [one, other] : [other, one];
  await verifyExtension(earlier, later, readTile);
  return { earlier, later, vkey };
}

const PAGE_RECEIPTS = 200;
const MAX_RECEIPTS = 1000;

/**
 * Return the receipts of the newest entries that a search finds as one file, each verified in this browser. Throws Unproved.
 *
 * Each receipt proves that its entry is in the log. Nothing proves that the search found all.
 */
export async function bundleSearch(query: Query): Promise<{ text: string; count: number; isCut: boolean }> {
  const stated = (await readText("key")).trim();
  const vkey = trusted()?.vkey ?? stated;
  const receipts: Receipt[] = [];
  let before: string | undefined;
  do {
    const page = await get<{ receipts: Receipt[]; next: string | null }>("/audit/receipts", { ...query, limit: PAGE_RECEIPTS, before });
    let note = "";
    for (const receipt of page.receipts) {
      const proved = await verifyReceipt(receipt.proof, receipt.entry, vkey);
      if (proved.index !== receipt.index) throw new Unproved(`the server sent entry ${proved.index} instead of ${receipt.index}`);
      if (proved.note !== note) await extend(proved.note, stated);
      note = proved.note;
    }
    receipts.push(...page.receipts);
    before = page.next ?? undefined;
  } while (before !== undefined && receipts.length < MAX_RECEIPTS);
  return { text: JSON.stringify({ key: vkey, receipts }, null, 2), count: receipts.length, isCut: before !== undefined };
}

/** Trust another key from now on, after a person has compared it. */
export function trustKey(): void {
  localStorage.removeItem(STORE);
}

async function extend(note: string, stated: string): Promise<Verified> {
  const known = trusted();
  const vkey = known?.vkey ?? stated;
  if (stated !== vkey) throw new Unproved("the server states another key of the log than this browser has trusted");
  const checkpoint = await openCheckpoint(note, vkey);
  if (known === null) {
    keep(vkey, note);
    return { checkpoint, vkey, before: null };
  }
  const older = await openCheckpoint(known.note, vkey);
  const [first, last] = older.size <= checkpoint.size ? [older, checkpoint] : [checkpoint, older];
  await verifyExtension(first, last, readTile);
  if (last === checkpoint) keep(vkey, note);
  return { checkpoint, vkey, before: { size: older.size, at: known.at } };
}

function trusted(): Trusted | null {
  const text = localStorage.getItem(STORE);
  return text === null ? null : (JSON.parse(text) as Trusted);
}

function keep(vkey: string, note: string): void {
  const stored: Trusted = { vkey, note, at: Date.now() / 1000 };
  localStorage.setItem(STORE, JSON.stringify(stored));
}

async function readText(name: string): Promise<string> {
  return new TextDecoder().decode(await read(name));
}

const readTile = (path: string) => read(`tile/${path}`);

async function read(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(`${BASE}/ledger/v1/${path}`, { credentials: "same-origin" });
  if (!response.ok) throw new Unproved(`the server does not show ${path} of the log`);
  return new Uint8Array(await response.arrayBuffer());
}

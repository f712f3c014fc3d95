/** The log as this browser trusts it: the key that it saw first, and the newest checkpoint that it verified. */

import { BASE, get } from "./api";
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

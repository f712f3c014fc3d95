/** Verification of the ledger in the browser: signed notes, checkpoints, inclusion and consistency (C2SP, RFC 9162). */

type Bytes = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const TILE_WIDTH = 256;
const TILE_HEIGHT = 8;

/** Evidence that is malformed, is not signed by the trusted key, or does not lead to the root. */
export class Unproved extends Error {}

/** A signed statement about the tree: so many entries are under this root. */
export interface Checkpoint {
  origin: string;
  size: number;
  root: Bytes;
  history: string;
}

/** Return the checkpoint of a signed note. Throws Unproved unless the key `vkey` has signed it, as the log of its name. */
export async function openCheckpoint(note: string, vkey: string): Promise<Checkpoint> {
  const split = note.indexOf("\n\n");
  if (split < 0) throw new Unproved("the checkpoint has no signature");
  const text = note.slice(0, split + 1);
  const key = await parseKey(vkey);
  const signatures = note.slice(split + 2).split("\n").filter((line) => line.startsWith(`— ${key.name} `));
  const raw = signatures.map((line) => decode(line.slice(`— ${key.name} `.length)));
  const own = raw.filter((bytes) => same(bytes.slice(0, 4), key.id));
  const checks = own.map((bytes) => crypto.subtle.verify("Ed25519", key.key, bytes.slice(4), encoder.encode(text)));
  if (!(await Promise.all(checks)).some(Boolean)) throw new Unproved("the trusted key has not signed the checkpoint");
  const [origin = "", size = "", root = "", ...extensions] = text.split("\n").slice(0, -1);
  if (origin !== key.name) throw new Unproved(`the checkpoint is of the log ${origin}`);
  const history = extensions.find((line) => line.startsWith("history "))?.slice("history ".length) ?? "";
  return { origin, size: parseCount(size), root: decodeHash(root), history };
}

/** Verify that an entry is in the log. Throws Unproved. Returns its index, and the checkpoint that covers it. */
export async function verifyReceipt(
  proof: string,
  entry: string,
  vkey: string,
): Promise<{ index: number; checkpoint: Checkpoint; note: string }> {
  const split = proof.indexOf("\n\n");
  if (split < 0) throw new Unproved("the receipt has no checkpoint");
  const [header, ...rest] = proof.slice(0, split).split("\n");
  const lines = rest[0]?.startsWith("extra ") ? rest.slice(1) : rest;
  const named = /^index (.+)$/.exec(lines[0] ?? "")?.[1];
  if (header !== "c2sp.org/tlog-proof@v1" || named === undefined) throw new Unproved("the receipt is malformed");
  const note = proof.slice(split + 2);
  const index = parseCount(named);
  const checkpoint = await openCheckpoint(note, vkey);
  if (index >= checkpoint.size) throw new Unproved(`entry ${index} is not in a tree of ${checkpoint.size} entries`);
  const siblings = lines.slice(1).map(decodeHash);
  const root = await climb(index, checkpoint.size, await hash(0, encoder.encode(entry)), siblings);
  if (siblings.length > 0 || !same(root, checkpoint.root)) {
    throw new Unproved(`entry ${index} does not match the signed root`);
  }
  return { index, checkpoint, note };
}

/** Return the root that a leaf and its siblings lead to; the siblings are used up from the top. */
async function climb(index: number, size: number, leaf: Bytes, siblings: Bytes[]): Promise<Bytes> {
  if (size === 1) return leaf;
  const sibling = siblings.pop();
  if (sibling === undefined) throw new Unproved("the proof is too short");
  const left = splitOf(size);
  return index < left
    ? hash(1, await climb(index, left, leaf, siblings), sibling)
    : hash(1, sibling, await climb(index - left, size - left, leaf, siblings));
}

/** Reads a tile of the log: its path below `tile/`. */
export type ReadTile = (path: string) => Promise<Bytes>;

/**
 * Verify that the tree of one checkpoint extends that of an earlier one. Throws Unproved.
 *
 * Both roots are computed from the same hashes of tiles, so nobody can have changed an entry of the earlier tree.
 */
export async function verifyExtension(older: Checkpoint, newer: Checkpoint, readTile: ReadTile): Promise<void> {
  if (older.history !== newer.history) throw new Unproved("the log has begun another history");
  if (older.size > newer.size) throw new Unproved(`the log had ${older.size} entries, and has ${newer.size} now`);
  const tiles = new Tiles(newer.size, readTile);
  const [old, present] = await bothRoots(tiles, 0, newer.size, older.size);
  const start = older.size === 0 ? older.root : old;
  if (start === null || !same(start, older.root) || !same(present, newer.root)) {
    throw new Unproved(`the log of ${newer.size} entries does not extend that of ${older.size} entries`);
  }
}

type Roots = [old: Bytes | null, present: Bytes];

async function bothRoots(tiles: Tiles, start: number, end: number, old: number): Promise<Roots> {
  if (end <= old || start >= old) {
    const root = await tiles.range(start, end);
    return [start >= old ? null : root, root];
  }
  const middle = start + splitOf(end - start);
  const [left, right] = [await bothRoots(tiles, start, middle, old), await bothRoots(tiles, middle, end, old)];
  const before = left[0] !== null && right[0] !== null ? await hash(1, left[0], right[0]) : left[0];
  return [before, await hash(1, left[1], right[1])];
}

class Tiles {
  readonly #size: number;
  readonly #read: ReadTile;
  readonly #known = new Map<string, Promise<Bytes>>();

  constructor(size: number, read: ReadTile) {
    this.#size = size;
    this.#read = read;
  }

  /** Return the root of the leaves from `start` to below `end`. */
  async range(start: number, end: number): Promise<Bytes> {
    const size = end - start;
    if (size === 0) throw new Unproved("the log is empty");
    const left = size === 1 ? 1 : splitOf(size) * 2 === size ? size : splitOf(size);
    const level = Math.round(Math.log2(left));
    const root = await this.#node(level, start / left);
    return left === size ? root : hash(1, root, await this.range(start + left, end));
  }

  /** Return the hash of a complete subtree: neighbours of a row of tiles, joined. */
  async #node(level: number, index: number): Promise<Bytes> {
    const row = Math.floor(level / TILE_HEIGHT);
    const count = 2 ** (level % TILE_HEIGHT);
    const first = index * count;
    const tile = await this.#tile(row, Math.floor(first / TILE_WIDTH));
    const place = first % TILE_WIDTH;
    let nodes = Array.from({ length: count }, (_, step) => tile.slice(32 * (place + step), 32 * (place + step + 1)));
    while (nodes.length > 1) {
      const pairs = nodes.filter((_, at) => at % 2 === 0).map((left, at) => hash(1, left, nodes[2 * at + 1]!));
      nodes = await Promise.all(pairs);
    }
    return nodes[0]!;
  }

  #tile(row: number, index: number): Promise<Bytes> {
    const width = Math.min(TILE_WIDTH, Math.floor(this.#size / TILE_WIDTH ** row) - TILE_WIDTH * index);
    const groups = index.toLocaleString("en-US").split(",").map((group) => group.padStart(3, "0"));
    const last = groups.pop();
    const name = [...groups.map((group) => `x${group}`), last].join("/");
    const path = `${row}/${name}${width === TILE_WIDTH ? "" : `.p/${width}`}`;
    let tile = this.#known.get(path);
    if (tile === undefined) {
      tile = this.#read(path).then((bytes) => {
        if (bytes.length !== 32 * width) throw new Unproved(`a tile of ${width} hashes has ${bytes.length} bytes`);
        return bytes;
      });
      this.#known.set(path, tile);
    }
    return tile;
  }
}

/** Return the public key of a C2SP vkey, `NAME+ID+BASE64`. Throws Unproved. */
async function parseKey(vkey: string): Promise<{ name: string; id: Bytes; key: CryptoKey }> {
  const [, name = "", id = "", text = ""] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey.trim()) ?? [];
  const typed = text ? decode(text) : new Uint8Array();
  if (typed.length !== 33 || typed[0] !== 1) throw new Unproved("the trusted key is not an Ed25519 key of a log");
  const digest = await digestOf(encoder.encode(`${name}\n`), typed);
  const stated = Uint8Array.from(id.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
  if (!same(digest.slice(0, 4), stated)) throw new Unproved("the id of the trusted key does not match the key");
  return { name, id: stated, key: await crypto.subtle.importKey("raw", typed.slice(1), "Ed25519", false, ["verify"]) };
}

/** Return the largest power of two below `count`, which is 2 or more. */
function splitOf(count: number): number {
  let power = 1;
  while (power * 2 < count) power *= 2;
  return power;
}

function hash(prefix: 0 | 1, ...parts: Bytes[]): Promise<Bytes> {
  return digestOf(Uint8Array.of(prefix), ...parts);
}

async function digestOf(...parts: Bytes[]): Promise<Bytes> {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^(0|[1-9][0-9]{0,15})$/.test(text) || !Number.isSafeInteger(count)) throw new Unproved("not a number of entries");
  return count;
}

function decodeHash(text: string): Bytes {
  const bytes = decode(text);
  if (bytes.length !== 32) throw new Unproved("a hash has 32 bytes");
  return bytes;
}

function decode(text: string): Bytes {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new Unproved("not base64");
  }
}

function same(one: Bytes, other: Bytes): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

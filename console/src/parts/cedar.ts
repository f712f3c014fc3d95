/** Tokens of policy languages for highlighting, and words that complete a text, from the schema of the server. */

export type TokenKind = "comment" | "string" | "note" | "keyword" | "type" | "number" | "plain";
export type Token = [TokenKind, string];

const CEDAR = "permit|forbid|when|unless|if|then|else|in|is|has|like|true|false|principal|action|resource|context";
const SCHEMA = "entity|action|type|namespace|appliesTo|enum|in|Set";
const REGO = "package|import|default|if|in|not|some|every|contains|as|else|with|true|false|null";
const LANGUAGES: [suffix: string, comment: string, keywords: string][] = [
  [".cedar", "//", CEDAR],
  [".cedarschema", "//", SCHEMA],
  [".rego", "#", REGO],
  [".toml", "#", "true|false"],
  [".json", "\u0000", "true|false|null"],
];

/** Return the tokens of a text, which together are the text. */
export function tokenize(name: string, text: string): Token[] {
  const [, comment, keywords] = LANGUAGES.find(([suffix]) => name.endsWith(suffix)) ?? LANGUAGES[0]!;
  const pattern = new RegExp(
    [
      `(?<comment>${comment}[^\\n]*)`,
      `(?<string>"(?:\\\\.|[^"\\\\\\n])*"?)`,
      `(?<note>@\\w+)`,
      `(?<keyword>\\b(?:${keywords})\\b)`,
      `(?<type>\\b[A-Z]\\w*)`,
      `(?<number>\\b\\d[\\d.]*)`,
    ].join("|"),
    "g",
  );
  const tokens: Token[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) tokens.push(["plain", text.slice(end, match.index)]);
    const [kind] = Object.entries(match.groups!).find(([, value]) => value !== undefined)!;
    tokens.push([kind as TokenKind, match[0]]);
    end = match.index + match[0].length;
  }
  if (end < text.length) tokens.push(["plain", text.slice(end)]);
  return tokens;
}

/** A word that completes a text, with its type and the comment of the schema. */
export interface Completion {
  word: string;
  type: string;
  note: string;
}

interface Member {
  type: string;
  note: string;
  members: Members;
}

type Members = Map<string, Member>;

/** What a schema declares: attributes of entity types, actions, members of the context of any action, own types. */
export interface Schema {
  entities: Map<string, Members>;
  actions: string[];
  context: Members;
}

/** Read the declarations of schemas in the human-readable syntax of Cedar; a text with errors gives those before them. */
export function readSchema(...texts: string[]): Schema {
  const schema: Schema = { entities: new Map(), actions: [], context: new Map() };
  const types = new Map<string, Members>();
  for (const text of texts) readText(text, schema, types);
  resolve(schema.context, types, 0);
  return schema;
}

function readText(text: string, { entities, actions, context }: Schema, types: Map<string, Members>): void {
  const open: Members[] = []; // the records around the line
  let namespace = "";
  for (const line of text.split("\n")) {
    const [code = "", note = ""] = line.split("//", 2).map((part) => part.trim());
    const declared = /^(entity|action|type|namespace) ([\w, ]+?)(?: in .*| appliesTo.*| = .*| \{.*|;.*)?$/.exec(code);
    if (declared && open.length === (namespace ? 1 : 0)) {
      const [, kind, names = ""] = declared;
      const members: Members = new Map();
      if (kind === "namespace") namespace = `${names}::`;
      if (kind === "entity") entities.set(namespace + names, members);
      if (kind === "type") types.set(names, members);
      if (kind === "action") actions.push(...names.split(", ").map((name) => `${namespace}Action::"${name}"`));
      readMembers(/=\s*(\{.*)/.exec(code)?.[1] ?? "", members);
      if (code.endsWith("{")) open.push(members);
      continue;
    }
    const member = /^(\w+)\?\s*:\s*(.*)$|^(\w+)\s*:\s*(.*)$/.exec(code);
    const [name, type] = [member?.[1] ?? member?.[3], member?.[2] ?? member?.[4] ?? ""];
    if (name && open.length > 0) {
      // The members of all contexts are offered together: an editor does not know the action before it is written.
      const members: Members = name === "context" ? context : new Map();
      const known = open.at(-1)!.get(name)?.members ?? members;
      open.at(-1)!.set(name, { type: type.startsWith("{") ? "record" : (/^[^,{]+/.exec(type)?.[0] ?? "record"), note, members: known });
      readMembers(type, known);
      if (code.endsWith("{")) open.push(known);
    } else if (/^\}/.test(code)) {
      open.pop();
      if (open.length === 0) namespace = "";
    }
  }
}

/** Read the members of a record that is written in one line. */
function readMembers(text: string, members: Members): void {
  if (!/^\{.*\}/.test(text)) return;
  for (const [, name, type] of text.matchAll(/(\w+)\??\s*:\s*([\w<>:]+)/g)) {
    members.set(name!, { type: type!, note: "", members: new Map() });
  }
}

/** Give each member whose type is declared by name the members of that type. */
function resolve(members: Members, types: Map<string, Members>, depth: number): void {
  for (const member of members.values()) {
    const declared = types.get(member.type);
    if (declared) member.members = declared;
    else if (depth < 4) resolve(member.members, types, depth + 1);
  }
}

const KEYWORDS: [string, string][] = [
  ["permit", "a policy that allows"],
  ["forbid", "a policy that denies, whatever others allow"],
  ["when", "condition"],
  ["unless", "exception"],
  ["principal", "who acts"],
  ["action", "what is done"],
  ["resource", "to what"],
  ["context", "facts of the request"],
];
const METHODS: [string, string][] = [
  ["contains()", "of a set"],
  ["containsAny()", "of a set"],
  ["containsAll()", "of a set"],
  ["lessThan()", "of a decimal"],
  ["greaterThan()", "of a decimal"],
];
const NOTES = ["id", "reason", "hint", "mode", "ask", "covers", "minutes", "calls"];
const MAX_WORDS = 12;

/** Return the words that may follow a text of a Cedar policy, and the number of characters that they replace. */
export function complete(before: string, schema: Schema): { words: Completion[]; typed: number } {
  const [typed = ""] = /[\w@]*$/.exec(before) ?? [];
  const words = candidates(before.slice(0, before.length - typed.length), typed, schema);
  const lower = typed.toLowerCase();
  return { words: words.filter(({ word }) => word.toLowerCase().startsWith(lower) && word !== typed).slice(0, MAX_WORDS), typed: typed.length };
}

function candidates(before: string, typed: string, { entities, actions, context }: Schema): Completion[] {
  const list = (members: Members) => [...members].map(([word, { type, note }]) => ({ word, type, note }));
  const path = /\b(principal|resource|context)((?:\.\w+)*)\.$/.exec(before) ?? /\b(principal|resource|context)((?:\.\w+)*) has $/.exec(before);
  if (path) {
    // Of two types that have an attribute, the first one counts: agents and tools come before people and routes.
    const attributes: Members = new Map();
    for (const [name, member] of [...entities.values()].flatMap((members) => [...members])) if (!attributes.has(name)) attributes.set(name, member);
    let members = path[1] === "context" ? context : attributes;
    for (const name of path[2]!.split(".").slice(1)) members = members.get(name)?.members ?? new Map();
    return [...list(members), ...(before.endsWith(".") ? METHODS.map(([word, type]) => ({ word, type, note: "" })) : [])];
  }
  const quoted = /((?:\w+::)*Action)::"$/.exec(before)?.[1];
  if (quoted) {
    return actions.filter((one) => one.startsWith(`${quoted}::`)).map((one) => ({ word: one.slice(quoted.length + 3, -1), type: "action", note: "" }));
  }
  if (typed.startsWith("@")) return NOTES.map((name) => ({ word: `@${name}`, type: "annotation", note: "" }));
  if (/\baction (==|in) \[?$/.test(before)) return actions.map((word) => ({ word, type: "action", note: "" }));
  if (/\bis $|\bin $/.test(before)) return [...entities.keys()].map((word) => ({ word, type: "entity type", note: "" }));
  if (typed === "") return [];
  return [...KEYWORDS.map(([word, note]) => ({ word, type: "", note })), ...[...entities.keys()].map((word) => ({ word, type: "entity type", note: "" }))];
}

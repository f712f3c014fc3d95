/** Typed client of the HTTP API of an Ostiary server. One operation is one line of its OpenAPI document. */

import type { Operations } from "./operations.js";

export { type Credential, signedFetch } from "./signed.js";
export type * from "./operations.js";

export type Operation = keyof Operations;
export type Answer<O extends Operation> = Operations[O]["answer"];

type Given<Name extends string, Value> = [Value] extends [undefined]
  ? { [name in Name]?: undefined }
  : Record<never, never> extends Value
    ? { [name in Name]?: Value }
    : undefined extends Value
      ? { [name in Name]?: Value }
      : { [name in Name]: Value };

/** What an operation takes: `path`, `query` and `body`, and a signal that aborts the request. */
export type Request<O extends Operation> = Given<"path", Operations[O]["path"]> &
  Given<"query", Operations[O]["query"]> &
  Given<"body", Operations[O]["body"]> & { signal?: AbortSignal };

type Arguments<O extends Operation> = Record<never, never> extends Request<O> ? [Request<O>?] : [Request<O>];

/** Operations that answer in pages. */
export type PagedOperation = {
  [O in Operation]: Answer<O> extends { next: string | null } ? O : never;
}[Operation];

/** A row of a page. A row that is too long lacks the members that its `cut` lists. */
export type Row<O extends PagedOperation> = {
  [Kind in keyof Answer<O>]-?: Answer<O>[Kind] extends (infer R)[] ? R : never;
}[keyof Answer<O>];

/** A refusal of the server: `code` is stable, `hint` is the next step, `requestId` names the request in log and ledger. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly status: number;
  readonly code: string;
  readonly hint: string | undefined;
  readonly requestId: string | undefined;
  /** Seconds after which to try again. */
  readonly retryAfter: number | undefined;

  /** Read the refusal of any protocol of the server: its error code, its text, and the next step. */
  constructor(response: Response, body: { error?: string; message?: string; error_description?: string; hint?: string }) {
    super(body.message ?? body.error_description ?? `the server answered ${response.status}`);
    const wait = response.headers.get("retry-after");
    this.status = response.status;
    this.code = body.error ?? "unreadable";
    this.hint = body.hint;
    this.requestId = response.headers.get("x-request-id") ?? undefined;
    this.retryAfter = wait === null ? undefined : Number(wait);
  }
}

export interface ClientOptions {
  /** Public URL of the server; the page's own origin by default. */
  url?: string;
  /** Sends the requests; it adds the credentials of the caller. `fetch` of the platform by default. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** Calls operations of one server. */
export class Client {
  readonly #url: string;
  readonly #fetch: (url: string, init: RequestInit) => Promise<Response>;

  constructor(options: ClientOptions = {}) {
    this.#url = (options.url ?? "").replace(/\/+$/, "");
    this.#fetch = options.fetch ?? ((url, init) => fetch(url, init));
  }

  /** Return the answer of an operation. Throws Refusal; a TypeError if the server is not reached. */
  async call<O extends Operation>(operation: O, ...[request]: Arguments<O>): Promise<Answer<O>> {
    const { path, query, body, signal } = (request ?? {}) as Loose;
    const [method = "", template = ""] = operation.split(" ");
    const init: RequestInit = { method, redirect: "error", headers: { accept: "application/json, text/*;q=0.5" } };
    if (signal !== undefined) init.signal = signal;
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { ...init.headers, "content-type": "application/json" };
    }
    const response = await this.#fetch(this.#url + fillPath(template, path ?? {}) + encodeQuery(query ?? {}), init);
    const text = await response.text();
    const isJson = /^application\/([\w.-]+\+)?json\b/.test(response.headers.get("content-type") ?? "");
    if (!response.ok) throw new Refusal(response, isJson ? JSON.parse(text) : {});
    return (isJson ? JSON.parse(text) : text || undefined) as Answer<O>;
  }

  /** Yield the rows of all pages of a list. */
  async *rows<O extends PagedOperation>(operation: O, ...[request]: Arguments<O>): AsyncGenerator<Row<O>, void, void> {
    const { query, ...rest } = (request ?? {}) as Loose;
    let after = query?.["after"];
    do {
      const given = [{ ...rest, query: { ...query, after } }] as unknown as Arguments<O>;
      const page = (await this.call(operation, ...given)) as { next: string | null };
      yield* Object.values(page).find(Array.isArray) as unknown as Row<O>[];
      after = page.next ?? undefined;
    } while (after !== undefined);
  }
}

type Loose = {
  path?: Record<string, string>;
  query?: Record<string, string | number | undefined>;
  body?: unknown;
  signal?: AbortSignal;
};

/** Return the path of an operation. Throws TypeError for a value that a URL would resolve to another path. */
function fillPath(template: string, values: Record<string, string>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined || ["", ".", ".."].includes(value)) {
      throw new TypeError(`\`${name}\` must be a name, not ${JSON.stringify(value)}`);
    }
    return encodeURIComponent(value);
  });
}

function encodeQuery(values: Record<string, string | number | undefined>): string {
  const given = Object.entries(values).filter((entry): entry is [string, string | number] => entry[1] !== undefined);
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}

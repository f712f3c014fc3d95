/** The administration API of this server, called in the browser session of the person. */

// The module lies at PREFIX/console/assets/NAME.js; the constant keeps the bundler from reading a file path here.
const here = import.meta.url;

/** Path prefix of the public URL of the server: empty, or `/PATH`. */
export const BASE = new URL("../..", here).pathname.replace(/\/$/, "");

/** A refusal of the API: a stable code, the error, and the next step. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string;

  constructor(status: number, body: { error?: string; message?: string; hint?: string }) {
    super(body.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = body.error ?? "";
    this.hint = body.hint ?? "";
  }
}

export type Query = Record<string, string | number | boolean | undefined>;

/** Return a path of the API with its query; members that are undefined or empty are left out. */
export function apiPath(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `${BASE}/api/v1${path}${text && `?${text}`}`;
}

/** Send a request; return the JSON of the answer. Throws ApiError. Without a session the browser goes to the login. */
export async function send<T>(method: string, path: string, options: { query?: Query; body?: unknown } = {}): Promise<T> {
  const init: RequestInit = { method, headers: { accept: "application/json" }, credentials: "same-origin" };
  if (options.body !== undefined) {
    init.body = JSON.stringify(options.body);
    init.headers = { ...init.headers, "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(apiPath(path, options.query), init);
  } catch {
    throw new ApiError(0, { error: "unreachable", message: "the server does not answer", hint: "check the network" });
  }
  if (response.ok) return (response.status === 204 ? {} : await response.json()) as T;
  if (response.status === 401) return signIn();
  throw new ApiError(response.status, (await response.json().catch(() => ({}))) as object);
}

/** Read an object of the API. */
export const get = <T>(path: string, query?: Query): Promise<T> => send<T>("GET", path, query ? { query } : {});

/** Change something by the API. */
export const post = <T>(path: string, body: unknown = {}): Promise<T> => send<T>("POST", path, { body });

function signIn(): Promise<never> {
  const path = location.pathname.slice(BASE.length) + location.search;
  location.assign(`${BASE}/login?${new URLSearchParams({ return_to: path })}`);
  return new Promise(() => {});
}

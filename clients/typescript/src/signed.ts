/** A `fetch` for programs: access tokens of the client credentials grant (RFC 7523), bound to a key by DPoP (RFC 9449). */

/** The content of a credential file of Ostiary: a private JWK, the id of its holder, and the URL of the server. */
export interface Credential extends JsonWebKey {
  kid: string;
  client_id: string;
  issuer: string;
}

interface Algorithm {
  key: EcKeyImportParams | RsaHashedImportParams | { name: "Ed25519" };
  signature: EcdsaParams | RsaPssParams | { name: string };
}

const ALGORITHMS: Record<string, Algorithm> = {
  ES256: { key: { name: "ECDSA", namedCurve: "P-256" }, signature: { name: "ECDSA", hash: "SHA-256" } },
  ES384: { key: { name: "ECDSA", namedCurve: "P-384" }, signature: { name: "ECDSA", hash: "SHA-384" } },
  EdDSA: { key: { name: "Ed25519" }, signature: { name: "Ed25519" } },
  RS256: { key: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, signature: { name: "RSASSA-PKCS1-v1_5" } },
  PS256: { key: { name: "RSA-PSS", hash: "SHA-256" }, signature: { name: "RSA-PSS", saltLength: 32 } },
};
const MARGIN_S = 30; // a token is renewed this long before it expires
const encoder = new TextEncoder();

/** Return a `fetch` that sends requests to the HTTP API as the holder of a credential, with tokens of this scope. */
export function signedFetch(
  credential: Credential,
  scope: string,
): (url: string, init: RequestInit) => Promise<Response> {
  const signer = new Signer(credential);
  let token: Promise<Token> | undefined;

  return async (url, init) => {
    if (new URL(url).origin !== new URL(credential.issuer).origin) {
      throw new TypeError(`the credential is for ${credential.issuer}, not for ${url}`);
    }
    if (token === undefined || (await token.catch(() => undefined).then((one) => (one?.until ?? 0) <= Date.now()))) {
      token = requestToken(signer, credential, scope);
    }
    const { value } = await token;
    return signer.send(url, init, value);
  };
}

interface Token {
  value: string;
  /** Milliseconds since the epoch. */
  until: number;
}

async function requestToken(signer: Signer, credential: Credential, scope: string): Promise<Token> {
  const { client_id, issuer } = credential;
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: client_id, sub: client_id, aud: issuer, iat: now, exp: now + 60 };
  const form = async () =>
    new URLSearchParams({
      grant_type: "client_credentials",
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      client_assertion: await signer.sign({}, { ...claims, jti: crypto.randomUUID() }),
      resource: `${issuer}/api/v1`,
      scope,
    });
  const response = await signer.send(`${issuer}/token`, { method: "POST" }, undefined, form);
  const answer = (await response.json()) as { access_token: string; expires_in: number; error_description?: string };
  if (!response.ok) throw new Error(`no token: ${answer.error_description ?? response.status}`);
  return { value: answer.access_token, until: Date.now() + (answer.expires_in - MARGIN_S) * 1000 };
}

/** Signs as one key; it keeps the newest nonce of the server. */
class Signer {
  readonly #algorithm: Algorithm;
  readonly #header: { alg: string; kid: string };
  readonly #publicJwk: JsonWebKey;
  readonly #key: Promise<CryptoKey>;
  #nonce: string | undefined;

  constructor({ client_id, issuer, kid, alg = "", use, key_ops, ...jwk }: Credential) {
    const algorithm = ALGORITHMS[alg];
    if (algorithm === undefined) throw new TypeError(`the algorithm ${JSON.stringify(alg)} is not supported`);
    const { kty, crv, x, y, n, e } = jwk;
    this.#algorithm = algorithm;
    this.#header = { alg, kid };
    this.#publicJwk = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e })) as JsonWebKey;
    this.#key = crypto.subtle.importKey("jwk", jwk, algorithm.key, false, ["sign"]);
  }

  /** Send a request with a proof, and once again if the server wants a nonce in it. */
  async send(
    url: string,
    init: RequestInit,
    token: string | undefined,
    body?: () => Promise<URLSearchParams>,
  ): Promise<Response> {
    for (let attempt = 1; ; attempt += 1) {
      const headers = new Headers(init.headers);
      headers.set("dpop", await this.#prove(init.method ?? "GET", url, token));
      if (token !== undefined) headers.set("authorization", `DPoP ${token}`);
      const response = await fetch(url, { ...init, headers, ...(body && { body: await body() }) });
      const nonce = response.headers.get("dpop-nonce");
      const wantsNonce = nonce !== null && nonce !== this.#nonce && [400, 401].includes(response.status);
      this.#nonce = nonce ?? this.#nonce;
      if (!wantsNonce || attempt === 2) return response;
      await response.body?.cancel();
    }
  }

  async #prove(method: string, url: string, token: string | undefined): Promise<string> {
    const { origin, pathname } = new URL(url);
    const claims: Record<string, unknown> = {
      htm: method,
      htu: origin + pathname,
      iat: Math.floor(Date.now() / 1000),
      jti: crypto.randomUUID(),
      nonce: this.#nonce,
    };
    if (token !== undefined) {
      claims["ath"] = base64url(await crypto.subtle.digest("SHA-256", encoder.encode(token)));
    }
    return this.sign({ typ: "dpop+jwt", jwk: this.#publicJwk }, claims);
  }

  /** Return a JWS in compact form. */
  async sign(header: Record<string, unknown>, claims: Record<string, unknown>): Promise<string> {
    const parts = [{ ...this.#header, ...header }, claims];
    const input = parts.map((part) => base64url(encoder.encode(JSON.stringify(part)))).join(".");
    const signature = await crypto.subtle.sign(this.#algorithm.signature, await this.#key, encoder.encode(input));
    return `${input}.${base64url(signature)}`;
  }
}

function base64url(bytes: ArrayBuffer | Uint8Array): string {
  const text = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

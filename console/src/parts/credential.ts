/** Keys that are made in the browser: the private half goes into a file of the person, never to the server. */

import { download } from "./download";

export interface NewKey {
  publicJwk: JsonWebKey;
  /** Save the credential file of this key, as `ostiary agent create --generate-key FILE` does. */
  save: (name: string, clientId: string, issuer: string) => void;
}

/** Make a key for ES256 (RFC 7518 section 3.4). */
export async function newKey(): Promise<NewKey> {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const { kty, crv, x, y, d } = await crypto.subtle.exportKey("jwk", pair.privateKey);
  return {
    publicJwk: { kty: kty!, crv: crv!, x: x!, y: y! },
    save: (name, clientId, issuer) => {
      const credential = { kty, crv, x, y, d, client_id: clientId, issuer };
      download(`${name}.json`, "application/json", JSON.stringify(credential));
    },
  };
}

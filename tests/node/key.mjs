// The agent's client key, a private JWK in a file, as Web Crypto wants it: it signs client assertions and DPoP proofs.

import { readFile } from 'node:fs/promises'

const ALGORITHMS = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  ES384: { name: 'ECDSA', namedCurve: 'P-384' },
  EdDSA: { name: 'Ed25519' },
  Ed25519: { name: 'Ed25519' },
  RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  PS256: { name: 'RSA-PSS', hash: 'SHA-256' },
}

export async function loadKey(file) {
  const { kid, alg, kty, crv, x, y, n, e, ...secret } = JSON.parse(await readFile(file, 'utf8'))
  const known = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e })) // drops what this type of key does not have
  const read = (jwk, extractable, usage) =>
    crypto.subtle.importKey('jwk', jwk, ALGORITHMS[alg], extractable, [usage])
  const { use, key_ops, ...numbers } = secret
  return {
    kid,
    privateKey: await read({ ...known, ...numbers }, false, 'sign'),
    publicKey: await read(known, true, 'verify'),
  }
}

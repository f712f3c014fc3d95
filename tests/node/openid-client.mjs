// The same walk with openid-client, the higher level of the two: it finds and retries nonces by itself.
// Environment and output as in oauth4webapi.mjs, without `claims` and `nonceRetries`.

import * as client from 'openid-client'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY, RESOURCE, SCOPE, PROTECTED } = process.env

const key = await loadKey(KEY)
const config = await client.discovery(
  new URL(ISSUER),
  CLIENT_ID,
  undefined,
  client.PrivateKeyJwt({ key: key.privateKey, kid: key.kid }),
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
)
const DPoP = client.getDPoPHandle(config, key)

const token = await client.clientCredentialsGrant(config, { resource: RESOURCE, scope: SCOPE }, { DPoP })

let fetched
if (PROTECTED) {
  const url = new URL(PROTECTED)
  const response = await client.fetchProtectedResource(config, token.access_token, url, 'GET', null, undefined, { DPoP })
  fetched = response.status
}

const before = await client.tokenIntrospection(config, token.access_token)
await client.tokenRevocation(config, token.access_token)
const after = await client.tokenIntrospection(config, token.access_token)

const { access_token, ...answer } = token
console.log(JSON.stringify({ answer, fetched, before, after, thumbprint: await DPoP.calculateThumbprint() }))

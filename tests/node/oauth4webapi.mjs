// An OAuth client made by others meets a running server: discovery, client credentials with private_key_jwt and DPoP,
// the resource server's check of the token, introspection, revocation. Prints one line of JSON.
// Environment: ISSUER, CLIENT_ID, KEY (file), RESOURCE, SCOPE; PROTECTED (URL, optional) is fetched with a proof.

import * as oauth from 'oauth4webapi'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY, RESOURCE, SCOPE, PROTECTED } = process.env
const local = { [oauth.allowInsecureRequests]: true }

const issuer = new URL(ISSUER)
const server = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...local }),
)
const key = await loadKey(KEY)
const client = { client_id: CLIENT_ID }
const authentication = oauth.PrivateKeyJwt({ key: key.privateKey, kid: key.kid })
const dpop = oauth.DPoP(client, key)

let nonceRetries = 0
async function withNonce(send) {
  try {
    return await send()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    nonceRetries += 1
    return await send()
  }
}

const token = await withNonce(async () =>
  oauth.processClientCredentialsResponse(
    server,
    client,
    await oauth.clientCredentialsGrantRequest(
      server,
      client,
      authentication,
      { resource: RESOURCE, scope: SCOPE },
      { DPoP: dpop, ...local },
    ),
  ),
)

// The library as a resource server: it fetches our keys and checks the token (RFC 9068) and the proof (RFC 9449).
let request
await oauth.protectedResourceRequest(token.access_token, 'GET', new URL(`${RESOURCE}/probe`), undefined, undefined, {
  DPoP: dpop,
  ...local,
  [oauth.customFetch]: async (url, options) => {
    request = new Request(url, options)
    return new Response()
  },
})
const claims = await oauth.validateJwtAccessToken(server, request, RESOURCE, { requireDPoP: true, ...local })

let fetched
if (PROTECTED) {
  const response = await withNonce(() =>
    oauth.protectedResourceRequest(token.access_token, 'GET', new URL(PROTECTED), undefined, undefined, {
      DPoP: dpop,
      ...local,
    }),
  )
  fetched = response.status
}

const introspect = async () =>
  oauth.processIntrospectionResponse(
    server,
    client,
    await oauth.introspectionRequest(server, client, authentication, token.access_token, local),
  )

const before = await introspect()
await oauth.processRevocationResponse(
  await oauth.revocationRequest(server, client, authentication, token.access_token, local),
)
const after = await introspect()

const { access_token, ...answer } = token
console.log(
  JSON.stringify({ answer, claims, fetched, before, after, nonceRetries, thumbprint: await dpop.calculateThumbprint() }),
)

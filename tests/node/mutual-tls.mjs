// OAuth clients made by others authenticate with a client certificate (RFC 8705): openid-client, and oauth4webapi.
// Environment: LIBRARY, ISSUER, CLIENT_ID, CERTIFICATE and KEY (PEM files), AUTHORITY (PEM file), RESOURCE, SCOPE.
// Prints one line of JSON: the token response, and the introspection before and after the revocation.

import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

const { LIBRARY, ISSUER, CLIENT_ID, CERTIFICATE, KEY, AUTHORITY, RESOURCE, SCOPE } = process.env
const files = { cert: readFileSync(CERTIFICATE), key: readFileSync(KEY), ca: readFileSync(AUTHORITY) }

/** `fetch` of Node has no client certificates, so the request is sent by `node:https`. */
function fetch(url, { method = 'GET', headers = {}, body }) {
  return new Promise((resolve, reject) => {
    const plain = Object.fromEntries(new Headers(headers))
    const sending = request(url, { method, headers: plain, agent: false, ...files }, (answer) => {
      const parts = []
      answer.on('data', (part) => parts.push(part))
      answer.on('end', () => {
        const content = Buffer.concat(parts)
        resolve(new Response(content, { status: answer.statusCode, headers: new Headers(answer.headers) }))
      })
    })
    sending.on('error', reject)
    sending.end(body === undefined || body === null ? undefined : String(body))
  })
}

async function withOpenidClient() {
  const config = await openid.discovery(
    new URL(ISSUER),
    CLIENT_ID,
    { use_mtls_endpoint_aliases: true },
    openid.TlsClientAuth(),
    { algorithm: 'oauth2', [openid.customFetch]: fetch },
  )
  const token = await openid.clientCredentialsGrant(config, { resource: RESOURCE, scope: SCOPE })
  const before = await openid.tokenIntrospection(config, token.access_token)
  await openid.tokenRevocation(config, token.access_token)
  return { answer: token, before, after: await openid.tokenIntrospection(config, token.access_token) }
}

async function withOauth4webapi() {
  const issuer = new URL(ISSUER)
  const options = { [oauth.customFetch]: fetch }
  const server = await oauth.processDiscoveryResponse(
    issuer,
    await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options }),
  )
  const client = { client_id: CLIENT_ID, use_mtls_endpoint_aliases: true }
  const authentication = oauth.TlsClientAuth()
  const token = await oauth.processClientCredentialsResponse(
    server,
    client,
    await oauth.clientCredentialsGrantRequest(
      server,
      client,
      authentication,
      { resource: RESOURCE, scope: SCOPE },
      options,
    ),
  )
  const introspect = async () =>
    oauth.processIntrospectionResponse(
      server,
      client,
      await oauth.introspectionRequest(server, client, authentication, token.access_token, options),
    )
  const before = await introspect()
  await oauth.processRevocationResponse(
    await oauth.revocationRequest(server, client, authentication, token.access_token, options),
  )
  return { answer: token, before, after: await introspect() }
}

const seen = await (LIBRARY === 'openid-client' ? withOpenidClient() : withOauth4webapi())
console.log(JSON.stringify(seen))

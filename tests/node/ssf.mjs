// A receiver of signals made by others meets a running server: it finds the transmitter (SSF 1.0 section 7) and the
// scopes (RFC 9728), gets a token (private_key_jwt, DPoP), makes a stream that it polls, has it verified, and reads
// tokens with the keys that the transmitter publishes. Prints one line of JSON when the stream stands and is verified,
// and another when two sessions were revoked. Environment: ISSUER, CLIENT_ID, KEY (file).

import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY } = process.env
const local = { [oauth.allowInsecureRequests]: true }
const read = async (url) => (await fetch(url)).json()

const transmitter = await read(`${ISSUER}/.well-known/ssf-configuration`)
const api = new URL(transmitter.configuration_endpoint)
const resource = await read(`${ISSUER}/.well-known/oauth-protected-resource/api/v1`)
const scope = resource.scopes_supported.filter((name) => name.startsWith('ssf.')).join(' ')

const issuer = new URL(resource.authorization_servers[0])
const server = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...local }),
)
const key = await loadKey(KEY)
const client = { client_id: CLIENT_ID }
const dpop = oauth.DPoP(client, key)

async function withNonce(send) {
  try {
    return await send()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
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
      oauth.PrivateKeyJwt({ key: key.privateKey, kid: key.kid }),
      { resource: resource.resource, scope },
      { DPoP: dpop, ...local },
    ),
  ),
)

async function call(method, url, body) {
  const response = await withNonce(() =>
    oauth.protectedResourceRequest(
      token.access_token,
      method,
      new URL(url),
      new Headers({ 'content-type': 'application/json' }),
      body === undefined ? undefined : JSON.stringify(body),
      { DPoP: dpop, ...local },
    ),
  )
  const text = await response.text()
  return { status: response.status, body: text ? JSON.parse(text) : undefined }
}

const made = await call('POST', api, { description: 'made by others' })
const stream = made.body
const keys = jose.createRemoteJWKSet(new URL(transmitter.jwks_uri))
const heard = []
let acks = []

async function poll() {
  const answer = await call('POST', stream.delivery.endpoint_url, { ack: acks, maxEvents: 10 })
  acks = Object.keys(answer.body.sets)
  for (const [jti, set] of Object.entries(answer.body.sets)) {
    const { payload, protectedHeader } = await jose.jwtVerify(set, keys, {
      typ: 'secevent+jwt',
      algorithms: ['RS256'],
      issuer: transmitter.issuer,
      audience: stream.aud,
    })
    heard.push({ jti, payload, protectedHeader })
  }
}

const types = () => heard.flatMap(({ payload }) => Object.keys(payload.events).map((uri) => uri.split('/').pop()))
const state = 'a state of our own'
const asked = await call('POST', transmitter.verification_endpoint, { stream_id: stream.stream_id, state })
while (!types().includes('verification')) await poll()
console.log(JSON.stringify({ made: made.status, asked: asked.status, stream, verified: heard[0].payload }))
while (types().filter((type) => type === 'session-revoked').length < 2) await poll()
await call('POST', stream.delivery.endpoint_url, { ack: acks, returnImmediately: true })
const ended = await call('DELETE', `${transmitter.configuration_endpoint}?stream_id=${stream.stream_id}`)
console.log(JSON.stringify({ heard, ended: ended.status }))

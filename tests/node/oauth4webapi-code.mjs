// oauth4webapi goes through the code flow, each step checked by its own function; environment as in
// openid-client-code.mjs. The client sends its request by the query, and gets bearer tokens for userinfo alone.

import { createInterface } from 'node:readline/promises'
import * as oauth from 'oauth4webapi'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY, CALLBACK } = process.env
const local = { [oauth.allowInsecureRequests]: true }

const issuer = new URL(ISSUER)
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, local))
const key = await loadKey(KEY)
const client = { client_id: CLIENT_ID, require_auth_time: true }
const authentication = oauth.PrivateKeyJwt({ key: key.privateKey, kid: key.kid })

const verifier = oauth.generateRandomCodeVerifier()
const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()]
const url = new URL(server.authorization_endpoint)
url.search = new URLSearchParams({
  response_type: 'code',
  client_id: CLIENT_ID,
  redirect_uri: CALLBACK,
  scope: 'openid profile',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
  nonce,
})
console.log(url.href)
const { value: arrived } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()

const parameters = oauth.validateAuthResponse(server, client, new URL(arrived), state)
const response = await oauth.authorizationCodeGrantRequest(
  server,
  client,
  authentication,
  parameters,
  CALLBACK,
  verifier,
  local,
)
const tokens = await oauth.processAuthorizationCodeResponse(server, client, response, {
  expectedNonce: nonce,
  requireIdToken: true,
})
await oauth.validateApplicationLevelSignature(server, response, local)
const claims = oauth.getValidatedIdTokenClaims(tokens)
const userinfo = await oauth.processUserInfoResponse(
  server,
  client,
  claims.sub,
  await oauth.userInfoRequest(server, client, tokens.access_token, local),
)
console.log(JSON.stringify({ type: tokens.token_type, scope: tokens.scope, claims, userinfo }))
process.exit(0)

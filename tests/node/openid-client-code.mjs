// openid-client goes through the code flow of an OpenID Provider with PAR, PKCE, DPoP and private_key_jwt.
// Prints the authorization URL; reads the URL at which the person arrived from its input; then prints one line of JSON.
// Environment: ISSUER, CLIENT_ID, KEY (file), RESOURCE, SCOPE, CALLBACK, LOGOUT.

import { createInterface } from 'node:readline/promises'
import * as client from 'openid-client'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY, RESOURCE, SCOPE, CALLBACK, LOGOUT } = process.env

const key = await loadKey(KEY)
const config = await client.discovery(
  new URL(ISSUER),
  CLIENT_ID,
  undefined,
  client.PrivateKeyJwt({ key: key.privateKey, kid: key.kid }),
  { execute: [client.allowInsecureRequests] },
)
const DPoP = client.getDPoPHandle(config, key)
const pkceCodeVerifier = client.randomPKCECodeVerifier()
const [expectedState, expectedNonce] = [client.randomState(), client.randomNonce()]
const url = await client.buildAuthorizationUrlWithPAR(
  config,
  {
    redirect_uri: CALLBACK,
    scope: SCOPE,
    resource: RESOURCE,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: expectedState,
    nonce: expectedNonce,
    max_age: '3600',
  },
  { DPoP },
)
console.log(url.href)
const [arrived] = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next().then(({ value }) => [value])

const tokens = await client.authorizationCodeGrant(
  config,
  new URL(arrived),
  { pkceCodeVerifier, expectedState, expectedNonce, maxAge: 3600, idTokenExpected: true },
  { resource: RESOURCE },
  { DPoP },
)
const claims = tokens.claims()
const renewed = await client.refreshTokenGrant(config, tokens.refresh_token, { resource: `${ISSUER}/userinfo` }, { DPoP })
const userinfo = await client.fetchUserInfo(config, renewed.access_token, claims.sub, { DPoP })
const logout = client.buildEndSessionUrl(config, { post_logout_redirect_uri: LOGOUT, id_token_hint: tokens.id_token })
console.log(JSON.stringify({ type: tokens.token_type, scope: tokens.scope, claims, userinfo, logout: logout.href }))
process.exit(0)

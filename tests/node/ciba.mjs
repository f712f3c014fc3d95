// openid-client asks a person by CIBA, polls until there is an answer, and says what it got.
// Environment: ISSUER, CLIENT_ID, KEY, RESOURCE, SCOPE, PERSON.

import * as client from 'openid-client'
import { loadKey } from './key.mjs'

const { ISSUER, CLIENT_ID, KEY, RESOURCE, SCOPE, PERSON } = process.env

const key = await loadKey(KEY)
const config = await client.discovery(
  new URL(ISSUER),
  CLIENT_ID,
  undefined,
  client.PrivateKeyJwt({ key: key.privateKey, kid: key.kid }),
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
)
const DPoP = client.getDPoPHandle(config, key)
const asked = await client.initiateBackchannelAuthentication(config, {
  scope: SCOPE, resource: RESOURCE, login_hint: PERSON, binding_message: 'W7',
})
const { access_token, ...answer } = await client.pollBackchannelAuthenticationGrant(config, asked, undefined, { DPoP })
const claims = JSON.parse(Buffer.from(access_token.split('.')[1], 'base64url'))
console.log(JSON.stringify({ interval: asked.interval, answer, claims, thumbprint: await DPoP.calculateThumbprint() }))

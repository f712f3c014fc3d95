// The client of the official MCP TypeScript SDK, with its own providers for client credentials: it lists tools, reads a
// file and tries to write one. Environment: SERVER, ISSUER, CLIENT_ID, and KEY (a file) or CLIENT_SECRET.
// Output: what came of each, or `refused`: why it got no token.

import { readFile } from 'node:fs/promises'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { ClientCredentialsProvider, PrivateKeyJwtProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js'

const { SERVER, ISSUER, CLIENT_ID, KEY, CLIENT_SECRET } = process.env

const named = { clientId: CLIENT_ID, expectedIssuer: ISSUER }
const authProvider = CLIENT_SECRET
  ? new ClientCredentialsProvider({ ...named, clientSecret: CLIENT_SECRET })
  : new PrivateKeyJwtProvider({
      ...named,
      privateKey: JSON.parse(await readFile(KEY, 'utf8')),
      algorithm: 'ES256',
    })

const client = new Client({ name: 'files-reader', version: '1.0.0' })
const seen = {}
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(SERVER), { authProvider }))
  seen.tools = (await client.listTools()).tools.map((tool) => tool.name)
  seen.read = (await client.callTool({ name: 'read_file', arguments: { path: '/a' } })).content[0].text
  seen.write = await client.callTool({ name: 'write_file', arguments: { path: '/a' } }).catch((error) => error.message)
  const { access_token, ...token } = authProvider.tokens()
  seen.token = token
} catch (error) {
  seen.refused = error.message
}
await client.close()
console.log(JSON.stringify(seen))

// The client of the official MCP TypeScript SDK, with its own OAuth client, that nobody registered: it registers itself,
// writes the authorization URL to standard output, and reads the URL of the answer from standard input. Environment:
// SERVER, and CLIENT_METADATA_URL where it has a metadata document. Last line of output: what it saw.

import { createInterface } from 'node:readline/promises'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'

const { SERVER, CLIENT_METADATA_URL } = process.env
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const kept = {}

const authProvider = {
  redirectUrl: 'http://localhost:3030/callback',
  clientMetadataUrl: CLIENT_METADATA_URL,
  clientMetadata: {
    client_name: 'Example',
    redirect_uris: ['http://localhost:3030/callback'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_post',
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  state: () => 'the state',
  redirectToAuthorization: (url) => console.log(String(url)),
}

async function withAuthorization(work) {
  const transport = new StreamableHTTPClientTransport(new URL(SERVER), { authProvider })
  const client = new Client({ name: 'files-reader', version: '1.0.0' })
  try {
    await client.connect(transport)
    return await work(client)
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error
    const answer = new URL((await lines.next()).value)
    await transport.finishAuth(answer.searchParams.get('code'))
    return await withAuthorization(work)
  } finally {
    await client.close().catch(() => {})
  }
}

const seen = {}
try {
  await withAuthorization(async (client) => {
    seen.tools = (await client.listTools()).tools.map((tool) => tool.name)
    seen.read = (await client.callTool({ name: 'read_file', arguments: { path: '/a' } })).content[0].text
  })
  seen.client = kept.client
  const { access_token, refresh_token, ...token } = kept.tokens
  seen.token = { ...token, refreshes: Boolean(refresh_token) }
} catch (error) {
  seen.failed = String(error.stack ?? error)
}
console.log(JSON.stringify(seen))
process.exit(0)

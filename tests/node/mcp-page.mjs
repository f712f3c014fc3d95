// A single-page MCP client: the official SDK with its own OAuth client, in a browser. It registers itself, sends the
// person to the authorization server, comes back with the code, and calls a tool. What it saw is the text of the page.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'

const here = new URL(location.href)
const kept = (name, value) =>
  value === undefined ? JSON.parse(sessionStorage.getItem(name) ?? 'null') ?? undefined : sessionStorage.setItem(name, JSON.stringify(value))
if (here.searchParams.has('server')) kept('server', here.searchParams.get('server'))
const redirectUrl = here.origin + here.pathname

const authProvider = {
  redirectUrl,
  clientMetadata: {
    client_name: 'Page',
    redirect_uris: [redirectUrl],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  clientInformation: () => kept('client'),
  saveClientInformation: (client) => kept('client', client),
  tokens: () => kept('tokens'),
  saveTokens: (tokens) => kept('tokens', tokens),
  codeVerifier: () => kept('verifier'),
  saveCodeVerifier: (verifier) => kept('verifier', verifier),
  state: () => 'the state',
  redirectToAuthorization: (url) => location.assign(url),
}

const show = (text) => {
  document.querySelector('output').textContent = text
}

async function run() {
  const server = new URL(kept('server'))
  const code = here.searchParams.get('code')
  if (code) {
    if (here.searchParams.get('state') !== 'the state') throw new Error('the state is another')
    await new StreamableHTTPClientTransport(server, { authProvider }).finishAuth(code)
    history.replaceState(null, '', redirectUrl)
  }
  const client = new Client({ name: 'page', version: '1.0.0' })
  await client.connect(new StreamableHTTPClientTransport(server, { authProvider }))
  const tools = (await client.listTools()).tools.map((tool) => tool.name)
  const result = await client.callTool({ name: 'read_file', arguments: { path: '/a' } })
  show(JSON.stringify({ tools, text: result.content[0].text, client: kept('client').client_id, scope: kept('tokens').scope }))
}

run().catch((error) => {
  if (!(error instanceof UnauthorizedError)) show(JSON.stringify({ failed: String(error.stack ?? error) }))
})

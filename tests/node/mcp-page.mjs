// A single-page MCP client: the official SDK with its own OAuth client, in a browser. It registers itself, sends the
// person to the authorization server, comes back with the code, and calls a tool. What it saw is the text of the page.
// If the tool needs another scope, the SDK sends the person to the authorization server again.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'

const here = new URL(location.href)
const kept = (name, value) =>
  value === undefined ? JSON.parse(sessionStorage.getItem(name) ?? 'null') ?? undefined : sessionStorage.setItem(name, JSON.stringify(value))
for (const name of ['server', 'tool']) {
  if (here.searchParams.has(name)) kept(name, here.searchParams.get(name))
}
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
  const result = await client.callTool({ name: kept('tool'), arguments: { path: '/a' } })
  show(JSON.stringify({ tools, text: result.content[0].text, client: kept('client').client_id, scope: kept('tokens').scope }))
}

function explain(error) {
  if (error instanceof UnauthorizedError) return
  const { refresh_token, ...tokens } = kept('tokens') ?? {}
  if (error.code === 403 && refresh_token) {
    kept('tokens', tokens) // with a refresh token, the SDK renews the same scopes and asks nobody
    return run().catch(explain)
  }
  show(JSON.stringify({ failed: String(error.stack ?? error) }))
}

run().catch(explain)

// Calls operations of a running server with the built package, and prints one line of JSON.
// Environment: PACKAGE (folder), CREDENTIAL (file), SCOPE, TEAM (name of a new team).

import { readFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'

const { PACKAGE, CREDENTIAL, SCOPE, TEAM } = process.env
const { Client, Refusal, signedFetch } = await import(pathToFileURL(`${PACKAGE}/dist/index.js`))
const credential = JSON.parse(await readFile(CREDENTIAL, 'utf8'))
const client = new Client({ url: credential.issuer, fetch: signedFetch(credential, SCOPE) })

async function refusal(act) {
  try {
    await act()
  } catch (error) {
    if (error instanceof Refusal) return { status: error.status, code: error.code, hasId: !!error.requestId }
    return error.name
  }
}

const team = await client.call('POST /api/v1/teams', { body: { name: TEAM, members: ['olga'] } })
const names = []
for await (const row of client.rows('GET /api/v1/persons', { query: { limit: 1 } })) names.push(row.name)
console.log(
  JSON.stringify({
    team: team.name,
    members: (await client.call('GET /api/v1/teams/{name}', { path: { name: TEAM } })).members,
    names,
    missing: await refusal(() => client.call('GET /api/v1/agents/{name}', { path: { name: 'a b/keys?' } })),
    traversal: await refusal(() => client.call('GET /api/v1/agents/{name}', { path: { name: '..' } })),
    conflict: await refusal(() => client.call('POST /api/v1/teams', { body: { name: TEAM, members: [] } })),
    normalised: (await signedFetch(credential, SCOPE)(`${credential.issuer}/api/v1/./teams/${TEAM}#y`, {})).status,
    elsewhere: await refusal(() => signedFetch(credential, 'ostiary:read')('https://other.example/x', {})),
  }),
)

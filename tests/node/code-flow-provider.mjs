// An OpenID provider made by others, with PAR, DPoP and rotated refresh tokens: what `benchmarks.http_code_flow` measures.
// argv: a file with { clients, resource, accounts } (JSON). Each account signs in by `login_hint`, without a page, and has consented.
// Its store is a map in memory: nothing survives the process. Prints its port; serves until its input ends.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { clients, resource, accounts } = JSON.parse(readFileSync(process.argv[2]));
const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const stored = new Map();
const byUid = new Map();

class MemoryAdapter {
  constructor(name) {
    this.name = name;
  }
  key(id) {
    return `${this.name}:${id}`;
  }
  async upsert(id, payload) {
    stored.set(this.key(id), payload);
    if (payload.uid) byUid.set(payload.uid, id);
  }
  async find(id) {
    return stored.get(this.key(id));
  }
  async findByUid(uid) {
    return this.find(byUid.get(uid));
  }
  async findByUserCode() {}
  async consume(id) {
    stored.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    stored.delete(this.key(id));
  }
  async revokeByGrantId(grantId) {
    for (const [key, value] of stored) if (value.grantId === grantId) stored.delete(key);
  }
}

const provider = new Provider(issuer, {
  adapter: MemoryAdapter,
  clients,
  scopes: ["openid", "offline_access"],
  clientAuthMethods: ["private_key_jwt"],
  features: {
    devInteractions: { enabled: false },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
    pushedAuthorizationRequests: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: "files:read", audience: resource, accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } }),
      useGrantedResource: () => true,
    },
  },
  issueRefreshToken: async () => true,
  rotateRefreshToken: () => true,
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, sub) => accounts.includes(sub) && { accountId: sub, claims: () => ({ sub }) },
  loadExistingGrant: async (context) => {
    const { client, session } = context.oidc;
    const known = session.grantIdFor(client.clientId);
    if (known) return context.oidc.provider.Grant.find(known);
    const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope("openid offline_access");
    grant.addResourceScope(resource, "files:read");
    await grant.save();
    return grant;
  },
  pkce: { required: () => true },
  cookies: { keys: ["a key of a benchmark"] },
  jwks: { keys: [JSON.parse(process.env.ES256_KEY), JSON.parse(process.env.RS256_KEY)] },
});
const serve = provider.callback();
server.on("request", async (request, response) => {
  if (!request.url.startsWith("/interaction/")) return serve(request, response);
  const { params } = await provider.interactionDetails(request, response);
  return provider.interactionFinished(request, response, { login: { accountId: params.login_hint } });
});
console.log(server.address().port);
process.stdin.resume().on("end", () => process.exit(0));

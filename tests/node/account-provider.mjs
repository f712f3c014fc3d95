// An authorization server made by others, at which people have accounts: it rotates refresh tokens, and ends a grant
// whose refresh token is used twice. The account that `login_hint` names logs in without a page, or the first one.
// argv: { clients, accounts } (JSON), accounts by `sub`. Prints its port; serves until its input ends.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { clients, accounts } = JSON.parse(process.argv[2]);
const scopes = ["notes:read", "notes:write"];
const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: clients.map((client) => ({
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    scope: `openid ${scopes.join(" ")}`,
    id_token_signed_response_alg: "ES256",
    ...client,
  })),
  scopes: ["openid", ...scopes],
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, sub) => accounts.includes(sub) && { accountId: sub, claims: () => ({ sub }) },
  loadExistingGrant: async (context) => {
    const { client, session } = context.oidc;
    const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope(`openid ${scopes.join(" ")}`);
    await grant.save();
    return grant;
  },
  issueRefreshToken: () => true,
  rotateRefreshToken: () => true,
  ttl: { AccessToken: 3600, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, AuthorizationCode: 60 },
  pkce: { required: () => true },
  clientAuthMethods: ["client_secret_basic", "private_key_jwt"],
  cookies: { keys: ["a key of a test"] },
  jwks: { keys: [JSON.parse(process.env.SIGNING_KEY)] },
});
const serve = provider.callback();
server.on("request", async (request, response) => {
  if (!request.url.startsWith("/interaction/")) return serve(request, response);
  const { params } = await provider.interactionDetails(request, response);
  const accountId = params.login_hint ?? accounts[0];
  return provider.interactionFinished(request, response, { login: { accountId } });
});
console.log(server.address().port);
process.stdin.resume().on("end", () => process.exit(0));

// An OpenID provider made by others, for people: each logs in as the account that `login_hint` names, without a page.
// argv: { clients, accounts } (JSON), accounts by `sub` with their claims, and `acr` and `amr` of their logins.
// Prints its port; serves until its input ends.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { clients, accounts } = JSON.parse(process.argv[2]);
const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients,
  claims: { openid: ["sub", "acr", "amr"], profile: ["name", "preferred_username"], email: ["email", "email_verified"], groups: ["groups"], auth_time: null },
  scopes: ["openid", "profile", "email", "groups"],
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, sub) => accounts[sub] && { accountId: sub, claims: () => ({ sub, ...accounts[sub].claims }) },
  loadExistingGrant: async (context) => {
    const { client, session } = context.oidc;
    const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope("openid profile email groups");
    await grant.save();
    return grant;
  },
  pkce: { required: () => true },
  cookies: { keys: ["a key of a test"] },
  jwks: { keys: [JSON.parse(process.env.SIGNING_KEY)] },
});
const serve = provider.callback();
server.on("request", async (request, response) => {
  if (!request.url.startsWith("/interaction/")) return serve(request, response);
  const { params } = await provider.interactionDetails(request, response);
  const { acr, amr } = accounts[params.login_hint];
  return provider.interactionFinished(request, response, { login: { accountId: params.login_hint, acr, amr } });
});
console.log(server.address().port);
process.stdin.resume().on("end", () => process.exit(0));

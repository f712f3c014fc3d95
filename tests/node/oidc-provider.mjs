// An authorization server made by others. argv: a configuration (JSON). Prints its port; serves until its input ends.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { clients, dpop, nonce, form, resource } = JSON.parse(process.argv[2]);
const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: clients.map((client) => ({ redirect_uris: [], response_types: [], grant_types: ["client_credentials"], id_token_signed_response_alg: "ES256", ...client })),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: dpop, nonceSecret: nonce ? Buffer.alloc(32, 7) : undefined, requireNonce: () => nonce },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, uri) => {
        if (uri !== resource) throw new Error("unknown resource");
        return { scope: "files:read", audience: uri, accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } };
      },
      useGrantedResource: () => true,
    },
  },
  scopes: ["files:read"],
  clientAuthMethods: [...new Set(clients.map((client) => client.token_endpoint_auth_method))],
  jwks: { keys: [JSON.parse(process.env.SIGNING_KEY)] },
});
const refuse = (response) => {
  response.writeHead(401, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: "invalid_client" }));
};
const serve = provider.callback();
server.on("request", (request, response) => {
  // Servers differ in the assertions that they take; `form` is what this one insists on, beside its own checks.
  if (!form || request.method !== "POST") return serve(request, response);
  let text = "";
  request.on("data", (part) => (text += part));
  request.on("end", () => {
    const sent = new URLSearchParams(text);
    const parts = sent.get("client_assertion").split(".").slice(0, 2);
    const [head, claims] = parts.map((part) => JSON.parse(Buffer.from(part, "base64url")));
    const audience = form.audience === "issuer" ? issuer : `${issuer}/token`;
    if (head.typ !== form.typ || claims.aud !== audience) return refuse(response);
    request.body = Object.fromEntries(sent);
    return serve(request, response);
  });
});
console.log(server.address().port);
process.stdin.resume().on("end", () => process.exit(0));

// An authorization server made by others, at which clients register and manage themselves (RFC 7591, RFC 7592).
// argv: { rotatesSecret, rotatesToken } (JSON): what an update changes. Prints its port and an initial access token;
// serves until its input ends.
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { rotatesSecret, rotatesToken } = JSON.parse(process.argv[2]);
const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address();
const provider = new Provider(`http://127.0.0.1:${port}`, {
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    registration: {
      enabled: true,
      initialAccessToken: true,
      policies: {
        rotation: (context, properties) => {
          if (context.method === "PUT" && rotatesSecret) properties.client_secret = randomBytes(32).toString("base64url");
        },
      },
    },
    registrationManagement: { enabled: true, rotateRegistrationAccessToken: rotatesToken },
  },
  clientAuthMethods: ["client_secret_basic"],
  jwks: { keys: [JSON.parse(process.env.SIGNING_KEY)] },
});
const token = await new provider.InitialAccessToken({ policies: ["rotation"] }).save();
server.on("request", provider.callback());
console.log(`${port} ${token}`);
process.stdin.resume().on("end", () => process.exit(0));

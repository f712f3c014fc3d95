// The official MCP client of TypeScript, which knows nothing of DPoP, with the URL of a proxy and with that of the server.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const connected = async (url) => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return client;
};
const failure = (promise) => promise.then(() => null, (error) => error);

const client = await connected(process.env.URL);
const tools = (await client.listTools()).tools.map((tool) => tool.name).sort();
const read = await client.callTool({ name: "read_file", arguments: { path: "/a" } });
const denied = await failure(client.callTool({ name: "write_file", arguments: { path: "/a" } }));
await client.close();
const direct = await failure(connected(process.env.DIRECT));
console.log(JSON.stringify({ tools, read: JSON.stringify(read), denied: denied?.code, direct: String(direct) }));

// The MCP conformance suite imports `globSync`, which Node has since version 22, for a command that no test runs.
// `node --import` this file: older versions get one that fails.
import * as fs from "node:fs";
import { register } from "node:module";

const data = (source) => `data:text/javascript,${encodeURIComponent(source)}`;
const filled = data(`
  export * from "node:fs";
  export { default } from "node:fs";
  export const globSync = () => { throw new Error("globSync needs Node 22"); };
`);
const hooks = data(`
  export const resolve = (name, context, next) =>
    name === "fs" ? { url: ${JSON.stringify(filled)}, shortCircuit: true } : next(name, context);
`);
if (!fs.globSync) register(hooks);

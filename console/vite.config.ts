// The build of the console: hashed names, the same bytes from the same source, each asset also compressed ahead.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** Write NAME.gz and NAME.br beside each script, stylesheet and picture. */
function compressed(): Plugin {
  return {
    name: "compressed",
    writeBundle({ dir = "" }, bundle) {
      for (const name of Object.keys(bundle).filter((name) => name.startsWith("assets/"))) {
        const content = readFileSync(join(dir, name));
        writeFileSync(join(dir, `${name}.gz`), gzipSync(content, { level: 9 }));
        writeFileSync(join(dir, `${name}.br`), brotliCompressSync(content));
      }
    },
  };
}

export default defineConfig({
  logLevel: "warn",
  base: "./", // the server puts its own path prefix in front
  build: {
    outDir: process.env["CONSOLE_DIST"] ?? "../src/ostiaryd/console/dist",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the policy of the page admits no data: URL
    modulePreload: { polyfill: false },
    target: "es2023",
    rolldownOptions: {
      checks: { bundlerTimings: false },
      onLog: (level, log, write) => {
        if (log.code !== "MODULE_LEVEL_DIRECTIVE") write(level, log); // "use client" of libraries means nothing here
      },
    },
  },
  plugins: [compressed()],
});

// Bundles a module and what it imports into one script for a browser. Arguments: the module, the file to write.

import { rolldown } from 'rolldown'

const [input, file] = process.argv.slice(2)
const bundle = await rolldown({ input, platform: 'browser' })
await bundle.write({ file, format: 'iife', codeSplitting: false })
await bundle.close()

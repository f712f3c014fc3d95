// Each example of the OpenAPI document (standard input) satisfies its schema, as Ajv reads it: JSON Schema 2020-12 with
// the patterns of ECMA-262. Prints the number of examples, or what is wrong.

import { readFileSync } from 'node:fs'
import { Ajv2020 } from 'ajv/dist/2020.js'

const document = JSON.parse(readFileSync(0, 'utf8'))
const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true })
ajv.addSchema({ $id: 'document', components: document.components })
const absolute = (schema) =>
  JSON.parse(JSON.stringify(schema), (name, value) =>
    name === '$ref' && typeof value === 'string' && value.startsWith('#') ? `document${value}` : value,
  )
let checked = 0
const wrong = []
const check = (place, media) => {
  const values = Object.values(media.examples ?? {}).map(({ value }) => value)
  if ('example' in media) values.push(media.example)
  if (media.schema === undefined || values.length === 0) return
  const validate = ajv.compile(absolute(media.schema))
  for (const value of values) {
    checked += 1
    if (!validate(value)) wrong.push(`${place}: ${ajv.errorsText(validate.errors)}`)
  }
}
const contents = (place, { content = {} }) => {
  for (const [type, media] of Object.entries(content)) check(`${place} ${type}`, media)
}
for (const [name, response] of Object.entries(document.components.responses)) contents(name, response)
for (const [path, operations] of Object.entries(document.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    contents(`${method} ${path}`, operation.requestBody ?? {})
    for (const response of Object.values(operation.responses)) contents(`${method} ${path}`, response)
  }
}
if (wrong.length > 0) {
  console.error(wrong.join('\n'))
  process.exit(1)
}
console.log(checked)

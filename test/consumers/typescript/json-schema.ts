import type { JsonSchemaToTsProvider } from '@fastify/type-provider-json-schema-to-ts'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify().withTypeProvider<JsonSchemaToTsProvider>()
await app.register(backgroundTasks)
const mail = app.background.define('mail', {
  schema: {
    type: 'object', required: ['to', 'copies'], additionalProperties: false,
    properties: { to: { type: 'string' }, copies: { type: 'integer', minimum: 1 } }
  }
}, async (payload) => {
  const copies: number = payload.copies
  return `${copies} to ${payload.to}`
})
await app.ready()
console.log(await (await app.background.add(mail, { to: 'ada', copies: 2 })).finished())
// @ts-expect-error a wrong type
await app.background.add(mail, { to: 'ada', copies: 'x' }).catch(({ code }: { code: string }) => { console.log(code) })
await app.close()

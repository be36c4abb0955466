import { TypeBoxValidatorCompiler, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify().setValidatorCompiler(TypeBoxValidatorCompiler).withTypeProvider<TypeBoxTypeProvider>()
await app.register(backgroundTasks)
const mail = app.background.define('mail', {
  schema: Type.Object({ to: Type.String(), copies: Type.Integer({ minimum: 1 }) })
}, async (payload) => {
  const copies: number = payload.copies
  return `${copies} to ${payload.to}`
})
await app.ready()
console.log(await (await app.background.add(mail, { to: 'ada', copies: 2 })).finished())
// @ts-expect-error a wrong type
await app.background.add(mail, { to: 'ada', copies: 'x' }).catch(({ code }: { code: string }) => { console.log(code) })
await app.close()

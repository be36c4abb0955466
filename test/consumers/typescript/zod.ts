import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify().setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler).withTypeProvider<ZodTypeProvider>()
await app.register(backgroundTasks)
const mail = app.background.define('mail', {
  schema: z.object({ to: z.string(), copies: z.int().min(1) })
}, async (payload) => {
  const copies: number = payload.copies
  return `${copies} to ${payload.to}`
})
await app.ready()
console.log(await (await app.background.add(mail, { to: 'ada', copies: 2 })).finished())
// @ts-expect-error a wrong type
await app.background.add(mail, { to: 'ada', copies: 'x' }).catch(({ code }: { code: string }) => { console.log(code) })
await app.close()

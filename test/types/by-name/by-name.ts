/** Compiled, never run: once names are declared, calls by name know their payloads, and only declared names are taken. */
import Fastify from 'fastify'
import { backgroundTasks, type PayloadOfTask } from '../../../lib/index.ts'

const app = Fastify()
await app.register(backgroundTasks)
const email = app.background.define('send-email', async (payload: { to: string }) => payload.to)

declare module '../../../lib/index.ts' {
  interface BackgroundTaskMap {
    'send-email': PayloadOfTask<typeof email>
    'clean-up': null
  }
}

app.get('/', async (_request, reply) => {
  reply.background('send-email', { to: 'a' })
  reply.background('clean-up')
  // @ts-expect-error a wrong payload
  reply.background('send-email', { too: 'a' })
  // @ts-expect-error a name that nobody declared
  reply.background('send-mail', { to: 'a' })
  return reply.accepted('send-email', { to: 'a' })
})
await app.background.add('send-email', { to: 'a' })
// @ts-expect-error a name that nobody declared
await app.background.add('send-mail', { to: 'a' })

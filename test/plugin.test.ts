import Fastify from 'fastify'
import { test } from 'tap'
import { backgroundTasks, memory } from '../lib/index.ts'
import { TestClock } from './support/clock.ts'

test('a job starts after its handler has answered, and its status can be polled', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks, { backend: memory({ clock: new TestClock() }) })
  const order: string[] = []
  app.background.define('greet', async (payload: { name: string }) => {
    order.push('job')
    return { greeting: `hello ${payload.name}` }
  })
  app.post('/', async (_request, reply) => {
    const job = reply.background('greet', { name: 'Ada' })
    order.push('handler')
    return reply.code(202).send({ statusUrl: job.statusUrl })
  })
  const response = await app.inject({ method: 'POST', url: '/' })
  await app.background.onIdle()
  const status = await app.inject(response.json().statusUrl)
  t.same(order, ['handler', 'job'])
  t.equal(response.statusCode, 202)
  t.match(status.json(), { state: 'completed', result: { greeting: 'hello Ada' }, attemptsMade: 1 })
})

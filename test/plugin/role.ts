import t from 'tap'
import { DurableBackend } from '../support/durable.ts'
import { setup } from '../support/harness.ts'

t.test('a role needs a durable backend', async (t) => {
  for (const role of ['producer', 'worker'] as const) {
    await t.rejects(setup(t, { role }), { code: 'FST_BG_BAD_OPTION', message: /options\.role: expected a durable backend/ })
  }
  await t.rejects(setup(t, { role: 'boss' as 'both' }), { code: 'FST_BG_BAD_OPTION' })
})

t.test('a producer adds durable jobs and leaves them to others; its inline functions run', async (t) => {
  const { app, clock, background } = await setup(t, { role: 'producer', backend: new DurableBackend() })
  const ran: string[] = []
  const task = background.define('work', async () => { ran.push('task') })
  await app.ready()
  const { id } = await background.add(task)
  await background.add(async () => { ran.push('inline') })
  await clock.settle()
  t.strictSame(ran, ['inline'])
  t.equal((await background.get(id))?.state, 'waiting')
})

t.test('a worker runs jobs, and what they add; a response cannot give it any', async (t) => {
  const { app, background } = await setup(t, { role: 'worker', backend: new DurableBackend() })
  const task = background.define('work', async () => 'done')
  app.get('/', async (_request, reply) => {
    reply.background(task)
    return 'ok'
  })
  await app.ready()
  t.equal(await (await background.add(task)).finished(), 'done')
  const answer = await app.inject('/')
  t.equal(answer.statusCode, 500)
  t.equal(answer.json().code, 'FST_BG_WRONG_ROLE')
})

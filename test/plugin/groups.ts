/** Fairness: jobs of groups, as an application sees them. */
import { test } from 'tap'
import { bullmq } from '../../lib/backends/bullmq/index.ts'
import { deferred, setup, type Deferred } from '../support/harness.ts'

const of = (id: string) => ({ group: { id } })

test('a tenant with 10 000 jobs does not hold up one with a single job', async (t) => {
  const { app, background } = await setup(t, { concurrency: 1, maxQueueSize: 20_000, foreground: false })
  const ran: string[] = []
  background.define('work', (tenant) => { ran.push(tenant as string) })
  await app.ready()
  await background.pause()
  await background.addBulk(Array.from({ length: 10_000 }, () => ({ name: 'work', payload: 'big', options: of('big') })))
  await background.add('work', 'small', of('small'))
  await background.resume()
  await background.onIdle()
  t.equal(ran.length, 10_001)
  t.ok(ran.indexOf('small') < 2, `after ${ran.indexOf('small')} others`)
})

test('inline functions take turns too, and those without a group are one', async (t) => {
  const { app, background } = await setup(t, { concurrency: 1 })
  await app.ready()
  await background.pause()
  const ran: string[] = []
  for (const name of ['x', 'x', 'a', 'a']) await background.add(() => { ran.push(name) }, name === 'x' ? {} : of(name))
  await background.resume()
  await background.onIdle()
  t.strictSame(ran, ['x', 'a', 'x', 'a'])
})

test('a limiter of groups counts from the start of a body', async (t) => {
  const { app, background, clock } = await setup(t, { queues: { api: { concurrency: 5, groups: { limiter: { max: 1, duration: 1_000 } } } } })
  const began: Array<[string, number]> = []
  background.define('call', { queue: 'api' }, (tenant) => { began.push([tenant as string, clock.monotonic()]) })
  await app.ready()
  const start = clock.monotonic()
  for (const tenant of ['a', 'a', 'b', 'a']) await background.add('call', tenant, of(tenant))
  await clock.settle()
  t.match(await background.counts(), { api: { delayed: 2, waiting: 0, completed: 2 } })
  await clock.advance(2_000)
  await background.onIdle()
  t.strictSame(began.map(([tenant, at]) => [tenant, at - start]), [['a', 0], ['b', 0], ['a', 1_000], ['a', 2_000]])
})

test('a group has so many bodies at once, also when one fails', async (t) => {
  const { app, background, clock } = await setup(t, { queues: { api: { concurrency: 9, groups: { concurrency: 1 } } } })
  const bodies: Deferred[] = []
  background.define('call', { queue: 'api', attempts: 1 }, () => {
    const body = deferred()
    bodies.push(body)
    return body.promise
  })
  await app.ready()
  for (const tenant of ['a', 'a', 'b']) await background.add('call', tenant, of(tenant))
  await clock.settle()
  t.equal(bodies.length, 2)
  bodies[0]?.reject(new Error('broken on purpose'))
  await clock.settle()
  t.equal(bodies.length, 3)
  for (const { resolve } of bodies) resolve()
  await background.onIdle()
})

test('where a backend has no groups they are refused by name', async (t) => {
  const connection = 'redis://localhost:1'
  const refused = async (options: Parameters<typeof setup>[1], task: object = {}) => {
    const { app, background } = await setup(t, options)
    background.define('work', task, () => {})
    await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_NOT_SUPPORTED', message: /group.*"bullmq"/ })
  }
  await refused({ queues: { api: { backend: bullmq({ connection }), groups: { concurrency: 1 } } } })
  await refused({ queues: { api: { backend: bullmq({ connection }) } } }, { queue: 'api', ...of('a') })
})

test('options of groups are checked', async (t) => {
  for (const groups of [{ concurrency: 0 }, { limiter: { max: 1 } }, { limiter: { max: 0, duration: 5 } }, { turns: 1 }, 5]) {
    await t.rejects(setup(t, { queues: { api: { groups } } } as never), { code: 'FST_BG_BAD_OPTION', message: /options\.queues\.api/ })
  }
  const { app, background } = await setup(t)
  background.define('work', () => {})
  await app.ready()
  for (const group of [{}, { id: '' }, { id: 5 }, 'a', { id: 'a', weight: 2 }]) {
    await t.rejects(background.add('work', null, { group } as never), { code: 'FST_BG_BAD_OPTION' })
  }
})

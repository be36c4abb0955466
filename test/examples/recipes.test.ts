/** The recipes of examples/, each in an application of its own. */
import t, { test } from 'tap'
// @ts-expect-error: the examples are JavaScript, and a program of their own
import flows, { chain } from '../../examples/recipes/flows.js'
// @ts-expect-error: the same
import once from '../../examples/recipes/once.js'
// @ts-expect-error: the same
import tenants, { queues } from '../../examples/recipes/tenants.js'
import { setup } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

test('once: a report, a reminder and an order are not done twice', async (t) => {
  const { app, background } = await setup(t)
  await app.register(once)
  await app.ready()
  await background.pause()
  const post = async (url: string, payload: object = {}) =>
    (await app.inject({ method: 'POST', url, payload, headers: url === '/orders' ? { 'idempotency-key': 'order-1' } : {} })).json<{ jobId: string }>().jobId
  const jobs = new Set<string>()
  for (const url of ['/customers/1/report', '/customers/1/reminder', '/orders', '/customers/2/report']) {
    const id = await post(url, { items: ['tea'] })
    t.equal(await post(url, { items: ['tea'] }), id, url)
    jobs.add(id)
  }
  t.equal(jobs.size, 4)
  await background.resume()
  await background.onIdle()
  t.equal((await background.counts()).default?.completed, 4)
})

test('tenants: they take turns, and a partner that is down costs no attempt', async (t) => {
  const { app, background, clock } = await setup(t, { queues })
  const breaker = { opened: true, fired: [] as string[], fire: async (tenant: string, file: string) => { breaker.fired.push(`${tenant} ${file}`) } }
  await app.register(tenants, { breaker })
  await app.ready()
  const post = async (tenant: string, file: string) =>
    (await app.inject({ method: 'POST', url: `/tenants/${tenant}/imports`, payload: { file } })).json<{ jobId: string }>().jobId
  const first = await post('small', '1')
  await clock.settle()
  t.match(await background.get(first), { state: 'delayed', attemptsMade: 0 })
  breaker.opened = false
  await clock.advance(30_000)
  await background.onIdle()
  await background.pause()
  for (const file of ['1', '2', '3']) await post('big', file)
  await post('small', '2')
  await background.resume()
  await background.onIdle()
  t.strictSame(breaker.fired, ['small 1', 'big 1', 'small 2', 'big 2', 'big 3'])
})

test('flows: a fan-in, a chain, and a batch with a completion', async (t) => {
  const { app, background } = await setup(t)
  await app.register(flows)
  await app.ready()
  const result = async (url: string): Promise<unknown> => {
    const { jobId } = (await app.inject({ method: 'POST', url })).json<{ jobId: string }>()
    await background.onIdle()
    return (await background.get(jobId))?.result
  }
  t.strictSame(await result('/reports'), [{ region: 'north', sum: 5 }, { region: 'south', sum: 5 }])
  t.strictSame(await result('/videos'), [['a.mp4 downloaded', 'converted'], 'uploaded'])
  t.strictSame(await result('/newsletters'), { sent: 2, of: 3 })
  t.throws(() => chain([]), TypeError)
})

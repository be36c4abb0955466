/** The recipes of examples/, each in an application of its own. */
import t, { test } from 'tap'
// @ts-expect-error: the examples are JavaScript, and a program of their own
import once from '../../examples/recipes/once.js'
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

import { test } from 'tap'
import { manual } from 'fastify-background-tasks/testing'
import { Bank, buildApp } from '../app/index.js'

test('an order is charged when the bank opens', async (t) => {
  const jobs = manual()
  const bank = new Bank()
  const app = await buildApp({ backend: jobs }, bank)
  t.teardown(() => app.close())
  const response = await app.inject({ method: 'POST', url: '/orders/7' })
  t.equal(response.statusCode, 202)
  t.match(await jobs.enqueued('charge', { order: '7' }), [{ state: 'waiting' }])
  t.match(await jobs.runAll(), [{ state: 'delayed', error: { message: 'the bank is closed' } }])
  bank.open = true
  await jobs.clock.advance(60_000)
  await jobs.runAll()
  t.match(await jobs.waitFor('charge', 'completed'), { attemptsMade: 2 })
  t.same(bank.charged, ['7'])
})

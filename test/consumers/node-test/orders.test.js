import assert from 'node:assert/strict'
import { test } from 'node:test'
import { manual } from 'fastify-background-tasks/testing'
import { Bank, buildApp } from '../app/index.js'

test('an order is charged when the bank opens', async (t) => {
  const jobs = manual()
  const bank = new Bank()
  const app = await buildApp({ backend: jobs }, bank)
  t.after(() => app.close())
  await app.inject({ method: 'POST', url: '/orders/7' })
  assert.equal((await jobs.enqueued('charge', { order: '7' })).length, 1)
  const [failed] = await jobs.runAll()
  assert.equal(failed.error.message, 'the bank is closed')
  bank.open = true
  await jobs.clock.advance(60_000)
  await jobs.runAll()
  assert.equal((await jobs.waitFor('charge', 'completed')).attemptsMade, 2)
  assert.deepEqual(bank.charged, ['7'])
})

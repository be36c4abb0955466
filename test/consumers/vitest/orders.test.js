import { afterEach, expect, test } from 'vitest'
import { inline, manual } from 'fastify-background-tasks/testing'
import { Bank, buildApp } from '../app/index.js'

let app
afterEach(() => app.close())

test('an order is charged when the bank opens', async () => {
  const jobs = manual()
  const bank = new Bank()
  app = await buildApp({ backend: jobs }, bank)
  await app.inject({ method: 'POST', url: '/orders/7' })
  expect(await jobs.enqueued('charge', { order: '7' })).toMatchObject([{ state: 'waiting' }])
  expect(await jobs.runAll()).toMatchObject([{ state: 'delayed', error: { message: 'the bank is closed' } }])
  bank.open = true
  await jobs.clock.advance(60_000)
  await jobs.runAll()
  expect(await jobs.waitFor('charge', 'completed')).toMatchObject({ attemptsMade: 2 })
  expect(bank.charged).toEqual(['7'])
})

test('inline: what fails in the background fails the test', async () => {
  app = await buildApp({ backend: inline() }, new Bank())
  await app.inject({ method: 'POST', url: '/orders/7' })
  await expect(app.background.onIdle()).rejects.toMatchObject({ code: 'FST_BG_JOB_FAILED', cause: { message: 'the bank is closed' } })
})

// A test of an application with jobs, for Node's own runner: `node --test examples/testing-your-app.js`. Nothing waits:
// the backend runs jobs when the test says so, and time passes when the test says so.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'
import { inline, manual } from 'fastify-background-tasks/testing'

/** The application as production builds it; what differs is given: a backend, and the mail server. */
async function buildApp (backend, mails) {
  const app = Fastify()
  await app.register(backgroundTasks, { backend })
  const welcome = app.background.define('welcome', { attempts: 5, backoff: 60_000 }, async ({ to }, { job }) => {
    await mails.send(to, job.id)
  })
  app.post('/signup/:to', async (request, reply) => reply.accepted(welcome, request.params))
  await app.ready()
  return app
}

class Mails {
  sent = new Map()
  down = false
  async send (to, key) {
    if (this.down) throw new Error('no mail server')
    this.sent.set(key, to)
  }
}

await test('the mail is sent when its server is back', async (t) => {
  const [jobs, mails] = [manual(), new Mails()]
  const app = await buildApp(jobs, mails)
  t.after(() => app.close())
  mails.down = true
  assert.equal((await app.inject({ method: 'POST', url: '/signup/ada' })).statusCode, 202)
  assert.equal((await jobs.enqueued('welcome', { to: 'ada' })).length, 1)
  await jobs.runAll()
  mails.down = false
  await jobs.clock.advance(60_000)
  await jobs.runAll()
  assert.equal((await jobs.waitFor('welcome', 'completed')).attemptsMade, 2)
  // Sent twice, it is still one mail: the job's id is its key.
  const faults = await jobs.checkIdempotent('welcome', { to: 'bob' }, { methods: mails, effects: () => [...mails.sent], reset: () => { mails.sent.clear() } })
  assert.deepEqual(faults, [])
})

await test('what fails in the background fails the test', async (t) => {
  const app = await buildApp(inline(), Object.assign(new Mails(), { down: true }))
  t.after(() => app.close())
  await app.inject({ method: 'POST', url: '/signup/ada' })
  await assert.rejects(app.background.onIdle(), { code: 'FST_BG_JOB_FAILED' })
})

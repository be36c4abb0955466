import { request as get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'tap'
import { readPrefer } from '../../lib/http/prefer.ts'
import { closeInTime, deferred, setup, until, type Harness, type HarnessOptions } from '../support/harness.ts'

async function service (t: Parameters<typeof setup>[0], options: HarnessOptions = {}): Promise<Harness & { work: ReturnType<typeof deferred<unknown>> }> {
  const harness = await setup(t, { maxWait: 5_000, ...options })
  const work = deferred<unknown>()
  harness.background.define('work', { attempts: 1 }, () => work.promise)
  harness.app.post('/', (_request, reply) => reply.accepted('work', { n: 1 }))
  harness.app.post('/async', async (_request, reply) => reply.accepted('work', { n: 1 }))
  await harness.app.ready()
  return Object.assign(harness, { work })
}

const prefer = (value: string, url = '/') => ({ method: 'POST', url, headers: { prefer: value } }) as const

test('the header is read as RFC 7240 says', async (t) => {
  const cases: Array<[header: string | undefined, wait: number, applied: string]> = [
    [undefined, 0, ''],
    ['', 0, ''],
    ['wait=2', 2_000, 'wait=2'],
    ['Wait="2"', 2_000, 'wait=2'],
    ['respond-async, wait = 3; foo=bar', 3_000, 'respond-async, wait=3'],
    ['wait=100', 10_000, 'wait=10'],
    ['wait=1, wait=9', 1_000, 'wait=1'],
    ['wait=0', 0, ''],
    ['wait=-1', 0, ''],
    ['wait=1e3', 0, ''],
    ['wait=99999999999999', 0, ''],
    ['wait', 0, ''],
    ['respond-async', 0, 'respond-async'],
    ['return=minimal', 0, '']
  ]
  for (const [header, wait, applied] of cases) t.same(readPrefer(header, 10_000), { wait, applied }, header ?? 'none')
  t.same(readPrefer('wait=5', 0), { wait: 0, applied: '' }, 'off')
})

for (const url of ['/', '/async']) {
  test(`a job that ends in time is answered with 200 and its status document, from ${url}`, async (t) => {
    const { app, work } = await service(t)
    const answer = app.inject(prefer('wait=2', url))
    work.resolve({ sum: 3 })
    const response = await answer
    t.equal(response.statusCode, 200)
    t.match(response.json(), { name: 'work', state: 'completed', result: { sum: 3 } })
    t.match(response.headers, { 'preference-applied': 'wait=2', vary: 'Prefer', 'cache-control': 'no-store' })
    t.notOk(response.headers.location)
  })
}

test('a job that fails in time is answered with 200 too, without the text of its error', async (t) => {
  const { app, work, background, clock } = await service(t, { authorize: () => true })
  const answer = app.inject(prefer('wait=2'))
  await until(async () => (await background.counts()).default?.active === 1)
  await clock.settle() // an active job may have to wait for its turn of the loop
  work.reject(Object.assign(new Error('secret'), { code: 'E_PARTNER' }))
  const response = await answer
  t.equal(response.statusCode, 200)
  t.match(response.json(), { state: 'failed', failure: 'exhausted', error: { name: 'Error', code: 'E_PARTNER' } })
  t.notMatch(response.body, /secret/)
})

test('a job that does not end in time is answered with 202 and goes on', async (t) => {
  const { app, work, clock, background } = await service(t)
  const answer = app.inject(prefer('wait=2'))
  await until(async () => (await background.counts()).default?.active === 1)
  await clock.advance(1_999)
  let answered = false
  void answer.then(() => { answered = true })
  await clock.settle()
  t.notOk(answered)
  await clock.advance(1)
  const response = await answer
  t.equal(response.statusCode, 202)
  t.match(response.json(), { name: 'work', state: 'active', statusUrl: response.headers.location })
  t.match(response.headers, { 'preference-applied': 'wait=2', 'retry-after': '1', vary: 'Prefer' })
  work.resolve('late')
  await background.onIdle()
  t.match((await app.inject(response.json().statusUrl)).json(), { state: 'completed', result: 'late' })
})

test('the wait is capped by maxWait', async (t) => {
  const { app, clock, background, work } = await service(t, { maxWait: 1_000 })
  const answer = app.inject(prefer('wait=60'))
  await until(async () => (await background.counts()).default?.active === 1)
  await clock.advance(1_000)
  t.match((await answer).headers, { 'preference-applied': 'wait=1' })
  work.resolve(null)
})

test('without maxWait the preference is not looked at, and the job is staged', async (t) => {
  const { app, work } = await service(t, { maxWait: 0 })
  const response = await app.inject(prefer('wait=2'))
  t.equal(response.statusCode, 202)
  t.equal(response.json().state, 'pending')
  t.notOk(response.headers['preference-applied'])
  t.notOk(response.headers.vary)
  work.resolve(null)
})

test('respond-async is answered at once, and said to be applied', async (t) => {
  const { app, work } = await service(t)
  const response = await app.inject(prefer('respond-async'))
  t.match(response.headers, { 'preference-applied': 'respond-async', vary: 'Prefer' })
  t.equal(response.statusCode, 202)
  work.resolve(null)
})

test('Vary is added to, and there also for requests without a preference', async (t) => {
  const { app, background } = await setup(t, { maxWait: 1_000 })
  background.define('work', () => {})
  app.post('/', (_request, reply) => reply.header('vary', 'Origin').accepted('work'))
  await app.ready()
  t.equal((await app.inject({ method: 'POST', url: '/' })).headers.vary, 'Origin, Prefer')
})

test('a refusal is thrown into the handler, with or without a preference', async (t) => {
  const { app, background } = await setup(t, { maxWait: 1_000, maxQueueSize: 0 })
  background.define('work', () => {})
  app.post('/', (_request, reply) => reply.accepted('work'))
  await app.ready()
  const response = await app.inject(prefer('wait=1'))
  t.equal(response.statusCode, 503)
  t.equal(response.json().code, 'FST_BG_QUEUE_FULL')
  t.equal(response.headers['retry-after'], '1')
})

test('a client that leaves ends its wait, and the job goes on', async (t) => {
  const { app, background, work, clock } = await service(t)
  await app.listen({ port: 0 })
  const timers = clock.pendingTimers
  const client = get({ port: (app.server.address() as AddressInfo).port, method: 'POST', path: '/', headers: { prefer: 'wait=5' } })
  client.on('error', () => {})
  client.end()
  await until(async () => (await background.counts()).default?.active === 1)
  client.destroy()
  work.resolve('kept')
  await background.onIdle()
  const { default: counts } = await background.counts()
  t.equal(counts?.completed, 1)
  await until(() => clock.pendingTimers <= timers + 1)
})

test('a shutdown ends the waits, so that close() does not wait for them', async (t) => {
  const { app, background, work, clock } = await service(t)
  await app.listen({ port: 0 })
  const client = get({ port: (app.server.address() as AddressInfo).port, method: 'POST', path: '/', headers: { prefer: 'wait=5' } })
  const response = new Promise<IncomingMessage>((resolve, reject) => { client.on('response', resolve).on('error', reject) })
  client.end()
  await until(async () => (await background.counts()).default?.active === 1)
  const closing = closeInTime(app, clock)
  t.equal((await response).statusCode, 202)
  ;(await response).resume()
  work.resolve(null)
  await closing
})

test('waiting for a job inside the request that stages it would never end, and says so', async (t) => {
  const { app, background } = await setup(t)
  background.define('work', () => 'done')
  let later: Promise<unknown> | undefined
  app.post('/', async (_request, reply) => {
    const job = reply.background('work')
    const error = await job.finished().catch((reason: unknown) => reason as { code: string })
    later = new Promise((resolve) => { reply.raw.once('close', () => { setImmediate(() => { resolve(job.finished()) }) }) })
    return { code: (error as { code: string }).code }
  })
  await app.listen({ port: 0 })
  const response = await fetch(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`, { method: 'POST', headers: { connection: 'close' } })
  t.same(await response.json(), { code: 'FST_BG_WOULD_DEADLOCK' })
  t.equal(await later, 'done')
})

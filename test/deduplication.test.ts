/** Jobs that are added once: `deduplication`, and the keys of clients. */
import t, { test, type Test } from 'tap'
import { sqlite } from '../lib/backends/sqlite/index.ts'
import { memory, type Backend, type JobHandle } from '../lib/index.ts'
import { TestClock } from './support/clock.ts'
import { DurableBackend } from './support/durable.ts'
import { deferred, LEVELS, record, setup, type Harness } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'
import { freshFile, noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

const once = (id: string) => ({ deduplication: { id } })

/** A task whose runs are counted, held back by a pause. */
async function service (t: Test, options: Parameters<typeof setup>[1] = {}): Promise<Harness & { ran: unknown[] }> {
  const harness = await setup(t, options)
  const ran: unknown[] = []
  harness.background.define('report', (payload) => { ran.push(payload) })
  return { ...harness, ran }
}

test('a second job of the same id is the first one', async (t) => {
  const { app, background, ran } = await service(t)
  await app.ready()
  await background.pause()
  const first = await background.add('report', 1, once('a'))
  const second = await background.add('report', 2, once('a'))
  t.equal(second.id, first.id)
  t.not((await background.add('report', 3, once('b'))).id, first.id)
  await background.resume()
  await second.finished()
  await background.onIdle()
  t.strictSame(ran, [1, 3])
  t.not((await background.add('report', 4, once('a'))).id, first.id, 'it has ended')
})

test('with a ttl work is done once in that time', async (t) => {
  const { app, background, clock, ran } = await service(t)
  await app.ready()
  const throttled = { deduplication: { id: 'a', ttl: 1_000 } }
  for (const payload of [1, 2]) await (await background.add('report', payload, throttled)).finished()
  await clock.advance(1_000)
  await (await background.add('report', 3, throttled)).finished()
  t.strictSame(ran, [1, 3])
})

test('jobs added in bulk are told by their ids, also within the bulk', async (t) => {
  const { app, background } = await service(t)
  await app.ready()
  await background.pause()
  const handles = await background.addBulk([0, 1, 2].map((n) => ({ name: 'report', options: once(n === 1 ? 'b' : 'a') })))
  t.strictSame(handles.map(({ id }) => handles.findIndex((handle) => handle.id === id)), [0, 1, 0])
})

test('ids are refused that are none', async (t) => {
  const { app, background } = await service(t)
  await app.ready()
  for (const deduplication of [{}, { id: '' }, { id: 5 }, { id: 'a', ttl: 0 }, { id: 'a', ttl: -1 }, { id: 'a', mode: 'throttle' }, 'a']) {
    await t.rejects(background.add('report', 1, { deduplication } as never), { code: 'FST_BG_BAD_OPTION' })
  }
})

// Several responses, one job

/** Routes `/one` and `/two` stage the same job; each answers when it is told. */
async function twoResponses (t: Test) {
  const harness = await service(t)
  const { app } = harness
  const routes = ['one', 'two'].map((name) => {
    const end = deferred<'ok' | 'throw'>()
    const staged = deferred<JobHandle>()
    app.get(`/${name}`, async (_request, reply) => {
      staged.resolve(reply.background('report', name, once('a')))
      if (await end.promise === 'throw') throw new Error('broken on purpose')
      return name
    })
    return { end, staged, go: () => app.inject(`/${name}`) }
  })
  await app.ready()
  const [one, two] = routes as [typeof routes[0], typeof routes[0]]
  const answers = [one.go(), two.go()]
  const handles = [await one.staged.promise, await two.staged.promise]
  t.equal(handles[0]?.id, handles[1]?.id)
  return { ...harness, one, two, answers, id: handles[0]?.id as string }
}

test('a job of two responses starts when the first of them that accepts it is over', async (t) => {
  const { app, background, one, two, answers, ran, clock, id } = await twoResponses(t)
  one.end.resolve('throw')
  await answers[0]
  await clock.settle()
  t.equal((await record(background, id)).state, 'pending', 'the other one may accept it')
  two.end.resolve('ok')
  await answers[1]
  await background.onIdle()
  t.strictSame(ran, ['one'])
  await app.close()
})

test('a job of two responses is cancelled when both refuse it', async (t) => {
  const { background, one, two, answers, ran, id, clock } = await twoResponses(t)
  one.end.resolve('throw')
  two.end.resolve('throw')
  await Promise.all(answers)
  await clock.settle()
  t.match(await record(background, id), { state: 'cancelled', reason: 'response' })
  t.strictSame(ran, [])
})

test('of two responses that are over in the same turn, one that accepts is enough', async (t) => {
  const { background, one, two, answers, ran } = await twoResponses(t)
  one.end.resolve('ok')
  two.end.resolve('throw')
  await Promise.all(answers)
  await background.onIdle()
  t.strictSame(ran, ['one'])
})

test('on a durable backend reply.background cannot tell whose handle it returns, and refuses', async (t) => {
  const { app } = await service(t, { backend: new DurableBackend() })
  app.get('/', async (_request, reply) => {
    t.throws(() => reply.background('report', 1, once('a')), { code: 'FST_BG_NOT_SUPPORTED', message: /^deduplication in reply.background/ })
    return 'answer'
  })
  await app.inject('/')
})

// The keys of clients

interface Kind { name: string, skip?: string | false, backend: (t: Test, clock: TestClock) => Backend }
const kinds: Kind[] = [
  { name: 'memory', backend: (_t, clock) => memory({ clock }) },
  { name: 'a durable backend', backend: (_t, clock) => new DurableBackend({ clock }) },
  { name: 'sqlite', skip: noSqlite, backend: (t, clock) => sqlite({ path: freshFile(t), clock }) }
]

/** `POST /reports`, which answers with `reply.accepted`. */
async function reports (t: Test, kind: Kind, options: Parameters<typeof setup>[1] = {}) {
  const clock = new TestClock()
  const harness = await service(t, { backend: kind.backend(t, clock), ...options })
  const { app } = harness
  app.post<{ Body: { fail?: boolean } }>('/reports', (request, reply) => reply.accepted('report', { body: request.body, at: Math.random() }))
  await app.ready()
  const post = (key: string, body: object = { n: 1 }, headers: Record<string, string> = {}) =>
    app.inject({ method: 'POST', url: '/reports', payload: body, headers: { 'idempotency-key': key, ...headers } })
  return { ...harness, clock, post }
}

for (const kind of kinds) {
  test(`${kind.name}: a request that repeats its key and body gets the same answer, and one job runs`, { skip: kind.skip ?? false }, async (t) => {
    const { background, post, ran, clock } = await reports(t, kind)
    const first = await post('"key-1"')
    await clock.settle()
    const again = await post('key-1')
    t.match(first, { statusCode: 202, headers: { location: /^\/jobs\/.*\/status$/, 'idempotent-replayed': undefined } })
    t.match(again, { statusCode: 202, body: first.body, headers: { location: first.headers.location, 'idempotent-replayed': 'true', 'retry-after': '1' } })
    await background.onIdle()
    t.equal((await post('key-1')).body, first.body, 'also when the job has ended')
    t.equal(ran.length, 1)
    const other = await post('key-2')
    t.not(other.json().jobId, first.json().jobId)
    await background.onIdle()
    t.equal(ran.length, 2)
  })

  test(`${kind.name}: a key that comes with another body is refused with 422`, { skip: kind.skip ?? false }, async (t) => {
    const { background, post, ran } = await reports(t, kind)
    await post('key', { n: 1 })
    await background.onIdle()
    t.match((await post('key', { n: 2 })).json(), { statusCode: 422, code: 'FST_BG_IDEMPOTENCY_KEY_REUSED' })
    await background.onIdle()
    t.equal(ran.length, 1)
  })
}

const inMemory = kinds[0] as Kind

test('a key whose first request is not answered yet is refused with 409', async (t) => {
  const { app, background } = await service(t)
  const held = deferred()
  app.post('/held', { onSend: async () => { await held.promise } }, (_request, reply) => reply.accepted('report', 1))
  await app.ready()
  const post = () => app.inject({ method: 'POST', url: '/held', headers: { 'idempotency-key': 'key' } })
  const first = post()
  while ((await background.counts()).default?.pending === 0) await new Promise((resolve) => { setImmediate(resolve) })
  t.equal((await background.counts()).default?.pending, 1)
  held.resolve()
  const second = await post()
  t.match(second.json(), { statusCode: 409, code: 'FST_BG_IDEMPOTENCY_KEY_IN_FLIGHT' })
  t.equal(second.headers['retry-after'], '1')
  t.equal((await first).statusCode, 202)
  t.match(await post(), { statusCode: 202, headers: { 'idempotent-replayed': 'true' } })
})

test('keys are those of a client and a resource', async (t) => {
  const { app, background, post, ran } = await reports(t, inMemory)
  await post('key')
  await post('key', undefined, { authorization: 'Bearer somebody-else' })
  t.equal((await app.inject({ method: 'POST', url: '/reports?of=another', payload: { n: 1 }, headers: { 'idempotency-key': 'key' } })).headers['idempotent-replayed'], undefined)
  await background.onIdle()
  t.equal(ran.length, 3)
})

test('a key is remembered as long as its job is kept', async (t) => {
  const { background, post, clock, ran } = await reports(t, inMemory, { retention: { completed: { age: 5_000 } } })
  await post('key')
  await background.onIdle()
  await clock.advance(5_000)
  t.equal((await post('key')).headers['idempotent-replayed'], undefined)
  await background.onIdle()
  t.equal(ran.length, 2)
  const small = await reports(t, inMemory, { retention: { completed: { count: 1 } } })
  for (const key of ['a', 'b', 'a']) {
    await small.post(key)
    await small.background.onIdle()
  }
  t.equal(small.ran.length, 3)
})

test('a key whose request failed may be used again', async (t) => {
  const backend = new DurableBackend()
  const { post, background, ran } = await reports(t, { name: 'failing', backend: () => backend })
  backend.failure = new Error('disk full')
  t.equal((await post('key')).statusCode, 503)
  backend.failure = undefined
  t.match(await post('key'), { statusCode: 202, headers: { 'idempotent-replayed': undefined } })
  await background.onIdle()
  t.equal(ran.length, 1)
})

test('a job whose response broke after all is cancelled, and its key is free', async (t) => {
  const { app, background } = await service(t)
  let broken = true
  app.post('/breaks', { onSend: async () => { if (broken) throw new Error('broken on purpose') } }, (_request, reply) => reply.accepted('report', 1))
  await app.ready()
  const post = () => app.inject({ method: 'POST', url: '/breaks', headers: { 'idempotency-key': 'key' } })
  t.equal((await post()).statusCode, 500)
  while ((await background.counts()).default?.cancelled !== 1) await new Promise((resolve) => { setImmediate(resolve) })
  broken = false
  t.match(await post(), { statusCode: 202, headers: { 'idempotent-replayed': undefined } })
})

test('what cannot be a key is refused with 400', async (t) => {
  const { post } = await reports(t, inMemory)
  for (const key of ['', '""', 'two words', 'x'.repeat(256)]) t.match((await post(key)).json(), { statusCode: 400, code: 'FST_BG_BAD_IDEMPOTENCY_KEY' })
})

test('with Prefer: wait a repeated request waits for the same job', async (t) => {
  const { post, ran } = await reports(t, inMemory, { maxWait: 10_000 })
  const first = await post('key', undefined, { prefer: 'wait=5' })
  const again = await post('key', undefined, { prefer: 'wait=5' })
  t.match(first.json(), { state: 'completed' })
  t.match(again, { statusCode: 200, body: first.body, headers: { 'idempotent-replayed': 'true' } })
  t.equal(ran.length, 1)
})

test('the id of the application goes before the key of its client', async (t) => {
  const { app, background, clock, lines } = await service(t)
  app.post('/', (_request, reply) => reply.accepted('report', 1, { ...once('a'), delay: 1_000 }))
  await app.ready()
  const [first, second] = [await app.inject({ method: 'POST', url: '/', headers: { 'idempotency-key': 'x' } }), await app.inject({ method: 'POST', url: '/', headers: { 'idempotency-key': 'y' } })]
  t.equal(second.json().jobId, first.json().jobId)
  t.equal(second.headers['idempotent-replayed'], undefined)
  await clock.settle()
  t.equal((await background.counts()).default?.delayed, 1)
  t.notOk(lines.some(({ level }) => level >= LEVELS.error))
})

test('a body in parts is told by the job it makes', async (t) => {
  const { app, background, ran } = await service(t)
  app.addContentTypeParser('multipart/form-data', (_request, payload, done) => { payload.resume().on('end', () => { done(null, { nonce: Math.random() }) }) })
  app.post('/', (_request, reply) => reply.accepted('report', 1))
  await app.ready()
  const post = () => app.inject({ method: 'POST', url: '/', payload: 'x', headers: { 'idempotency-key': 'x', 'content-type': 'multipart/form-data' } })
  await post()
  await background.onIdle()
  t.equal((await post()).headers['idempotent-replayed'], 'true')
  await background.onIdle()
  t.strictSame(ran, [1])
})

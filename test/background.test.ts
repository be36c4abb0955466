import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import t from 'tap'
import { memory, RetryLaterError, UnrecoverableError, type JobHandle, type JobOptions } from '../lib/index.ts'
import { BusyClock } from './support/clock.ts'
import { DurableBackend } from './support/durable.ts'
import { deferred, jobsKept, record, setup, until, type Harness, type HarnessOptions } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'

watchLeaks(t)

const nothing = () => {}
const THEN = ['th', 'en'].join('')
type TestLike = Parameters<typeof setup>[0]
type CodedError = Error & { code: string, statusCode: number, headers?: Record<string, string> }

/** With a task named `task`, and ready. */
async function ready (t: TestLike, options?: HarnessOptions): Promise<Harness> {
  const harness = await setup(t, options)
  harness.app.background.define('task', (payload) => payload)
  await harness.app.ready()
  return harness
}

/** The same call through each door: outside a request, in bulk, and with a reply. */
const doors: Array<[name: string, call: (harness: Harness, target: unknown, payload?: unknown, options?: unknown) => Promise<unknown>]> = [
  ['add', ({ app }, ...args) => (app.background.add as (...args: unknown[]) => Promise<unknown>)(...args)],
  ['addBulk', ({ app }, name, payload, options) => app.background.addBulk([{ name, payload, options }] as never)],
  ['reply.background', ({ app }, ...args) => throughReply(app, 'background', args)],
  ['reply.accepted', ({ app }, ...args) => throughReply(app, 'accepted', args)]
]
const calls = new Map<string, unknown[]>()

/** Calls the decorator inside a request and rejects with what it threw there. */
async function throughReply (app: Harness['app'], method: 'background' | 'accepted', args: unknown[]): Promise<void> {
  const id = String(calls.size)
  calls.set(id, args)
  const response = await app.inject({ url: `/call/${method}/${id}` })
  if (response.statusCode >= 400) throw Object.assign(new Error(response.json().message), response.json())
}

async function readyForAll (t: TestLike, options?: HarnessOptions): Promise<Harness> {
  const harness = await setup(t, options)
  harness.app.background.define('task', (payload) => payload)
  harness.app.background.define('strict', { schema: { type: 'object', required: ['id'], properties: { id: { type: 'integer' } } } }, nothing)
  harness.app.get('/call/:method/:id', async (request, reply) => {
    const { method, id } = request.params as { method: 'background' | 'accepted', id: string }
    const answer = (reply[method] as (...args: unknown[]) => unknown)(...calls.get(id) as unknown[])
    return method === 'accepted' ? answer : 'ok'
  })
  await harness.app.ready()
  return harness
}

const cycle: Record<string, unknown> = { secret: 'hunter2' }
cycle['self'] = cycle

t.test('calls that are refused', async (t) => {
  const refused: Array<[title: string, args: [target: unknown, payload?: unknown, options?: unknown], code: string, text: RegExp]> = [
    ['an unknown task', ['taks'], 'FST_BG_UNKNOWN_TASK', /"taks".*defined: task, strict/],
    ['no task at all', [undefined], 'FST_BG_UNKNOWN_TASK', /undefined/],
    ['a payload that does not fit', ['strict', { id: 'hunter2' }], 'FST_BG_BAD_PAYLOAD', /"strict".*payload\/id must be integer/],
    ['an omitted payload where the schema wants one', ['strict'], 'FST_BG_BAD_PAYLOAD', /"strict".*payload must be object/],
    ['a BigInt in the payload', ['task', { secret: 'hunter2', id: 1n }], 'FST_BG_PAYLOAD_NOT_JSON', /"task"/],
    ['a cycle in the payload', ['task', cycle], 'FST_BG_PAYLOAD_NOT_JSON', /"task"/],
    ['a function as payload', ['task', () => 'hunter2'], 'FST_BG_PAYLOAD_NOT_JSON', /"task".*a function/],
    ['a symbol as payload', ['task', Symbol('s')], 'FST_BG_PAYLOAD_NOT_JSON', /"task".*symbol/],
    ['a payload whose toJSON throws', ['task', { toJSON () { throw new Error('hunter2') } }], 'FST_BG_PAYLOAD_NOT_JSON', /"task"/],
    ['a payload whose toJSON gives nothing', ['task', { toJSON: nothing }], 'FST_BG_PAYLOAD_NOT_JSON', /"task"/],
    ['a payload that is too large', ['task', 'x'.repeat(1_000)], 'FST_BG_PAYLOAD_TOO_LARGE', /"task": expected at most 500 bytes.*got 1002/],
    ['a payload whose characters take more bytes', ['task', '€'.repeat(200)], 'FST_BG_PAYLOAD_TOO_LARGE', /got 602/],
    ['a misspelt option', ['task', null, { dealy: 5 }], 'FST_BG_UNKNOWN_OPTION', /unknown option "dealy"; known here: .*delay/],
    ['an option of define alone', ['task', null, { schema: {} }], 'FST_BG_UNKNOWN_OPTION', /"schema"/],
    ['deduplication without an id', ['task', null, { deduplication: { ttl: 5 } }], 'FST_BG_BAD_OPTION', /deduplication: expected an object with an id/],
    ['a group without an id', ['task', null, { group: {} }], 'FST_BG_BAD_OPTION', /group: expected an object with an id/],
    ['options that are no object', ['task', null, 5], 'FST_BG_BAD_OPTION', /expected an object of options, got 5/],
    ['null as options', ['task', {}, null], 'FST_BG_BAD_OPTION', /expected an object of options, got null/],
    ['a negative delay', ['task', null, { delay: -1 }], 'FST_BG_BAD_OPTION', /delay: expected a number of ms, at least 0, got -1/],
    ['a delay that is no number', ['task', null, { delay: '5s' }], 'FST_BG_BAD_OPTION', /delay: expected a number of ms.*"5s" \(string\)/],
    ['an endless delay', ['task', null, { delay: Infinity }], 'FST_BG_BAD_OPTION', /delay: expected a number of ms.*Infinity/],
    ['an invalid Date', ['task', null, { runAt: new Date(NaN) }], 'FST_BG_BAD_OPTION', /runAt: expected a Date, an ISO 8601 text or ms since the epoch/],
    ['a time in words', ['task', null, { runAt: 'tomorrow' }], 'FST_BG_BAD_OPTION', /runAt: expected a Date, an ISO 8601 text.*"tomorrow"/],
    ['a date that is not ISO 8601', ['task', null, { runAt: '12/11/2030' }], 'FST_BG_BAD_OPTION', /runAt: expected a Date, an ISO 8601 text/],
    ['delay and runAt together', ['task', null, { delay: 1, runAt: 1 }], 'FST_BG_BAD_OPTION', /runAt: expected either delay or runAt, got both/],
    ['a negative ttl', ['task', null, { ttl: -1 }], 'FST_BG_BAD_OPTION', /ttl: expected a number of ms/],
    ['attempts that are no integer', ['task', null, { attempts: 1.5 }], 'FST_BG_BAD_OPTION', /attempts: expected an integer from 1 to 1000, got 1\.5/],
    ['a wrong backoff', ['task', null, { backoff: 'fast' }], 'FST_BG_BAD_OPTION', /backoff: expected .*"fast"/],
    ['a wrong priority', ['task', null, { priority: NaN }], 'FST_BG_BAD_OPTION', /priority: expected an integer.*NaN/],
    ['a queue that does not exist', ['task', null, { queue: 'mail' }], 'FST_BG_UNKNOWN_QUEUE', /"mail".*queues: default/],
    ['a wrong when', ['task', null, { when: 'finished' }], 'FST_BG_BAD_OPTION', /when: expected .*"finished"/],
    ['a wrong onAbort', ['task', null, { onAbort: 'stop' }], 'FST_BG_BAD_OPTION', /onAbort: expected "run" or "drop".*"stop"/]
  ]
  for (const [title, args, code, text] of refused) {
    t.test(`${title} is refused through every door, and nothing has changed`, async (t) => {
      const harness = await readyForAll(t, { maxPayloadBytes: 500 })
      for (const [door, call] of doors) {
        const error = await call(harness, ...args).then(() => undefined, (error: unknown) => error as CodedError)
        t.match(error, { code, statusCode: 500, message: text }, door)
        t.notMatch(error?.message, /hunter2|xxxx|€€/, `${door} says no value of the payload`)
      }
      t.equal(await jobsKept(harness.background), 0)
    })
  }

  t.test('what is wrong with a payload is named as far as it can be: the BigInt, the cycle', async (t) => {
    const { app } = await ready(t)
    await t.rejects(app.background.add('task', { id: 1n }), { message: /BigInt/ })
    await t.rejects(app.background.add('task', cycle), { message: /circular|cycle/i })
  })

  t.test('an unknown key of a bulk job is refused', async (t) => {
    const { app, background } = await ready(t)
    await t.rejects(app.background.addBulk([{ name: 'task', data: { id: 1 } } as never]), { code: 'FST_BG_UNKNOWN_OPTION', message: /data/ })
    t.equal(await jobsKept(background), 0)
  })

  t.test('a bulk that is no array, or holds what is no job, is refused', async (t) => {
    const { app, background } = await ready(t)
    await t.rejects(app.background.addBulk({ name: 'task' } as never), { code: 'FST_BG_BAD_OPTION', message: /expected an array.*got an object/ })
    await t.rejects(app.background.addBulk([null] as never), { code: 'FST_BG_BAD_OPTION', message: /\[0\]: expected an object/ })
    t.equal(await jobsKept(background), 0)
  })

  t.test('wrong options of an inline function are refused too', async (t) => {
    const { app, background } = await ready(t)
    await t.rejects(app.background.add(nothing, { atempts: 1 } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
    await t.rejects(app.background.add(nothing, { attempts: 0 }), { code: 'FST_BG_BAD_OPTION' })
    await t.rejects((app.background.add as (...args: unknown[]) => Promise<unknown>)(nothing, { payload: 1 }, {}), { code: /^FST_BG_/ })
    t.equal(await jobsKept(background), 0)
  })

  t.test('add before ready is an error', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', nothing)
    await t.rejects(app.background.add('task'), { code: 'FST_BG_NOT_READY', statusCode: 500, message: /ready/ })
    await t.rejects(app.background.addBulk([{ name: 'task' }]), { code: 'FST_BG_NOT_READY' })
    await t.rejects(app.background.add(nothing), { code: 'FST_BG_NOT_READY' })
    await app.ready()
    t.equal(await jobsKept(app.background), 0)
  })

  t.test('every refusal of the asynchronous doors is a rejection, never a throw', async (t) => {
    const { app } = await ready(t)
    for (const call of [
      () => app.background.add('unknown'),
      () => app.background.addBulk(5 as never),
      () => app.background.cancel('x', ''),
      () => app.background.pause('unknown'),
      () => app.background.onIdle({ timeout: -1 }),
      () => app.background.deadLetters.list({ limit: 0 })
    ]) {
      let promise: Promise<unknown> | undefined
      t.doesNotThrow(() => { promise = call() })
      await t.rejects(promise as Promise<unknown>, { code: /^FST_BG_/ })
    }
  })
})

t.test('payloads', async (t) => {
  t.test('an omitted payload is null', async (t) => {
    const { app } = await ready(t)
    for (const job of [await app.background.add('task'), await app.background.add('task', undefined), await app.background.add('task', null)]) {
      t.equal(await job.finished(), null)
    }
  })

  t.test('every kind of JSON is taken', async (t) => {
    const { app } = await ready(t)
    for (const payload of [0, false, '', [], {}, 'text', [1, { deep: [null] }], { unit: '€' }]) {
      t.strictSame(await (await app.background.add('task', payload)).finished(), payload)
    }
  })

  t.test('the caller\'s object and the job\'s do not share anything', async (t) => {
    const { app, background } = await ready(t)
    const payload = { list: [1] }
    const job = await app.background.add('task', payload)
    payload.list.push(2)
    const seen = await record(background, job.id)
    ;(seen.payload as { list: number[] }).list.push(3)
    t.same((await record(background, job.id)).payload, { list: [1] })
    t.same(await job.finished(), { list: [1] })
  })

  t.test('options that are undefined are not given', async (t) => {
    const { app } = await ready(t)
    await t.resolves(app.background.add('task', {}, undefined))
    await t.resolves(app.background.add('task', {}, { delay: undefined, runAt: undefined, priority: undefined, concurency: undefined } as JobOptions))
    await t.resolves(app.background.add(nothing, undefined))
    await t.resolves(app.background.addBulk([{ name: 'task', payload: undefined, options: undefined } as never]))
  })

  t.test('a payload of exactly maxPayloadBytes is taken', async (t) => {
    const { app } = await ready(t, { maxPayloadBytes: 10 })
    await t.resolves(app.background.add('task', '12345678'))
    await t.rejects(app.background.add('task', '123456789'), { code: 'FST_BG_PAYLOAD_TOO_LARGE' })
  })
})

t.test('results', async (t) => {
  t.test('what the handler returns is the result', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add(() => ({ rows: 3, gone: undefined }))
    t.strictSame(await job.finished(), { rows: 3 })
    t.match(await record(background, job.id), { state: 'completed', result: { rows: 3 } })
  })

  t.test('a handler that returns nothing leaves no result', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add(nothing)
    t.equal(await job.finished(), undefined)
    const seen = await record(background, job.id)
    t.notOk('result' in seen || 'resultOmitted' in seen)
  })

  t.test('a result that is no JSON is omitted and marked, the job is completed', async (t) => {
    const { app, background } = await ready(t)
    for (const result of [1n, cycle, nothing, Symbol('x'), { toJSON () { throw new Error('no') } }]) {
      const job = await app.background.add(() => result)
      await job.finished()
      const seen = await record(background, job.id)
      t.match(seen, { state: 'completed', resultOmitted: 'unserializable' })
      t.notOk('result' in seen)
    }
  })

  t.test('a result above maxPayloadBytes is omitted and marked', async (t) => {
    const { app, background } = await ready(t, { maxPayloadBytes: 100 })
    const job = await app.background.add(() => 'x'.repeat(200))
    await job.finished()
    t.match(await record(background, job.id), { state: 'completed', resultOmitted: 'too-large' })
  })
})

t.test('what add gives', async (t) => {
  t.test('an id of UUID version 7, another for each job, rising', async (t) => {
    const { app, clock } = await ready(t)
    const ids: string[] = []
    for (let i = 0; i < 20; i++) ids.push((await app.background.add('task')).id)
    for (const id of ids) t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    t.equal(new Set(ids).size, ids.length)
    t.strictSame([...ids].sort(), ids)
    t.equal(Number.parseInt((ids[0] as string).replace('-', '').slice(0, 12), 16), clock.now())
  })

  t.test('keeps 256 bytes of an id that a client chose, and whole characters', async (t) => {
    const { app } = await setup(t, { server: { requestIdHeader: 'x-request-id' } })
    app.get('/', async (_request, reply) => ({ id: reply.background(() => {}).id }))
    for (const [chosen, kept] of [['a'.repeat(256), 256], ['a'.repeat(10_000), 256], ['a' + '\u00e9'.repeat(9_000), 255], ['\u00e9'.repeat(85), 170]] as const) {
      const { id } = (await app.inject({ url: '/', headers: { 'x-request-id': chosen } })).json() as { id: string }
      const { requestId } = await app.background.get(id) as { requestId: string }
      t.equal(Buffer.byteLength(requestId), kept)
      t.ok(chosen.startsWith(requestId))
    }
  })

  t.test('keeps an id that the application counts as a text', async (t) => {
    const { app } = await setup(t, { server: { genReqId: () => 7 as never } })
    app.get('/', async (_request, reply) => ({ id: reply.background(() => {}).id }))
    const { id } = (await app.inject('/')).json() as { id: string }
    t.equal((await app.background.get(id))?.requestId, '7')
  })

  t.test('an id that neither client nor Fastify chose', async (t) => {
    const { app } = await setup(t, { server: { requestIdHeader: 'x-request-id' } })
    app.background.define('task', nothing)
    app.get('/', async (_request, reply) => ({ id: reply.background('task').id }))
    const chosen = '01890000-0000-7000-8000-000000000000'
    const response = await app.inject({ url: '/', headers: { 'x-request-id': chosen } })
    t.not(response.json().id, chosen)
    t.equal((await app.background.get(response.json().id))?.requestId, chosen)
  })

  t.test('the name of the task, of the function, or inline', async (t) => {
    const { app } = await ready(t)
    t.equal((await app.background.add('task')).name, 'task')
    t.equal((await app.background.add(function countSignup () {})).name, 'countSignup')
    t.equal((await app.background.add(() => {})).name, 'inline')
  })

  t.test('a promise that the backend has it', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', nothing)
    const accepted = deferred<unknown>()
    app.get('/', async (_request, reply) => {
      accepted.resolve(await reply.background('task').accepted)
      return 'ok'
    })
    await app.inject('/')
    t.equal(await accepted.promise, undefined)
    t.equal(await (await app.background.add('task')).accepted, undefined)
  })

  t.test('nothing runs inside the call itself', async (t) => {
    const { app } = await ready(t)
    const order: string[] = []
    const adding = app.background.add(() => { order.push('job') })
    order.push('called')
    const job = await adding
    order.push('added')
    await job.finished()
    t.strictSame(order, ['called', 'added', 'job'])
  })

  t.test('a job may add a job', async (t) => {
    const { app } = await ready(t)
    const inner = deferred<JobHandle>()
    await app.background.add(async ({ app }) => { inner.resolve(await app.background.add('task', 'from a job')) })
    t.equal(await (await inner.promise).finished(), 'from a job')
  })
})

t.test('addBulk', async (t) => {
  t.test('adds all, and gives their handles in order', async (t) => {
    const { app } = await ready(t)
    const jobs = await app.background.addBulk([{ name: 'task', payload: 1 }, { name: 'task', payload: 2, options: { priority: 5 } }])
    t.strictSame(await Promise.all(jobs.map((job) => job.finished())), [1, 2])
  })

  t.test('adds none when one is refused', async (t) => {
    const { app, background } = await ready(t)
    await t.rejects(app.background.addBulk([{ name: 'task' }, { name: 'unknown' }]), { code: 'FST_BG_UNKNOWN_TASK' })
    await t.rejects(app.background.addBulk([{ name: 'task' }, { name: 'task', payload: 1n }]), { code: 'FST_BG_PAYLOAD_NOT_JSON' })
    await t.rejects(app.background.addBulk([{ name: 'task' }, { name: 'task', options: { delay: -1 } }]), { code: 'FST_BG_BAD_OPTION' })
    t.equal(await jobsKept(background), 0)
  })

  t.test('adds none when there is not room for all', async (t) => {
    const { app, background } = await ready(t, { maxQueueSize: 2 })
    await t.rejects(app.background.addBulk([{ name: 'task' }, { name: 'task' }, { name: 'task' }]), { code: 'FST_BG_QUEUE_FULL', statusCode: 503 })
    t.equal(await jobsKept(background), 0)
    await t.resolves(app.background.addBulk([{ name: 'task' }, { name: 'task' }]))
  })

  t.test('of nothing adds nothing', async (t) => {
    const { app, background } = await ready(t)
    t.strictSame(await app.background.addBulk([]), [])
    t.equal(await jobsKept(background), 0)
  })

  t.test('the loop turns while many jobs are made', async (t) => {
    const clock = new BusyClock()
    const { app } = await ready(t, { backend: memory({ clock }) })
    let turn = 0
    let over = false
    const perTurn: number[] = []
    const payload = { toJSON: () => { perTurn[turn] = (perTurn[turn] ?? 0) + 1; clock.spend(1); return null } }
    const next = (): void => {
      turn++
      if (!over) setImmediate(next)
    }
    setImmediate(next)
    const handles = await app.background.addBulk(Array.from({ length: 50 }, () => ({ name: 'task', payload })))
    over = true
    t.equal(handles.length, 50)
    t.ok(Math.max(...perTurn.filter(Boolean)) <= 6, 'a slice is 5 ms')
  })

  t.test('a durable backend is given chunks, and what they need is kept free for them', async (t) => {
    const backend = new DurableBackend()
    const { app, background } = await ready(t, { backend, maxQueueSize: 250 })
    await background.pause()
    const letGo = backend.hold()
    const adding = app.background.addBulk(Array.from({ length: 250 }, (_, i) => ({ name: 'task', payload: i })))
    await until(() => backend.calls.length > 0)
    await t.rejects(app.background.addBulk(Array.from({ length: 101 }, () => ({ name: 'task' }))), { code: 'FST_BG_QUEUE_FULL', message: /150 jobs/ })
    letGo()
    const handles = await adding
    t.strictSame(backend.calls.filter((call) => call !== 'stored').map((call) => call.split(',').length), [100, 100, 50])
    t.strictSame(await Promise.all([0, 100, 249].map(async (at) => (await record(background, handles[at]?.id as string)).payload)), [0, 100, 249])
  })

  t.test('a chunk that cannot be stored tells what was stored before it, and lets go of the room of the rest', async (t) => {
    const backend = new DurableBackend()
    const { app, background } = await ready(t, { backend, maxQueueSize: 250 })
    await background.pause()
    let broken = true
    Object.defineProperty(backend, 'failure', { get: () => broken && backend.calls.includes('stored') ? new Error('down') : undefined })
    const jobs = Array.from({ length: 250 }, (_, i) => ({ name: 'task', payload: i }))
    const error = await app.background.addBulk(jobs).catch((thrown: unknown) => thrown) as { code: string, stored: JobHandle[] }
    t.equal(error.code, 'FST_BG_STORE_UNAVAILABLE')
    t.equal(error.stored.length, 100)
    t.equal((await record(background, error.stored[99]?.id as string)).payload, 99)
    broken = false
    t.equal((await app.background.addBulk(jobs.slice(100))).length, 150)
    t.equal(await jobsKept(background), 250)
  })

  t.test('a shutdown in its middle ends it', async (t) => {
    const backend = new DurableBackend()
    const { app } = await ready(t, { backend })
    const letGo = backend.hold()
    const adding = app.background.addBulk(Array.from({ length: 250 }, () => ({ name: 'task' }))).catch((thrown: unknown) => thrown)
    await until(() => backend.calls.length > 0)
    const closing = app.close()
    await until(async () => await app.background.add('nobody').catch((thrown: CodedError) => thrown.code) === 'FST_BG_CLOSING')
    letGo()
    t.match(await adding, { code: 'FST_BG_CLOSING', stored: { length: 100 } })
    await closing
  })
})

t.test('delay and runAt', async (t) => {
  t.test('a delayed job starts when its delay is over, not before', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('task', null, { delay: 1_000 })
    t.match(await record(background, job.id), { state: 'delayed', delayReason: 'delay', attemptsMade: 0, startedAt: null })
    await clock.advance(998)
    t.equal((await record(background, job.id)).state, 'delayed')
    await clock.advance(2)
    t.equal((await record(background, job.id)).state, 'completed')
  })

  t.test('a delay beyond 2^31 ms waits', async (t) => {
    const { app, background, clock } = await ready(t)
    const delay = 2 ** 31 + 5_000
    const job = await app.background.add('task', null, { delay })
    await clock.advance(2 ** 31)
    t.equal((await record(background, job.id)).state, 'delayed')
    await clock.advance(5_000)
    t.equal((await record(background, job.id)).state, 'completed')
  })

  t.test('runAt may be a Date, an ISO text or a number', async (t) => {
    const { app, background, clock } = await ready(t)
    const at = clock.now() + 60_000
    for (const runAt of [new Date(at), new Date(at).toISOString(), at]) {
      const job = await app.background.add('task', null, { runAt })
      t.match(await record(background, job.id), { state: 'delayed', delayReason: 'delay' })
    }
    await clock.advance(59_000)
    t.match(await background.counts(), { default: { delayed: 3, completed: 0 } })
    await clock.advance(1_000)
    t.match(await background.counts(), { default: { delayed: 0, completed: 3 } })
  })

  t.test('a runAt in the past means now', async (t) => {
    const { app, background, clock } = await ready(t)
    for (const runAt of [new Date(0), '2001-01-01T00:00:00Z', 5, -5]) await app.background.add('task', null, { runAt })
    await clock.settle()
    t.match(await background.counts(), { default: { completed: 4 } })
  })

  t.test('the latest instant that JavaScript knows can be waited for', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add('task', null, { runAt: 8.64e15 })
    t.equal((await record(background, job.id)).state, 'delayed')
  })

  t.test('a staged job\'s delay runs from the call', async (t) => {
    const { app, background, clock } = await setup(t)
    const gate = deferred()
    const staged = deferred<JobHandle>()
    app.get('/', async (_request, reply) => {
      staged.resolve(reply.background(nothing, { delay: 1_000 }))
      await gate.promise
      return 'ok'
    })
    const response = app.inject('/')
    const job = await staged.promise
    await clock.advance(2_000)
    t.equal((await record(background, job.id)).state, 'pending')
    gate.resolve()
    await response
    await clock.settle()
    t.equal((await record(background, job.id)).state, 'completed')
  })
})

t.test('ttl', async (t) => {
  t.test('a job not started in time fails as expired', async (t) => {
    const { app, background, clock } = await ready(t)
    await background.pause()
    const job = await app.background.add('task', null, { ttl: 1_000 })
    await clock.advance(998)
    t.equal((await record(background, job.id)).state, 'waiting')
    await clock.advance(2)
    t.match(await record(background, job.id), { state: 'failed', failure: 'expired', attemptsMade: 0, startedAt: null })
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'expired' })
  })

  t.test('a job that started in time may take longer, and be retried later', async (t) => {
    const { app, background, clock } = await ready(t)
    let runs = 0
    const job = await app.background.add(() => { if (++runs === 1) throw new Error('again') }, { ttl: 100, attempts: 2, backoff: 5_000 })
    await clock.advance(5_000)
    t.match(await record(background, job.id), { state: 'completed', attemptsMade: 2 })
  })

  t.test('a ttl shorter than the delay expires', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('task', null, { ttl: 100, delay: 5_000 })
    await clock.advance(100)
    t.match(await record(background, job.id), { state: 'failed', failure: 'expired' })
  })
})

t.test('priority', async (t) => {
  t.test('higher goes first, equals in their order', async (t) => {
    const { app, background } = await ready(t, { concurrency: 1 })
    const order: string[] = []
    await background.pause()
    for (const [name, priority] of [['a', 0], ['b', 5], ['c', -5], ['d', 5], ['e', undefined], ['f', 1_000_000]] as const) {
      await app.background.add(() => { order.push(name) }, { priority })
    }
    await background.resume()
    await background.onIdle()
    t.equal(order.join(''), 'fbdaec')
  })
})

t.test('attempts', async (t) => {
  t.test('a job that fails is attempted again, after its backoff', async (t) => {
    const { app, background, clock } = await ready(t)
    const seen: number[] = []
    const job = await app.background.add(({ job }) => { seen.push(job.attempt); throw new Error(`no ${job.attempt}`) }, { attempts: 3, backoff: 1_000 })
    await clock.settle()
    t.match(await record(background, job.id), {
      state: 'delayed', delayReason: 'retry', attemptsMade: 1, error: { message: 'no 1' }, retryAt: new Date(clock.now() + 1_000).toISOString()
    })
    await clock.advance(998)
    t.strictSame(seen, [1])
    await clock.advance(2)
    await clock.advance(1_000)
    t.strictSame(seen, [1, 2, 3])
    t.match(await record(background, job.id), { state: 'failed', failure: 'exhausted', attemptsMade: 3, attempts: 3, error: { message: 'no 3' } })
  })

  t.test('one attempt that fails is exhausted too', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add(() => { throw new Error('no') })
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'exhausted' })
    t.match(await record(background, job.id), { state: 'failed', failure: 'exhausted', attemptsMade: 1 })
  })

  t.test('an error of an earlier attempt is gone when a later one succeeds', async (t) => {
    const { app, background } = await ready(t)
    let runs = 0
    const job = await app.background.add(() => { if (++runs === 1) throw new Error('again'); return 'fine' }, { attempts: 2, backoff: 0 })
    t.equal(await job.finished(), 'fine')
    const seen = await record(background, job.id)
    t.match(seen, { state: 'completed', result: 'fine', attemptsMade: 2 })
    t.notOk('error' in seen || 'failure' in seen || 'retryAt' in seen)
  })

  const exponential: Array<[title: string, backoff: JobOptions['backoff'], chance: number, waits: number[]]> = [
    ['by default doubles from a second, with half of it drawn', undefined, 0.5, [750, 1_500, 3_000]],
    ['is never longer than its full delay', { jitter: 1 }, 0, [1_000, 2_000, 4_000]],
    ['with a number is fixed and without jitter', 700, 0.9, [700, 700, 700]],
    ['with a shape takes defaults for what is missing', { delay: 100 }, 0.5, [75, 150, 300]],
    ['is capped by maxDelay', { delay: 1_000, maxDelay: 1_500, jitter: 0 }, 0.5, [1_000, 1_500, 1_500]],
    ['of type fixed is drawn too', { type: 'fixed', delay: 1_000 }, 0.5, [750, 750, 750]],
    ['may be a function of the attempt', (attempt) => attempt * 10, 0.5, [10, 20, 30]]
  ]
  for (const [title, backoff, chance, waits] of exponential) {
    t.test(`backoff ${title}`, async (t) => {
      const { app, background, clock } = await ready(t)
      clock.chance = chance
      const job = await app.background.add(() => { throw new Error('no') }, { attempts: 4, backoff })
      await clock.settle()
      for (const wait of waits) {
        const { retryAt } = await record(background, job.id)
        t.equal(Date.parse(retryAt as string) - clock.now(), wait)
        await clock.advance(wait)
      }
      t.equal((await record(background, job.id)).state, 'failed')
    })
  }

  t.test('a backoff function gets the attempt, the thrown value and the job', async (t) => {
    const { app, clock } = await ready(t)
    const thrown = new Error('no')
    const seen: unknown[] = []
    const job = await app.background.add(() => { throw thrown }, { attempts: 2, backoff: (...args) => { seen.push(...args); return 5 } })
    await clock.settle()
    t.equal(seen[0], 1)
    t.equal(seen[1], thrown)
    t.match(seen[2], { id: job.id, attempt: 1, attempts: 2 })
  })

  for (const [title, backoff] of [
    ['throws', () => { throw new Error('broken policy') }],
    ['answers nonsense', () => 'soon'],
    ['answers NaN', () => NaN],
    ['answers a negative number', () => -5]
  ] as Array<[string, () => number]>) {
    t.test(`a backoff function that ${title} is logged, and the default is taken`, async (t) => {
      const { app, background, clock, said } = await ready(t)
      const job = await app.background.add(() => { throw new Error('no') }, { attempts: 2, backoff })
      await clock.settle()
      t.match(await record(background, job.id), { state: 'delayed', retryAt: new Date(clock.now() + 750).toISOString() })
      t.match(said('backoff failed'), [{ level: 50, option: 'backoff', jobId: job.id }])
    })
  }

  t.test('a wait beyond every calendar leaves the job readable', async (t) => {
    const { app, background, clock } = await ready(t)
    for (const error of [new RetryLaterError({ delay: 1e17 }), Object.assign(new Error('no'), { retryAfter: 1e17 })]) {
      const job = await app.background.add(() => { throw error }, { attempts: 2 })
      await clock.settle()
      await t.resolves(background.get(job.id))
    }
    const job = await app.background.add(() => { throw new Error('no') }, { attempts: 2, backoff: () => 1e17 })
    await clock.settle()
    await t.resolves(background.get(job.id))
    t.match(await background.counts(), { default: { delayed: 3 } })
  })

  t.test('retryIf that says no ends the job as unrecoverable', async (t) => {
    const { app, background } = await ready(t)
    const asked: unknown[] = []
    const thrown = new Error('no')
    const job = await app.background.add(() => { throw thrown }, { attempts: 5, retryIf: (error, job) => { asked.push(error, job.attempt); return false } })
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'unrecoverable' })
    t.match(await record(background, job.id), { state: 'failed', failure: 'unrecoverable', attemptsMade: 1 })
    t.strictSame(asked, [thrown, 1])
  })

  t.test('a retryIf that throws is logged, and the job is retried', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const job = await app.background.add(() => { throw new Error('no') }, { attempts: 2, retryIf: () => { throw new Error('broken policy') } })
    await clock.settle()
    t.equal((await record(background, job.id)).state, 'delayed')
    t.match(said('retryIf failed'), [{ level: 50, option: 'retryIf', err: { message: 'broken policy' } }])
  })

  t.test('UnrecoverableError ends the job at once', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add(() => { throw new UnrecoverableError('never') }, { attempts: 5, retryIf: () => true })
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'unrecoverable' })
    t.match(await record(background, job.id), { failure: 'unrecoverable', attemptsMade: 1, error: { name: 'UnrecoverableError', message: 'never' } })
  })

  t.test('RetryLaterError decides the wait', async (t) => {
    const { app, background, clock } = await ready(t)
    let runs = 0
    const job = await app.background.add(() => { if (++runs === 1) throw new RetryLaterError({ delay: 5_000 }); return 'fine' }, { attempts: 2, backoff: 10 })
    await clock.settle()
    t.match(await record(background, job.id), { state: 'delayed', delayReason: 'retry', attemptsMade: 1, retryAt: new Date(clock.now() + 5_000).toISOString() })
    await clock.advance(5_000)
    t.match(await record(background, job.id), { state: 'completed', attemptsMade: 2 })
  })

  t.test('RetryLaterError counts as an attempt', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add(() => { throw new RetryLaterError({ delay: 5 }) }, { attempts: 2 })
    await clock.advance(5)
    t.match(await record(background, job.id), { state: 'failed', failure: 'exhausted', attemptsMade: 2 })
  })

  t.test('RetryLaterError that does not count is retried beyond attempts', async (t) => {
    const { app, background, clock } = await ready(t)
    let runs = 0
    const job = await app.background.add(() => { if (++runs < 4) throw new RetryLaterError({ delay: 5, countAttempt: false }) }, { attempts: 1 })
    for (let i = 0; i < 3; i++) await clock.advance(5)
    t.match(await record(background, job.id), { state: 'completed', attemptsMade: 1 })
  })

  t.test('RetryLaterError wants a delay', async (t) => {
    for (const delay of [-1, NaN, Infinity, '5']) {
      t.throws(() => new RetryLaterError({ delay: delay as number }), { code: 'FST_BG_BAD_OPTION', message: /delay/ })
    }
  })

  t.test('the errors with meaning are known across copies of the package', async (t) => {
    const { app, background, clock } = await ready(t)
    const theirs = Object.assign(new Error('never'), { [Symbol.for('fastify-background-tasks.unrecoverable')]: true })
    const job = await app.background.add(() => { throw theirs }, { attempts: 5 })
    await clock.settle()
    t.match(await record(background, job.id), { state: 'failed', failure: 'unrecoverable' })
  })

  const httpErrors: Array<[title: string, told: (now: number) => object]> = [
    ['retryAfter in seconds', () => ({ retryAfter: 7 })],
    ['a Retry-After header', () => ({ headers: { 'retry-after': '7' } })],
    ['a Retry-After header of its response', () => ({ response: { headers: new Headers({ 'retry-after': '7' }) } })],
    ['a Retry-After header with a date', (now) => ({ headers: { 'retry-after': new Date(now + 7_000).toUTCString() } })]
  ]
  for (const [title, told] of httpErrors) {
    t.test(`a thrown HTTP error with ${title} is waited for`, async (t) => {
      const { app, background, clock } = await ready(t)
      const job = await app.background.add(() => { throw Object.assign(new Error('busy'), told(clock.now())) }, { attempts: 2, backoff: 10 })
      await clock.settle()
      t.equal((await record(background, job.id)).retryAt, new Date(clock.now() + 7_000).toISOString())
    })
  }

  t.test('a job waits for its retry outside of its slot', async (t) => {
    const { app, clock } = await ready(t, { concurrency: 1 })
    await app.background.add(() => { throw new Error('no') }, { attempts: 2, backoff: 60_000 })
    const other = await app.background.add('task', 'other')
    t.equal(await other.finished(), 'other')
    await clock.settle()
  })
})

t.test('timeout', async (t) => {
  t.test('aborts the signal with a typed reason', async (t) => {
    const { app, clock } = await ready(t)
    const aborted = deferred<unknown>()
    await app.background.add(({ signal }) => new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => { aborted.resolve(signal.reason); resolve() })
    }), { timeout: 100 })
    await clock.advance(100)
    t.match(await aborted.promise, { name: 'AbortError', code: 'FST_BG_ABORTED', reason: 'timeout' })
  })

  t.test('ends the job as failed by timeout, when its body has settled', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await app.background.add(() => end.promise, { timeout: 100 })
    await clock.advance(100)
    t.match(await record(background, job.id), { state: 'active', overdue: true })
    end.resolve()
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'timeout' })
    const seen = await record(background, job.id)
    t.match(seen, { state: 'failed', failure: 'timeout', error: { name: 'TimeoutError' } })
    t.notOk('overdue' in seen || 'result' in seen)
  })

  t.test('is retried, and two attempts never overlap', async (t) => {
    const { app, background, clock } = await ready(t)
    let alive = 0
    let most = 0
    const ends = [deferred(), deferred()]
    const job = await app.background.add(async ({ job }) => {
      most = Math.max(most, ++alive)
      if (job.attempt === 1) await ends[0]?.promise
      alive--
    }, { timeout: 100, attempts: 2, backoff: 10 })
    await clock.advance(500)
    t.match(await record(background, job.id), { state: 'active', overdue: true, attemptsMade: 1 })
    ends[0]?.resolve()
    await clock.advance(10)
    t.match(await record(background, job.id), { state: 'completed', attemptsMade: 2 })
    t.equal(most, 1)
  })

  t.test('of 0 is none', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await app.background.add(() => end.promise, { timeout: 0 })
    await clock.advance(1e9)
    const seen = await record(background, job.id)
    t.equal(seen.state, 'active')
    t.notOk('overdue' in seen)
    end.resolve()
    await job.finished()
  })

  t.test('is 30 seconds by default', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await app.background.add(() => end.promise)
    await clock.advance(29_990)
    t.notOk((await record(background, job.id)).overdue)
    await clock.advance(10)
    t.ok((await record(background, job.id)).overdue)
    end.resolve()
  })

  t.test('ten times over, the job fails for good and its slot stays held', async (t) => {
    const { app, background, clock } = await ready(t, { concurrency: 1 })
    const end = deferred()
    const job = await app.background.add(() => end.promise, { timeout: 100, attempts: 5 })
    const next = await app.background.add('task')
    await clock.advance(990)
    t.equal((await record(background, job.id)).state, 'active')
    await clock.advance(10)
    t.match(await record(background, job.id), { state: 'failed', failure: 'timeout', attemptsMade: 1 })
    t.equal((await record(background, next.id)).state, 'waiting')
    end.resolve()
    await next.finished()
    t.equal((await record(background, job.id)).state, 'failed')
  })

  t.test('beyond 2^31 ms does not fire at once', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await app.background.add(() => end.promise, { timeout: 2 ** 31 + 5_000 })
    await clock.advance(2 ** 31)
    t.notOk((await record(background, job.id)).overdue)
    await clock.advance(5_000)
    t.ok((await record(background, job.id)).overdue)
    end.resolve()
  })
})

t.test('limits', async (t) => {
  t.test('a queue takes maxQueueSize jobs that never started', async (t) => {
    const { app, background } = await ready(t, { maxQueueSize: 2 })
    await background.pause()
    await app.background.add('task')
    await app.background.add('task', null, { delay: 1_000 })
    await t.rejects(app.background.add('task'), { code: 'FST_BG_QUEUE_FULL', statusCode: 503, message: /"default".*maxQueueSize/, headers: { 'retry-after': '1' } })
    t.match(await background.counts(), { default: { waiting: 1, delayed: 1 } })
  })

  t.test('pending jobs take room too', async (t) => {
    const { app, background } = await setup(t, { maxQueueSize: 1 })
    const end = deferred()
    const staged = deferred()
    app.get('/', async (_request, reply) => {
      reply.background(nothing)
      staged.resolve()
      await end.promise
      return 'ok'
    })
    const response = app.inject('/')
    await staged.promise
    await t.rejects(background.add(nothing), { code: 'FST_BG_QUEUE_FULL' })
    end.resolve()
    await response
  })

  t.test('jobs that started take no room', async (t) => {
    const { app, clock } = await ready(t, { maxQueueSize: 1, concurrency: 1 })
    const end = deferred()
    await app.background.add(() => end.promise)
    await clock.settle()
    await t.resolves(app.background.add('task'))
    await t.rejects(app.background.add('task'), { code: 'FST_BG_QUEUE_FULL' })
    end.resolve()
  })

  t.test('a cancelled, an expired and a started job make room', async (t) => {
    const { app, background, clock } = await ready(t, { maxQueueSize: 1 })
    await background.pause()
    const one = await app.background.add('task')
    await background.cancel(one.id)
    await app.background.add('task', null, { ttl: 100 })
    await clock.advance(100)
    await app.background.add('task')
    await background.resume()
    await background.onIdle()
    await t.resolves(app.background.add('task'))
  })

  t.test('maxQueueBytes counts bytes of payload, and inline functions as nothing', async (t) => {
    const { app, background } = await ready(t, { maxQueueBytes: 10 })
    await background.pause()
    await app.background.add('task', '1234567')
    await t.rejects(app.background.add('task', '€'), { code: 'FST_BG_QUEUE_FULL', statusCode: 503, message: /maxQueueBytes/ })
    await t.resolves(app.background.add(nothing))
    await t.resolves(app.background.add('task', 5))
  })

  t.test('retries are never refused', async (t) => {
    const { app, background, clock } = await ready(t, { maxQueueSize: 1, concurrency: 1 })
    let runs = 0
    const job = await app.background.add(() => { if (++runs === 1) throw new Error('again') }, { attempts: 2, backoff: 1_000 })
    await clock.settle()
    await background.pause()
    await app.background.add('task')
    await clock.advance(1_000)
    t.match(await background.counts(), { default: { waiting: 2 } })
    await background.resume()
    await job.finished()
  })

  t.test('the retry of a dead letter is not refused', async (t) => {
    const { app, background, clock } = await setup(t, { maxQueueSize: 1 })
    app.background.define('bad', { attempts: 1 }, () => { throw new Error('no') })
    await app.ready()
    const dead = await app.background.add('bad')
    await clock.settle()
    await background.pause()
    await app.background.add('bad')
    t.same(await background.deadLetters.retry(dead.id), { matched: 1, done: 1 })
    t.match(await background.counts(), { default: { waiting: 2 } })
  })

  t.test('over HTTP a full queue is a 503 with Retry-After, and nothing is staged', async (t) => {
    const { app, background } = await setup(t, { maxQueueSize: 0 })
    app.get('/', async (_request, reply) => { reply.background(nothing); return 'ok' })
    const response = await app.inject('/')
    t.equal(response.statusCode, 503)
    t.match(response.headers['retry-after'], /^[1-9]\d*$/)
    t.match(response.json(), { statusCode: 503, code: 'FST_BG_QUEUE_FULL', error: 'Service Unavailable' })
    t.equal(await jobsKept(background), 0)
  })

  t.test('over a real socket too, and a keep-alive client goes on', async (t) => {
    const { app } = await setup(t, { maxQueueSize: 0 })
    app.get('/', async (_request, reply) => { reply.background(nothing); return 'ok' })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    for (let i = 0; i < 2; i++) {
      socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
      const [answer] = await once(socket, 'data')
      t.match(String(answer), /^HTTP\/1\.1 503 /)
      t.match(String(answer), /\r\nretry-after: 1\r\n/i)
    }
    socket.destroy()
  })
})

t.test('retention', async (t) => {
  t.test('keeps so many completed and cancelled jobs, the latest', async (t) => {
    const { app, background } = await ready(t, { retention: { completed: { count: 2 } } })
    const jobs: JobHandle[] = []
    for (let i = 0; i < 3; i++) {
      const job = await app.background.add('task')
      await job.finished()
      jobs.push(job)
    }
    await background.pause()
    const cancelled = await app.background.add('task')
    await background.cancel(cancelled.id)
    const kept = await Promise.all([...jobs, cancelled].map(async (job) => (await background.get(job.id))?.state))
    t.strictSame(kept, [undefined, undefined, 'completed', 'cancelled'])
    t.match(await background.counts(), { default: { completed: 1, cancelled: 1 } })
  })

  t.test('keeps them for so long', async (t) => {
    const { app, background, clock } = await ready(t, { retention: { completed: { age: 1_000 } } })
    const job = await app.background.add('task')
    await job.finished()
    await clock.advance(1_000)
    t.ok(await background.get(job.id))
    await clock.advance(1)
    t.equal(await background.get(job.id), undefined)
    t.match(await background.counts(), { default: { completed: 0 } })
  })

  t.test('of 0 keeps none, and finished still gives the result', async (t) => {
    const { app, background } = await ready(t, { retention: { completed: { count: 0 }, failed: { count: 0 } } })
    const gate = deferred()
    const job = await app.background.add(async () => { await gate.promise; return 'fine' })
    const bad = await app.background.add(async () => { await gate.promise; throw new Error('no') })
    const ends = [job.finished(), bad.finished()]
    gate.resolve()
    t.equal(await ends[0], 'fine')
    await t.rejects(ends[1] as Promise<unknown>, { code: 'FST_BG_JOB_FAILED' })
    t.equal(await jobsKept(background), 0)
  })

  t.test('of failed jobs is a bounded ring; what drops out is counted and logged', async (t) => {
    const { app, background, clock, said } = await ready(t, { retention: { failed: { count: 2 } } })
    const jobs: JobHandle[] = []
    for (let i = 0; i < 5; i++) {
      jobs.push(await app.background.add(function bad () { throw new Error('no') }))
      await clock.settle()
    }
    await clock.advance(1_000)
    const { jobs: kept } = await background.deadLetters.list()
    t.strictSame(kept.map((job) => job.id), jobs.slice(3).map((job) => job.id))
    t.match((await app.inject('/health/jobs')).json(), { totals: { deadLettered: 5 }, queues: { default: { failed: 2 } } })
    const lines = said('dead letters dropped by retention')
    t.ok(lines.every(({ level, task }) => level === 40 && task === 'bad'))
    t.equal(lines.reduce((sum, { count }) => sum + (count as number), 0), 3)
  })

  t.test('does not touch jobs that have not ended', async (t) => {
    const { app, background, clock } = await ready(t, { retention: { completed: { count: 0, age: 0 }, failed: { count: 0, age: 0 } } })
    const job = await app.background.add('task', null, { delay: 1e9 })
    await clock.advance(1e8)
    t.equal((await record(background, job.id)).state, 'delayed')
  })

  t.test('forgets what is too old without being asked', async (t) => {
    const { app, clock, said } = await ready(t, { retention: { failed: { age: 1_000 } } })
    await app.background.add(() => { throw new Error('no') })
    await clock.advance(5_000)
    await app.background.add('task')
    await clock.advance(60_000)
    await app.inject('/health/jobs')
    t.equal(said('dead letters dropped by retention').length, 1)
  })
})

t.test('async context', async (t) => {
  t.test('a job does not see its caller\'s context, unless it asks for it', async (t) => {
    const { app } = await ready(t)
    const als = new AsyncLocalStorage<string>()
    const [plain, own] = await als.run('caller', async () => [
      await app.background.add(() => als.getStore() ?? 'none'),
      await app.background.add(() => als.getStore() ?? 'none', { callerContext: true })
    ])
    t.equal(await plain?.finished(), 'none')
    t.equal(await own?.finished(), 'caller')
  })
})

t.test('a handler that throws at once, rejects, or returns a broken thenable fails its job and nothing else', async (t) => {
  const { app, background } = await ready(t)
  const bodies = [
    () => { throw new Error('at once') },
    async () => { throw new Error('later') },
    () => ({ get [THEN] () { throw new Error('getter') } }),
    () => ({ [THEN] () { throw new Error('then') } }),
    () => { throw null },
    () => Promise.reject()
  ]
  for (const body of bodies) {
    const job = await app.background.add(body as () => void)
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED' })
    t.match(await record(background, job.id), { state: 'failed', failure: 'exhausted' })
  }
  t.equal(await (await app.background.add('task', 'fine')).finished(), 'fine')
})

t.test('every job runs once, also when thousands are added at a time', async (t) => {
  const { app, background } = await ready(t)
  let runs = 0
  const jobs = Array.from({ length: 3_000 }, () => app.background.add(async () => { runs++ }))
  await Promise.all(jobs)
  await background.onIdle()
  await until(() => runs === 3_000)
  t.match((await app.inject('/health/jobs')).json(), { totals: { completed: 3_000 } })
})

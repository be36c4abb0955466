import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import t from 'tap'
import { backgroundTasks, memory, RetryLaterError, type JobHandle, type JobRecord } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { deferred, jobsKept, setup, type Harness, type HarnessOptions } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

const nothing = () => {}
const unknownId = '01890000-0000-7000-8000-000000000000'
type TestLike = Parameters<typeof setup>[0]

async function ready (t: TestLike, options?: HarnessOptions): Promise<Harness> {
  const harness = await setup(t, options)
  harness.app.background.define('task', (payload) => payload)
  harness.app.background.define('bad', { attempts: 1 }, () => {
    throw Object.assign(new TypeError('password is hunter2'), { code: 'E_BAD', stack: 'TypeError: hunter2\n    at secret.js' })
  })
  await harness.app.ready()
  return harness
}

/** Stays active until its signal aborts, or until it is told to end. */
function stuck () {
  const { promise, resolve } = deferred<unknown>()
  return { work: () => promise, end: resolve }
}

function shapeErrors (app: FastifyInstance): void {
  app.setErrorHandler((error: Error & { code?: string, statusCode?: number }, _request, reply) => reply.code(error.statusCode ?? 500).send({ problem: error.code }))
}

/** The keys every status document has. */
const always = ['jobId', 'name', 'queue', 'state', 'progress', 'attemptsMade', 'attempts', 'createdAt', 'startedAt', 'finishedAt']
const start = '2026-01-01T00:00:00.000Z'

interface Shown {
  body: Record<string, unknown>
  headers: Record<string, unknown>
  statusCode: number
}

async function show ({ app }: Harness, id: string): Promise<Shown> {
  const { statusCode, headers, ...response } = await app.inject(`/jobs/${id}/status`)
  return { statusCode, headers, body: response.json() }
}

t.test('the status of a job', async (t) => {
  const states: Array<{
    title: string
    make: (harness: Harness, t: TestLike) => Promise<string>
    body: Record<string, unknown>
    more: string[]
    retryAfter?: string
  }> = [
    {
      title: 'waiting',
      make: async ({ background }) => {
        await background.pause()
        return (await background.add('task', { secret: 'hunter2' })).id
      },
      body: { name: 'task', queue: 'default', state: 'waiting', progress: null, attemptsMade: 0, attempts: 3, createdAt: start, startedAt: null, finishedAt: null },
      more: [],
      retryAfter: '1'
    },
    {
      title: 'delayed by a delay',
      make: async ({ background }) => (await background.add('task', { secret: 'hunter2' }, { delay: 10_500 })).id,
      body: { state: 'delayed', delayReason: 'delay', runAt: '2026-01-01T00:00:10.500Z', startedAt: null },
      more: ['delayReason', 'runAt'],
      retryAfter: '11'
    },
    {
      title: 'delayed by a retry',
      make: async ({ background, clock }) => {
        const { id } = await background.add(() => { throw new RetryLaterError({ delay: 5_000, message: 'hunter2' }) }, { attempts: 2 })
        await clock.settle()
        return id
      },
      body: {
        state: 'delayed', delayReason: 'retry', retryAt: '2026-01-01T00:00:05.000Z', attemptsMade: 1, startedAt: start, finishedAt: null,
        error: { name: 'RetryLaterError', code: 'FST_BG_RETRY_LATER' }
      },
      more: ['delayReason', 'retryAt', 'error'],
      retryAfter: '5'
    },
    {
      title: 'active',
      make: async ({ background, clock }) => {
        const { work } = stuck()
        const { id } = await background.add(({ progress }) => { progress({ done: 3, of: 10 }); return work() })
        await clock.settle()
        return id
      },
      body: { name: 'inline', state: 'active', attemptsMade: 1, attempts: 1, progress: { done: 3, of: 10 }, startedAt: start, finishedAt: null },
      more: [],
      retryAfter: '1'
    },
    {
      title: 'active and overdue',
      make: async ({ background, clock }) => {
        const { id } = await background.add(stuck().work, { timeout: 100 })
        await clock.advance(100)
        return id
      },
      body: { state: 'active', overdue: true },
      more: ['overdue'],
      retryAfter: '1'
    },
    {
      title: 'completed with a result',
      make: async ({ background, clock }) => {
        const { id } = await background.add(() => ({ list: [1, null, 'x'], nested: { ok: true } }))
        await clock.settle()
        return id
      },
      body: { state: 'completed', result: { list: [1, null, 'x'], nested: { ok: true } }, attemptsMade: 1, startedAt: start, finishedAt: start },
      more: ['result']
    },
    {
      title: 'completed without a result',
      make: async ({ background, clock }) => {
        const { id } = await background.add(nothing)
        await clock.settle()
        return id
      },
      body: { state: 'completed', finishedAt: start },
      more: []
    },
    {
      title: 'completed with the result null',
      make: async ({ background, clock }) => {
        const { id } = await background.add('task')
        await clock.settle()
        return id
      },
      body: { state: 'completed', result: null },
      more: ['result']
    },
    {
      title: 'completed with a result that was omitted',
      make: async ({ background, clock }) => {
        const { id } = await background.add(() => 1n)
        await clock.settle()
        return id
      },
      body: { state: 'completed', resultOmitted: 'unserializable' },
      more: ['resultOmitted']
    },
    {
      title: 'failed, exhausted',
      make: async ({ background, clock }) => {
        const { id } = await background.add('bad', { secret: 'hunter2' })
        await clock.settle()
        return id
      },
      body: { state: 'failed', failure: 'exhausted', error: { name: 'TypeError', code: 'E_BAD' }, finishedAt: start },
      more: ['error', 'failure']
    },
    {
      title: 'failed by timeout',
      make: async ({ background, clock }) => {
        const { id } = await background.add(({ signal }) => new Promise((resolve) => { signal.addEventListener('abort', resolve) }), { timeout: 100 })
        await clock.advance(100)
        return id
      },
      body: { state: 'failed', failure: 'timeout', error: { name: 'TimeoutError', code: 'FST_BG_TIMEOUT' } },
      more: ['error', 'failure']
    },
    {
      title: 'failed, expired',
      make: async ({ background, clock }) => {
        await background.pause()
        const { id } = await background.add('task', null, { ttl: 100 })
        await clock.advance(100)
        return id
      },
      body: { state: 'failed', failure: 'expired', attemptsMade: 0, startedAt: null, finishedAt: '2026-01-01T00:00:00.100Z' },
      more: ['error', 'failure']
    },
    {
      title: 'cancelled by the user',
      make: async ({ background }) => {
        await background.pause()
        const { id } = await background.add('task')
        await background.cancel(id, 'hunter2')
        return id
      },
      body: { state: 'cancelled', reason: 'user', startedAt: null, finishedAt: start },
      more: ['reason']
    }
  ]
  for (const { title, make, body, more, retryAfter } of states) {
    t.test(`when ${title}: exactly the keys of the contract, no payload, no stack, no text of an error`, async (t) => {
      const harness = await ready(t)
      const id = await make(harness, t)
      const { statusCode, headers, body: seen } = await show(harness, id)
      t.equal(statusCode, 200)
      t.match(seen, { jobId: id, ...body })
      t.strictSame(Object.keys(seen).sort(), [...always, ...more].sort())
      t.equal(headers['retry-after'], retryAfter)
      t.equal(headers['cache-control'], 'no-store')
      t.match(headers['content-type'], /^application\/json/)
      t.notMatch(JSON.stringify(seen), /hunter2|secret/)
    })
  }

  t.test('when pending, and after its response was refused', async (t) => {
    const harness = await setup(t)
    const open = deferred()
    const staged = deferred<JobHandle>()
    harness.app.get('/', async (_request, reply) => {
      staged.resolve(reply.background(nothing))
      await open.promise
      throw new Error('no')
    })
    const response = harness.app.inject('/')
    const { id } = await staged.promise
    const pending = await show(harness, id)
    t.match(pending.body, { state: 'pending', startedAt: null })
    t.strictSame(Object.keys(pending.body).sort(), [...always].sort())
    t.equal(pending.headers['retry-after'], '1')
    open.resolve()
    await response
    await harness.clock.settle()
    const cancelled = await show(harness, id)
    t.match(cancelled.body, { state: 'cancelled', reason: 'response' })
    t.strictSame(Object.keys(cancelled.body).sort(), [...always, 'reason'].sort())
    t.equal(cancelled.headers['retry-after'], undefined)
  })

  t.test('a retry that is due now still says Retry-After: 1', async (t) => {
    const harness = await ready(t)
    await harness.background.pause()
    const job = await harness.background.add('task', null, { delay: 1 })
    t.equal((await show(harness, job.id)).headers['retry-after'], '1')
  })

  t.test('a very long delay says a bounded number of seconds', async (t) => {
    const harness = await ready(t)
    const job = await harness.background.add('task', null, { delay: 30 * 86_400_000 })
    t.match((await show(harness, job.id)).headers['retry-after'], /^\d{1,7}$/)
  })

  t.test('HEAD answers with the same headers and no body', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('task')
    await job.finished()
    const response = await app.inject({ method: 'HEAD', url: job.statusUrl as string })
    t.equal(response.statusCode, 200)
    t.equal(response.headers['cache-control'], 'no-store')
    t.equal(response.body, '')
    t.equal((await app.inject({ method: 'HEAD', url: `/jobs/${unknownId}/status` })).statusCode, 404)
  })
})

t.test('a job that nobody knows', async (t) => {
  for (const id of [unknownId, 'x', '1', '__proto__', '%00', '..%2f..%2f', unknownId.toUpperCase(), `${unknownId}%20`, 'x'.repeat(90)]) {
    t.test(`${id.slice(0, 40)} is a 404 in Fastify's shape`, async (t) => {
      const { app } = await ready(t)
      const response = await app.inject(`/jobs/${id}/status`)
      t.equal(response.statusCode, 404)
      t.strictSame(Object.keys(response.json()).sort(), ['code', 'error', 'message', 'statusCode'])
      t.match(response.json(), { statusCode: 404, code: 'FST_BG_JOB_NOT_FOUND', error: 'Not Found', message: /no such job/ })
      t.notMatch(response.body, /hunter2/)
    })
  }

  t.test('one that is no longer kept is a 404 too', async (t) => {
    const harness = await ready(t, { retention: { completed: { count: 0 } } })
    const job = await harness.background.add('task')
    await harness.background.onIdle()
    t.match(await show(harness, job.id), { statusCode: 404, body: { code: 'FST_BG_JOB_NOT_FOUND' } })
  })

  t.test('an error handler of the application may give the 404 a shape of its own', async (t) => {
    const { app } = await setup(t, { before: shapeErrors })
    const response = await app.inject(`/jobs/${unknownId}/status`)
    t.equal(response.statusCode, 404)
    t.same(response.json(), { problem: 'FST_BG_JOB_NOT_FOUND' })
  })
})

t.test('an error handler that is set after the plugin was registered is the application\'s too', async (t) => {
  const { app } = await setup(t)
  shapeErrors(app)
  t.same((await app.inject(`/jobs/${unknownId}/status`)).json(), { problem: 'FST_BG_JOB_NOT_FOUND' })
})

t.test('authorize', async (t) => {
  /** A dead job, read through `authorize`. */
  async function read (t: TestLike, authorize: HarnessOptions['authorize'], before?: (app: FastifyInstance) => void) {
    const harness = await setup(t, before === undefined ? { authorize } : { authorize, before })
    harness.app.background.define('bad', { attempts: 1 }, () => { throw new Error('password is hunter2') })
    await harness.app.ready()
    const { id } = await harness.background.add('bad', { owner: 'Ada' })
    await harness.background.onIdle()
    return { ...await show(harness, id), id, harness }
  }

  t.test('is asked with the request, the action and the job with its payload', async (t) => {
    const asked: Array<[FastifyRequest, string, JobRecord | undefined]> = []
    const { id, statusCode } = await read(t, (...args) => { asked.push(args as never); return true })
    t.equal(statusCode, 200)
    t.equal(asked.length, 1)
    t.equal(asked[0]?.[0].params && (asked[0][0].params as { id: string }).id, id)
    t.equal(asked[0]?.[1], 'read')
    t.match(asked[0]?.[2], { id, payload: { owner: 'Ada' }, state: 'failed' })
  })

  t.test('that lets in shows the text of a thrown error, and still no stack and no payload', async (t) => {
    const { body } = await read(t, () => true)
    t.same(body['error'], { name: 'Error', code: null, message: 'password is hunter2' })
    t.notOk('payload' in body)
  })

  t.test('may be asynchronous', async (t) => {
    t.equal((await read(t, async () => true)).statusCode, 200)
    t.equal((await read(t, async () => false)).statusCode, 404)
  })

  t.test('that says no makes the job unknown', async (t) => {
    const { statusCode, body, id, harness } = await read(t, () => false)
    t.equal(statusCode, 404)
    t.same(body, (await show(harness, unknownId)).body)
    t.notMatch(JSON.stringify(body), id)
  })

  for (const answer of [undefined, null, 0, 1, 'yes', {}]) {
    t.test(`that answers ${JSON.stringify(answer)} instead of true lets nobody in`, async (t) => {
      t.equal((await read(t, () => answer as never)).statusCode, 404)
    })
  }

  t.test('that throws is heard by the application\'s error handler', async (t) => {
    const thrown = Object.assign(new Error('who are you?'), { statusCode: 401, code: 'E_WHO' })
    for (const authorize of [() => { throw thrown }, async () => { throw thrown }]) {
      const { statusCode, body } = await read(t, authorize)
      t.equal(statusCode, 401)
      t.match(body, { code: 'E_WHO', message: 'who are you?' })
      const own = await read(t, authorize, (app) => {
        app.setErrorHandler((error, _request, reply) => reply.code(418).send({ seen: error === thrown }))
      })
      t.equal(own.statusCode, 418)
      t.same(own.body, { seen: true })
    }
  })

  t.test('that throws a 404 of its own is heard with its own body', async (t) => {
    const { statusCode, body } = await read(t, () => { throw Object.assign(new Error('x'), { statusCode: 404 }) }, (app) => {
      app.setErrorHandler((_error, _request, reply) => reply.code(404).send({ problem: 'nothing here' }))
    })
    t.equal(statusCode, 404)
    t.same(body, { problem: 'nothing here' })
  })

  t.test('is asked every time', async (t) => {
    let asked = 0
    const { id, harness } = await read(t, () => ++asked === 1)
    t.equal((await show(harness, id)).statusCode, 404)
    t.equal(asked, 2)
  })

  t.test('is not asked for health', async (t) => {
    const { app } = await ready(t, { authorize: () => { throw new Error('no') } })
    t.equal((await app.inject('/health/jobs')).statusCode, 200)
  })
})

t.test('health', async (t) => {
  t.test('shows everything the contract lists', async (t) => {
    const { app } = await ready(t, { concurrency: 4 })
    const response = await app.inject('/health/jobs')
    t.equal(response.statusCode, 200)
    t.equal(response.headers['cache-control'], 'no-store')
    t.match(response.json(), {
      status: 'ok',
      queues: { default: { pending: 0, waiting: 0, delayed: 0, active: 0, completed: 0, failed: 0, cancelled: 0, concurrency: 4, paused: false } },
      totals: { completed: 0, cancelled: 0, failedAttempts: 0, deadLettered: 0 },
      leaked: 0,
      oldestWaitingMs: 0,
      eventLoopDelayMs: Number,
      backend: { name: 'memory', durable: false }
    })
    t.strictSame(Object.keys(response.json().queues.default).sort(), ['active', 'cancelled', 'completed', 'concurrency', 'delayed', 'failed', 'paused', 'pending', 'waiting', 'waiting-children'])
  })

  /** What health says, as it is and with strict=1. */
  async function ask ({ app }: Harness) {
    const [lenient, strict] = [await app.inject('/health/jobs'), await app.inject('/health/jobs?strict=1')]
    t.equal(lenient.statusCode, 200)
    t.equal(strict.headers['cache-control'], 'no-store')
    t.equal(strict.json().status, lenient.json().status)
    return { ...lenient.json(), strict: strict.statusCode }
  }

  t.test('ok is 200 with strict=1 too', async (t) => {
    t.match(await ask(await ready(t)), { status: 'ok', strict: 200 })
  })

  t.test('dead letters alone change nothing', async (t) => {
    const harness = await ready(t)
    for (let i = 0; i < 5; i++) await harness.background.add('bad')
    await harness.clock.settle()
    t.match(await ask(harness), { status: 'ok', strict: 200, queues: { default: { failed: 5 } }, totals: { deadLettered: 5 } })
  })

  t.test('degraded: more dead letters than health.maxDead', async (t) => {
    const harness = await ready(t, { health: { maxDead: 1 } })
    await harness.background.add('bad')
    await harness.clock.settle()
    t.match(await ask(harness), { status: 'ok' })
    await harness.background.add('bad')
    await harness.clock.settle()
    t.match(await ask(harness), { status: 'degraded', strict: 503 })
  })

  t.test('degraded: a body that ignores its signal, from abortGrace on until it ends', async (t) => {
    const harness = await ready(t, { abortGrace: 50 })
    const { work, end } = stuck()
    await harness.background.add(work, { timeout: 100 })
    await harness.clock.advance(140)
    t.match(await ask(harness), { status: 'ok', leaked: 0 })
    await harness.clock.advance(10)
    t.match(await ask(harness), { status: 'degraded', leaked: 1, strict: 503 })
    await harness.clock.advance(10_000)
    t.match(await ask(harness), { status: 'degraded', leaked: 1, queues: { default: { failed: 1, active: 0 } } })
    end(undefined)
    await harness.clock.settle()
    t.match(await ask(harness), { status: 'ok', leaked: 0, strict: 200 })
  })

  t.test('degraded: a cancelled body that goes on', async (t) => {
    const harness = await ready(t, { abortGrace: 50 })
    const { work } = stuck()
    const job = await harness.background.add(work)
    await harness.clock.settle()
    await harness.background.cancel(job.id)
    await harness.clock.advance(50)
    t.match(await ask(harness), { status: 'degraded', leaked: 1 })
  })

  t.test('degraded: a job that waits longer than health.maxAge', async (t) => {
    const harness = await ready(t, { health: { maxAge: 5_000 } })
    await harness.background.pause()
    await harness.background.add('task')
    await harness.clock.advance(5_000)
    t.match(await ask(harness), { status: 'ok', oldestWaitingMs: 5_000 })
    await harness.clock.advance(1)
    t.match(await ask(harness), { status: 'degraded', oldestWaitingMs: 5_001, strict: 503 })
    await harness.background.resume()
    await harness.background.onIdle()
    t.match(await ask(harness), { status: 'ok', oldestWaitingMs: 0 })
  })

  t.test('the age of a delayed job counts from the moment it is due', async (t) => {
    const harness = await ready(t, { health: { maxAge: 5_000 } })
    await harness.background.pause()
    await harness.background.add('task', null, { delay: 60_000 })
    await harness.clock.advance(61_000)
    t.match(await ask(harness), { status: 'ok', oldestWaitingMs: 1_000 })
  })

  t.test('overloaded: a queue is full', async (t) => {
    const harness = await ready(t, { maxQueueSize: 1 })
    await harness.background.pause()
    await harness.background.add('task')
    t.match(await ask(harness), { status: 'overloaded', strict: 503 })
    await harness.background.resume()
    await harness.background.onIdle()
    t.match(await ask(harness), { status: 'ok' })
  })

  t.test('overloaded: a queue whose payloads take all its bytes', async (t) => {
    const harness = await ready(t, { maxQueueBytes: 10 })
    await harness.background.pause()
    await harness.background.add('task', '12345678')
    t.match(await ask(harness), { status: 'overloaded', strict: 503 })
  })

  t.test('overloaded: a refusal in the last 60 seconds', async (t) => {
    const harness = await ready(t, { maxQueueSize: 1 })
    await harness.background.pause()
    const job = await harness.background.add('task')
    await t.rejects(harness.background.add('task'), { code: 'FST_BG_QUEUE_FULL' })
    await harness.background.cancel(job.id)
    await harness.clock.advance(59_900)
    t.match(await ask(harness), { status: 'overloaded' })
    await harness.clock.advance(200)
    t.match(await ask(harness), { status: 'ok' })
  })

  t.test('overloaded goes before degraded', async (t) => {
    const harness = await ready(t, { maxQueueSize: 1, health: { maxAge: 10 } })
    await harness.background.pause()
    await harness.background.add('task')
    await harness.clock.advance(100)
    t.match(await ask(harness), { status: 'overloaded' })
  })

  t.test('draining goes before all', async (t) => {
    const arrived = deferred()
    const open = deferred()
    const harness = await ready(t, {
      maxQueueSize: 0,
      routes: { onRequest: async () => { arrived.resolve(); await open.promise } }
    })
    const response = harness.app.inject('/health/jobs?strict=1')
    await arrived.promise
    const closing = harness.app.close()
    await harness.clock.settle()
    open.resolve()
    t.equal((await response).statusCode, 503)
    t.equal((await response).json().status, 'draining')
    await closing
  })

  t.test('strict wants exactly 1', async (t) => {
    const { app } = await ready(t, { maxQueueSize: 0 })
    t.equal((await app.inject('/health/jobs?strict=0')).statusCode, 200)
    t.equal((await app.inject('/health/jobs?strict')).statusCode, 200)
    t.equal((await app.inject('/health/jobs?strict=1&strict=1')).statusCode < 504, true)
  })

  t.test('degraded: the store cannot be asked', async (t) => {
    const backend = memory({ clock: new TestClock() })
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(backgroundTasks, { backend })
    await app.ready()
    const counts = backend.counts.bind(backend)
    backend.counts = async () => { throw new Error('gone') }
    const response = await app.inject('/health/jobs?strict=1')
    backend.counts = counts
    t.equal(response.statusCode, 503)
    t.equal(response.json().status, 'degraded')
  })

  t.test('HEAD answers', async (t) => {
    const { app } = await ready(t)
    const response = await app.inject({ method: 'HEAD', url: '/health/jobs' })
    t.equal(response.statusCode, 200)
    t.equal(response.body, '')
  })
})

t.test('where the routes are', async (t) => {
  t.test('routes: false adds none, and statusUrl is null', async (t) => {
    const { app } = await ready(t, { routes: false })
    t.equal((await app.background.add('task')).statusUrl, null)
    t.equal((await app.inject('/health/jobs')).statusCode, 404)
    t.equal((await app.inject(`/jobs/${unknownId}/status`)).json().code, undefined)
  })

  t.test('routes.status false leaves health, and statusUrl is null', async (t) => {
    const { app } = await ready(t, { routes: { status: false } })
    t.equal((await app.background.add('task')).statusUrl, null)
    t.equal((await app.inject('/health/jobs')).statusCode, 200)
    t.notOk(app.hasRoute({ method: 'GET', url: '/jobs/:id/status' }))
  })

  t.test('routes.health false leaves the status', async (t) => {
    const { app } = await ready(t, { routes: { health: false } })
    const job = await app.background.add('task')
    t.equal((await app.inject(job.statusUrl as string)).statusCode, 200)
    t.equal((await app.inject('/health/jobs')).statusCode, 404)
  })

  const places: Array<[title: string, options: HarnessOptions, parent: string, status: string, health: string]> = [
    ['by default', {}, '', '/jobs/ID/status', '/health/jobs'],
    ['with paths of their own', { routes: { status: '/tasks/:id', health: '/healthz' } }, '', '/tasks/ID', '/healthz'],
    ['with the id in the middle', { routes: { status: '/a/:id/b/c' } }, '', '/a/ID/b/c', '/health/jobs'],
    ['with a prefix', { prefix: '/bg' }, '', '/bg/jobs/ID/status', '/bg/health/jobs'],
    ['with a prefix and paths of their own', { prefix: '/bg', routes: { status: '/:id' } }, '', '/bg/ID', '/bg/health/jobs'],
    ['with a prefix that ends in a slash', { prefix: '/bg/' }, '', '/bg/jobs/ID/status', '/bg/health/jobs'],
    ['inside a prefixed plugin', {}, '/api', '/api/jobs/ID/status', '/api/health/jobs'],
    ['with a prefix inside a prefixed plugin', { prefix: '/bg' }, '/api', '/api/bg/jobs/ID/status', '/api/bg/health/jobs'],
    ['with an empty prefix', { prefix: '' }, '/api', '/api/jobs/ID/status', '/api/health/jobs']
  ]
  for (const [title, options, parent, status, health] of places) {
    t.test(`${title}: statusUrl leads to the status`, async (t) => {
      const app = Fastify()
      t.teardown(() => app.close())
      let job!: JobHandle
      await app.register(async (instance) => {
        await instance.register(backgroundTasks, options as never)
        instance.addHook('onReady', async () => {})
        instance.get('/add', async (_request, reply) => { job = reply.background(nothing); return 'ok' })
      }, { prefix: parent })
      await app.inject(`${parent}/add`)
      t.equal(job.statusUrl, status.replace('ID', job.id))
      t.match((await app.inject(job.statusUrl as string)).json(), { jobId: job.id })
      t.equal((await app.inject(health)).statusCode, 200)
    })
  }

  t.test('options of Fastify routes pass through', async (t) => {
    const seen: string[] = []
    const { app } = await setup(t, {
      routes: {
        onRequest: async (request) => { seen.push(`onRequest ${request.routeOptions.url}`) },
        preHandler: [async (request) => { seen.push(`preHandler ${(request.routeOptions.config as { own?: string }).own}`) }],
        config: { own: 'config' },
        schema: { tags: ['jobs'], hide: true }
      }
    })
    await app.inject('/health/jobs')
    await app.inject(`/jobs/${unknownId}/status`)
    t.strictSame(seen, ['onRequest /health/jobs', 'preHandler config', 'onRequest /jobs/:id/status', 'preHandler config'])
  })

  t.test('onRequest can guard the routes', async (t) => {
    const { app } = await setup(t, { routes: { onRequest: async (_request, reply) => reply.code(401).send({ error: 'no' }) } })
    t.equal((await app.inject('/health/jobs')).statusCode, 401)
    t.equal((await app.inject(`/jobs/${unknownId}/status`)).statusCode, 401)
  })

  t.test('an onRequest that is registered before ours guards them as every route', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    app.addHook('onRequest', async (_request, reply) => reply.code(401).send({ error: 'no' }))
    await app.register(backgroundTasks)
    t.equal((await app.inject('/health/jobs')).statusCode, 401)
  })

  t.test('schema.tags reach the routes; params and responses stay ours', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    const schemas: Record<string, Record<string, unknown>> = {}
    app.addHook('onRoute', (route) => { schemas[`${String(route.method)} ${route.url}`] = route.schema as Record<string, unknown> })
    await app.register(backgroundTasks, { routes: { schema: { tags: ['jobs'], security: [{ key: [] }], response: { 200: { type: 'null' } } } } })
    await app.ready()
    for (const route of ['GET /health/jobs', 'GET /jobs/:id/status']) t.match(schemas[route], { tags: ['jobs'], security: [{ key: [] }] })
    t.match(schemas['GET /jobs/:id/status'], { params: { required: ['id'] }, response: { 200: { type: 'object' }, 404: {} } })
    t.match(schemas['GET /health/jobs'], { response: { 200: { type: 'object' }, 503: {} } })
  })

  t.test('constraints pass through', async (t) => {
    const { app } = await setup(t, { routes: { constraints: { host: 'internal' } } })
    t.equal((await app.inject('/health/jobs')).statusCode, 404)
    t.equal((await app.inject({ url: '/health/jobs', headers: { host: 'internal' } })).statusCode, 200)
  })

  t.test('exposeHeadRoute false leaves HEAD out', async (t) => {
    const { app } = await setup(t, { routes: { exposeHeadRoute: false } })
    t.equal((await app.inject({ method: 'HEAD', url: '/health/jobs' })).statusCode, 404)
  })

  t.test('there is no route for anything else', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('task', null, { delay: 1_000 })
    for (const [method, url] of [
      ['DELETE', `/jobs/${job.id}`], ['GET', '/jobs'], ['GET', '/jobs/dead'], ['POST', '/jobs/dead/retry'],
      ['POST', '/queues/default/pause'], ['GET', `/jobs/${job.id}/events`]
    ] as const) t.equal((await app.inject({ method, url })).statusCode, 404)
    t.equal((await app.background.get(job.id))?.state, 'delayed')
  })
})

t.test('reply.accepted', async (t) => {
  async function accepting (t: TestLike, options?: HarnessOptions): Promise<Harness> {
    const harness = await setup(t, options)
    const task = harness.app.background.define('task', (payload) => payload)
    harness.app.get('/handle', async (_request, reply) => reply.accepted(task, { n: 1 }))
    harness.app.get('/name', (_request, reply) => { void reply.accepted('task', { n: 2 }, { priority: 5 }) })
    harness.app.get('/header', async (_request, reply) => reply.header('x-own', 'kept').accepted(task))
    return harness
  }

  t.test('answers 202 with Location, Retry-After and what is needed to poll', async (t) => {
    const { app } = await accepting(t)
    const response = await app.inject('/handle')
    const body = response.json()
    t.equal(response.statusCode, 202)
    t.strictSame(Object.keys(body).sort(), ['jobId', 'name', 'state', 'statusUrl'])
    t.match(body, { jobId: /^[0-9a-f-]{36}$/, name: 'task', state: 'pending', statusUrl: `/jobs/${body.jobId}/status` })
    t.equal(response.headers.location, body.statusUrl)
    t.match(response.headers['retry-after'], /^[1-9]\d*$/)
    await app.background.onIdle()
    t.match((await app.inject(body.statusUrl)).json(), { state: 'completed', result: { n: 1 } })
  })

  t.test('works by name, with options and without return', async (t) => {
    const { app } = await accepting(t)
    const response = await app.inject('/name')
    t.equal(response.statusCode, 202)
    await app.background.onIdle()
    t.match(await app.background.get(response.json().jobId), { priority: 5, result: { n: 2 } })
  })

  t.test('keeps headers that were set before', async (t) => {
    const { app } = await accepting(t)
    t.equal((await app.inject('/header')).headers['x-own'], 'kept')
  })

  t.test('without a status route there is no Location', async (t) => {
    const { app } = await accepting(t, { routes: false })
    const response = await app.inject('/handle')
    t.equal(response.statusCode, 202)
    t.equal(response.json().statusUrl, null)
    t.notOk('location' in response.headers)
  })

  t.test('follows a prefix', async (t) => {
    const { app } = await accepting(t, { prefix: '/bg' })
    const response = await app.inject('/handle')
    t.match(response.headers.location, /^\/bg\/jobs\//)
  })

  t.test('that is refused answers with the error, and leaves no Location', async (t) => {
    const { app, background } = await accepting(t, { maxQueueSize: 0 })
    const response = await app.inject('/handle')
    t.equal(response.statusCode, 503)
    t.match(response.json(), { code: 'FST_BG_QUEUE_FULL' })
    t.notOk('location' in response.headers)
    t.equal(await jobsKept(background), 0)
  })
})

t.test('reply.background', async (t) => {
  t.test('leaves status, headers and body to the handler', async (t) => {
    const { app } = await setup(t)
    app.get('/', async (_request, reply) => { reply.background(nothing); return reply.code(201).send('own') })
    const response = await app.inject('/')
    t.equal(response.statusCode, 201)
    t.equal(response.body, 'own')
    t.notOk('location' in response.headers || 'retry-after' in response.headers)
  })

  t.test('gives a handle whose statusUrl can be sent', async (t) => {
    const { app } = await setup(t)
    app.get('/', async (_request, reply) => {
      const job = reply.background(nothing)
      return reply.code(202).header('location', job.statusUrl).send({ jobId: job.id })
    })
    const response = await app.inject('/')
    t.equal(response.headers.location, `/jobs/${response.json().jobId}/status`)
  })
})

import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { backgroundTasks, memory, type JobHandle, type JobRecord } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { closeInTime, deferred, jobsKept, record, setup, type Harness, type HarnessOptions } from '../support/harness.ts'

const nothing = () => {}
type TestLike = Parameters<typeof setup>[0]

async function ready (t: TestLike, options?: HarnessOptions): Promise<Harness> {
  const harness = await setup(t, options)
  harness.app.background.define('task', (payload) => payload)
  harness.app.background.define('bad', { attempts: 5, backoff: 60_000 }, () => { throw new Error('no') })
  await harness.app.ready()
  return harness
}

/** A promise, and whether it has settled. */
function watch (promise: PromiseLike<unknown>) {
  const seen = { settled: false, promise: Promise.resolve(promise).finally(() => { seen.settled = true }) }
  return seen
}

t.test('what runs until drainTimeout', async (t) => {
  t.test('nothing to do: close takes no time', async (t) => {
    const { app, clock } = await ready(t)
    const before = clock.monotonic()
    await app.close()
    t.equal(clock.monotonic(), before)
    t.equal(clock.pendingTimers, 0)
  })

  t.test('active and waiting jobs run to their end', async (t) => {
    const { app, background, clock, said } = await ready(t, { concurrency: 1 })
    const end = deferred()
    const jobs = [await background.add(() => end.promise), await background.add('task', 1), await background.add('task', 2)]
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(7_000)
    t.notOk(closing.settled)
    end.resolve()
    await closing.promise
    for (const job of jobs) t.equal((await record(background, job.id)).state, 'completed')
    t.strictSame(said('shutdown left jobs undone'), [])
    t.equal(clock.pendingTimers, 0)
  })

  t.test('pending jobs run when their response ends in time', async (t) => {
    const { app, background, clock } = await setup(t)
    const open = deferred()
    const staged = deferred<JobHandle>()
    app.get('/', async (_request, reply) => {
      staged.resolve(reply.background(() => 'done'))
      await open.promise
      return 'ok'
    })
    const response = app.inject('/')
    const job = await staged.promise
    const closing = watch(app.close())
    await clock.advance(1_000)
    t.notOk(closing.settled)
    open.resolve()
    await response
    await closing.promise
    t.match(await record(background, job.id), { state: 'completed', result: 'done' })
  })

  t.test('a job that fails meanwhile is not waited for until its retry', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await background.add(async () => { await end.promise; throw new Error('no') }, { attempts: 2, backoff: 5_000 })
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(100)
    end.resolve()
    await clock.settle()
    t.ok(closing.settled)
    t.match(await record(background, job.id), { state: 'cancelled', reason: 'shutdown', attemptsMade: 1 })
  })

  t.test('delayed jobs are not waited for: they are cancelled and named', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const delayed = await background.add('task', null, { delay: 1_000 })
    const retry = await background.add('bad')
    await clock.settle()
    await app.close()
    for (const { id } of [delayed, retry]) t.match(await background.get(id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{
      level: 40, count: 2, tasks: { task: 1, bad: 1 }, jobs: [{ jobId: delayed.id, task: 'task' }, { jobId: retry.id, task: 'bad' }]
    }])
  })

  t.test('a paused queue does not hold the shutdown', async (t) => {
    const { app, background, clock, said } = await ready(t)
    await background.pause()
    const job = await background.add('task')
    await app.close()
    t.equal(clock.monotonic(), 1_000)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{ count: 1 }])
  })

  t.test('what runs in a paused queue is waited for', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred<string>()
    const job = await background.add(() => end.promise)
    await clock.settle()
    await background.pause()
    const closing = watch(app.close())
    await clock.settle()
    t.notOk(closing.settled)
    end.resolve('done')
    await closing.promise
    t.equal((await record(background, job.id)).state, 'completed')
  })

  t.test('a body that leaked before is not waited for', async (t) => {
    const { app, background, clock } = await ready(t, { abortGrace: 50 })
    await background.add(() => new Promise(() => {}), { timeout: 100 })
    await clock.advance(200)
    const before = clock.monotonic()
    const closing = watch(app.close())
    await clock.advance(100)
    t.ok(closing.settled)
    t.ok(clock.monotonic() - before <= 100)
  })

  t.test('a body that leaks while the application closes is not waited for any longer', async (t) => {
    const { app, background, clock } = await ready(t, { abortGrace: 50, drainTimeout: 8_000 })
    await background.add(() => new Promise(() => {}), { timeout: 100 })
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(500)
    t.ok(closing.settled)
  })

  t.test('a job may not add jobs any more, and hears why', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    const job = await background.add(async ({ app }) => {
      await end.promise
      await app.background.add('task')
    })
    await clock.settle()
    const closing = app.close()
    await clock.settle()
    end.resolve()
    await closing
    t.match(await background.get(job.id), { state: 'failed', error: { code: 'FST_BG_CLOSING' } })
  })

  t.test('a drainTimeout of 0 aborts at once', async (t) => {
    const { app, background, clock } = await ready(t, { drainTimeout: 0 })
    const job = await background.add(({ signal }) => new Promise((resolve) => { signal.addEventListener('abort', resolve) }))
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(1)
    t.ok(closing.settled)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
  })

  t.test('a drainTimeout beyond 2^31 ms waits', async (t) => {
    const clock = new TestClock()
    const setTimer = clock.setTimer.bind(clock)
    const asked: number[] = []
    clock.setTimer = (run, ms) => { asked.push(ms); return setTimer(run, ms) }
    const { app, background } = await ready(t, { backend: memory({ clock }), drainTimeout: 2 ** 32, abortGrace: 2 ** 32 })
    const end = deferred()
    await background.add(() => end.promise)
    await clock.settle()
    const closing = app.close()
    await clock.settle()
    t.ok(asked.every((ms) => ms <= 2 ** 31 - 1), 'a real timer fires at once beyond 2^31 − 1')
    end.resolve()
    await closing
  })
})

t.test('the deadline', async (t) => {
  t.test('aborts signals with reason shutdown, gives abortGrace, then cancels and names', async (t) => {
    const unfinished: JobRecord[][] = []
    const { app, background, clock, said } = await ready(t, { onUnfinished: (jobs) => { unfinished.push(jobs) } })
    let signal: AbortSignal | undefined
    const job = await background.add(function stubborn (context) { signal = context.signal; return new Promise(() => {}) })
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(7_999)
    t.equal(signal?.aborted, false)
    await clock.advance(1)
    t.match(signal?.reason, { name: 'AbortError', code: 'FST_BG_ABORTED', reason: 'shutdown' })
    t.equal((await record(background, job.id)).state, 'active')
    await clock.advance(998)
    t.notOk(closing.settled)
    await clock.advance(2)
    t.ok(closing.settled)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown', attemptsMade: 1 })
    t.match(said('shutdown left jobs undone'), [{ level: 40, count: 1, tasks: { stubborn: 1 }, jobs: [{ jobId: job.id, task: 'stubborn' }] }])
    t.match(unfinished, [[{ id: job.id, name: 'stubborn', state: 'cancelled', reason: 'shutdown' }]])
    t.equal(unfinished.length, 1)
    t.equal(clock.pendingTimers, 0)
  })

  t.test('does not wait for the grace when the bodies settle', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const job = await background.add(({ signal }) => new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => { reject(signal.reason as Error) })
    }), { attempts: 3 })
    await clock.settle()
    const closing = watch(app.close())
    await clock.advance(8_000)
    t.ok(closing.settled)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{ count: 1, jobs: [{ jobId: job.id }] }])
  })

  t.test('leaves waiting jobs unstarted, and names all of them', async (t) => {
    const unfinished: JobRecord[] = []
    const { app, background, clock, said } = await ready(t, { concurrency: 1, onUnfinished: (jobs) => { unfinished.push(...jobs) } })
    let runs = 0
    await background.add(() => new Promise(() => {}))
    for (let i = 0; i < 3; i++) await background.add(function waiter () { runs++ })
    await background.add('task', { to: 'x' })
    await clock.settle()
    const closing = app.close()
    await clock.advance(9_000)
    await closing
    t.equal(runs, 0)
    t.equal(unfinished.length, 5)
    t.ok(unfinished.every(({ state, reason }) => state === 'cancelled' && reason === 'shutdown'))
    t.match(unfinished.at(-1), { name: 'task', payload: { to: 'x' }, attemptsMade: 0 })
    t.match(said('shutdown left jobs undone'), [{ count: 5, tasks: { inline: 1, waiter: 3, task: 1 } }])
  })

  t.test('names a bounded number of jobs in one line, and counts the rest', async (t) => {
    const { app, background, said } = await ready(t)
    for (let i = 0; i < 500; i++) await background.add('task', null, { delay: 1_000 })
    await app.close()
    const lines = said('shutdown left jobs undone')
    t.equal(lines.length, 1)
    t.match(lines, [{ count: 500, tasks: { task: 500 } }])
    t.ok((lines as unknown as Array<{ jobs: unknown[] }>).every(({ jobs }) => jobs.length <= 100))
  })

  t.test('says nothing when nothing is left', async (t) => {
    let told = 0
    const { app, background, said } = await ready(t, { onUnfinished: () => { told++ } })
    await background.add('task')
    await app.close()
    t.equal(told, 0)
    t.strictSame(said('shutdown left jobs undone'), [])
  })

  t.test('wakes whoever waits for a job that is left', async (t) => {
    const { app, background, clock } = await ready(t)
    const stubborn = await background.add(() => new Promise(() => {}))
    const delayed = await background.add('task', null, { delay: 60_000 })
    await clock.settle()
    const ends = Promise.allSettled([stubborn, delayed].map((job) => job.finished()))
    const idle = background.onIdle()
    const closing = app.close()
    await clock.advance(9_000)
    await closing
    for (const end of await ends) {
      t.match(end, { status: 'rejected', reason: { code: 'FST_BG_JOB_CANCELLED', message: /shutdown/ } })
    }
    await idle
  })

  t.test('cancels what waits for a response that does not end', async (t) => {
    const { app, background, clock } = await setup(t)
    const staged = deferred<JobHandle>()
    const open = deferred()
    let runs = 0
    app.get('/', async (_request, reply) => {
      staged.resolve(reply.background(() => { runs++ }))
      await open.promise
      return 'ok'
    })
    const response = app.inject('/')
    const job = await staged.promise
    const closing = app.close()
    await clock.advance(8_000)
    await closing
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    open.resolve()
    await response
    await clock.settle()
    t.equal(runs, 0)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.equal(clock.pendingTimers, 0)
  })

  t.test('a body that is overdue is cancelled by the shutdown, and named', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const job = await background.add(() => new Promise(() => {}), { timeout: 5_000, attempts: 3 })
    await clock.advance(5_500)
    const closing = app.close()
    await clock.advance(9_000)
    await closing
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{ count: 1, jobs: [{ jobId: job.id }] }])
  })

  t.test('a body that ends after it was given up changes nothing', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const end = deferred<string>()
    const job = await background.add(() => end.promise)
    await clock.settle()
    const closing = app.close()
    await clock.advance(9_000)
    await closing
    end.resolve('late')
    await clock.settle()
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.strictSame(said('job completed'), [])
    t.equal(clock.pendingTimers, 0)
  })

  t.test('a body that throws after it was given up is no unhandled rejection', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    await background.add(() => end.promise)
    await clock.settle()
    const closing = app.close()
    await clock.advance(9_000)
    await closing
    end.reject(new Error('late'))
    await clock.settle()
    t.equal(clock.pendingTimers, 0)
  })

  t.test('a job far in the future does not break the shutdown', async (t) => {
    const { app, background, clock, said } = await ready(t)
    const job = await background.add(() => { throw Object.assign(new Error('no'), { retryAfter: 1e300 }) }, { attempts: 2 })
    const other = await background.add(() => { throw new Error('no') }, { attempts: 2, backoff: () => 1e300 })
    await clock.settle()
    await app.close()
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(await background.get(other.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{ count: 2 }])
  })
})

t.test('onUnfinished', async (t) => {
  t.test('that throws does no harm, and is logged', async (t) => {
    const { app, background, clock, said } = await ready(t, { onUnfinished: () => { throw new Error('broken') } })
    await background.add('task', null, { delay: 1_000 })
    await t.resolves(app.close())
    t.match(said('onUnfinished failed'), [{ level: 50, option: 'onUnfinished', err: { message: 'broken' } }])
    t.equal(clock.pendingTimers, 0)
  })

  t.test('that rejects does no harm, and is logged', async (t) => {
    const { app, background, clock, said } = await ready(t, { onUnfinished: async () => { throw new Error('broken') } })
    await background.add('task', null, { delay: 1_000 })
    await t.resolves(app.close())
    await clock.settle()
    t.match(said('onUnfinished failed'), [{ level: 50, option: 'onUnfinished', err: { message: 'broken' } }])
  })
})

t.test('adding', async (t) => {
  t.test('after close is refused through every door', async (t) => {
    const { app, background } = await ready(t)
    await app.close()
    for (const call of [() => background.add('task'), () => background.add(nothing), () => background.addBulk([{ name: 'task' }])] as Array<() => Promise<unknown>>) {
      await t.rejects(call(), { code: 'FST_BG_CLOSING', statusCode: 503, message: /closing/ })
    }
    t.equal(await jobsKept(background), 0)
  })

  t.test('in a request that outlives close is a 503', async (t) => {
    const { app, background } = await setup(t)
    const arrived = deferred()
    const open = deferred()
    app.get('/', async (_request, reply) => {
      arrived.resolve()
      await open.promise
      reply.background(nothing)
      return 'ok'
    })
    const response = app.inject('/')
    await arrived.promise
    await app.close()
    open.resolve()
    t.equal((await response).statusCode, 503)
    t.match((await response).json(), { code: 'FST_BG_CLOSING', statusCode: 503 })
    t.equal(await jobsKept(background), 0)
  })

  t.test('is refused also when the application was never ready', async (t) => {
    const { app, clock } = await setup(t)
    await closeInTime(app, clock)
    await t.rejects(app.background.add(nothing), { code: /^FST_BG_(CLOSING|NOT_READY)$/ })
  })
})

t.test('closing', async (t) => {
  t.test('twice is one shutdown', async (t) => {
    let told = 0
    const { app, background, said } = await ready(t, { onUnfinished: () => { told++ } })
    await background.add('task', null, { delay: 1_000 })
    await Promise.all([app.close(), app.close()])
    await app.close()
    t.equal(told, 1)
    t.equal(said('shutdown left jobs undone').length, 1)
  })

  t.test('an application that never became ready leaves nothing and logs no error', async (t) => {
    const clock = new TestClock()
    const lines: string[] = []
    const app = Fastify({ logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } })
    await app.register(backgroundTasks, { backend: memory({ clock }) })
    app.background.define('task', nothing)
    const closing = watch(app.close())
    await clock.settle()
    t.ok(closing.settled, 'close is over at once')
    await clock.advance(10_000)
    t.equal(clock.pendingTimers, 0)
    t.notOk(lines.some((line) => (JSON.parse(line) as { level: number }).level >= 40), lines.join(''))
  })

  t.test('an application that was not even booted resolves', async (t) => {
    const clock = new TestClock()
    const app = Fastify()
    app.register(backgroundTasks, { backend: memory({ clock }) })
    const closing = watch(app.close())
    await clock.settle()
    await clock.advance(10_000)
    t.ok(closing.settled)
    t.equal(clock.pendingTimers, 0)
  })

  const failures: Array<[title: string, fail: (app: Harness['app']) => void]> = [
    ['a plugin after ours', (app) => { app.register(async () => { throw new Error('boot failed') }) }],
    ['an onReady hook after ours', (app) => { app.addHook('onReady', async () => { throw new Error('boot failed') }) }],
    ['a payload schema', (app) => { app.background.define('broken', { schema: { type: 'objekt' } }, nothing) }]
  ]
  for (const [title, fail] of failures) {
    t.test(`an application whose boot failed by ${title} resolves, leaves nothing and logs no error`, async (t) => {
      const clock = new TestClock()
      const lines: string[] = []
      const app = Fastify({ logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } })
      await app.register(backgroundTasks, { backend: memory({ clock }) })
      fail(app)
      await t.rejects(async () => { await app.ready() })
      const closing = watch(app.close().catch(nothing))
      await clock.settle()
      await clock.advance(10_000)
      t.ok(closing.settled)
      t.equal(clock.pendingTimers, 0)
      t.notOk(lines.some((line) => (JSON.parse(line) as { level: number }).level >= 40), lines.join(''))
    })
  }

  t.test('an onReady hook before ours that fails leaves nothing', async (t) => {
    const clock = new TestClock()
    const app = Fastify()
    app.addHook('onReady', async () => { throw new Error('boot failed') })
    await app.register(backgroundTasks, { backend: memory({ clock }) })
    await t.rejects(async () => { await app.ready() })
    const closing = watch(app.close().catch(nothing))
    await clock.advance(10_000)
    t.ok(closing.settled)
    t.equal(clock.pendingTimers, 0)
  })

  t.test('an application without jobs, many times over, leaves nothing', async (t) => {
    for (let i = 0; i < 20; i++) {
      const clock = new TestClock()
      const app = Fastify()
      await app.register(backgroundTasks, { backend: memory({ clock }) })
      await app.ready()
      await app.close()
      t.equal(clock.pendingTimers, 0)
    }
  })

  t.test('lets jobs use what other plugins close, whichever came first', async (t) => {
    const clock = new TestClock()
    const app: FastifyInstance = Fastify()
    const order: string[] = []
    const database = (name: string) => Object.assign(async (instance: FastifyInstance) => {
      const db = { open: true }
      instance.decorate(name, db)
      instance.addHook('onClose', async () => { db.open = false; order.push(`${name} closed`) })
    }, { [Symbol.for('skip-override')]: true })
    await app.register(database('early'))
    await app.register(backgroundTasks, { backend: memory({ clock }), concurrency: 1 })
    await app.register(database('late'))
    const end = deferred()
    app.background.define('task', async (name: string, context) => {
      await end.promise
      const { early, late } = context.app as unknown as Record<string, { open: boolean }>
      order.push(`${name} ${early?.open} ${late?.open}`)
    })
    await app.ready()
    await app.background.add('task', 'active')
    await app.background.add('task', 'waiting')
    await clock.settle()
    const closing = app.close()
    await clock.settle()
    end.resolve()
    await closing
    t.strictSame(order.slice(0, 2), ['active true true', 'waiting true true'])
    t.strictSame(order.slice(2).sort(), ['early closed', 'late closed'])
  })

  t.test('lets a task of a child use what the child closes', async (t) => {
    const { app, background, clock } = await setup(t)
    const order: string[] = []
    const end = deferred()
    await app.register(async (child) => {
      child.addHook('onClose', async () => { order.push('child closed') })
      child.background.define('task', async () => { await end.promise; order.push('job') })
    })
    await app.ready()
    await background.add('task')
    await clock.settle()
    const closing = app.close()
    await clock.settle()
    end.resolve()
    await closing
    t.strictSame(order, ['job', 'child closed'])
  })

  t.test('holds other onClose hooks back until the deadline, not longer', async (t) => {
    const { app, background, clock } = await setup(t)
    let closed = false
    app.addHook('onClose', async () => { closed = true })
    await app.ready()
    await background.add(() => new Promise(() => {}))
    await clock.settle()
    const closing = app.close()
    await clock.advance(8_998)
    t.notOk(closed)
    await clock.advance(2)
    t.ok(closed)
    await closing
  })

  t.test('closeInTime itself needs no help from a healthy application', async (t) => {
    const { app, clock, background } = await ready(t)
    await background.add(() => new Promise(() => {}))
    await closeInTime(app, clock)
    t.equal(clock.pendingTimers, 0)
  })
})

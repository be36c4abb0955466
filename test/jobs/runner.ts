/** One attempt: its context, its signal, its timeout, its end. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { test, type Test } from 'tap'
import { memory, type JobAbortedError, type JobContext, type JobHandle, type JobOptions, type JobRecord } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { deferred, record, setup, until, LEVELS, type Deferred, type Harness, type HarnessOptions } from '../support/harness.ts'

const OVERDUE_LOG = 'job ignores its signal and keeps its slot'
const RETURNED_LOG = 'job that ignored its signal has ended, its slot is free'

interface Stage extends Harness {
  /** Adds inline work, and lets what can start now start. */
  start: (work: (context: JobContext) => unknown, options?: JobOptions) => Promise<JobHandle>
  read: (job: JobHandle) => Promise<JobRecord>
  leaked: () => Promise<number>
}

async function stage (t: Test, options: HarnessOptions = {}): Promise<Stage> {
  const harness = await setup(t, options)
  const { app, clock } = harness
  await app.ready()
  return Object.assign(harness, {
    async start (work: (context: JobContext) => unknown, jobOptions?: JobOptions) {
      const job = await app.background.add(work, jobOptions)
      await clock.settle()
      return job
    },
    read: (job: JobHandle) => record(app.background, job.id),
    leaked: async () => (await app.inject('/health/jobs')).json<{ leaked: number }>().leaked
  })
}

/** Work that goes on, whatever its signal says, until the test lets it end. */
function stubborn (): { work: (context: JobContext) => Promise<unknown>, end: Deferred<unknown>, starts: () => number } {
  const end = deferred<unknown>()
  let starts = 0
  return { work: () => { starts++; return end.promise }, end, starts: () => starts }
}

// Ends

test('what the body returns is the result', async (t) => {
  const { start, read } = await stage(t)
  const made = { at: new Date(0), list: [undefined], gone: undefined }
  const job = await start(() => made)
  t.strictSame((await read(job)).result, { at: '1970-01-01T00:00:00.000Z', list: [null] })
  t.strictSame(await job.finished(), { at: '1970-01-01T00:00:00.000Z', list: [null] })
})

test('a body that returns nothing completes without a result', async (t) => {
  const { start, read } = await stage(t)
  for (const work of [() => {}, async () => {}]) {
    const record = await read(await start(work))
    t.equal(record.state, 'completed')
    t.notOk('result' in record || 'resultOmitted' in record)
  }
})

test('a result without a JSON form is omitted, the job is completed', async (t) => {
  const circle: unknown[] = []
  circle.push(circle)
  const { start, read } = await stage(t)
  for (const result of [() => {}, Symbol('s'), 1n, circle, { toJSON () { throw new Error('no') } }, { toJSON: () => undefined }]) {
    const found = await read(await start(async () => result))
    t.match(found, { state: 'completed', resultOmitted: 'unserializable' })
    t.notOk('result' in found)
  }
})

test('a result that is too large is omitted, the job is completed', async (t) => {
  const { start, read } = await stage(t, { maxPayloadBytes: 10 })
  t.match(await read(await start(() => 'x'.repeat(8))), { state: 'completed', result: 'x'.repeat(8) })
  const found = await read(await start(() => 'x'.repeat(9)))
  t.match(found, { state: 'completed', resultOmitted: 'too-large' })
  t.notOk('result' in found)
})

test('a result nested deeply can be read, or is omitted', async (t) => {
  const { app, start } = await stage(t)
  for (const depth of [1_000, 2_500, 3_000, 4_000, 5_000, 50_000]) {
    const job = await start(() => JSON.parse('['.repeat(depth) + ']'.repeat(depth)) as unknown)
    const status = await app.inject(job.statusUrl as string)
    t.equal(status.statusCode, 200, `${depth} levels`)
    t.ok(status.body.includes('"completed"'))
  }
})

test('a payload nested deeply is run or refused, and breaks nothing', async (t) => {
  const { app, clock } = await setup(t)
  const ran: number[] = []
  app.background.define('deep', async (payload: unknown) => { ran.push(JSON.stringify(payload).length) })
  app.background.define('next', async () => { ran.push(0) })
  await app.ready()
  const broken: unknown[] = []
  // An error in a later turn would end the process.
  const onBroken = (error: unknown): void => { broken.push(error) }
  process.once('uncaughtException', onBroken)
  const depth = 3_000
  const added = await app.background.add('deep', JSON.parse('['.repeat(depth) + ']'.repeat(depth))).then(() => 1, () => 0)
  await clock.settle()
  await app.background.add('next')
  await clock.settle()
  process.off('uncaughtException', onBroken)
  t.strictSame(broken, [])
  t.strictSame(ran, added === 1 ? [depth * 2, 0] : [0])
})

test('a body that throws at once fails like one that rejects', async (t) => {
  const { start, read } = await stage(t)
  const throwing = await start(() => { throw new TypeError('at once') })
  const rejecting = await start(async () => { throw new TypeError('later') })
  t.match(await read(throwing), { state: 'failed', failure: 'exhausted', error: { name: 'TypeError', message: 'at once' } })
  t.match(await read(rejecting), { state: 'failed', failure: 'exhausted', error: { name: 'TypeError', message: 'later' } })
})

test('anything can be thrown', async (t) => {
  const { start, read } = await stage(t)
  for (const thrown of [undefined, null, 0, '', 'text', Symbol('s'), Object.freeze(new Error('x')), new Proxy({}, { get () { throw new Error('trap') } })]) {
    t.match(await read(await start(() => { throw thrown })), { state: 'failed', error: { name: String, message: String } })
    t.match(await read(await start(() => Promise.reject(thrown))), { state: 'failed', error: { name: String, message: String } })
  }
})

type Settle = (value: unknown) => void
/* oxlint-disable unicorn/no-thenable -- objects with a then are what is tested */
const thenables: Record<string, [made: () => unknown, expected: object]> = {
  'that resolves twice': [() => ({ then (yes: Settle) { yes(1); yes(2) } }), { state: 'completed', result: 1 }],
  'that resolves, then rejects': [() => ({ then (yes: Settle, no: Settle) { yes(1); no(new Error('x')) } }), { state: 'completed', result: 1 }],
  'that rejects, then resolves': [() => ({ then (yes: Settle, no: Settle) { no(new Error('first')); yes(2) } }), { state: 'failed', error: { message: 'first' } }],
  'that resolves, then throws': [() => ({ then (yes: Settle) { yes(1); throw new Error('x') } }), { state: 'completed', result: 1 }],
  'whose then throws': [() => ({ then () { throw new Error('in then') } }), { state: 'failed', error: { message: 'in then' } }],
  'whose then cannot be read': [() => ({ get then () { throw new Error('no then') } }), { state: 'failed', error: { message: 'no then' } }],
  'that gives another thenable': [() => ({ then (yes: Settle) { yes(Promise.resolve(3)) } }), { state: 'completed', result: 3 }],
  'whose then is no function': [() => ({ then: 5 }), { state: 'completed', result: { then: 5 } }]
}
/* oxlint-enable unicorn/no-thenable */

for (const [name, [made, expected]] of Object.entries(thenables)) {
  test(`a thenable ${name} ends its job once`, async (t) => {
    const { start, read, lines } = await stage(t)
    t.match(await read(await start(made)), expected)
    t.equal(lines.filter(({ msg }) => msg === 'job completed' || msg === 'job failed').length, 1)
  })
}

test('an attempt leaves no timer behind', async (t) => {
  const { clock, start } = await stage(t)
  const before = clock.pendingTimers
  for (let n = 0; n < 50; n++) await start(({ signal }) => { signal.addEventListener('abort', () => {}) }, { timeout: 30_000 })
  t.ok(clock.pendingTimers <= before + 1, 'one, for all timeouts')
  await clock.advance(30_000)
  t.equal(clock.pendingTimers, before)
})

// Timeout

test('a timeout aborts the signal with a typed reason, and the verdict waits for the body', async (t) => {
  const { clock, start, read } = await stage(t)
  const { end } = stubborn()
  let signal: AbortSignal | undefined
  const job = await start((context) => { signal = context.signal; return end.promise }, { timeout: 100 })
  await clock.advance(99)
  t.equal(signal?.aborted, false)
  t.notOk('overdue' in await read(job))
  await clock.advance(1)
  t.match(signal?.reason as JobAbortedError, { name: 'AbortError', code: 'FST_BG_ABORTED', reason: 'timeout', message: /100 ms/ })
  t.match(await read(job), { state: 'active', overdue: true })
  end.resolve('too late')
  await clock.settle()
  const found = await read(job)
  t.match(found, { state: 'failed', failure: 'timeout', error: { name: 'TimeoutError', code: 'FST_BG_TIMEOUT' } })
  t.notOk('result' in found || 'overdue' in found)
})

test('a body that heeds its signal ends its attempt at the timeout, and is retried', async (t) => {
  const { clock, start, read } = await stage(t)
  const reasons: unknown[] = []
  const job = await start(({ signal, job }) => job.attempt === 2 ? 'done' : new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => { reasons.push(signal.reason); reject(signal.reason as Error) })
  }), { timeout: 100, attempts: 2, backoff: 50 })
  await clock.advance(100)
  t.match(await read(job), { state: 'delayed', delayReason: 'retry', error: { name: 'TimeoutError' } })
  await clock.advance(50)
  t.match(await read(job), { state: 'completed', result: 'done', attemptsMade: 2, history: [{ error: { code: 'FST_BG_TIMEOUT' } }] })
  t.match(reasons, [{ reason: 'timeout' }])
})

test('a signal first read after the abort is aborted already', async (t) => {
  const { clock, start } = await stage(t)
  const { end } = stubborn()
  let seen: AbortSignal | undefined
  await start(async (context) => { await end.promise; seen = context.signal }, { timeout: 100 })
  await clock.advance(100)
  end.resolve(undefined)
  await clock.settle()
  t.match(seen, { aborted: true, reason: { reason: 'timeout' } })
})

test('a timeout of 0 is none', async (t) => {
  const { clock, start, read } = await stage(t)
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 0 })
  await clock.advance(30 * 86_400_000)
  t.equal((await read(job)).state, 'active')
  end.resolve(1)
  await clock.settle()
  t.match(await read(job), { state: 'completed', result: 1 })
})

test('a timeout of months is not mistaken for none at all', async (t) => {
  const { clock, start, read } = await stage(t)
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 40 * 86_400_000 })
  await clock.advance(39 * 86_400_000)
  t.notOk('overdue' in await read(job))
  await clock.advance(86_400_000)
  t.equal((await read(job)).overdue, true)
  end.resolve(1)
})

test('two attempts of one job never overlap', async (t) => {
  const { clock, start, read } = await stage(t, { concurrency: 5 })
  const ends: Array<Deferred<unknown>> = []
  let alive = 0
  let most = 0
  const job = await start(async () => {
    most = Math.max(most, ++alive)
    const end = deferred<unknown>()
    ends.push(end)
    await end.promise
    alive--
  }, { timeout: 100, attempts: 3, backoff: 10 })
  for (const n of [1, 2, 3]) {
    await clock.advance(500)
    t.equal(ends.length, n)
    ends[n - 1]?.resolve(undefined)
    await clock.settle()
  }
  await clock.advance(500)
  t.equal(ends.length, 3)
  t.equal(most, 1)
  t.match(await read(job), { state: 'failed', failure: 'timeout', attemptsMade: 3 })
})

test('a body that ignores its signal counts as leaked after the grace, until it ends', async (t) => {
  const { clock, start, read, leaked, ...harness } = await stage(t, { abortGrace: 200 })
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 100 })
  await clock.advance(299)
  t.equal(await leaked(), 0)
  await clock.advance(1)
  t.equal(await leaked(), 1)
  t.match(harness.said(OVERDUE_LOG), [{ level: LEVELS.warn, jobId: job.id, abortedBy: 'timeout', attempt: 1, durationMs: 300 }])
  t.equal((await read(job)).state, 'active')
  end.resolve(undefined)
  await clock.settle()
  t.equal(await leaked(), 0)
  t.match(await read(job), { state: 'failed', failure: 'timeout' })
  await clock.advance(5_000)
  t.equal(harness.said(OVERDUE_LOG).length, 1)
})

test('after ten times its timeout a body is given up: the job fails, the slot stays held', async (t) => {
  const { clock, start, read, leaked, ...harness } = await stage(t, { concurrency: 1, abortGrace: 200 })
  const { work, end, starts } = stubborn()
  const job = await start(work, { timeout: 100, attempts: 5, backoff: 0 })
  const next = await start(() => 'next')
  await clock.advance(999)
  t.equal((await read(job)).state, 'active')
  await clock.advance(1)
  const failed = await read(job)
  t.match(failed, { state: 'failed', failure: 'timeout', attemptsMade: 1, error: { code: 'FST_BG_TIMEOUT' } })
  t.notOk('overdue' in failed)
  await clock.advance(60_000)
  t.equal((await read(next)).state, 'waiting')
  t.equal(await leaked(), 1)
  end.resolve('late')
  await clock.settle()
  t.equal((await read(next)).state, 'completed')
  t.strictSame(await read(job), failed)
  t.equal(starts(), 1)
  t.equal(await leaked(), 0)
  t.match(harness.said(RETURNED_LOG), [{ jobId: job.id, durationMs: 61_000 }])
  t.equal(harness.said('job failed').length, 1)
})

test('a body that is given up and then throws changes nothing and is not lost', async (t) => {
  const { clock, start, read } = await stage(t, { concurrency: 1 })
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 10 })
  await clock.advance(100)
  const failed = await read(job)
  end.reject(new Error('late'))
  await clock.settle()
  t.strictSame(await read(job), failed)
  t.equal((await read(await start(() => 1))).state, 'completed')
})

test('a body given up before its grace is over still counts as leaked then', async (t) => {
  const { clock, start, leaked } = await stage(t, { abortGrace: 1_000 })
  const { work, end } = stubborn()
  await start(work, { timeout: 10 })
  await clock.advance(100)
  t.equal(await leaked(), 0)
  await clock.advance(1_000)
  t.equal(await leaked(), 1)
  end.resolve(undefined)
  await clock.settle()
  t.equal(await leaked(), 0)
})

test('the first cause wins: a timeout, then a cancel', async (t) => {
  const { app, clock, start, read } = await stage(t)
  const { end } = stubborn()
  let signal: AbortSignal | undefined
  const job = await start((context) => { signal = context.signal; return end.promise }, { timeout: 100, attempts: 1 })
  await clock.advance(100)
  t.equal(await app.background.cancel(job.id), 'cancelling')
  end.resolve('result')
  await clock.settle()
  t.match(await read(job), { state: 'failed', failure: 'timeout' })
  t.match(signal?.reason, { reason: 'timeout' })
})

test('the first cause wins: a cancel, then a timeout', async (t) => {
  const { app, clock, start, read } = await stage(t)
  const { end } = stubborn()
  let signal: AbortSignal | undefined
  const job = await start((context) => { signal = context.signal; return end.promise }, { timeout: 100, attempts: 5 })
  t.equal(await app.background.cancel(job.id, 'not needed'), 'cancelling')
  await clock.advance(500)
  t.notOk('overdue' in await read(job))
  end.resolve('result')
  await clock.settle()
  const found = await read(job)
  t.match(found, { state: 'cancelled', reason: 'user' })
  t.notOk('result' in found)
  t.match(signal?.reason, { reason: 'cancel', message: 'not needed' })
})

test('the first cause wins: a cancel, then an error of the body', async (t) => {
  const { app, clock, start, read } = await stage(t)
  const { work, end } = stubborn()
  const job = await start(work, { attempts: 5 })
  await app.background.cancel(job.id)
  await app.background.cancel(job.id, 'again')
  end.reject(new Error('late'))
  await clock.settle()
  const found = await read(job)
  t.match(found, { state: 'cancelled', reason: 'user', attemptsMade: 1 })
  t.notOk('error' in found)
})

test('the first cause wins: a result, then a cancel', async (t) => {
  const { app, start, read } = await stage(t)
  const job = await start(() => 'result')
  t.equal(await app.background.cancel(job.id), 'final')
  t.match(await read(job), { state: 'completed', result: 'result' })
})

test('a cancelled body that ignores its signal is leaked after the grace, and given up like any other', async (t) => {
  const { app, clock, start, read, leaked, ...harness } = await stage(t, { abortGrace: 50 })
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 100 })
  await app.background.cancel(job.id)
  await clock.advance(50)
  t.equal(await leaked(), 1)
  t.match(harness.said(OVERDUE_LOG), [{ abortedBy: 'cancel' }])
  await clock.advance(950)
  t.match(await read(job), { state: 'cancelled', reason: 'user' })
  end.resolve(undefined)
  await clock.settle()
  t.match(await read(job), { state: 'cancelled', reason: 'user' })
})

test('at shutdown the signal says so, and the job ends cancelled', async (t) => {
  const { app, clock, start, ...harness } = await stage(t, { drainTimeout: 500, abortGrace: 100 })
  const reasons: unknown[] = []
  await start(({ signal }) => new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => { reasons.push(signal.reason); resolve() })
  }), { timeout: 0 })
  const closing = app.close()
  await clock.advance(600)
  await closing
  t.match(reasons, [{ name: 'AbortError', reason: 'shutdown' }])
  t.match(harness.said('job cancelled'), [{ reason: 'shutdown' }])
})

// Context

test('the context can be taken apart', async (t) => {
  const { app, start, read } = await stage(t)
  const job = await start(async ({ app: own, job, signal, log, progress, yieldNow }) => {
    progress('half')
    await yieldNow()
    log.info('hello')
    return { same: own === app, job, aborted: signal.aborted }
  }, { attempts: 2 })
  const found = await read(job)
  t.match(found, {
    state: 'completed', progress: 'half',
    result: { same: true, aborted: false, job: { id: job.id, queue: 'default', attempt: 1, attempts: 2, createdAt: found.createdAt, requestId: null } }
  })
})

test('the same parts come each time they are asked for', async (t) => {
  const { start, read } = await stage(t)
  t.strictSame((await read(await start((context) => [
    context.signal === context.signal, context.job === context.job, context.log === context.log, Object.isFrozen(context.job)
  ]))).result, [true, true, true, true])
})

test('the log lines of a body carry its job, attempt and request', async (t) => {
  const { app, clock, lines } = await setup(t)
  app.background.define('loud', { attempts: 2, backoff: 0 }, async (_payload, { log, job }) => {
    log.info('hello')
    if (job.attempt === 1) throw new Error('again')
  })
  app.get('/', async (_request, reply) => reply.accepted('loud'))
  await app.ready()
  const { jobId } = (await app.inject('/')).json<{ jobId: string }>()
  await clock.advance(10)
  t.match(lines.filter(({ msg }) => msg === 'hello'), [
    { jobId, task: 'loud', attempt: 1, reqId: 'req-1' }, { jobId, task: 'loud', attempt: 2, reqId: 'req-1' }
  ])
})

test('app is the instance that defined the task, or whose request or call made the inline job', async (t) => {
  const { app, clock } = await setup(t)
  const seen: Record<string, unknown> = {}
  await app.register(async (child) => {
    child.decorate('mine', 'child')
    child.background.define('task', async (_payload, context) => { seen.task = (context.app as unknown as { mine: string }).mine })
    child.get('/inline', async (_request, reply) => {
      reply.background((context) => { seen.inline = (context.app as unknown as { mine: string }).mine })
      return 'ok'
    })
  })
  await app.ready()
  await app.background.add('task')
  await app.background.add((context) => { seen.root = context.app === app })
  await app.inject('/inline')
  await clock.settle()
  t.strictSame(seen, { root: true, task: 'child', inline: 'child' })
})

test('a signal is made only for who reads it, a logger only for who logs', async (t) => {
  const { app, start } = await stage(t)
  const Original = globalThis.AbortController
  let controllers = 0
  globalThis.AbortController = class extends Original {
    constructor () { super(); controllers++ }
  }
  t.teardown(() => { globalThis.AbortController = Original })
  let loggers = 0
  const child = app.log.child.bind(app.log)
  app.log.child = ((...args: Parameters<typeof child>) => { loggers++; return child(...args) })
  for (let n = 0; n < 20; n++) await start(({ job, progress }) => { progress(job.attempt) }, { timeout: 100 })
  t.strictSame([controllers, loggers], [0, 0])
  await start(({ signal }) => signal.aborted)
  await start(({ log }) => { log.info('x') })
  t.strictSame([controllers, loggers], [1, 1])
})

test('an abort makes no signal for a body that did not ask for one', async (t) => {
  const { app, clock, start } = await stage(t)
  const { work, end } = stubborn()
  const job = await start(work, { timeout: 100 })
  const Original = globalThis.AbortController
  let controllers = 0
  globalThis.AbortController = class extends Original {
    constructor () { super(); controllers++ }
  }
  t.teardown(() => { globalThis.AbortController = Original })
  await clock.advance(100)
  await app.background.cancel(job.id)
  t.equal(controllers, 0)
  end.resolve(undefined)
  await clock.settle()
})

test('progress is shown while the body runs, and copied', async (t) => {
  const { clock, start, read } = await stage(t)
  const { end } = stubborn()
  const value = { done: [1] }
  const job = await start(({ progress }) => { progress(value); value.done.push(2); return end.promise })
  t.strictSame((await read(job)).progress, { done: [1] })
  end.resolve(undefined)
  await clock.settle()
  t.strictSame((await read(job)).progress, { done: [1] })
})

test('progress after the end is ignored', async (t) => {
  const { app, clock, start, read } = await stage(t)
  let tell: JobContext['progress'] = () => {}
  const job = await start(({ progress, job }) => {
    if (job.attempt === 1) { tell = progress; throw new Error('again') }
    return new Promise(() => {})
  }, { attempts: 2, backoff: 0, timeout: 100 })
  await clock.settle()
  t.equal((await read(job)).state, 'active')
  tell('from the first attempt')
  t.equal((await read(job)).progress, null)
  await clock.advance(1_000)
  tell('after the end')
  t.match(await read(job), { state: 'failed', progress: null })
  await app.background.deadLetters.remove(job.id)
  t.doesNotThrow(() => { tell('after it was forgotten') })
})

test('a flood of progress is thinned out for the store, and the last value arrives', async (t) => {
  const clock = new TestClock()
  const backend = memory({ clock })
  const notes: unknown[] = []
  const note = backend.note.bind(backend)
  backend.note = (attempt, told) => {
    notes.push(told)
    return note(attempt, told)
  }
  const { app } = await setup(t, { backend })
  await app.ready()
  const { promise, resolve } = deferred()
  const job = await app.background.add(async ({ progress }) => {
    for (let n = 1; n <= 10_000; n++) progress(n)
    await promise
    for (let n = 1; n <= 10_000; n++) progress(-n)
  })
  await clock.settle()
  t.equal(notes.length, 10)
  await clock.advance(100)
  t.strictSame([notes.length, (await app.background.get(job.id))?.progress], [11, 10_000])
  resolve()
  await clock.settle()
  t.strictSame((await app.background.get(job.id))?.progress, -10_000)
  t.ok(notes.length <= 22, `${notes.length} notes`)
})

test('progress that has no JSON form or is too large is an error of the body', async (t) => {
  const { start, read } = await stage(t, { maxPayloadBytes: 10 })
  const circle: unknown[] = []
  circle.push(circle)
  for (const value of [undefined, () => {}, 1n, circle, 'x'.repeat(9), { toJSON () { throw new Error('no') } }]) {
    t.match(await read(await start(({ progress }) => { progress(value) })), { state: 'failed', error: { code: 'FST_BG_BAD_OPTION', message: /^progress: expected a value with a JSON form of at most 10 bytes, got / } })
  }
})

test('yieldNow comes back in a later turn of the loop', async (t) => {
  const { start } = await stage(t)
  const order: string[] = []
  await start(async ({ yieldNow }) => {
    setImmediate(() => { order.push('the loop') })
    await Promise.resolve()
    order.push('a microtask')
    await yieldNow()
    order.push('after')
  })
  await until(() => order.length === 3)
  t.strictSame(order, ['a microtask', 'the loop', 'after'])
})

// Async context

test('a job does not run in the context of its request', async (t) => {
  const { app, clock } = await setup(t)
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  app.addHook('onRequest', (request, _reply, done) => { storage.run(request.url, done) })
  app.get('/:name', async (_request, reply) => {
    reply.background(async () => {
      seen.push(storage.getStore())
      await Promise.resolve()
      seen.push(storage.getStore())
    })
    return 'ok'
  })
  await app.inject('/a')
  await app.inject('/b')
  await clock.settle()
  t.strictSame(seen, [undefined, undefined, undefined, undefined])
})

test('with callerContext a job runs in the context of its call, and only that job', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 1 })
  const storage = new AsyncLocalStorage<string>()
  const seen: string[] = []
  app.background.define('look', async (name: string) => {
    await Promise.resolve()
    seen.push(`${name} sees ${storage.getStore()}`)
  })
  await app.ready()
  await app.background.pause()
  const add = (name: string, callerContext: boolean) => storage.run(`the context of ${name}`, () => app.background.add('look', name, { callerContext }))
  await add('a', true)
  await add('b', false)
  await add('c', true)
  await add('d', false)
  await app.background.resume()
  await clock.settle()
  t.strictSame(seen, ['a sees the context of a', 'b sees undefined', 'c sees the context of c', 'd sees undefined'])
})

test('a context that a job enters does not reach the next job of its slot', async (t) => {
  const { start } = await stage(t, { concurrency: 1 })
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  await start(() => { storage.enterWith('of the first job') })
  await start(async () => { storage.enterWith('of the second job'); await Promise.resolve() })
  await start(() => { seen.push(storage.getStore()) })
  t.strictSame(seen, [undefined])
})

test('a context that jobs enter does not reach the next job taken in the same turn', async (t) => {
  const { app, clock, start } = await stage(t, { concurrency: 1 })
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  await app.background.pause()
  await start(() => { storage.enterWith('of the first job') })
  await start(() => { seen.push(storage.getStore()) })
  await start(async () => { storage.enterWith('of the third job'); await Promise.resolve() })
  await start(() => { seen.push(storage.getStore()) })
  await app.background.resume()
  await clock.settle()
  t.strictSame(seen, [undefined, undefined])
})

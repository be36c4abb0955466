/**
 * Bodies that do what no body should. Each kind has one defined outcome, tested with all of them side by side in one
 * application, which afterwards still works. What lets go of a promise is in jobs/floating.test.ts; what no plugin can
 * contain (process.exit, out of memory, a loop that never ends) is in the README.
 */
import { test, type Test } from 'tap'
import { memory, type JobContext, type JobHandle } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { closeInTime, deferred, record, setup, type Harness, type HarnessOptions, until } from '../support/harness.ts'
import { chain, circle, revoked, trap, traps } from '../support/hostile.ts'

type Body = (context: JobContext) => unknown
/** What is expected of the job, and of its error. */
type Outcome = Record<string, unknown>

const HUGE = 5_000_000
const springing = (...keys: string[]): PropertyDescriptorMap => Object.fromEntries(keys.map((key) => [key, { get: trap }]))

const message = (text: string | RegExp): Outcome => ({ error: { message: text } })

const thrown: Record<string, [value: unknown, outcome: Outcome]> = {
  undefined: [undefined, message('undefined')],
  null: [null, message('null')],
  'a symbol': [Symbol('why'), message('Symbol(why)')],
  'a BigInt': [7n, message('7')],
  'a function': [trap, message('a function was thrown')],
  'a frozen error': [Object.freeze(new Error('cold')), message('cold')],
  'a frozen object': [Object.freeze({ password: 'hunter2' }), message('an object without a message was thrown')],
  'a proxy whose traps throw': [new Proxy({}, traps), message('an object without a message was thrown')],
  'a proxy of an error whose traps throw': [new Proxy(new Error('x'), traps), { error: { name: 'Error' } }],
  'a proxy of a function whose traps throw': [new Proxy(() => {}, traps), message('a function was thrown')],
  'a revoked proxy': [revoked(), { error: { name: 'Error' } }],
  'an error with throwing getters': [Object.defineProperties(new Error('x'), springing('stack', 'name', 'message', 'cause', 'code', 'retryAfter', 'headers', 'response')), { error: { name: 'Error', code: null } }],
  'headers that throw': [Object.assign(new Error('x'), { headers: { get: trap }, response: { headers: revoked() } }), message('x')],
  'a toJSON that throws': [Object.assign(new Error('x'), { toJSON: trap, toString: trap }), message('x')],
  'a message of 5 MB': [new Error('é'.repeat(HUGE)), message(/^é{4096}$/)],
  'a text of 5 MB': ['x'.repeat(HUGE), message(/^x{4096}$/)],
  'a circle of causes': [circle(), { error: { message: 'a', cause: { message: 'b' } } }],
  '10 000 causes': [chain(10_000), message('cause 9999')],
  'a Response-like with a hostile retryAfter': [{ message: 'x', retryAfter: { valueOf: trap } }, message('x')],
  'a fake UnrecoverableError': [{ name: 'UnrecoverableError', message: 'x' }, message('x')]
}

const unserializable: Outcome = { state: 'completed', resultOmitted: 'unserializable', result: undefined }
const circular: Record<string, unknown> = {}
circular['self'] = circular

/* oxlint-disable unicorn/no-thenable -- objects with a then are what is tested */
const returned: Record<string, [value: () => unknown, outcome: Outcome]> = {
  'a BigInt': [() => 1n, unserializable],
  'a BigInt far inside': [() => ({ a: [{ b: 1n }] }), unserializable],
  'a circular object': [() => circular, unserializable],
  'a function': [() => trap, unserializable],
  'a symbol': [() => Symbol('s'), unserializable],
  'a toJSON that throws': [() => ({ toJSON: trap }), unserializable],
  'a toJSON that throws undefined': [() => ({ toJSON () { throw undefined } }), unserializable],
  'a getter that throws': [() => ({ get a () { return trap() } }), unserializable],
  'a proxy whose get gives nothing and whose ownKeys throw': [() => new Proxy({}, { get: () => undefined, ownKeys: trap }), unserializable],
  // `await` itself reads `then`, so these are errors of the body.
  'a proxy whose traps throw': [() => new Proxy({}, traps), { state: 'failed', error: { message: 'a trap was sprung' } }],
  'a revoked proxy': [revoked, { state: 'failed', error: { name: 'TypeError' } }],
  'a thenable whose then throws': [() => ({ then: trap }), { state: 'failed', error: { message: 'a trap was sprung' } }],
  'a thenable whose then cannot be read': [() => ({ get then () { return trap() } }), { state: 'failed', error: { message: 'a trap was sprung' } }],
  'a thenable that calls back twice': [() => ({ then (yes: (value: unknown) => void) { yes(1); yes(2) } }), { state: 'completed', result: 1 }],
  'a thenable that calls back, and again much later': [() => ({ then (yes: (value: unknown) => void, no: (error: unknown) => void) { yes(1); setImmediate(no, new Error('x')) } }), { state: 'completed', result: 1 }],
  '5 MB': [() => 'x'.repeat(HUGE), { state: 'completed', resultOmitted: 'too-large' }],
  'numbers that JSON does not know': [() => [NaN, Infinity, -0], { state: 'completed', result: [null, null, 0] }],
  'its own context': [(context?: unknown) => context, { state: 'completed' }],
  'the application': [(context?: unknown) => (context as JobContext).app, { state: 'completed' }]
}
/* oxlint-enable unicorn/no-thenable */

/** Adds the body as a task and as an inline function, and gives the records of both when they have ended. */
async function run (t: Test, bodies: ReadonlyArray<readonly [string, Body]>, options: HarnessOptions): Promise<Harness & { ends: Map<string, JobHandle[]> }> {
  const harness = await setup(t, { concurrency: 3, ...options })
  const { app, clock } = harness
  bodies.forEach(([, body], n) => { app.background.define(`hostile-${n}`, (_payload: unknown, context) => body(context)) })
  for (const name of ['onTaskError', 'onTaskDead', 'onTaskEnd'] as const) app.background.addHook(name, () => {})
  await app.ready()
  const ends = new Map<string, JobHandle[]>()
  for (const [n, [name, body]] of bodies.entries()) ends.set(name, [await app.background.add(`hostile-${n}`), await app.background.add(body)])
  await clock.advance(1_000)
  await app.background.onIdle()
  return { ...harness, get background () { return app.background }, ends }
}

/** It still takes work, answers, tells the truth about its counts, and each job ended in one line. */
async function stillWorks (t: Test, { app, clock, lines }: Harness, jobs: JobHandle[]): Promise<void> {
  const next = await app.background.add(() => 'works')
  await clock.settle()
  t.equal(await next.finished(), 'works')
  const health = await app.inject('/health/jobs')
  t.match(health.json(), { status: 'ok', leaked: 0, queues: { default: { pending: 0, waiting: 0, delayed: 0, active: 0 } } })
  const { completed, cancelled, deadLettered } = health.json<{ totals: Record<string, number> }>().totals as { completed: number, cancelled: number, deadLettered: number }
  t.equal(completed + cancelled + deadLettered, jobs.length + 1, 'each job is counted once')
  await clock.advance(1_000)
  const said = new Map<unknown, number>()
  for (const { msg, jobId, jobIds = [jobId] } of lines) {
    if (/^job (completed|failed|cancelled)/.test(msg)) for (const id of jobIds as unknown[]) said.set(id, (said.get(id) ?? 0) + 1)
  }
  for (const { id } of jobs) t.equal(said.get(id), 1, 'each job ended in one line')
}

test('whatever is thrown, the job fails after its attempts, and can be looked at', async (t) => {
  const bodies = Object.entries(thrown).map(([name, [value]]) => [name, () => { throw value }] as const)
  const harness = await run(t, bodies, { defaults: { attempts: 2, backoff: 10 } })
  for (const [name, jobs] of harness.ends) {
    for (const job of jobs) {
      const found = await record(harness.background, job.id)
      t.match(found, { state: 'failed', failure: 'exhausted', attemptsMade: 2, history: [{ attempt: 1 }, { attempt: 2 }], ...thrown[name]?.[1] }, name)
      t.ok(JSON.stringify(found).length < 200_000, `${name} is kept small`)
      t.notMatch(JSON.stringify(found), /hunter2/, name)
      const status = await harness.app.inject(job.statusUrl as string)
      t.match(status.json(), { state: 'failed', error: { name: String } }, name)
      t.ok(status.body.length < 10_000, name)
      await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'exhausted' }, name)
    }
  }
  t.equal((await harness.background.deadLetters.list()).jobs.length, bodies.length * 2)
  t.ok(harness.lines.every((line) => JSON.stringify(line).length < 200_000), 'no line is huge')
  await stillWorks(t, harness, [...harness.ends.values()].flat())
})

test('a rejection is the same as a throw', async (t) => {
  const bodies = Object.entries(thrown).map(([name, [value]]) => [name, () => Promise.reject(value)] as const)
  const harness = await run(t, bodies, { defaults: { attempts: 1 } })
  for (const [name, jobs] of harness.ends) {
    for (const job of jobs) t.match(await record(harness.background, job.id), { state: 'failed', ...thrown[name]?.[1] }, name)
  }
  await stillWorks(t, harness, [...harness.ends.values()].flat())
})

test('whatever is returned, the job ends once', async (t) => {
  const bodies = Object.entries(returned).map(([name, [value]]) => [name, (context: JobContext) => (value as (context: unknown) => unknown)(context)] as const)
  const harness = await run(t, bodies, { defaults: { attempts: 1 } })
  for (const [name, jobs] of harness.ends) {
    for (const job of jobs) {
      t.match(await record(harness.background, job.id), returned[name]?.[1], name)
      t.equal((await harness.app.inject(job.statusUrl as string)).statusCode, 200, name)
    }
  }
  await stillWorks(t, harness, [...harness.ends.values()].flat())
})

test('bodies that never settle and ignore their signals hold their slots and nothing else', async (t) => {
  const { app, background, clock } = await setup(t, { concurrency: 4, abortGrace: 50 })
  await app.ready()
  const end = deferred()
  const never: Body[] = [
    () => end.promise,
    ({ signal }) => { signal.addEventListener('abort', (event) => { event.stopImmediatePropagation() }); return end.promise },
    // oxlint-disable-next-line unicorn/no-thenable -- one that never calls back
    () => ({ then (yes: () => void) { void end.promise.then(yes) } })
  ]
  const jobs = await Promise.all(never.map((body) => background.add(body, { timeout: 100, attempts: 5 })))
  const others = await Promise.all([1, 2, 3].map((n) => background.add(() => n)))
  await clock.settle()
  for (const job of others) t.equal((await record(background, job.id)).state, 'completed')
  await clock.advance(999)
  for (const job of jobs) t.match(await record(background, job.id), { state: 'active', overdue: true })
  await clock.advance(1)
  for (const job of jobs) t.match(await record(background, job.id), { state: 'failed', failure: 'timeout', attemptsMade: 1 })
  t.match((await app.inject('/health/jobs')).json(), { status: 'degraded', leaked: 3 })
  end.resolve()
  await clock.settle()
  t.match((await app.inject('/health/jobs')).json(), { leaked: 0 })
})

test('progress after the end, or with nonsense, harms nobody', async (t) => {
  const { app, background, clock } = await setup(t)
  await app.ready()
  const late: Array<JobContext['progress']> = []
  const jobs = [
    await background.add(({ progress }) => { late.push(progress); progress('before'); return 1 }),
    await background.add(({ progress }) => { late.push(progress); throw new Error('x') })
  ]
  await clock.settle()
  for (const progress of late) {
    t.doesNotThrow(() => { progress('after') })
    for (const nonsense of [1n, circular, trap, revoked(), new Proxy({}, traps), 'x'.repeat(HUGE)]) t.throws(() => { progress(nonsense) }, { code: 'FST_BG_BAD_OPTION' })
  }
  t.match(await record(background, jobs[0]?.id ?? ''), { state: 'completed', progress: 'before' })
  t.match(await record(background, jobs[1]?.id ?? ''), { state: 'failed', progress: null })
})

test('a job that enqueues itself for ever lets others through, and the shutdown ends it', async (t) => {
  // The system's clock: the slice of a turn never ends in a time that stands still.
  const { app, clock, said } = await setup(t, { backend: memory(), concurrency: 1 })
  let rounds = 0
  app.background.define('again', { attempts: 1 }, async (_payload, { app }) => { rounds++; await app.background.add('again') })
  await app.ready()
  await app.background.add('again')
  await until(() => rounds > 1)
  for (let n = 0; n < 20; n++) {
    const other = await app.background.add(() => n)
    t.equal(await other.finished(), n)
    t.equal((await app.inject('/health/jobs')).statusCode, 200)
  }
  t.ok(rounds > 20)
  await closeInTime(app, clock)
  const last = rounds
  await clock.settle()
  t.equal(rounds, last, 'nothing runs after the close')
  t.match(said('job failed').map(({ err }) => err), [{ code: 'FST_BG_CLOSING' }], 'the last one hears that no more is taken')
})

test('a job that enqueues two of itself for ever is stopped by the queue\'s limit', async (t) => {
  const { app, clock, said } = await setup(t, { backend: memory(), concurrency: 2, maxQueueSize: 100 })
  app.background.define('double', { attempts: 1 }, async (_payload, { app }) => { await app.background.addBulk([{ name: 'double' }, { name: 'double' }]) })
  await app.ready()
  await app.background.add('double')
  for (let turn = 0; turn < 50; turn++) {
    await clock.settle()
    const { waiting = 0 } = (await app.background.counts())['default'] ?? {}
    t.ok(waiting <= 100, `${waiting} wait`)
  }
  t.match(said('job failed')[0], { err: { code: 'FST_BG_QUEUE_FULL' } })
  t.match((await app.inject('/health/jobs')).json(), { status: 'overloaded' })
})

test('a job that blocks the loop: its timeout is noticed when the loop turns', async (t) => {
  const clock = new TestClock()
  const monotonic = clock.monotonic.bind(clock)
  let blocked = 0
  Object.assign(clock, { monotonic: () => monotonic() + blocked })
  const { app, background } = await setup(t, { backend: memory({ clock }), concurrency: 1 })
  await app.ready()
  const order: string[] = []
  const block = (): void => { blocked += 500 }
  const atOnce = await background.add(() => { block(); return 'settled before anybody could look' }, { timeout: 100 })
  const later = await background.add(async ({ yieldNow, signal }) => { block(); while (!signal.aborted) await yieldNow() }, { timeout: 100 })
  const next = await background.add(() => { order.push('next') })
  const request = app.inject('/health/jobs').then(() => { order.push('request') })
  await clock.advance(1_000)
  await request
  t.match(await record(background, atOnce.id), { state: 'completed', result: 'settled before anybody could look' })
  t.match(await record(background, later.id), { state: 'failed', failure: 'timeout' })
  t.match(await record(background, next.id), { state: 'completed' })
  t.strictSame(order.sort(), ['next', 'request'])
})

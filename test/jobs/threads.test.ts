/** Tasks in real threads. Time is the test's; what a thread does comes when it comes, and is waited for by its log lines. */
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import t, { test, type Test } from 'tap'
import type { BackgroundTasksOptions, JobHandle, TaskOptions } from '../../lib/index.ts'
import '../support/built-threads.ts'
import { deferred, record, setup, until, type Deferred, type Harness, type Line } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

const fixture = (name: string): URL => new URL(`../support/fixtures/${name}`, import.meta.url)
const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const stripsTypes = major > 22 || (major === 22 && minor >= 18)

interface Started extends Harness {
  /** Resolves with the next line of this text that no earlier call took. */
  heard: (msg: string) => Promise<Line>
  run: (payload: Record<string, unknown>) => Promise<JobHandle>
}

/** One task, `task`, in one thread unless told otherwise. */
async function start (t: Test, task: TaskOptions & { worker?: URL } = {}, options: BackgroundTasksOptions = {}): Promise<Started> {
  const portsBefore = ports()
  const lines: Line[] = []
  const waiting: Array<{ msg: string, found: Deferred<Line> }> = []
  const write = (text: string): void => {
    const line = JSON.parse(text) as Line
    lines.push(line)
    const [taken] = waiting.splice(waiting.findIndex(({ msg }) => msg === line.msg) >>> 0, 1)
    taken?.found.resolve(line)
  }
  const harness = await setup(t, { threads: 1, ...options, server: { logger: { level: 'info', stream: { write } } } })
  harness.app.background.define('task', { attempts: 1, worker: fixture('thread.js'), ...task })
  await harness.app.ready()
  t.teardown(() => closeInRealTime(harness, portsBefore))
  return {
    ...harness,
    lines,
    background: harness.app.background,
    heard (msg) {
      const found = deferred<Line>()
      waiting.push({ msg, found })
      return found.promise
    },
    run: (payload) => harness.app.background.add('task', payload)
  }
}

const breath = (): Promise<void> => new Promise((resolve) => { setTimeout(resolve, 5) })
const ports = (): number => process.getActiveResourcesInfo().filter((type) => type === 'MessagePort').length

/**
 * Threads take their own time to end, which the clock of the test does not know; Node's own port to one that was ended
 * goes last. What stays for good, the watch of the leaks tells.
 */
async function closeInRealTime ({ app, clock }: Harness, portsBefore: number): Promise<void> {
  let closed = false
  const closing = app.close().finally(() => { closed = true })
  while (!closed) {
    await clock.advance(1_000)
    await breath()
  }
  await closing
  for (let round = 0; round < 1_000 && ports() > portsBefore; round++) await breath()
}

async function ended (job: JobHandle): Promise<void> {
  await job.finished().catch(() => {})
}

test('a task runs in a thread, with its payload and the facts of its job', async (t) => {
  const { run } = await start(t)
  const job = await run({ do: 'answer', deep: [{ n: 1 }] })
  t.match(await job.finished(), {
    payload: { do: 'answer', deep: [{ n: 1 }] }, isMainThread: false, keys: ['children', 'job', 'log', 'progress', 'signal'],
    job: { id: job.id, name: 'task', queue: 'default', attempt: 1, attempts: 1, requestId: null }
  })
})

test('the payload passes its schema before it goes into the thread', async (t) => {
  const schema = { type: 'object', properties: { do: { type: 'string' }, width: { type: 'integer', default: 800 } } }
  const { run } = await start(t, { schema })
  t.match(await (await run({ do: 'answer' })).finished(), { payload: { width: 800 } })
  await t.rejects(run({ do: {} }), { code: 'FST_BG_BAD_PAYLOAD' })
})

test('a payload that cannot cross is refused at the call', async (t) => {
  const { run } = await start(t)
  await t.rejects(run({ do: 'answer', n: 1n }), { code: 'FST_BG_PAYLOAD_NOT_JSON' })
  await t.rejects(run((() => {}) as never), { code: 'FST_BG_PAYLOAD_NOT_JSON' })
})

test('results follow the rules of all results: JSON, or left out and marked', async (t) => {
  const { run, background } = await start(t, {}, { maxPayloadBytes: 1_000 })
  t.strictSame(await (await run({ do: 'date' })).finished(), { at: '1970-01-01T00:00:00.000Z', by: 'toJSON' })
  t.strictSame(await (await run({ do: 'move', bytes: 2 })).finished(), { 0: 0, 1: 0 }, 'what Piscina.move wraps')
  for (const [payload, resultOmitted] of [[{ do: 'function' }, 'unserializable'], [{ do: 'huge', bytes: 50_000_000 }, 'too-large']] as const) {
    const job = await run(payload)
    t.equal(await job.finished(), undefined)
    t.match(await record(background, job.id), { state: 'completed', resultOmitted })
  }
})

test('progress reaches the status, the last value before the end', async (t) => {
  const { run, background } = await start(t)
  const job = await run({ do: 'progress' })
  await job.finished()
  t.strictSame((await record(background, job.id)).progress, { percent: 100 })
  await t.rejects((await run({ do: 'badProgress' })).finished(), { message: /progress: expected a value with a JSON form/ })
})

test('log lines are written by the application, under their job, from its level up', async (t) => {
  const { run, lines } = await start(t)
  const job = await run({ do: 'log' })
  await job.finished()
  const said = lines.filter(({ task, level, msg }) => task === 'task' && !msg.startsWith('job ') && level >= 30)
  t.match(said, [
    { level: 30, size: 3, msg: 'of three', jobId: job.id, attempt: 1 },
    { level: 40, msg: 'late', err: { type: 'Error', message: 'late', code: 'E_LATE' } },
    { level: 50, msg: 'failed', why: 'so', err: { type: 'TypeError', message: 'wrong' } },
    { level: 30, msg: 'no JSON' }
  ])
  t.equal(said.length, 4)
})

test('an error keeps its name, message, code, cause and plain properties', async (t) => {
  const seen: Array<Error & Record<string, unknown>> = []
  const retryIf = (error: unknown): boolean => {
    seen.push(error as Error & Record<string, unknown>)
    return false
  }
  const { run, background } = await start(t, { attempts: 3, retryIf })
  const job = await run({ do: 'throw' })
  await ended(job)
  t.match(await record(background, job.id), {
    state: 'failed', failure: 'unrecoverable', error: { name: 'RangeError', message: 'too far', code: 'E_FAR', stack: /thread\.js/, cause: { message: 'deeper' } }
  })
  t.match(seen, [{ name: 'RangeError', statusCode: 422, cause: { message: 'deeper' } }])
  t.notOk('hidden' in (seen[0] as object))
  const text = await run({ do: 'throwText' })
  await ended(text)
  t.match(await record(background, text.id), { error: { name: 'Error', message: 'only a text', stack: undefined } })
})

test('an attempt that throws is retried with its backoff', async (t) => {
  const { run, background, clock, heard } = await start(t, { attempts: 2, backoff: 5_000 })
  const retried = heard('attempt failed, the job will be retried')
  const job = await run({ do: 'throw' })
  await retried
  t.match(await record(background, job.id), { state: 'delayed', delayReason: 'retry', attemptsMade: 1 })
  await clock.advance(5_000)
  await ended(job)
  t.match(await record(background, job.id), { state: 'failed', failure: 'exhausted', attemptsMade: 2 })
})

test('UnrecoverableError, RetryLaterError and Retry-After mean the same in a thread', async (t) => {
  const { run, background, clock, heard } = await start(t, { attempts: 3 })
  const never = await run({ do: 'unrecoverable' })
  await ended(never)
  t.match(await record(background, never.id), { failure: 'unrecoverable', attemptsMade: 1, error: { message: 'never', code: 'E_NEVER' } })
  for (const [what, ms, attemptsMade] of [['later', 7_000, 0], ['retryAfter', 5_000, 1]] as const) {
    const retried = heard('attempt failed, the job will be retried')
    const job = await run({ do: what })
    await retried
    const now = await record(background, job.id)
    t.match(now, { state: 'delayed', attemptsMade, retryAt: new Date(clock.now() + ms).toISOString() }, what)
    await background.cancel(job.id)
  }
})

test('a timeout ends a thread that blocks in a loop, and its slot and the thread are free for the next job', async (t) => {
  const { app, run, background, clock, heard } = await start(t, { timeout: 1_000, concurrency: 1 })
  const begun = heard('begun')
  const job = await run({ do: 'spin' })
  await begun
  const next = await run({ do: 'id' })
  await clock.advance(1_000)
  t.match(await record(background, job.id), { state: 'failed', failure: 'timeout' }, 'without any grace')
  t.type(await next.finished(), 'number')
  t.match((await app.inject('/health/jobs')).json(), { leaked: 0 })
})

test('a timeout is retried in a new thread', async (t) => {
  const { run, background, clock, heard } = await start(t, { timeout: 1_000, attempts: 2, backoff: 10 })
  for (const attempt of [1, 2]) {
    const begun = heard('begun')
    if (attempt === 1) void run({ do: 'hang' })
    t.match(await begun, { attempt })
    await clock.advance(1_010)
  }
  await background.onIdle()
  t.match(await background.deadLetters.list({}), { jobs: [{ failure: 'timeout', attemptsMade: 2 }] })
})

test('a cancel ends a thread', async (t) => {
  const { run, background, heard } = await start(t)
  const begun = heard('begun')
  const job = await run({ do: 'spin' })
  await begun
  t.equal(await background.cancel(job.id), 'cancelling')
  await t.rejects(job.finished(), { code: 'FST_BG_JOB_CANCELLED' })
  t.type(await (await run({ do: 'id' })).finished(), 'number', 'the thread is replaced')
})

test('a job cancelled while it waits for a thread never starts, and the others keep their order', async (t) => {
  const { run, background, heard, lines } = await start(t)
  const begun = heard('begun')
  const first = await run({ do: 'hang' })
  await begun
  const [second, third, fourth] = [await run({ do: 'log' }), await run({ do: 'answer' }), await run({ do: 'answer' })]
  const order: string[] = []
  for (const job of [third, fourth]) void job.finished().then(() => { order.push(job.id) })
  await until(async () => (await record(background, fourth.id)).state === 'active')
  await background.cancel(second.id)
  await t.rejects(second.finished(), { code: 'FST_BG_JOB_CANCELLED' })
  await background.cancel(first.id)
  await Promise.all([third.finished(), fourth.finished()])
  t.strictSame(order, [third.id, fourth.id])
  t.notOk(lines.some(({ msg }) => msg === 'of three'))
})

test('threads work side by side, as many as there are', async (t) => {
  const { run, background, heard } = await start(t, {}, { threads: 2 })
  const both = [heard('begun'), heard('begun')]
  const jobs = [await run({ do: 'hang' }), await run({ do: 'hang' })]
  await Promise.all(both)
  for (const { id } of jobs) await background.cancel(id)
})

test('a body that took its signal is told first, and has half of the grace to end by itself', async (t) => {
  const { run, background, heard, clock } = await start(t, { timeout: 1_000 })
  let begun = heard('begun')
  const job = await run({ do: 'heed' })
  await begun
  const cleaned = heard('cleaned up')
  await clock.advance(1_000)
  t.match(await cleaned, { name: 'AbortError', reason: 'timeout' })
  await ended(job)
  t.match(await record(background, job.id), { state: 'failed', failure: 'timeout' })

  begun = heard('begun')
  const ignoring = await run({ do: 'ignore' })
  await begun
  const told = heard('told')
  await clock.advance(1_000)
  await told
  t.match(await record(background, ignoring.id), { state: 'active', overdue: true })
  await clock.advance(500)
  t.match(await record(background, ignoring.id), { state: 'failed', failure: 'timeout' }, 'before it would count as leaked')
})

test('a thread that ends itself fails the attempt, not the process, and what it said before is kept', async (t) => {
  const { run, background } = await start(t)
  const job = await run({ do: 'exit' })
  await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED' })
  t.match(await record(background, job.id), { failure: 'exhausted', progress: 'last words', error: { code: 'FST_BG_THREAD_ENDED', message: /ended before.*7/ } })
  t.type(await (await run({ do: 'id' })).finished(), 'number')
})

test('a rejection that a thread lets go of fails its attempt', async (t) => {
  const { run, background } = await start(t)
  const job = await run({ do: 'floating' })
  await ended(job)
  t.match(await record(background, job.id), { error: { code: 'FST_BG_THREAD_ENDED', message: /let go/ } })
})

test('a thread that runs out of memory fails the attempt, not the process', async (t) => {
  const { run, background } = await start(t)
  setFlagsFromString('--max-old-space-size=64')
  const job = await run({ do: 'memory' })
  await ended(job)
  setFlagsFromString('--max-old-space-size=4096')
  t.match(await record(background, job.id), { error: { code: 'FST_BG_THREAD_ENDED', message: /memory/ } })
  t.type(await (await run({ do: 'id' })).finished(), 'number')
})

test('a worker file without a function is a dead letter at once, with the reason', async (t) => {
  const { run, background } = await start(t, { attempts: 3, worker: fixture('thread-not-a-function.js') })
  const job = await run({})
  await ended(job)
  t.match(await record(background, job.id), {
    failure: 'unrecoverable', attemptsMade: 1, error: { code: 'FST_BG_BAD_HANDLER', message: /default export of file:.*not-a-function\.js: expected a function, got an object/ }
  })
})

test('a worker file that throws at its import fails the attempt with that error', async (t) => {
  const { run, background } = await start(t, { worker: fixture('thread-throws-at-import.js') })
  const job = await run({})
  await ended(job)
  t.match(await record(background, job.id), { failure: 'exhausted', error: { code: 'E_LICENCE', message: 'no licence' } })
})

test('a worker file may be CommonJS', async (t) => {
  const { run } = await start(t, { worker: fixture('thread-commonjs.cjs') })
  t.equal(await (await run({ n: 21 })).finished(), 42)
})

test('a worker file may be TypeScript', { skip: !stripsTypes && `Node ${process.versions.node} does not strip types: 22.18 and later do` }, async (t) => {
  const { run } = await start(t, { worker: fixture('thread-typed.ts') })
  t.equal(await (await run({ a: 1, b: 2 })).finished(), 'task: 3')
})

test('a shutdown waits for threads, then ends them', async (t) => {
  const { app, run, heard, lines, clock } = await start(t)
  const begun = heard('begun')
  const job = await run({ do: 'spin' })
  await begun
  const closing = app.close()
  await clock.advance(8_000)
  await closing
  t.match(lines.find(({ msg }) => msg === 'shutdown left jobs undone'), { jobs: [{ jobId: job.id, task: 'task' }] })
  t.notOk(lines.some(({ msg }) => msg.includes('ignores its signal')))
})

test('no thread is left after the close', { skip: process.platform !== 'linux' && 'threads are counted in /proc' }, async (t) => {
  const count = (): number => readdirSync('/proc/self/task').length
  const { app, run } = await start(t, {}, { threads: 2 })
  const before = count()
  await Promise.all([await run({ do: 'id' }), await run({ do: 'id' })].map((job) => job.finished()))
  t.ok(count() > before)
  await app.close()
  await until(() => count() <= before)
})

/** A program with one job in a thread, which ends by itself. One that hangs is killed. */
function program (...node: string[]): Promise<{ code: number | null, stdout: string, stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...node, fileURLToPath(fixture('thread-idle.js'))], { timeout: 30_000, killSignal: 'SIGKILL' }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr })
    })
  })
}

test('an idle thread keeps no process alive', async (t) => {
  const { code, stdout } = await program()
  t.equal(code, 0)
  t.match(stdout, /^\d+\n$/)
})

test('without piscina an application whose tasks need threads does not become ready, and says what to install', async (t) => {
  const url = (code: string): string => `data:text/javascript,${encodeURIComponent(code)}`
  const hide = url(`export function resolve (name, context, next) {
    if (name === 'piscina') throw Object.assign(new Error('not there'), { code: 'ERR_MODULE_NOT_FOUND' })
    return next(name, context)
  }`)
  const { code, stderr } = await program('--import', url(`import { register } from 'node:module'; register(${JSON.stringify(hide)})`))
  t.equal(code, 1)
  t.match(stderr, /FST_BG_PEER_MISSING/)
  t.match(stderr, /a task with a worker needs packages that are not installed: npm install piscina/)
})

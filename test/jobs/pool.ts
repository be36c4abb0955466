/** The slots of a queue: how many bodies are alive, and how long they hold the event loop. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { performance } from 'node:perf_hooks'
import Fastify, { type FastifyBaseLogger, type FastifyRegisterOptions, type FastifyServerOptions } from 'fastify'
import { test, type Test } from 'tap'
import { backgroundTasks, memory, type BackgroundTasksOptions, type JobHandle } from '../../lib/index.ts'
import type { Attempt } from '../../lib/job.ts'
import { TASK_DEFAULTS } from '../../lib/job-options.ts'
import { MadeJob } from '../../lib/jobs/made.ts'
import { Pool } from '../../lib/jobs/pool.ts'
import { Turns } from '../../lib/jobs/turns.ts'
import { BusyClock, TestClock } from '../support/clock.ts'
import { closeInTime, deferred, record, setup, until, type Deferred } from '../support/harness.ts'

/** The loop's own number of this turn. */
const turn = (): number => performance.nodeTiming.uvMetricsInfo.loopCount

/** An application whose jobs take time from the clock. */
async function busyApp (t: Test, options: BackgroundTasksOptions = {}, server: FastifyServerOptions = {}) {
  const clock = new BusyClock()
  const app = Fastify(server)
  t.teardown(() => closeInTime(app, clock.calm))
  await app.register(backgroundTasks, { backend: memory({ clock }), ...options } as FastifyRegisterOptions<BackgroundTasksOptions>)
  return { app, clock }
}

/** Bodies that go on until the test lets them end, whatever their signal says. */
class Crowd {
  alive = 0
  most = 0
  readonly ends: Array<Deferred<void>> = []

  readonly work = async (): Promise<void> => {
    this.most = Math.max(this.most, ++this.alive)
    const end = deferred()
    this.ends.push(end)
    await end.promise
    this.alive--
  }
}

test('no more bodies are alive than the limit, and no fewer while jobs wait', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 3 })
  await app.ready()
  const crowd = new Crowd()
  for (let n = 0; n < 12; n++) await app.background.add(crowd.work)
  for (let ended = 0; ended < 12; ended++) {
    await clock.settle()
    t.equal(crowd.alive, Math.min(3, 12 - ended))
    crowd.ends[ended]?.resolve()
  }
  await app.background.onIdle()
  t.equal(crowd.most, 3)
})

test('handlers that ignore their signal past their timeout keep the limit too', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 3, abortGrace: 10 })
  await app.ready()
  const crowd = new Crowd()
  const jobs: JobHandle[] = []
  for (let n = 0; n < 12; n++) jobs.push(await app.background.add(crowd.work, { timeout: 50, attempts: 2, backoff: 0 }))
  // Overdue, leaked, given up: whatever they are called, they are alive.
  for (const ms of [50, 10, 440, 10_000]) {
    await clock.advance(ms)
    t.equal(crowd.alive, 3)
    t.equal(crowd.ends.length, 3)
  }
  const states = await Promise.all(jobs.map(async ({ id }) => (await record(app.background, id)).state))
  t.strictSame(states, [...Array<string>(3).fill('failed'), ...Array<string>(9).fill('waiting')])
  for (let n = 0; n < 12; n++) {
    crowd.ends[n]?.resolve()
    await clock.settle()
  }
  await app.background.onIdle()
  t.equal(crowd.most, 3)
  t.equal(crowd.ends.length, 12)
})

test('a slot held by a body that was given up comes back when it settles late', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 2 })
  await app.ready()
  const [stuck, crowd] = [new Crowd(), new Crowd()]
  await app.background.add(stuck.work, { timeout: 10 })
  await clock.advance(5_000)
  for (let n = 0; n < 4; n++) await app.background.add(crowd.work)
  await clock.settle()
  t.equal(crowd.alive, 1, 'one slot is left')
  stuck.ends[0]?.resolve()
  await clock.settle()
  t.equal(crowd.alive, 2, 'both are there again')
  for (let n = 0; n < 4; n++) {
    crowd.ends[n]?.resolve()
    await clock.settle()
  }
  t.equal(crowd.most, 2)
})

test('the limit holds over pauses and resumes', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 2 })
  await app.ready()
  const crowd = new Crowd()
  for (let n = 0; n < 6; n++) await app.background.add(crowd.work)
  await clock.settle()
  await app.background.pause()
  crowd.ends[0]?.resolve()
  await clock.settle()
  t.equal(crowd.alive, 1)
  await app.background.resume()
  await app.background.resume()
  await clock.settle()
  t.equal(crowd.alive, 2)
  for (let n = 1; n < 6; n++) {
    crowd.ends[n]?.resolve()
    await clock.settle()
  }
  t.equal(crowd.most, 2)
})

test('a pause while a body is given up does not give its slot away', async (t) => {
  const { app, clock } = await setup(t, { concurrency: 1 })
  await app.ready()
  const [stuck, crowd] = [new Crowd(), new Crowd()]
  await app.background.add(stuck.work, { timeout: 10 })
  await clock.settle()
  await app.background.pause()
  await clock.advance(100)
  await app.background.resume()
  await app.background.add(crowd.work)
  await clock.settle()
  t.equal(crowd.alive, 0)
  stuck.ends[0]?.resolve()
  await clock.settle()
  t.equal(crowd.alive, 1)
  crowd.ends[0]?.resolve()
  await clock.settle()
})

// Turns of the loop

test('10 000 light jobs do not run in one turn of the loop', async (t) => {
  const { app, clock } = await busyApp(t)
  const inTurn = new Map<number, number>()
  app.background.define('light', async () => {
    clock.spend(0.01)
    inTurn.set(turn(), (inTurn.get(turn()) ?? 0) + 1)
  })
  await app.ready()
  await app.background.addBulk(Array.from({ length: 10_000 }, () => ({ name: 'light' })))
  await until(() => [...inTurn.values()].reduce((sum, n) => sum + n, 0) === 10_000)
  // A slice of 1 ms holds 100 of them.
  t.ok(Math.max(...inTurn.values()) <= 120, `${Math.max(...inTurn.values())} jobs in one turn`)
  t.ok(inTurn.size >= 10_000 / 120, `${inTurn.size} turns`)
})

test('light jobs share a turn: a hop for each would cost more than they do', async (t) => {
  const { app, clock } = await busyApp(t)
  const turns = new Set<number>()
  await app.ready()
  for (let n = 0; n < 1_000; n++) await app.background.add(() => { clock.spend(0.01); turns.add(turn()) })
  await until(async () => (await app.background.counts()).default?.completed === 1_000)
  t.ok(turns.size <= 25, `${turns.size} turns`)
})

test('10 000 light jobs by the real clock let the loop go on', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks)
  const turns = new Set<number>()
  app.background.define('light', async () => { turns.add(turn()) })
  await app.ready()
  await app.background.addBulk(Array.from({ length: 10_000 }, () => ({ name: 'light' })))
  await app.background.onIdle()
  t.ok(turns.size >= 3, `${turns.size} turns`)
})

test('jobs of 5 ms never run twice in one turn', async (t) => {
  const { app, clock } = await busyApp(t, { concurrency: 4 })
  const turns: number[] = []
  await app.ready()
  for (let n = 0; n < 30; n++) await app.background.add(() => { clock.spend(5); turns.push(turn()) })
  await until(() => turns.length === 30)
  t.equal(new Set(turns).size, 30)
})

test('jobs of 5 ms that two callers wake never run twice in one turn', async (t) => {
  const { app, clock } = await busyApp(t, { concurrency: 4 })
  const turns: number[] = []
  const work = (): void => { clock.spend(5); turns.push(turn()) }
  app.get('/', async (_request, reply) => {
    void app.background.add(work)
    reply.background(work)
    return reply.send('ok')
  })
  for (let n = 0; n < 20; n++) await app.inject('/')
  await until(() => turns.length === 40)
  t.equal(new Set(turns).size, 40)
})

test('deliveries in one turn of the loop share its slice, also when the pool was idle between them', async (t) => {
  const clock = new BusyClock()
  const turns: number[] = []
  const run = async (): Promise<void> => { clock.spend(5); turns.push(turn()) }
  const pool = new Pool({ concurrency: 4, maxBlock: 50 }, new Turns(clock, true), { begin: () => ({ body: run() }), ended () {}, blocked () {} }, () => {})
  // Both callbacks belong to one turn; the first body has settled before the second delivery.
  await new Promise<void>((resolve) => {
    setImmediate(() => { pool.accept([{} as Attempt]) })
    setImmediate(() => { pool.accept([{} as Attempt]); resolve() })
  })
  await until(() => turns.length === 2)
  t.not(turns[0], turns[1])
})

test('bodies that do their work after their first wait never do it together in one turn', async (t) => {
  const { app, clock } = await busyApp(t, { concurrency: 10 })
  const turns: number[] = []
  await app.ready()
  for (let n = 0; n < 20; n++) await app.background.add(async () => { await Promise.resolve(); clock.spend(5); turns.push(turn()) })
  await until(() => turns.length === 20)
  t.equal(new Set(turns).size, 20)
})

test('bodies that wait for something else are all begun, each as soon as there is time', async (t) => {
  const { app } = await busyApp(t, { concurrency: 10 })
  const crowd = new Crowd()
  await app.ready()
  for (let n = 0; n < 12; n++) await app.background.add(crowd.work)
  await until(() => crowd.alive === 10)
  for (let n = 0; n < 12; n++) {
    await until(() => crowd.ends[n] !== undefined)
    crowd.ends[n]?.resolve()
  }
  await app.background.onIdle()
  t.equal(crowd.most, 10)
})

test('jobs of 5 ms whose delays end together never run twice in one turn', async (t) => {
  const { app, clock } = await busyApp(t, { concurrency: 4 })
  const turns: number[] = []
  await app.ready()
  for (let n = 0; n < 10; n++) await app.background.add(() => { clock.spend(5); turns.push(turn()) }, { delay: 100 })
  await clock.calm.advance(100)
  await until(() => turns.length === 10)
  t.equal(new Set(turns).size, 10)
})

test('a failing job retried without a wait does not hold the loop', async (t) => {
  const { app, clock } = await busyApp(t)
  const inTurn = new Map<number, number>()
  await app.ready()
  const job = await app.background.add(() => {
    clock.spend(0.1)
    inTurn.set(turn(), (inTurn.get(turn()) ?? 0) + 1)
    throw new Error('again')
  }, { attempts: 500, backoff: 0 })
  await until(async () => (await record(app.background, job.id)).state === 'failed')
  t.ok(Math.max(...inTurn.values()) <= 12, `${Math.max(...inTurn.values())} attempts in one turn`)
})

test('a cancel reaches a job that is active but waits for its turn of the loop', async (t) => {
  const { app, clock } = await busyApp(t, { concurrency: 2 })
  const ran: string[] = []
  const jobs: JobHandle[] = []
  let answer: unknown
  await app.ready()
  await app.background.pause()
  const first = (): void => {
    clock.spend(5)
    ran.push('first')
    void app.background.cancel(jobs[1]?.id ?? '').then((given) => { answer = given })
  }
  jobs.push(await app.background.add(first), await app.background.add(() => { ran.push('second') }))
  await app.background.resume()
  await app.background.onIdle()
  t.ok(answer === 'cancelled' || answer === 'cancelling', String(answer))
  t.match(await record(app.background, jobs[1]?.id ?? ''), { state: 'cancelled', reason: 'user' })
  t.strictSame(ran, ['first'])
})

// Who held the loop

test('a job that holds the loop is named: in the log, in health, on the channel', async (t) => {
  const lines: Array<Record<string, unknown>> = []
  const server = { logger: { level: 'warn', stream: { write (line: string) { lines.push(JSON.parse(line) as Record<string, unknown>) } } } }
  const { app, clock } = await busyApp(t, { maxBlock: 20 }, server)
  const heard: unknown[] = []
  const listen = (message: unknown): void => { heard.push(message) }
  subscribe('fastify-background-tasks:blocked', listen)
  t.teardown(() => unsubscribe('fastify-background-tasks:blocked', listen))
  app.background.define('at once', () => { clock.spend(60) })
  app.background.define('a little later', async () => { await Promise.resolve(); await Promise.resolve(); clock.spend(60) })
  app.background.define('and waits', async () => { clock.spend(60); await new Promise((resolve) => { setImmediate(resolve) }) })
  app.background.define('short', async () => { clock.spend(15) })
  await app.ready()
  const guilty = []
  for (const name of ['at once', 'short', 'a little later', 'short', 'short', 'and waits', 'short']) {
    const { id } = await app.background.add(name)
    if (name !== 'short') guilty.push({ task: name, jobId: id, queue: 'default', attempt: 1, blockedMs: 60 })
  }
  await app.background.onIdle()
  const blocked = lines.filter(({ msg }) => msg === 'job held the event loop')
  t.match(blocked, guilty)
  t.equal(blocked.length, 3)
  t.match(heard, guilty)
  t.equal(heard.length, 3)
  t.equal((await app.inject('/health/jobs')).json().incidents.blocked, 3)
})

test('what a request holds, and what happens while a job waits, is not blamed on a job', async (t) => {
  const { app, clock } = await busyApp(t, { maxBlock: 20 })
  const crowd = new Crowd()
  app.get('/', async (_request, reply) => { clock.spend(100); reply.background(() => {}); return 'ok' })
  await app.ready()
  await app.background.add(crowd.work)
  await until(() => crowd.alive === 1)
  await app.inject('/')
  clock.spend(100)
  crowd.ends[0]?.resolve()
  await app.background.add(() => {})
  await app.background.onIdle()
  t.equal((await app.inject('/health/jobs')).json().incidents.blocked, 0)
})

test('a task that holds the loop again and again gets a line a second, with a count', async (t) => {
  const lines: Array<Record<string, unknown>> = []
  const server = { logger: { level: 'warn', stream: { write (line: string) { lines.push(JSON.parse(line) as Record<string, unknown>) } } } }
  const { app, clock } = await busyApp(t, {}, server)
  app.background.define('greedy', () => { clock.spend(51) })
  await app.ready()
  await app.background.addBulk(Array.from({ length: 10 }, () => ({ name: 'greedy' })))
  await app.background.onIdle()
  await clock.calm.advance(1_000)
  t.match(lines.filter(({ msg }) => msg === 'job held the event loop'), [{ count: 1 }, { count: 9 }])
})

// Trouble

test('a logger that throws costs neither the slot nor the verdict', async (t) => {
  const clock = new TestClock()
  let broken = false
  const write = (): void => { if (broken) throw new Error('the disk is full') }
  const logger = { level: 'info', info: write, warn: write, error: write, fatal: write, debug: write, trace: write, silent: write, child: () => logger }
  const app = Fastify({ loggerInstance: logger as unknown as FastifyBaseLogger })
  const lost: unknown[] = []
  const onLost = (error: unknown): void => { lost.push(error) }
  process.on('unhandledRejection', onLost)
  t.teardown(async () => {
    broken = false
    await closeInTime(app, clock)
    process.off('unhandledRejection', onLost)
  })
  await app.register(backgroundTasks, { backend: memory({ clock }), concurrency: 1 })
  await app.ready()
  broken = true
  const jobs = [await app.background.add(() => 1), await app.background.add(() => { throw new Error('boom') }), await app.background.add(() => 3)]
  await clock.settle()
  broken = false
  const states = await Promise.all(jobs.map(async ({ id }) => (await app.background.get(id))?.state))
  t.strictSame(states, ['completed', 'failed', 'completed'])
  t.strictSame(lost, [])
})

test('a task that is not defined here is given back, and keeps no slot', async (t) => {
  const clock = new TestClock()
  const backend = memory({ clock })
  const { app, said } = await setup(t, { backend, concurrency: 1 })
  app.background.define('known', async () => 'done')
  await app.ready()
  const known = await app.background.add('known')
  await clock.settle()
  t.equal((await record(app.background, known.id)).state, 'completed')
  // As another process would leave it in a store that both share.
  const left = new MadeJob('unknown', null, 4, TASK_DEFAULTS, null, undefined)
  left.admit(clock.now())
  const foreign = left.id
  await backend.enqueue([left], false)
  const next = await app.background.add('known')
  await clock.settle()
  t.match(await record(app.background, foreign), { state: 'delayed', attemptsMade: 0 })
  t.match(said('job parked: its task is not defined here'), [{ jobId: foreign, task: 'unknown', count: 1, retryInMs: 60_000 }])
  t.equal((await record(app.background, next.id)).state, 'completed')
  await clock.advance(60_000)
  t.match(await record(app.background, foreign), { state: 'delayed', attemptsMade: 0 })
})

/** The subpath `metrics`, with the real prom-client. */
import { spawnSync } from 'node:child_process'
import { hasSubscribers } from 'node:diagnostics_channel'
import Fastify from 'fastify'
import fastifyMetrics from 'fastify-metrics'
import promClient, { Registry } from 'prom-client'
import t from 'tap'
import { backgroundTasks, memory, UnrecoverableError } from '../lib/index.ts'
import { metrics } from '../lib/metrics/index.ts'
import { sqlite } from '../lib/backends/sqlite/index.ts'
import { BusyClock, TestClock } from './support/clock.ts'
import { DurableBackend } from './support/durable.ts'
import { deferred, setup, type Harness, type HarnessOptions } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'
import { inPath } from './support/servers/find.ts'
import { freshFile, noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

type TestLike = Parameters<typeof setup>[0]

interface Measured extends Harness {
  register: Registry
  /** The value of a series, as it stands in the scrape; nothing where there is none. */
  value: (series: string) => Promise<number | undefined>
}

async function measured (t: TestLike, options: HarnessOptions = {}, given: { namePrefix?: string } = {}): Promise<Measured> {
  const register = new Registry()
  const harness = await setup(t, options)
  await harness.app.register(metrics, { client: promClient, register, ...given })
  harness.app.background.define('task', async () => 'done')
  harness.app.background.define('bad', { attempts: 2, backoff: 1_000 }, () => { throw new TypeError('no') })
  await harness.app.ready()
  const value = async (series: string) => {
    const line = (await register.metrics()).split('\n').find((text) => text.startsWith(`${series} `))
    return line === undefined ? undefined : Number(line.slice(series.length))
  }
  return { ...harness, register, value, get background () { return harness.app.background } }
}

t.test('jobs are counted by task and by how they ended, attempts with their durations and waits', async (t) => {
  const { background, clock, value } = await measured(t)
  const end = deferred()
  await background.pause()
  await background.add(function slow () { return end.promise })
  await clock.advance(250)
  await background.resume()
  await clock.advance(2_000)
  end.resolve()
  await background.add('bad')
  await clock.advance(1_500)
  await background.cancel((await background.add('task', null, { delay: 1_000 })).id)
  t.equal(await value('background_jobs_added_total{queue="default",task="bad"}'), 1)
  t.equal(await value('background_jobs_ended_total{queue="default",task="slow",outcome="completed"}'), 1)
  t.equal(await value('background_jobs_ended_total{queue="default",task="bad",outcome="failed"}'), 1)
  t.equal(await value('background_jobs_ended_total{queue="default",task="task",outcome="cancelled"}'), 1)
  t.equal(await value('background_dead_letters_total{queue="default",task="bad",failure="exhausted"}'), 1)
  t.equal(await value('background_job_wait_seconds_sum{queue="default",task="slow"}'), 0.25)
  t.equal(await value('background_attempt_duration_seconds_sum{queue="default",task="slow",outcome="completed"}'), 2)
  t.equal(await value('background_attempt_duration_seconds_count{queue="default",task="bad",outcome="retry"}'), 1)
  t.equal(await value('background_attempt_duration_seconds_count{queue="default",task="bad",outcome="dead"}'), 1)
  t.equal(await value('background_jobs{queue="default",task="bad",state="failed"}'), 1)
})

t.test('jobs of schedules and of flows are counted as added too', async (t) => {
  const { background, clock, value } = await measured(t)
  await background.schedule('often', { every: 1_000, limit: 2 }, 'task')
  await background.flow({ name: 'task', children: [{ name: 'task' }] })
  await clock.advance(3_000)
  t.equal(await value('background_jobs_added_total{queue="default",task="task"}'), 4)
  t.equal(await value('background_jobs_ended_total{queue="default",task="task",outcome="completed"}'), 4)
})

t.test('what went wrong is counted: replays, dropped dead letters, refusals', async (t) => {
  const { background, clock, value } = await measured(t, { maxQueueSize: 1, retention: { failed: { count: 1 } } })
  for (let n = 0; n < 2; n++) {
    await background.add('bad')
    await clock.advance(1_000)
  }
  await background.deadLetters.retry({ task: 'bad' })
  await background.pause()
  await background.add('task')
  await background.add('task').catch(() => {})
  t.equal(await value('background_dead_letters_dropped_total{queue="default",task="bad"}'), 1)
  t.equal(await value('background_dead_letters_replayed_total{queue="default",task="bad"}'), 1)
  t.equal(await value('background_jobs_refused_total{queue="default"}'), 1)
})

t.test('the time that a task held the event loop is counted', async (t) => {
  const clock = new BusyClock()
  const { background, value } = await measured(t, { backend: memory({ clock }) })
  await background.add(function greedy () { clock.spend(200) })
  await background.onIdle()
  t.equal(await value('background_loop_blocked_seconds_total{queue="default",task="greedy"}'), 0.2)
})

t.test('gauges are read at the scrape, and what is gone is 0', async (t) => {
  const { background, clock, value } = await measured(t, { abortGrace: 10, maxQueueSize: 50, maxQueueBytes: 1_000, queues: { mail: { concurrency: 3 } } })
  const end = deferred()
  await background.pause('mail')
  for (let n = 0; n < 3; n++) await background.add('task', { n }, { queue: 'mail' })
  await background.add(function deaf () { return end.promise }, { timeout: 100 })
  await clock.advance(500)
  t.equal(await value('background_jobs{queue="mail",task="task",state="waiting"}'), 3)
  t.equal(await value('background_oldest_waiting_seconds{queue="mail"}'), 0.5)
  t.equal(await value('background_queue_jobs{queue="mail"}'), 3)
  t.equal(await value('background_queue_bytes{queue="mail"}'), 21)
  t.equal(await value('background_queue_limit_jobs{queue="mail"}'), 50)
  t.equal(await value('background_queue_limit_bytes{queue="mail"}'), 1_000)
  t.equal(await value('background_slots{queue="mail"}'), 3)
  t.equal(await value('background_queue_paused{queue="mail"}'), 1)
  t.equal(await value('background_slots_taken{queue="default"}'), 1)
  t.equal(await value('background_leaked_bodies{queue="default",task="deaf"}'), 1)
  t.equal(await value('background_store_reachable'), 1)
  end.resolve()
  await background.resume()
  await clock.settle()
  t.equal(await value('background_jobs{queue="mail",task="task",state="waiting"}'), 0)
  t.equal(await value('background_leaked_bodies{queue="default",task="deaf"}'), 0)
})

t.test('what a store holds that is away is not known; of one that only takes nothing it is', async (t) => {
  const store = new DurableBackend({ clock: new TestClock() })
  const { background, value } = await measured(t, { backend: store })
  await background.pause()
  await background.add('task')
  t.equal(await value('background_jobs{queue="default",task="",state="waiting"}'), 1)
  const away = store.failure = new Error('away')
  t.equal(await value('background_jobs{queue="default",task="",state="waiting"}'), 1)
  t.equal(await value('background_store_reachable'), 0)
  store.counts = async () => { throw away }
  t.match(await value('background_jobs{queue="default",task="",state="waiting"}'), NaN)
  t.match(await value('background_oldest_waiting_seconds{queue="default"}'), NaN)
  t.equal(await value('background_store_reachable'), 0)
  t.equal(await value('background_queue_jobs{queue="default"}'), 1, 'this process knows it')
  store.counts = async () => DurableBackend.prototype.counts.call(store)
  store.failure = undefined
  t.equal(await value('background_jobs{queue="default",task="",state="waiting"}'), 1)
  t.equal(await value('background_oldest_waiting_seconds{queue="default"}'), 0)
})

t.test('the counters of a task begin at 0', async (t) => {
  const { value } = await measured(t)
  t.equal(await value('background_dead_letters_total{queue="default",task="bad",failure="exhausted"}'), 0)
  t.equal(await value('background_jobs_ended_total{queue="default",task="task",outcome="failed"}'), 0)
})

t.test('labels are bounded: no ids, and names of functions without end become "other"', async (t) => {
  const { background, clock, register } = await measured(t)
  const ids: string[] = []
  for (let n = 0; n < 500; n++) ids.push((await background.add(Object.defineProperty(() => {}, 'name', { value: `made-${n}` }))).id)
  await clock.settle()
  await background.onIdle()
  const text = await register.metrics()
  const tasks = new Set([...text.matchAll(/task="([^"]*)"/g)].map(([, task]) => task))
  t.equal(tasks.size, 201)
  t.ok(tasks.has('other'))
  t.notOk(ids.some((id) => text.includes(id)))
  t.notMatch(text, /req-\d/)
})

t.test('queues beyond the bound are summed up, and their ages are not', async (t) => {
  const queues = Object.fromEntries(Array.from({ length: 210 }, (_, n) => [`queue-${n}`, {}]))
  const { background, clock, value } = await measured(t, { queues })
  await background.pause()
  t.equal(await value('background_queue_jobs{queue="other"}'), 0, 'the first to be told of have names')
  for (const queue of ['queue-205', 'queue-206']) await background.add('task', null, { queue })
  await clock.advance(2_000)
  t.equal(await value('background_queue_jobs{queue="other"}'), 2)
  t.equal(await value('background_oldest_waiting_seconds{queue="other"}'), 2)
  t.equal(await value('background_queue_paused{queue="other"}'), 1)
})

t.test('applications of one process are counted apart, and a child sees what its parent does', async (t) => {
  const one = await measured(t)
  const other = await setup(t)
  const register = new Registry()
  await other.app.register(async (child) => { await child.register(metrics, { client: promClient, register }) })
  await other.app.ready()
  await (await one.background.add('task')).finished()
  await (await other.background.add(function theirs () {})).finished()
  t.notMatch(await one.register.metrics(), /theirs/)
  t.match(await register.metrics(), /background_jobs_added_total\{queue="default",task="theirs"\} 1/)
  t.notMatch(await register.metrics(), /task="task"/)
})

t.test('after the close nobody listens', async (t) => {
  const { app } = await measured(t)
  t.ok(hasSubscribers('fastify-background-tasks:ended'))
  await app.close()
  t.notOk(hasSubscribers('fastify-background-tasks:ended'))
})

t.test('without a client it takes that of fastify-metrics, and its route tells', async (t) => {
  const app = Fastify()
  t.teardown(async () => {
    await app.close()
    promClient.register.clear()
  })
  await app.register(fastifyMetrics.default, { endpoint: '/metrics', defaultMetrics: { enabled: false } })
  await app.register(backgroundTasks)
  await app.register(metrics)
  await app.ready()
  await (await app.background.add(function told () {})).finished()
  const { body } = await app.inject('/metrics')
  t.match(body, /background_jobs_ended_total\{queue="default",task="told",outcome="completed"\} 1/)
  t.match(body, /background_jobs\{queue="default",task="told",state="completed"\} 1/)
})

t.test('a wrong option is refused', async (t) => {
  const wrong: Array<[object, string]> = [
    [{}, 'FST_BG_BAD_OPTION'],
    [{ client: { Counter: promClient.Counter } }, 'FST_BG_BAD_OPTION'],
    [{ client: promClient, namePrefix: '1-' }, 'FST_BG_BAD_OPTION'],
    [{ client: promClient, buckets: [2, 1] }, 'FST_BG_BAD_OPTION'],
    [{ client: promClient, register: 5 }, 'FST_BG_BAD_OPTION'],
    [{ client: promClient, registry: new Registry() }, 'FST_BG_UNKNOWN_OPTION']
  ]
  for (const [options, code] of wrong) {
    const { app } = await setup(t)
    app.register(metrics, options)
    await t.rejects(async () => { await app.ready() }, { code })
  }
})

t.test('a metric that throws is logged, and the job goes on', async (t) => {
  class Broken {
    inc (_labels: object, value: number): void { if (value > 0) throw new Error('no') }
    set (): void {}
    observe (): void { throw new Error('no') }
  }
  const { app, background, lines } = await setup(t)
  await app.register(metrics, { client: { Counter: Broken, Gauge: Broken, Histogram: Broken } })
  await app.ready()
  await (await background.add(() => {})).finished()
  t.ok(lines.some(({ msg }) => msg === 'a metric could not be counted'))
})

t.test('a store of several backends is counted by task', { skip: noSqlite }, async (t) => {
  const register = new Registry()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks, { backend: sqlite({ path: freshFile(t) }), queues: { mail: {} } })
  await app.register(metrics, { client: promClient, register })
  app.background.define('kept', { queue: 'mail', attempts: 1 }, () => { throw new UnrecoverableError('no') })
  await app.ready()
  const job = await app.background.add('kept')
  await app.background.add(function volatile () {})
  await job.finished().catch(() => {})
  await app.background.onIdle()
  const text = await register.metrics()
  t.match(text, /background_jobs\{queue="mail",task="kept",state="failed"\} 1/)
  t.match(text, /background_jobs\{queue="default",task="volatile",state="completed"\} 1/)
})

const promtool = inPath('promtool')
if (promtool === undefined && (process.env.BG_REQUIRE ?? '').includes('promtool')) throw new Error('promtool is required and not here: install prometheus')
if (promtool === undefined) console.error('SKIPPED: no promtool on this machine: apt-get install prometheus')

t.test('promtool finds nothing to complain about', { skip: promtool === undefined && 'no promtool on this machine' }, async (t) => {
  const { background, clock, register } = await measured(t)
  await background.add('task')
  await background.add('bad')
  await clock.advance(1_000)
  const { status, stdout, stderr } = spawnSync(promtool as string, ['check', 'metrics'], { input: await register.metrics(), encoding: 'utf8' })
  t.equal(stdout + stderr, '')
  t.equal(status, 0)
})

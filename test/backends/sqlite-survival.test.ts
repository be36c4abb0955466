/** What outlives a process, and what becomes of its jobs. A process that is gone is one whose row says so. */
import t from 'tap'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import type { QueueSettings } from '../../lib/backend.ts'
import { TASK_DEFAULTS } from '../../lib/job-options.ts'
import { BusyClock, TestClock } from '../support/clock.ts'
import { Bench, boom, completed, dead, retryIn } from '../support/contract.ts'
import { watchLeaks } from '../support/leaks.ts'
import { freshFile, noSqlite, openRaw, SQLITE_WARNING } from '../support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })
const here = { skip: noSqlite }
type Teardown = { teardown (run: () => unknown): unknown }

/** A process on the file. */
async function enter (t: Teardown, path: string, clock = new TestClock()): Promise<Bench> {
  const backend = sqlite({ path, clock })
  t.teardown(() => backend.close())
  const bench = new Bench(backend, clock, 0)
  await bench.start()
  await bench.rest()
  return bench
}

/** As if the machine had started again since: whoever is entered is gone for sure. */
function killAll (path: string): void {
  const raw = openRaw(path)
  raw.exec("UPDATE background_owners SET boot = 'an earlier one'")
  raw.close()
}

t.test('jobs in every state are kept over a restart', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 1)
  const done = await first.end({ kind: 'completed', result: { sum: 2 } }, { payload: { a: 1 }, requestId: 'req-1' })
  const failed = await first.end(dead)
  const retried = await first.end(retryIn(5_000), { attempts: 7 })
  await first.settle(await (async () => { await first.add({ name: 'told' }); const attempt = await first.take(); await first.backend.note(attempt, { progress: { at: 5 } }); return attempt })(), retryIn(60_000))
  first.backend.want('default', 0)
  const [low, high, later] = await first.enqueue({ name: 'low', priority: -1 }, { name: 'high', priority: 1 }, { name: 'later', delay: 3_000 }) as [string, string, string]
  const before = await first.backend.list({ limit: 100 })
  await first.backend.close()
  const second = await enter(t, path, first.clock)
  t.strictSame(await second.backend.list({ limit: 100 }), before)
  t.match(await second.read(done), { state: 'completed', result: { sum: 2 }, payload: { a: 1 }, requestId: 'req-1' })
  t.match(await second.read(retried), { state: 'delayed', delayReason: 'retry', attempts: 7, history: [{ attempt: 1, error: boom }] })
  t.match((await second.backend.counts())['default'], { waiting: 2, delayed: 3, retrying: 2, completed: 1, failed: 1 })
  t.strictSame({ ...second.backend.load('default') }, { jobs: 3, bytes: 12 })
  t.equal(await second.backend.retry([failed], 0), 1)
  second.backend.want('default', 100)
  await second.rest()
  t.strictSame(second.names(), ['high', 'task', 'low'])
  await second.pass(3_000)
  t.strictSame(await second.states([low, high, later]), ['active', 'active', 'active'])
  await second.pass(2_000)
  t.equal((await second.read(retried)).attemptsMade, 2)
})

t.test('at a shutdown in good order attempts are given back uncharged, and staged jobs start elsewhere', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 1)
  const running = await first.add()
  await first.take()
  const [staged, later] = await first.enqueue({ staged: true }, { staged: true, delay: 500 }) as [string, string]
  await first.backend.close()
  const second = await enter(t, path, first.clock)
  t.strictSame(await second.states([running, staged, later]), ['waiting', 'waiting', 'delayed'])
  t.match(await second.read(running), { attemptsMade: 0 })
  t.notOk('history' in await second.read(running))
})

t.test('of a process that is gone, attempts are charged and told, jobs start again at once, staged ones run', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 2)
  const [again, last] = await first.enqueue({ attempts: 2 }, { attempts: 1 }) as [string, string]
  await first.take()
  await first.take()
  const staged = await first.add({ staged: true })
  killAll(path)
  const second = await enter(t, path, first.clock)
  t.strictSame(await second.states([again, last, staged]), ['waiting', 'failed', 'waiting'])
  t.match(await second.read(again), { attemptsMade: 1, history: [{ attempt: 1, error: { code: 'FST_BG_STALLED' } }] })
  t.match(await second.read(last), { failure: 'stalled', attemptsMade: 1, error: { code: 'FST_BG_STALLED' } })
  t.strictSame(second.incidents.map(({ kind }) => kind), ['recovered', 'recovered', 'stalled'])
  t.match(second.incidents[0], { job: { id: again }, attempt: 1 })
  second.backend.want('default', 5)
  t.equal((await second.take()).number, 2)
})

t.test('a cancel that a process did not live to see is not forgotten', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 1)
  const id = await first.add()
  await first.take()
  t.equal(await first.backend.cancel(id, 'user', 'no longer wanted'), 'cancelling')
  killAll(path)
  const second = await enter(t, path, first.clock)
  t.match(await second.read(id), { state: 'cancelled', reason: 'user' })
})

t.test('a stale owner can neither complete nor fail nor release nor tell', here, async (t) => {
  const path = freshFile(t)
  const stale = await enter(t, path)
  stale.backend.want('default', 4)
  const ids = await stale.enqueue({}, {}, {}, {})
  const attempts = [await stale.take(), await stale.take(), await stale.take(), await stale.take()] as const
  killAll(path)
  const owner = await enter(t, path, stale.clock)
  owner.backend.want('default', 4)
  await owner.rest()
  t.equal(owner.delivered.length, 4)
  await stale.settle(attempts[0], completed)
  await stale.settle(attempts[1], dead)
  await stale.settle(attempts[2], { kind: 'released', delay: 0 })
  await stale.backend.note(attempts[3], { progress: 'stale' })
  t.strictSame(await owner.states(ids), ['active', 'active', 'active', 'active'])
  t.equal((await owner.read(ids[3] as string)).progress, null)
  for (const attempt of owner.delivered) await owner.settle(attempt, { kind: 'completed', result: 'owner' })
  t.strictSame(await stale.states(ids), ids.map(() => 'completed'))
})

t.test('a process that was taken for dead stops what it ran, and works on under a new number', here, async (t) => {
  const path = freshFile(t)
  const bench = await enter(t, path)
  bench.backend.want('default', 1)
  await bench.add()
  await bench.take()
  const other = await enter(t, path, new TestClock())
  killAll(path)
  await other.clock.advance(5_000)
  await bench.clock.advance(5_000)
  t.match(bench.aborts, [{ kind: 'shutdown', detail: /did not answer for so long/ }])
  other.backend.want('default', 1)
  await other.clock.advance(200)
  t.equal((await other.take()).number, 2)
  await bench.settle(bench.delivered[0] as never, completed)
  const next = await bench.add()
  t.equal((await bench.take()).job.id, next)
})

t.test('a process that was taken for dead, and does not know it yet, claims and stages under a new number', here, async (t) => {
  const path = freshFile(t)
  const bench = await enter(t, path)
  const other = await enter(t, path, new TestClock())
  killAll(path)
  await other.clock.advance(5_000)
  bench.backend.want('default', 1)
  const [id, staged] = await bench.enqueue({}, { staged: true }) as [string, string]
  await bench.take()
  killAll(path)
  await bench.backend.enqueue([], false)
  await other.clock.advance(5_000)
  t.strictSame(await other.states([id, staged]), ['waiting', 'waiting'], 'nothing is left with an owner that nobody knows')
})

t.test('a process without a beat loses its jobs after a lease; one that beats keeps them', here, async (t) => {
  const path = freshFile(t)
  const silent = await enter(t, path)
  silent.backend.want('default', 1)
  const [id] = await silent.enqueue({}, {}) as [string]
  await silent.take()
  const other = await enter(t, path, new TestClock())
  for (let n = 0; n < 12; n++) {
    await silent.clock.advance(5_000)
    await other.clock.advance(5_000)
  }
  t.equal((await other.read(id)).attemptsMade, 1)
  t.equal((await other.read(id)).state, 'active')
  await other.clock.advance(29_000)
  t.equal((await other.read(id)).state, 'active', 'not before the lease is over')
  await other.clock.advance(12_000)
  t.match(await other.read(id), { state: 'waiting', history: [{ attempt: 1 }] })
})

t.test('a wall clock that jumps neither ends a lease nor moves a delay', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 1)
  const id = await first.add()
  await first.take()
  first.clock.jump(7_200_000)
  const second = await enter(t, path, first.clock)
  const third = new TestClock()
  third.jump(-7_200_000)
  const late = await enter(t, path, third)
  await first.clock.advance(20_000)
  await third.advance(20_000)
  t.equal((await late.read(id)).state, 'active')
  t.equal((await second.read(id)).attemptsMade, 1)
})

t.test('processes on one file share the work, hear of its end and cancel each other\'s attempts', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const [producer, worker] = [await enter(t, path, clock), await enter(t, path, clock)]
  worker.backend.want('default', 2)
  const [id, other] = await producer.enqueue({}, {}) as [string, string]
  t.equal(worker.delivered.length, 0)
  await clock.advance(100)
  const attempt = await worker.take()
  const second = await worker.take()
  t.equal(await producer.backend.cancel(second.job.id, 'user', 'from afar'), 'cancelling')
  await clock.advance(100)
  t.match(worker.aborts, [{ kind: 'cancel', detail: 'from afar' }])
  t.equal(worker.aborts[0]?.attempt, second)
  await worker.settle(attempt, completed)
  await worker.settle(second, { kind: 'cancelled', reason: 'user' })
  await clock.advance(100)
  t.strictSame(producer.changes.filter(({ state }) => state !== 'waiting'), [{ id, state: 'completed' }, { id: other, state: 'cancelled' }])
  t.strictSame({ ...producer.backend.load('default') }, { jobs: 0, bytes: 0 })
})

t.test('a delay that ends is seen by whoever is left', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const [producer, worker] = [await enter(t, path, clock), await enter(t, path, clock)]
  worker.backend.want('default', 1)
  await producer.add({ delay: 1_000 })
  await clock.advance(200)
  await producer.backend.close()
  await clock.advance(700)
  t.equal(worker.delivered.length, 0)
  await clock.advance(200)
  t.equal(worker.delivered.length, 1)
})

t.test('a rate limit holds over processes and restarts', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const queues = new Map<string, QueueSettings>([['default', { limiter: { max: 2, duration: 1_000 } }]])
  const retention = { completed: { count: 10, age: 1e6 }, failed: { count: 10, age: 1e6 } }
  const limited = async (): Promise<Bench> => {
    const backend = sqlite({ path, clock })
    t.teardown(() => backend.close())
    const bench = new Bench(backend, clock, 0)
    bench.onDeliver = (attempt) => { void Promise.resolve(backend.note(attempt, { started: true })).then(() => backend.settle(attempt, completed)) }
    await backend.start(bench, { queues, retention, maxHold: 300_000 })
    backend.want('default', 5)
    return bench
  }
  const [first, second] = [await limited(), await limited()]
  await first.enqueue({}, {}, {}, {}, {})
  await clock.advance(300)
  t.equal(first.delivered.length + second.delivered.length, 2)
  t.match((await second.backend.counts())['default'], { waiting: 0, delayed: 3, limited: 3 })
  t.match(await first.backend.list({ states: ['delayed'], limit: 1 }), [{ state: 'delayed', delayReason: 'rate-limit', retryAt: String }])
  t.strictSame(await first.backend.list({ states: ['waiting'], limit: 5 }), [])
  await first.backend.close()
  await second.backend.close()
  const third = await limited()
  await clock.advance(500)
  t.equal(third.delivered.length, 0)
  await clock.advance(300)
  t.equal(third.delivered.length, 2)
  await clock.advance(1_000)
  t.equal(third.delivered.length, 3)
})

t.test('what a job has of its own is kept; the rest, and functions, are its task\'s of now', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const usual = { ...TASK_DEFAULTS, timeout: 5_000, retryIf: () => true }
  const enterWith = async (policy: typeof TASK_DEFAULTS): Promise<Bench> => {
    const backend = sqlite({ path, clock })
    t.teardown(() => backend.close())
    const bench = new Bench(backend, clock, 0)
    await backend.start(bench, { queues: new Map([['default', { limiter: undefined }]]), retention: { completed: { count: 1, age: 1 }, failed: { count: 1, age: 1 } }, maxHold: 300_000, policyOf: () => policy })
    return bench
  }
  const first = await enterWith(usual)
  const backoff = { type: 'fixed', delay: 7, maxDelay: 7, jitter: 0 } as const
  await first.backend.enqueue([first.job(usual), first.job({ ...usual, attempts: 9, backoff, priority: 3 })], false)
  await first.backend.close()
  const retryIf = (): boolean => false
  const second = await enterWith({ ...usual, timeout: 6_000, retryIf })
  second.backend.want('default', 2)
  t.match((await second.take()).job.policy, { attempts: 9, backoff, timeout: 6_000, priority: 3, retryIf })
  t.match((await second.take()).job.policy, { attempts: 3, timeout: 6_000, retryIf })
})

t.test('a job that finds a free slot starts as it comes, by one write', here, async (t) => {
  const path = freshFile(t)
  const bench = await enter(t, path)
  bench.backend.want('default', 1)
  const raw = openRaw(path)
  const written = raw.prepare('SELECT state, fresh, attempts_made, owner, started_at, expires_at FROM background_jobs')
  await bench.add({ ttl: 1_000 })
  t.match(written.all(), [{ state: 'active', fresh: 0, attempts_made: 1, owner: 1, started_at: Number, expires_at: null }])
  t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
  t.strictSame(bench.changes.map(({ state }) => state), ['waiting', 'active'])
  await bench.settle(await bench.take(), completed)
  const staged = await bench.add({ staged: true, ttl: 1_000 })
  await bench.backend.release([staged])
  t.match(written.all().at(-1), { state: 'active', fresh: 0, attempts_made: 1, owner: 1, started_at: Number, expires_at: null })
  t.equal((await bench.take()).job.id, staged)
  raw.close()
})

t.test('before it go those that another process has added, which was not heard of yet', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const [producer, worker] = [await enter(t, path, clock), await enter(t, path, clock)]
  worker.backend.want('default', 1)
  await producer.add({ name: 'theirs' })
  await worker.add({ name: 'ours' })
  await worker.rest()
  t.strictSame(worker.names(), ['theirs'])
})

t.test('before it go those whose delay has just ended, and those of a higher priority that come with it', here, async (t) => {
  const clock = new BusyClock()
  const bench = new Bench(sqlite({ path: freshFile(t), clock }), clock.calm, 0)
  t.teardown(() => bench.backend.close())
  await bench.start()
  bench.backend.want('default', 1)
  await bench.add({ name: 'delayed', delay: 500 })
  clock.spend(600)
  await bench.add({ name: 'now' })
  await bench.rest()
  t.strictSame(bench.names(), ['delayed'])
  await bench.settle(await bench.take(), completed)
  await bench.rest()
  await bench.settle(await bench.take(), completed)
  await bench.enqueue({ name: 'low' }, { name: 'high', priority: 1 })
  await bench.rest()
  t.strictSame(bench.names(), ['delayed', 'now', 'high'])
  await bench.settle(await bench.take(), completed)
  await bench.rest()
  const staged = await bench.enqueue({ name: 'staged', staged: true }, { name: 'urgent', staged: true, priority: 1 })
  await bench.settle(await bench.take(), completed)
  await Promise.all(staged.map(async (id) => bench.backend.release([id])))
  await bench.rest()
  t.strictSame(bench.names(), ['delayed', 'now', 'high', 'low', 'urgent'])
})

t.test('what is added in the moment of the close is kept, and does not start here', here, async (t) => {
  const path = freshFile(t)
  const first = await enter(t, path)
  first.backend.want('default', 2)
  const job = first.job()
  const added = Promise.resolve(first.backend.enqueue([job], false))
  await first.backend.close()
  await added
  await first.rest()
  t.strictSame(first.delivered, [])
  const second = await enter(t, path, first.clock)
  t.match(await second.read(job.id), { state: 'waiting', attemptsMade: 0 })
})

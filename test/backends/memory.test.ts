import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { test } from 'tap'
import type { Awaitable } from '../../lib/backend.ts'
import { memory } from '../../lib/index.ts'
import type { JobRecord } from '../../lib/job.ts'
import { TestClock } from '../support/clock.ts'
import { Bench, backendContract, completed, dead, releasedFor, retryIn } from '../support/contract.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

backendContract('memory', { create: (clock) => memory({ clock }) })

async function start (): Promise<Bench> {
  const clock = new TestClock()
  const bench = new Bench(memory({ clock }), clock, 0)
  await bench.start()
  return bench
}

/** What the backend answers, which is known to be no promise. */
function now<T> (answer: Awaitable<T>): T {
  if (answer instanceof Promise) throw new Error('memory answers at once')
  return answer
}

test('memory answers at once', async (t) => {
  const { backend } = await start()
  t.equal(backend.durable, false)
  for (const answer of [backend.counts(), backend.list({ limit: 1 }), backend.get('x'), backend.retry([], 0), backend.remove([])]) {
    t.notOk(answer instanceof Promise)
  }
})

test('the times of a job are the same at each reading, however finely two clocks differ; a wall clock that is set is followed', async (t) => {
  let apart = 0
  const clock = new TestClock()
  const wall = clock.now
  Object.assign(clock, { now: () => wall() + apart })
  const bench = new Bench(memory({ clock }), clock, 0)
  await bench.start()
  bench.backend.want('default', 1)
  const id = await bench.end(completed)
  const first = now(bench.backend.get(id))
  for (apart of [0.4, 1, -1, 20]) t.strictSame(now(bench.backend.get(id)), first)
  apart = 3_600_000
  t.equal(Date.parse(now(bench.backend.get(id))?.finishedAt as string), Date.parse(first?.finishedAt as string) + apart)
})

test('one memory() serves one application', async (t) => {
  const { backend } = await start()
  const sink = { deliver () {}, abort () {}, report () {} }
  t.throws(() => backend.start(sink, { queues: new Map(), retention: { completed: { count: 1, age: 1 }, failed: { count: 1, age: 1 } }, maxHold: 1_000 }),
    /belongs to another application/)
})

test('before start and after close nothing breaks that need not', async (t) => {
  const unused = memory()
  t.doesNotThrow(() => unused.close())
  t.throws(() => unused.get('x'), /not started/)
  const { backend } = await start()
  backend.close()
  t.doesNotThrow(() => backend.close())
})

test('a queue that does not exist is refused', async (t) => {
  const { backend } = await start()
  t.throws(() => { backend.want('nope', 1) }, /no queue "nope"/)
  t.throws(() => backend.load('nope'), /no queue "nope"/)
})

test('counts has no inherited names', async (t) => {
  const { backend } = await start()
  t.equal(Object.getPrototypeOf(now(backend.counts())), null)
})

test('an attempt delivered while a listener cancels its job stays whole', async (t) => {
  const bench = await start()
  const { backend } = bench
  const answers: unknown[] = []
  backend.watch(({ id, state }) => { if (state === 'active') answers.push(backend.cancel(id, 'user', 'at once')) })
  backend.want('default', 1)
  const id = await bench.add()
  const attempt = await bench.take()
  t.strictSame(answers, ['cancelling'])
  t.equal(bench.aborts[0]?.attempt, attempt)
  await bench.settle(attempt, { kind: 'cancelled', reason: 'user' })
  t.equal((await bench.read(id)).state, 'cancelled')
})

test('a wait beyond the end of all dates can still be read', async (t) => {
  const bench = await start()
  bench.backend.want('default', 1)
  const retried = await bench.end(retryIn(Number.MAX_VALUE))
  const later = await bench.add({ delay: 8.64e15 })
  t.match(await bench.read(retried), { state: 'delayed', retryAt: String })
  t.match(await bench.read(later), { state: 'delayed', runAt: String })
  t.equal((await bench.backend.list({ limit: 9 })).length, 2)
})

test('a job waits for months without being started early', async (t) => {
  const bench = await start()
  bench.backend.want('default', 1)
  await bench.add({ delay: 60 * 86_400_000 })
  await bench.pass(59 * 86_400_000)
  t.equal(bench.delivered.length, 0)
  await bench.pass(86_400_000)
  t.equal(bench.delivered.length, 1)
})

test('100 000 delayed jobs share one timer', async (t) => {
  const bench = await start()
  await bench.backend.enqueue(Array.from({ length: 100_000 }, (_, i) => bench.job({ delay: 1_000 + i % 500 })), false)
  t.equal(bench.clock.pendingTimers, 1)
  await bench.pass(1_500)
  t.equal(now(bench.backend.counts()).default?.waiting, 100_000)
  await bench.backend.close()
})

test('a value read at the end of a job is not changed by its next life', async (t) => {
  const bench = await start()
  bench.backend.want('default', 1)
  const id = await bench.end(dead)
  const before = await bench.read(id)
  await bench.backend.retry([id], 0)
  await bench.settle(await bench.take(), dead)
  t.equal(before.history?.length, 1)
  t.equal((await bench.read(id)).history?.length, 2)
})

// Whatever happens to jobs, what the backend counts is what it lists.

type Act =
  | { act: 'add', priority: number, delay: number, ttl: number, staged: boolean }
  | { act: 'settle' | 'cancel' | 'release' | 'retry' | 'remove', pick: number, how: number }
  | { act: 'want' | 'pass', n: number }

const acts: fc.Arbitrary<Act> = fc.oneof(
  fc.record({
    act: fc.constant('add' as const),
    priority: fc.constantFrom(0, 0, -3, 3),
    delay: fc.constantFrom(0, 0, 40),
    ttl: fc.constantFrom(0, 0, 60),
    staged: fc.boolean()
  }),
  fc.record({ act: fc.constantFrom('settle', 'settle', 'settle', 'cancel', 'release', 'retry', 'remove'), pick: fc.nat(30), how: fc.nat(4) }),
  fc.record({ act: fc.constantFrom('want', 'pass'), n: fc.nat(4) })
)

async function perform (bench: Bench, ids: string[], step: Act): Promise<void> {
  const { backend } = bench
  switch (step.act) {
    case 'add':
      ids.push(await bench.add({ priority: step.priority, delay: step.delay, ttl: step.ttl, staged: step.staged }))
      return
    case 'want':
      backend.want('default', step.n)
      return bench.rest()
    case 'pass':
      return bench.pass(step.n * 20)
    case 'settle': {
      const attempt = bench.delivered[step.pick % (bench.delivered.length || 1)]
      const outcome = [completed, dead, retryIn(0), retryIn(30, false), releasedFor(10)][step.how]
      if (attempt !== undefined && outcome !== undefined) await bench.settle(attempt, outcome)
      return
    }
    default: {
      const id = ids[step.pick % (ids.length || 1)] ?? 'none'
      if (step.act === 'cancel') await backend.cancel(id, 'user', '')
      else if (step.act === 'release') await backend.release([id])
      else if (step.act === 'retry') await backend.retry([id], 0)
      else await backend.remove([id])
    }
  }
}

function tally (jobs: readonly JobRecord[]): Record<string, number> {
  const sums: Record<string, number> = { pending: 0, waiting: 0, delayed: 0, 'waiting-children': 0, retrying: 0, limited: 0, active: 0, completed: 0, failed: 0, cancelled: 0 }
  for (const { state, delayReason } of jobs) {
    sums[state] = (sums[state] ?? 0) + 1
    if (state === 'delayed' && delayReason === 'retry') sums.retrying = (sums.retrying ?? 0) + 1
  }
  return sums
}

/** What is wrong with the numbers, if anything. */
function fault ({ backend }: Bench, mostActive: number): string | undefined {
  const jobs = now(backend.list({ limit: Infinity }))
  const { oldestWaitingMs = NaN, ...counts } = { ...now(backend.counts()).default }
  if (!isDeepStrictEqual(counts, tally(jobs))) return `counted ${JSON.stringify(counts)}, listed ${JSON.stringify(tally(jobs))}`
  const byState = ([a]: [string, number], [b]: [string, number]): number => a < b ? -1 : 1
  const byTask = now(backend.tally?.() ?? []).map(({ state, jobs }): [string, number] => [state, jobs]).sort(byState)
  const listed = Object.entries(tally(jobs)).filter(([what, sum]) => sum > 0 && !['retrying', 'limited'].includes(what)).sort(byState)
  if (!isDeepStrictEqual(byTask, listed)) return `counted ${JSON.stringify(byTask)} by task, listed ${JSON.stringify(listed)}`
  if ((counts.active ?? 0) > mostActive) return `${counts.active} active, at most ${mostActive} wanted`
  if (oldestWaitingMs > 0 && counts.waiting === 0) return 'nothing waits, but it is old'
  const neverStarted = jobs.filter(({ state, startedAt }) => startedAt === null && ['pending', 'waiting', 'delayed'].includes(state))
  const load = backend.load('default')
  // One that expired and was retried never started either, but takes no room any more.
  return load.jobs < 0 || load.jobs > neverStarted.length ? `load ${load.jobs}, ${neverStarted.length} never started` : undefined
}

test('whatever happens, the counts agree with the list, and all moves are legal', async (t) => {
  await fc.assert(fc.asyncProperty(fc.array(acts, { minLength: 5, maxLength: 60 }), async (steps) => {
    const bench = await start()
    const ids: string[] = []
    let wanted = 0
    for (const step of steps) {
      const activeBefore = now(bench.backend.counts()).default?.active ?? 0
      if (step.act === 'want') wanted = step.n
      await perform(bench, ids, step)
      const found = fault(bench, Math.max(wanted, activeBefore))
      if (found !== undefined) throw new Error(found)
    }
    await bench.backend.close()
    if (bench.illegal.length > 0 || bench.clock.pendingTimers > 0) throw new Error(bench.illegal.join() || 'a timer is left')
  }), { numRuns: 60 })
  t.pass('held in 60 random lives')
})

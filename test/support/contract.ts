/**
 * The suite every backend must pass: each promise of the seam (lib/backend.ts) as one test.
 *
 * A backend that lives by the given clock passes through hours in no time; any other is waited for, so all durations
 * here are short. Answers may be values or promises: every call is awaited.
 */
import type { FastifyInstance } from 'fastify'
import { test, type Test } from 'tap'
import type { Awaitable, Backend, Change, Incident, QueueSettings, Retention, Sink } from '../../lib/backend.ts'
import type { Capabilities } from '../../lib/capabilities.ts'
import type { ErrorFacts } from '../../lib/describe.ts'
import type { AbortKind } from '../../lib/errors.ts'
import { createIds } from '../../lib/id.ts'
import { MOVES, isFinal, type Attempt, type JobRecord, type Local, type Policy, type JobState, type NewJob, type Outcome } from '../../lib/job.ts'
import { TASK_DEFAULTS } from '../../lib/job-options.ts'
import type { Firing, KeptSchedule, ScheduleRule } from '../../lib/schedule.ts'
import { TestClock } from './clock.ts'
import { deduplicationContract } from './contract/deduplication.ts'
import { flowsContract } from './contract/flows.ts'
import { groupsContract } from './contract/groups.ts'
import { limitsContract } from './contract/limits.ts'
import { nextTime, scheduleContract } from './contract/schedules.ts'
import { startWatch, type LeakWatch } from './leaks.ts'
import { eventually, realTime } from './real-time.ts'

export interface BackendUnderTest {
  /** A fresh one, not started. It lives by the clock if it can; the tests of one that cannot take real time. */
  readonly create: (clock: TestClock) => Awaitable<Backend>
  /** Ms in which a backend that lives by its own time comes to rest. @default 100 */
  rest?: number
  /** How many of the tests run side by side, where they have to wait for real time. @default 1 */
  atOnce?: number
  /** Process warnings that its engine may give. */
  allowWarnings?: RegExp
  /** Tests to skip, by title, with a sentence that says why. */
  gaps?: Readonly<Record<string, string>>
}

interface Case {
  title: string
  /** A capability, or a part of the backend that may be absent. */
  needs?: keyof Capabilities | 'schedules' | 'flows'
  retention?: Retention
  /** Beside, or instead of, the two without limits. */
  queues?: Readonly<Record<string, QueueSettings>>
  run: (t: Test, bench: Bench) => Promise<void>
}

/** A job's own fields and those of its policy, side by side. */
export type JobParts = Partial<Omit<NewJob, 'policy'>> & Partial<Omit<Policy, 'queue'>> & { staged?: boolean }

/** Ms in which a server closes its end of a connection, also on a machine that is busy. */
const PATIENCE = 12_000
const KEEP_ALL: Retention = { completed: { count: 1_000, age: 3_600_000 }, failed: { count: 1_000, age: 3_600_000 } }
export const boom: ErrorFacts = { name: 'Error', code: null, message: 'boom' }
export const completed: Outcome = { kind: 'completed' }
export const dead: Outcome = { kind: 'dead', error: boom, failure: 'exhausted' }
export const retryIn = (delay: number, charged = true): Outcome => ({ kind: 'retry', delay, error: boom, charged })
export const releasedFor = (delay: number): Outcome => ({ kind: 'released', delay })

/** A backend on the table: what it tells is written down, and each change of state is checked. */
export class Bench implements Sink {
  readonly backend: Backend
  readonly clock: TestClock
  readonly delivered: Attempt[] = []
  readonly aborts: Array<{ attempt: Attempt, kind: AbortKind, detail: string }> = []
  readonly incidents: Incident[] = []
  readonly changes: Change[] = []
  /** Faults seen on the way. */
  readonly illegal: string[] = []
  onDeliver: (attempt: Attempt) => void = () => {}
  /** What the backend asked about schedules, and what it is answered. */
  readonly asked: Array<{ kept: KeptSchedule, alive: boolean }> = []
  onFire: (kept: KeptSchedule) => Firing | undefined = () => undefined
  onNextTime: (rule: ScheduleRule, after: number) => Awaitable<number | undefined> = nextTime
  readonly #rest: number
  readonly #states = new Map<string, JobState>()
  readonly #ids = createIds()
  #taken = 0

  constructor (backend: Backend, clock: TestClock, rest: number) {
    this.backend = backend
    this.clock = clock
    this.#rest = rest
  }

  async start (retention: Retention = KEEP_ALL, own: Case['queues'] = {}): Promise<void> {
    const queues = new Map<string, QueueSettings>([['default', { limiter: undefined }], ['other', { limiter: undefined }], ...Object.entries(own)])
    const fire = (kept: KeptSchedule, alive: boolean): Firing | undefined => {
      this.asked.push({ kept, alive })
      return this.onFire(kept)
    }
    await this.backend.start(this, { queues, retention, maxHold: 300_000, fire, nextTime: async (rule, after) => this.onNextTime(rule, after) })
    await this.backend.watch(({ id, state }) => {
      const change = { id, state }
      const before = this.#states.get(change.id) ?? 'pending'
      if (!MOVES[before].includes(change.state)) this.illegal.push(`${before} → ${change.state}`)
      this.#states.set(change.id, change.state)
      this.changes.push(change)
    })
  }

  deliver (attempts: readonly Attempt[]): void {
    for (const attempt of attempts) {
      this.delivered.push(attempt)
      this.onDeliver(attempt)
    }
  }

  abort (attempt: Attempt, kind: AbortKind, detail: string): void {
    this.aborts.push({ attempt, kind, detail })
  }

  report (incident: Incident): void {
    this.incidents.push(incident)
  }

  /** Whether time passes only when the test says so. */
  get livesByClock (): boolean { return this.backend.clock === this.clock }

  now (): number { return this.livesByClock ? this.clock.now() : Date.now() }

  job (parts: JobParts = {}): NewJob {
    const { id, name = 'task', queue = 'default', payload = null, requestId = null, carrier, local, staged: _, ...options } = parts
    const createdAt = this.now()
    const order = this.#ids.count(createdAt)
    return {
      id: id ?? this.#ids.text(order, this.#ids.stamp), order, name, queue, payload, bytes: JSON.stringify(payload).length, createdAt, requestId,
      policy: { ...TASK_DEFAULTS, ...options, queue }, carrier, local
    }
  }

  async enqueue (...parts: JobParts[]): Promise<string[]> {
    const jobs = parts.map((part) => this.job(part))
    // Neighbours that go the same way go in one call.
    for (let first = 0, next = 0; first < jobs.length; first = next) {
      const staged = parts[first]?.staged ?? false
      while (next < jobs.length && (parts[next]?.staged ?? false) === staged) next++
      await this.backend.enqueue(jobs.slice(first, next), staged)
    }
    return jobs.map(({ id }) => id)
  }

  async add (parts: JobParts = {}): Promise<string> {
    const [id] = await this.enqueue(parts)
    return id as string
  }

  /** The next delivered attempt nobody took yet. */
  async take (): Promise<Attempt> {
    await this.until(() => this.#taken < this.delivered.length, 'an attempt')
    return this.delivered[this.#taken++] as Attempt
  }

  async settle (attempt: Attempt, outcome: Outcome): Promise<void> {
    await this.backend.settle(attempt, outcome)
  }

  /** Adds a job and takes it through one attempt. */
  async end (outcome: Outcome, parts: JobParts = {}): Promise<string> {
    const id = await this.add(parts)
    await this.settle(await this.take(), outcome)
    return id
  }

  async read (id: string): Promise<JobRecord> {
    const record = await this.backend.get(id)
    if (record === undefined) throw new Error('the job is not there')
    return record
  }

  async states (ids: readonly string[]): Promise<Array<JobState | undefined>> {
    return Promise.all(ids.map(async (id) => (await this.backend.get(id))?.state))
  }

  /** What was reported of jobs: `expired name`. */
  told (): string[] {
    return this.incidents.map((incident) => `${incident.kind} ${'job' in incident ? incident.job.name : ''}`)
  }

  /** A cancelled job says so, where the backend keeps it. */
  async isCancelled (t: Test, id: string, more: object): Promise<void> {
    if (this.backend.capabilities.cancelled) t.match(await this.read(id), { state: 'cancelled', finishedAt: String, ...more })
    else t.equal(await this.backend.get(id), undefined)
  }

  names (): string[] { return this.delivered.map(({ job }) => job.name) }

  /** Until so many attempts were delivered, and all that could happen now has happened. */
  async deliveries (count: number): Promise<void> {
    await this.until(() => this.delivered.length >= count, `${count} deliveries`)
    await this.rest()
  }

  async until (reached: () => Awaitable<boolean>, what: string): Promise<void> {
    if (!this.livesByClock) return eventually(reached, what)
    for (let tries = 0; !await reached(); tries++) {
      if (tries === 500) throw new Error(`waited in vain for ${what}`)
      await this.clock.settle()
    }
  }

  /** Until all that could happen now has happened. */
  async rest (): Promise<void> {
    await (this.livesByClock ? this.clock.settle() : realTime(this.#rest))
  }

  async pass (ms: number): Promise<void> {
    await (this.livesByClock ? this.clock.advance(ms) : realTime(ms + this.#rest))
  }
}

const LATER: Record<JobState, ReadonlySet<JobState>> = Object.fromEntries(Object.keys(MOVES).map((state) => {
  const reached = new Set<JobState>([state as JobState])
  for (const one of reached) for (const next of MOVES[one]) reached.add(next)
  return [state, reached]
})) as unknown as Record<JobState, ReadonlySet<JobState>>

const inlineWork = (): Local => ({ run: () => {}, app: {} as FastifyInstance, context: undefined })

/** Resolves when all of them have ended. */
export function backendContract (name: string, { create, rest = 100, atOnce = 1, gaps = {}, allowWarnings }: BackendUnderTest): Promise<unknown> {
  for (const title of Object.keys(gaps)) {
    if (!cases.some((one) => one.title === title)) throw new Error(`the contract has no test "${title}"`)
  }
  const watch = (): LeakWatch => startWatch(allowWarnings && { allowWarnings })
  return test(`${name} keeps the contract of a backend`, { jobs: atOnce }, async (t) => {
    const probe = await create(new TestClock())
    const { capabilities } = probe
    const has = { ...capabilities, schedules: probe.schedules !== undefined, flows: probe.flows !== undefined }
    await probe.close()
    // Tests side by side would be taken for each other: what they leave is looked for once, in the end.
    const sideBySide = atOnce > 1
    const whole = sideBySide ? watch() : undefined
    const all = cases.map(({ title, needs, retention, queues, run }) => {
      const lacks = needs !== undefined && !has[needs] ? `${name} has no capability "${needs}"` : false
      return t.test(title, { skip: gaps[title] ?? lacks, buffered: sideBySide }, async (t) => {
        const clock = new TestClock()
        const own = sideBySide ? undefined : watch()
        const bench = new Bench(await create(clock), clock, rest)
        await bench.start(retention, queues)
        t.teardown(async () => { await bench.backend.close() })
        await run(t, bench)
        await bench.backend.close()
        t.strictSame(bench.illegal, [], 'all moves were legal')
        t.equal(clock.pendingTimers, 0, 'no timer is left')
        if (own !== undefined) t.strictSame(await own.stop(bench.livesByClock ? 0 : PATIENCE), [], 'nothing else is left')
      })
    })
    if (whole === undefined) return
    await Promise.all(all)
    t.strictSame(await whole.stop(PATIENCE), [], 'nothing is left')
  })
}

export type Promises = (title: string, run: Case['run'], more?: Pick<Case, 'needs' | 'retention' | 'queues'>) => void
const cases: Case[] = []
function promise (title: string, run: Case['run'], more: Pick<Case, 'needs' | 'retention' | 'queues'> = {}): void {
  cases.push({ title, run, ...more })
}

// Attempts

promise('attempt numbers start at 1 and count up with each retry', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add({ attempts: 3 })
  for (const number of [1, 2, 3]) {
    const attempt = await bench.take()
    t.equal(attempt.number, number)
    t.equal(attempt.job.id, id)
    t.equal((await bench.read(id)).attemptsMade, number)
    await bench.settle(attempt, number < 3 ? retryIn(0) : completed)
  }
})

promise('an attempt that is not charged keeps its number', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add()
  await bench.settle(await bench.take(), retryIn(0, false))
  const second = await bench.take()
  t.equal(second.number, 1)
  t.equal((await bench.read(id)).attemptsMade, 1)
})

promise('at most `want` attempts of a queue are unsettled', async (t, bench) => {
  await bench.enqueue(...Array.from({ length: 10 }, () => ({})))
  bench.backend.want('default', 3)
  const first = await bench.take()
  await bench.deliveries(3)
  t.equal(bench.delivered.length, 3)
  await bench.settle(first, completed)
  await bench.deliveries(4)
  t.equal(bench.delivered.length, 4)
  bench.backend.want('default', 5)
  await bench.deliveries(6)
  t.equal(bench.delivered.length, 6)
})

promise('a lower `want` lets the running attempts go on, and holds back until it is met', async (t, bench) => {
  await bench.enqueue(...Array.from({ length: 5 }, () => ({})))
  bench.backend.want('default', 3)
  const running = [await bench.take(), await bench.take(), await bench.take()] as const
  bench.backend.want('default', 1)
  await bench.settle(running[0], completed)
  await bench.settle(running[1], completed)
  await bench.deliveries(3)
  t.equal(bench.delivered.length, 3)
  await bench.settle(running[2], completed)
  await bench.deliveries(4)
  t.equal(bench.delivered.length, 4)
})

promise('each queue has its own `want`', async (t, bench) => {
  await bench.enqueue({}, {}, { queue: 'other' }, { queue: 'other' })
  bench.backend.want('default', 1)
  bench.backend.want('other', 2)
  await bench.deliveries(3)
  t.strictSame(bench.delivered.map(({ job }) => job.queue).sort(), ['default', 'other', 'other'])
})

promise('what is delivered is shown as active', async (t, bench) => {
  bench.backend.want('default', 1)
  await bench.enqueue({}, {})
  const { job } = await bench.take()
  const record = await bench.read(job.id)
  t.match(record, { state: 'active', attemptsMade: 1, startedAt: String, finishedAt: null })
  t.equal((await bench.backend.counts()).default?.active, 1)
})

promise('after want(queue, 0) nothing new is delivered, until it is wanted again', async (t, bench) => {
  bench.backend.want('default', 2)
  const running = await bench.end(retryIn(0)).then(() => bench.take())
  bench.backend.want('default', 0)
  await bench.enqueue({}, {})
  await bench.settle(running, retryIn(0))
  await bench.deliveries(2)
  t.equal(bench.delivered.length, 2)
  bench.backend.want('default', 2)
  await bench.deliveries(4)
  t.equal(bench.delivered.length, 4)
})

promise('nothing is delivered inside the caller\'s own enqueue', async (t, bench) => {
  bench.backend.want('default', 5)
  await bench.rest()
  const enqueued = bench.backend.enqueue([bench.job(), bench.job()], false)
  t.equal(bench.delivered.length, 0)
  await enqueued
  await bench.deliveries(2)
  t.equal(bench.delivered.length, 2)
})

// Ownership

promise('an outcome is stored only if the attempt still owns its job', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add()
  const first = await bench.take()
  await bench.settle(first, retryIn(0))
  const second = await bench.take()
  await bench.settle(first, completed)
  t.match(await bench.read(id), { state: 'active', attemptsMade: 2 })
  await bench.settle(second, { kind: 'completed', result: 'second' })
  await bench.settle(first, dead)
  await bench.settle(second, retryIn(0))
  await bench.rest()
  t.match(await bench.read(id), { state: 'completed', result: 'second' })
  t.equal(bench.delivered.length, 2)
})

promise('progress and overdue are shown, and only the owner may tell them', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add()
  const first = await bench.take()
  t.equal((await bench.read(id)).progress, null)
  await bench.backend.note(first, { progress: { done: 1 } })
  await bench.backend.note(first, { overdue: true })
  t.match(await bench.read(id), { state: 'active', progress: { done: 1 }, overdue: true })
  await bench.settle(first, retryIn(0))
  const second = await bench.take()
  t.notOk('overdue' in await bench.read(id))
  await bench.backend.note(first, { progress: 'late' })
  await bench.backend.note(first, { overdue: true })
  await bench.settle(second, completed)
  await bench.backend.note(second, { progress: 'later still' })
  const record = await bench.read(id)
  t.strictSame(record.progress, { done: 1 })
  t.notOk('overdue' in record)
})

promise('a released job is not charged, and comes back after its delay', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add()
  await bench.settle(await bench.take(), releasedFor(1_500))
  t.match(await bench.read(id), { state: 'delayed', delayReason: 'delay', attemptsMade: 0 })
  t.equal(bench.delivered.length, 1)
  await bench.pass(1_501)
  t.equal((await bench.take()).number, 1)
}, { needs: 'delay' })

promise('a released job does not spin', async (t, bench) => {
  let turn = 0
  const inTurn = new Map<number, number>()
  let left = 300
  bench.onDeliver = (attempt) => {
    inTurn.set(turn, (inTurn.get(turn) ?? 0) + 1)
    if (left-- > 0) void bench.backend.settle(attempt, releasedFor(0))
  }
  bench.backend.want('default', 1)
  await bench.add()
  for (; turn < 50; turn++) await new Promise((resolve) => { setImmediate(resolve) })
  t.ok(Math.max(...inTurn.values()) <= 2, `delivered ${Math.max(...inTurn.values())} times in one turn of the loop`)
})

// Outcomes and reads

promise('a completed job shows its result and its stamps', async (t, bench) => {
  const id = await bench.add({ name: 'sum', payload: { a: 1 }, requestId: 'req-1' })
  const waiting = await bench.read(id)
  t.match(waiting, {
    id, name: 'sum', queue: 'default', payload: { a: 1 }, requestId: 'req-1', attempts: 3, startedAt: null, finishedAt: null
  })
  bench.backend.want('default', 1)
  await bench.settle(await bench.take(), { kind: 'completed', result: { sum: 2 } })
  const record = await bench.read(id)
  t.match(record, { state: 'completed', result: { sum: 2 }, attemptsMade: 1 })
  for (const at of [record.createdAt, record.startedAt, record.finishedAt]) t.equal(new Date(at as string).toISOString(), at)
  t.notOk('error' in record || 'failure' in record || 'resultOmitted' in record)
})

promise('an omitted result is told, and so is none', async (t, bench) => {
  bench.backend.want('default', 1)
  const omitted = await bench.read(await bench.end({ kind: 'completed', resultOmitted: 'too-large' }))
  t.equal(omitted.resultOmitted, 'too-large')
  t.notOk('result' in omitted)
  t.notOk('result' in await bench.read(await bench.end(completed)))
})

promise('a retry is shown as delayed, with the error and the time', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(retryIn(1_500))
  const record = await bench.read(id)
  t.match(record, { state: 'delayed', delayReason: 'retry', error: boom, attemptsMade: 1, retryAt: String })
  t.notOk('runAt' in record)
  await bench.pass(1_501)
  await bench.settle(await bench.take(), completed)
  t.notOk('error' in await bench.read(id), 'a later success clears the error')
})

promise('a dead letter shows its failure, a cancelled job its reason', async (t, bench) => {
  bench.backend.want('default', 1)
  for (const failure of ['exhausted', 'unrecoverable', 'timeout'] as const) {
    t.match(await bench.read(await bench.end({ kind: 'dead', error: boom, failure })), { state: 'failed', failure, error: boom, finishedAt: String })
  }
  await bench.isCancelled(t, await bench.end({ kind: 'cancelled', reason: 'shutdown' }), { reason: 'shutdown' })
})

promise('the history holds the failed attempts, oldest first, at most 20', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add({ attempts: 30 })
  for (let n = 1; n <= 25; n++) {
    await bench.settle(await bench.take(), { kind: 'retry', delay: 0, charged: true, error: { ...boom, message: `boom ${n}` } })
  }
  const { history = [], error } = await bench.read(id)
  t.strictSame(history.map(({ attempt }) => attempt), Array.from({ length: 20 }, (_, i) => i + 6))
  t.match(history[19], { attempt: 25, endedAt: /^\d{4}-.*Z$/, error: { message: 'boom 25' } })
  t.equal(error?.message, 'boom 25')
})

promise('a read never shows a state that was not reached', async (t, bench) => {
  const seen: string[] = []
  const reads: Array<Promise<void>> = []
  let gone = ''
  const compare = (id: string, told: JobState, record: JobRecord | undefined): void => {
    if (record === undefined && id === gone) return
    if (record === undefined || !LATER[told].has(record.state)) seen.push(`told ${told}, read ${record?.state}`)
    else if (record.state === 'active' && (record.attemptsMade < 1 || record.startedAt === null)) seen.push('active without a start')
    else if (isFinal(record.state) !== (record.finishedAt !== null)) seen.push(`${record.state} with finishedAt ${record.finishedAt}`)
  }
  const stop = await bench.backend.watch(({ id, state }) => {
    const answer = bench.backend.get(id)
    if (!(answer instanceof Promise)) return compare(id, state, answer)
    reads.push(answer.then((record) => { compare(id, state, record) }))
  })
  bench.backend.want('default', 2)
  await bench.end(retryIn(0))
  await bench.settle(await bench.take(), dead)
  const staged = await bench.add({ staged: true })
  await bench.backend.release([staged])
  await bench.settle(await bench.take(), completed)
  const unwanted = await bench.add({ staged: true })
  if (!bench.backend.capabilities.cancelled) gone = unwanted
  await bench.backend.cancel(unwanted, 'user', '')
  await bench.until(() => bench.changes.at(-1)?.state === 'cancelled', 'the cancel to be told')
  stop()
  await Promise.all(reads)
  t.strictSame([...new Set(seen)], [])
  t.ok(bench.changes.length >= 8)
})

promise('a job can be read when its end is told, even where nothing is kept', async (t, bench) => {
  const ends: Array<Promise<JobRecord | undefined>> = []
  // Asked at once, not in a later turn.
  const look = async (id: string) => bench.backend.get(id)
  bench.backend.watch(({ id, state }) => { if (isFinal(state)) ends.push(look(id)) })
  bench.backend.want('default', 1)
  const ids = [await bench.end({ kind: 'completed', result: 1 }), await bench.end(dead)]
  await bench.until(() => ends.length === 2, 'both ends')
  t.match(await Promise.all(ends), [{ state: 'completed', result: 1 }, { state: 'failed', error: boom }])
  await bench.rest()
  t.strictSame(await bench.states(ids), [undefined, undefined])
}, { retention: { completed: { count: 0, age: 0 }, failed: { count: 0, age: 0 } } })

promise('a listener that stopped watching hears nothing more', async (t, bench) => {
  const heard: JobState[] = []
  const stop = await bench.backend.watch(({ state }) => { heard.push(state) })
  const id = await bench.add()
  await bench.until(() => bench.changes.length === 1, 'the first change')
  stop()
  await bench.backend.cancel(id, 'user', '')
  await bench.until(() => bench.changes.length === 2, 'the second change')
  t.strictSame(heard, ['waiting'])
})

promise('what was forgotten stays unknown: its id is not used again', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(dead)
  t.equal(await bench.backend.remove([id]), 1)
  const later = await bench.enqueue({}, {})
  t.notOk(later.includes(id))
  t.equal(await bench.backend.get(id), undefined)
  t.equal(await bench.backend.cancel(id, 'user', ''), undefined)
  t.equal(await bench.backend.retry([id], 0), 0)
  t.equal(await bench.backend.remove([id]), 0)
  await bench.backend.release([id])
  t.equal(await bench.backend.get(id), undefined)
})

promise('payloads, results and progress are not shared between attempts or with readers', async (t, bench) => {
  type Box = { list: number[] }
  const spoil = (value: unknown): void => { (value as Box).list.push(9) }
  bench.backend.want('default', 1)
  const id = await bench.add({ payload: { list: [1] } })
  const first = await bench.take()
  spoil(first.payload)
  spoil((await bench.read(id)).payload)
  await bench.settle(first, retryIn(0))
  const second = await bench.take()
  t.strictSame(second.payload, { list: [1] })
  await bench.backend.note(second, { progress: { list: [2] } })
  spoil((await bench.read(id)).progress)
  t.strictSame((await bench.read(id)).progress, { list: [2] }, 'progress')
  await bench.settle(second, { kind: 'completed', result: { list: [3] } })
  spoil((await bench.read(id)).result)
  const [listed] = await bench.backend.list({ limit: 1 })
  t.strictSame(listed?.payload, { list: [1] })
  t.strictSame(listed?.result, { list: [3] })
})

// Order and time

promise('higher priority first, then in the order of arrival', async (t, bench) => {
  await bench.enqueue(
    { name: 'a' }, { name: 'low', priority: -5 }, { name: 'b' }, { name: 'high', priority: 7 }, { name: 'c' }, { name: 'high too', priority: 7 }
  )
  bench.backend.want('default', 1)
  for (let n = 0; n < 6; n++) await bench.settle(await bench.take(), completed)
  t.strictSame(bench.names(), ['high', 'high too', 'a', 'b', 'c', 'low'])
}, { needs: 'priority' })

promise('a job below the usual priority starts when nothing else waits', async (t, bench) => {
  bench.backend.want('default', 1)
  await bench.end(completed)
  await bench.add({ name: 'low', priority: -1 })
  await bench.deliveries(2)
  t.strictSame(bench.names(), ['task', 'low'])
}, { needs: 'priority' })

promise('an attempt tells how long its job was ready before', async (t, bench) => {
  await bench.add()
  await bench.pass(100)
  bench.backend.want('default', 1)
  const { waited } = await bench.take()
  t.ok(bench.livesByClock ? waited === 100 : waited >= 99, `waited ${waited} ms`)
})

promise('a delayed job starts after its delay, and shows when', async (t, bench) => {
  bench.backend.want('default', 5)
  const id = await bench.add({ delay: 2_000 })
  const record = await bench.read(id)
  t.match(record, { state: 'delayed', delayReason: 'delay' })
  if (bench.livesByClock) t.equal(Date.parse(record.runAt as string), bench.clock.now() + 2_000)
  t.notOk('retryAt' in record)
  await bench.pass(100)
  if (bench.livesByClock) t.equal(bench.delivered.length, 0)
  await bench.pass(1_901)
  t.equal((await bench.take()).job.id, id)
  const started = await bench.read(id)
  t.ok(Date.parse(started.startedAt as string) - Date.parse(started.createdAt) >= 2_000, 'not before')
  t.equal(started.state, 'active')
  t.notOk('runAt' in started || 'delayReason' in started)
}, { needs: 'delay' })

promise('a job whose delay is over while nothing is wanted waits', async (t, bench) => {
  const id = await bench.add({ delay: 50 })
  await bench.pass(100)
  t.equal((await bench.read(id)).state, 'waiting')
  t.equal((await bench.backend.counts()).default?.waiting, 1)
}, { needs: 'delay' })

promise('jumps of the wall clock do not move delays', async (t, bench) => {
  if (!bench.livesByClock) return t.comment('the time it lives by cannot be moved')
  bench.backend.want('default', 5)
  await bench.enqueue({ name: 'first', delay: 1_000 }, { name: 'second', delay: 2_000 })
  bench.clock.jump(-3_600_000)
  await bench.pass(1_000)
  await bench.until(() => bench.names().length > 0, 'the first')
  t.strictSame(bench.names(), ['first'])
  bench.clock.jump(7_200_000)
  await bench.pass(500)
  t.strictSame(bench.names(), ['first'])
  await bench.pass(500)
  await bench.until(() => bench.names().length > 1, 'the second')
  t.strictSame(bench.names(), ['first', 'second'])
}, { needs: 'delay' })

promise('a job not started within its ttl fails as expired, and is reported', async (t, bench) => {
  const ids = await bench.enqueue({ name: 'waiting', ttl: 200 }, { name: 'pending', ttl: 200, staged: true }, { name: 'no ttl' })
  await bench.pass(201)
  bench.backend.want('default', 5)
  await bench.deliveries(1)
  await bench.until(() => bench.told().length === 2, 'both to expire')
  t.strictSame(bench.names(), ['no ttl'])
  t.match(await bench.read(ids[0] as string), {
    state: 'failed', failure: 'expired', error: { code: 'FST_BG_EXPIRED' }, attemptsMade: 0, startedAt: null, finishedAt: String
  })
  t.strictSame(await bench.states(ids), ['failed', 'failed', 'active'])
  t.strictSame(bench.told().sort(), ['expired pending', 'expired waiting'])
  await bench.backend.release(ids)
  await bench.rest()
  t.equal(bench.delivered.length, 1)
}, { needs: 'ttl' })

promise('a ttl ends with the first start: retries are not touched by it', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(retryIn(3_100), { ttl: 3_000 })
  await bench.pass(3_101)
  const second = await bench.take()
  t.equal(second.number, 2)
  await bench.settle(second, completed)
  t.equal((await bench.read(id)).state, 'completed')
}, { needs: 'ttl' })

promise('a job whose ttl ends before its delay expires at the ttl', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add({ delay: 500, ttl: 100 })
  await bench.pass(150)
  await bench.until(() => bench.told().length === 1, 'it to expire')
  t.match(await bench.read(id), { state: 'failed', failure: 'expired' })
  await bench.pass(500)
  t.equal(bench.delivered.length, 0)
}, { needs: 'ttl' })

// Steering

promise('a staged job waits for its release, and is released once', async (t, bench) => {
  bench.backend.want('default', 5)
  const [first, second] = await bench.enqueue({ staged: true }, { staged: true }) as [string, string]
  await bench.rest()
  t.strictSame(await bench.states([first, second]), ['pending', 'pending'])
  t.equal(bench.delivered.length, 0)
  await bench.backend.release([first, 'unknown'])
  await bench.backend.release([first])
  const attempt = await bench.take()
  await bench.backend.release([first])
  await bench.settle(attempt, completed)
  await bench.backend.release([first])
  await bench.rest()
  t.strictSame(await bench.states([first, second]), ['completed', 'pending'])
  t.equal(bench.delivered.length, 1)
})

promise('the delay of a staged job counts from its enqueue', async (t, bench) => {
  bench.backend.want('default', 5)
  const [early, late] = await bench.enqueue({ staged: true, delay: 4_000 }, { staged: true, delay: 100 }) as [string, string]
  await bench.pass(2_000)
  await bench.backend.release([early, late])
  await bench.deliveries(1)
  t.strictSame(await bench.states([early, late]), ['delayed', 'active'])
  await bench.pass(2_001)
  await bench.deliveries(2)
  t.strictSame(await bench.states([early]), ['active'])
  const { waited = NaN } = bench.delivered[1] ?? {}
  t.ok(waited < 2_000, `started ${waited} ms late`)
}, { needs: 'delay' })

promise('a job that is not running is cancelled at once, and never delivered', async (t, bench) => {
  const ids = await bench.enqueue({ staged: true }, {}, bench.backend.capabilities.delay ? { delay: 600 } : {})
  for (const id of ids) t.equal(await bench.backend.cancel(id, 'response', 'why'), 'cancelled')
  for (const id of ids) await bench.isCancelled(t, id, { reason: 'response', attemptsMade: 0 })
  bench.backend.want('default', 5)
  await bench.backend.release(ids)
  await bench.pass(700)
  t.equal(bench.delivered.length, 0)
  t.strictSame(bench.aborts, [])
})

promise('the cancel of a running job aborts its attempt, and waits for the verdict', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.add()
  const attempt = await bench.take()
  t.equal(await bench.backend.cancel(id, 'user', 'not needed'), 'cancelling')
  await bench.until(() => bench.aborts.length > 0, 'the abort')
  t.equal(bench.aborts[0]?.attempt, attempt)
  t.match(bench.aborts, [{ kind: 'cancel', detail: 'not needed' }])
  t.equal((await bench.read(id)).state, 'active')
  await bench.settle(attempt, { kind: 'cancelled', reason: 'user' })
  await bench.isCancelled(t, id, { reason: 'user' })
})

promise('a job waiting for its retry can be cancelled', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(retryIn(2_000))
  t.equal(await bench.backend.cancel(id, 'user', ''), 'cancelled')
  t.equal((await bench.backend.counts()).default?.retrying, 0)
  await bench.pass(2_001)
  t.equal(bench.delivered.length, 1)
})

promise('the cancel of an ended or unknown job changes nothing', async (t, bench) => {
  bench.backend.want('default', 1)
  const ids = [await bench.end(completed), await bench.end(dead)]
  const cancelled = await bench.end({ kind: 'cancelled', reason: 'user' })
  for (const id of ids) t.equal(await bench.backend.cancel(id, 'user', ''), 'final')
  t.strictSame(await bench.states(ids), ['completed', 'failed'])
  t.equal(await bench.backend.cancel(cancelled, 'user', ''), bench.backend.capabilities.cancelled ? 'final' : undefined)
  await bench.isCancelled(t, cancelled, { reason: 'user' })
  t.equal(await bench.backend.cancel('01900000-0000-7000-8000-000000000000', 'user', ''), undefined)
})

promise('a retried dead letter starts again at attempt 1, and keeps its history', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(dead)
  t.equal(await bench.backend.retry([id], 0), 1)
  const again = await bench.take()
  t.equal(again.number, 1)
  const record = await bench.read(id)
  t.match(record, { state: 'active', attemptsMade: 1, finishedAt: null, history: [{ attempt: 1, error: boom }] })
  t.notOk('failure' in record || 'error' in record)
  await bench.settle(again, completed)
  t.equal((await bench.read(id)).state, 'completed')
})

promise('what goes along with a job comes with each attempt, and after a replay', async (t, bench) => {
  bench.backend.want('default', 1)
  const carrier = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'a name': 'ü "\n' }
  const id = await bench.add({ carrier })
  const first = await bench.take()
  t.strictSame({ ...first.job.carrier }, carrier)
  await bench.settle(first, retryIn(0))
  const second = await bench.take()
  t.strictSame({ ...second.job.carrier }, carrier)
  await bench.settle(second, dead)
  t.strictSame({ ...(await bench.read(id)).carrier }, carrier)
  await bench.backend.retry([id], 0)
  const replayed = await bench.take()
  t.strictSame({ ...replayed.job.carrier }, carrier)
  await bench.settle(replayed, completed)
  t.notOk('carrier' in await bench.read(await bench.end(completed)))
})

promise('jobs are counted by task, where the backend can tell, as they come, move and go', async (t, bench) => {
  const { backend } = bench
  if (backend.tally === undefined) return
  const tally = async (): Promise<string[]> => (await backend.tally?.() ?? []).filter(({ jobs }) => jobs > 0).map(({ queue, task, state, jobs }) => `${queue} ${task} ${state} ${jobs}`).sort()
  t.strictSame(await tally(), [])
  backend.want('default', 1)
  const done = await bench.end(completed, { name: 'one' })
  const letter = await bench.end(dead, { name: 'two' })
  backend.want('default', 0)
  const [, second, staged] = await bench.enqueue({ name: 'one' }, { name: 'one' }, { name: 'one', staged: true }, { name: 'one', queue: 'other', delay: 60_000 })
  await bench.rest()
  t.strictSame(await tally(), ['default one completed 1', 'default one pending 1', 'default one waiting 2', 'default two failed 1', 'other one delayed 1'])
  await backend.retry([letter], 0)
  await backend.remove([done])
  await backend.cancel(second as string, 'user', '')
  await backend.release([staged as string])
  await bench.rest()
  const kept = backend.capabilities.cancelled === false ? [] : ['default one cancelled 1']
  t.strictSame(await tally(), [...kept, 'default one waiting 2', 'default two waiting 1', 'other one delayed 1'])
})

promise('only dead letters are retried, each once', async (t, bench) => {
  bench.backend.want('default', 1)
  const failed = await bench.end(dead)
  const done = await bench.end(completed)
  bench.backend.want('default', 0)
  const waiting = await bench.add()
  t.equal(await bench.backend.retry([failed, failed, done, waiting, 'unknown'], 0), 1)
  t.strictSame(await bench.states([failed, done, waiting]), ['waiting', 'completed', 'waiting'])
})

promise('a delayed job that is promoted may start at once; no other is touched', async (t, bench) => {
  const { backend } = bench
  if (backend.promote === undefined) return
  backend.want('default', 2)
  const later = await bench.add({ delay: 60_000 })
  const held = await bench.add({ staged: true, delay: 60_000 })
  t.equal(await backend.promote(later), true)
  const attempt = await bench.take()
  t.equal(attempt.job.id, later)
  for (const id of [later, held, 'unknown']) t.equal(await backend.promote(id), false)
  await bench.settle(attempt, retryIn(60_000))
  t.equal(await backend.promote(later), true)
  await bench.settle(await bench.take(), completed)
  t.equal(await backend.promote(later), false)
  t.match(await bench.states([later, held]), ['completed', 'pending'])
  t.match((await backend.counts())['default'], { completed: 1, pending: 1, delayed: 0, retrying: 0 })
})

promise('dead letters start again with the payloads that they are given', async (t, bench) => {
  bench.backend.want('default', 1)
  const first = await bench.end(dead, { payload: { n: 1 } })
  const second = await bench.end(dead, { payload: { n: 2 } })
  t.equal(await bench.backend.retry([first, second], 0, new Map([[first, { value: { n: 'other' }, bytes: 13 }]])), 2)
  const payloads: unknown[] = []
  for (let n = 0; n < 2; n++) {
    const attempt = await bench.take()
    payloads.push(attempt.payload)
    await bench.settle(attempt, completed)
  }
  t.strictSame(payloads, [{ n: 'other' }, { n: 2 }])
  t.match(await bench.read(first), { state: 'completed', payload: { n: 'other' } })
}, { needs: 'patch' })

promise('dead letters are retried with the spacing asked for', async (t, bench) => {
  bench.backend.want('default', 5)
  const ids = [await bench.end(dead), await bench.end(dead), await bench.end(dead)]
  t.equal(await bench.backend.retry(ids, 600), 3)
  await bench.rest()
  t.strictSame(await bench.states(ids), ['active', 'delayed', 'delayed'])
  await bench.pass(601)
  t.strictSame(await bench.states(ids), ['active', 'active', 'delayed'])
  await bench.pass(601)
  t.strictSame(await bench.states(ids), ['active', 'active', 'active'])
}, { needs: 'delay' })

promise('ended jobs can be removed, others not', async (t, bench) => {
  bench.backend.want('default', 1)
  const ended = [await bench.end(completed), await bench.end(dead)]
  const others = [await bench.add(), await bench.add({ staged: true })]
  t.equal(await bench.backend.remove([...ended, ...others, 'unknown']), 2)
  t.strictSame(await bench.states(ended), [undefined, undefined])
  t.match((await bench.backend.counts()).default, { completed: 0, failed: 0, pending: 1 })
})

// Retention, numbers, lists

promise('ended jobs are kept up to a count, the oldest ends leave first, and lost dead letters are reported', async (t, bench) => {
  bench.backend.want('default', 1)
  const { cancelled } = bench.backend.capabilities
  const done = [await bench.end(completed), await bench.end(cancelled ? { kind: 'cancelled', reason: 'user' } : completed), await bench.end(completed)]
  const failed = [await bench.end(dead), await bench.end(dead)]
  await bench.until(() => bench.incidents.length === 1, 'one to leave')
  t.strictSame(await bench.states(done), [undefined, cancelled ? 'cancelled' : 'completed', 'completed'])
  t.strictSame(await bench.states(failed), [undefined, 'failed'])
  t.match((await bench.backend.counts()).default, cancelled ? { completed: 1, cancelled: 1, failed: 1 } : { completed: 2, failed: 1 })
  t.strictSame(bench.incidents.map((incident) => [incident.kind, 'job' in incident && incident.job.id]), [['evicted', failed[0]]])
}, { retention: { completed: { count: 2, age: 3_600_000 }, failed: { count: 1, age: 3_600_000 } } })

promise('ended jobs are kept up to an age', async (t, bench) => {
  bench.backend.want('default', 1)
  const [done, failed] = [await bench.end(completed), await bench.end(dead)]
  await bench.pass(1_600)
  const young = await bench.end(completed)
  t.strictSame(await bench.states([done, failed, young]), [undefined, 'failed', 'completed'])
  await bench.pass(2_500)
  t.strictSame(await bench.states([failed]), [undefined])
  t.strictSame(bench.incidents.map((incident) => [incident.kind, 'job' in incident && incident.job.id]), [['evicted', failed]])
}, { retention: { completed: { count: 100, age: 1_500 }, failed: { count: 100, age: 4_000 } } })

promise('an age limit counts from the end, and a retried dead letter is not swept', async (t, bench) => {
  bench.backend.want('default', 1)
  const id = await bench.end(dead)
  await bench.backend.retry([id], 0)
  const again = await bench.take()
  await bench.pass(1_600)
  t.equal((await bench.read(id)).state, 'active')
  await bench.settle(again, dead)
  t.equal((await bench.read(id)).state, 'failed')
  t.strictSame(bench.incidents, [])
}, { retention: { completed: { count: 100, age: 1_500 }, failed: { count: 100, age: 1_500 } } })

promise('load counts the jobs that never started, and their bytes', async (t, bench) => {
  const load = () => ({ ...bench.backend.load('default') })
  const [staged] = await bench.enqueue({ staged: true, payload: 'abc' }, { payload: 'de' }, { queue: 'other', payload: 'far away' }) as [string]
  t.strictSame(load(), { jobs: 2, bytes: 9 })
  t.strictSame({ ...bench.backend.load('other') }, { jobs: 1, bytes: 10 })
  bench.backend.want('default', 1)
  const running = await bench.take()
  t.strictSame(load(), { jobs: 1, bytes: 5 })
  await bench.settle(running, retryIn(1_000))
  t.strictSame(load(), { jobs: 1, bytes: 5 }, 'a retry takes no room')
  await bench.backend.cancel(staged, 'user', '')
  t.strictSame(load(), { jobs: 0, bytes: 0 })
  await bench.backend.cancel(running.job.id, 'user', '')
  t.strictSame(load(), { jobs: 0, bytes: 0 })
})

promise('counts tell the jobs of each queue by state', async (t, bench) => {
  bench.backend.want('default', 1)
  await bench.end(completed)
  await bench.end(dead)
  await bench.end({ kind: 'cancelled', reason: 'user' })
  await bench.end(retryIn(5_000))
  await bench.enqueue({}, {}, { staged: true }, { queue: 'other' })
  await bench.take()
  const counts = await bench.backend.counts()
  t.match(counts.default, { pending: 1, waiting: 1, delayed: 1, retrying: 1, active: 1, completed: 1, failed: 1, cancelled: bench.backend.capabilities.cancelled ? 1 : 0 })
  t.match(counts.other, { pending: 0, waiting: 1, delayed: 0, retrying: 0, active: 0, completed: 0, failed: 0, cancelled: 0 })
})

promise('a delay asked for by the caller is not counted as retrying', async (t, bench) => {
  await bench.add({ delay: 5_000 })
  t.match((await bench.backend.counts()).default, { delayed: 1, retrying: 0, waiting: 0 })
}, { needs: 'delay' })

promise('counts tell how long the oldest waiting job could have started', async (t, bench) => {
  const oldest = async (): Promise<number> => (await bench.backend.counts()).default?.oldestWaitingMs ?? NaN
  t.equal(await oldest(), 0)
  await bench.add({ staged: true })
  await bench.add()
  await bench.pass(1_000)
  const before = bench.now()
  await bench.add()
  const waited = await oldest()
  t.ok(bench.livesByClock ? waited === 1_000 : waited >= 999, `${waited} ms`)
  bench.backend.want('default', 1)
  await bench.take()
  t.ok(await oldest() <= bench.now() - before, 'the rest has waited less')
})

promise('list tells jobs in the order of making, by state, name, id and limit', async (t, bench) => {
  const ids = await bench.enqueue({ name: 'a' }, { name: 'b' }, { name: 'a', staged: true }, { name: 'b' })
  const list = async (query: Parameters<Backend['list']>[0]) => (await bench.backend.list(query)).map(({ id }) => ids.indexOf(id))
  t.strictSame(await list({ limit: 100 }), [0, 1, 2, 3])
  t.strictSame(await list({ limit: Infinity }), [0, 1, 2, 3])
  t.strictSame(await list({ limit: 2 }), [0, 1])
  t.strictSame(await list({ limit: 2, after: ids[1] as string }), [2, 3])
  t.strictSame(await list({ limit: 9, name: 'b' }), [1, 3])
  t.strictSame(await list({ limit: 9, states: ['pending'] }), [2])
  t.strictSame(await list({ limit: 9, states: ['waiting', 'pending'], name: 'a', after: ids[0] as string }), [2])
  t.strictSame(await list({ limit: 9, states: ['failed'] }), [])
  t.strictSame(await list({ limit: 9, name: 'toString' }), [])
})

promise('list tells the jobs of one queue alone, and the newest first where that is asked', async (t, bench) => {
  const ids = await bench.enqueue({ name: 'a' }, { name: 'b', queue: 'other' }, { name: 'b' }, { name: 'a', queue: 'other' })
  const list = async (query: Parameters<Backend['list']>[0]) => (await bench.backend.list(query)).map(({ id }) => ids.indexOf(id))
  t.strictSame(await list({ limit: 9, queue: 'other' }), [1, 3])
  t.strictSame(await list({ limit: 9, queue: 'default', name: 'b' }), [2])
  t.strictSame(await list({ limit: 9, newestFirst: true }), [3, 2, 1, 0])
  t.strictSame(await list({ limit: 2, newestFirst: true }), [3, 2])
  t.strictSame(await list({ limit: 9, newestFirst: true, after: ids[2] as string }), [1, 0])
  t.strictSame(await list({ limit: 1, newestFirst: true, queue: 'other', after: ids[3] as string }), [1])
})

promise('a list after an id that was forgotten goes on from its place', async (t, bench) => {
  bench.backend.want('default', 1)
  const ids = [await bench.end(dead), await bench.end(dead), await bench.end(dead)] as const
  await bench.backend.remove([ids[1]])
  t.strictSame((await bench.backend.list({ limit: 9, after: ids[1] })).map(({ id }) => id), [ids[2]])
})

promise('many jobs in one call keep their order, and are counted', async (t, bench) => {
  const ids = await bench.enqueue(...Array.from({ length: 300 }, (_, i) => ({ payload: i })))
  t.strictSame((await bench.backend.list({ limit: 1_000 })).map(({ id }) => id), ids)
  t.equal((await bench.backend.counts()).default?.waiting, 300)
  t.equal(bench.backend.load('default').jobs, 300)
  bench.backend.want('default', 2)
  t.strictSame([(await bench.take()).payload, (await bench.take()).payload], [0, 1])
})

promise('jobs are enqueued all or none', async (t, bench) => {
  const jobs = [bench.job(), bench.job({ queue: 'no such queue' })]
  await t.rejects(async () => { await bench.backend.enqueue(jobs, false) })
  t.strictSame(await bench.states(jobs.map(({ id }) => id)), [undefined, undefined])
  t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
  t.match((await bench.backend.counts()).default, { pending: 0, waiting: 0 })
})

promise('a function is let go when its job ends, and such a job cannot be retried', async (t, bench) => {
  bench.backend.want('default', 1)
  const local = inlineWork()
  const [, failing] = await bench.enqueue({ local }, { local }) as [string, string]
  const first = await bench.take()
  t.equal(first.job.local?.run, local.run)
  await bench.settle(first, completed)
  const second = await bench.take()
  await bench.settle(second, dead)
  t.strictSame([first.job.local, second.job.local], [undefined, undefined])
  t.equal(await bench.backend.retry([failing], 0), 0)
  t.equal((await bench.read(failing)).state, 'failed')
}, { needs: 'inline' })

// The end

promise('after close no timer or socket is left, and nothing is delivered', async (t, bench) => {
  bench.backend.want('default', 1)
  await bench.end(retryIn(300))
  await bench.enqueue({}, {}, { staged: true, ttl: 200 })
  if (bench.backend.capabilities.delay) await bench.add({ delay: 100 })
  await bench.take()
  await bench.backend.close()
  t.equal(bench.clock.pendingTimers, 0)
  await bench.pass(500)
  t.equal(bench.delivered.length, 2)
})

promise('a verdict that comes after close leaves no timer', async (t, bench) => {
  bench.backend.want('default', 1)
  await bench.add()
  const staged = await bench.add({ staged: true, delay: bench.backend.capabilities.delay ? 300 : 0 })
  const running = await bench.take()
  await bench.backend.close()
  const late = async (act: () => unknown): Promise<void> => { try { await act() } catch { /* refused is fine too */ } }
  await late(() => bench.backend.note(running, { progress: 1 }))
  await late(() => bench.backend.settle(running, retryIn(200)))
  await late(() => bench.backend.release([staged]))
  await late(() => { bench.backend.want('default', 5) })
  await bench.rest()
  t.equal(bench.clock.pendingTimers, 0)
  await bench.pass(500)
  t.equal(bench.delivered.length, 1)
})

// Features that a backend may lack as a whole

deduplicationContract(promise)
scheduleContract(promise)
groupsContract(promise)
flowsContract(promise)
limitsContract(promise)

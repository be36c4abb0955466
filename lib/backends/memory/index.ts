/** The backend in this process's memory: nothing to install, at most once per attempt, lost with the process. */
import type { Backend, BackendSettings, CancelAnswer, Change, FlowStore, JobQuery, Load, Note, QueueCounts, Sink, Tally } from '../../backend.ts'
import { systemClock, type Clock } from '../../clock.ts'
import { errors } from '../../errors.ts'
import {
  isFinal, type Attempt, type CancelReason, type JobRecord, type JobState, type NewJob, type Outcome, type Duplicate, type Duplicates, type FlowNode
} from '../../job.ts'
import type { Copied } from '../../json.ts'
import { endingOf, remember, toRecord, type Entry, type EntryAttempt } from './entry.ts'
import { parentOf } from './flows.ts'
import { Lifecycle } from './lifecycle.ts'
import type { Queue } from './queue.ts'
import { MemorySchedules } from './schedules.ts'

/** Options of `memory`. */
export interface MemoryOptions {
  /** The time to live by, also for timeouts and stamps. For tests. @default the system's */
  clock?: Clock
}

/**
 * Jobs in memory: the default. Nothing needs to be installed, and nothing survives the process. Never throws; one that is
 * given to two applications makes `ready()` of the second reject with FST_BG_BAD_OPTION.
 */
export function memory (options: MemoryOptions = {}): Backend {
  return new Memory(options.clock ?? systemClock)
}

/** Also the ground of the backends for tests, which differ in when jobs start. */
/** Ms between the wall clock and ours from which on somebody has set it. */
const CLOCK_IS_SET = 1_000

export class Memory implements Backend {
  readonly name: string = 'memory'
  readonly durable = false
  readonly capabilities = { inline: true, delay: true, ttl: true, priority: true, limiter: true, deduplication: true, groups: true, cancelled: true, patch: true }
  readonly clock: Clock
  readonly schedules = new MemorySchedules()
  readonly flows: FlowStore = { add: (root) => { this.#addFlow(root) } }
  #sink: Sink | undefined
  #started: Lifecycle | undefined
  /** The offset in use. */
  #kept = -Infinity

  constructor (clock: Clock) {
    this.clock = clock
  }

  start (sink: Sink, settings: BackendSettings): void {
    if (this.#started !== undefined) throw new errors.BadOption('options.backend', 'a memory() of its own', 'one that belongs to another application')
    this.#sink = sink
    this.#started = new Lifecycle(this.clock, sink, settings)
    const { fire } = settings
    if (fire === undefined) return
    const isAlive = (id: string): boolean => {
      const last = this.#started?.index.get(id)
      return last !== undefined && !isFinal(last.state)
    }
    this.schedules.start({ clock: this.clock, sink, fire, isAlive, add: (job) => this.enqueue([job], false) })
  }

  close (): void {
    this.schedules.close()
    this.#started?.close()
  }

  want (name: string, n: number): void {
    const queue = this.#jobs.queue(name)
    queue.want = n
    this.#jobs.stir(queue)
  }

  enqueue (jobs: readonly NewJob[], staged: boolean): Duplicates | undefined {
    const now = this.clock.monotonic()
    for (const job of jobs) this.#jobs.queue(job.queue) // throws before anything has changed
    let duplicates: Map<string, Duplicate> | undefined
    for (const job of jobs) {
      const other = job.policy.deduplication === undefined ? undefined : this.#jobs.ids.enter(job)
      if (other !== undefined) {
        (duplicates ??= new Map()).set(job.id, other)
        if (!staged) this.release([other.id])
        continue
      }
      const entry = this.#jobs.add(job, now)
      if (staged) continue
      this.#jobs.admit(entry, now)
      this.#jobs.stir(entry.home)
    }
    return duplicates
  }

  #addFlow (root: FlowNode): void {
    const check = ({ job, children }: FlowNode): void => {
      this.#jobs.queue(job.queue) // throws before anything has changed
      for (const child of children) check(child)
    }
    check(root)
    this.#jobs.families.add(root, this.clock.monotonic())
  }

  /** Delivers one job that waits or is delayed, whatever `want` says. Answers whether there is one. */
  begin (id: string): boolean {
    const entry = this.#find(id)
    if (entry?.state !== 'waiting' && entry?.state !== 'delayed') return false
    this.#jobs.begin(entry, this.clock.monotonic())
    return true
  }

  release (ids: readonly string[]): void {
    const now = this.clock.monotonic()
    const queues = new Set<Queue<Entry>>()
    for (const id of ids) {
      const entry = this.#jobs.index.get(id)
      if (entry?.state !== 'pending') continue
      this.#jobs.admit(entry, now)
      queues.add(entry.home)
    }
    for (const queue of queues) this.#jobs.pump(queue, now)
  }

  settle (attempt: Attempt, outcome: Outcome): void {
    const { entry } = attempt as EntryAttempt
    if (entry.attempt !== attempt) return // its job has ended or moved on without it
    const now = this.clock.monotonic()
    entry.attempt = undefined
    this.#jobs.settled(attempt as EntryAttempt, now)
    if (entry.ending !== undefined) entry.ending.overdue = false
    this.#store(entry, outcome, now)
    // Who gives a job back at once would be given it again at once.
    if (outcome.kind === 'released') this.#jobs.stir(entry.home)
    else this.#jobs.pump(entry.home, now)
  }

  #store (entry: Entry, outcome: Outcome, now: number): void {
    switch (outcome.kind) {
      case 'completed':
        if (entry.ending !== undefined) delete entry.ending.error
        entry.result = outcome.result
        if (outcome.resultOmitted !== undefined) endingOf(entry).resultOmitted = outcome.resultOmitted
        return this.#jobs.end(entry, 'completed', now)
      case 'retry':
        remember(entry, outcome.error, this.clock.now())
        if (!outcome.charged) entry.attemptsMade--
        return this.#jobs.postpone(entry, outcome.delay, 'retry', now)
      case 'dead':
        remember(entry, outcome.error, this.clock.now())
        endingOf(entry).failure = outcome.failure
        return this.#jobs.end(entry, 'failed', now)
      case 'cancelled':
        endingOf(entry).reason = outcome.reason
        return this.#jobs.end(entry, 'cancelled', now)
      case 'released':
        entry.attemptsMade--
        return this.#jobs.postpone(entry, outcome.delay, 'delay', now)
    }
  }

  note (attempt: Attempt, note: Note): void {
    const { entry } = attempt as EntryAttempt
    if ('started' in note) this.#jobs.started(attempt as EntryAttempt, this.clock.monotonic())
    else if (entry.attempt === attempt) Object.assign(endingOf(entry), note)
  }

  cancel (id: string, reason: CancelReason, detail: string): CancelAnswer {
    const entry = this.#find(id)
    if (entry === undefined) return undefined
    if (isFinal(entry.state)) return 'final'
    if (entry.attempt !== undefined) {
      this.#sink?.abort(entry.attempt, 'cancel', detail)
      return 'cancelling'
    }
    const children = entry.state === 'waiting-children' && reason !== 'shutdown' ? this.#jobs.families.waitingFor(entry) : []
    endingOf(entry).reason = reason
    this.#jobs.end(entry, 'cancelled', this.clock.monotonic())
    for (const child of children) if (this.cancel(child.id, reason, detail) === 'cancelled') this.#sink?.report({ kind: 'cancelled', job: child.job, reason })
    return 'cancelled'
  }

  retry (ids: readonly string[], spacing: number, payloads?: ReadonlyMap<string, Copied>): number {
    const now = this.clock.monotonic()
    let done = 0
    for (const id of ids) {
      const entry = this.#find(id)
      if (entry?.state !== 'failed' || !endingOf(entry).retryable) continue
      const other = payloads?.get(id)
      if (other !== undefined) {
        entry.job.payload = other.value
        entry.job.bytes = other.bytes
      }
      this.#jobs.revive(entry, done++ * spacing, now)
      this.#jobs.stir(entry.home)
    }
    return done
  }

  promote (id: string): boolean {
    const entry = this.#find(id)
    if (entry?.state !== 'delayed') return false
    this.#jobs.postpone(entry, 0, 'delay', this.clock.monotonic())
    this.#jobs.stir(entry.home)
    return true
  }

  remove (ids: readonly string[]): number {
    let done = 0
    for (const id of ids) {
      const entry = this.#find(id)
      if (entry === undefined || !isFinal(entry.state)) continue
      this.#jobs.forget(entry)
      done++
    }
    return done
  }

  get (id: string): JobRecord | undefined {
    const entry = this.#find(id)
    return entry === undefined ? undefined : this.#record(entry)
  }

  list (query: JobQuery): JobRecord[] {
    this.#jobs.sweep()
    const found: JobRecord[] = []
    const { index } = this.#jobs
    for (const entry of query.newestFirst === true ? index.before(query.after) : index.after(query.after)) {
      if (found.length >= query.limit) break
      if (query.queue !== undefined && entry.job.queue !== query.queue) continue
      if (query.name !== undefined && entry.job.name !== query.name) continue
      if (query.states !== undefined && !query.states.includes(this.#shown(entry))) continue
      found.push(this.#record(entry))
    }
    return found
  }

  counts (): Record<string, QueueCounts> {
    this.#jobs.sweep()
    const now = this.clock.monotonic()
    const counts: Record<string, QueueCounts> = Object.create(null)
    for (const [name, queue] of this.#jobs.queues) counts[name] = queue.counts(now)
    return counts
  }

  tally (): Tally[] {
    this.#jobs.sweep()
    const { queues, index } = this.#jobs
    return [...queues.values()].flatMap((queue) => queue.tally(() => index.after(undefined), this.clock.monotonic()))
  }

  load (queue: string): Load {
    return this.#jobs.queue(queue).load
  }

  watch (listener: (change: Change) => void): () => void {
    this.#jobs.listeners.add(listener)
    return () => { this.#jobs.listeners.delete(listener) }
  }

  get #jobs (): Lifecycle {
    if (this.#started === undefined) throw new errors.NotReady('a backend that is not started')
    return this.#started
  }

  #record (entry: Entry): JobRecord {
    const record = toRecord(entry, this.#offset, entry.home.holdsUntil(entry, this.clock.monotonic()))
    const parent = parentOf(entry)
    return parent === undefined ? record : { ...record, parent }
  }

  /** A waiting job that its queue's limiter holds back is shown as delayed. */
  #shown (entry: Entry): JobState {
    if (entry.state !== 'waiting') return entry.state
    return entry.home.holdsUntil(entry, this.clock.monotonic()) === undefined ? 'waiting' : 'delayed'
  }

  /**
   * Turns instants of the monotonic clock into wall time. Two clocks are never read at once: it is kept, or a job would
   * tell other times at each reading.
   */
  get #offset (): number {
    const offset = this.clock.now() - this.clock.monotonic()
    if (Math.abs(offset - this.#kept) > CLOCK_IS_SET) this.#kept = offset
    return this.#kept
  }

  #find (id: string): Entry | undefined {
    this.#jobs.sweep()
    return this.#jobs.index.get(id)
  }
}

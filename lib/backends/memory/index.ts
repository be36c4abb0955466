/** The backend in this process's memory: nothing to install, at most once per attempt, lost with the process. */
import type { Backend, CancelAnswer, Change, JobQuery, Load, QueueCounts, Retention, Sink } from '../../backend.ts'
import { systemClock, type Clock } from '../../clock.ts'
import { isFinal, type Attempt, type CancelReason, type JobRecord, type NewJob, type Outcome } from '../../job.ts'
import type { Json } from '../../json.ts'
import { endingOf, remember, toRecord, type Entry, type EntryAttempt } from './entry.ts'
import { Lifecycle, type Queue } from './lifecycle.ts'

export interface MemoryOptions {
  /** The time to live by, also for timeouts and stamps. For tests. @default the system's */
  clock?: Clock
}

/** Jobs in memory: the default. Nothing needs to be installed, and nothing survives the process. */
export function memory (options: MemoryOptions = {}): Backend {
  return new Memory(options.clock ?? systemClock)
}

class Memory implements Backend {
  readonly name = 'memory'
  readonly durable = false
  readonly capabilities = { inline: true, delay: true, ttl: true, priority: true }
  readonly clock: Clock
  #sink: Sink | undefined
  #started: Lifecycle | undefined

  constructor (clock: Clock) {
    this.clock = clock
  }

  start (sink: Sink, settings: { queues: readonly string[], retention: Retention }): void {
    if (this.#started !== undefined) throw new Error('this memory() belongs to another application; make one for each')
    this.#sink = sink
    this.#started = new Lifecycle(this.clock, sink, settings)
  }

  close (): void {
    this.#started?.close()
  }

  want (name: string, n: number): void {
    const queue = this.#jobs.queue(name)
    queue.want = n
    this.#jobs.stir(queue)
  }

  enqueue (jobs: readonly NewJob[]): void {
    const now = this.clock.monotonic()
    for (const job of jobs) {
      this.#jobs.add(job, now)
      if (!job.staged) this.#jobs.stir(this.#jobs.queue(job.queue))
    }
  }

  release (ids: readonly string[]): void {
    const now = this.clock.monotonic()
    const queues = new Set<Queue>()
    for (const id of ids) {
      const entry = this.#jobs.index.get(id)
      if (entry?.state !== 'pending') continue
      this.#jobs.admit(entry, now)
      queues.add(this.#jobs.queue(entry.job.queue))
    }
    for (const queue of queues) this.#jobs.pump(queue)
  }

  settle (attempt: Attempt, outcome: Outcome): void {
    const { entry } = attempt as EntryAttempt
    if (entry.attempt !== attempt) return // its job has ended or moved on without it
    entry.attempt = undefined
    if (entry.ending !== undefined) entry.ending.overdue = false
    this.#store(entry, outcome, this.clock.monotonic())
    this.#jobs.pump(this.#jobs.queue(entry.job.queue))
  }

  #store (entry: Entry, outcome: Outcome, now: number): void {
    switch (outcome.kind) {
      case 'completed':
        if (entry.ending !== undefined) delete entry.ending.error
        if (outcome.result !== undefined) endingOf(entry).result = outcome.result
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

  note (attempt: Attempt, note: { progress: Json } | { overdue: true }): void {
    const { entry } = attempt as EntryAttempt
    if (entry.attempt === attempt) Object.assign(endingOf(entry), note)
  }

  cancel (id: string, reason: CancelReason, detail: string): CancelAnswer {
    const entry = this.#find(id)
    if (entry === undefined) return undefined
    if (isFinal(entry.state)) return 'final'
    if (entry.attempt !== undefined) {
      this.#sink?.abort(entry.attempt, 'cancel', detail)
      return 'cancelling'
    }
    endingOf(entry).reason = reason
    this.#jobs.end(entry, 'cancelled', this.clock.monotonic())
    return 'cancelled'
  }

  retry (ids: readonly string[], spacing: number): number {
    const now = this.clock.monotonic()
    let done = 0
    for (const id of ids) {
      const entry = this.#find(id)
      if (entry === undefined || !entry.retryable) continue
      this.#jobs.revive(entry, done++ * spacing, now)
      this.#jobs.stir(this.#jobs.queue(entry.job.queue))
    }
    return done
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
    return entry === undefined ? undefined : toRecord(entry, this.#offset)
  }

  list (query: JobQuery): JobRecord[] {
    this.#jobs.sweep()
    const found: JobRecord[] = []
    for (const entry of this.#jobs.index.values()) {
      if (found.length >= query.limit) break
      if (query.after !== undefined && entry.job.id <= query.after) continue
      if (query.name !== undefined && entry.job.name !== query.name) continue
      if (query.states !== undefined && !query.states.includes(entry.state)) continue
      found.push(toRecord(entry, this.#offset))
    }
    return found
  }

  counts (): Record<string, QueueCounts> {
    this.#jobs.sweep()
    const now = this.clock.monotonic()
    const counts: Record<string, QueueCounts> = Object.create(null)
    for (const [name, queue] of this.#jobs.queues) {
      const { 'waiting-children': _, ...states } = queue.counts
      counts[name] = { ...states, oldestWaitingMs: Math.max(0, Math.round(now - Math.min(now, queue.ready.oldest()))) }
    }
    return counts
  }

  load (queue: string): Load {
    return this.#jobs.queue(queue).load
  }

  watch (listener: (change: Change) => void): () => void {
    this.#jobs.listeners.add(listener)
    return () => { this.#jobs.listeners.delete(listener) }
  }

  get #jobs (): Lifecycle {
    if (this.#started === undefined) throw new Error('the backend is not started')
    return this.#started
  }

  /** Turns instants of the monotonic clock into wall time. */
  get #offset (): number {
    return this.clock.now() - this.clock.monotonic()
  }

  #find (id: string): Entry | undefined {
    this.#jobs.sweep()
    return this.#jobs.index.get(id)
  }
}

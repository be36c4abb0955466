/**
 * How jobs move through their states, and attempts come up.
 *
 * An entry is in exactly one place: `pending` in none but the index, `waiting` in its queue's ReadyQueue, `delayed`
 * among the deadlines, `active` with its attempt, ended in `Kept`. Only `#move` changes a state.
 */
import type { Change, Load, QueueCounts, Retention, Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import { Deadlines } from '../../deadlines.ts'
import { MOVES, type DelayReason, type FinalState, type JobState, type NewJob } from '../../job.ts'
import { Entry, EntryAttempt, endingOf } from './entry.ts'
import { Kept, ReadyQueue } from './lists.ts'

export class Queue {
  readonly name: string
  readonly ready = new ReadyQueue()
  readonly counts: Omit<QueueCounts, 'oldestWaitingMs'> & { 'waiting-children': number } = {
    pending: 0, waiting: 0, delayed: 0, retrying: 0, 'waiting-children': 0, active: 0, completed: 0, failed: 0, cancelled: 0
  }

  /** What never started. */
  readonly load: Load = { jobs: 0, bytes: 0 }
  want = 0
  /** A pump is on its way. */
  stirred = false

  constructor (name: string) {
    this.name = name
  }
}

export class Lifecycle {
  /** In the order of making, which is the order of ids too. */
  readonly index = new Map<string, Entry>()
  readonly queues = new Map<string, Queue>()
  readonly listeners = new Set<(change: Change) => void>()
  readonly #clock: Clock
  readonly #sink: Sink
  readonly #deadlines: Deadlines<Entry>
  readonly #done: Kept
  readonly #dead: Kept
  #closed = false

  constructor (clock: Clock, sink: Sink, settings: { queues: readonly string[], retention: Retention }) {
    this.#clock = clock
    this.#sink = sink
    this.#deadlines = new Deadlines(clock, (entry) => this.#reach(entry))
    this.#done = new Kept(settings.retention.completed, (entry) => this.#drop(entry))
    this.#dead = new Kept(settings.retention.failed, (entry) => {
      this.#drop(entry)
      sink.report({ kind: 'evicted', job: entry.job })
    })
    for (const name of settings.queues) this.queues.set(name, new Queue(name))
  }

  queue (name: string): Queue {
    const queue = this.queues.get(name)
    if (queue === undefined) throw new Error(`no queue "${name}"`)
    return queue
  }

  add (job: NewJob, now: number): void {
    const entry = new Entry(job, now)
    const queue = this.queue(job.queue)
    this.index.set(job.id, entry)
    queue.load.jobs++
    queue.load.bytes += job.bytes
    queue.counts.pending++
    if (job.staged) this.#watchOver(entry)
    else this.admit(entry, now)
  }

  /** The response, where there was one, is over: the job waits, or waits for its time. */
  admit (entry: Entry, now: number): void {
    if (entry.notBefore > now) this.#delay(entry, 'delay', now)
    else this.#makeReady(entry, now)
  }

  postpone (entry: Entry, delay: number, reason: DelayReason, now: number): void {
    entry.notBefore = now + delay
    if (delay > 0) this.#delay(entry, reason, now)
    else this.#makeReady(entry, now)
  }

  end (entry: Entry, state: FinalState, now: number): void {
    if (entry.state === 'waiting') this.queue(entry.job.queue).ready.delete(entry)
    this.#leaveDelay(entry)
    this.#deadlines.delete(entry)
    this.#leaveRoom(entry)
    if (entry.job.inline !== undefined) {
      endingOf(entry).retryable = false
      entry.job.inline = undefined
      entry.job.context = undefined
    }
    entry.finishedAt = this.#clock.now()
    this.#move(entry, state, now)
    this.#keeper(state).add(entry, now)
  }

  /** A dead letter comes back to life. */
  revive (entry: Entry, delay: number, now: number): void {
    this.#dead.delete(entry)
    entry.attemptsMade = 0
    entry.finishedAt = 0
    const { history } = endingOf(entry)
    entry.ending = undefined
    if (history !== undefined) endingOf(entry).history = history
    this.postpone(entry, delay, 'delay', now)
  }

  forget (entry: Entry): void {
    this.#keeper(entry.state as FinalState).delete(entry)
    this.#drop(entry)
  }

  /** Forgets what `retention` no longer covers. */
  sweep (): void {
    const now = this.#clock.monotonic()
    this.#done.sweep(now)
    this.#dead.sweep(now)
  }

  /** Delivers in a later turn, so that nothing starts inside its caller's stack. */
  stir (queue: Queue): void {
    if (queue.stirred || queue.counts.active >= queue.want) return
    queue.stirred = true
    this.#clock.soon(() => {
      queue.stirred = false
      this.pump(queue)
    })
  }

  pump (queue: Queue): void {
    if (this.#closed || queue.counts.active >= queue.want) return
    const attempts: EntryAttempt[] = []
    while (queue.counts.active < queue.want) {
      const entry = queue.ready.shift()
      if (entry === undefined) break
      attempts.push(this.#begin(entry))
    }
    if (attempts.length > 0) this.#sink.deliver(attempts)
  }

  close (): void {
    this.#closed = true
    this.#deadlines.close()
    this.listeners.clear()
  }

  #begin (entry: Entry): EntryAttempt {
    const now = this.#clock.monotonic()
    const waited = Math.max(0, now - entry.since) // a timer that is a little early stamps its due time
    this.#deadlines.delete(entry)
    this.#leaveRoom(entry)
    this.#move(entry, 'active', now)
    entry.attemptsMade++
    entry.startedAt = this.#clock.now()
    const attempt = new EntryAttempt(entry, waited)
    entry.attempt = attempt
    return attempt
  }

  /** Every change of state passes here. */
  #move (entry: Entry, state: JobState, now: number): void {
    if (!MOVES[entry.state].includes(state)) throw new Error(`a ${entry.state} job cannot become ${state}`)
    const { counts } = this.queue(entry.job.queue)
    counts[entry.state]--
    counts[state]++
    entry.state = state
    entry.since = now
    for (const listener of this.listeners) listener({ id: entry.job.id, state })
  }

  #delay (entry: Entry, reason: DelayReason, now: number): void {
    entry.delayReason = reason
    if (reason !== 'delay') this.queue(entry.job.queue).counts.retrying++
    this.#move(entry, 'delayed', now)
    this.#watchOver(entry)
  }

  #makeReady (entry: Entry, now: number): void {
    this.#leaveDelay(entry)
    this.#move(entry, 'waiting', now)
    this.queue(entry.job.queue).ready.push(entry)
    this.#watchOver(entry)
  }

  #leaveDelay (entry: Entry): void {
    if (entry.state !== 'delayed') return
    if (entry.delayReason !== 'delay') this.queue(entry.job.queue).counts.retrying--
    entry.delayReason = undefined
  }

  /** Sets the entry's next deadline: the end of its delay, or of its time to live. */
  #watchOver (entry: Entry): void {
    const due = Math.min(entry.state === 'delayed' ? entry.notBefore : Infinity, entry.started ? Infinity : entry.expires)
    if (due === Infinity) this.#deadlines.delete(entry)
    else this.#deadlines.set(entry, due)
  }

  #reach (entry: Entry): void {
    const now = Math.max(this.#clock.monotonic(), entry.due)
    if (!entry.started && now >= entry.expires) return this.#expire(entry, now)
    this.#makeReady(entry, now)
    this.pump(this.queue(entry.job.queue))
  }

  #expire (entry: Entry, now: number): void {
    const ending = endingOf(entry)
    ending.failure = 'expired'
    ending.error = { name: 'ExpiredError', code: 'FST_BG_EXPIRED', message: `not started within its ttl of ${entry.job.ttl} ms` }
    this.end(entry, 'failed', now)
    this.#sink.report({ kind: 'expired', job: entry.job })
  }

  /** Out of the waiting room, for good. */
  #leaveRoom (entry: Entry): void {
    if (entry.started) return
    entry.started = true
    const { load } = this.queue(entry.job.queue)
    load.jobs--
    load.bytes -= entry.job.bytes
  }

  #keeper (state: FinalState): Kept {
    return state === 'failed' ? this.#dead : this.#done
  }

  #drop (entry: Entry): void {
    this.queue(entry.job.queue).counts[entry.state as FinalState]--
    this.index.delete(entry.job.id)
  }
}

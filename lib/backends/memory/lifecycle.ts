/**
 * How jobs move through their states, and attempts come up.
 *
 * An entry is in exactly one place: `pending` in none but the index, `waiting` in its queue's ReadyQueue, `delayed`
 * among the deadlines, `active` with its attempt, ended in `Kept`. Only `#move` changes a state.
 */
import type { BackendSettings, Change, Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import { Deadlines } from '../../deadlines.ts'
import { describe } from '../../describe.ts'
import { errors } from '../../errors.ts'
import type { DelayReason, FinalState, NewJob } from '../../job.ts'
import { ById } from './by-id.ts'
import { Deduplication } from './deduplication.ts'
import { Entry, EntryAttempt, GroupedAttempt, Timing, endingOf } from './entry.ts'
import { childrenOf, Families, type FlowLife } from './flows.ts'
import type { Group } from './groups.ts'
import { Kept } from './lists.ts'
import { Queue, type Standing } from './queue.ts'

export class Lifecycle implements FlowLife {
  /** In the order of making, which is the order of ids too. */
  readonly index = new ById<Entry>()
  readonly queues = new Map<string, Queue<Entry>>()
  readonly listeners = new Set<(change: Change) => void>()
  readonly ids: Deduplication
  readonly #clock: Clock
  readonly #sink: Sink
  readonly #deadlines: Deadlines<Timing>
  readonly #limits: Deadlines<Queue<Entry> | Group<Entry>>
  readonly #done: Kept<Entry>
  readonly #dead: Kept<Entry>
  /** From the first flow on. */
  #families: Families | undefined
  #closed = false

  constructor (clock: Clock, sink: Sink, settings: BackendSettings) {
    this.#clock = clock
    this.ids = new Deduplication(clock)
    this.#sink = sink
    this.#deadlines = new Deadlines(clock, (timing) => this.#reach(timing))
    this.#limits = new Deadlines(clock, (limited) => { this.#unlimit(limited) })
    this.#done = new Kept(settings.retention.completed, (entry) => this.#drop(entry))
    this.#dead = new Kept(settings.retention.failed, (entry) => {
      this.#drop(entry)
      sink.report({ kind: 'evicted', job: entry.job })
    })
    for (const [name, queue] of settings.queues) this.queues.set(name, new Queue<Entry>(name, queue, (group, until) => { this.#limits.set(group, until) }))
  }

  queue (name: string): Queue<Entry> {
    const queue = this.queues.get(name)
    if (queue === undefined) throw new Error(`no queue "${name}"`)
    return queue
  }

  /** A job of its own right: it may wait, or stays `pending` until it is admitted. */
  add (job: NewJob, now: number): Entry {
    const queue = this.queue(job.queue)
    const entry = new Entry(job, queue, now)
    this.index.add(entry)
    queue.load.jobs++
    queue.load.bytes += job.bytes
    queue.pending.enter(entry)
    if (entry.timing !== undefined) this.#watchOver(entry, entry.timing)
    return entry
  }

  /** The response, where there was one, is over: the job waits, or waits for its time. */
  admit (entry: Entry, now: number): void {
    if (entry.timing !== undefined && entry.timing.notBefore > now) this.#delay(entry, entry.timing, 'delay', now)
    else this.#makeReady(entry, now)
  }

  postpone (entry: Entry, delay: number, reason: DelayReason, now: number): void {
    if (delay === 0) return this.#makeReady(entry, now)
    entry.timing ??= new Timing(entry, 0, Infinity)
    entry.timing.notBefore = now + delay
    this.#delay(entry, entry.timing, reason, now)
  }

  end (entry: Entry, state: FinalState, now: number): void {
    if (entry.state === 'waiting') entry.home.delete(entry)
    this.#leaveDelay(entry)
    if (entry.timing !== undefined) this.#deadlines.delete(entry.timing)
    this.#leaveRoom(entry)
    const { job } = entry
    if (job.local !== undefined) {
      if (state === 'failed' && job.local.run !== undefined) endingOf(entry).retryable = false
      job.local = undefined
    }
    if (job.policy.deduplication !== undefined) this.ids.ended(job, state)
    this.#move(entry, entry.home[state], now)
    this.#keeper(state).add(entry, now)
    this.#families?.ended(entry, state, now)
  }

  get families (): Families {
    return (this.#families ??= new Families(this, this.#sink))
  }

  awaitChildren (entry: Entry, now: number): void {
    this.#move(entry, entry.home['waiting-children'], now)
  }

  /** It waited for a child that did not complete. */
  fail (entry: Entry, child: Entry, now: number): void {
    const ending = endingOf(entry)
    ending.failure = 'unrecoverable'
    ending.error = describe(new errors.ChildFailed(child.id))
    this.end(entry, 'failed', now)
  }

  /** A dead letter comes back to life. */
  revive (entry: Entry, delay: number, now: number): void {
    this.#dead.delete(entry)
    entry.attemptsMade = 0
    entry.startedAt = -1
    entry.result = undefined
    const { history } = endingOf(entry)
    entry.ending = undefined
    if (history !== undefined) endingOf(entry).history = history
    if (entry.job.policy.deduplication !== undefined) this.ids.revived(entry.job)
    this.postpone(entry, delay, 'retry', now)
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
  stir (queue: Queue<Entry>): void {
    if (queue.stirred || !queue.hungry) return
    queue.stirred = true
    this.#clock.soon(() => {
      queue.stirred = false
      this.pump(queue, this.#clock.monotonic())
    })
  }

  pump (queue: Queue<Entry>, now: number): void {
    if (this.#closed || !queue.hungry || queue.waiting.jobs === 0) return
    if (!this.#mayStart(queue, now)) return
    const first = queue.shift()
    if (first === undefined) return
    const attempts = [this.#begin(first, now)] // nearly always the only one
    while (queue.hungry && queue.waiting.jobs > 0 && this.#mayStart(queue, now)) {
      const next = queue.shift()
      if (next === undefined) break
      attempts.push(this.#begin(next, now))
    }
    this.#sink.deliver(attempts)
  }

  /** Starts this one, out of its turn. */
  begin (entry: Entry, now: number): void {
    if (entry.state === 'waiting') entry.home.delete(entry)
    this.#leaveDelay(entry)
    this.#sink.deliver([this.#begin(entry, now)])
  }

  /** A granted start has happened. */
  started (attempt: EntryAttempt, now: number): void {
    const { home: queue, group } = attempt.entry
    attempt.begun = true
    if (attempt.granted !== undefined) attempt.granted.at = now
    if (attempt instanceof GroupedAttempt && group !== undefined) {
      if (attempt.grantedByGroup !== undefined) attempt.grantedByGroup.at = now
      queue.groups?.started(group, now)
    }
    this.#mayStart(queue, now)
  }

  /** An attempt is over. */
  settled (attempt: EntryAttempt, now: number): void {
    const { home: queue, group } = attempt.entry
    if (attempt.granted !== undefined && !attempt.begun) queue.limiter?.takeBack(attempt.granted)
    if (attempt instanceof GroupedAttempt && group !== undefined) queue.groups?.ended(group, now, attempt.begun ? undefined : attempt.grantedByGroup)
  }

  close (): void {
    this.#closed = true
    this.#deadlines.close()
    this.#limits.close()
    this.listeners.clear()
  }

  #unlimit (limited: Queue<Entry> | Group<Entry>): void {
    const now = this.#clock.monotonic()
    if (limited instanceof Queue) return this.pump(limited, now)
    const queue = this.queue(limited.queue)
    queue.groups?.reach(limited, now)
    this.pump(queue, now)
  }

  /** False while the limiter forbids it; the queue is pumped again when it does not. */
  #mayStart (queue: Queue<Entry>, now: number): boolean {
    const until = queue.limitedUntil(now)
    if (until !== undefined && until < Infinity) this.#limits.set(queue, until)
    return until === undefined
  }

  #begin (entry: Entry, now: number): EntryAttempt {
    const waited = Math.max(0, Math.floor(now) - entry.since) // a timer that is a little early stamps its due time
    if (entry.timing !== undefined) this.#deadlines.delete(entry.timing)
    this.#leaveRoom(entry)
    entry.attemptsMade++
    entry.startedAt = Math.floor(now)
    const granted = entry.home.limiter?.grant()
    const attempt = entry.group === undefined
      ? new EntryAttempt(entry, waited, granted)
      : new GroupedAttempt(entry, waited, granted, entry.home.groupsInTurn.begun(entry.group, now))
    entry.attempt = attempt
    const children = this.#families === undefined ? undefined : childrenOf(entry)
    if (children !== undefined) attempt.children = children
    this.#move(entry, entry.home.active, now) // last: a listener may read or cancel the job
    return attempt
  }

  /** Every change of state passes here. */
  #move (entry: Entry, to: Standing<Entry>, now: number): void {
    const { standing } = entry
    if (!standing.next.includes(to.state)) throw new Error(`a ${standing.state} job cannot become ${to.state}`)
    standing.leave(entry)
    to.enter(entry)
    entry.standing = to
    entry.since = Math.floor(now)
    for (const listener of this.listeners) listener(entry)
  }

  #delay (entry: Entry, timing: Timing, reason: DelayReason, now: number): void {
    timing.delayReason = reason
    if (reason !== 'delay') entry.home.retrying++
    this.#move(entry, entry.home.delayed, now)
    this.#watchOver(entry, timing)
  }

  #makeReady (entry: Entry, now: number): void {
    this.#leaveDelay(entry)
    this.#move(entry, entry.home.waiting, now)
    entry.home.push(entry, now)
    if (entry.timing !== undefined) this.#watchOver(entry, entry.timing)
  }

  #leaveDelay (entry: Entry): void {
    if (entry.state === 'delayed' && entry.timing?.delayReason !== 'delay') entry.home.retrying--
  }

  /** Sets the entry's next deadline: the end of its delay, or of its time to live. */
  #watchOver (entry: Entry, timing: Timing): void {
    const due = Math.min(entry.state === 'delayed' ? timing.notBefore : Infinity, entry.takesRoom ? timing.expires : Infinity)
    if (due === Infinity) this.#deadlines.delete(timing)
    else this.#deadlines.set(timing, due)
  }

  #reach (timing: Timing): void {
    const { entry } = timing
    const now = Math.max(this.#clock.monotonic(), timing.due)
    if (entry.takesRoom && now >= timing.expires) return this.#expire(entry, now)
    this.#makeReady(entry, now)
    this.pump(entry.home, this.#clock.monotonic()) // the limiter is exact, the deadline may be a millisecond early
  }

  #expire (entry: Entry, now: number): void {
    const ending = endingOf(entry)
    ending.failure = 'expired'
    ending.error = { name: 'ExpiredError', code: 'FST_BG_EXPIRED', message: `not started within its ttl of ${entry.job.policy.ttl} ms` }
    this.end(entry, 'failed', now)
    this.#sink.report({ kind: 'expired', job: entry.job })
  }

  /** Out of the waiting room, for good. */
  #leaveRoom (entry: Entry): void {
    if (!entry.takesRoom) return
    entry.startedAt = -1
    const { load } = entry.home
    load.jobs--
    load.bytes -= entry.job.bytes
  }

  #keeper (state: FinalState): Kept<Entry> {
    return state === 'failed' ? this.#dead : this.#done
  }

  #drop (entry: Entry): void {
    entry.standing.leave(entry)
    this.index.delete(entry)
    if (entry.job.policy.deduplication !== undefined) this.ids.forgotten(entry.job)
  }
}

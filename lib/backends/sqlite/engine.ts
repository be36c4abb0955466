/**
 * What runs while the backend is open: transactions, with what rides along in each (delays that end, jobs that are
 * forgotten, claims), and the look-out for other processes. Nothing of it outlives `close`.
 */
import type { BackendSettings, Change, Sink } from '../../backend.ts'
import type { Clock, Timer } from '../../clock.ts'
import { describe } from '../../describe.ts'
import type { Policy } from '../../job.ts'
import { TASK_DEFAULTS } from '../../job-options.ts'
import { Alarm } from './alarm.ts'
import { Arrivals } from './arrivals.ts'
import { claim } from './attempts.ts'
import { Commits } from './commits.ts'
import { forgetIds } from './deduplication.ts'
import { decideParents } from './flows.ts'
import { tidyStarts } from './groups.ts'
import { fitStarts } from './limits.ts'
import { BEAT, Processes } from './processes.ts'
import { Reads } from './reads.ts'
import { rideOf } from './ride.ts'
import type { ClaimedAttempt } from './row.ts'
import { Told } from './told.ts'
import { Transaction, type Connection } from './transaction.ts'
import { leave, nextDue, passTime, sweep } from './upkeep.ts'
import { Kept, Waiting } from './waiting.ts'

/** Ms between two looks for news of other processes. */
const LOOK = 100
/** Attempts claimed for a queue in one transaction. */
const CLAIM_BATCH = 100
const CANCELS = "SELECT id, cancel FROM background_jobs WHERE owner = ? AND state = 'active' AND cancel IS NOT NULL"

export class Engine {
  readonly reads: Reads
  readonly arrivals = new Arrivals((name) => this.queue(name))
  readonly #clock: Clock
  readonly #sink: Sink
  readonly #settings: BackendSettings
  readonly #db: Connection
  readonly #commits: Commits
  readonly #processes = new Processes()
  readonly #queues = new Map<string, Waiting>()
  /** Attempts that nobody settled yet, by job. */
  readonly #out = new Map<string, ClaimedAttempt>()
  readonly #told: Told
  readonly #kept: Kept
  readonly #usual = (task: string): Policy => this.#settings.policyOf?.(task) ?? TASK_DEFAULTS
  /** Wall time less monotonic time, at the start: the time jobs live by does not jump. */
  readonly #epoch: number
  #self: number
  #token = 0
  /** When the next delay or life ends, as far as known. */
  #due = 0
  /** Others have written since they were heard last. */
  #unheard = false
  /** The same, since the last transaction: it may have been anything, even the end of this process's ownership. */
  #unsure = false
  /** When the oldest ended job is too old. */
  #tooOld = 0
  /** More ended jobs are kept than `retention` says. */
  #crowded = true
  readonly #alarm: Alarm
  #lookTimer: Timer | undefined
  #nextBeat: number
  #closed = false

  constructor (db: Connection, clock: Clock, sink: Sink, settings: BackendSettings) {
    this.#db = db
    this.#clock = clock
    this.#sink = sink
    this.#settings = settings
    this.#epoch = clock.now() - clock.monotonic()
    this.#self = this.#processes.enter(db)
    this.#processes.hasNews(db)
    this.reads = new Reads(db, settings.queues, () => this.#now())
    for (const [name, queue] of settings.queues) this.#queues.set(name, new Waiting(name, queue, this.reads.room(name)))
    this.#kept = new Kept(settings.retention, this.reads.kept())
    this.#told = new Told(this.reads, this.#transaction().lastEnd)
    this.#commits = new Commits({
      clock,
      exec: (sql) => { db.run(sql) },
      begin: () => this.#beginOwned(),
      ride: (tx) => { this.#rideAlong(tx) },
      committed: (tx) => { this.#committed(tx) },
      failing: (error) => { sink.report({ kind: 'lost', error: describe(error) }) },
      well: (awayMs) => { sink.report({ kind: 'back', awayMs }) }
    })
    this.#alarm = new Alarm(clock, () => { this.#commits.stir() })
    this.#nextBeat = clock.monotonic()
    for (const { name, settings: { limiter, groups } } of this.#queues.values()) {
      if (limiter !== undefined) this.#tend((tx) => { fitStarts(tx, name, limiter) })
      if (groups !== undefined) this.#tend((tx) => { tidyStarts(tx, name, groups, true) })
    }
    this.#look()
  }

  get failing (): boolean { return this.#commits.failing }

  write<T> (act: (tx: Transaction) => T, kept = false): Promise<T> {
    return this.#commits.write(act, kept)
  }

  queue (name: string): Waiting {
    const queue = this.#queues.get(name)
    if (queue === undefined) throw new Error(`no queue "${name}"`)
    return queue
  }

  want (name: string, n: number): void {
    const queue = this.queue(name)
    queue.want = n
    if (queue.waiting > 0 && queue.free > 0) this.#commits.stir()
  }

  isOut (attempt: ClaimedAttempt): boolean {
    return this.#out.get(attempt.job.id) === attempt
  }

  /** Only the first verdict on an attempt counts. */
  async settle (attempt: ClaimedAttempt, store: (tx: Transaction) => void): Promise<void> {
    if (!this.isOut(attempt)) return
    this.#out.delete(attempt.job.id)
    const { queue } = attempt.job
    await this.write((tx) => {
      const { freed } = rideOf(tx)
      freed.set(queue, (freed.get(queue) ?? 0) + 1)
      store(tx)
    }, true)
  }

  /** Aborts the job's attempt, if it runs here. */
  abort (id: string, detail: string): void {
    const attempt = this.#out.get(id)
    if (attempt !== undefined) this.#sink.abort(attempt, 'cancel', detail)
  }

  /** Whether ended jobs may be too old to be shown. */
  get hasOld (): boolean { return this.#now() > this.#tooOld && !this.failing }

  /** Every transaction sweeps; this one does nothing else. */
  sweep (): Promise<void> {
    return this.write(() => {})
  }

  watch (listener: (change: Change) => void): () => void {
    return this.#told.watch(listener)
  }

  close (): void {
    if (this.#closed) return
    this.#closed = true
    for (const queue of this.#queues.values()) queue.want = 0
    this.#alarm.clear()
    if (this.#lookTimer !== undefined) this.#clock.clearTimer(this.#lookTimer)
    this.#commits.close((tx) => { leave(tx) })
    this.#told.clear()
  }

  #now (): number {
    return Math.floor(this.#epoch + this.#clock.monotonic())
  }

  #transaction (self = this.#self, end?: number): Transaction {
    return new Transaction(this.#db, this.#now(), self, this.#usual, end)
  }

  /** A process that was taken for dead may write nothing under its old number: it enters anew, in the same transaction. */
  #beginOwned (): Transaction {
    this.#listen()
    if (this.#unsure) for (const queue of this.#queues.values()) queue.recount(this.reads.room(queue.name))
    const buried = this.#unsure && !this.#processes.isEntered(this.#db, this.#self)
    const tx = this.#transaction(buried ? this.#processes.enter(this.#db) : this.#self, this.#unheard ? undefined : this.#told.lastEnd)
    const ride = rideOf(tx)
    ride.buried = buried
    ride.due = tx.now + 1 >= this.#due
    return tx
  }

  #listen (): void {
    if (this.#processes.hasNews(this.#db)) this.#unheard = this.#unsure = true
  }

  /** A write that nobody waits for: if it fails now, it comes again by itself. */
  #tend (act: (tx: Transaction) => void): void {
    this.write(act).catch(() => {})
  }

  #rideAlong (tx: Transaction): void {
    if (this.#closed) return
    const ride = rideOf(tx)
    if (tx.ends > 0) decideParents(tx)
    if (ride.due) {
      passTime(tx)
      ride.passed = true
    }
    if (this.#crowded || tx.now > this.#tooOld) ride.swept = sweep(tx, this.#settings.retention)
    for (const queue of this.#queues.values()) {
      const free = Math.min(queue.free + (ride.freed.get(queue.name) ?? 0) - (ride.begun.get(queue)?.length ?? 0), CLAIM_BATCH)
      if (free <= 0 || queue.waiting + tx.sum(queue.name, 'waiting') <= 0) continue
      const isHeld = queue.heldUntil !== undefined && queue.heldUntil > tx.now + 1 && !ride.freed.has(queue.name) && !tx.touches(queue.name)
      if (isHeld) continue
      ride.claimed.push({ queue, ...claim(tx, queue.name, free, ++this.#token, queue.settings) })
    }
  }

  #committed (tx: Transaction): void {
    const { freed, begun, staged, claimed, passed, swept, buried } = rideOf(tx)
    this.#unsure = false
    if (buried) this.#comeBack(tx.self)
    this.#due = passed === true ? tx.due : Math.min(this.#due, tx.due)
    for (const queue of this.#queues.values()) {
      queue.out -= freed.get(queue.name) ?? 0
      queue.committed(tx)
      this.#kept.committed(tx, queue.name)
    }
    for (const [queue, attempts] of begun) this.#start(queue, attempts)
    this.arrivals.stage(staged)
    for (const { queue, attempts, drained, heldUntil } of claimed) {
      queue.heldUntil = heldUntil
      this.#start(queue, attempts)
      if (drained) queue.waiting = 0 // others may have been faster
    }
    if (swept !== undefined) {
      this.#tooOld = swept.next
      this.#crowded = swept.more
    }
    if (tx.ends > 0) this.#ended(tx)
    for (const change of tx.changes) this.#told.change(change)
    for (const incident of tx.incidents) this.#sink.report(incident)
    for (const attempts of begun.values()) this.#sink.deliver(attempts)
    for (const { attempts } of claimed) if (attempts.length > 0) this.#sink.deliver(attempts)
    if (!this.#closed) this.#goOn()
  }

  #start (queue: Waiting, attempts: readonly ClaimedAttempt[]): void {
    queue.out += attempts.length
    for (const attempt of attempts) this.#out.set(attempt.job.id, attempt)
  }

  /** Jobs ended in this transaction; others may have ended elsewhere before it. */
  #ended (tx: Transaction): void {
    this.#told.ends(tx.lastEnd)
    this.#told.lastEnd = tx.lastEnd + tx.ends
    const { completed, failed } = this.#settings.retention
    this.#tooOld = Math.min(this.#tooOld, tx.now + Math.min(completed.age, failed.age))
    this.#crowded ||= this.#kept.isCrowded
  }

  /** What is left to do at once, or at a time. */
  #goOn (): void {
    let due = this.#due
    let now = this.#crowded
    for (const { name, waiting, free, heldUntil } of this.#queues.values()) {
      if (waiting <= 0 || free <= 0) continue
      const until = this.reads.limitedUntil(name) ?? heldUntil
      if (until === undefined) now = true
      else due = Math.min(due, until)
    }
    if (now) this.#commits.stir()
    this.#alarm.set(due - this.#epoch)
  }

  #look (): void {
    if (this.#clock.monotonic() >= this.#nextBeat) this.#beat()
    try {
      this.#listen()
      if (this.#unheard) this.#hearNews()
    } catch { /* a store that cannot be read is told when it is written */ }
    this.#lookTimer = this.#clock.setTimer(() => { this.#look() }, LOOK)
    this.#lookTimer.unref()
  }

  #beat (): void {
    this.#nextBeat = this.#clock.monotonic() + BEAT
    this.#tend((tx) => {
      this.#processes.beat(tx)
      forgetIds(tx)
      for (const { name, settings: { groups } } of this.#queues.values()) if (groups !== undefined) tidyStarts(tx, name, groups, false)
      this.#processes.buryTheDead(tx, this.#clock.monotonic())
    })
  }

  #hearNews (): void {
    for (const queue of this.#queues.values()) queue.recount(this.reads.room(queue.name))
    this.#kept.recount(this.reads.kept())
    this.#due = nextDue(this.#db)
    this.#told.ends(this.#transaction().lastEnd)
    this.#unheard = false
    for (const { id, cancel } of this.#db.all<{ id: string, cancel: string }>(CANCELS, this.#self)) this.abort(id, cancel)
    this.#goOn()
  }

  /** What ran here runs elsewhere now: it is stopped, and its verdicts will not be stored. */
  #comeBack (self: number): void {
    this.#self = self
    this.arrivals.clear()
    const why = 'this process did not answer for so long that its jobs were given to others'
    for (const attempt of this.#out.values()) this.#sink.abort(attempt, 'shutdown', why)
  }
}

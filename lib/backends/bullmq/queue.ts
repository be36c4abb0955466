/**
 * One queue: its jobs in the store, and BullMQ's worker that brings the attempts of this process. BullMQ decides nothing:
 * how many run at once is `want`, and what becomes of an attempt is its outcome, stored here. Only the end of a success
 * goes BullMQ's own way, which fetches the next job with the same call.
 *
 * The worker is open while something was ever wanted, paused while nothing is or while the store is away.
 */
import type { IQueueBackend, Job } from 'bullmq'
import type { Note, QueueCounts, QueueSettings, Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import { errors } from '../../errors.ts'
import type { CancelReason, Failure, NewJob, Outcome, Policy, Duplicates } from '../../job.ts'
import type { ErrorFacts } from '../../describe.ts'
import type { Copied } from '../../json.ts'
import { StoredAttempt } from './attempt.ts'
import type { Coder } from './codec.ts'
import type { Connections, StoreQueue, StoreWorker } from './connections.ts'
import { countsOf, neverStarted } from './counts.ts'
import { duplicatesOf, letGo, type JobId } from './deduplication.ts'
import { childrenIn, childrenOf, gaveUp, removeAlone } from './flows.ts'
import { cancelledText } from './events.ts'
import { withTimes } from './facts.ts'
import { WaitingRoom } from './load.ts'
import { RECONNECT } from './options.ts'
import { isAboutData, isDone, isRefusal, within, type Reach } from './reach.ts'
import { failureFields, isExpired, StoredJob, toAdd, toReturnValue, wholeMs, type ToAdd } from './stored.ts'

export interface QueueParts {
  readonly clock: Clock
  readonly connections: Connections
  readonly reach: Reach
  readonly coder: Coder
  /** Of a task, where it is defined here. */
  readonly policyOf: (task: string) => Policy
  readonly sink: Sink
  readonly lockDuration: number
  readonly maxStalledCount: number
  /** What BullMQ removes by itself when a job is done. */
  readonly keep: { readonly count: number, readonly age: number }
  /** A job has become a dead letter. */
  readonly died: (queue: BullmqQueue) => void
}

const NONE: Duplicates = new Map()

export class BullmqQueue {
  readonly name: string
  readonly store: StoreQueue
  readonly room: WaitingRoom
  readonly #parts: QueueParts
  readonly #settings: QueueSettings
  readonly toAdd = (job: NewJob, hold = 0): ToAdd => toAdd(job, hold, this.#parts.coder, this.#parts.policyOf(job.name))
  readonly #out = new Map<string, StoredAttempt>()
  /** Writes on their way. */
  readonly #storing = new Set<Promise<unknown>>()
  #worker: StoreWorker | undefined
  #wanted = 0
  #closed = false

  constructor (name: string, settings: QueueSettings, parts: QueueParts) {
    this.name = name
    this.#parts = parts
    this.#settings = settings
    this.store = parts.connections.queue(name)
    this.room = new WaitingRoom(parts.clock, () => parts.reach.bounded(() => neverStarted(this.store, parts.clock.now())))
  }

  jobOf (job: Job): StoredJob {
    return new StoredJob(withTimes(job, this.#parts.clock.now()), this.name, this.#parts.coder, this.#parts.policyOf(job.name))
  }

  /** Answers the attempt that runs here. */
  running (id: string): StoredAttempt | undefined { return this.#out.get(id) }

  want (n: number): void {
    const full = this.#out.size >= this.#wanted
    const more = n > this.#wanted
    this.#wanted = n
    this.steer()
    // A worker that has all it was allowed looks for more when one of them ends, or when it is resumed.
    if (more && full && this.#worker?.isPaused() === false) {
      void this.#worker.pause(true)
      void this.#worker.resume()
    }
  }

  /** What is wanted, or whether the store is there, has changed. */
  steer (): void {
    if (this.#closed) return
    const worker = this.#worker
    if (this.#wanted === 0 || this.#parts.reach.away) void worker?.pause(true)
    else if (worker === undefined) this.#open()
    else {
      worker.concurrency = this.#wanted
      void worker.resume()
    }
  }

  enqueue (jobs: readonly NewJob[], hold: number): Promise<Duplicates> {
    const adds = jobs.map((job) => this.toAdd(job, hold))
    const [first] = adds
    // Nobody waits for it any more and everybody was told that it failed.
    const takeBack = (): void => { for (const { id } of jobs) this.takeBack(id) }
    const added = this.#parts.reach.bounded<JobId | JobId[]>(() => first !== undefined && adds.length === 1
      ? this.store.add(first.name, first.data, first.opts)
      : this.store.addBulk(adds), takeBack)
    if (jobs.every(({ policy }) => policy.deduplication === undefined)) return added.then(() => this.#enter(jobs, NONE))
    return added.then(async (found) => this.#enter(jobs, await this.#parts.reach.bounded(() => duplicatesOf(jobs, [found].flat(), this.store))))
  }

  #enter (jobs: readonly NewJob[], duplicates: Duplicates): Duplicates {
    for (const { id, bytes } of jobs) if (!duplicates.has(id)) this.room.enter(1, bytes)
    return duplicates
  }

  /** What was added although its caller was told that it was not. */
  takeBack (id: string): void {
    this.#parts.reach.persist(() => this.takeOut(id)).catch(() => {})
  }

  /** A job that was held may start after `delay` ms. If it cannot be told, it starts by itself when its hold is over. */
  async release (id: string, delay: number): Promise<void> {
    const backend = this.store.getBackend()
    await this.#keep(() => delay === 0 ? backend.promote(id) : backend.changeDelay(id, delay))
  }

  /** Removes a job that does not run. Answers whether it was there, and did not. */
  async takeOut (id: string): Promise<boolean> {
    const job = await this.store.getJob(id) as Job | undefined
    if (job === undefined || !await removeAlone(this.store, id)) return false
    if (job.attemptsStarted === 0) this.room.leave(this.jobOf(job).bytes)
    return true
  }

  /** A dead letter starts again. Answers whether it still was one. */
  async revive (id: string, payload: Copied | undefined): Promise<boolean> {
    const job = await this.store.getJob(id) as Job | undefined
    return job !== undefined && isDone(async () => {
      if (payload !== undefined) await job.updateData(this.#parts.coder.encode(payload.value))
      await job.retry('failed', { resetAttemptsMade: true })
    })
  }

  counts (): Promise<QueueCounts> {
    return countsOf(this.store, this.#settings.limiter !== undefined, this.#parts.clock.now())
  }

  /** Whether the attempt owned its job until now. */
  settle (attempt: StoredAttempt, outcome: Outcome): Promise<void> | undefined {
    if (this.#out.get(attempt.job.id) !== attempt) return undefined
    this.#out.delete(attempt.job.id)
    const stored = outcome.kind === 'completed' ? this.#complete(attempt, outcome) : this.#move(attempt, outcome)
    this.#storing.add(stored)
    return stored.finally(() => { this.#storing.delete(stored) })
  }

  async note (attempt: StoredAttempt, note: Note): Promise<void> {
    if (this.#out.get(attempt.job.id) !== attempt) return
    if ('overdue' in note) attempt.overdue = true
    // A store that is away misses progress: the next one tells more.
    if ('progress' in note && !this.#parts.reach.away) {
      await this.#parts.reach.bounded(() => attempt.stored.updateProgress(this.#parts.coder.encode(note.progress) as object))
    }
  }

  /** Gives back what is out, waits for what is being stored, and closes. */
  async close (ms: number): Promise<void> {
    this.#wanted = 0
    void this.#worker?.pause(true)
    for (const attempt of this.#out.values()) void this.settle(attempt, { kind: 'released', delay: 0 })
    this.#closed = true
    this.room.close()
    await within(this.#parts.clock, ms, Promise.all(this.#storing))
    this.#worker = undefined
  }

  #open (): void {
    const { connections, reach, keep, lockDuration, maxStalledCount } = this.#parts
    const worker = connections.worker(this.name, (job, token) => this.#take(job, token as string), {
      concurrency: this.#wanted,
      lockDuration,
      maxStalledCount,
      stalledInterval: lockDuration,
      runRetryDelay: RECONNECT,
      removeOnComplete: keep,
      ...(this.#settings.limiter && { limiter: { ...this.#settings.limiter } })
    })
    this.#worker = worker
    worker.on('failed', (job) => { if (job !== undefined) this.#gaveUp(job) })
    // A worker whose connection never came up stays broken: the next one is tried when the store is there.
    worker.waitUntilReady().then(() => worker.isRunning() ? undefined : worker.run(), async (error: unknown) => {
      if (this.#worker === worker) this.#worker = undefined
      await connections.close(worker)
      reach.lose(error)
    }).catch((error: unknown) => { reach.lose(error) })
  }

  /** A job of BullMQ's worker. What is returned or thrown tells the worker how to go on, not what became of the job. */
  async #take (job: Job, token: string): Promise<unknown> {
    const { connections, sink } = this.#parts
    const children = childrenIn(job).length === 0 ? undefined : await this.#parts.reach.persist(() => childrenOf(job, this.#parts.coder))
    // It was fetched before less was wanted.
    if (this.#closed || this.#out.size >= this.#wanted) {
      await this.#keep(() => job.moveToWait(token))
      throw connections.moved
    }
    const attempt = new StoredAttempt(job, token, this.jobOf(job))
    if (job.attemptsStarted <= 1) this.room.leave(attempt.job.bytes)
    if (isExpired(job, attempt.job.policy)) {
      const { message, code, name } = new errors.Expired(attempt.job.policy.ttl)
      await this.#die(attempt, { name, code, message }, 'expired')
      sink.report({ kind: 'expired', job: attempt.job })
      throw connections.moved
    }
    attempt.children = children
    const stale = this.#out.get(attempt.job.id)
    if (stale !== undefined) attempt.replace(stale, connections.moved)
    this.#out.set(attempt.job.id, attempt)
    sink.deliver([attempt])
    return attempt.over
  }

  /** BullMQ gave up a job whose workers died too often, or whose child failed. */
  #gaveUp (job: Job): void {
    if (job.deferredFailure === undefined) return
    const incident = gaveUp(job, this.jobOf(job))
    this.#parts.died(this)
    if (incident.kind === 'child-failed' && job.attemptsStarted <= 1) this.room.leave(incident.job.bytes)
    this.#parts.sink.report(incident)
  }

  #complete (attempt: StoredAttempt, { result, resultOmitted }: Extract<Outcome, { kind: 'completed' }>): Promise<void> {
    const store = attempt.stored.moveToCompleted.bind(attempt.stored)
    return new Promise((resolve) => {
      // BullMQ would take an error of the connection for one of the job.
      attempt.stored.moveToCompleted = async (value, token, fetchNext) => {
        const next = await this.#keep(() => store(value, token, fetchNext).catch((error: unknown) => {
          if (!isAboutData(error)) throw error
          return store(toReturnValue(undefined, 'unserializable', this.#parts.coder), token, fetchNext)
        }))
        resolve()
        return next
      }
      attempt.end(toReturnValue(result, resultOmitted, this.#parts.coder))
    })
  }

  async #move (attempt: StoredAttempt, outcome: Exclude<Outcome, { kind: 'completed' }>): Promise<void> {
    const { stored, token } = attempt
    switch (outcome.kind) {
      case 'dead':
        await this.#die(attempt, outcome.error, outcome.failure)
        break
      case 'cancelled':
        await this.#cancel(stored, token, outcome.reason)
        break
      case 'retry': {
        const now = this.#parts.clock.now()
        const delay = wholeMs(outcome.delay)
        const entry = { attempt: attempt.number, at: now, error: outcome.error, retryAt: now + delay }
        await this.#delay(stored, token, now, delay, !outcome.charged, failureFields(stored, entry))
        break
      }
      case 'released':
        if (outcome.delay === 0) await this.#keep(() => stored.moveToWait(token))
        else await this.#delay(stored, token, this.#parts.clock.now(), wholeMs(outcome.delay), true, { failedReason: '' })
    }
    attempt.fail(this.#parts.connections.moved)
  }

  async #die (attempt: StoredAttempt, error: ErrorFacts, failure: Failure): Promise<void> {
    const { stored, token, number } = attempt
    const fields = failureFields(stored, { attempt: number, at: this.#parts.clock.now(), error, failure })
    await this.#keep(() => this.#backend.moveToFailed(stored, fields.failedReason, false, token, false, fields))
    this.#parts.died(this)
  }

  async #cancel (job: Job, token: string, reason: CancelReason): Promise<void> {
    const failedReason = cancelledText(reason)
    await this.#keep(() => this.#backend.moveToFailed(job, failedReason, true, token, false, { failedReason }))
    await this.#keep(() => letGo(job, this.store))
  }

  async #delay (job: Job, token: string, now: number, delay: number, skipAttempt: boolean, fieldsToUpdate: object): Promise<void> {
    await this.#keep(() => this.#backend.moveToDelayed(job.id as string, now, delay, token, { skipAttempt, fieldsToUpdate }))
  }

  /** Until the store has it. Ignored when the job is no longer ours: its lock went to somebody else. */
  async #keep<T> (store: () => Promise<T>): Promise<T | undefined> {
    try {
      return await this.#parts.reach.persist(store)
    } catch (error) {
      if (!isRefusal(error)) this.#parts.reach.lose(error)
      return undefined
    }
  }

  get #backend (): IQueueBackend { return (this.#worker ?? this.store).getBackend() }
}

/**
 * What is told to the log and to subscribers, and counted. One line for each thing that happened, or one a second for what
 * happens again and again; nothing happens silently.
 */
import type { FastifyInstance } from 'fastify'
import type { Duplicates } from './backend.ts'
import type { Clock } from './clock.ts'
import { describe, type ErrorFacts } from './describe.ts'
import type { AbortKind } from './errors.ts'
import { channels, type AttemptEvent, type JobEvent } from './events.ts'
import type { Attempt, CancelReason, Failure, JobRecord, NewJob, Outcome } from './job.ts'
import { attemptFields, harmless, jobFields, type Job, type Logger } from './log.ts'
import type { Schedule } from './schedule.ts'
import { NAMED, Throttle } from './throttle.ts'

/** Since the plugin was registered. */
export interface Totals {
  completed: number
  cancelled: number
  failedAttempts: number
  deadLettered: number
}

/** Things that should not happen often, since the plugin was registered. */
export interface Incidents {
  /** Jobs not taken because a queue was full. */
  refused: number
  /** Dead letters dropped by `retention`. */
  evicted: number
  /** Responses that did not end within `maxHold`. */
  held: number
  /** Rejections and exceptions that jobs let escape. */
  floating: number
  /** Times a job held the event loop longer than `maxBlock`. */
  blocked: number
  /** Jobs that their store could not take. */
  unstored: number
  /** Times of schedules that passed without a job. */
  skipped: number
}

export class Observer {
  readonly totals: Totals = { completed: 0, cancelled: 0, failedAttempts: 0, deadLettered: 0 }
  readonly incidents: Incidents = { refused: 0, evicted: 0, held: 0, floating: 0, blocked: 0, unstored: 0, skipped: 0 }
  readonly #app: FastifyInstance
  readonly #log: Logger
  readonly #often: Throttle

  /** False without a logger: Fastify gives one then whose methods are all the same empty function. */
  readonly #heard: boolean

  constructor (app: FastifyInstance, log: Logger, clock: Clock) {
    this.#app = app
    this.#log = harmless(log)
    this.#heard = log.info !== log.error
    this.#often = new Throttle(clock)
  }

  /** Whether errors that escape from jobs would be told to anybody. */
  get followsFloating (): boolean { return this.#heard || channels.floating.hasSubscribers }

  /** A backend has taken them, those apart that others stand for. */
  added (jobs: readonly Job[], duplicates?: Duplicates | void): void {
    if (!channels.added.hasSubscribers) return
    for (const job of jobs) if (duplicates?.has(job.id) !== true) channels.added.publish(this.#ofJob(job))
  }

  started (attempt: Attempt): void {
    if (channels.started.hasSubscribers) channels.started.publish({ ...this.#ofAttempt(attempt.job, attempt.number), waitMs: attempt.waited })
  }

  /** `body` tells how long it has lived, and is asked only when there is somebody to tell it to. */
  attemptEnded (attempt: Attempt, outcome: Outcome, body: { readonly aliveMs: number }, thrown?: unknown): void {
    if (channels.ended.hasSubscribers) {
      channels.ended.publish({
        ...this.#ofAttempt(attempt.job, attempt.number),
        outcome: outcome.kind,
        waitMs: attempt.waited,
        durationMs: body.aliveMs,
        ...('error' in outcome ? { error: thrown ?? outcome.error } : undefined),
        ...('delay' in outcome ? { retryInMs: outcome.delay } : undefined)
      })
    }
    switch (outcome.kind) {
      case 'completed':
        this.totals.completed++
        if (!this.#hears('info')) return
        return this.#log.info({ ...attemptFields(attempt, body.aliveMs), resultOmitted: outcome.resultOmitted }, 'job completed')
      case 'retry':
        this.totals.failedAttempts++
        return this.#failed('warn', attempt, body, outcome.error, { retryInMs: Math.round(outcome.delay) }, 'attempt failed, the job will be retried')
      case 'dead':
        this.totals.failedAttempts++
        this.#died(attempt.job, attempt.number, outcome.failure, thrown ?? outcome.error)
        return this.#failed('error', attempt, body, outcome.error, { failure: outcome.failure }, 'job failed')
      case 'cancelled':
        return this.cancelled(attempt.job, outcome.reason)
      case 'released':
        return this.#log.info(attemptFields(attempt, body.aliveMs), 'job given back')
    }
  }

  /** While something that a task needs is down, its jobs fail for one cause, again and again: a line a second says so. */
  #failed (level: 'warn' | 'error', attempt: Attempt, body: { readonly aliveMs: number }, error: ErrorFacts, more: object, text: string): void {
    if (!this.#hears(level)) return
    const fields = { ...attemptFields(attempt, body.aliveMs), err: error, ...more }
    this.#often.say(`${level} ${attempt.job.name} ${error.code ?? error.name}`, 1, (count, jobIds) => {
      this.#log[level](count === 1 ? fields : { ...fields, count, jobIds }, text)
    }, attempt.job.id)
  }

  #died (job: Job, attempt: number, failure: Failure, error: unknown): void {
    this.totals.deadLettered++
    if (channels.dead.hasSubscribers) channels.dead.publish({ ...this.#ofAttempt(job, attempt), failure, error })
  }

  cancelled (job: Job, reason: CancelReason, detail?: string): void {
    this.totals.cancelled++
    if (channels.cancelled.hasSubscribers) channels.cancelled.publish({ ...this.#ofJob(job), reason })
    this.#log.info({ ...jobFields(job), reason, detail }, 'job cancelled')
  }

  /** A job that became a dead letter without an attempt of its own. */
  dead (job: Job, failure: Failure, error: Error): void {
    this.#died(job, 0, failure, error)
    this.#often.say(`${failure} ${job.name}`, 1, (count, jobIds) => {
      this.#log.error({ ...jobFields(job), failure, ...(count > 1 && { count, jobIds }) }, `job failed: ${error.message}`)
    }, job.id)
  }

  /** Dead letters that start again. */
  replayed (jobs: readonly Job[]): void {
    for (const job of jobs) {
      if (channels.replayed.hasSubscribers) channels.replayed.publish(this.#ofJob(job))
      this.#often.say(`replayed ${job.name}`, 1, (count, jobIds) => {
        this.#log.info({ ...jobFields(job), ...(count > 1 && { count, jobIds }) }, 'dead letter starts again')
      }, job.id)
    }
  }

  refused (queue: string, task: string, jobs: number, why: string): void {
    this.incidents.refused += jobs
    if (channels.refused.hasSubscribers) channels.refused.publish({ app: this.#app, queue, task, jobs })
    this.#often.say(`refused ${queue} ${task}`, jobs, (count) => {
      this.#log.warn({ queue, task, count, why }, 'jobs refused: the queue is full')
    })
  }

  /** No task of its name is defined here: an older or newer deploy left it. */
  parked (job: NewJob, ms: number): void {
    this.#often.say(`parked ${job.name}`, 1, (count) => {
      this.#log.warn({ ...jobFields(job), count, retryInMs: ms }, 'job parked: its task is not defined here')
    })
  }

  evicted (job: NewJob): void {
    this.incidents.evicted++
    if (channels.evicted.hasSubscribers) channels.evicted.publish(this.#ofJob(job))
    this.#often.say(`evicted ${job.name}`, 1, (count, jobIds) => {
      this.#log.warn({ task: job.name, queue: job.queue, count, jobIds, lastJobId: job.id }, 'dead letters dropped by retention')
    }, job.id)
  }

  /** `told`: the client got an error instead, or the caller; else the jobs are lost without anybody knowing. */
  unstored (jobs: readonly NewJob[], error: ErrorFacts, told: boolean): void {
    this.incidents.unstored += jobs.length
    const [last] = jobs as readonly [NewJob]
    if (channels.unstored.hasSubscribers) channels.unstored.publish({ app: this.#app, queue: last.queue, task: last.name, jobs: jobs.length, told, error })
    this.#often.say(`unstored ${last.name} ${told}`, jobs.length, (count) => {
      const fields = { ...jobFields(last), count, err: error }
      if (told) this.#log.warn(fields, 'jobs refused: their store cannot take them')
      else this.#log.error(fields, 'jobs lost: their store could not take them, and their response could not wait')
    })
  }

  /** A time of a schedule passed without a job. */
  skipped ({ id, name, queue }: Schedule, why: 'overlap' | 'missed'): void {
    this.incidents.skipped++
    this.#often.say(`skipped ${id} ${why}`, 1, (count) => {
      const text = why === 'overlap' ? 'schedule skipped: its last job has not ended' : 'schedule skipped: nobody was there at its time'
      this.#log.warn({ schedule: id, task: name, queue, count }, text)
    })
  }

  scheduleFailed ({ id, name, queue }: Schedule, error: ErrorFacts): void {
    this.#often.say(`schedule ${id}`, 1, (count) => {
      this.#log.error({ schedule: id, task: name, queue, count, err: error }, 'schedule cannot fire')
    })
  }

  held (requestId: string, jobs: number, maxHold: number): void {
    this.incidents.held++
    if (channels.held.hasSubscribers) channels.held.publish({ app: this.#app, reqId: requestId, jobs })
    this.#often.say('held', 1, (count, reqIds) => {
      this.#log.warn({ reqId: requestId, jobs, maxHold, ...(count > 1 && { count, reqIds }) }, 'the response did not end within maxHold, its jobs go on without it')
    }, requestId)
  }

  /** The event loop stood still meanwhile, and with it every request. */
  blocked (attempt: Attempt, ms: number): void {
    this.incidents.blocked++
    if (channels.blocked.hasSubscribers) channels.blocked.publish({ ...this.#ofAttempt(attempt.job, attempt.number), blockedMs: ms })
    this.#often.say(`blocked ${attempt.job.name}`, 1, (count) => {
      this.#log.warn({ ...jobFields(attempt.job), attempt: attempt.number, count, blockedMs: Math.round(ms) }, 'job held the event loop')
    })
  }

  /** A body that goes on after its signal aborted and the grace is over. */
  leaked (attempt: Attempt, kind: AbortKind, aliveMs: number): void {
    if (channels.leaked.hasSubscribers) channels.leaked.publish({ ...this.#ofAttempt(attempt.job, attempt.number), durationMs: aliveMs })
    this.#log.warn({ ...attemptFields(attempt, aliveMs), abortedBy: kind }, 'job ignores its signal and keeps its slot')
  }

  /** Such a body has settled after all. */
  returned (attempt: Attempt, aliveMs: number): void {
    if (channels.returned.hasSubscribers) channels.returned.publish({ ...this.#ofAttempt(attempt.job, attempt.number), durationMs: aliveMs })
    this.#log.info(attemptFields(attempt, aliveMs), 'job that ignored its signal has ended, its slot is free')
  }

  /** A promise nobody handles was rejected, or a callback threw, in what a job started. */
  floating (origin: Job & { attempt: number }, kind: 'rejection' | 'exception', error: ErrorFacts): void {
    this.incidents.floating++
    if (channels.floating.hasSubscribers) channels.floating.publish({ ...this.#ofAttempt(origin, origin.attempt), kind, error })
    this.#often.say(`${kind} ${origin.name} ${error.code ?? error.name}`, 1, (count, jobIds) => {
      this.#log.error({ ...jobFields(origin), attempt: origin.attempt, err: error, ...(count > 1 && { count, jobIds }) }, `unhandled ${kind} in a job`)
    }, origin.id)
  }

  /** A function the user gave as policy (`retryIf`, `backoff`, `when`, `onUnfinished`) threw or answered nonsense. */
  policyFailed (option: string, error: ErrorFacts, job?: Job): void {
    this.#often.say(`${option} ${job?.name} ${error.code ?? error.name}`, 1, (count) => {
      this.#log.error({ ...(job && jobFields(job)), option, err: error, ...(count > 1 && { count }) }, `${option} failed`)
    })
  }

  /** Between two jobs: no attempt hears of it. */
  threadFailed (error: ErrorFacts): void {
    this.#log.error({ err: error }, 'a thread failed outside of its jobs')
  }

  /** For a write to the backend that nobody waits for: if it fails, that is logged. */
  guard (what: string, write: () => void | Promise<void>): void {
    const failed = (error: unknown): void => { this.storeFailed(what, describe(error)) }
    try {
      const written = write()
      if (written !== undefined) written.catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  storeFailed (what: string, error: ErrorFacts): void {
    this.#often.say(`${what} ${error.code ?? error.name}`, 1, (count) => {
      this.#log.error({ err: error, ...(count > 1 && { count }) }, `the backend failed to ${what}`)
    })
  }

  /** The process of this attempt died before it could say how it ended. */
  recovered (job: Job, attempt: number): void {
    this.#often.say(`recovered ${job.name}`, 1, (count, jobIds) => {
      this.#log.warn({ ...jobFields(job), attempt, ...(count > 1 && { count, jobIds }) }, 'attempt of a process that died: the job starts again, or is a dead letter')
    }, job.id)
  }

  storeLost (error: ErrorFacts): void {
    if (channels.store.hasSubscribers) channels.store.publish({ app: this.#app, reachable: false, error })
    this.#log.error({ err: error }, 'the store of the background jobs is away')
  }

  storeBack (awayMs: number): void {
    if (channels.store.hasSubscribers) channels.store.publish({ app: this.#app, reachable: true, awayMs })
    this.#log.info({ awayMs: Math.round(awayMs) }, 'the store of the background jobs is back')
  }

  unfinished (jobs: readonly JobRecord[]): void {
    const tasks: Record<string, number> = Object.create(null)
    for (const job of jobs) tasks[job.name] = (tasks[job.name] ?? 0) + 1
    const named = jobs.slice(0, NAMED).map((job) => ({ jobId: job.id, task: job.name, state: job.state }))
    this.#log.warn({ count: jobs.length, tasks, jobs: named }, 'shutdown left jobs undone')
  }

  #ofJob (job: Job): JobEvent {
    return { app: this.#app, jobId: job.id, task: job.name, queue: job.queue, reqId: job.requestId ?? undefined }
  }

  #ofAttempt (job: Job, attempt: number): AttemptEvent {
    return { ...this.#ofJob(job), attempt }
  }

  #hears (level: string): boolean {
    return this.#heard && this.#log.isLevelEnabled?.(level) !== false
  }

  close (): void {
    this.#often.close()
  }
}

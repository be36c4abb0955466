/** What is told to the log, and counted. One line for each thing that happened; nothing happens silently. */
import { channel } from 'node:diagnostics_channel'
import type { Clock, Timer } from './clock.ts'
import { describe, type ErrorFacts } from './describe.ts'
import type { AbortKind } from './errors.ts'
import type { Attempt, CancelReason, Failure, JobRecord, NewJob, Outcome } from './job.ts'

/** The part of pino that is used. */
export interface Logger {
  info (fields: object, text: string): void
  warn (fields: object, text: string): void
  error (fields: object, text: string): void
  isLevelEnabled?: (level: string) => boolean
}

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
}

/** Told `{ jobId, task, queue, reqId, attempt, blockedMs }`. */
const blockedChannel = channel('fastify-background-tasks:blocked')

/** Ids in one log line. */
const NAMED = 20

export class Observer {
  readonly totals: Totals = { completed: 0, cancelled: 0, failedAttempts: 0, deadLettered: 0 }
  readonly incidents: Incidents = { refused: 0, evicted: 0, held: 0, floating: 0, blocked: 0, unstored: 0 }
  readonly #log: Logger
  readonly #often: Throttle

  /** False without a logger: Fastify gives one then whose methods are all the same empty function. */
  readonly heard: boolean

  constructor (log: Logger, clock: Clock) {
    this.#log = harmless(log)
    this.heard = log.info !== log.error
    this.#often = new Throttle(clock)
  }

  /** `body` tells how long it has lived, and is asked only when there is somebody to tell it to. */
  attemptEnded (attempt: Attempt, outcome: Outcome, body: { readonly aliveMs: number }): void {
    switch (outcome.kind) {
      case 'completed':
        this.totals.completed++
        if (!this.#hears('info')) return
        return this.#log.info({ ...attemptFields(attempt, body.aliveMs), resultOmitted: outcome.resultOmitted }, 'job completed')
      case 'retry':
        this.totals.failedAttempts++
        return this.#log.warn({ ...attemptFields(attempt, body.aliveMs), err: outcome.error, retryInMs: Math.round(outcome.delay) }, 'attempt failed, the job will be retried')
      case 'dead':
        this.totals.failedAttempts++
        this.totals.deadLettered++
        return this.#log.error({ ...attemptFields(attempt, body.aliveMs), err: outcome.error, failure: outcome.failure }, 'job failed')
      case 'cancelled':
        return this.cancelled(attempt.job, outcome.reason)
      case 'released':
        return this.#log.info(attemptFields(attempt, body.aliveMs), 'job given back')
    }
  }

  cancelled (job: Pick<NewJob, 'id' | 'name' | 'queue' | 'requestId'>, reason: CancelReason, detail?: string): void {
    this.totals.cancelled++
    this.#log.info({ ...jobFields(job), reason, detail }, 'job cancelled')
  }

  /** A job that became a dead letter without an attempt of its own. */
  dead (job: NewJob, failure: Failure, why: string): void {
    this.totals.deadLettered++
    this.#log.error({ ...jobFields(job), failure }, `job failed: ${why}`)
  }

  refused (queue: string, task: string, jobs: number, why: string): void {
    this.incidents.refused += jobs
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
    this.#often.say(`evicted ${job.name}`, 1, (count) => {
      this.#log.warn({ task: job.name, queue: job.queue, count, lastJobId: job.id }, 'dead letters dropped by retention')
    })
  }

  /** `told`: the client got an error instead, or the caller; else the jobs are lost without anybody knowing. */
  unstored (jobs: readonly NewJob[], error: ErrorFacts, told: boolean): void {
    this.incidents.unstored += jobs.length
    const [last] = jobs as readonly [NewJob]
    this.#often.say(`unstored ${last.name} ${told}`, jobs.length, (count) => {
      const fields = { ...jobFields(last), count, err: error }
      if (told) this.#log.warn(fields, 'jobs refused: their store cannot take them')
      else this.#log.error(fields, 'jobs lost: their store could not take them, and their response could not wait')
    })
  }

  held (requestId: string, jobs: number, maxHold: number): void {
    this.incidents.held++
    this.#log.warn({ reqId: requestId, jobs, maxHold }, 'the response did not end within maxHold, its jobs go on without it')
  }

  /** The event loop stood still meanwhile, and with it every request. */
  blocked (attempt: Attempt, ms: number): void {
    this.incidents.blocked++
    if (blockedChannel.hasSubscribers) blockedChannel.publish({ ...jobFields(attempt.job), attempt: attempt.number, blockedMs: ms })
    this.#often.say(`blocked ${attempt.job.name}`, 1, (count) => {
      this.#log.warn({ ...jobFields(attempt.job), attempt: attempt.number, count, blockedMs: Math.round(ms) }, 'job held the event loop')
    })
  }

  /** A body that goes on after its signal aborted and the grace is over. */
  leaked (attempt: Attempt, kind: AbortKind, aliveMs: number): void {
    this.#log.warn({ ...attemptFields(attempt, aliveMs), abortedBy: kind }, 'job ignores its signal and keeps its slot')
  }

  /** Such a body has settled after all. */
  returned (attempt: Attempt, aliveMs: number): void {
    this.#log.info(attemptFields(attempt, aliveMs), 'job that ignored its signal has ended, its slot is free')
  }

  /** A promise nobody handles was rejected, or a callback threw, in what a job started. */
  floating (origin: Pick<NewJob, 'id' | 'name' | 'queue' | 'requestId'> & { attempt: number }, kind: 'rejection' | 'exception', error: ErrorFacts): void {
    this.incidents.floating++
    this.#log.error({ ...jobFields(origin), attempt: origin.attempt, err: error }, `unhandled ${kind} in a job`)
  }

  /** A function the user gave as policy (`retryIf`, `backoff`, `when`, `onUnfinished`) threw or answered nonsense. */
  policyFailed (option: string, error: ErrorFacts, job?: Pick<NewJob, 'id' | 'name' | 'queue' | 'requestId'>): void {
    this.#log.error({ ...(job && jobFields(job)), option, err: error }, `${option} failed`)
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
    this.#log.error({ err: error }, `the backend failed to ${what}`)
  }

  /** Attempts of a process that died before it could say how they ended. */
  recovered (count: number): void {
    this.#log.warn({ count }, 'attempts of a process that died: their jobs start again, or are dead letters')
  }

  storeLost (error: ErrorFacts): void {
    this.#log.error({ err: error }, 'the store of the background jobs is away')
  }

  storeBack (awayMs: number): void {
    this.#log.info({ awayMs: Math.round(awayMs) }, 'the store of the background jobs is back')
  }

  unfinished (jobs: readonly JobRecord[]): void {
    const tasks: Record<string, number> = Object.create(null)
    for (const job of jobs) tasks[job.name] = (tasks[job.name] ?? 0) + 1
    const named = jobs.slice(0, NAMED).map((job) => ({ jobId: job.id, task: job.name, state: job.state }))
    this.#log.warn({ count: jobs.length, tasks, jobs: named }, 'shutdown left jobs undone')
  }

  #hears (level: string): boolean {
    return this.heard && this.#log.isLevelEnabled?.(level) !== false
  }

  close (): void {
    this.#often.close()
  }
}

/** What is told of must go on when it cannot be told: a logger's stream or serializer may throw. */
function harmless (log: Logger): Logger {
  const quietly = (level: 'info' | 'warn' | 'error') => (fields: object, text: string): void => {
    try {
      log[level](fields, text)
    } catch { /* there is no other place to say it */ }
  }
  return {
    info: quietly('info'),
    warn: quietly('warn'),
    error: quietly('error'),
    isLevelEnabled: (level) => log.isLevelEnabled?.(level) ?? true
  }
}

function jobFields (job: Pick<NewJob, 'id' | 'name' | 'queue' | 'requestId'>): Record<string, unknown> {
  return { jobId: job.id, task: job.name, queue: job.queue, reqId: job.requestId ?? undefined }
}

function attemptFields (attempt: Attempt, durationMs: number): Record<string, unknown> {
  return { ...jobFields(attempt.job), attempt: attempt.number, waitMs: Math.round(attempt.waited), durationMs: Math.round(durationMs) }
}

/** At most one line a second for each key; what was not said is counted into the next line. */
class Throttle {
  readonly #clock: Clock
  readonly #keys = new Map<string, { count: number, say: (count: number) => void, timer: Timer }>()

  constructor (clock: Clock) {
    this.#clock = clock
  }

  say (key: string, count: number, say: (count: number) => void): void {
    const quiet = this.#keys.get(key)
    if (quiet !== undefined) {
      quiet.count += count
      quiet.say = say
      return
    }
    say(count)
    this.#hush(key)
  }

  #hush (key: string): void {
    const timer = this.#clock.setTimer(() => {
      const quiet = this.#keys.get(key)
      this.#keys.delete(key)
      if (quiet === undefined || quiet.count === 0) return
      quiet.say(quiet.count)
      this.#hush(key)
    }, 1_000)
    timer.unref()
    this.#keys.set(key, { count: 0, say: () => {}, timer })
  }

  close (): void {
    for (const quiet of this.#keys.values()) {
      this.#clock.clearTimer(quiet.timer)
      if (quiet.count > 0) quiet.say(quiet.count)
    }
    this.#keys.clear()
  }
}

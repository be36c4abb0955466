/**
 * Jobs of a reply that a durable backend keeps: written before the response goes out, so that a 2xx never lies, and
 * released after it.
 *
 * A job is `open` until its write begins. In `onSend` its `when` is judged, from status and error: what it accepts is
 * written, as pending, in one call for all jobs of the reply; what it refuses never reaches the store. Where no answer
 * can wait (hijacked, headers sent, client gone) a job is written at once, and `when` judges the end of the response,
 * as in memory. That end also judges, before the write, what no `onSend` ever saw.
 */
import type { FastifyReply } from 'fastify'
import type { Backends } from '../backend.ts'
import { peek } from '../describe.ts'
import { errors } from '../errors.ts'
import type { CancelReason, NewJob } from '../job.ts'
import type { Intake } from '../jobs/add.ts'
import type { Acceptance } from '../jobs/handle.ts'
import type { MadeJob } from '../jobs/made.ts'
import type { Observer } from '../observe.ts'
import { cancelPending, type Gate } from './gate.ts'
import { accepts, refusal, type ResponseEnd } from './when.ts'

/** A job on its way into a store. */
class StagedJob implements Acceptance {
  readonly job: MadeJob
  readonly accepted: Promise<void>
  resolve!: () => void
  reject!: (error: unknown) => void
  /** What `when` said; nothing before it was asked. */
  willing: boolean | undefined
  /** Resolves to whether the store has the job; nothing before the write begins. */
  written: Promise<boolean> | undefined

  constructor (job: MadeJob) {
    this.job = job
    this.accepted = new Promise((resolve, reject) => { this.resolve = resolve; this.reject = reject })
    this.accepted.catch(() => {}) // most callers never look
  }

  get open (): boolean { return this.written === undefined }
}

/** The durable jobs of one reply. */
class Staging {
  jobs: StagedJob[] = []
  /** `onSend` has passed, or will never come: the answer waits for nothing that is staged from now on. */
  sent = false
}

/** Of a body that is not sent. */
const ABOUT_THE_BODY = ['content-encoding', 'content-range', 'content-disposition', 'etag', 'last-modified', 'cache-control']

export interface DoorParts {
  readonly intake: Intake
  readonly backends: Backends
  readonly gate: Gate
  readonly observer: Observer
  readonly statusUrl: (id: string) => string | null
}

export class DurableDoor {
  readonly #parts: DoorParts
  readonly #stagings = new WeakMap<FastifyReply, Staging>()
  /** Jobs that their store has not taken yet. */
  readonly #unstored = new Map<string, { readonly staging: Staging, readonly staged: StagedJob }>()

  constructor (parts: DoorParts) {
    this.#parts = parts
  }

  stage (reply: FastifyReply, job: MadeJob): Acceptance {
    const staging = this.#stagings.get(reply) ?? this.#begin(reply)
    const staged = new StagedJob(job)
    this.#unstored.set(job.id, { staging, staged })
    if (staging.jobs.push(staged) === 1) this.#parts.gate.whenOver(reply, (end) => { this.#over(staging, end) })
    staging.sent ||= reply.sent || reply.raw.headersSent || this.#parts.gate.hasLeft(reply)
    if (staging.sent) void this.#write([staged], true, false)
    return staged
  }

  /** The job is written already, as pending, and starts when the response is over. */
  hold (reply: FastifyReply, job: NewJob): void {
    const { gate, observer } = this.#parts
    gate.share(job)
    gate.whenOver(reply, (end) => {
      const reason = refusal(job, accepts(job, end, observer), end.aborted)
      const isShared = gate.unshare(job)
      if (reason === undefined || !isShared) this.#follow(job, Promise.resolve(true), reason)
    })
  }

  /**
   * For the `onSend` hook. Comes again, for the error, when a later hook throws.
   * @throws FST_BG_STORE_UNAVAILABLE, FST_BG_NOT_STORABLE when a reply below 400 must not go out
   */
  send (reply: FastifyReply, payload: unknown): Promise<void> | undefined {
    const staging = this.#stagings.get(reply)
    if (staging === undefined) return undefined
    staging.sent = true
    const { gate, observer } = this.#parts
    const end = { ...gate.endSoFar(reply), statusCode: statusOf(reply, payload) }
    for (const staged of staging.jobs) staged.willing = accepts(staged.job, end, observer)
    const fresh = staging.jobs.filter((staged) => staged.open && staged.willing === true)
    if (fresh.length === 0) return undefined
    return this.#sendAfter(fresh, end, reply, payload)
  }

  /**
   * Cancels a job that is not written yet. Answers whether it was; one that is being written is waited for: its store knows
   * then.
   */
  async cancel (id: string, detail: string | undefined): Promise<boolean> {
    const found = this.#unstored.get(id)
    if (found === undefined) return false
    const { staging, staged } = found
    if (staged.written !== undefined) {
      await staged.written
      return false
    }
    staging.jobs = staging.jobs.filter((other) => other !== staged)
    this.#drop(staged, 'user', detail)
    return true
  }

  #drop (staged: StagedJob, reason: CancelReason, detail?: string): void {
    this.#unstored.delete(staged.job.id)
    staged.written = Promise.resolve(false)
    this.#parts.observer.cancelled(staged.job, reason, detail)
    staged.reject(new errors.JobCancelled(staged.job.id, reason))
  }

  async #sendAfter (fresh: readonly StagedJob[], end: ResponseEnd, reply: FastifyReply, payload: unknown): Promise<void> {
    const canTell = end.statusCode < 400 && !end.aborted
    const error = await this.#write(fresh, true, canTell)
    if (error === undefined || !canTell) return
    this.#withdraw(reply, payload, fresh)
    throw error
  }

  #begin (reply: FastifyReply): Staging {
    const staging = new Staging()
    this.#stagings.set(reply, staging)
    const hijack = reply.hijack.bind(reply)
    // A hijacked reply has no onSend: what was staged before does not wait for one.
    reply.hijack = () => {
      const open = staging.sent ? [] : staging.jobs.filter((staged) => staged.open)
      staging.sent = true
      if (open.length > 0) void this.#write(open, true, false)
      return hijack()
    }
    return staging
  }

  /** All or none. Answers the error, if it failed; never rejects. `told`: somebody hears of it. */
  async #write (jobs: readonly StagedJob[], staged: boolean, told: boolean): Promise<Error | undefined> {
    const storing = this.#store(jobs, staged, told)
    for (const each of jobs) each.written = storing.then((error) => error === undefined)
    const error = await storing
    for (const each of jobs) {
      this.#unstored.delete(each.job.id)
      if (error === undefined) each.resolve()
      else each.reject(error)
    }
    return error
  }

  async #store (jobs: readonly StagedJob[], staged: boolean, told: boolean): Promise<Error | undefined> {
    try {
      await this.#parts.intake.store(jobs.map(({ job }) => job), staged, told)
      return undefined
    } catch (error) {
      return error as Error
    }
  }

  #over (staging: Staging, end: ResponseEnd): void {
    const { jobs } = staging
    staging.jobs = []
    staging.sent = true
    const late: StagedJob[] = []
    for (const staged of jobs) {
      const accepted = staged.willing ?? accepts(staged.job, end, this.#parts.observer)
      const reason = refusal(staged.job, accepted, end.aborted)
      if (staged.written !== undefined) this.#follow(staged.job, staged.written, reason)
      else if (reason === undefined) late.push(staged)
      else this.#drop(staged, reason)
    }
    if (late.length > 0) void this.#write(late, false, false)
  }

  /** The release may come before the write has ended. */
  #follow (job: NewJob, written: Promise<boolean>, reason: ReturnType<typeof refusal>): void {
    const { backends, observer } = this.#parts
    const backend = backends.of(job.queue, false)
    observer.guard(reason === undefined ? 'release a job' : 'cancel a job', async () => {
      if (!await written) return
      if (reason === undefined) await backend.release([job.id])
      else await cancelPending(backend, job, reason, observer)
    })
  }

  /** The answer is replaced by an error: what it said of the jobs and of its body is taken back. */
  #withdraw (reply: FastifyReply, payload: unknown, jobs: readonly StagedJob[]): void {
    const location = reply.getHeader('location')
    if (jobs.some(({ job }) => this.#parts.statusUrl(job.id) === location)) reply.removeHeader('location')
    for (const name of ABOUT_THE_BODY) reply.removeHeader(name)
    const destroy = peek(payload, 'destroy') ?? peek(payload, 'cancel')
    if (typeof destroy === 'function') void Promise.resolve(destroy.call(payload)).catch(() => {})
  }
}

/** A web Response brings its own status, which Fastify takes over after onSend. */
function statusOf (reply: FastifyReply, payload: unknown): number {
  const own = payload instanceof Response ? payload.status : undefined
  return own ?? reply.raw.statusCode
}

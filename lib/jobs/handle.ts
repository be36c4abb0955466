/** What adding a job returns. */
import { errors } from '../errors.ts'
import type { NewJob } from '../job.ts'
import type { Control, FinishedOptions } from './control.ts'

/** A job that was added. */
export interface JobHandle<Result = unknown> {
  /** UUID version 7. */
  readonly id: string
  /** The task's name; for inline functions, the function's own, or `inline`. */
  readonly name: string
  /** Path of the status route; null when that route is off. */
  readonly statusUrl: string | null
  /**
   * Resolves when the backend has the job. On a durable backend a staged job is written when the reply is sent: a
   * handler that awaits this before it answers waits for itself.
   * @throws FST_BG_STORE_UNAVAILABLE; FST_BG_JOB_CANCELLED for a staged job that `when` refused before it was written
   */
  readonly accepted: Promise<void>
  /**
   * Resolves to the job's result.
   * @throws FST_BG_JOB_FAILED, FST_BG_JOB_CANCELLED, FST_BG_TIMEOUT, FST_BG_JOB_NOT_FOUND; FST_BG_WOULD_DEADLOCK for a
   * job staged by a response that is still open; the signal's reason
   */
  finished (options?: FinishedOptions): Promise<Result>
}

/** How it goes for a job whose backend does not answer at once. */
export interface Acceptance {
  readonly accepted: Promise<void>
  /** The job waits for its response, and is not in the store yet. */
  readonly open: boolean
}

export class Handle implements JobHandle<never> {
  readonly #control: Control
  readonly #job: Pick<NewJob, 'id' | 'name'>
  readonly #acceptance: Acceptance | undefined

  constructor (control: Control, job: Pick<NewJob, 'id' | 'name'>, acceptance?: Acceptance) {
    this.#control = control
    this.#job = job
    this.#acceptance = acceptance
  }

  get id (): string { return this.#job.id }
  get name (): string { return this.#job.name }
  get statusUrl (): string | null { return this.#control.statusUrl(this.id) }
  get accepted (): Promise<void> { return this.#acceptance?.accepted ?? Promise.resolve() }

  async finished (options?: FinishedOptions): Promise<never> {
    if (this.#acceptance?.open === true) throw new errors.WouldDeadlock(this.id)
    return this.#control.finished(this.id, options) as Promise<never>
  }
}

/** What adding a job returns. */
import type { Control, FinishedOptions } from './control.ts'

export interface JobHandle<Result = unknown> {
  /** UUID version 7. */
  readonly id: string
  /** The task's name; for inline functions, the function's own, or `inline`. */
  readonly name: string
  /** Path of the status route; null when that route is off. */
  readonly statusUrl: string | null
  /** Resolves when the backend has the job. */
  readonly accepted: Promise<void>
  /**
   * Resolves to the job's result.
   * @throws FST_BG_JOB_FAILED, FST_BG_JOB_CANCELLED, FST_BG_TIMEOUT, FST_BG_JOB_NOT_FOUND; FST_BG_WOULD_DEADLOCK for a
   * job staged by a response that is still open; the signal's reason
   */
  finished (options?: FinishedOptions): Promise<Result>
}

export class Handle implements JobHandle<never> {
  readonly id: string
  readonly name: string
  readonly #control: Control
  readonly #accepted: Promise<void> | undefined

  constructor (control: Control, job: { id: string, name: string }, accepted: Promise<void> | undefined) {
    this.id = job.id
    this.name = job.name
    this.#control = control
    this.#accepted = accepted
  }

  get statusUrl (): string | null { return this.#control.statusUrl(this.id) }
  get accepted (): Promise<void> { return this.#accepted ?? Promise.resolve() }

  finished (options?: FinishedOptions): Promise<never> {
    return this.#control.finished(this.id, options) as Promise<never>
  }
}

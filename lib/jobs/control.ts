/** Reading and steering jobs. */
import type { Backend, CancelAnswer, Change, QueueCounts } from '../backend.ts'
import * as check from '../check.ts'
import type { Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import { isId } from '../id.ts'
import { isFinal, type JobRecord } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { Dispatch } from './dispatch.ts'

export interface FinishedOptions {
  /** Ms to wait; then `FST_BG_TIMEOUT`. 0: for ever. @default 0 */
  timeout?: number | undefined
  /** Stops the waiting, not the job. */
  signal?: AbortSignal | undefined
}

export interface QueueStatus extends Omit<QueueCounts, 'retrying' | 'oldestWaitingMs'> {
  concurrency: number
  paused: boolean
}

const WAIT_CHECKS: check.Checks = {
  timeout: check.duration,
  signal: (value) => value instanceof AbortSignal ? undefined : 'an AbortSignal'
}

export class Control {
  readonly backend: Backend
  readonly #dispatch: Dispatch
  readonly #observer: Observer
  readonly #clock: Clock
  /** Set by the routes when there is one: `/jobs/` and `/status`, around the id. */
  statusPath: readonly [before: string, after: string] | undefined

  constructor (backend: Backend, dispatch: Dispatch, observer: Observer, clock: Clock) {
    this.backend = backend
    this.#dispatch = dispatch
    this.#observer = observer
    this.#clock = clock
  }

  statusUrl (id: string): string | null {
    return this.statusPath === undefined ? null : this.statusPath[0] + id + this.statusPath[1]
  }

  async get (id: string): Promise<JobRecord | undefined> {
    return isId(id) ? this.backend.get(id) : undefined
  }

  async counts (): Promise<Record<string, QueueStatus>> {
    const all = await this.backend.counts()
    const status: Record<string, QueueStatus> = {}
    for (const [name, { retrying: _, oldestWaitingMs: __, ...counts }] of Object.entries(all)) {
      const pool = this.#dispatch.pools.get(name)
      status[name] = { ...counts, concurrency: pool?.concurrency ?? 0, paused: pool?.paused ?? false }
    }
    return status
  }

  /** `reason` is a text for the log and for the signal's reason; the status says `user`. */
  async cancel (id: string, reason?: string): Promise<CancelAnswer> {
    if (reason !== undefined) check.must('cancel(id, reason)', check.name, reason)
    const record = await this.get(id)
    if (record === undefined) return undefined
    const answer = await this.backend.cancel(id, 'user', reason ?? 'the job was cancelled')
    if (answer === 'cancelled') this.#observer.cancelled(record, 'user', reason)
    return answer
  }

  /** @throws FST_BG_UNKNOWN_QUEUE */
  async pause (queue?: string): Promise<void> {
    for (const pool of this.#pools(queue)) pool.pause()
  }

  /** @throws FST_BG_UNKNOWN_QUEUE */
  async resume (queue?: string): Promise<void> {
    for (const pool of this.#pools(queue)) pool.resume()
  }

  /** Nothing pending, waiting, active, or delayed by a retry or a rate limit. */
  async onIdle (options: { timeout?: number | undefined } = {}): Promise<void> {
    const { timeout = 0 } = check.options<{ timeout?: number }>('onIdle options', { timeout: check.duration }, options)
    await this.#until('onIdle', timeout, undefined, async () => {
      for (const counts of Object.values(await this.backend.counts())) {
        if (counts.pending + counts.waiting + counts.active + counts.retrying > 0) return undefined
      }
      return true
    })
  }

  async finished (id: string, options: FinishedOptions = {}): Promise<unknown> {
    const { timeout = 0, signal } = check.options<FinishedOptions>('finished options', WAIT_CHECKS, options)
    const now = await this.get(id)
    if (now === undefined) throw new errors.JobNotFound()
    if (now.state === 'pending') throw new errors.WouldDeadlock(id)
    const record = await this.#until(`job ${id}`, timeout, signal, async (change) => {
      if (change !== undefined && (change.id !== id || !isFinal(change.state))) return undefined
      const found = await this.get(id)
      if (found === undefined) throw new errors.JobNotFound()
      return isFinal(found.state) ? found : undefined
    })
    if (record.state === 'cancelled') throw new errors.JobCancelled(id, record.reason ?? 'user')
    if (record.state === 'failed') {
      const error = new errors.JobFailed(id, record.failure ?? 'exhausted', record.error?.message ?? '')
      throw Object.assign(error, { failure: record.failure, cause: record.error })
    }
    return record.result
  }

  /** Asks now and at each change, until the answer is there. The listener lives no longer than the call. */
  #until<T> (what: string, timeout: number, signal: AbortSignal | undefined, ask: (change?: Change) => Promise<T | undefined>): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = (change?: Change): void => {
        ask(change).then((answer) => { if (answer !== undefined) stop(() => { resolve(answer) }) }, fail)
      }
      const fail = (error: unknown): void => { stop(() => { reject(error) }) }
      const onAbort = (): void => { fail(signal?.reason) }
      const unwatch = this.backend.watch(look)
      const timer = timeout > 0 ? this.#clock.setTimer(() => { fail(new errors.Timeout(what, timeout)) }, Math.min(timeout, 2 ** 31 - 1)) : undefined
      const stop = (end: () => void): void => {
        unwatch()
        if (timer !== undefined) this.#clock.clearTimer(timer)
        signal?.removeEventListener('abort', onAbort)
        end()
      }
      signal?.addEventListener('abort', onAbort)
      if (signal?.aborted === true) onAbort()
      else look()
    })
  }

  #pools (queue: string | undefined): Array<{ pause (): void, resume (): void }> {
    if (queue === undefined) return [...this.#dispatch.pools.values()]
    const pool = this.#dispatch.pools.get(queue)
    if (pool === undefined) throw new errors.UnknownQueue(check.came(queue), [...this.#dispatch.pools.keys()].join(', '))
    return [pool]
  }
}

/** Reading and steering jobs. */
import type { Backend, CancelAnswer, QueueCounts } from '../backend.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import { isId } from '../id.ts'
import { isFinal, MOVES, type JobRecord, type JobState } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { Changes } from './changes.ts'
import type { Dispatch } from './dispatch.ts'

/** How long to wait for the end of a job. */
export interface FinishedOptions {
  /** Ms to wait; then `FST_BG_TIMEOUT`. 0: for ever. @default 0 */
  timeout?: number | undefined
  /** Stops the waiting, not the job. Without it `timeout` alone does. */
  signal?: AbortSignal | undefined
}

/** Jobs of a queue by state, and its slots: attempts at once. */
export interface QueueStatus extends Omit<QueueCounts, 'retrying' | 'limited' | 'oldestWaitingMs'> {
  concurrency: number
  paused: boolean
}

/** Which jobs to list; without it, all of them, page by page. */
export interface JobsQuery {
  /** One state, or several. @default all */
  state?: JobState | readonly JobState[] | undefined
  task?: string | undefined
  queue?: string | undefined
  /** Of making. @default 'oldest' */
  order?: 'oldest' | 'newest' | undefined
  /** The `next` of the page before. */
  after?: string | undefined
  /** 1 to 1 000. @default 100 */
  limit?: number | undefined
}

/** Jobs in the order asked for. */
export interface JobPage {
  jobs: JobRecord[]
  /** For `after`; null on the last page. */
  next: string | null
}

const aState: check.Check = (value) => typeof value === 'string' && Object.hasOwn(MOVES, value) ? undefined : `a state: ${Object.keys(MOVES).join(', ')}`
const QUERY_CHECKS: check.Checks = {
  state: (value) => check.isArray(value) ? value.map(aState).find((fault) => fault !== undefined) : aState(value),
  task: check.name,
  queue: check.name,
  order: check.oneOf('oldest', 'newest'),
  after: (value) => isId(value) ? undefined : 'the id of a job',
  limit: check.integer(1, 1_000)
}

const WAIT_CHECKS: check.Checks = {
  timeout: check.duration,
  signal: (value) => value instanceof AbortSignal && typeof value.aborted === 'boolean' ? undefined : 'an AbortSignal'
}

export class Control {
  readonly backend: Backend
  readonly #dispatch: Dispatch
  readonly #observer: Observer
  readonly #changes: Changes
  /** Set by the routes when there is one: `/jobs/` and `/status`, around the id. */
  statusPath: readonly [before: string, after: string] | undefined
  /** Set where jobs are written as their response goes out: cancels one that is not written yet, and answers whether it was. */
  cancelUnwritten: ((id: string, detail: string | undefined) => Promise<boolean>) | undefined

  constructor (backend: Backend, dispatch: Dispatch, observer: Observer, changes: Changes) {
    this.backend = backend
    this.#dispatch = dispatch
    this.#observer = observer
    this.#changes = changes
  }

  statusUrl (id: string): string | null {
    return this.statusPath === undefined ? null : this.statusPath[0] + id + this.statusPath[1]
  }

  async get (id: string): Promise<JobRecord | undefined> {
    return isId(id) ? this.backend.get(id) : undefined
  }

  async counts (): Promise<Record<string, QueueStatus>> {
    const all = await this.backend.counts()
    // Made by `fromEntries`: an assignment would switch the prototype for a queue named `__proto__`.
    return Object.fromEntries(Object.entries(all).map(([name, found]) => {
      const { retrying: _, limited: __, oldestWaitingMs: ___, ...counts } = found
      const pool = this.#dispatch.pools.get(name)
      return [name, { ...counts, concurrency: pool?.concurrency ?? 0, paused: pool?.paused ?? false }]
    }))
  }

  async page (query: JobsQuery = {}): Promise<JobPage> {
    const { state, task, queue, order = 'oldest', after, limit = 100 } = check.options<JobsQuery>('list(query)', QUERY_CHECKS, query)
    const found = await this.backend.list({
      newestFirst: order === 'newest', limit: limit + 1, ...(state !== undefined && { states: typeof state === 'string' ? [state] : state }),
      ...(task !== undefined && { name: task }), ...(queue !== undefined && { queue }), ...(after !== undefined && { after })
    })
    const jobs = found.slice(0, limit)
    return { jobs, next: found.length > limit ? (jobs.at(-1) as JobRecord).id : null }
  }

  /** @throws FST_BG_NOT_SUPPORTED */
  async promote (id: string): Promise<boolean> {
    if (await this.get(id) === undefined) return false
    if (this.backend.promote === undefined) throw new errors.NotSupported('promoting a delayed job', this.backend.name)
    return this.backend.promote(id)
  }

  async remove (id: string): Promise<boolean> {
    const record = await this.get(id)
    return record !== undefined && isFinal(record.state) && await this.backend.remove([id]) === 1
  }

  /** `reason` is a text for the log and for the signal's reason; the status says `user`. */
  async cancel (id: string, reason?: string): Promise<CancelAnswer> {
    if (reason !== undefined) check.must('cancel(id, reason)', check.name, reason)
    if (await this.cancelUnwritten?.(id, reason) === true) return 'cancelled'
    const record = await this.get(id)
    if (record === undefined) return undefined
    const answer = await this.backend.cancel(id, 'user', reason ?? 'the job was cancelled')
    if (answer === 'cancelled') this.#observer.cancelled(record, 'user', reason)
    return answer
  }

  /** @throws FST_BG_UNKNOWN_QUEUE, FST_BG_NOT_READY */
  async pause (queue?: string): Promise<void> {
    for (const pool of this.#pools(queue)) pool.pause()
  }

  /** @throws FST_BG_UNKNOWN_QUEUE, FST_BG_NOT_READY */
  async resume (queue?: string): Promise<void> {
    for (const pool of this.#pools(queue)) pool.resume()
  }

  /** Nothing pending, waiting, active, or delayed by a retry or a rate limit. */
  async onIdle (options: { timeout?: number | undefined } = {}): Promise<void> {
    const { timeout = 0 } = check.options<{ timeout?: number }>('onIdle options', { timeout: check.duration }, options)
    await this.#changes.until({ what: 'onIdle', timeout }, async () => {
      for (const counts of Object.values(await this.backend.counts())) {
        if (counts.pending + counts.waiting + counts.active + counts.retrying + counts.limited > 0) return undefined
      }
      return true
    })
    this.backend.idle?.()
  }

  async finished (id: string, options: FinishedOptions = {}): Promise<unknown> {
    const { timeout = 0, signal } = check.options<FinishedOptions>('finished options', WAIT_CHECKS, options)
    const now = await this.get(id)
    if (now === undefined) throw new errors.JobNotFound()
    if (now.state === 'pending') throw new errors.WouldDeadlock(id)
    const record = await this.untilFinal(id, timeout, signal)
    if (record.state === 'cancelled') throw new errors.JobCancelled(id, record.reason ?? 'user')
    if (record.state === 'failed') {
      const error = new errors.JobFailed(id, record.failure ?? 'exhausted', record.error?.message ?? '')
      throw Object.assign(error, { failure: record.failure, cause: record.error })
    }
    return record.result
  }

  /** The record of a job that has ended, however it did. */
  untilFinal (id: string, timeout: number, signal: AbortSignal | undefined): Promise<JobRecord> {
    return this.#changes.until({ what: `job ${id}`, id, timeout, signal }, async () => {
      const found = await this.get(id)
      if (found === undefined) throw new errors.JobNotFound()
      return isFinal(found.state) ? found : undefined
    })
  }

  /** Tells each change of the job's state. Answers how to stop. */
  follow (id: string, listener: (state: JobState) => void): () => void {
    return this.#changes.follow(id, listener)
  }

  #pools (queue: string | undefined): Array<{ pause (): void, resume (): void }> {
    if (this.#dispatch.pools.size === 0) throw new errors.NotReady('pause or resume')
    if (queue === undefined) return [...this.#dispatch.pools.values()]
    const pool = this.#dispatch.pools.get(queue)
    if (pool === undefined) throw new errors.UnknownQueue(check.came(queue), [...this.#dispatch.pools.keys()].join(', '))
    return [pool]
  }
}

/** Dead letters: jobs in state `failed`, kept to be looked at, retried or removed. */
import type { Backend } from '../backend.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import { isId } from '../id.ts'
import type { JobRecord } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { Runner } from './runner.ts'

export interface DeadLetterFilter {
  task?: string | undefined
}

export interface DeadLetterQuery extends DeadLetterFilter {
  /** The `next` of the page before. */
  after?: string | undefined
  /** 1 to 1 000. @default 100 */
  limit?: number | undefined
}

export interface DeadLetterPage {
  /** In the order of making. */
  jobs: JobRecord[]
  /** For `after`; null on the last page. */
  next: string | null
}

export interface DeadLetterRetryOptions {
  /** Only count. @default false */
  dryRun?: boolean | undefined
  /** Starts this many a second. @default all at once */
  ratePerSecond?: number | undefined
}

/** `matched` were meant, `done` were done. */
export interface DeadLetterAnswer {
  matched: number
  done: number
}

const anId: check.Check = (value) => isId(value) ? undefined : 'the id of a job'
const FILTER: check.Checks = { task: check.name }
const QUERY: check.Checks = { ...FILTER, after: anId, limit: check.integer(1, 1_000) }
const RETRY: check.Checks = {
  dryRun: check.boolean,
  ratePerSecond: (value) => typeof value === 'number' && value > 0 && value <= 1e6 ? undefined : 'a number above 0, at most 1000000'
}

export class DeadLetters {
  readonly #backend: Backend
  readonly #runner: Runner
  readonly #observer: Observer

  constructor (backend: Backend, runner: Runner, observer: Observer) {
    this.#backend = backend
    this.#runner = runner
    this.#observer = observer
  }

  async list (query: DeadLetterQuery = {}): Promise<DeadLetterPage> {
    const { task, after, limit = 100 } = check.options<DeadLetterQuery>('deadLetters.list query', QUERY, query)
    // One more than asked for tells whether there is a next page.
    const found = await this.#backend.list({
      states: ['failed'], limit: limit + 1, ...(task !== undefined ? { name: task } : {}), ...(after !== undefined ? { after } : {})
    })
    const jobs = found.slice(0, limit)
    return { jobs, next: found.length > limit ? (jobs.at(-1) as JobRecord).id : null }
  }

  async get (id: string): Promise<JobRecord | undefined> {
    const record = isId(id) ? await this.#backend.get(id) : undefined
    return record?.state === 'failed' ? record : undefined
  }

  /**
   * @throws FST_BG_NOT_RETRYABLE for the id of a dead letter whose inline function was released, or whose last body,
   * given up, is still alive
   */
  async retry (which: string | DeadLetterFilter, options: DeadLetterRetryOptions = {}): Promise<DeadLetterAnswer> {
    const { dryRun = false, ratePerSecond } = check.options<DeadLetterRetryOptions>('deadLetters.retry options', RETRY, options)
    const jobs = await this.#match(which)
    if (dryRun) return { matched: jobs.length, done: 0 }
    // Two attempts of one job never overlap, not even after one was given up.
    const free = jobs.filter(({ id }) => !this.#runner.lives(id))
    const done = await this.#backend.retry(free.map(({ id }) => id), ratePerSecond === undefined ? 0 : 1_000 / ratePerSecond)
    this.#observer.replayed(done === free.length ? free : await this.#revived(free))
    if (typeof which === 'string' && jobs.length === 1 && done === 0) {
      throw new errors.NotRetryable(which, free.length === 0 ? 'the body of its last attempt is still alive' : 'its inline function was released when it ended')
    }
    return { matched: jobs.length, done }
  }

  /** Where some were refused: those that are dead letters no more. */
  async #revived (jobs: readonly JobRecord[]): Promise<JobRecord[]> {
    const revived: JobRecord[] = []
    for (const job of jobs) if (await this.get(job.id) === undefined) revived.push(job)
    return revived
  }

  async remove (which: string | DeadLetterFilter): Promise<DeadLetterAnswer> {
    const jobs = await this.#match(which)
    return { matched: jobs.length, done: await this.#backend.remove(jobs.map(({ id }) => id)) }
  }

  async #match (which: string | DeadLetterFilter): Promise<JobRecord[]> {
    if (typeof which === 'string') return [await this.get(which)].filter((job) => job !== undefined)
    const { task } = check.options<DeadLetterFilter>('deadLetters filter', FILTER, which)
    return this.#backend.list({ states: ['failed'], limit: Infinity, ...(task !== undefined ? { name: task } : {}) })
  }
}

/** Dead letters: jobs in state `failed`, kept to be looked at, retried or removed. */
import type { Backend } from '../backend.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import { isId } from '../id.ts'
import type { JobRecord } from '../job.ts'
import { asDeadLetter, Groups, type DeadLetter, type DeadLetterGroup } from './dead-letter-groups.ts'
import { Replay, REPLAY, type DeadLetterAnswer, type DeadLetterRetryOptions, type ReplayParts } from './dead-letter-replay.ts'

/** Which dead letters are meant. */
export interface DeadLetterFilter {
  task?: string | undefined
  /** As `list` and `groups` tell it. */
  fingerprint?: string | undefined
  /** Failed at this instant or later: Date, ISO 8601 or ms since the epoch. */
  since?: Date | string | number | undefined
  /** Failed before this instant. Date, ISO 8601 or ms since the epoch. */
  until?: Date | string | number | undefined
  /** Asked last, for each that is left; anything but `true` leaves it out. */
  where?: ((job: DeadLetter) => boolean | Promise<boolean>) | undefined
}

/** Which dead letters to list. */
export interface DeadLetterQuery extends DeadLetterFilter {
  /** The `next` of the page before. */
  after?: string | undefined
  /** 1 to 1 000. @default 100 */
  limit?: number | undefined
}

/** A page of dead letters. */
export interface DeadLetterPage {
  /** In the order of making. */
  jobs: DeadLetter[]
  /** For `after`; null on the last page. */
  next: string | null
}

/** Dead letters of one cause each. */
export interface DeadLetterGroups {
  /** The largest first. */
  groups: DeadLetterGroup[]
  /** Dead letters, in all groups. */
  matched: number
}

const anId: check.Check = (value) => isId(value) ? undefined : 'the id of a job'
const LIMIT = check.integer(1, 1_000)
const FILTER: check.Checks = {
  task: check.name,
  fingerprint: (value) => typeof value === 'string' && /^[0-9a-f]{16}$/.test(value) ? undefined : 'a fingerprint, 16 hexadecimal digits',
  since: check.instant,
  until: check.instant,
  where: check.func
}
/** Dead letters that are read together. */
const PAGE = 500

/** Jobs that failed for good: read, replayed, removed. */
export class DeadLetters {
  readonly #backend: Backend
  readonly #replay: Replay

  constructor (parts: ReplayParts) {
    this.#backend = parts.backends.all
    this.#replay = new Replay(parts)
  }

  /**
   * In the order of making.
   * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
   */
  async list (query: DeadLetterQuery = {}): Promise<DeadLetterPage> {
    const { after, limit = 100, ...filter } = check.options<DeadLetterQuery>('deadLetters.list query', { ...FILTER, after: anId, limit: LIMIT }, query)
    const jobs: DeadLetter[] = []
    for await (const job of this.#matching(filter, after, limit + 1)) {
      // One more than asked for tells whether there is a next page.
      if (jobs.length === limit) return { jobs, next: (jobs.at(-1) as DeadLetter).id }
      jobs.push(job)
    }
    return { jobs, next: null }
  }

  /** Dead letters by the kind of their last error. `limit`: of groups, 1 to 1 000, by default 100. */
  async groups (query: DeadLetterFilter & { limit?: number | undefined } = {}): Promise<DeadLetterGroups> {
    const { limit = 100, ...filter } = check.options<DeadLetterQuery>('deadLetters.groups query', { ...FILTER, limit: LIMIT }, query)
    const groups = new Groups()
    for await (const job of this.#matching(filter)) groups.add(job)
    return { groups: groups.largest(limit), matched: groups.matched }
  }

  /** `undefined`: there is no such job, or it is no dead letter. */
  async get (id: string): Promise<DeadLetter | undefined> {
    const record = isId(id) ? await this.#backend.get(id) : undefined
    return record?.state === 'failed' ? asDeadLetter(record) : undefined
  }

  /**
   * Each starts again at attempt 0, its history stays.
   * @throws FST_BG_NOT_RETRYABLE for the id of a dead letter whose inline function was released, or whose last body,
   * given up, is still alive; with a `patch` FST_BG_BAD_PAYLOAD, FST_BG_PAYLOAD_TOO_LARGE, FST_BG_UNKNOWN_TASK,
   * FST_BG_NOT_SUPPORTED, before any was retried
   */
  async retry (which: string | DeadLetterFilter, options: DeadLetterRetryOptions = {}): Promise<DeadLetterAnswer> {
    const given = check.options<DeadLetterRetryOptions>('deadLetters.retry options', REPLAY, options)
    const plan = this.#replay.plan(given)
    for await (const job of this.#meant(which)) plan.add(job)
    const answer = await plan.run()
    if (typeof which === 'string' && given.dryRun !== true && answer.matched === 1 && answer.done === 0) {
      throw new errors.NotRetryable(which, plan.blocked > 0 ? 'the body of its last attempt is still alive' : 'its inline function was released when it ended')
    }
    return answer
  }

  /**
   * Forgets them.
   * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
   */
  async remove (which: string | DeadLetterFilter): Promise<DeadLetterAnswer> {
    const ids: string[] = []
    for await (const { id } of this.#meant(which)) ids.push(id)
    return { matched: ids.length, done: await this.#backend.remove(ids) }
  }

  /** For the shutdown: nobody waits for a canary any more. */
  close (): void {
    this.#replay.close()
  }

  async * #meant (which: string | DeadLetterFilter): AsyncGenerator<DeadLetter> {
    if (typeof which !== 'string') return yield * this.#matching(check.options<DeadLetterFilter>('deadLetters filter', FILTER, which))
    const job = await this.get(which)
    if (job !== undefined) yield job
  }

  async * #matching ({ task, fingerprint, since, until, where }: DeadLetterFilter, after?: string, likely = PAGE): AsyncGenerator<DeadLetter> {
    const from = since === undefined ? -Infinity : check.toEpoch(since)
    const to = until === undefined ? Infinity : check.toEpoch(until)
    const size = Math.min(likely, PAGE)
    for (let last = after, more = true; more;) {
      const found: JobRecord[] = await this.#backend.list({
        states: ['failed'], limit: size, ...(task !== undefined ? { name: task } : {}), ...(last !== undefined ? { after: last } : {})
      })
      for (const record of found) {
        const job = asDeadLetter(record)
        const failedAt = Date.parse(job.finishedAt ?? job.createdAt)
        if (failedAt < from || failedAt >= to || (fingerprint !== undefined && fingerprint !== job.fingerprint)) continue
        if (where === undefined || await where(job) === true) yield job
      }
      more = found.length === size
      last = found.at(-1)?.id
    }
  }
}

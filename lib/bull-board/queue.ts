/** One of our queues, as bull-board sees a queue. What it asks for and we have not is refused by name. */
import type { JobCleanStatus, JobCounts, JobStatus, QueueMetrics, Status } from '@bull-board/api/typings/app'
import { BaseAdapter } from '@bull-board/api/dist/queueAdapters/base.js'
import type { Background } from '../background.ts'
import * as check from '../check.ts'
import { systemClock } from '../clock.ts'
import { errors } from '../errors.ts'
import { isFinal, type JobRecord, type JobState } from '../job.ts'
import type { Action } from '../options.ts'
import { ShownJob, tellLog } from './shown-job.ts'

/** The request that is being answered. */
export interface Visit {
  readonly action: Action
  readonly may: (job: JobRecord) => Promise<boolean>
}

export interface QueueSettings {
  readonly readOnly: boolean
  readonly redact: ((job: JobRecord) => void) | undefined
  readonly visit: () => Visit
}

/** A cancelled job has ended: it is shown among the completed ones, with its reason. */
const STATES: Readonly<Partial<Record<JobStatus, readonly JobState[]>>> = {
  active: ['active'],
  waiting: ['waiting', 'pending'],
  'waiting-children': ['waiting-children'],
  completed: ['completed', 'cancelled'],
  failed: ['failed'],
  delayed: ['delayed']
}
const STATUSES = Object.keys(STATES) as JobStatus[]
/** Jobs that are read together. */
const PAGE = 500

export class QueueAdapter extends BaseAdapter {
  readonly #queue: string
  readonly #background: Background
  readonly #settings: QueueSettings

  constructor (queue: string, background: Background, settings: QueueSettings) {
    // Of a queue of BullMQ the page would want trees of flows, and a limit for all processes, from BullMQ itself.
    super('bull', { readOnlyMode: settings.readOnly, allowCompletedRetries: false })
    this.#queue = queue
    this.#background = background
    this.#settings = settings
  }

  getName (): string { return this.#queue }
  getStatuses (): Status[] { return ['latest', ...STATUSES] as Status[] }
  getJobStatuses (): JobStatus[] { return STATUSES }

  async getJobCounts (): Promise<JobCounts> {
    const counts = (await this.#background.counts())[this.#queue]
    const sums = STATUSES.map((status) => [status, (STATES[status] ?? []).reduce((sum, state) => sum + ((counts as Partial<Record<JobState, number>> | undefined)?.[state] ?? 0), 0)])
    return { latest: 0, prioritized: 0, paused: 0, ...Object.fromEntries(sums) as Record<string, number> }
  }

  /** The newest first. What the visitor may not have is left out. */
  async getJobs (statuses: JobStatus[], start = 0, end = PAGE - 1): Promise<ShownJob[]> {
    const shown: ShownJob[] = []
    let at = 0
    if (end < 0) return shown
    for await (const job of this.#read(statuses, Math.min(PAGE, end + 1) || PAGE)) {
      if (at++ >= start && await this.#settings.visit().may(job)) shown.push(this.#show(job))
      if (at > end) break
    }
    return shown
  }

  async getJob (id: string): Promise<ShownJob | undefined> {
    const job = await this.#background.get(id)
    return job?.queue === this.#queue && await this.#settings.visit().may(job) ? this.#show(job) : undefined
  }

  async getJobLogs (id: string): Promise<string[]> {
    const job = await this.#background.get(id)
    return job?.queue === this.#queue && await this.#settings.visit().may(job) ? tellLog(job) : []
  }

  async isPaused (): Promise<boolean> { return (await this.#background.counts())[this.#queue]?.paused ?? false }
  pause (): Promise<void> { return this.#background.pause(this.#queue) }
  resume (): Promise<void> { return this.#background.resume(this.#queue) }

  /** Forgets what ended more than `grace` ms ago; what waits is cancelled. */
  async clean (status: JobCleanStatus, grace: number): Promise<void> {
    if (status === 'active') throw new errors.NotSupported('cleaning active jobs', 'page')
    const meant = status === 'wait' ? 'waiting' : status
    // It comes from a path, where anything may stand.
    if (!Object.hasOwn(STATES, meant)) throw Object.assign(new errors.BadOption('status', STATUSES.join(', '), check.came(status)), { statusCode: 400 })
    const now = systemClock.now()
    for (const job of await this.#all([meant])) {
      if (!isFinal(job.state)) await this.#background.cancel(job.id, 'cleaned on the page')
      else if (Date.parse(job.finishedAt ?? job.createdAt) <= now - grace) await this.#background.remove(job.id)
    }
  }

  async empty (): Promise<void> {
    for (const job of await this.#all(['waiting', 'delayed'])) await this.#background.cancel(job.id, 'emptied on the page')
  }

  async promoteAll (): Promise<void> {
    for (const job of await this.#all(['delayed'])) await this.#background.promote(job.id)
  }

  async getMetrics (): Promise<QueueMetrics> { return { meta: { count: 0, prevTS: 0, prevCount: 0 }, data: [], count: 0 } }
  async getRedisInfo (): Promise<null> { return null }
  async getGlobalConcurrency (): Promise<null> { return null }
  async getJobSchedulers (): Promise<[]> { return [] }
  async getJobSchedulersCount (): Promise<number> { return 0 }

  addJob (): Promise<never> { return cannot('adding jobs') }
  obliterate (): Promise<never> { return cannot('obliterating a queue') }
  setGlobalConcurrency (): Promise<never> { return cannot('a global concurrency') }
  removeJobScheduler (): Promise<never> { return cannot('changing schedules') }
  updateJobScheduler (): Promise<never> { return cannot('changing schedules') }
  runJobSchedulerNow (): Promise<never> { return cannot('running schedules') }

  #show (job: JobRecord): ShownJob {
    return new ShownJob(job, this.#background, this.#settings.redact)
  }

  /** All before any is changed, without their payloads. */
  async #all (statuses: JobStatus[]): Promise<Array<Pick<JobRecord, 'id' | 'state' | 'createdAt' | 'finishedAt'>>> {
    const all = []
    for await (const job of this.#read(statuses, PAGE)) {
      const { id, state, createdAt, finishedAt } = job
      if (await this.#settings.visit().may(job)) all.push({ id, state, createdAt, finishedAt })
    }
    return all
  }

  async * #read (statuses: JobStatus[], limit: number): AsyncGenerator<JobRecord> {
    const state = statuses.flatMap((status) => STATES[status] ?? [])
    for (let after: string | undefined; ;) {
      const { jobs, next } = await this.#background.list({ queue: this.#queue, state, order: 'newest', limit, after })
      yield * jobs
      if (next === null) return
      after = next
    }
  }
}

async function cannot (what: string): Promise<never> {
  throw new errors.NotSupported(what, 'page')
}

/** One execution of a stored job in this process, between BullMQ's worker, which holds its lock, and its verdict. */
import type { Job } from 'bullmq'
import type { Attempt, ChildRecord } from '../../job.ts'
import type { Json } from '../../json.ts'
import { readySince, type StoredJob } from './stored.ts'

export class StoredAttempt implements Attempt {
  readonly job: StoredJob
  readonly number: number
  readonly waited: number
  /** BullMQ's own, with its lock. */
  readonly stored: Job
  readonly token: string
  overdue = false
  children: readonly ChildRecord[] | undefined
  /** What BullMQ's processor waits for. */
  readonly over: Promise<unknown>
  end!: (returnValue: unknown) => void
  fail!: (error: Error) => void

  constructor (stored: Job, token: string, job: StoredJob) {
    this.stored = stored
    this.token = token
    this.job = job
    this.number = stored.attemptsMade + 1
    this.waited = Math.max(0, (stored.processedOn ?? 0) - readySince(stored))
    this.over = new Promise((resolve, reject) => { this.end = resolve; this.fail = reject })
  }

  get payload (): Json { return this.job.payload }

  /**
   * `stale`: an attempt of the same job in this process that lost its lock, and can store nothing any more. BullMQ's worker
   * renews one lock a job, so it lets go of both together; if it waited for the stale one for ever, it could not close.
   */
  replace (stale: StoredAttempt, moved: Error): void {
    this.over.catch(() => {}).finally(() => { stale.fail(moved) })
  }
}

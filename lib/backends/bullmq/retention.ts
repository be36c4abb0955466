/**
 * How long dead letters are kept. BullMQ would remove them without a word; here each one that leaves is told. Looked at
 * when a job dies here, and when one is read.
 */
import type { Job } from 'bullmq'
import type { Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import type { BullmqQueue } from './queue.ts'
import type { Reach } from './reach.ts'

/** Dead letters that are looked at in one call. */
const BATCH = 100

export interface Limit {
  readonly count: number
  /** Ms. */
  readonly age: number
}

export class DeadLetterRoom {
  readonly #queue: BullmqQueue
  readonly #parts: { clock: Clock, sink: Sink, reach: Reach }
  readonly #limit: Limit
  #sweeping: Promise<void> | undefined
  #again = false

  constructor (queue: BullmqQueue, limit: Limit, parts: { clock: Clock, sink: Sink, reach: Reach }) {
    this.#queue = queue
    this.#limit = limit
    this.#parts = parts
  }

  isTooOld (job: Job): boolean {
    return job.finishedOn !== undefined && this.#parts.clock.now() - job.finishedOn > this.#limit.age
  }

  /** One at a time; asked meanwhile, it looks once more. Never rejects. */
  sweep (): Promise<void> {
    this.#again = true
    return (this.#sweeping ??= this.#sweep().finally(() => { this.#sweeping = undefined }))
  }

  /** Whoever of several processes takes it out tells it. */
  async evict (job: Job): Promise<void> {
    if (await this.#queue.store.remove(job.id as string) > 0) this.#parts.sink.report({ kind: 'evicted', job: this.#queue.jobOf(job) })
  }

  async #sweep (): Promise<void> {
    try {
      while (this.#again) {
        this.#again = false
        await this.#parts.reach.bounded(() => this.#sweepOnce())
      }
    } catch { /* the store is away: the next one that dies brings the next look */ }
  }

  async #sweepOnce (): Promise<void> {
    const tooMany = await this.#queue.store.getFailedCount() - this.#limit.count
    const oldest = await this.#queue.store.getJobs(['failed'], 0, BATCH - 1, true) as Job[]
    let left = 0
    for (const [i, job] of oldest.entries()) {
      if (i >= tooMany && !this.isTooOld(job)) break
      await this.evict(job)
      left++
    }
    if (left === BATCH) this.#again = true
  }
}

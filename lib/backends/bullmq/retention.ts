/**
 * How long dead letters are kept. BullMQ would remove them without a word; here each one that leaves is told. Looked at
 * when a job dies here, and when one is read.
 */
import type { Job } from 'bullmq'
import type { Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import { removeAlone } from './flows.ts'
import type { BullmqQueue } from './queue.ts'
import type { Reach } from './reach.ts'

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

  /** Whoever of several processes takes it out tells it. Answers whether that was this one. */
  async evict (job: Job): Promise<boolean> {
    if (!await removeAlone(this.#queue.store, job.id as string)) return false
    this.#parts.sink.report({ kind: 'evicted', job: this.#queue.jobOf(job) })
    return true
  }

  async #sweep (): Promise<void> {
    try {
      while (this.#again) {
        this.#again = false
        await this.#sweepOnce()
      }
    } catch { /* the store is away: the next one that dies brings the next look */ }
  }

  /** One after the other, since each is read whole. */
  async #sweepOnce (): Promise<void> {
    const { store } = this.#queue
    const { reach } = this.#parts
    let tooMany = await reach.bounded(() => store.getFailedCount()) - this.#limit.count
    const leave = async (): Promise<boolean> => {
      const [oldest] = await store.getJobs(['failed'], 0, 0, true) as Job[]
      return oldest !== undefined && (tooMany-- > 0 || this.isTooOld(oldest)) && this.evict(oldest)
    }
    while (await reach.bounded(leave)) { /* the next one */ }
  }
}

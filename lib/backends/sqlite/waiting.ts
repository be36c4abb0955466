/** What this process knows without asking the store: of a queue it works on, and of the ended jobs. */
import type { Load, QueueSettings, Retention } from '../../backend.ts'
import type { Policy } from '../../job.ts'
import type { Transaction } from './transaction.ts'

export class Waiting {
  readonly name: string
  readonly settings: QueueSettings
  want = 0
  /** Attempts delivered and not settled. */
  out = 0
  /** Jobs that may start, as far as known here. */
  waiting: number
  /** Their groups hold back those that wait, until this time or a change in the queue. */
  heldUntil: number | undefined
  /** Jobs on their way that may start as they come, with a priority or a group: who goes first is then the file's to say. */
  #odd = 0
  /** Never started, as far as known here: in the store, and on the way to it. */
  #stored: Load
  #onTheWay: Load = { jobs: 0, bytes: 0 }

  constructor (name: string, settings: QueueSettings, stored: Load & { waiting: number }) {
    this.name = name
    this.settings = settings
    this.#stored = stored
    this.waiting = stored.waiting
  }

  get free (): number { return this.want - this.out }

  get load (): Load {
    return { jobs: this.#stored.jobs + this.#onTheWay.jobs, bytes: this.#stored.bytes + this.#onTheWay.bytes }
  }

  /** A job sets out for the store (1), or has arrived or been refused (−1). */
  travel (sign: 1 | -1, bytes: number): void {
    this.#onTheWay.jobs += sign
    this.#onTheWay.bytes += sign * bytes
  }

  /** A job that may start as it comes sets out (1), or has come (−1). */
  come (sign: 1 | -1, { priority, group }: Policy): void {
    if (priority !== 0 || group !== undefined) this.#odd += sign
  }

  /** Whether the jobs that come now may start in the order in which they come. */
  get isPlain (): boolean { return this.settings.limiter === undefined && this.#odd === 0 }

  /** What other processes did is in the numbers read anew. */
  recount (stored: Load & { waiting: number }): void {
    this.#stored = stored
    this.waiting = stored.waiting
    this.heldUntil = undefined
  }

  committed (tx: Transaction): void {
    this.waiting += tx.sum(this.name, 'waiting')
    this.#stored.jobs += tx.sum(this.name, 'fresh')
    this.#stored.bytes += tx.sum(this.name, 'bytes')
  }
}

/** How many ended jobs are kept. */
export class Kept {
  readonly #retention: Retention
  #kept: { done: number, dead: number }

  constructor (retention: Retention, kept: { done: number, dead: number }) {
    this.#retention = retention
    this.#kept = kept
  }

  /** Whether there are more than there should be; a hundredth more may gather before they are forgotten. */
  get isCrowded (): boolean {
    const { completed, failed } = this.#retention
    return this.#kept.done > completed.count + Math.floor(completed.count / 100) || this.#kept.dead > failed.count + Math.floor(failed.count / 100)
  }

  recount (kept: { done: number, dead: number }): void {
    this.#kept = kept
  }

  committed (tx: Transaction, queue: string): void {
    this.#kept.done += tx.sum(queue, 'completed') + tx.sum(queue, 'cancelled')
    this.#kept.dead += tx.sum(queue, 'failed')
  }
}

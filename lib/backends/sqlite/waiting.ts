/** A queue as this process works on it. */
import type { Load, Rate } from '../../backend.ts'
import type { Transaction } from './transaction.ts'

export class Waiting {
  readonly name: string
  readonly limiter: Rate | undefined
  want = 0
  /** Attempts delivered and not settled. */
  out = 0
  /** Whether the store may hold waiting jobs; false once a claim has found none left. */
  maybe = true
  /** Never started, as far as known here: in the store, and on the way to it. */
  #stored: Load
  #onTheWay: Load = { jobs: 0, bytes: 0 }

  constructor (name: string, limiter: Rate | undefined, stored: Load) {
    this.name = name
    this.limiter = limiter
    this.#stored = stored
  }

  get free (): number { return this.want - this.out }

  get load (): Load {
    return { jobs: this.#stored.jobs + this.#onTheWay.jobs, bytes: this.#stored.bytes + this.#onTheWay.bytes }
  }

  /** Jobs set out for the store (1), or have arrived or been refused (−1). */
  travel (sign: 1 | -1, bytes: number): void {
    this.#onTheWay.jobs += sign
    this.#onTheWay.bytes += sign * bytes
  }

  /** What other processes did is in the numbers read anew. */
  recount (stored: Load): void {
    this.#stored = stored
    this.maybe = true
  }

  committed (tx: Transaction): void {
    this.#stored.jobs += tx.sum(this.name, 'fresh')
    this.#stored.bytes += tx.sum(this.name, 'bytes')
  }
}

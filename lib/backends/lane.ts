/** A queue that stands on more than one backend: how they share its slots. */
import type { Backend } from '../backend.ts'

interface Share {
  readonly backend: Backend
  /** Attempts delivered and not settled. */
  out: number
  want: number
}

/**
 * Each backend may have out what the others leave, and half of the slots in any case: neither can starve the other. Together
 * they may have out more than there are slots, for as long as the first of them takes to settle; what is too much waits in the pool.
 */
export class Lane {
  readonly queue: string
  readonly #shares: readonly Share[]
  #want = 0
  #retired = false

  constructor (queue: string, backends: readonly Backend[]) {
    this.queue = queue
    this.#shares = backends.map((backend) => ({ backend, out: 0, want: 0 }))
  }

  get backends (): Backend[] { return this.#shares.map(({ backend }) => backend) }

  want (n: number): void {
    this.#want = n
    this.share()
  }

  /** Durable backends deliver nothing more: what they keep is safe, and not for this process any longer. */
  retire (): void {
    this.#retired = true
    this.share()
  }

  count (backend: Backend, more: number): void {
    for (const share of this.#shares) if (share.backend === backend) share.out += more
  }

  share (): void {
    let out = 0
    for (const share of this.#shares) out += share.out
    for (const share of this.#shares) {
      const want = this.#retired && share.backend.durable ? 0 : this.#part(out - share.out)
      if (want === share.want) continue
      share.want = want
      share.backend.want(this.queue, want)
    }
  }

  #part (others: number): number {
    return this.#shares.length === 1 ? this.#want : Math.max(this.#want - others, Math.ceil(this.#want / 2))
  }
}

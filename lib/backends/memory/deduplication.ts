/** Which job stands for a deduplication id: looked up when a job comes, let go when it ends or when its time is over. */

import type { Clock } from '../../clock.ts'
import { Heap, type HeapItem } from '../../heap.ts'
import type { FinalState, NewJob, Duplicate } from '../../job.ts'

class Holder implements Duplicate, HeapItem {
  readonly key: string
  readonly id: string
  readonly print: string | undefined
  /** Monotonic ms. */
  until = Infinity
  place = -1

  constructor (key: string, { id, policy: { deduplication } }: NewJob) {
    this.key = key
    this.id = id
    this.print = deduplication?.print
  }
}

export class Deduplication {
  readonly #holders = new Map<string, Holder>()
  readonly #clock: Clock
  /** Those with a `ttl`, the next to end first. Looked at when a job comes: no timer is worth it. */
  readonly #ends = new Heap<Holder>((a, b) => a.until < b.until)

  constructor (clock: Clock) {
    this.#clock = clock
  }

  /** The job that stands for the id of this one; if there is none, this one does from now on. */
  enter (job: NewJob): Duplicate | undefined {
    const now = this.#clock.monotonic()
    for (let first = this.#ends.first; first !== undefined && first.until <= now; first = this.#ends.first) this.#delete(first)
    const key = keyOf(job)
    const found = this.#holders.get(key)
    if (found !== undefined) return found
    const holder = new Holder(key, job)
    this.#holders.set(key, holder)
    const ttl = job.policy.deduplication?.ttl ?? 0
    if (ttl > 0) {
      holder.until = now + ttl
      this.#ends.set(holder)
    }
    return undefined
  }

  ended (job: NewJob, state: FinalState): void {
    if (job.policy.deduplication?.ttl === 0 || state === 'cancelled') this.#release(job)
  }

  /** A dead letter lives again, and so does its id, unless another job has it. */
  revived (job: NewJob): void {
    if (job.policy.deduplication?.ttl === 0) this.enter(job)
  }

  forgotten (job: NewJob): void {
    if (job.policy.deduplication?.print !== undefined) this.#release(job)
  }

  #release (job: NewJob): void {
    const holder = this.#holders.get(keyOf(job))
    if (holder?.id === job.id) this.#delete(holder)
  }

  #delete (holder: Holder): void {
    this.#holders.delete(holder.key)
    if (holder.place !== -1) this.#ends.delete(holder)
  }
}

/** Names of queues and tasks hold no line breaks. */
function keyOf ({ queue, name, policy }: NewJob): string {
  return `${queue}\n${name}\n${policy.deduplication?.id}`
}

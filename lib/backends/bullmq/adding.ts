/** Jobs on their way into the store: all of one call or none, staged ones held until their response is over. */

import type { Clock } from '../../clock.ts'
import type { NewJob, Duplicate, Duplicates } from '../../job.ts'
import type { BullmqQueue } from './queue.ts'
import { delayAfterHold } from './stored.ts'

export class Adding {
  readonly #queueOf: (name: string) => BullmqQueue
  /** Ms that a staged job is held at most. */
  readonly #hold: () => number
  readonly #clock: Clock
  /** Added by this process for responses that are not over. */
  readonly #staged = new Map<string, NewJob>()

  constructor (queueOf: (name: string) => BullmqQueue, hold: () => number, clock: Clock) {
    this.#queueOf = queueOf
    this.#hold = hold
    this.#clock = clock
  }

  isStaged (id: string): boolean { return this.#staged.has(id) }
  forget (id: string): void { this.#staged.delete(id) }

  enqueue (jobs: readonly NewJob[], staged: boolean): Promise<Duplicates> {
    const [only] = jobs
    if (only === undefined || jobs.length > 1 || staged) return this.#enqueueAll(jobs, staged)
    const added = this.#queueOf(only.queue).enqueue(jobs, 0)
    return only.policy.deduplication === undefined ? added : added.then((duplicates) => this.#start(duplicates))
  }

  async #enqueueAll (jobs: readonly NewJob[], staged: boolean): Promise<Duplicates> {
    const parts = new Map<BullmqQueue, NewJob[]>()
    for (const job of jobs) {
      const queue = this.#queueOf(job.queue)
      const part = parts.get(queue)
      if (part === undefined) parts.set(queue, [job])
      else part.push(job)
    }
    // A call to several queues is several calls to the store: nothing may start before all of them were answered.
    const held = staged || parts.size > 1
    // Remembered before the store tells of them.
    if (held) for (const job of jobs) this.#staged.set(job.id, job)
    const duplicates = await this.#store(parts, held ? this.#hold() : 0)
    for (const id of duplicates.keys()) this.#staged.delete(id)
    if (held && !staged) await this.release(jobs.map(({ id }) => id))
    return staged ? duplicates : this.#start(duplicates)
  }

  async release (ids: readonly string[]): Promise<void> {
    await Promise.all(ids.map(async (id) => {
      const job = this.#staged.get(id)
      if (job === undefined) return
      const delay = delayAfterHold(job, this.#hold(), this.#clock.now())
      // Its staging may be told late, and is no news as long as the store holds it; a delay that it has left is told anew.
      if (delay > 0) this.#staged.delete(id)
      await this.#queueOf(job.queue).release(id, delay)
      this.#staged.delete(id)
    }))
  }

  async #store (parts: ReadonlyMap<BullmqQueue, readonly NewJob[]>, hold: number): Promise<Duplicates> {
    const done: Array<readonly [BullmqQueue, readonly NewJob[], Duplicates]> = []
    try {
      for (const [queue, own] of parts) done.push([queue, own, await queue.enqueue(own, hold)])
    } catch (error) {
      for (const own of parts.values()) for (const { id } of own) this.#staged.delete(id)
      for (const [queue, own, duplicates] of done) for (const { id } of own) if (!duplicates.has(id)) queue.takeBack(id)
      throw error
    }
    return new Map<string, Duplicate>(done.flatMap(([, , duplicates]) => [...duplicates]))
  }

  /** What stands for a job that is not staged waits no longer for a response of this process. */
  async #start (duplicates: Duplicates): Promise<Duplicates> {
    if (duplicates.size > 0) await this.release([...duplicates.values()].map(({ id }) => id))
    return duplicates
  }
}

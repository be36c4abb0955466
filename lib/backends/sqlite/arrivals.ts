/** Jobs on their way: into the store, and those of open responses, which may start when these are over. */
import type { NewJob } from '../../job.ts'
import type { StoredJob } from './row.ts'
import type { Waiting } from './waiting.ts'

/** What is known here of a job that was staged here. */
export interface Staged {
  readonly job: StoredJob
  readonly queue: Waiting
}

export class Arrivals {
  readonly #queue: (name: string) => Waiting
  readonly #staged = new Map<string, Staged>()

  constructor (queue: (name: string) => Waiting) {
    this.#queue = queue
  }

  /** Jobs set out for the store. Answers how to say that they have arrived, or were refused. */
  travel (jobs: readonly NewJob[], staged: boolean): () => void {
    const move = (sign: 1 | -1): void => {
      for (const { queue: name, bytes, policy } of jobs) {
        const queue = this.#queue(name)
        queue.travel(sign, bytes)
        if (!staged) queue.come(sign, policy)
      }
    }
    move(1)
    return () => { move(-1) }
  }

  /** They are stored. */
  stage (jobs: readonly StoredJob[]): void {
    for (const job of jobs) this.#staged.set(job.id, { job, queue: this.#queue(job.queue) })
  }

  /** Staged jobs are to be released. Answers those that are known here. */
  come (ids: readonly string[]): ReadonlyMap<string, Staged> {
    const known = new Map<string, Staged>()
    for (const id of ids) {
      const staged = this.#staged.get(id)
      if (staged === undefined) continue
      staged.queue.come(1, staged.job.policy)
      known.set(id, staged)
    }
    return known
  }

  /** They were released, or never will be. */
  gone (known: ReadonlyMap<string, Staged>): void {
    for (const [id, { job, queue }] of known) {
      queue.come(-1, job.policy)
      this.forget(id)
    }
  }

  forget (id: string): void {
    this.#staged.delete(id)
  }

  clear (): void {
    this.#staged.clear()
  }
}

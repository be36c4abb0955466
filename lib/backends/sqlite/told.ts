/** Who watches is told of the changes made here, and of the ends of jobs elsewhere. */
import type { Change } from '../../backend.ts'
import type { Reads } from './reads.ts'

export class Told {
  readonly #reads: Reads
  readonly #listeners = new Set<(change: Change) => void>()
  /** The number of the last end that was told. */
  lastEnd: number

  constructor (reads: Reads, lastEnd: number) {
    this.#reads = reads
    this.lastEnd = lastEnd
  }

  watch (listener: (change: Change) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  change (change: Change): void {
    for (const listener of this.#listeners) listener(change)
  }

  /** All ends up to this one that were not told yet. */
  ends (upTo: number): void {
    if (upTo > this.lastEnd && this.#listeners.size > 0) for (const change of this.#reads.ended(this.lastEnd, upTo)) this.change(change)
    this.lastEnd = upTo
  }

  clear (): void {
    this.#listeners.clear()
  }
}

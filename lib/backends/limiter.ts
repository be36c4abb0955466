/** At most `max` starts in any window of `duration` ms: exact under bursts, on a clock that never goes back. */
import type { Rate } from '../backend.ts'

/** A start that was granted. `at`: Infinity until it happens. */
export interface Start {
  at: number
}

export class Limiter {
  readonly #rate: Rate
  /** The last `max` starts, a ring in the order of granting. */
  #starts: Start[] = []
  #oldest = 0

  constructor (rate: Rate) {
    this.#rate = rate
  }

  /** From when on one more may start: −Infinity when at once, Infinity while that hangs on a granted start. */
  get next (): number {
    return this.#starts.length < this.#rate.max ? -Infinity : (this.#starts[this.#oldest] as Start).at + this.#rate.duration
  }

  grant (): Start {
    const start = { at: Infinity }
    if (this.#starts.length < this.#rate.max) this.#starts.push(start)
    else {
      this.#starts[this.#oldest] = start
      this.#oldest = (this.#oldest + 1) % this.#rate.max
    }
    return start
  }

  /** The granted start will not happen: it does not count. */
  takeBack (start: Start): void {
    this.#starts = [...this.#starts.slice(this.#oldest), ...this.#starts.slice(0, this.#oldest)].filter((other) => other !== start)
    this.#oldest = 0
  }

  /** No start of the last `duration` counts any more. */
  isFree (now: number): boolean {
    return this.#starts.every(({ at }) => at + this.#rate.duration <= now)
  }
}

/** At most `max` starts in any window of `duration` ms: exact under bursts, on a clock that never goes back. */
import type { Rate } from '../backend.ts'

export class Limiter {
  readonly #rate: Rate
  /** Instants of the last `max` starts, a ring; Infinity for one that was granted and has not happened yet. */
  readonly #starts: number[] = []
  #oldest = 0

  constructor (rate: Rate) {
    this.#rate = rate
  }

  /** From when on one more may start: −Infinity when at once, Infinity while that hangs on a granted start. */
  get next (): number {
    return this.#starts.length < this.#rate.max ? -Infinity : (this.#starts[this.#oldest] as number) + this.#rate.duration
  }

  /** Grants a start. Answers its place, for `started`. */
  grant (): number {
    if (this.#starts.length < this.#rate.max) return this.#starts.push(Infinity) - 1
    const place = this.#oldest
    this.#starts[place] = Infinity
    this.#oldest = (place + 1) % this.#rate.max
    return place
  }

  /** No start of the last `duration` counts any more. */
  isFree (now: number): boolean {
    return this.#starts.every((start) => start + this.#rate.duration <= now)
  }

  started (place: number, now: number): void {
    this.#starts[place] = now
  }
}

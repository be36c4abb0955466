/** The one timer for all that is due some day. */
import { LONGEST_TIMER, type Clock, type Timer } from '../../clock.ts'

export class Alarm {
  readonly #clock: Clock
  readonly #ring: () => void
  #timer: Timer | undefined
  #at = Infinity

  constructor (clock: Clock, ring: () => void) {
    this.#clock = clock
    this.#ring = ring
  }

  /** Rings then, or in 24 days if that is sooner; on the monotonic clock, Infinity: never. In place of what was set before. */
  set (at: number): void {
    if (at === this.#at) return
    this.clear()
    this.#at = at
    if (at === Infinity) return
    this.#timer = this.#clock.setTimer(() => {
      this.clear()
      this.#ring()
    }, Math.min(Math.max(at - this.#clock.monotonic(), 0), LONGEST_TIMER))
    this.#timer.unref()
  }

  clear (): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    this.#at = Infinity
  }
}

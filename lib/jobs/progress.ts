/**
 * Progress of one attempt on its way to the store. The first values of a tenth of a second go through at once; of a flood
 * only the latest does, when that time is over or the body has ended.
 */
import type { Clock, Timer } from '../clock.ts'
import type { Json } from '../json.ts'

/** Ms, and how many values go through in them. */
const WINDOW = 100
const AT_ONCE = 10

export class ProgressFlow {
  readonly #clock: Clock
  readonly #store: (value: Json) => void
  #since = -Infinity
  #stored = 0
  #latest: { readonly value: Json } | undefined
  #timer: Timer | undefined
  #ended = false

  constructor (clock: Clock, store: (value: Json) => void) {
    this.#clock = clock
    this.#store = store
  }

  note (value: Json): void {
    if (this.#ended) return
    const now = this.#clock.monotonic()
    if (now - this.#since >= WINDOW) {
      this.#since = now
      this.#stored = 0
    }
    if (this.#stored < AT_ONCE && this.#latest === undefined) {
      this.#stored++
      this.#store(value)
      return
    }
    this.#latest = { value }
    this.#timer ??= this.#clock.setTimer(() => { this.#flush() }, Math.max(0, this.#since + WINDOW - now))
  }

  /** Stores what waits, and nothing that comes later. */
  end (): void {
    this.#ended = true
    this.#flush()
  }

  #flush (): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    const latest = this.#latest
    this.#latest = undefined
    if (latest !== undefined) this.#store(latest.value)
  }
}

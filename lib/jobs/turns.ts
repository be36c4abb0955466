/** How long jobs may run before the event loop gets its turn: many light jobs must not hold it together. */
import type { Clock } from '../clock.ts'

/** Ms. Short enough to be lost in a request's latency, long enough to make the hop between turns cheap. */
const SLICE = 1

export class Turns {
  readonly #clock: Clock
  /** NaN: the slice begins when somebody first looks at it. */
  #began = NaN
  /** Monotonic ms of the last look. */
  now = 0
  #next: Promise<void> | undefined

  constructor (clock: Clock) {
    this.#clock = clock
  }

  /** The caller knows that it stands at the beginning of a turn. */
  begin (): void {
    this.#began = NaN
  }

  /** Whether this turn's slice is used up; then wait for `next` and ask again. */
  get over (): boolean {
    this.now = this.#clock.monotonic()
    // Not at the hop: to wake very many slots takes longer than a slice, and then none of them would ever run.
    if (Number.isNaN(this.#began)) this.#began = this.now
    return this.now - this.#began > SLICE
  }

  /** All who wait share one hop. */
  next (): Promise<void> {
    return (this.#next ??= new Promise((resolve) => {
      this.#clock.soon(() => {
        this.#next = undefined
        this.begin()
        resolve()
      })
    }))
  }
}

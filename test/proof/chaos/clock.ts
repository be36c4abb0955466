/** The system's clock, except that hours can be skipped, and that it tells one callback of the event loop from the next. */
import { performance } from 'node:perf_hooks'
import { LONGEST_TIMER, systemClock, type Clock } from '../../../lib/clock.ts'

interface Waiting {
  at: number
  run: () => void
}

export class SkippingClock implements Clock {
  /**
   * Callbacks of the event loop that have begun in the plugin's name; it has no other way into a later turn. Of two
   * things between which none began, the second happened in the stack of the first or in its microtasks.
   */
  callbacks = 0
  #skipped = 0
  readonly #timers = new Map<NodeJS.Timeout, Waiting>()

  readonly now = (): number => systemClock.now() + this.#skipped
  readonly monotonic = (): number => performance.now() + this.#skipped
  readonly random = (): number => 0.5
  readonly read = (): number => systemClock.read?.() ?? 0
  readonly soon = (run: () => void): void => { setImmediate(() => { this.#begin(run) }) }

  setTimer (run: () => void, ms: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      this.#begin(run)
    }, Math.min(ms, LONGEST_TIMER))
    this.#timers.set(timer, { at: this.monotonic() + ms, run })
    return timer
  }

  clearTimer (timer: NodeJS.Timeout): void {
    this.#timers.delete(timer)
    clearTimeout(timer)
  }

  /** Timers that would keep a process alive. */
  get held (): number { return [...this.#timers.keys()].filter((timer) => timer.hasRef()).length }

  skip (ms: number): void {
    this.#skipped += ms
    for (const [timer, { at, run }] of this.#timers) {
      if (at > this.monotonic()) continue
      this.clearTimer(timer)
      this.soon(run)
    }
  }

  #begin (run: () => void): void {
    this.callbacks++
    run()
  }
}

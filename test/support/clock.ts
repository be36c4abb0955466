import type { Clock, Timer } from '../../lib/clock.ts'
import { TestClock } from '../../lib/testing/clock.ts'

export { TestClock }

/** A clock on which bodies can spend time without wasting any. */
export class BusyClock implements Clock {
  readonly calm = new TestClock()
  #spent = 0
  readonly now = (): number => this.calm.now()
  readonly monotonic = (): number => this.calm.monotonic() + this.#spent
  readonly random = (): number => this.calm.chance
  readonly soon = (run: () => void): void => { this.calm.soon(run) }
  setTimer (run: () => void, ms: number): Timer { return this.calm.setTimer(run, ms) }
  clearTimer (timer: Timer): void { this.calm.clearTimer(timer) }
  spend (ms: number): void { this.#spent += ms }
}

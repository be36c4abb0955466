/** Time and chance in the hand of a test: timers fire only in `advance`, in their order, and nothing waits for real. */
import type { Clock, Timer } from '../../lib/clock.ts'

interface TestTimer extends Timer {
  readonly at: number
  readonly run: () => void
}

export class TestClock implements Clock {
  /** Wall time at the start; `jump` moves it alone, as an operator or NTP would. */
  #wall = Date.UTC(2026, 0, 1)
  #monotonic = 1_000
  readonly #timers = new Set<TestTimer>()
  /** What `random` answers. */
  chance = 0.5

  readonly now = (): number => this.#wall
  readonly monotonic = (): number => this.#monotonic
  readonly random = (): number => this.chance

  setTimer (run: () => void, ms: number): Timer {
    const timer: TestTimer = { at: this.#monotonic + Math.max(ms, 1), run, ref: () => timer, unref: () => timer }
    this.#timers.add(timer)
    return timer
  }

  clearTimer (timer: Timer): void {
    this.#timers.delete(timer as TestTimer)
  }

  readonly soon = (run: () => void): void => { setImmediate(run) }

  get pendingTimers (): number { return this.#timers.size }

  jump (ms: number): void {
    this.#wall += ms
  }

  /** Lets time pass. What a timer starts is given the turns of the loop it needs before the next one fires. */
  async advance (ms: number): Promise<void> {
    const end = this.#monotonic + ms
    await this.settle()
    for (;;) {
      const next = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (next === undefined) break
      this.#pass(Math.max(0, next.at - this.#monotonic))
      this.#timers.delete(next)
      next.run()
      await this.settle()
    }
    this.#pass(end - this.#monotonic)
    await this.settle()
  }

  /** Lets what is under way come to rest, without time passing. */
  async settle (): Promise<void> {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => { setImmediate(resolve) })
  }

  #pass (ms: number): void {
    this.#monotonic += ms
    this.#wall += ms
  }
}

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

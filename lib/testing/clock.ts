/** Time and chance in the hand of a test: timers fire only in `advance`, in their order, and nothing waits for real. */
import type { Clock, Timer } from '../clock.ts'

interface TestTimer extends Timer {
  readonly at: number
  readonly run: () => void
}

/** Turns of the loop that what is under way is given, and at most while a job runs. */
const TURNS = 5
const MOST_TURNS = 100
/** Ms between two looks at a job that runs while time passes by itself. */
const STEP = 5

/** A clock that stands still until a test moves it. For `manual()` and `inline()`, which bring their own, and for `sqlite({ clock })`. */
export class TestClock implements Clock {
  #wall: number
  #monotonic = 1_000
  #flowing = false
  readonly #timers = new Set<TestTimer>()
  /** What `random` answers, from 0 to 1: where in its jitter a backoff falls. @default 0.5 */
  chance = 0.5

  /** Whether a job runs: its end is worth some turns of the loop. Set by `manual()` and `inline()`. */
  busy: () => boolean = () => false

  /** `now`: wall time at the start, ms since the epoch. @default the first of January 2026, UTC */
  constructor (now: number = Date.UTC(2026, 0, 1)) {
    this.#wall = now
  }

  /** Wall time, ms since the epoch. */
  readonly now = (): number => this.#wall
  /** Ms; moved by `advance` alone. */
  readonly monotonic = (): number => this.#monotonic
  /** Always `chance`. */
  readonly random = (): number => this.chance

  /** Fires in `advance`. */
  setTimer (run: () => void, ms: number): Timer {
    const timer: TestTimer = { at: this.#monotonic + Math.max(ms, 1), run, ref: () => timer, unref: () => timer }
    this.#timers.add(timer)
    return timer
  }

  /** One that has fired is left alone. */
  clearTimer (timer: Timer): void {
    this.#timers.delete(timer as TestTimer)
  }

  /** What was asked for `soon` and has not run. */
  #soon = 0
  /** In the next turn of the event loop. */
  readonly soon = (run: () => void): void => {
    this.#soon++
    setImmediate(() => {
      this.#soon--
      run()
    })
  }

  /** Timers that are set and have not fired. */
  get pendingTimers (): number { return this.#timers.size }

  /** Moves the wall clock alone, as an operator or NTP would. `ms` may be negative. */
  jump (ms: number): void {
    this.#wall += ms
  }

  /**
   * Lets `ms` pass. Each timer fires at its own instant, and what it starts comes to rest before the next one: a job
   * is given some turns of the event loop, not real time. One that waits for a socket is better waited for with
   * `waitFor` before time goes on.
   */
  async advance (ms: number): Promise<void> {
    const end = this.#monotonic + ms
    await this.settle()
    for (;;) {
      const next = this.#first()
      if (next === undefined || next.at > end) break
      this.#pass(next.at)
      this.#timers.delete(next)
      next.run()
      // Most timers start nothing: the turn in which that shows is enough for them.
      await turn()
      if (this.#soon > 0 || this.busy()) await this.settle()
    }
    this.#pass(end)
    await this.settle()
  }

  /** Lets what is under way come to rest, without time passing. */
  async settle (): Promise<void> {
    for (let turns = 0; turns < TURNS || (turns < MOST_TURNS && this.busy()); turns++) await turn()
  }

  /** From now on time passes by itself: as it really does while a job runs, else at once to the next timer. For a shutdown. */
  async flow (): Promise<void> {
    if (this.#flowing) return
    this.#flowing = true
    await this.settle()
    while (this.#flowing) {
      const next = this.busy() ? undefined : this.#first()
      if (next !== undefined) {
        await this.advance(Math.max(0, next.at - this.#monotonic))
        continue
      }
      const before = performance.now()
      await new Promise((resolve) => { setTimeout(resolve, STEP) })
      await this.advance(performance.now() - before)
    }
  }

  /** Ends `flow`. */
  stop (): void {
    this.#flowing = false
  }

  #first (): TestTimer | undefined {
    let first: TestTimer | undefined
    for (const timer of this.#timers) if (first === undefined || timer.at < first.at) first = timer
    return first
  }

  /** Never back: two who let time pass may overtake each other. */
  #pass (to: number): void {
    const ms = Math.max(0, to - this.#monotonic)
    this.#monotonic += ms
    this.#wall += ms
  }
}

function turn (): Promise<void> {
  return new Promise((resolve) => { setImmediate(resolve) })
}

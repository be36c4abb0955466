/**
 * Many deadlines on one timer. The timer keeps the process alive only while a deadline is pending: a retry
 * that waits must not be forgotten, and an idle service must be able to end.
 */
import { LONGEST_TIMER, type Clock, type Timer } from './clock.ts'
import { Heap, type HeapItem } from './heap.ts'

export interface Deadline extends HeapItem {
  /** On the monotonic clock, ms. Written by `Deadlines.set` alone. */
  due: number
}

/** Deadlines handled in one turn of the loop. */
const BATCH = 1_000

export class Deadlines<T extends Deadline> {
  readonly #clock: Clock
  readonly #reach: (item: T) => void
  readonly #heap = new Heap<T>((a, b) => a.due < b.due)
  #timer: Timer | undefined
  #armedFor = Infinity
  #closed = false

  /** `reach` is called once for each deadline that is over, after it was taken out. It must not throw. */
  constructor (clock: Clock, reach: (item: T) => void) {
    this.#clock = clock
    this.#reach = reach
  }

  /** Ignored after `close`: what comes late finds nobody who waits. */
  set (item: T, due: number): void {
    if (this.#closed) return
    item.due = Math.ceil(due) // an integer costs no box
    this.#heap.set(item)
    this.#arm()
  }

  delete (item: T): void {
    if (item.place === -1) return
    this.#heap.delete(item)
    // Not cleared: the next deadline is nearly always later, and finds the timer already running.
    if (this.#heap.size === 0) this.#timer?.unref()
  }

  close (): void {
    this.#closed = true
    this.#heap.clear()
    this.#disarm()
  }

  #arm (): void {
    const first = this.#heap.first
    if (first === undefined) return
    if (first.due >= this.#armedFor) {
      this.#timer?.ref()
      return
    }
    this.#disarm()
    this.#armedFor = first.due
    const wait = Math.ceil(first.due - this.#clock.monotonic())
    this.#timer = this.#clock.setTimer(() => this.#ring(), Math.min(Math.max(wait, 0), LONGEST_TIMER))
  }

  #disarm (): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    this.#armedFor = Infinity
  }

  #ring (): void {
    this.#timer = undefined
    this.#armedFor = Infinity
    // Timers may fire up to a millisecond early.
    const now = this.#clock.monotonic() + 1
    for (let n = 0; n < BATCH; n++) {
      const first = this.#heap.first
      if (first === undefined || first.due > now) break
      this.#heap.delete(first)
      this.#reach(first)
    }
    this.#arm()
  }
}

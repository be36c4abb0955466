/**
 * The waiting room of one queue as this process knows it: what it added and saw start, corrected by the store's own
 * count, since other processes add and start jobs too.
 */
import type { Load } from '../../backend.ts'
import type { Clock, Timer } from '../../clock.ts'

/** Ms between two looks at the store, while there is something to know. */
const REFRESH = 2_000

export class WaitingRoom implements Load {
  jobs = 0
  bytes = 0
  readonly #clock: Clock
  readonly #count: () => Promise<number>
  /** Came and went since the store was asked. */
  #since = 0
  #timer: Timer | undefined
  #closed = false

  /** `count`: jobs that never started, in the store. */
  constructor (clock: Clock, count: () => Promise<number>) {
    this.#clock = clock
    this.#count = count
  }

  enter (jobs: number, bytes: number): void {
    this.#since += jobs
    this.jobs += jobs
    this.bytes += bytes
    this.#watch()
  }

  leave (bytes: number): void {
    this.#since--
    this.jobs = Math.max(0, this.jobs - 1)
    this.bytes = this.jobs === 0 ? 0 : Math.max(0, this.bytes - bytes)
  }

  async refresh (): Promise<void> {
    this.#since = 0
    const jobs = Math.max(0, await this.#count() + this.#since)
    // The store does not tell bytes: others are taken to be of the size of ours.
    this.bytes = this.jobs === 0 ? 0 : Math.round(this.bytes * jobs / this.jobs)
    this.jobs = jobs
    this.#watch()
  }

  close (): void {
    this.#closed = true
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
  }

  #watch (): void {
    if (this.#closed || this.#timer !== undefined || this.jobs === 0) return
    this.#timer = this.#clock.setTimer(() => {
      this.refresh().catch(() => {}).finally(() => {
        this.#timer = undefined
        this.#watch()
      })
    }, REFRESH)
    this.#timer.unref()
  }
}

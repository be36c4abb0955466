/** At most one line a second for each key; what was not said is counted into the next line. */
import type { Clock, Timer } from './clock.ts'

/** `ids`: the first of those that this line stands for. */
type Say = (count: number, ids: readonly string[]) => void

interface Quiet {
  count: number
  ids: string[]
  say: Say
  readonly timer: Timer
}

const EVERY = 1_000
/** Ids in one line. */
export const NAMED = 20

export class Throttle {
  readonly #clock: Clock
  readonly #keys = new Map<string, Quiet>()
  #closed = false

  constructor (clock: Clock) {
    this.#clock = clock
  }

  say (key: string, count: number, say: Say, id?: string): void {
    const quiet = this.#keys.get(key)
    if (quiet === undefined) {
      say(count, id === undefined ? [] : [id])
      if (!this.#closed) this.#hush(key)
      return
    }
    quiet.count += count
    quiet.say = say
    if (id !== undefined && quiet.ids.length < NAMED) quiet.ids.push(id)
  }

  #hush (key: string): void {
    const timer = this.#clock.setTimer(() => {
      const quiet = this.#keys.get(key)
      this.#keys.delete(key)
      if (quiet === undefined || quiet.count === 0) return
      quiet.say(quiet.count, quiet.ids)
      this.#hush(key)
    }, EVERY)
    timer.unref()
    this.#keys.set(key, { count: 0, ids: [], say: () => {}, timer })
  }

  /** Says what is left; from then on everything is said at once. */
  close (): void {
    this.#closed = true
    for (const quiet of this.#keys.values()) {
      this.#clock.clearTimer(quiet.timer)
      if (quiet.count > 0) quiet.say(quiet.count, quiet.ids)
    }
    this.#keys.clear()
  }
}

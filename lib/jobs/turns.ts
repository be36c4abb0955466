/**
 * When jobs may start: requests first. Between two jobs the event loop may have to turn, and then three things are asked.
 *
 * - Slices: in one turn of the loop jobs start for half a ms together; however many wait, they do not hold it longer.
 * - Requests first: a slice begins only in a turn whose poll has read nothing. Whatever was read, a request, a new
 *   connection, a part of a handshake, may have more behind it, and goes first. A turn without anything to do takes about a
 *   microsecond. A request that waits for a database is nothing to read, and keeps nobody from working.
 * - A floor: under endless load jobs still get an eighth of the time. After a slice of n ms they wait 7·n ms at most.
 */
import type { Clock } from '../clock.ts'

/** Ms. Short enough to be lost in a request's latency; the hop between turns takes a hundredth of it. */
const SLICE = 0.5
/** For each ms that jobs had, so many at most go to requests. */
const YIELDED = 7

export class Turns {
  readonly #clock: Clock
  readonly #foreground: boolean
  /** Monotonic ms of the last look. */
  now = 0
  #began = 0
  /** When the jobs of this slice, with all they did at once, had come to a halt. */
  #ended = 0
  /** When the next slice begins, whatever is read. */
  #floor = 0
  /** What the loop had read when it was looked at last. */
  #read = 0
  #next: Promise<void> | undefined
  /** Bodies that gave way. */
  readonly #givers: Array<() => void> = []
  #resuming = false

  constructor (clock: Clock, foreground: boolean) {
    this.#clock = clock
    this.#foreground = foreground && clock.read !== undefined
  }

  /** Whether this turn's slice is used up; then wait for `next` and ask again. */
  get over (): boolean {
    return this.look() - this.#began > SLICE
  }

  look (): number {
    return (this.now = this.#clock.monotonic())
  }

  /** What was started has done what it can do for now. */
  rest (): void {
    this.#ended = this.look()
  }

  /** Resolves in a later turn, when a slice begins. All who wait share it. */
  next (): Promise<void> {
    return (this.#next ??= new Promise((resolve) => {
      const ended = Math.min(this.now, this.#ended)
      this.#floor = ended + YIELDED * (ended - this.#began)
      this.#hop(resolve)
    }))
  }

  /** For a body in the middle of its work: resolves in a slice of a later turn. */
  give (): Promise<void> {
    return new Promise((resolve) => {
      this.#givers.push(resolve)
      if (!this.#resuming) void this.#resume()
    })
  }

  /** One after the other: what the first does with its time counts before the next one goes on. */
  async #resume (): Promise<void> {
    this.#resuming = true
    while (this.#givers.length > 0) {
      do await this.next()
      while (this.over)
      const waiting = this.#givers.splice(0)
      while (waiting.length > 0 && !this.over) {
        waiting.shift()?.()
        // Node runs its ticks when no microtask is left.
        await new Promise<void>((resolve) => { process.nextTick(resolve) })
      }
      this.#givers.unshift(...waiting)
    }
    this.#resuming = false
  }

  #hop (begin: () => void): void {
    this.#clock.soon(() => {
      if (!this.#mayBegin()) return this.#hop(begin)
      this.#next = undefined
      this.#began = this.now
      this.#ended = Infinity
      begin()
    })
  }

  #mayBegin (): boolean {
    this.look()
    if (!this.#foreground) return true
    const read = this.#clock.read?.() ?? 0
    const quiet = read === this.#read
    this.#read = read
    return quiet || this.now >= this.#floor
  }
}

/**
 * The slots of one queue. p-queue bounds how many there are; a slot takes one attempt after the other. Waiting jobs stay
 * with the backend, which is told how many attempts it may have out: never more than slots.
 *
 * A slot looks for work, is inside a body, or is parked. At most one looks at a time, and another one is sent looking only
 * when the bodies that run have done what they can do at once: so the time they take counts before the next one starts.
 */
import { AsyncResource } from 'node:async_hooks'
import PQueue from 'p-queue'
import type { Attempt } from '../job.ts'
import type { Turns } from './turns.ts'

/** What a slot does with an attempt. None of it must throw. */
export interface Work<Run extends { readonly body: unknown }> {
  /** Starts the attempt; `now` on the monotonic clock. Its body may be a promise, that of a task or of anybody; `undefined`: there is nothing to run. */
  begin (attempt: Attempt, now: number): Run | undefined
  /** The body has settled, and the slot is free again; brings the next attempt. */
  ended (run: Run, threw: boolean, value: unknown): void
  /** The body held the event loop: it was the last that started before the loop could turn, `ms` later. */
  blocked (attempt: Attempt, ms: number): void
}

export interface PoolSettings {
  readonly concurrency: number
  /** Ms from which on a body blocks the loop. */
  readonly maxBlock: number
}

export class Pool<Run extends { readonly body: unknown }> {
  readonly concurrency: number
  readonly #maxBlock: number
  readonly #slots: PQueue
  readonly #inbox: Attempt[] = []
  readonly #work: Work<Run>
  readonly #turns: Turns
  readonly #want: (n: number) => void
  /** Slots start here, so that no job sees the async context of whoever happened to wake them. */
  readonly #home = new AsyncResource('BackgroundTasks')
  /** Slots stay open: to open one costs more than a job. */
  readonly #parked: Array<Slot<Run>> = []
  #open = 0
  #looking = false
  /** Slots inside a body. */
  #running = 0
  /** Of these: those whose body outlived its verdict. */
  #held = 0
  /** The last attempt that began in this turn, and when. */
  #last: Attempt | undefined
  #begun = 0
  #restless = false
  #paused = false
  #stopped = false

  constructor ({ concurrency, maxBlock }: PoolSettings, turns: Turns, work: Work<Run>, want: (n: number) => void) {
    this.concurrency = concurrency
    this.#maxBlock = maxBlock
    this.#slots = new PQueue({ concurrency })
    this.#turns = turns
    this.#work = work
    this.#want = want
  }

  get paused (): boolean { return this.#paused }
  /** Bodies alive. */
  get running (): number { return this.#running }
  get busy (): number { return this.#inbox.length + this.#running - this.#held }

  accept (attempts: readonly Attempt[]): void {
    this.#inbox.push(...attempts)
    this.#wake()
  }

  #wake (): void {
    if (this.#looking || this.#inbox.length === 0) return
    const slot = this.#parked.pop()
    if (slot === undefined && this.#open === this.concurrency) return
    this.#looking = true
    // Later, and at home: nothing starts inside whoever brought the work.
    this.#home.runInAsyncScope(() => {
      if (slot === undefined) this.#openSlot()
      else queueMicrotask(slot.look)
    })
  }

  #openSlot (): void {
    this.#open++
    const slot = new Slot<Run>((self) => this.#look(self), (self, threw, value) => this.#end(self, threw, value))
    void this.#slots.add(() => new Promise<never>(() => { slot.look() }))
  }

  #look (slot: Slot<Run>): void {
    if (this.#turns.over) {
      void this.#turns.next().then(slot.look)
      return
    }
    this.#blame()
    const attempt = this.#inbox.shift()
    this.#looking = false
    if (attempt === undefined) {
      this.#parked.push(slot)
      return
    }
    this.#running++
    slot.run = this.#begin(attempt)
    whenSettled(slot.run?.body, slot.resolved, slot.rejected)
  }

  #end (slot: Slot<Run>, threw: boolean, value: unknown): void {
    this.#running--
    const looks = !this.#looking
    this.#looking = true // what `ended` brings needs no other slot
    const { run } = slot
    slot.run = undefined
    if (run !== undefined) this.#work.ended(run, threw, value)
    if (looks) this.#look(slot)
    else this.#parked.push(slot)
  }

  #begin (attempt: Attempt): Run | undefined {
    this.#last = attempt
    this.#begun = this.#turns.now
    if (!this.#restless) {
      this.#restless = true
      process.nextTick(this.#rest)
    }
    return this.#work.begin(attempt, this.#begun)
  }

  /** Called when all that follows at once has happened: Node runs its ticks when no microtask is left. */
  readonly #rest = (): void => {
    this.#restless = false
    this.#turns.rest()
    this.#blame()
    this.#wake()
  }

  #blame (): void {
    const last = this.#last
    if (last === undefined) return
    this.#last = undefined
    const held = this.#turns.now - this.#begun
    if (held > this.#maxBlock) this.#work.blocked(last, held)
  }

  /** A body goes on although its job was judged: its slot stays taken. */
  hold (): void {
    this.#held++
    this.announce()
  }

  unhold (): void {
    this.#held--
    this.announce()
  }

  pause (): void {
    this.#paused = true
    this.announce()
  }

  resume (): void {
    this.#paused = false
    this.announce()
  }

  /** For good. Answers the attempts that have no slot yet. */
  stop (): Attempt[] {
    this.#stopped = true
    this.announce()
    return this.#inbox.splice(0)
  }

  announce (): void {
    this.#want(this.#paused || this.#stopped ? 0 : this.concurrency - this.#held)
  }
}

/** Its callbacks are made once: an `await` makes them anew for each job, a twentieth of what a job costs. */
class Slot<Run> {
  run: Run | undefined
  readonly look: () => void
  readonly resolved: (value: unknown) => void
  readonly rejected: (thrown: unknown) => void

  constructor (look: (slot: Slot<Run>) => void, end: (slot: Slot<Run>, threw: boolean, value: unknown) => void) {
    this.look = () => { look(this) }
    this.resolved = (value) => { end(this, false, value) }
    this.rejected = (thrown) => { end(this, true, thrown) }
  }
}

/** As `await` does it, whatever anybody's promise has for a `then`. Never calls back at once. */
function whenSettled (body: unknown, resolved: (value: unknown) => void, rejected: (thrown: unknown) => void): void {
  let promise: Promise<unknown>
  try {
    promise = Promise.resolve(body)
  } catch (thrown) {
    promise = Promise.reject(thrown)
  }
  void Promise.prototype.then.call(promise, resolved, rejected)
}

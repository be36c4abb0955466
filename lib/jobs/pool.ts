/**
 * The slots of one queue. p-queue bounds how many slots run; a slot takes one attempt after the other until none is
 * left. Waiting jobs stay with the backend, which is told how many attempts it may have out: never more than slots.
 */
import { AsyncResource } from 'node:async_hooks'
import PQueue from 'p-queue'
import type { Attempt } from '../job.ts'
import type { Turns } from './turns.ts'

/** What a slot does with an attempt. Neither must throw. */
export interface Work<Run extends { readonly body: unknown }> {
  /** Starts the attempt; `now` on the monotonic clock. Its body may be a promise, that of a task or of anybody; `undefined`: there is nothing to run. */
  begin (attempt: Attempt, now: number): Run | undefined
  /** The body has settled, and the slot is free again; brings the next attempt. */
  ended (run: Run, threw: boolean, value: unknown): void
}

export class Pool<Run extends { readonly body: unknown }> {
  readonly concurrency: number
  readonly #slots: PQueue
  readonly #inbox: Attempt[] = []
  readonly #work: Work<Run>
  readonly #turns: Turns
  readonly #want: (n: number) => void
  /** Slots start here, so that no job sees the async context of whoever happened to wake them. */
  readonly #home = new AsyncResource('BackgroundTasks')
  #open = 0
  /** Of the open slots: those inside a body. The others are about to look into the inbox. */
  #running = 0
  /** Of the running: those whose body outlived its verdict. */
  #held = 0
  #paused = false
  #stopped = false

  constructor (concurrency: number, turns: Turns, work: Work<Run>, want: (n: number) => void) {
    this.concurrency = concurrency
    this.#slots = new PQueue({ concurrency })
    this.#turns = turns
    this.#work = work
    this.#want = want
  }

  get paused (): boolean { return this.#paused }
  get busy (): number { return this.#inbox.length + this.#running - this.#held }

  /** Called at the beginning of a turn of the loop, or from a slot that has ended. */
  accept (attempts: readonly Attempt[]): void {
    this.#inbox.push(...attempts)
    if (this.#open === 0) this.#turns.begin()
    while (this.#open < this.concurrency && this.#open - this.#running < this.#inbox.length) {
      this.#open++
      this.#home.runInAsyncScope(() => { void this.#slots.add(this.#slot) })
    }
  }

  readonly #slot = async (): Promise<void> => {
    for (;;) {
      while (this.#turns.over) await this.#turns.next()
      const attempt = this.#inbox.shift()
      if (attempt === undefined) break
      this.#running++
      const run = this.#work.begin(attempt, this.#turns.now)
      let threw = false
      let value: unknown
      try {
        value = await run?.body
      } catch (thrown) {
        threw = true
        value = thrown
      }
      this.#running--
      if (run !== undefined) this.#work.ended(run, threw, value)
    }
    this.#open--
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

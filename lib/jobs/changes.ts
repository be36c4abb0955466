/** Waiting for jobs to change: one watch on the backend for all who wait, and none while nobody does. */
import type { Awaitable, Backend, Change } from '../backend.ts'
import { LONGEST_TIMER, type Clock, type Timer } from '../clock.ts'
import { errors } from '../errors.ts'
import { isFinal, type JobState } from '../job.ts'

export interface Patience {
  /** For the text of the timeout. */
  readonly what: string
  /** Only changes of this job matter; without it, those after which there may be nothing left to do. */
  readonly id?: string
  /** Ms; 0: for ever. */
  readonly timeout: number
  readonly signal?: AbortSignal | undefined
}

/** Ms after which who waits on a store asks again without being told: news between processes can get lost. */
const LOOK_AGAIN = 5_000

export class Changes {
  readonly #backend: Backend
  readonly #clock: Clock
  readonly #byId = new Map<string, Set<(state: JobState) => void>>()
  /** Those who want to know of each change, not of the end alone. */
  readonly #followers = new Map<string, Set<(state: JobState) => void>>()
  readonly #any = new Set<() => void>()
  /** How to stop the watch, once it tells everything. */
  #watch: Awaitable<() => void> | undefined
  #stirred = false

  constructor (backend: Backend, clock: Clock) {
    this.#backend = backend
    this.#clock = clock
  }

  /**
   * Asks now, and once for all the changes that matter while an answer was on its way, until there is one.
   * @throws FST_BG_TIMEOUT, the signal's reason, what `ask` throws
   */
  until<T> (patience: Patience, ask: () => Promise<T | undefined>): Promise<T> {
    const { what, id, timeout, signal } = patience
    return new Promise((resolve, reject) => {
      let asking = false
      let stale = false
      let over = false
      const look = (): void => {
        stale = asking
        if (asking || over) return
        asking = true
        ask().then((answer) => {
          asking = false
          if (answer !== undefined) stop(() => { resolve(answer) })
          else if (stale) look()
        }, fail)
      }
      const fail = (error: unknown): void => { stop(() => { reject(error) }) }
      const onAbort = (): void => { fail(signal?.reason) }
      const leave = this.#join(id, look)
      const timer = timeout > 0 ? this.#clock.setTimer(() => { fail(new errors.Timeout(what, timeout)) }, Math.min(timeout, LONGEST_TIMER)) : undefined
      let again: Timer | undefined
      const lookAgain = (): void => { again = this.#clock.setTimer(() => { look(); lookAgain() }, LOOK_AGAIN) }
      const stop = (end: () => void): void => {
        if (over) return
        over = true
        leave()
        for (const each of [timer, again]) if (each !== undefined) this.#clock.clearTimer(each)
        signal?.removeEventListener('abort', onAbort)
        end()
      }
      signal?.addEventListener('abort', onAbort)
      if (this.#backend.durable) lookAgain()
      if (signal?.aborted === true) onAbort()
      else if (this.#watch instanceof Promise) this.#watch.then(look, fail)
      else look()
    })
  }

  /** Tells each change of a job's state. Answers how to stop. News between processes can get lost. */
  follow (id: string, listener: (state: JobState) => void): () => void {
    const leave = this.#join(id, listener, this.#followers)
    if (this.#watch instanceof Promise) this.#watch.catch(() => {}) // the store is away, and tells nothing
    return leave
  }

  /** Something else than a job's state has changed: who waits for none in particular asks again. */
  nudge (): void {
    if (this.#any.size === 0 || this.#stirred) return
    this.#stirred = true
    // Once a turn is enough: thousands of jobs may end in one.
    this.#clock.soon(() => {
      this.#stirred = false
      for (const listener of this.#any) listener()
    })
  }

  #join (id: string | undefined, listener: (state: JobState) => void, among = this.#byId): () => void {
    this.#watch ??= this.#backend.watch((change) => { this.#tell(change) })
    const listeners = id === undefined ? this.#any : among.get(id) ?? new Set()
    if (id !== undefined) among.set(id, listeners)
    listeners.add(listener)
    return () => {
      listeners.delete(listener)
      if (id !== undefined && listeners.size === 0) among.delete(id)
      if (this.#any.size > 0 || this.#byId.size > 0 || this.#followers.size > 0) return
      const watch = this.#watch
      this.#watch = undefined
      if (watch instanceof Promise) watch.then((stop) => { stop() }, () => {})
      else watch?.()
    }
  }

  #tell (change: Change): void {
    const { state } = change
    if (this.#byId.size > 0 && isFinal(state)) for (const listener of this.#byId.get(change.id) ?? []) listener(state)
    if (this.#followers.size > 0) for (const listener of this.#followers.get(change.id) ?? []) listener(state)
    if (isFinal(state) || state === 'delayed') this.nudge()
  }
}

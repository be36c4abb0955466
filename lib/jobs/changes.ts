/** Waiting for jobs to change: one watch on the backend for all who wait, and none while nobody does. */
import type { Backend, Change } from '../backend.ts'
import { LONGEST_TIMER, type Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import { isFinal } from '../job.ts'

export interface Patience {
  /** For the text of the timeout. */
  readonly what: string
  /** Only changes of this job matter; without it, those after which there may be nothing left to do. */
  readonly id?: string
  /** Ms; 0: for ever. */
  readonly timeout: number
  readonly signal?: AbortSignal | undefined
}

export class Changes {
  readonly #backend: Backend
  readonly #clock: Clock
  readonly #byId = new Map<string, Set<() => void>>()
  readonly #any = new Set<() => void>()
  #unwatch: (() => void) | undefined
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
      const look = (): void => {
        stale = asking
        if (asking) return
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
      const stop = (end: () => void): void => {
        leave()
        if (timer !== undefined) this.#clock.clearTimer(timer)
        signal?.removeEventListener('abort', onAbort)
        end()
      }
      signal?.addEventListener('abort', onAbort)
      if (signal?.aborted === true) onAbort()
      else look()
    })
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

  #join (id: string | undefined, listener: () => void): () => void {
    this.#unwatch ??= this.#backend.watch((change) => { this.#tell(change) })
    const listeners = id === undefined ? this.#any : this.#byId.get(id) ?? new Set()
    if (id !== undefined) this.#byId.set(id, listeners)
    listeners.add(listener)
    return () => {
      listeners.delete(listener)
      if (id !== undefined && listeners.size === 0) this.#byId.delete(id)
      if (this.#any.size > 0 || this.#byId.size > 0) return
      this.#unwatch?.()
      this.#unwatch = undefined
    }
  }

  #tell (change: Change): void {
    const { state } = change
    if (this.#byId.size > 0 && isFinal(state)) for (const listener of this.#byId.get(change.id) ?? []) listener()
    if (isFinal(state) || state === 'delayed') this.nudge()
  }
}

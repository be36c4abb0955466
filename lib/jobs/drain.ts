/**
 * Shutdown. The clock starts in `begin`; `finish` runs what may still run until `drainTimeout`, then aborts, waits
 * `abortGrace`, and gives back or names the rest. The deadline holds even where nobody gets to call `finish`.
 */
import type { Backend } from '../backend.ts'
import type { Clock, Timer } from '../clock.ts'
import { describe } from '../describe.ts'
import type { JobRecord } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import type { Intake } from './add.ts'
import type { Dispatch } from './dispatch.ts'

export class Drain {
  readonly #settings: Settings
  readonly #clock: Clock
  readonly #backend: Backend
  readonly #intake: Intake
  readonly #dispatch: Dispatch
  readonly #observer: Observer
  readonly #closers: Array<() => void> = []
  #draining = false
  #deadline: Timer | undefined
  #over: Promise<void> | undefined
  /** Resolves when nothing is left to wait for, or the deadline is reached. */
  #quiet: Promise<void> = Promise.resolve()
  #reachDeadline: () => void = () => {}

  constructor (settings: Settings, clock: Clock, backend: Backend, intake: Intake, dispatch: Dispatch, observer: Observer) {
    this.#settings = settings
    this.#clock = clock
    this.#backend = backend
    this.#intake = intake
    this.#dispatch = dispatch
    this.#observer = observer
  }

  get draining (): boolean { return this.#draining }

  /** Called when all is over, in the order of adding. */
  onClosed (close: () => void): void {
    this.#closers.push(close)
  }

  /** Requests in flight may still add jobs. */
  begin (): void {
    if (this.#draining) return
    this.#draining = true
    this.#quiet = new Promise((resolve) => { this.#reachDeadline = resolve })
    this.#deadline = this.#clock.setTimer(() => {
      this.#reachDeadline()
      void this.finish()
    }, this.#settings.drainTimeout)
  }

  /** The server takes no more requests. Never rejects. */
  finish (): Promise<void> {
    this.begin()
    return (this.#over ??= this.#finish())
  }

  async #finish (): Promise<void> {
    this.#intake.close()
    const stopWatching = this.#watchForQuiet()
    await this.#quiet
    stopWatching()
    if (this.#deadline !== undefined) this.#clock.clearTimer(this.#deadline)
    for (const pool of this.#dispatch.pools.values()) pool.stop()
    try {
      const unfinished = this.#backend.durable ? [] : await this.#backend.list({ states: ['pending', 'waiting', 'delayed', 'active'], limit: Infinity })
      await this.#stopBodies()
      await this.#nameTheRest(unfinished)
      await this.#backend.close()
    } catch (error) {
      this.#observer.storeFailed('close', describe(error))
    }
    for (const close of this.#closers) close()
  }

  /** Pending, waiting and active jobs are waited for; delayed and leaked ones, and paused queues, are not. */
  #watchForQuiet (): () => void {
    const look = async (): Promise<void> => {
      let busy = -this.#dispatch.runner.ignoring
      for (const [name, counts] of Object.entries(await this.#backend.counts())) {
        busy += counts.pending + counts.active + (this.#dispatch.pools.get(name)?.paused === true ? 0 : counts.waiting)
      }
      if (busy <= 0) this.#reachDeadline()
    }
    const lookSafely = (): void => { look().catch(() => { this.#reachDeadline() }) }
    const unwatch = this.#backend.watch(lookSafely)
    lookSafely()
    return unwatch
  }

  async #stopBodies (): Promise<void> {
    const { runner } = this.#dispatch
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimer(resolve, this.#settings.abortGrace)
      runner.stop('the application is closing', () => {
        this.#clock.clearTimer(timer)
        // The slots of the last bodies hand in their verdicts first.
        this.#clock.soon(resolve)
      })
    })
    runner.giveUpAll()
  }

  /** What a backend in memory still has is lost now: cancelled, named, and told. */
  async #nameTheRest (unfinished: JobRecord[]): Promise<void> {
    const left: JobRecord[] = []
    for (const before of unfinished) {
      await this.#backend.cancel(before.id, 'shutdown', 'the application is closing')
      const now = await this.#backend.get(before.id) ?? { ...before, state: 'cancelled', reason: 'shutdown' }
      if (now.state === 'cancelled' && now.reason === 'shutdown') left.push(now)
    }
    if (left.length === 0) return
    this.#observer.unfinished(left)
    try {
      this.#settings.onUnfinished?.(left)
    } catch (error) {
      this.#observer.policyFailed('onUnfinished', describe(error))
    }
  }
}

/**
 * Shutdown. The clock starts in `begin`; `finish` runs what may still run until `drainTimeout`, then aborts, waits
 * `abortGrace`, and gives back or names the rest. The deadline holds even where nobody gets to call `finish`.
 */
import type { Awaitable, Backends } from '../backend.ts'
import { LONGEST_TIMER, type Clock, type Timer } from '../clock.ts'
import { describe } from '../describe.ts'
import type { JobRecord, JobState } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import type { Intake } from './add.ts'
import type { Changes } from './changes.ts'
import type { Dispatch } from './dispatch.ts'

const ALIVE: readonly JobState[] = ['pending', 'waiting', 'delayed', 'waiting-children', 'active']

export class Drain {
  readonly #settings: Settings
  readonly #clock: Clock
  readonly #backends: Backends
  readonly #intake: Intake
  readonly #dispatch: Dispatch
  readonly #observer: Observer
  readonly #changes: Changes
  readonly #closers: Array<() => void | Promise<void>> = []
  readonly #endings: Array<() => void> = []
  #draining = false
  #deadline: Timer | undefined
  #over: Promise<void> | undefined
  /** What ended as cancelled since the drain was over. */
  readonly #cancelled: Array<Awaitable<JobRecord | undefined>> = []
  #named = false
  /** Aborts when `drainTimeout` is over. */
  readonly #outOfTime = new AbortController()

  constructor (settings: Settings, clock: Clock, parts: { backends: Backends, intake: Intake, dispatch: Dispatch, observer: Observer, changes: Changes }) {
    this.#settings = settings
    this.#clock = clock
    this.#backends = parts.backends
    this.#intake = parts.intake
    this.#dispatch = parts.dispatch
    this.#observer = parts.observer
    this.#changes = parts.changes
  }

  get draining (): boolean { return this.#draining }

  /** Called when the application begins to close: what would hold up the server ends. */
  onClosing (end: () => void): void {
    this.#endings.push(end)
  }

  /** Called when all is over, in the order of adding. */
  onClosed (close: () => void | Promise<void>): void {
    this.#closers.push(close)
  }

  /** Requests in flight may still add jobs. */
  begin (): void {
    if (this.#draining) return
    this.#draining = true
    for (const end of this.#endings) end()
    this.#deadline = this.#clock.setTimer(() => {
      this.#outOfTime.abort()
      void this.finish()
    }, Math.min(this.#settings.drainTimeout, LONGEST_TIMER))
  }

  /** The server takes no more requests. Never rejects. */
  finish (): Promise<void> {
    this.begin()
    return (this.#over ??= this.#finish())
  }

  async #finish (): Promise<void> {
    this.#intake.close()
    // An application that never became ready has no jobs, and a backend that was not started.
    if (this.#dispatch.pools.size > 0) await this.#windDown()
    else if (this.#deadline !== undefined) this.#clock.clearTimer(this.#deadline)
    for (const close of this.#closers) await close()
  }

  async #windDown (): Promise<void> {
    this.#backends.retire()
    this.#backends.all.drain?.()
    const patience = { what: 'the drain', timeout: 0, signal: this.#outOfTime.signal }
    await this.#changes.until(patience, () => this.#isQuiet()).catch(() => {}) // out of time, or the store is gone
    if (this.#deadline !== undefined) this.#clock.clearTimer(this.#deadline)
    try {
      // Read as they end: retention may forget them in the same turn.
      const unwatch = await this.#backends.volatile.watch(({ id, state }) => {
        if (state === 'cancelled') this.#cancelled.push(this.#backends.volatile.get(id))
      })
      this.#dispatch.stop()
      await this.#stopBodies()
      await this.#cancelTheRest()
      unwatch()
      const cancelled: Array<JobRecord | undefined> = []
      for (const record of this.#cancelled) cancelled.push(await record)
      this.#name(cancelled)
      await this.#backends.all.close()
    } catch (error) {
      this.#observer.storeFailed('close', describe(error))
    }
  }

  /**
   * What runs here is waited for; of what would be lost also pending and waiting jobs. Delayed and leaked ones, and
   * paused queues, are not.
   */
  async #isQuiet (): Promise<true | undefined> {
    let busy = this.#dispatch.busy - this.#dispatch.runner.ignoring
    for (const [name, counts] of Object.entries(await this.#backends.volatile.counts())) {
      busy += counts.pending + (this.#dispatch.pools.get(name)?.paused === true ? 0 : counts.waiting + counts.limited)
    }
    return busy <= 0 ? true : undefined
  }

  async #stopBodies (): Promise<void> {
    const { runner } = this.#dispatch
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimer(resolve, Math.min(this.#settings.abortGrace, LONGEST_TIMER))
      runner.stop('the application is closing', () => {
        this.#clock.clearTimer(timer)
        // The slots of the last bodies hand in their verdicts first.
        this.#clock.soon(resolve)
      })
    })
    runner.giveUpAll()
  }

  /** What a backend in memory still has is lost now: named below, not in a line of its own. */
  async #cancelTheRest (): Promise<void> {
    const { volatile } = this.#backends
    for (const { id } of await volatile.list({ states: ALIVE, limit: Infinity })) {
      if (await volatile.cancel(id, 'shutdown', 'the application is closing') === 'cancelled') this.#observer.totals.cancelled++
    }
  }

  /** The process ends at once. What is in memory is lost now too, and all that can be done is to name it. */
  nameLost (): void {
    if (this.#named) return
    const alive = this.#backends.volatile.list({ states: ALIVE, limit: Infinity })
    if (alive instanceof Promise) return
    this.#name([...this.#cancelled, ...alive.map((job) => ({ ...job, state: 'cancelled', reason: 'shutdown' }) as const)])
  }

  #name (ended: ReadonlyArray<Awaitable<JobRecord | undefined>>): void {
    this.#named = true
    const left = ended.filter((job) => (job as JobRecord | undefined)?.reason === 'shutdown') as JobRecord[]
    if (left.length === 0) return
    this.#observer.unfinished(left)
    const { onUnfinished } = this.#settings
    // An async function, so that a rejection and a throw end in the same place. The shutdown does not wait for it.
    const tell = async (): Promise<unknown> => onUnfinished?.(left)
    tell().catch((error: unknown) => { this.#observer.policyFailed('onUnfinished', describe(error)) })
  }
}

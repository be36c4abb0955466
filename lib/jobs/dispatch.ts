/** Where attempts come up from the backend: a slot of the pool, the runner, and back with the verdict. */
import type { Backend, Backends, Incident, Sink } from '../backend.ts'
import type { Clock } from '../clock.ts'
import { errors, type AbortKind } from '../errors.ts'
import { describe } from '../describe.ts'
import type { Attempt, NewJob, Outcome } from '../job.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { PoolSettings, Settings } from '../options.ts'
import type { Changes } from './changes.ts'
import type { Hooks } from './hooks.ts'
import { Pool, type Work } from './pool.ts'
import type { Propagation } from './propagation.ts'
import type { Registry } from './registry.ts'
import type { Judged } from './retry.ts'
import { Runner, type Running, type Watcher } from './runner.ts'
import { Turns } from './turns.ts'

/** Ms until a job whose task is not defined here is offered again. */
const PARKED = 60_000
const STORE = 'store the end of an attempt'

export class Dispatch implements Sink, Watcher, Work<Running> {
  readonly pools = new Map<string, Pool<Running>>()
  readonly runner: Runner
  readonly #backend: Backend
  readonly #registry: Registry
  readonly #hooks: Hooks
  readonly #propagation: Propagation
  readonly #observer: Observer
  readonly #changes: Changes
  readonly #turns: Turns
  readonly #maxBlock: number
  /** Queues whose backend wants to know when a body really starts. */
  readonly #limited = new Set<string>()

  constructor (settings: Settings, clock: Clock, parts: { backends: Backends, registry: Registry, hooks: Hooks, propagation: Propagation, observer: Observer, changes: Changes }) {
    const { backends, registry, hooks, observer } = parts
    this.#changes = parts.changes
    this.#backend = backends.all
    this.#registry = registry
    this.#hooks = hooks
    this.#propagation = parts.propagation
    this.#observer = observer
    const { abortGrace, maxPayloadBytes, foreground } = settings
    this.#maxBlock = settings.maxBlock
    this.#turns = new Turns(clock, foreground)
    const give = (): Promise<void> => this.#turns.give()
    const durable = (job: NewJob): boolean => backends.of(job.queue, job.local?.run !== undefined).durable
    this.runner = new Runner({ clock, observer, abortGrace, maxResultBytes: maxPayloadBytes, durable, give }, this)
  }

  /** Opens a pool for each queue, and asks the backend for work. */
  open (queues: ReadonlyMap<string, PoolSettings>): void {
    for (const [name, { concurrency, limiter, groups }] of queues) {
      if ((limiter ?? groups?.limiter) !== undefined) this.#limited.add(name)
      const pool = new Pool({ concurrency, maxBlock: this.#maxBlock }, this.#turns, this, (n) => { this.#backend.want(name, n) })
      this.pools.set(name, pool)
      pool.announce()
    }
  }

  /** Attempts alive or about to start, without those whose verdict was given. */
  get busy (): number {
    let busy = 0
    for (const pool of this.pools.values()) busy += pool.busy
    return busy
  }

  /** Starts nothing more, for good. What had no slot yet goes back, or is cancelled. */
  stop (): void {
    for (const pool of this.pools.values()) {
      for (const attempt of pool.stop()) {
        const { outcome } = this.runner.unfinished(attempt)
        this.#observer.attemptEnded(attempt, outcome, { aliveMs: 0 })
        this.#store(attempt, outcome)
      }
    }
  }

  deliver (attempts: readonly Attempt[]): void {
    // A backend delivers for one queue at a time.
    const [first] = attempts
    if (first !== undefined) this.#pool(first).accept(attempts)
  }

  abort (attempt: Attempt, kind: AbortKind, detail: string): void {
    this.runner.abort(attempt, kind, detail)
  }

  report (incident: Incident): void {
    switch (incident.kind) {
      case 'evicted': return this.#observer.evicted(incident.job)
      case 'recovered': return this.#observer.recovered(incident.job, incident.attempt)
      case 'fired': return this.#observer.added([incident.job])
      case 'skipped': return this.#observer.skipped(incident.schedule, incident.why)
      case 'lost': return this.#observer.storeLost(incident.error)
      case 'back': return this.#observer.storeBack(incident.awayMs)
      case 'expired': return this.#dead(incident.job, 'expired', new errors.Expired(incident.job.policy.ttl))
      case 'stalled': return this.#dead(incident.job, 'stalled', new errors.Stalled())
      case 'child-failed': return this.#dead(incident.job, 'unrecoverable', new errors.ChildFailed(incident.child))
      case 'cancelled': return this.#observer.cancelled(incident.job, incident.reason)
    }
  }

  /** Without an attempt that could have told it. */
  #dead (job: NewJob, failure: 'expired' | 'stalled' | 'unrecoverable', error: Error): void {
    this.#observer.dead(job, failure, error)
    const owner = this.#registry.find(job.name)?.app
    if (owner !== undefined) this.#hooks.call('onTaskDead', owner, { job, number: 0 }, error, failure)
  }

  overdue (attempt: Attempt): void {
    this.#observer.guard('note a timeout', () => this.#backend.note(attempt, { overdue: true }))
  }

  progress (attempt: Attempt, value: Json): void {
    this.#observer.guard('note progress', () => this.#backend.note(attempt, { progress: value }))
  }

  leaked (running: Running): void {
    this.#observer.leaked(running.attempt, running.aborted?.kind ?? 'timeout', running.aliveMs)
    this.#changes.nudge() // a shutdown does not wait for it any longer
  }

  judgedAlive (running: Running, judged: Judged): void {
    this.#pool(running.attempt).hold()
    this.#settle(running, judged)
  }

  begin (attempt: Attempt, now: number): Running | undefined {
    const { job } = attempt
    const task = this.#registry.find(job.name)
    const owner = task?.app ?? job.local?.app
    if (owner === undefined) {
      this.#observer.parked(job, PARKED)
      this.#store(attempt, { kind: 'released', delay: PARKED })
      return undefined
    }
    if (this.#limited.has(job.queue) && this.runner.mayBegin(attempt)) this.#observer.guard('note a start', () => this.#backend.note(attempt, { started: true }))
    this.#observer.started(attempt)
    this.#hooks.call('onTaskStart', owner, attempt)
    return this.runner.begin(attempt, owner, task, now, this.#propagation.active ? this.#propagation.extract(attempt) : undefined)
  }

  ended (running: Running, threw: boolean, value: unknown): void {
    this.runner.finish(running, threw, value)
    if (running.givenUp) {
      this.#observer.returned(running.attempt, running.aliveMs)
      this.#pool(running.attempt).unhold()
      return
    }
    const judged = this.runner.verdict(running)
    if (judged !== undefined) this.#settle(running, judged)
  }

  blocked (attempt: Attempt, ms: number): void {
    this.#observer.blocked(attempt, ms)
  }

  #settle (running: Running, judged: Judged): void {
    const { scope } = running
    if (scope === undefined) return this.#conclude(running, judged)
    scope.run(() => { this.#conclude(running, judged) })
    scope.end?.(judged.outcome, judged.thrown)
  }

  #conclude (running: Running, { outcome, policyError, thrown }: Judged): void {
    const { attempt, app } = running
    if (policyError !== undefined) this.#observer.policyFailed(policyError.option, policyError.error, attempt.job)
    this.#observer.attemptEnded(attempt, outcome, running, thrown)
    this.#store(attempt, outcome)
    if (outcome.kind === 'completed') this.#hooks.call('onTaskEnd', app, attempt, outcome.result)
    if (outcome.kind === 'retry' || outcome.kind === 'dead') this.#hooks.call('onTaskError', app, attempt, thrown)
    if (outcome.kind === 'dead') this.#hooks.call('onTaskDead', app, attempt, thrown, outcome.failure)
  }

  /** `observer.guard` without its closures: this happens for every attempt. */
  #store (attempt: Attempt, outcome: Outcome): void {
    try {
      const stored = this.#backend.settle(attempt, outcome)
      if (stored !== undefined) stored.catch((error: unknown) => { this.#observer.storeFailed(STORE, describe(error)) })
    } catch (error) {
      this.#observer.storeFailed(STORE, describe(error))
    }
  }

  #pool (attempt: Attempt): Pool<Running> {
    return this.pools.get(attempt.job.queue) as Pool<Running>
  }
}

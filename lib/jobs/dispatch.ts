/** Where attempts come up from the backend: a slot of the pool, the runner, and back with the verdict. */
import type { Backend, Incident, Sink } from '../backend.ts'
import type { Clock } from '../clock.ts'
import { describe } from '../describe.ts'
import type { AbortKind } from '../errors.ts'
import type { Attempt } from '../job.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import { Pool } from './pool.ts'
import type { Registry } from './registry.ts'
import type { Judged } from './retry.ts'
import { Runner, type Running, type Watcher } from './runner.ts'
import { Turns } from './turns.ts'

/** Ms until a job whose task is not defined here is offered again. */
const PARKED = 60_000

export class Dispatch implements Sink, Watcher {
  readonly pools = new Map<string, Pool<Running | undefined>>()
  readonly runner: Runner
  readonly #backend: Backend
  readonly #registry: Registry
  readonly #observer: Observer

  constructor (settings: Settings, clock: Clock, backend: Backend, registry: Registry, observer: Observer) {
    this.#backend = backend
    this.#registry = registry
    this.#observer = observer
    const { abortGrace, maxPayloadBytes } = settings
    this.runner = new Runner({ clock, abortGrace, maxResultBytes: maxPayloadBytes, durable: backend.durable }, this)
    const turns = new Turns(clock)
    const work = {
      run: (attempt: Attempt) => this.#run(attempt),
      ended: (running: Running | undefined) => { if (running !== undefined) this.#ended(running) }
    }
    this.pools.set('default', new Pool(settings.concurrency, turns, work, (n) => { backend.want('default', n) }))
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
    if (incident.kind === 'expired') this.#observer.expired(incident.job)
    else this.#observer.evicted(incident.job)
  }

  overdue (attempt: Attempt): void {
    this.#store('note a timeout', () => this.#backend.note(attempt, { overdue: true }))
  }

  progress (attempt: Attempt, value: Json): void {
    this.#store('note progress', () => this.#backend.note(attempt, { progress: value }))
  }

  leaked (running: Running): void {
    this.#observer.leaked(running.attempt, running.aborted?.kind ?? 'timeout', running.aliveMs)
  }

  judgedAlive (running: Running, judged: Judged): void {
    this.#pool(running.attempt).hold()
    this.#settle(running, judged)
  }

  async #run (attempt: Attempt): Promise<Running | undefined> {
    const task = this.#registry.find(attempt.job.name)
    if (task !== undefined || attempt.job.inline !== undefined) return this.runner.run(attempt, task)
    this.#store('give back a job', () => this.#backend.settle(attempt, { kind: 'released', delay: PARKED }))
    return undefined
  }

  #ended (running: Running): void {
    if (running.givenUp) {
      this.#observer.returned(running.attempt, running.aliveMs)
      this.#pool(running.attempt).unhold()
    } else if (running.judged !== undefined) this.#settle(running, running.judged)
  }

  #settle (running: Running, { outcome, policyError }: Judged): void {
    const { attempt } = running
    if (policyError !== undefined) this.#observer.policyFailed(policyError.option, policyError.error, attempt.job)
    this.#observer.attemptEnded(attempt, outcome, running.aliveMs)
    this.#store('store the end of an attempt', () => this.#backend.settle(attempt, outcome))
  }

  #pool (attempt: Attempt): Pool<Running | undefined> {
    return this.pools.get(attempt.job.queue) as Pool<Running | undefined>
  }

  #store (what: string, write: () => void | Promise<void>): void {
    const failed = (error: unknown): void => { this.#observer.storeFailed(what, describe(error)) }
    try {
      const written = write()
      if (written !== undefined) written.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

/** How the job system is doing. */
import type { Backends } from '../backend.ts'
import type { Incidents, Observer, Totals } from '../observe.ts'
import type { Settings } from '../options.ts'
import type { Intake } from './add.ts'
import type { Control, QueueStatus } from './control.ts'
import type { Dispatch } from './dispatch.ts'
import type { Drain } from './drain.ts'

/** The first that holds: `draining`, `overloaded`, `degraded`, `ok`. */
export type HealthStatus = 'ok' | 'degraded' | 'overloaded' | 'draining'

/** The body of the health route. Counts are of jobs. */
export interface Health {
  status: HealthStatus
  queues: Record<string, QueueStatus>
  /** Since the start. */
  totals: Totals
  incidents: Incidents
  /** Bodies that go on although their signal has aborted. */
  leaked: number
  oldestWaitingMs: number
  /** 99th percentile. */
  eventLoopDelayMs: number
  backend: { name: string, durable: boolean }
}

export class HealthCheck {
  readonly #settings: Settings
  readonly #backends: Backends
  readonly #control: Control
  readonly #intake: Intake
  readonly #dispatch: Dispatch
  readonly #drain: Drain
  readonly #observer: Observer

  constructor (settings: Settings, parts: { backends: Backends, control: Control, intake: Intake, dispatch: Dispatch, drain: Drain, observer: Observer }) {
    this.#settings = settings
    this.#backends = parts.backends
    this.#control = parts.control
    this.#intake = parts.intake
    this.#dispatch = parts.dispatch
    this.#drain = parts.drain
    this.#observer = parts.observer
  }

  async read (eventLoopDelayMs: number): Promise<Health> {
    const { name, durable } = this.#backends.of('default', false)
    const health: Health = {
      status: 'ok',
      queues: {},
      totals: this.#observer.totals,
      incidents: this.#observer.incidents,
      leaked: this.#dispatch.runner.leaked,
      oldestWaitingMs: 0,
      eventLoopDelayMs,
      backend: { name, durable }
    }
    try {
      for (const counts of Object.values(await this.#backends.all.counts())) {
        health.oldestWaitingMs = Math.max(health.oldestWaitingMs, counts.oldestWaitingMs)
      }
      health.queues = await this.#control.counts()
      health.status = this.#judge(health)
    } catch {
      health.status = this.#drain.draining ? 'draining' : 'degraded' // the store cannot be asked
    }
    return health
  }

  #judge (health: Health): HealthStatus {
    if (this.#drain.draining) return 'draining'
    const queues = Object.keys(health.queues)
    if (queues.some((queue) => this.#intake.isOverloaded(queue))) return 'overloaded'
    const { maxAge, maxDead } = this.#settings.health
    const dead = Object.values(health.queues).reduce((sum, queue) => sum + queue.failed, 0)
    return this.#backends.all.unreachable === true || health.leaked > 0 || health.oldestWaitingMs > maxAge || dead > maxDead ? 'degraded' : 'ok'
  }
}

/** All that happens before a job exists: every refusal is thrown here, and nothing has changed then. */
import { AsyncResource } from 'node:async_hooks'
import type { FastifyInstance } from 'fastify'
import type { Backend } from '../backend.ts'
import { came } from '../check.ts'
import type { Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import { createIds } from '../id.ts'
import type { InlineWork, NewJob } from '../job.ts'
import type { Copied } from '../json.ts'
import { resolveJobOptions, type JobOptions, type ResolvedJobOptions } from '../job-options.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import { takePayload, type Registry } from './registry.ts'

/** Where a job comes from. */
export interface Origin {
  readonly app: FastifyInstance
  readonly requestId: string | null
  /** It waits in `pending` for its response. */
  readonly staged: boolean
}

/** A job that may be enqueued, with the options that concern its response. */
export interface Prepared {
  readonly job: NewJob
  readonly options: ResolvedJobOptions
}

export class Intake {
  readonly #settings: Settings
  readonly #registry: Registry
  readonly #backend: Backend
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #nextId: () => string
  /** Monotonic ms of the last refusal for want of room, by queue. */
  readonly #refusals = new Map<string, number>()
  #state: 'booting' | 'open' | 'closed' = 'booting'

  constructor (settings: Settings, registry: Registry, backend: Backend, clock: Clock, observer: Observer) {
    this.#settings = settings
    this.#registry = registry
    this.#backend = backend
    this.#clock = clock
    this.#observer = observer
    this.#nextId = createIds(clock)
  }

  open (): void { this.#state = 'open' }
  close (): void { this.#state = 'closed' }

  /** `add(fn, options)` or `add(taskOrName, payload, options)`, as its arguments say. */
  prepare (target: unknown, second: unknown, third: unknown, origin: Origin): Prepared {
    if (this.#state === 'booting') throw new errors.NotReady('adding a job')
    if (this.#state === 'closed') throw new errors.Closing()
    return typeof target === 'function'
      ? this.#inline(target as InlineWork['run'], second as JobOptions | undefined, third, origin)
      : this.#task(target, second, third as JobOptions | undefined, origin)
  }

  /**
   * Room for jobs of one call, all or none.
   * @throws FST_BG_QUEUE_FULL
   */
  admit (prepared: readonly Prepared[]): void {
    const asked = new Map<string, { jobs: number, bytes: number }>()
    for (const { job } of prepared) {
      const sum = asked.get(job.queue)
      if (sum === undefined) asked.set(job.queue, { jobs: 1, bytes: job.bytes })
      else {
        sum.jobs++
        sum.bytes += job.bytes
      }
    }
    for (const [queue, { jobs, bytes }] of asked) {
      const full = this.#fullness(queue, jobs, bytes)
      if (full !== undefined) this.#refuse(queue, prepared, full)
    }
  }

  /** Whether a queue is full, or refused a job in the last minute. */
  isOverloaded (queue: string): boolean {
    const refused = this.#refusals.get(queue)
    if (refused !== undefined && this.#clock.monotonic() - refused < 60_000) return true
    return this.#fullness(queue, 1, 0) !== undefined
  }

  #inline (run: InlineWork['run'], given: JobOptions | undefined, extra: unknown, origin: Origin): Prepared {
    if (extra !== undefined) throw new errors.BadOption('third argument', 'nothing after the options of an inline function', came(extra))
    const options = resolveJobOptions('options', this.#settings.inlineDefaults, given)
    return this.#make(run.name || 'inline', { value: null, bytes: 0 }, options, origin, { app: origin.app, run })
  }

  #task (target: unknown, payload: unknown, given: JobOptions | undefined, origin: Origin): Prepared {
    const task = this.#registry.get(target)
    const options = resolveJobOptions('options', task.options, given)
    return this.#make(task.name, takePayload(task, payload, this.#settings.maxPayloadBytes), options, origin, undefined)
  }

  #make (name: string, payload: Copied, options: ResolvedJobOptions, origin: Origin, inline: InlineWork | undefined): Prepared {
    if (options.queue !== 'default') throw new errors.UnknownQueue(came(options.queue), 'default')
    const createdAt = this.#clock.now()
    const job: NewJob = {
      id: this.#nextId(),
      name,
      queue: options.queue,
      payload: payload.value,
      bytes: payload.bytes,
      priority: options.priority,
      attempts: options.attempts,
      createdAt,
      delay: Number.isNaN(options.runAt) ? options.delay : Math.max(0, options.runAt - createdAt),
      ttl: options.ttl,
      staged: origin.staged,
      requestId: origin.requestId,
      parent: null,
      policy: options,
      inline,
      context: options.callerContext ? new AsyncResource('BackgroundTask') : undefined
    }
    return { job, options }
  }

  #fullness (queue: string, jobs: number, bytes: number): string | undefined {
    const load = this.#backend.load(queue)
    const { maxQueueSize, maxQueueBytes } = this.#settings
    if (load.jobs + jobs > maxQueueSize) return `${load.jobs} jobs that never started, at most ${maxQueueSize} (maxQueueSize)`
    if (load.bytes + bytes > maxQueueBytes) return `${load.bytes} bytes of payload, at most ${maxQueueBytes} (maxQueueBytes)`
    return undefined
  }

  #refuse (queue: string, prepared: readonly Prepared[], full: string): never {
    this.#refusals.set(queue, this.#clock.monotonic())
    this.#observer.refused(queue, prepared.length === 1 ? (prepared[0] as Prepared).job.name : 'several', prepared.length, full)
    throw Object.assign(new errors.QueueFull(queue, full), { headers: { 'retry-after': '1' } })
  }
}

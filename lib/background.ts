/** `app.background`: one for each Fastify instance, over one core. */
import type { FastifyInstance, FastifyTypeProvider, FastifyTypeProviderDefault } from 'fastify'
import type { CancelAnswer } from './backend.ts'
import type { JobRecord } from './job.ts'
import type { JobOptions } from './job-options.ts'
import type { Propagator } from './propagator.ts'
import type { Intake } from './jobs/add.ts'
import type { Bulk, BulkJob } from './jobs/bulk.ts'
import type { Control, JobPage, JobsQuery, QueueStatus } from './jobs/control.ts'
import type { DeadLetters } from './jobs/dead-letters.ts'
import type { FlowHandle, FlowJob, Flows } from './jobs/flow.ts'
import { Handle, type JobHandle } from './jobs/handle.ts'
import type { Hooks, TaskHooks } from './jobs/hooks.ts'
import type { Propagation } from './jobs/propagation.ts'
import type { Registry } from './jobs/registry.ts'
import type { ScheduleOptions, ScheduleRecord, Schedules } from './jobs/schedule.ts'
import type { Stats, StatsReader } from './jobs/stats.ts'
import type {
  Handler, InlineFunction, PayloadArguments, PayloadOfName, PayloadOfSchema, Task, TaskName, TaskOptions,
  WorkerTaskOptions
} from './jobs/task.ts'

/** What plugins and handlers see of the job system. Only `define` and `addHook` are synchronous. */
export interface Background<Provider extends FastifyTypeProvider = FastifyTypeProviderDefault> {
  /**
   * Defines a task; in any plugin, until the application is ready. The handler's `app`, the validator compiler and
   * the shared schemas are those of this instance.
   * @throws FST_BG_DEFINE_AFTER_READY, FST_BG_DUPLICATE_TASK, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION, FST_BG_BAD_HANDLER
   */
  define<Payload = unknown, Result = unknown> (name: string, handler: Handler<Payload, Result>): Task<Payload, Result>
  define<const Schema extends object, Payload extends PayloadOfSchema<Provider, Schema> = PayloadOfSchema<Provider, Schema>, Result = unknown> (
    name: string, options: TaskOptions<Schema> & { schema: Schema }, handler: Handler<Payload, Result>): Task<Payload, Result>
  define<Payload = unknown, Result = unknown> (name: string, options: TaskOptions, handler: Handler<Payload, Result>): Task<Payload, Result>
  /** In a thread, where a timeout or a cancel ends it. Needs the package `piscina`: without it `ready()` rejects with FST_BG_PEER_MISSING. */
  define<const Schema extends object, Payload extends PayloadOfSchema<Provider, Schema> = PayloadOfSchema<Provider, Schema>> (
    name: string, options: WorkerTaskOptions<Schema> & { schema: Schema }): Task<Payload>
  define<Payload = unknown> (name: string, options: WorkerTaskOptions): Task<Payload>

  /**
   * Adds a job outside a request: it may start at once. Resolves when the backend has it.
   * @throws FST_BG_STORE_UNAVAILABLE, FST_BG_NOT_STORABLE, FST_BG_QUEUE_FULL, FST_BG_CLOSING, FST_BG_NOT_READY, FST_BG_UNKNOWN_TASK, FST_BG_BAD_PAYLOAD,
   * FST_BG_PAYLOAD_NOT_JSON, FST_BG_PAYLOAD_TOO_LARGE, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION, FST_BG_UNKNOWN_QUEUE
   */
  add<Result> (work: InlineFunction<Result>, options?: JobOptions): Promise<JobHandle<Result>>
  add<Payload, Result> (task: Task<Payload, Result>, ...rest: PayloadArguments<NoInfer<Payload>>): Promise<JobHandle<Result>>
  add<Name extends TaskName> (name: Name, ...rest: PayloadArguments<PayloadOfName<Name>>): Promise<JobHandle>
  /**
   * Adds many jobs. One that is wrong, or no room for all, and none is added. They are stored in chunks of 100, so that the
   * event loop turns in between; do not change the array or its payloads before the promise is settled.
   * @throws what `add` throws; when a chunk cannot be stored, the error has `stored`: the handles of the jobs before it,
   * in order, which are kept
   */
  addBulk (jobs: readonly BulkJob[]): Promise<JobHandle[]>
  /**
   * Adds a job and those that have to end before it starts, at most 1 000 on at most 100 levels, all of them or none. What
   * its children returned is in its handler's `children`. If one fails or is cancelled, it fails with FST_BG_CHILD_FAILED,
   * unless that child has `ignoreDependencyOnFailure`; the others go on. Its cancel cancels the children that do not run.
   * All queues of a flow stand on one backend.
   * @throws what `add` throws, FST_BG_NOT_SUPPORTED
   */
  flow (flow: FlowJob): Promise<FlowHandle>

  /**
   * Watches the jobs of the tasks defined in this instance and its children. Nobody waits for a hook, and one that
   * throws is logged.
   * @throws FST_BG_BAD_OPTION, FST_BG_BAD_HANDLER, FST_BG_HOOK_AFTER_READY
   */
  addHook<Name extends keyof TaskHooks> (name: Name, hook: TaskHooks[Name]): this

  /**
   * Takes what is in the async context of the call that makes a job along to its attempts; until the application is ready.
   * For the whole application. See also the subpath `tracing`.
   * @throws FST_BG_BAD_OPTION, FST_BG_HOOK_AFTER_READY
   */
  propagate (propagator: Propagator): this

  /** What is known of a job; `undefined` when it is unknown or no longer kept. */
  get (id: string): Promise<JobRecord | undefined>
  /** Jobs in all states, by state, task and queue, page by page. @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION */
  list (query?: JobsQuery): Promise<JobPage>
  /** Starts a delayed job now. Answers whether it was delayed. @throws FST_BG_NOT_SUPPORTED where the backend cannot */
  promote (id: string): Promise<boolean>
  /** Forgets a job that has ended. Answers whether there was one. */
  remove (id: string): Promise<boolean>
  /** Jobs by state, for each queue, as in health. */
  counts (): Promise<Record<string, QueueStatus>>
  /** All numbers at one moment, for a metrics system; see also the subpath `metrics`. */
  stats (): Promise<Stats>
  /**
   * `cancelled`: it was not running; `cancelling`: its signal has aborted, it ends when its body settles; `final`: it
   * had ended. `reason` is a text for the log and the signal's reason.
   */
  cancel (id: string, reason?: string): Promise<CancelAnswer>
  /** Starts nothing more, in one queue or in all. What runs goes on. */
  pause (queue?: string): Promise<void>
  /** The counterpart of `pause`. */
  resume (queue?: string): Promise<void>
  /**
   * Resolves when nothing is pending, waiting, active, or delayed by a retry or a rate limit.
   * @throws FST_BG_TIMEOUT after `timeout` ms; 0, the default, waits for ever
   */
  onIdle (options?: { timeout?: number | undefined }): Promise<void>
  readonly deadLetters: DeadLetters

  /**
   * Makes a job at each time of a schedule, in one process of all that share the backend. Replaces a schedule with the same
   * id; one with the same times keeps its next one. To be called when the application is ready, at each start: in an
   * `onReady` hook for instance. Resolves when the backend has it.
   * @throws FST_BG_NOT_READY, FST_BG_CLOSING, FST_BG_NOT_SUPPORTED, FST_BG_PEER_MISSING, FST_BG_STORE_UNAVAILABLE, FST_BG_BAD_OPTION,
   * FST_BG_UNKNOWN_OPTION, FST_BG_UNKNOWN_TASK, FST_BG_BAD_PAYLOAD, FST_BG_PAYLOAD_NOT_JSON, FST_BG_PAYLOAD_TOO_LARGE
   */
  schedule<Payload, Result> (id: string, options: ScheduleOptions, task: Task<Payload, Result>, ...rest: SchedulePayload<NoInfer<Payload>>): Promise<ScheduleRecord>
  schedule<Name extends TaskName> (id: string, options: ScheduleOptions, name: Name, ...rest: SchedulePayload<PayloadOfName<Name>>): Promise<ScheduleRecord>
  /** Answers whether there was one. Jobs that it has made stay. */
  unschedule (id: string): Promise<boolean>
  /** In the order of their ids. */
  schedules (): Promise<ScheduleRecord[]>
}

type SchedulePayload<Payload> = undefined extends Payload ? [payload?: Payload] : null extends Payload ? [payload?: Payload] : [payload: Payload]

/** The one core behind all the facades. */
export interface Core {
  readonly registry: Registry
  readonly hooks: Hooks
  readonly intake: Intake
  readonly bulk: Bulk
  readonly flows: Flows
  readonly control: Control
  readonly deadLetters: DeadLetters
  readonly stats: StatsReader
  readonly schedules: Schedules
  readonly propagation: Propagation
}

export class BackgroundFacade implements Omit<Background, 'define' | 'add' | 'schedule'> {
  readonly #core: Core
  readonly #app: FastifyInstance

  constructor (core: Core, app: FastifyInstance) {
    this.#core = core
    this.#app = app
  }

  get deadLetters (): DeadLetters { return this.#core.deadLetters }

  define (name: string, options: unknown, handler?: unknown): Task {
    return handler === undefined && (options === undefined || typeof options === 'function')
      ? this.#core.registry.define(this.#app, name, {}, options)
      : this.#core.registry.define(this.#app, name, options as TaskOptions, handler)
  }

  addHook<Name extends keyof TaskHooks> (name: Name, hook: TaskHooks[Name]): this {
    this.#core.hooks.add(this.#app, name, hook)
    return this
  }

  propagate (propagator: Propagator): this {
    this.#core.propagation.add(propagator)
    return this
  }

  // Not async: it would take three promises and a frame for each job, where one promise does.
  add (target: unknown, second?: unknown, third?: unknown): Promise<JobHandle> {
    try {
      const { intake, control } = this.#core
      const job = intake.prepare(target, second, third, this.#app, null)
      intake.admit(job)
      const stored = intake.store([job], false)
      const handle = new Handle(control, job)
      return stored instanceof Promise ? stored.then(() => handle) : Promise.resolve(handle)
    } catch (refusal) {
      return Promise.reject(refusal)
    }
  }

  addBulk (jobs: readonly BulkJob[]): Promise<JobHandle[]> { return this.#core.bulk.add(jobs, this.#app) }
  flow (flow: FlowJob): Promise<FlowHandle> { return this.#core.flows.add(flow, this.#app) }
  get (id: string): Promise<JobRecord | undefined> { return this.#core.control.get(id) }
  list (query?: JobsQuery): Promise<JobPage> { return this.#core.control.page(query) }
  promote (id: string): Promise<boolean> { return this.#core.control.promote(id) }
  remove (id: string): Promise<boolean> { return this.#core.control.remove(id) }
  stats (): Promise<Stats> { return this.#core.stats.read() }
  counts (): Promise<Record<string, QueueStatus>> { return this.#core.control.counts() }
  cancel (id: string, reason?: string): Promise<CancelAnswer> { return this.#core.control.cancel(id, reason) }
  pause (queue?: string): Promise<void> { return this.#core.control.pause(queue) }
  resume (queue?: string): Promise<void> { return this.#core.control.resume(queue) }
  onIdle (options?: { timeout?: number | undefined }): Promise<void> { return this.#core.control.onIdle(options) }

  schedule (id: string, options: ScheduleOptions, task: unknown, payload?: unknown): Promise<ScheduleRecord> {
    return this.#core.schedules.put(id, options, task, payload)
  }

  unschedule (id: string): Promise<boolean> { return this.#core.schedules.remove(id) }
  schedules (): Promise<ScheduleRecord[]> { return this.#core.schedules.list() }
}

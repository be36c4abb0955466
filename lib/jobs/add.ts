/** All that happens before a job exists: every refusal is thrown here, and nothing has changed then. */
import { AsyncResource } from 'node:async_hooks'
import type { FastifyInstance } from 'fastify'
import type { Awaitable, Backends, FlowStore, Load } from '../backend.ts'
import { assertPolicySupported } from '../capabilities.ts'
import * as check from '../check.ts'
import type { Clock } from '../clock.ts'
import { describe, peek } from '../describe.ts'
import { errors } from '../errors.ts'
import type { JobContext, NewJob, Policy, Duplicates, FlowNode } from '../job.ts'
import { resolvePolicy, type JobOptions } from '../job-options.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import type { Schedule } from '../schedule.ts'
import { CarryingJob, MadeJob } from './made.ts'
import type { Propagation } from './propagation.ts'
import { takePayload, type Registry } from './registry.ts'

type Run = (context: JobContext) => unknown

/** Bytes of a request's id that a job keeps: with `requestIdHeader`, a client chooses how long it is. */
const LONGEST_REQUEST_ID = 256
/** Characters that take no more than that, whichever they are. */
const SHORT = Math.floor(LONGEST_REQUEST_ID / 3)

export class Intake {
  readonly #settings: Settings
  readonly #registry: Registry
  readonly #backends: Backends
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #propagation: Propagation
  /** Monotonic ms of the last refusal for want of room, by queue. */
  readonly #refusals = new Map<string, number>()
  /** Room of bulks that are on their way, by queue. */
  readonly #reserved = new Map<string, Load>()
  #state: 'booting' | 'open' | 'closed' = 'booting'

  constructor (settings: Settings, clock: Clock, parts: { registry: Registry, backends: Backends, observer: Observer, propagation: Propagation }) {
    this.#settings = settings
    this.#clock = clock
    this.#registry = parts.registry
    this.#backends = parts.backends
    this.#observer = parts.observer
    this.#propagation = parts.propagation
  }

  open (): void { this.#state = 'open' }
  close (): void { this.#state = 'closed' }
  get isOpen (): boolean { return this.#state === 'open' }

  /** @throws FST_BG_NOT_READY, FST_BG_CLOSING */
  mustBeOpen (what: string): void {
    if (this.#state === 'booting') throw new errors.NotReady(what)
    if (this.#state === 'closed') throw new errors.Closing()
  }

  /** A job from `(fn, options)` or `(taskOrName, payload, options)`, as the arguments say. It has no room yet, and no id. */
  prepare (target: unknown, second: unknown, third: unknown, app: FastifyInstance, requestId: string | null): MadeJob {
    this.mustBeOpen('adding a job')
    if (requestId !== null && this.#settings.role === 'worker') throw new errors.WrongRole()
    if (typeof target !== 'function') return this.#task(target, second, third as JobOptions | undefined, app, requestId)
    if (third !== undefined) throw new errors.BadOption('third argument', 'nothing after the options of an inline function', check.came(third))
    const policy = resolvePolicy('options', this.#settings.inlineDefaults, second as JobOptions | undefined)
    this.#check(policy, this.#settings.inlineDefaults, true)
    return this.#make(nameOf(target), null, 0, policy, app, requestId, target as Run)
  }

  /**
   * Room for a job, and its id. To be handed to the backend at once.
   * @throws FST_BG_QUEUE_FULL
   */
  admit (job: MadeJob): void {
    const full = this.#fullness(job.queue, 1, job.bytes)
    if (full !== undefined) this.#refuse(job.queue, job.name, 1, full)
    this.#admit(job, this.#clock.now())
  }

  /**
   * Keeps room for jobs that will be handed over one chunk after the other, all or none. `asked`: by queue.
   * @throws FST_BG_QUEUE_FULL
   */
  reserve (asked: ReadonlyMap<string, Load>): void {
    for (const [queue, { jobs, bytes }] of asked) {
      const full = this.#fullness(queue, jobs, bytes)
      if (full !== undefined) this.#refuse(queue, 'a bulk of tasks', jobs, full)
    }
    for (const [queue, { jobs, bytes }] of asked) {
      const kept = this.#reserved.get(queue) ?? { jobs: 0, bytes: 0 }
      this.#reserved.set(queue, { jobs: kept.jobs + jobs, bytes: kept.bytes + bytes })
    }
  }

  /** These need their reserved room no longer. */
  unreserve (jobs: readonly MadeJob[]): void {
    for (const { queue, bytes } of jobs) {
      const kept = this.#reserved.get(queue) as Load
      kept.bytes -= bytes
      if (--kept.jobs === 0) this.#reserved.delete(queue)
    }
  }

  /**
   * The ids of jobs with room reserved. To be handed to the backend at once, which counts them from then on.
   * @throws FST_BG_CLOSING
   */
  admitReserved (jobs: readonly MadeJob[]): void {
    this.mustBeOpen('adding a job')
    this.unreserve(jobs)
    const now = this.#clock.now()
    for (const job of jobs) this.#admit(job, now)
  }

  /** A job of a schedule, with its id; undefined where its task is not defined, or there is no room. */
  scheduled ({ name, queue, payload, bytes }: Schedule): MadeJob | undefined {
    const task = this.#registry.find(name)
    if (task === undefined || this.#fullness(queue, 1, bytes) !== undefined) return undefined
    const policy = task.policy.queue === queue ? task.policy : { ...task.policy, queue }
    const job = this.#make(name, payload, bytes, policy, task.app, null, undefined)
    this.#admit(job, this.#clock.now())
    return job
  }

  /**
   * Hands jobs to their backends, all or none. `told`: whoever asked hears when it fails.
   * @throws FST_BG_STORE_UNAVAILABLE, FST_BG_NOT_STORABLE
   */
  store (jobs: readonly MadeJob[], staged: boolean, told = true): Awaitable<Duplicates | void> {
    const stored = this.#backends.all.enqueue(jobs, staged)
    if (stored instanceof Promise) return stored.then((duplicates) => this.#stored(jobs, duplicates), (error: unknown) => this.#unstored(jobs, error, told))
    return this.#stored(jobs, stored)
  }

  #admit (job: MadeJob, now: number): void {
    job.admit(now)
    if (job instanceof CarryingJob) job.carry(this.#propagation.inject(job))
  }

  #stored (jobs: readonly MadeJob[], duplicates: Duplicates | void): Duplicates | undefined {
    this.#observer.added(jobs, duplicates)
    return standIn(jobs, duplicates)
  }

  /** @throws FST_BG_STORE_UNAVAILABLE */
  storeFlow (flows: FlowStore, root: FlowNode, jobs: readonly MadeJob[]): Awaitable<void> {
    const stored = flows.add(root)
    if (stored === undefined) return this.#observer.added(jobs)
    return stored.then(() => { this.#observer.added(jobs) }, (error: unknown) => this.#unstored(jobs, error, true))
  }

  /** Whether a queue is full, or refused a job in the last minute. */
  isOverloaded (queue: string): boolean {
    const refused = this.#refusals.get(queue)
    if (refused !== undefined && this.#clock.monotonic() - refused < 60_000) return true
    return this.#fullness(queue, 1, 1) !== undefined
  }

  #task (target: unknown, payload: unknown, options: JobOptions | undefined, app: FastifyInstance, requestId: string | null): MadeJob {
    const task = this.#registry.get(target)
    const policy = resolvePolicy('options', task.policy, options)
    const { value, bytes } = takePayload(task, payload, this.#settings.maxPayloadBytes)
    if (policy !== task.policy) this.#check(policy, task.policy, false) // the task's own was checked at ready()
    return this.#make(task.name, value, bytes, policy, app, requestId, undefined)
  }

  /** @throws FST_BG_UNKNOWN_QUEUE, FST_BG_NOT_SUPPORTED */
  #check (policy: Policy, usual: Policy, inline: boolean): void {
    this.#registry.checkQueue(policy.queue)
    assertPolicySupported(this.#backends.of(policy.queue, inline), policy, usual)
  }

  #make (name: string, payload: Json, bytes: number, policy: Policy, app: FastifyInstance, requestId: string | null, run: Run | undefined): MadeJob {
    const context = policy.callerContext ? new AsyncResource('BackgroundTask') : undefined
    const local = run === undefined && context === undefined ? undefined : { run, app, context }
    const Made = this.#propagation.active ? CarryingJob : MadeJob
    return new Made(name, payload, bytes, policy, keepable(requestId), local)
  }

  #unstored (jobs: readonly NewJob[], error: unknown, told: boolean): never {
    this.#observer.unstored(jobs, describe(error), told)
    if (peek(error, 'code') === 'FST_BG_NOT_STORABLE') throw error as Error // of these jobs, not of the store
    // Not the cause: error handlers of applications may show it to clients.
    throw Object.assign(new errors.StoreUnavailable(), { headers: { 'retry-after': '1' } })
  }

  #fullness (queue: string, jobs: number, bytes: number): string | undefined {
    const load = this.#backends.all.load(queue)
    const reserved = this.#reserved.get(queue)
    const here = { jobs: load.jobs + (reserved?.jobs ?? 0), bytes: load.bytes + (reserved?.bytes ?? 0) }
    const { maxQueueSize, maxQueueBytes } = this.#settings
    if (here.jobs + jobs > maxQueueSize) return `${here.jobs} jobs that never started, at most ${maxQueueSize} (maxQueueSize)`
    if (here.bytes + bytes > maxQueueBytes) return `${here.bytes} bytes of payload, at most ${maxQueueBytes} (maxQueueBytes)`
    return undefined
  }

  #refuse (queue: string, task: string, jobs: number, full: string): never {
    this.#refusals.set(queue, this.#clock.monotonic())
    this.#observer.refused(queue, task, jobs, full)
    throw Object.assign(new errors.QueueFull(queue, full), { headers: { 'retry-after': '1' } })
  }
}

/** Duplicates go on as the jobs that stand for them. */
export function standIn (jobs: readonly MadeJob[], duplicates: Duplicates | void): Duplicates | undefined {
  if (duplicates === undefined || duplicates.size === 0) return undefined
  for (const job of jobs) {
    const other = duplicates.get(job.id)
    if (other !== undefined) job.standFor(other.id)
  }
  return duplicates
}

/** A function's name is made by its language or by anybody; it goes where names of tasks go. */
function nameOf (work: object): string {
  const name = peek(work, 'name')
  return check.name(name) === undefined ? name as string : 'inline'
}

/** Of an id that is longer, as many whole characters as fit. Not a slice, which would keep the rest alive. */
function keepable (requestId: string | null): string | null {
  if (requestId === null) return null
  const id = String(requestId) // an application's `genReqId` may just count
  if (id.length <= SHORT) return id
  const kept = new Uint8Array(LONGEST_REQUEST_ID)
  return Buffer.from(kept.buffer, 0, new TextEncoder().encodeInto(id, kept).written).toString()
}

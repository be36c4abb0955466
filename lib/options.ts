/** Options of the plugin: the only place with their defaults. */
import { availableParallelism } from 'node:os'
import type { FastifyRequest, LogLevel, RegisterOptions } from 'fastify'
import type { Backend, QueueSettings, Rate, Retention } from './backend.ts'
import * as check from './check.ts'
import { errors } from './errors.ts'
import type { JobRecord, Policy } from './job.ts'
import { redactPaths } from './redact.ts'
import { resolveRoutes, type RouteSettings, type RoutesOptions } from './route-options.ts'
import { INLINE_DEFAULTS, JOB_CHECKS, TASK_DEFAULTS, layPolicy, type JobOptions } from './job-options.ts'

/** `read`: one job, also each that is about to be listed. The others are named after what they do. */
export type Action = 'read' | 'list' | 'cancel' | 'retry' | 'remove' | 'pause' | 'resume' | 'trigger'
/**
 * Anything but `true` refuses. `job`, with its payload, where the action is on one: then a refusal is a 404, otherwise a
 * 403. May throw what the application's error handler understands, a 401 for instance.
 */
export type Authorize = (request: FastifyRequest, action: Action, job?: JobRecord) => boolean | Promise<boolean>

/** `producer` only adds jobs, `worker` only does them, `both` does both. */
export type Role = 'both' | 'producer' | 'worker'

/** Thresholds of health. */
export interface HealthOptions {
  /** Ms a job may wait before health says `degraded`. @default 60000 */
  maxAge?: number | undefined
  /** Dead letters beyond which health says `degraded`. @default none */
  maxDead?: number | undefined
}

/** Options of one queue. */
export interface QueueOptions {
  /** Attempts alive at once in this process, 1 to 10 000. @default the plugin's `concurrency` */
  concurrency?: number | undefined
  /** At most `max` starts (1 to 100 000) in any window of `duration` ms. @default none */
  limiter?: Rate | undefined
  /** Limits of each group (the job option `group`). @default none: groups only take turns */
  groups?: GroupsOptions | undefined
  /** Where the queue's tasks stand. Inline functions live in memory on any queue. @default the plugin's `backend` */
  backend?: Backend | undefined
}

/** Limits of each group of a queue. */
export interface GroupsOptions {
  /** Attempts of one group alive at once, in all processes that share the backend, 1 to 10 000. @default as many as the queue allows */
  concurrency?: number | undefined
  /** At most `max` starts of one group (1 to 100 000) in any window of `duration` ms. @default none */
  limiter?: Rate | undefined
}

/** Jobs that ended: how many are kept, and for how long. */
export interface RetentionOptions {
  /** Completed and cancelled jobs. @default { count: 10000, age: 3600000 } */
  completed?: { count?: number | undefined, age?: number | undefined } | undefined
  /** The dead-letter buffer. @default { count: 1000, age: 86400000 } */
  failed?: { count?: number | undefined, age?: number | undefined } | undefined
}

/** Options of the plugin. All are optional, all durations are in ms, unknown names are an error. */
export interface BackgroundTasksOptions {
  /** Attempts alive at once in the `default` queue of this process, 1 to 10 000. @default 10 */
  concurrency?: number | undefined
  /** Further queues by name, or other settings for `default`. A job for a queue that is not named here is refused. Without it there is `default` alone. */
  queues?: Record<string, QueueOptions> | undefined
  /** Jobs of a queue that never started; beyond: `FST_BG_QUEUE_FULL`. @default 10000 */
  maxQueueSize?: number | undefined
  /** Bytes of their payloads' JSON. @default 67108864 (64 MiB) */
  maxQueueBytes?: number | undefined
  /** Bytes of one payload's JSON; results above it are dropped and marked. @default 262144 (256 KiB) */
  maxPayloadBytes?: number | undefined
  /** Job options for every job. Without it the defaults of `JobOptions` hold. */
  defaults?: JobOptions | undefined
  /** How many jobs that ended are kept, and for how long. @default see `RetentionOptions` */
  retention?: RetentionOptions | undefined
  /** At shutdown: how long jobs may go on before their signals abort. @default 8000 */
  drainTimeout?: number | undefined
  /** How long a body may take to settle after its signal aborted. @default 1000 */
  abortGrace?: number | undefined
  /** Told what a shutdown left undone. Without it the log alone tells. */
  onUnfinished?: ((jobs: JobRecord[]) => void) | undefined
  /** The longest wait for a response to end before its jobs start anyway. @default 300000 */
  maxHold?: number | undefined
  /** Cap, in ms, of `Prefer: wait` on `reply.accepted`. 0: the preference is not looked at. @default 0 */
  maxWait?: number | undefined
  /** Requests first: jobs start only while no request waits for the event loop. `false`: whenever a slot is free. @default true */
  foreground?: boolean | undefined
  /** Ms a job may hold the event loop before it is named in the log, in health and on a diagnostics channel. @default 50 */
  maxBlock?: number | undefined
  /** Threads for tasks with a `worker`, 1 to 1 024; made when they are needed. @default the number of cores − 1, at least 1 */
  threads?: number | undefined
  /** Where the queues stand. @default memory() */
  backend?: Backend | undefined
  /**
   * What this process does of the work that durable backends keep: `producer` adds and never works, `worker` works and takes
   * no jobs from responses. Inline functions run wherever they are added. @default 'both'
   */
  role?: Role | undefined
  /** Prefix of our routes, as for every plugin. @default none */
  prefix?: string
  /** `false`: no routes. @default health and status, see `RoutesOptions` */
  routes?: RoutesOptions | false | undefined
  /** When health says `degraded`. @default see `HealthOptions` */
  health?: HealthOptions | undefined
  /** Who may do what, asked at each request. Without it, a status is open to whoever knows the job's id. */
  authorize?: Authorize | undefined
  /**
   * Lists show payloads only where this is given: paths that are replaced by `[REDACTED]`, in pino's syntax, from
   * `payload`, `result` or `progress` on. `[]`: nothing is hidden. @default none: no payloads
   */
  redact?: readonly string[] | undefined
  /** Level of our log lines, as for every plugin. @default the application's */
  logLevel?: LogLevel
  /** Serializers of our log lines, as for every plugin. @default the application's */
  logSerializers?: NonNullable<RegisterOptions['logSerializers']>
}

/** A queue, and the limit of this process for it. */
export interface PoolSettings extends QueueSettings {
  readonly concurrency: number
  readonly backend?: Backend | undefined
}

export interface Settings {
  readonly queues: ReadonlyMap<string, PoolSettings>
  readonly maxQueueSize: number
  readonly maxQueueBytes: number
  readonly maxPayloadBytes: number
  readonly taskDefaults: Policy
  readonly inlineDefaults: Policy
  readonly retention: Retention
  readonly drainTimeout: number
  readonly abortGrace: number
  readonly onUnfinished: ((jobs: JobRecord[]) => void) | undefined
  readonly maxHold: number
  readonly maxWait: number
  readonly foreground: boolean
  readonly maxBlock: number
  readonly threads: number
  readonly backend: Backend | undefined
  readonly role: Role
  readonly routes: RouteSettings
  readonly health: { readonly maxAge: number, readonly maxDead: number }
  readonly authorize: Authorize | undefined
  readonly redact: readonly string[] | undefined
  readonly logLevel: LogLevel | undefined
  readonly logSerializers: BackgroundTasksOptions['logSerializers'] | undefined
}

const keep = check.group({ count: check.integer(0, 10_000_000), age: check.duration })
const VERBS = ['start', 'want', 'settle', 'note', 'enqueue', 'release', 'cancel', 'retry', 'remove', 'get', 'list', 'counts', 'load', 'watch', 'close'] as const
const isBackend = (value: unknown): string | undefined => {
  const backend = value as Backend | null
  return VERBS.every((verb) => typeof backend?.[verb] === 'function') && typeof backend?.name === 'string' &&
    typeof backend.durable === 'boolean' && typeof backend.capabilities === 'object' && backend.capabilities !== null
    ? undefined : 'a backend, such as memory()'
}
const RATE = check.group({ max: check.integer(1, 100_000), duration: check.positiveDuration })
const QUEUE_CHECKS: check.Checks = {
  concurrency: check.concurrency,
  limiter: RATE,
  groups: check.group({ concurrency: check.concurrency, limiter: RATE }),
  backend: isBackend
}
const CHECKS: check.Checks = {
  concurrency: check.concurrency,
  queues: check.object,
  maxQueueSize: check.integer(0, 100_000_000),
  maxQueueBytes: check.integer(0, Number.MAX_SAFE_INTEGER),
  maxPayloadBytes: check.integer(0, 512 * 1024 * 1024),
  defaults: check.object,
  retention: check.group({ completed: keep, failed: keep }),
  drainTimeout: check.duration,
  abortGrace: check.duration,
  onUnfinished: check.func,
  maxHold: check.positiveDuration,
  maxWait: check.duration,
  foreground: check.boolean,
  maxBlock: check.positiveDuration,
  threads: check.integer(1, 1_024),
  backend: isBackend,
  role: check.oneOf('both', 'producer', 'worker'),
  prefix: (value) => value === '' || (typeof value === 'string' && value.startsWith('/')) ? undefined : 'a path that starts with "/", or an empty string',
  routes: check.either(check.oneOf(false), check.object),
  health: check.group({ maxAge: check.duration, maxDead: check.integer(0, Number.MAX_SAFE_INTEGER) }),
  authorize: check.func,
  redact: redactPaths,
  logLevel: check.name,
  logSerializers: check.object
}

/**
 * Checks all options and puts in the defaults.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function resolveOptions (options: BackgroundTasksOptions): Settings {
  const given = check.options<BackgroundTasksOptions>('options', CHECKS, options)
  const defaults = check.options<JobOptions>('options.defaults', JOB_CHECKS, given.defaults ?? {})
  const queues = resolveQueues(given.queues ?? {}, given.concurrency ?? 10)
  if (defaults.queue !== undefined && !queues.has(defaults.queue)) throw new errors.UnknownQueue(check.came(defaults.queue), [...queues.keys()].join(', '))
  return Object.freeze({
    queues,
    maxQueueSize: given.maxQueueSize ?? 10_000,
    maxQueueBytes: given.maxQueueBytes ?? 64 * 1024 * 1024,
    maxPayloadBytes: given.maxPayloadBytes ?? 256 * 1024,
    taskDefaults: layPolicy('options.defaults', TASK_DEFAULTS, defaults),
    inlineDefaults: layPolicy('options.defaults', INLINE_DEFAULTS, defaults),
    retention: {
      completed: { count: given.retention?.completed?.count ?? 10_000, age: given.retention?.completed?.age ?? 3_600_000 },
      failed: { count: given.retention?.failed?.count ?? 1_000, age: given.retention?.failed?.age ?? 86_400_000 }
    },
    drainTimeout: given.drainTimeout ?? 8_000,
    abortGrace: given.abortGrace ?? 1_000,
    onUnfinished: given.onUnfinished,
    maxHold: given.maxHold ?? 300_000,
    maxWait: given.maxWait ?? 0,
    foreground: given.foreground ?? true,
    maxBlock: given.maxBlock ?? 50,
    threads: given.threads ?? Math.max(1, availableParallelism() - 1),
    backend: given.backend,
    role: given.role ?? 'both',
    routes: resolveRoutes(given),
    health: { maxAge: given.health?.maxAge ?? 60_000, maxDead: given.health?.maxDead ?? Infinity },
    authorize: given.authorize,
    redact: given.redact && [...given.redact],
    logLevel: given.logLevel,
    logSerializers: given.logSerializers
  })
}

function resolveQueues (queues: Record<string, QueueOptions>, concurrency: number): Map<string, PoolSettings> {
  const resolved = new Map<string, PoolSettings>([['default', { concurrency, limiter: undefined }]])
  for (const [name, options] of Object.entries(queues)) {
    check.must('options.queues, a name', check.name, name)
    const where = `options.queues.${name}`
    const { limiter, groups, ...given } = check.options<QueueOptions>(where, QUEUE_CHECKS, options)
    resolved.set(name, {
      concurrency: given.concurrency ?? concurrency,
      limiter: resolveRate(`${where}.limiter`, limiter),
      groups: groups && { concurrency: groups.concurrency ?? Infinity, limiter: resolveRate(`${where}.groups.limiter`, groups.limiter) },
      backend: given.backend
    })
  }
  return resolved
}

function resolveRate (where: string, rate: Rate | undefined): Rate | undefined {
  if (rate === undefined) return undefined
  for (const key of ['max', 'duration'] as const) if (rate[key] === undefined) throw new errors.BadOption(`${where}.${key}`, 'a number', 'nothing')
  return { max: rate.max, duration: rate.duration }
}

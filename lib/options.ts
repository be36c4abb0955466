/** Options of the plugin: the only place with their defaults. */
import type { FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { Backend, Retention } from './backend.ts'
import * as check from './check.ts'
import { errors } from './errors.ts'
import type { JobRecord } from './job.ts'
import {
  INLINE_DEFAULTS, JOB_CHECKS, TASK_DEFAULTS, layJobOptions,
  type JobOptions, type ResolvedJobOptions
} from './job-options.ts'

export type Action = 'read'
/** May throw what the application's error handler understands, a 401 for instance. */
export type Authorize = (request: FastifyRequest, action: Action, job?: JobRecord) => boolean | Promise<boolean>

/** Options of Fastify routes that reach ours untouched. */
type PassedOn = 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler' | 'preSerialization' | 'onSend' | 'onResponse' |
  'onTimeout' | 'onError' | 'onRequestAbort' | 'config' | 'constraints' | 'errorHandler' | 'exposeHeadRoute'

export interface RoutesOptions extends Pick<RouteShorthandOptions, PassedOn> {
  /** @default '/health/jobs' */
  health?: string | false | undefined
  /** Must contain `:id`. @default '/jobs/:id/status' */
  status?: string | false | undefined
  /** `tags`, `security`, `hide` and the like; params and responses are ours. */
  schema?: Record<string, unknown> | undefined
}

export interface HealthOptions {
  /** Ms a job may wait before health says `degraded`. @default 60000 */
  maxAge?: number | undefined
  /** Dead letters beyond which health says `degraded`. @default none */
  maxDead?: number | undefined
}

export interface RetentionOptions {
  /** Completed and cancelled jobs. @default { count: 10000, age: 3600000 } */
  completed?: { count?: number | undefined, age?: number | undefined } | undefined
  /** The dead-letter buffer. @default { count: 1000, age: 86400000 } */
  failed?: { count?: number | undefined, age?: number | undefined } | undefined
}

/** All optional. All durations are in ms. */
export interface BackgroundTasksOptions {
  /** Attempts alive at once in the `default` queue of this process, 1 to 10 000. @default 10 */
  concurrency?: number | undefined
  /** Jobs of a queue that never started; beyond: `FST_BG_QUEUE_FULL`. @default 10000 */
  maxQueueSize?: number | undefined
  /** Bytes of their payloads' JSON. @default 67108864 (64 MiB) */
  maxQueueBytes?: number | undefined
  /** Bytes of one payload's JSON; results above it are dropped and marked. @default 262144 (256 KiB) */
  maxPayloadBytes?: number | undefined
  /** Job options for every job. */
  defaults?: JobOptions | undefined
  retention?: RetentionOptions | undefined
  /** At shutdown: how long jobs may go on before their signals abort. @default 8000 */
  drainTimeout?: number | undefined
  /** How long a body may take to settle after its signal aborted. @default 1000 */
  abortGrace?: number | undefined
  /** Told what a shutdown left undone. */
  onUnfinished?: ((jobs: JobRecord[]) => void) | undefined
  /** The longest wait for a response to end before its jobs start anyway. @default 300000 */
  maxHold?: number | undefined
  /** Where the queues stand. @default memory() */
  backend?: Backend | undefined
  /** Prefix of our routes, as for every plugin. */
  prefix?: string | undefined
  /** `false`: no routes. */
  routes?: RoutesOptions | false | undefined
  health?: HealthOptions | undefined
  /** Who may read. Without it, a status is open to whoever knows the job's id. */
  authorize?: Authorize | undefined
  /** Level of our log lines, as for every plugin. */
  logLevel?: string | undefined
  logSerializers?: Record<string, (value: unknown) => unknown> | undefined
}

export interface Settings {
  readonly concurrency: number
  readonly maxQueueSize: number
  readonly maxQueueBytes: number
  readonly maxPayloadBytes: number
  readonly taskDefaults: ResolvedJobOptions
  readonly inlineDefaults: ResolvedJobOptions
  readonly retention: Retention
  readonly drainTimeout: number
  readonly abortGrace: number
  readonly onUnfinished: ((jobs: JobRecord[]) => void) | undefined
  readonly maxHold: number
  readonly backend: Backend | undefined
  readonly prefix: string
  readonly routes: RouteSettings
  readonly health: { readonly maxAge: number, readonly maxDead: number }
  readonly authorize: Authorize | undefined
  readonly logLevel: string | undefined
  readonly logSerializers: Record<string, (value: unknown) => unknown> | undefined
}

export interface RouteSettings {
  readonly health: string | false
  readonly status: string | false
  readonly schema: Record<string, unknown>
  readonly passed: Pick<RouteShorthandOptions, PassedOn>
}

const keep = check.group({ count: check.integer(0, 10_000_000), age: check.duration })
const isBackend = (value: unknown): string | undefined =>
  typeof (value as Backend | null)?.enqueue === 'function' && typeof (value as Backend).settle === 'function'
    ? undefined : 'a backend, such as memory()'
const withId: check.Check = (value) =>
  check.path(value) ?? (value === false || String(value).split('/').includes(':id') ? undefined : 'a path with the part ":id"')
const anObject: check.Check = (value) => typeof value === 'object' && value !== null ? undefined : 'an object'

const CHECKS: check.Checks = {
  concurrency: check.integer(1, 10_000),
  maxQueueSize: check.integer(0, 100_000_000),
  maxQueueBytes: check.integer(0, Number.MAX_SAFE_INTEGER),
  maxPayloadBytes: check.integer(0, 512 * 1024 * 1024),
  defaults: anObject,
  retention: check.group({ completed: keep, failed: keep }),
  drainTimeout: check.duration,
  abortGrace: check.duration,
  onUnfinished: check.func,
  maxHold: check.positiveDuration,
  backend: isBackend,
  prefix: (value) => typeof value === 'string' ? undefined : 'a string',
  routes: check.either(check.oneOf(false), anObject),
  health: check.group({ maxAge: check.duration, maxDead: check.integer(0, Number.MAX_SAFE_INTEGER) }),
  authorize: check.func,
  logLevel: check.name,
  logSerializers: anObject
}

const hooks = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend', 'onResponse',
  'onTimeout', 'onError', 'onRequestAbort'] as const
const aHook = check.either(check.func, (value) => Array.isArray(value) && value.every((hook) => typeof hook === 'function') ? undefined : 'an array of functions')
const ROUTE_CHECKS: check.Checks = {
  health: check.path,
  status: withId,
  schema: anObject,
  config: anObject,
  constraints: anObject,
  errorHandler: check.func,
  exposeHeadRoute: check.boolean,
  ...Object.fromEntries(hooks.map((hook) => [hook, aHook]))
}

/**
 * Checks all options and puts in the defaults.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function resolveOptions (options: BackgroundTasksOptions): Settings {
  const given = check.options<BackgroundTasksOptions>('options', CHECKS, options)
  const defaults = check.options<JobOptions>('options.defaults', JOB_CHECKS, given.defaults ?? {})
  if (defaults.queue !== undefined && defaults.queue !== 'default') throw new errors.UnknownQueue(`"${defaults.queue}"`, 'default')
  return Object.freeze({
    concurrency: given.concurrency ?? 10,
    maxQueueSize: given.maxQueueSize ?? 10_000,
    maxQueueBytes: given.maxQueueBytes ?? 64 * 1024 * 1024,
    maxPayloadBytes: given.maxPayloadBytes ?? 256 * 1024,
    taskDefaults: layJobOptions('options.defaults', TASK_DEFAULTS, defaults),
    inlineDefaults: layJobOptions('options.defaults', INLINE_DEFAULTS, defaults),
    retention: {
      completed: { count: given.retention?.completed?.count ?? 10_000, age: given.retention?.completed?.age ?? 3_600_000 },
      failed: { count: given.retention?.failed?.count ?? 1_000, age: given.retention?.failed?.age ?? 86_400_000 }
    },
    drainTimeout: given.drainTimeout ?? 8_000,
    abortGrace: given.abortGrace ?? 1_000,
    onUnfinished: given.onUnfinished,
    maxHold: given.maxHold ?? 300_000,
    backend: given.backend,
    prefix: given.prefix ?? '',
    routes: resolveRoutes(given.routes),
    health: { maxAge: given.health?.maxAge ?? 60_000, maxDead: given.health?.maxDead ?? Infinity },
    authorize: given.authorize,
    logLevel: given.logLevel,
    logSerializers: given.logSerializers
  })
}

function resolveRoutes (routes: RoutesOptions | false | undefined): RouteSettings {
  if (routes === false) return { health: false, status: false, schema: {}, passed: {} }
  const { health = '/health/jobs', status = '/jobs/:id/status', schema = {}, ...passed } =
    check.options<RoutesOptions>('options.routes', ROUTE_CHECKS, routes ?? {})
  return { health, status, schema, passed }
}

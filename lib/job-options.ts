/** Options of a job: documented, checked, and resolved. The nearest wins: per call, then `define`, then `defaults`. */
import * as check from './check.ts'
import { peek } from './describe.ts'
import { errors } from './errors.ts'
import type { Backoff, BackoffFunction, BackoffPolicy, Policy, RetryIf, When } from './job.ts'

/** Options of a job. The nearest wins: per call, then `define`, then the plugin's `defaults`. */
export interface JobOptions {
  /** Attempts in all, the first included; 1 to 1 000. @default 3 for tasks, 1 for inline functions */
  attempts?: number | undefined
  /**
   * Wait between attempts: ms (fixed, without jitter), a shape, or a function.
   * @default { type: 'exponential', delay: 1000, maxDelay: 60000, jitter: 0.5 }
   */
  backoff?: number | Backoff | BackoffFunction | undefined
  /** Ms an attempt may take; then its signal aborts. 0: no limit. @default 30000 */
  timeout?: number | undefined
  /** Asked after an attempt threw: `false` makes the job a dead letter at once. Not asked after a timeout. Without it every error is retried. */
  retryIf?: RetryIf | undefined
  /** Ms before the first start. Not together with `runAt`. @default 0 */
  delay?: number | undefined
  /** Instant of the first start: Date, ISO 8601 or ms since the epoch. The past means now. Without it `delay` says when. */
  runAt?: Date | string | number | undefined
  /** Ms in which the first attempt must start, else the job fails as `expired`. 0: no limit. @default 0 */
  ttl?: number | undefined
  /** Higher first, −1 000 000 to 1 000 000; equals in the order of arrival. @default 0 */
  priority?: number | undefined
  /** @default 'default' */
  queue?: string | undefined
  /** Which ends of the response let a staged job start. @default 'handled' */
  when?: When | undefined
  /** What becomes of a staged job that `when` accepted although the client had left. @default 'run' */
  onAbort?: 'run' | 'drop' | undefined
  /** Run in the `AsyncLocalStorage` context of the call, instead of an empty one. @default false */
  callerContext?: boolean | undefined
  /** No second job of this id, for the same task and queue: who adds one gets the handle of the first. On a durable backend not with `reply.background`. Without it each call makes a job. */
  deduplication?: Deduplication | undefined
  /** Of the jobs of a queue, groups take turns: a tenant with many jobs does not hold up one with few. Priorities count within a group. Without it the job is in no group. */
  group?: GroupOption | undefined
}

export interface GroupOption {
  /** 1 to 128 characters. */
  id: string
}

export interface Deduplication {
  /** 1 to 128 characters. */
  id: string
  /**
   * Ms from the making of the first, whether it lives or has ended; a cancel lets the id go. Each id takes about 200
   * bytes meanwhile. @default while the first lives
   */
  ttl?: number | undefined
}

const DEFAULT_BACKOFF = { type: 'exponential', delay: 1_000, maxDelay: 60_000, jitter: 0.5 } as const

export const TASK_DEFAULTS: Policy = Object.freeze({
  attempts: 3,
  backoff: DEFAULT_BACKOFF,
  timeout: 30_000,
  retryIf: undefined,
  delay: 0,
  runAt: NaN,
  ttl: 0,
  priority: 0,
  queue: 'default',
  when: 'handled',
  onAbort: 'run',
  callerContext: false,
  deduplication: undefined,
  group: undefined
})
export const INLINE_DEFAULTS: Policy = Object.freeze({ ...TASK_DEFAULTS, attempts: 1 })

export const JOB_CHECKS: check.Checks = {
  attempts: check.integer(1, 1_000),
  backoff: check.either(check.duration, check.either(check.func, check.group({
    type: check.oneOf('fixed', 'exponential'),
    delay: check.duration,
    maxDelay: check.duration,
    jitter: check.ratio
  }))),
  timeout: check.duration,
  retryIf: check.func,
  delay: check.duration,
  runAt: check.instant,
  ttl: check.duration,
  priority: check.integer(-1_000_000, 1_000_000),
  queue: check.name,
  when: check.either(check.oneOf('handled', 'success', 'error', 'always'), check.func),
  onAbort: check.oneOf('run', 'drop'),
  callerContext: check.boolean,
  deduplication: identified({ ttl: check.positiveDuration }),
  group: identified({})
}

/** An option that is an object with an `id`. */
function identified (more: check.Checks): check.Check {
  const checked = check.group({ id: check.name, ...more })
  return (value) => checked(value) ?? (peek(value, 'id') === undefined ? 'an object with an id' : undefined)
}

/**
 * Lays options over a base. The base itself comes back when nothing was given.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function resolvePolicy (where: string, base: Policy, options: JobOptions | undefined): Policy {
  if (options === undefined) return base
  const given = check.options<JobOptions>(where, JOB_CHECKS, options)
  switch (onlyKeyOf(given)) {
    case 'priority': return remembered(base, given.priority as number, 'priority')
    case 'group': return remembered(base, given.group?.id as string, 'group')
    default: return layPolicy(where, base, given)
  }
}

function onlyKeyOf (given: object): string | undefined {
  let only: string | undefined
  for (const key in given) {
    if (only !== undefined) return undefined
    only = key
  }
  return only
}

/** The most frequent of all options per call. Their policies are made once: a policy is as large as a job. */
const usual = new WeakMap<Policy, Map<number | string, Policy>>()
/** Priorities and groups remembered for each base. */
const REMEMBERED = 100

function remembered (base: Policy, value: number | string, option: 'priority' | 'group'): Policy {
  let known = usual.get(base)
  if (known === undefined) usual.set(base, known = new Map<number | string, Policy>())
  let policy = known.get(value)
  if (policy === undefined) {
    policy = Object.freeze({ ...base, [option]: value })
    if (known.size < REMEMBERED) known.set(value, policy)
  }
  return policy
}

/** The same for options that were checked already. */
export function layPolicy (where: string, base: Policy, given: JobOptions): Policy {
  const { backoff, runAt, deduplication, group, ...plain } = given
  if (runAt !== undefined && given.delay !== undefined) {
    throw new errors.BadOption(`${where}.runAt`, 'either delay or runAt', 'both')
  }
  return Object.freeze({
    ...base,
    // A nearer `delay` replaces a farther `runAt`, and the other way round.
    ...(runAt !== undefined ? { runAt: check.toEpoch(runAt), delay: 0 } : given.delay !== undefined ? { runAt: NaN } : undefined),
    ...(backoff !== undefined ? { backoff: resolveBackoff(backoff) } : undefined),
    ...(deduplication !== undefined ? { deduplication: { id: deduplication.id, ttl: deduplication.ttl ?? 0 } } : undefined),
    ...(group !== undefined ? { group: group.id } : undefined),
    ...plain
  } as Policy)
}

function resolveBackoff (backoff: number | Backoff | BackoffFunction): BackoffPolicy {
  if (typeof backoff === 'function') return backoff
  if (typeof backoff === 'number') return { type: 'fixed', delay: backoff, maxDelay: backoff, jitter: 0 }
  const { type = DEFAULT_BACKOFF.type, delay = DEFAULT_BACKOFF.delay, jitter = DEFAULT_BACKOFF.jitter } = backoff
  return { type, delay, maxDelay: backoff.maxDelay ?? Math.max(DEFAULT_BACKOFF.maxDelay, delay), jitter }
}

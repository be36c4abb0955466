/** What a backend can and cannot do, and what is asked of it. */
import { errors } from './errors.ts'
import type { Policy } from './job.ts'

/** What a backend can do. What it cannot is refused by name: at `ready()` for tasks, at the call for jobs. */
export interface Capabilities {
  /** Functions in a job: inline work, per-call functions, the caller's async context. */
  readonly inline: boolean
  readonly delay: boolean
  readonly ttl: boolean
  readonly priority: boolean
  /** Rate limits of queues. */
  readonly limiter: boolean
  readonly deduplication: boolean
  /** Jobs of groups take turns; a queue can limit each group. */
  readonly groups: boolean
  /** Cancelled jobs can be read afterwards, within `retention`. */
  readonly cancelled: boolean
  /** Dead letters can start again with another payload. @default false */
  readonly patch?: boolean
}

type Able = { readonly name: string, readonly capabilities: Capabilities }

/** @throws FST_BG_NOT_SUPPORTED */
export function assertSupported (backend: Able, capability: keyof Capabilities, what: string): void {
  if (!backend.capabilities[capability]) throw new errors.NotSupported(what, backend.name)
}

/**
 * What a job asks for, by option. `usual`: of its task.
 * @throws FST_BG_NOT_SUPPORTED
 */
export function assertPolicySupported (backend: Able, policy: Policy, usual: Policy = policy): void {
  // A job that is kept elsewhere gets its task's functions when it runs: it has none of its own.
  if (typeof policy.retryIf === 'function' && policy.retryIf !== usual.retryIf) assertSupported(backend, 'inline', 'a function as retryIf of one job')
  if (typeof policy.backoff === 'function' && policy.backoff !== usual.backoff) assertSupported(backend, 'inline', 'a function as backoff of one job')
  if (policy.delay > 0) assertSupported(backend, 'delay', 'delay')
  if (!Number.isNaN(policy.runAt)) assertSupported(backend, 'delay', 'runAt')
  if (policy.ttl > 0) assertSupported(backend, 'ttl', 'ttl')
  if (policy.priority !== 0) assertSupported(backend, 'priority', 'priority')
  if (policy.deduplication !== undefined) assertSupported(backend, 'deduplication', 'deduplication')
  if (policy.group !== undefined) assertSupported(backend, 'groups', 'group')
  if (policy.callerContext) assertSupported(backend, 'inline', 'callerContext')
}

/** What an attempt that did not succeed ends in: the only place where that is decided. Pure. */
import { atOnce, came } from '../check.ts'
import type { Clock } from '../clock.ts'
import { describe, peek, type ErrorFacts } from '../describe.ts'
import { asRetryLater, isUnrecoverable, LONGEST_MS } from '../errors.ts'
import { TASK_DEFAULTS } from '../job-options.ts'
import type { BackoffPolicy, JobFacts, Outcome, Policy } from '../job.ts'

export interface Judged {
  outcome: Outcome
  /** What the attempt threw, for hooks; stores and logs get its description. */
  thrown?: unknown
  /** Set when a function of the policy threw or answered nonsense; the default was taken instead. */
  policyError?: { option: 'retryIf' | 'backoff', error: ErrorFacts }
}

/** A `Retry-After` beyond this is not believed. */
const LONGEST_RETRY_AFTER = 86_400_000

export function afterThrow (thrown: unknown, policy: Policy, job: JobFacts, clock: Pick<Clock, 'now' | 'random'>): Judged {
  const error = describe(thrown)
  if (isUnrecoverable(thrown)) return { outcome: { kind: 'dead', error, failure: 'unrecoverable' } }
  const later = asRetryLater(thrown)
  if (later !== undefined && !later.countAttempt) {
    return { outcome: retryIn(later.delay, error, false) }
  }
  if (later === undefined && policy.retryIf !== undefined) {
    const asked = ask(() => policy.retryIf?.(thrown, job))
    if (asked.error !== undefined) return { ...again(error, policy, job, clock.random, thrown, retryAfter(thrown, clock.now())), policyError: { option: 'retryIf', error: asked.error } }
    if (asked.answer === false) return { outcome: { kind: 'dead', error, failure: 'unrecoverable' } }
  }
  return again(error, policy, job, clock.random, thrown, later?.delay ?? retryAfter(thrown, clock.now()))
}

export function afterTimeout (policy: Policy, job: JobFacts, random: () => number): Judged {
  const error = timeoutError(policy.timeout)
  if (job.attempt >= policy.attempts) return { outcome: { kind: 'dead', error, failure: 'timeout' } }
  return again(error, policy, job, random)
}

export function timeoutError (timeout: number): ErrorFacts {
  return { name: 'TimeoutError', code: 'FST_BG_TIMEOUT', message: `the attempt took longer than its timeout of ${timeout} ms` }
}

/** `told`: ms that the error itself asked for. */
function again (error: ErrorFacts, policy: Policy, job: JobFacts, random: () => number, thrown?: unknown, told?: number): Judged {
  if (job.attempt >= policy.attempts) return { outcome: { kind: 'dead', error, failure: 'exhausted' } }
  if (told !== undefined) return { outcome: retryIn(told, error, true) }
  const { delay, policyError } = backoff(policy.backoff, thrown ?? error, job, random)
  const outcome = retryIn(delay, error, true)
  return policyError === undefined ? { outcome } : { outcome, policyError }
}

/** However long somebody asked for, the instant must still be a date. */
function retryIn (delay: number, error: ErrorFacts, charged: boolean): Outcome {
  return { kind: 'retry', delay: Math.min(delay, LONGEST_MS), error, charged }
}

/** Ms until the next attempt. */
export function backoff (policy: BackoffPolicy, thrown: unknown, job: JobFacts, random: () => number): { delay: number } & Pick<Judged, 'policyError'> {
  if (typeof policy !== 'function') {
    const { type, delay, maxDelay, jitter } = policy
    const full = type === 'fixed' ? Math.min(delay, maxDelay) : Math.min(delay * 2 ** (job.attempt - 1), maxDelay)
    return { delay: full * (1 - jitter * random()) }
  }
  const asked = ask(() => policy(job.attempt, thrown, job))
  if (asked.error === undefined && typeof asked.answer === 'number' && asked.answer >= 0 && asked.answer < Infinity) return { delay: Math.min(asked.answer, LONGEST_MS) }
  const error = asked.error ?? describe(new RangeError(`backoff: expected a number of ms, at least 0, got ${came(asked.answer)}`))
  return { ...backoff(TASK_DEFAULTS.backoff, thrown, job, random), policyError: { option: 'backoff', error } }
}

function ask<T> (question: () => T): { answer?: T, error?: ErrorFacts } {
  try {
    return { answer: atOnce(question()) }
  } catch (error) {
    return { error: describe(error) }
  }
}

/** Ms that a thrown HTTP error asks us to wait: `retryAfter`, or a `Retry-After` header, in seconds or as a date (RFC 9110). */
function retryAfter (thrown: unknown, now: number): number | undefined {
  const told = toldToRetryAfter(thrown)
  if (typeof told !== 'number' && typeof told !== 'string') return undefined
  const ms = typeof told === 'number' || /^\s*\d+(\.\d+)?\s*$/.test(told) ? Number(told) * 1_000 : Date.parse(told) - now
  return Number.isFinite(ms) && ms >= 0 ? Math.min(ms, LONGEST_RETRY_AFTER) : undefined
}

/** As it came. */
export function toldToRetryAfter (thrown: unknown): unknown {
  return peek(thrown, 'retryAfter') ?? header(peek(thrown, 'headers')) ?? header(peek(peek(thrown, 'response'), 'headers'))
}

function header (headers: unknown): unknown {
  const direct = peek(headers, 'retry-after') ?? peek(headers, 'Retry-After')
  if (direct !== undefined) return direct
  const get = peek(headers, 'get')
  if (typeof get !== 'function') return undefined
  return ask(() => get.call(headers, 'retry-after') as unknown).answer ?? undefined
}

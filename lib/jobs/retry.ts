/** What an attempt that did not succeed ends in: the only place where that is decided. Pure. */
import { came } from '../check.ts'
import { describe, peek, type ErrorFacts } from '../describe.ts'
import { asRetryLater, isUnrecoverable } from '../errors.ts'
import { TASK_DEFAULTS } from '../job-options.ts'
import type { BackoffPolicy, JobFacts, Outcome, Policy } from '../job.ts'

export interface Judged {
  outcome: Outcome
  /** Set when a function of the policy threw or answered nonsense; the default was taken instead. */
  policyError?: { option: 'retryIf' | 'backoff', error: ErrorFacts }
}

/** A `Retry-After` beyond this is not believed. */
const LONGEST_RETRY_AFTER = 86_400_000

export function afterThrow (thrown: unknown, policy: Policy, job: JobFacts, random: () => number): Judged {
  const error = describe(thrown)
  if (isUnrecoverable(thrown)) return { outcome: { kind: 'dead', error, failure: 'unrecoverable' } }
  const later = asRetryLater(thrown)
  if (later !== undefined && !later.countAttempt) {
    return { outcome: { kind: 'retry', delay: later.delay, error, charged: false } }
  }
  if (later === undefined && policy.retryIf !== undefined) {
    const asked = ask(() => policy.retryIf?.(thrown, job) !== false)
    if (asked.error !== undefined) return { ...again(error, thrown, policy, job, random), policyError: { option: 'retryIf', error: asked.error } }
    if (!asked.answer) return { outcome: { kind: 'dead', error, failure: 'unrecoverable' } }
  }
  return again(error, thrown, policy, job, random, later?.delay)
}

export function afterTimeout (policy: Policy, job: JobFacts, random: () => number): Judged {
  const error = timeoutError(policy.timeout)
  if (job.attempt >= policy.attempts) return { outcome: { kind: 'dead', error, failure: 'timeout' } }
  return again(error, undefined, policy, job, random)
}

export function timeoutError (timeout: number): ErrorFacts {
  return { name: 'TimeoutError', code: 'FST_BG_TIMEOUT', message: `the attempt took longer than its timeout of ${timeout} ms` }
}

function again (error: ErrorFacts, thrown: unknown, policy: Policy, job: JobFacts, random: () => number, asked?: number): Judged {
  if (job.attempt >= policy.attempts) return { outcome: { kind: 'dead', error, failure: 'exhausted' } }
  const told = asked ?? retryAfter(thrown)
  if (told !== undefined) return { outcome: { kind: 'retry', delay: told, error, charged: true } }
  const { delay, policyError } = backoff(policy.backoff, thrown ?? error, job, random)
  const outcome: Outcome = { kind: 'retry', delay, error, charged: true }
  return policyError === undefined ? { outcome } : { outcome, policyError }
}

/** Ms until the next attempt. */
export function backoff (policy: BackoffPolicy, thrown: unknown, job: JobFacts, random: () => number): { delay: number } & Pick<Judged, 'policyError'> {
  if (typeof policy !== 'function') {
    const { type, delay, maxDelay, jitter } = policy
    const full = type === 'fixed' ? Math.min(delay, maxDelay) : Math.min(delay * 2 ** (job.attempt - 1), maxDelay)
    return { delay: full * (1 - jitter * random()) }
  }
  const asked = ask(() => policy(job.attempt, thrown, job))
  if (asked.error === undefined && typeof asked.answer === 'number' && asked.answer >= 0 && Number.isFinite(asked.answer)) return { delay: asked.answer }
  const error = asked.error ?? describe(new RangeError(`backoff: expected a number of ms, at least 0, got ${came(asked.answer)}`))
  return { ...backoff(TASK_DEFAULTS.backoff, thrown, job, random), policyError: { option: 'backoff', error } }
}

function ask<T> (question: () => T): { answer?: T, error?: ErrorFacts } {
  try {
    return { answer: question() }
  } catch (error) {
    return { error: describe(error) }
  }
}

/** Ms that a thrown HTTP error asks us to wait: `retryAfter`, or a `Retry-After` header, in seconds or as a date (RFC 9110). */
function retryAfter (thrown: unknown): number | undefined {
  const told = peek(thrown, 'retryAfter') ?? header(peek(thrown, 'headers')) ?? header(peek(peek(thrown, 'response'), 'headers'))
  if (typeof told !== 'number' && typeof told !== 'string') return undefined
  const ms = Number(told) * 1_000
  return Number.isFinite(ms) && ms >= 0 && told !== '' ? Math.min(ms, LONGEST_RETRY_AFTER) : undefined
}

function header (headers: unknown): unknown {
  const direct = peek(headers, 'retry-after') ?? peek(headers, 'Retry-After')
  if (direct !== undefined) return direct
  const get = peek(headers, 'get')
  if (typeof get !== 'function') return undefined
  return ask(() => get.call(headers, 'retry-after') as unknown).answer ?? undefined
}

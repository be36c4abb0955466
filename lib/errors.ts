/** Every error this package throws, all with a code `FST_BG_*`. Texts name paths and options, never payload values. */
import create from '@fastify/error'
import type { FastifyError } from 'fastify'
import { peek } from './describe.ts'

/** The longest duration accepted, in ms: a century. Anything beyond is a mistake in the unit. */
export const LONGEST_MS = 100 * 366 * 86_400_000

/** The class of one code. In words of our own: not all who read our declarations find the namespace behind a default import. */
export interface CodedErrorClass<Arguments extends unknown[]> {
  new (...values: Arguments): FastifyError
  (...values: Arguments): FastifyError
  readonly prototype: FastifyError
}

function createError<Arguments extends unknown[]> (code: string, text: string, statusCode?: number, withStack = true): CodedErrorClass<Arguments> {
  return create<Arguments>(code, text, statusCode, undefined, withStack ? undefined : false)
}

/** `%s` is replaced by the arguments of the constructor, in order. */
export const errors = {
  AlreadyRegistered: createError<[]>('FST_BG_ALREADY_REGISTERED', 'fastify-background-tasks is already registered on this instance or on a parent of it; register it once'),
  AuthorizeRequired: createError<[string]>('FST_BG_AUTHORIZE_REQUIRED', '%s needs the option "authorize"'),
  BadOption: createError<[string, string, string]>('FST_BG_BAD_OPTION', '%s: expected %s, got %s'),
  UnknownOption: createError<[string, string, string]>('FST_BG_UNKNOWN_OPTION', '%s: unknown option "%s"; known here: %s'),
  BadHandler: createError<[string, string]>('FST_BG_BAD_HANDLER', '%s: expected a function, got %s'),
  BadSchema: createError<[string, string]>('FST_BG_BAD_SCHEMA', 'the payload schema of task "%s" does not compile: %s'),
  DuplicateTask: createError<[string]>('FST_BG_DUPLICATE_TASK', 'task "%s" is already defined; names are unique in the whole application'),
  DefineAfterReady: createError<[string]>('FST_BG_DEFINE_AFTER_READY', 'task "%s" is defined after the application is ready; define tasks while plugins load'),
  HookAfterReady: createError<[string]>('FST_BG_HOOK_AFTER_READY', 'hook %s is added after the application is ready; add hooks while plugins load'),
  NotReady: createError<[string]>('FST_BG_NOT_READY', '%s was called before the application is ready; await app.ready() first'),
  UnknownTask: createError<[string, string]>('FST_BG_UNKNOWN_TASK', 'no task is defined under the name %s; defined: %s'),
  UnknownQueue: createError<[string, string]>('FST_BG_UNKNOWN_QUEUE', 'no queue is named %s; queues: %s'),
  BadPayload: createError<[string, string]>('FST_BG_BAD_PAYLOAD', 'the payload of task "%s" does not fit its schema: %s'),
  PayloadNotJson: createError<[string, string]>('FST_BG_PAYLOAD_NOT_JSON', 'the payload of task "%s" has no JSON form: %s'),
  PayloadTooLarge: createError<[string, number, number]>('FST_BG_PAYLOAD_TOO_LARGE', 'the payload of task "%s": expected at most %s bytes of JSON (maxPayloadBytes), got %s'),
  // Without a stack, which would be nine tenths of its cost: under overload a refusal must be cheaper than the work.
  QueueFull: createError<[string, string]>('FST_BG_QUEUE_FULL', 'queue "%s" is full: %s', 503, false),
  Closing: createError<[]>('FST_BG_CLOSING', 'the application is closing and takes no more jobs', 503),
  NotStorable: createError<[string]>('FST_BG_NOT_STORABLE', 'the store cannot keep what the job holds: %s'),
  StoreUnavailable: createError<[]>('FST_BG_STORE_UNAVAILABLE', 'the store of the background jobs cannot take jobs now', 503),
  Forbidden: createError<[string]>('FST_BG_FORBIDDEN', 'not allowed: %s', 403),
  CrossSite: createError<[]>('FST_BG_CROSS_SITE', 'a page of another site may not change anything here', 403),
  NotJson: createError<[]>('FST_BG_NOT_JSON', 'expected the content type application/json', 415),
  NotCancellable: createError<[string]>('FST_BG_NOT_CANCELLABLE', 'job %s has ended', 409),
  TooManyStreams: createError<[string]>('FST_BG_TOO_MANY_STREAMS', 'too many streams of events: at most %s', 503),
  JobNotFound: createError<[]>('FST_BG_JOB_NOT_FOUND', 'no such job: it is unknown or no longer kept', 404),
  BadIdempotencyKey: createError<[]>('FST_BG_BAD_IDEMPOTENCY_KEY', 'the header Idempotency-Key: expected 1 to 255 visible ASCII characters', 400),
  IdempotencyKeyInFlight: createError<[]>('FST_BG_IDEMPOTENCY_KEY_IN_FLIGHT', 'a request with this Idempotency-Key is being answered', 409),
  IdempotencyKeyReused: createError<[]>('FST_BG_IDEMPOTENCY_KEY_REUSED', 'this Idempotency-Key came with another body before', 422),
  JobFailed: createError<[string, string, string]>('FST_BG_JOB_FAILED', 'job %s failed (%s): %s'),
  JobCancelled: createError<[string, string]>('FST_BG_JOB_CANCELLED', 'job %s was cancelled (%s)'),
  NotRetryable: createError<[string, string]>('FST_BG_NOT_RETRYABLE', 'job %s cannot be retried: %s'),
  WrongRole: createError<[]>('FST_BG_WRONG_ROLE', 'this process has the role "worker" and takes no jobs from responses'),
  NotSupported: createError<[string, string]>('FST_BG_NOT_SUPPORTED', '%s is not supported by the backend "%s"'),
  Expired: createError<[number]>('FST_BG_EXPIRED', 'not started within its ttl of %s ms'),
  ChildFailed: createError<[string]>('FST_BG_CHILD_FAILED', 'its child %s did not complete'),
  Stalled: createError<[]>('FST_BG_STALLED', 'the processes that ran it died or lost their connection too often'),
  StoreUnusable: createError<[string, string]>('FST_BG_STORE_UNUSABLE', 'the store %s cannot be used: %s'),
  PeerMissing: createError<[string, string]>('FST_BG_PEER_MISSING', '%s needs packages that are not installed: npm install %s'),
  ThreadEnded: createError<[string]>('FST_BG_THREAD_ENDED', 'the thread ended before its task did: %s'),
  Timeout: createError<[string, number]>('FST_BG_TIMEOUT', '%s took longer than %s ms'),
  WouldDeadlock: createError<[string]>('FST_BG_WOULD_DEADLOCK', 'job %s starts after the response that staged it is over; waiting for it inside that request would never end')
} as const

/** What aborted an attempt. */
export type AbortKind = 'timeout' | 'cancel' | 'shutdown'

/**
 * The `reason` of a job's `signal`. Named `AbortError`, as the web's own abort reasons are, so that code which
 * tells aborts from failures by name keeps working.
 */
export class JobAbortedError extends Error {
  override readonly name = 'AbortError'
  readonly code = 'FST_BG_ABORTED'
  /** What aborted the attempt. */
  readonly reason: AbortKind

  constructor (reason: AbortKind, detail: string) {
    super(detail)
    this.reason = reason
  }
}

// Brands instead of instanceof: an application may hold two copies of this package.
const UNRECOVERABLE = Symbol.for('fastify-background-tasks.unrecoverable')
const RETRY_LATER = Symbol.for('fastify-background-tasks.retry-later')

/** Thrown by a handler: this job will never succeed, make no more attempts. */
export class UnrecoverableError extends Error {
  override readonly name = 'UnrecoverableError'
  readonly code: string = 'FST_BG_UNRECOVERABLE'
  readonly [UNRECOVERABLE] = true
}

/** What `RetryLaterError` is made from. */
export interface RetryLaterOptions extends ErrorOptions {
  /** Ms until the next attempt, at least 0. */
  delay: number
  /** Whether this attempt counts against `attempts`. @default true */
  countAttempt?: boolean
  /** Of the error. @default 'retry in … ms' */
  message?: string
}

/** Thrown by a handler: try again after `delay`, whatever the backoff says. */
export class RetryLaterError extends Error {
  override readonly name = 'RetryLaterError'
  readonly code: string = 'FST_BG_RETRY_LATER'
  /** Ms until the next attempt. */
  readonly delay: number
  /** Whether this attempt counts against `attempts`. */
  readonly countAttempt: boolean
  readonly [RETRY_LATER] = true

  /** @throws FST_BG_BAD_OPTION when `delay` is no finite number of at least 0. */
  constructor (options: RetryLaterOptions) {
    const { delay, countAttempt = true, message = `retry in ${delay} ms`, ...rest } = options
    if (typeof delay !== 'number' || !Number.isFinite(delay) || delay < 0) {
      throw new errors.BadOption('RetryLaterError delay', 'a number of ms, at least 0', String(delay))
    }
    super(message, rest)
    this.delay = delay
    this.countAttempt = countAttempt
  }
}

export function isUnrecoverable (thrown: unknown): boolean {
  return peek(thrown, UNRECOVERABLE) === true
}

export function asRetryLater (thrown: unknown): { delay: number, countAttempt: boolean } | undefined {
  if (peek(thrown, RETRY_LATER) !== true) return undefined
  const delay = peek(thrown, 'delay')
  return { delay: typeof delay === 'number' && delay >= 0 && delay < Infinity ? Math.min(delay, LONGEST_MS) : 0, countAttempt: peek(thrown, 'countAttempt') !== false }
}

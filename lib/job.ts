/** The words: what a job is, which states it passes through, what an attempt ends in. */
import type { AsyncResource } from 'node:async_hooks'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { ErrorFacts } from './describe.ts'
import type { Json } from './json.ts'

/**
 * - `pending`: accepted, the response that staged it is not over
 * - `waiting`: may start
 * - `delayed`: may start later, see `DelayReason`
 * - `waiting-children`: a parent whose children are not done
 * - `active`: an attempt runs
 * - `completed`, `failed`, `cancelled`: final; only the retry of a dead letter leaves `failed`
 */
export type JobState = 'pending' | 'waiting' | 'delayed' | 'waiting-children' | 'active' | FinalState
/** States that only the retry of a dead letter leaves. */
export type FinalState = 'completed' | 'failed' | 'cancelled'
/** What a delayed job waits for. */
export type DelayReason = 'delay' | 'retry' | 'rate-limit'
/** The cause of the last attempt's failure; `expired`: not started within its `ttl`. */
export type Failure = 'exhausted' | 'unrecoverable' | 'timeout' | 'expired' | 'stalled'
/** Why a job was cancelled. */
export type CancelReason = 'user' | 'response' | 'client-abort' | 'shutdown'
/** Why a completed job has no result. */
export type OmittedResult = 'unserializable' | 'too-large'

/** The legal moves. Backends assert them. */
export const MOVES: Readonly<Record<JobState, readonly JobState[]>> = {
  pending: ['waiting', 'delayed', 'waiting-children', 'failed', 'cancelled'],
  waiting: ['active', 'delayed', 'failed', 'cancelled'],
  delayed: ['waiting', 'active', 'failed', 'cancelled'],
  'waiting-children': ['waiting', 'delayed', 'failed', 'cancelled'],
  active: ['completed', 'failed', 'cancelled', 'waiting', 'delayed'],
  completed: [],
  failed: ['waiting', 'delayed'],
  cancelled: []
}

export function isFinal (state: JobState): state is FinalState {
  return state === 'completed' || state === 'failed' || state === 'cancelled'
}

/** What a job holds that cannot leave this process. Let go when the job ends. */
export interface Local {
  /** Inline work, and the instance whose request or call made it. */
  readonly run: ((context: JobContext) => unknown) | undefined
  readonly app: FastifyInstance
  /** The caller's async context, when the job asked for it. */
  readonly context: AsyncResource | undefined
}

/** How the response that staged a job ended. */
export interface ResponseOutcome {
  statusCode: number
  /** What was thrown or sent as an error before the reply; `undefined` when nothing was. */
  error: unknown
  /** The client left, or the response broke, before it was complete. */
  aborted: boolean
}

/**
 * - `handled`: no error was thrown or sent by the handler or a hook before the reply, whatever status they chose
 * - `success`: handled, and the status is below 400
 * - `error`: not handled
 * - `always`
 * - a function, called once when the response is over; anything but `true` cancels the job
 */
export type When = 'handled' | 'success' | 'error' | 'always' | ((outcome: ResponseOutcome) => boolean)

/** By which id a job is told from others of its task and queue. */
export interface DeduplicationPolicy {
  readonly id: string
  /** Ms; 0: while the job lives. */
  readonly ttl: number
  /** Of a client's key: a digest of what it came with. Such an id is let go when its job is forgotten. */
  readonly print?: string
}

/** Job options with every value in its place; see `JobOptions` for their meaning. Shared by jobs, never changed. */
export interface Policy {
  readonly attempts: number
  readonly backoff: BackoffPolicy
  readonly timeout: number
  readonly retryIf: RetryIf | undefined
  readonly delay: number
  /** Epoch ms; NaN when not given. */
  readonly runAt: number
  readonly ttl: number
  readonly priority: number
  readonly queue: string
  readonly when: When
  readonly onAbort: 'run' | 'drop'
  readonly callerContext: boolean
  readonly deduplication: DeduplicationPolicy | undefined
  readonly group: string | undefined
}

/** The shape of the pauses between attempts. */
export interface Backoff {
  /** @default 'exponential' */
  type?: 'fixed' | 'exponential' | undefined
  /** Ms before the second attempt. @default 1000 */
  delay?: number | undefined
  /** Ms, cap of an exponential delay. @default 60000, or `delay` where that is longer */
  maxDelay?: number | undefined
  /** From 0 to 1: a delay is drawn from delay·(1 − jitter) to delay. @default 0.5 */
  jitter?: number | undefined
}
/** Ms until the next attempt. `attempt` is the one that failed, from 1. */
export type BackoffFunction = (attempt: number, error: unknown, job: JobFacts) => number
export type BackoffPolicy = { readonly [Key in keyof Backoff]-?: NonNullable<Backoff[Key]> } | BackoffFunction
/** False: make no more attempts. */
export type RetryIf = (error: unknown, job: JobFacts) => boolean

/** What goes along with a job, from the call that made it to its attempts: texts, as in HTTP headers. */
export type Carrier = Readonly<Record<string, string>>

/** A job as `jobs/add` hands it to a backend, and a backend hands it back with each attempt. */
export interface NewJob {
  readonly id: string
  readonly name: string
  readonly queue: string
  /** Owned by the backend from here on, which alone replaces it; attempts get copies. */
  payload: Json
  /** Of the payload's JSON; 0 for inline functions. */
  bytes: number
  /** Wall clock, ms. */
  readonly createdAt: number
  readonly requestId: string | null
  readonly policy: Policy
  /** What goes along with it; kept as long as the job. */
  readonly carrier?: Carrier | undefined
  /** Emptied by the backend when the job ends. */
  local: Local | undefined
  /** Rises with the ids, for jobs made in this process. */
  readonly order: number
}

/** Jobs that were not added, by id, since another one stands for their deduplication id. */
export type Duplicates = ReadonlyMap<string, Duplicate>

/** What stands in the place of a job that was not added. */
export interface Duplicate {
  /** Of the job that stands for it. */
  readonly id: string
  /** What that one was told to be recognized by, as far as it is still known. */
  readonly print: string | undefined
}

/** A job of a flow, with those that have to end before it starts. */
export interface FlowNode {
  readonly job: NewJob
  /** Its parent starts also if it fails or is cancelled. */
  readonly ignored: boolean
  readonly children: readonly FlowNode[]
}

/** Ms from its making until a job may start. */
export function startDelay ({ policy, createdAt }: NewJob): number {
  return Number.isNaN(policy.runAt) ? policy.delay : Math.max(0, policy.runAt - createdAt)
}

/** What handlers and policies see of their job. */
export interface JobFacts {
  readonly id: string
  readonly name: string
  readonly queue: string
  /** From 1. */
  readonly attempt: number
  readonly attempts: number
  /** ISO 8601. */
  readonly createdAt: string
  /** Fastify's id of the request that made the job, its first 256 bytes. */
  readonly requestId: string | null
}

/** What a handler is given beside its payload. */
export interface JobContext {
  /** The instance that called `define`; for inline functions, the one whose request or call made the job. */
  readonly app: FastifyInstance
  readonly job: JobFacts
  /** The job's own, never the request's: aborts on timeout, cancel and shutdown. Its `reason` is a `JobAbortedError`. */
  readonly signal: AbortSignal
  /** Child of the app's logger with `jobId, task, attempt, reqId`. */
  readonly log: FastifyBaseLogger
  /**
   * Shown in the job's status. Ignored once the attempt has ended.
   * @throws FST_BG_BAD_OPTION when the value has no JSON form or is larger than `maxPayloadBytes`
   */
  readonly progress: (value: unknown) => void
  /** Of a job of a flow: those it waited for, in the order they were given; empty for any other. */
  readonly children: readonly ChildRecord[]
  /** Resolves in a later turn of the event loop: lets requests go first in the middle of long work. */
  readonly yieldNow: () => Promise<void>
}

/** One execution, delivered by a backend and given back to it with an outcome. Its identity is the fencing token. */
export interface Attempt {
  readonly job: NewJob
  /** From 1. */
  readonly number: number
  /** A copy, made at each reading: what a handler does to it, no other attempt sees. */
  readonly payload: Json
  /** Ms between the job's becoming ready and this attempt. */
  readonly waited: number
  /** Of a job that waited for them. */
  readonly children?: readonly ChildRecord[] | undefined
}

/** A child as its parent's handler sees it. */
export interface ChildRecord {
  readonly id: string
  readonly name: string
  readonly state: JobState
  readonly result?: Json
  /** Why it did not complete. */
  readonly error?: ErrorFacts
}

/** How an attempt ended. Whoever ran it does not store it, whoever stores it does not judge it. */
export type Outcome =
  | { readonly kind: 'completed', readonly result?: Json, readonly resultOmitted?: OmittedResult }
  | { readonly kind: 'retry', readonly delay: number, readonly error: ErrorFacts, readonly charged: boolean }
  | { readonly kind: 'dead', readonly error: ErrorFacts, readonly failure: Failure }
  | { readonly kind: 'cancelled', readonly reason: CancelReason }
  /** Given back, attempt not charged, to start again after `delay` ms. */
  | { readonly kind: 'released', readonly delay: number }

/** A failed attempt in a job's history. */
export interface FailedAttempt {
  readonly attempt: number
  readonly endedAt: string
  readonly error: ErrorFacts
}

/** What is known of a job. Instants are ISO 8601. */
export interface JobRecord {
  id: string
  name: string
  queue: string
  state: JobState
  /** The last value given to `progress`; null before. */
  progress: Json
  /** Started attempts; a replayed dead letter starts again at 0. */
  attemptsMade: number
  attempts: number
  priority: number
  createdAt: string
  /** Start of the last attempt. */
  startedAt: string | null
  finishedAt: string | null
  requestId: string | null
  payload: Json
  /** The job of a flow that waits for it, or did. */
  parent?: string
  result?: Json
  resultOmitted?: OmittedResult
  /** The last attempt's error; gone when a later attempt succeeds. */
  error?: ErrorFacts
  failure?: Failure
  reason?: CancelReason
  delayReason?: DelayReason
  /** The attempt has timed out and its body has not settled. */
  overdue?: true
  /** Of a job delayed by a retry or a rate limit. */
  retryAt?: string
  /** Of a job delayed by `delay` or `runAt`. */
  runAt?: string
  /** What goes along with it, of its trace for instance. */
  carrier?: Carrier
  /** The failed attempts, oldest first, at most 20. */
  history?: FailedAttempt[]
}

/** The last instant a Date can hold. */
const LAST_DATE = 8.64e15

export function iso (ms: number): string {
  return new Date(Math.min(ms, LAST_DATE)).toISOString()
}

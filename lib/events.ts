/**
 * What happens to jobs, for whoever subscribes with `node:diagnostics_channel`: the channel of an event is
 * `fastify-background-tasks:` and its name. Nothing is made for a channel without a subscriber. Events are told after what
 * they tell of, in the same turn; a subscriber that throws makes an uncaught exception, as Node has it. No payloads.
 */
import { channel, type Channel } from 'node:diagnostics_channel'
import type { FastifyInstance } from 'fastify'
import type { ErrorFacts } from './describe.ts'
import type { CancelReason, Failure, Outcome } from './job.ts'

/** An event of one application. */
export interface AppEvent {
  /** The instance that the plugin was registered on. */
  readonly app: FastifyInstance
}

/** An event of one job. */
export interface JobEvent extends AppEvent {
  readonly jobId: string
  readonly task: string
  readonly queue: string
  /** Of the request that made the job. */
  readonly reqId: string | undefined
}

/** An event of one attempt. */
export interface AttemptEvent extends JobEvent {
  /** From 1. */
  readonly attempt: number
}

/** An attempt has ended. */
export interface AttemptEnded extends AttemptEvent {
  readonly outcome: Outcome['kind']
  readonly waitMs: number
  readonly durationMs: number
  /** What was thrown. */
  readonly error?: unknown
  /** Of `retry` and `released`. */
  readonly retryInMs?: number
}

/** By the name of their channel. Numbers are ms, or count jobs. */
export interface BackgroundEvents {
  /** The backend has taken a job. */
  added: JobEvent
  /** An attempt begins. */
  started: AttemptEvent & { readonly waitMs: number }
  ended: AttemptEnded
  /** A job has become a dead letter. `attempt` is 0 where none told it: expired, or lost with its process. */
  dead: AttemptEvent & { readonly failure: Failure, readonly error: unknown }
  cancelled: JobEvent & { readonly reason: CancelReason }
  /** Dead letters that start again. */
  replayed: JobEvent
  /** Jobs not taken because their queue was full. */
  refused: AppEvent & { readonly queue: string, readonly task: string, readonly jobs: number }
  /** Jobs that their store could not take. `told`: the client or the caller heard of it. */
  unstored: AppEvent & { readonly queue: string, readonly task: string, readonly jobs: number, readonly told: boolean, readonly error: ErrorFacts }
  /** A dead letter that `retention` dropped. */
  evicted: JobEvent
  /** A response did not end within `maxHold`. */
  held: AppEvent & { readonly reqId: string, readonly jobs: number }
  /** A job held the event loop longer than `maxBlock`. */
  blocked: AttemptEvent & { readonly blockedMs: number }
  /** A body goes on after its signal has aborted and the grace is over; `returned`: it has ended after all. */
  leaked: AttemptEvent & { readonly durationMs: number }
  returned: AttemptEvent & { readonly durationMs: number }
  /** A rejection or an exception that a job let escape. */
  floating: AttemptEvent & { readonly kind: 'rejection' | 'exception', readonly error: ErrorFacts }
  /** The store is away, or back. */
  store: AppEvent & { readonly reachable: boolean, readonly error?: ErrorFacts, readonly awayMs?: number }
}

type Channels = { readonly [Name in keyof BackgroundEvents]: Omit<Channel, 'publish'> & { publish (event: BackgroundEvents[Name]): void } }

export const PREFIX = 'fastify-background-tasks:'

const NAMES = [
  'added', 'started', 'ended', 'dead', 'cancelled', 'replayed', 'refused', 'unstored', 'evicted', 'held', 'blocked', 'leaked', 'returned', 'floating', 'store'
] as const satisfies ReadonlyArray<keyof BackgroundEvents>

/** Ask `hasSubscribers` before anything is made to be published. */
export const channels = Object.fromEntries(NAMES.map((name) => [name, channel(PREFIX + name)])) as unknown as Channels

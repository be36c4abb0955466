/** What the model keeps in mind of the jobs, their bodies, and the responses and queues they belong to. */
import type { FastifyReply } from 'fastify'
import type { AbortKind } from '../../lib/errors.ts'
import type { DelayReason, JobState } from '../../lib/job.ts'
import type { Deferred } from '../support/harness.ts'
import type { How, QueueName, Spec } from './plan.ts'
import type { Verdict } from './verdict.ts'

export interface Body {
  readonly job: Job
  readonly attempt: number
  readonly startedAt: number
  aborted?: AbortKind
  /** A cancel was answered with `cancelling`. */
  cancelled: boolean
  /** Its end and a cancel came in the same turn: either may win. */
  raced: boolean
  settled?: How
  givenUp: boolean
}

export interface Response {
  state: 'open' | 'over'
  left: boolean
  failed: boolean
  statusCode: number
  /** When its first job was staged; NaN before. */
  heldSince: number
  readonly jobs: Job[]
}

export interface Job {
  readonly spec: Spec
  readonly bytes: number
  readonly response: Response | undefined
  id: string
  state: JobState
  gone: boolean
  attemptsMade: number
  steps: number
  neverStarted: boolean
  readonly notBefore: number
  readonly expires: number
  until: number
  delayReason: DelayReason | undefined
  /** Place in the order of becoming ready. */
  ready: number
  endedAt: number
  /** The final states it reached; more than one after the retry of a dead letter. */
  readonly ends: JobState[]
  verdict: Verdict
  /** The attempt that owns the job. */
  body: Body | undefined
  family?: Family
  /** A cancel came between its delivery and its body. */
  cancelling?: boolean
}

/** Of a flow. */
export interface Family {
  readonly parent: Job | undefined
  readonly ignored: boolean
  readonly children: Job[]
  /** Children that have not ended. */
  readonly open: Set<Job>
  /** One that is not ignored did not complete while the parent waited. */
  broken: boolean
  /** States of the children when the attempt was delivered. */
  shown: JobState[]
}

export interface Queue {
  readonly name: QueueName
  readonly concurrency: number
  paused: boolean
  /** Delivered and not settled, and bodies that outlived their verdict. */
  readonly alive: Set<Body>
  /** Moved to active; the body has not begun. */
  readonly coming: Job[]
  readonly starts: number[]
  /** Starts of jobs that have a group. */
  readonly groupStarts: Array<{ readonly group: string, readonly at: number }>
  /** Groups whose turn is to come, from the first job of a group on; an empty name: the jobs without one. */
  row?: string[]
}

/** A request, and the reply that its jobs are staged on. */
export interface Visit {
  readonly specs: Spec[]
  readonly response: Response
  readonly end: Deferred<'ok' | 'status' | 'throw'>
  readonly client: AbortController
  reply?: FastifyReply
}

/** A body that waits for its end. */
export interface Waiting {
  readonly body: Body
  readonly end: (how: How) => void
}

/** A call of `finished()`. */
export interface Promised {
  readonly job: Job
  /** Which of the job's ends it waits for. */
  readonly nth: number
  told?: string
}

/** What goes along with a job: from the call that made it into its attempts, over restarts, stores and replays. */
import type { Carrier, JobFacts, Outcome } from './job.ts'

/** A job that is handed over. */
export interface JobMade {
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly requestId: string | null
  /** Of the payload's JSON. */
  readonly bytes: number
}

/** What is told of an attempt that is about to begin; its payload is measured in bytes. */
export interface AttemptMade {
  readonly job: JobFacts
  readonly carrier: Carrier
  /** Of the payload's JSON. */
  readonly bytes: number
  readonly waitMs: number
}

/** Around one attempt. */
export interface AttemptScope {
  /** Calls `work` once, in the context of the attempt, and answers what it answers. Called for the body, and for what is told of its end. */
  run<T> (work: () => T): T
  /** The verdict. `error`: what was thrown. */
  end? (outcome: Outcome, error: unknown): void
}

/** Carries what surrounds a call over to its job: a trace, values of the request. */
export interface Propagator {
  /** Called at the making of a job, in the async context of the call. What it puts into the carrier is kept with the job. */
  inject (job: JobMade, carrier: Record<string, string>): void
  /** Called before an attempt's body; nothing when it has nothing to do there. */
  extract (attempt: AttemptMade): AttemptScope | undefined
}

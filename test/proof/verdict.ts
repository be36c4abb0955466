/** The judgements of the model: what a body earns by its end, and what a response means for a job it staged. */
import type { CancelReason, Failure, JobState } from '../../lib/job.ts'
import type { Body, Response } from './parts.ts'
import type { How, Spec } from './plan.ts'

export interface Verdict {
  state?: JobState
  failure?: Failure
  reason?: CancelReason | undefined
  delay?: number
  /** The attempt does not count. */
  uncharged?: boolean
}

/** Seconds, as the error of `http` asks. */
export const RETRY_AFTER = 2

/** Whatever ended the body first: a job whose cancel was answered with `cancelling` is not retried. */
export function verdictOf (body: Body): Verdict {
  const verdict = firstCause(body)
  return body.cancelled && verdict.delay !== undefined ? { state: 'cancelled', reason: 'user' } : verdict
}

function firstCause (body: Body): Verdict {
  const { spec } = body.job
  const left = spec.attempts - body.attempt
  if (body.aborted === 'cancel') return { state: 'cancelled', reason: 'user' }
  if (body.aborted === 'shutdown') return { state: 'cancelled', reason: 'shutdown' }
  if (body.aborted === 'timeout') {
    return body.givenUp || left <= 0 ? { state: 'failed', failure: 'timeout' } : again(backoff(spec, body.attempt))
  }
  return natural(body.settled as How, spec, body.attempt, left)
}

function natural (how: How, spec: Spec, attempt: number, left: number): Verdict {
  if (how === 'done' || how === 'odd' || how === 'huge') return { state: 'completed' }
  if (how === 'unrecoverable' || how === 'refused') return { state: 'failed', failure: 'unrecoverable' }
  if (typeof how === 'object' && !how.counted) return { ...again(how.later), uncharged: true }
  if (left <= 0) return { state: 'failed', failure: 'exhausted' }
  if (typeof how === 'object') return again(how.later)
  return again(how === 'http' ? RETRY_AFTER * 1_000 : backoff(spec, attempt))
}

function again (delay: number): Verdict {
  return { state: delay === 0 ? 'waiting' : 'delayed', delay }
}

/** The test clock's chance is always 0.5, and so is the default jitter. */
function backoff ({ backoff: given }: Spec, attempt: number): number {
  return given >= 0 ? given : -given * 2 ** (attempt - 1) * 0.75
}

/** What becomes of a staged job when its response is over. */
export function fateOf (response: Response, { when, onAbort }: Spec): 'run' | 'response' | 'client-abort' {
  const { failed, left, statusCode } = response
  const accepted = {
    handled: !failed,
    success: !failed && statusCode < 400,
    error: failed,
    always: true,
    'below 400': statusCode < 400,
    throws: false
  }[when]
  if (!accepted) return 'response'
  return left && onAbort === 'drop' ? 'client-abort' : 'run'
}

/** Whether a staged job may start, by how its response ended. */
import { atOnce } from '../check.ts'
import { describe } from '../describe.ts'
import type { CancelReason, NewJob, ResponseOutcome } from '../job.ts'
import type { Observer } from '../observe.ts'

export interface ResponseEnd extends ResponseOutcome {
  /** Whether an error was thrown or sent before the reply; it may have been `undefined`. */
  readonly failed: boolean
}

/** What `when` says. */
export function accepts (job: NewJob, { failed, statusCode, error, aborted }: ResponseEnd, observer: Observer): boolean {
  const { when } = job.policy
  switch (when) {
    case 'handled': return !failed
    case 'success': return !failed && statusCode < 400
    case 'error': return failed
    case 'always': return true
  }
  try {
    return atOnce(when({ statusCode, error, aborted })) === true
  } catch (thrown) {
    observer.policyFailed('when', describe(thrown), job)
    return false
  }
}

/** Why a job is cancelled, if it is. `accepted`: what `when` said. */
export function refusal (job: NewJob, accepted: boolean, aborted: boolean): CancelReason | undefined {
  if (!accepted) return 'response'
  return aborted && job.policy.onAbort === 'drop' ? 'client-abort' : undefined
}

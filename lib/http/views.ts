/** Jobs as HTTP shows them. */
import type { ErrorFacts } from '../describe.ts'
import { isFinal, type FailedAttempt, type JobRecord } from '../job.ts'
import { statusSchema } from './schemas.ts'

/** Seconds; a poller gains nothing from waiting longer than this at once. */
const LONGEST_RETRY_AFTER = 3_600

/** The body of a status: the record without its payload, redacted. */
export interface StatusBody extends Omit<JobRecord, 'id' | 'payload' | 'error' | 'history' | 'requestId' | 'priority' | 'carrier'> {
  jobId: string
  error?: { name: string, code: string | null, message?: string }
}

/** What of a record is shown as it stands: nothing that the schema does not know. */
const SHOWN = Object.keys(statusSchema.properties).filter((key) => key !== 'jobId' && key !== 'error') as ReadonlyArray<keyof JobRecord>

/** No payload, no stack; the text of an error only for readers who were let in by `authorize`. */
export function statusBody (record: JobRecord, authorized: boolean): StatusBody {
  const body: Record<string, unknown> = { jobId: record.id }
  for (const key of SHOWN) if (record[key] !== undefined) body[key] = record[key]
  if (record.error !== undefined) body['error'] = errorBody(record.error, authorized)
  return body as unknown as StatusBody
}

function errorBody ({ name, code, message }: ErrorFacts, authorized: boolean): NonNullable<StatusBody['error']> {
  return authorized ? { name, code, message } : { name, code }
}

export interface ListedBody extends StatusBody {
  priority: number
  requestId: string | null
  /** With stacks: who lists jobs was let in. */
  history: FailedAttempt[]
  /** Only where `redact` says what to hide. */
  payload?: JobRecord['payload']
}

/** `redact` changes the record. */
export function listedBody (record: JobRecord, redact: ((job: JobRecord) => void) | undefined): ListedBody {
  redact?.(record)
  const { priority, requestId, history = [], payload } = record
  return { ...statusBody(record, true), priority, requestId, history, ...(redact === undefined ? undefined : { payload }) }
}

/** Seconds until polling again makes sense; nothing for a job that has ended. */
export function retryAfter (record: JobRecord, now: number): string | undefined {
  if (isFinal(record.state)) return undefined
  const due = record.retryAt ?? record.runAt
  const seconds = due === undefined ? 1 : Math.ceil((Date.parse(due) - now) / 1_000)
  return String(Math.min(Math.max(seconds, 1), LONGEST_RETRY_AFTER))
}

/** One job in memory: what it is, where it stands, and its place in the list of its state. */
import type { Deadline } from '../../deadlines.ts'
import type { ErrorFacts } from '../../describe.ts'
import {
  iso,
  type Attempt, type CancelReason, type DelayReason, type FailedAttempt, type Failure, type JobRecord, type JobState, type NewJob,
  type OmittedResult
} from '../../job.ts'
import { cloneJson, type Json } from '../../json.ts'

/** Failed attempts kept in a job's history. */
const LONGEST_HISTORY = 20

export class Entry implements Deadline {
  readonly job: NewJob
  state: JobState
  /** Monotonic ms at which the state was entered. */
  since: number
  /** Monotonic ms before which it must not start. */
  notBefore: number
  /** Monotonic ms after which its first start is too late. */
  expires: number
  /** Whether an attempt was ever delivered: from then on it takes no room in the waiting room. */
  started = false
  attemptsMade = 0
  /** The running attempt. Only who holds this very object may settle the job. */
  attempt: Attempt | undefined
  delayReason: DelayReason | undefined
  /** Wall clock, ms; 0: never. */
  startedAt = 0
  finishedAt = 0
  ending: Ending | undefined

  // Deadlines (for a delay or a ttl) and the list of the state keep their places here.
  due = 0
  place = -1
  previous: Entry | undefined
  next: Entry | undefined

  constructor (job: NewJob, now: number) {
    this.job = job
    this.state = 'pending'
    this.since = now
    this.notBefore = now + job.delay
    this.expires = job.ttl === 0 ? Infinity : now + job.ttl
  }

  get retryable (): boolean {
    return this.state === 'failed' && (this.ending as Ending).retryable
  }
}

export class EntryAttempt implements Attempt {
  readonly entry: Entry
  readonly job: NewJob
  readonly number: number
  readonly payload: Json
  readonly waited: number

  constructor (entry: Entry, waited: number) {
    this.entry = entry
    this.job = entry.job
    this.number = entry.attemptsMade
    this.payload = cloneJson(entry.job.payload)
    this.waited = waited
  }
}

/** What a job tells beyond its state: most jobs never have one before they end. */
export interface Ending {
  progress: Json
  overdue: boolean
  /** False for inline work that was let go. */
  retryable: boolean
  result?: Json
  resultOmitted?: OmittedResult
  error?: ErrorFacts
  failure?: Failure
  reason?: CancelReason
  history?: FailedAttempt[]
}

export function endingOf (entry: Entry): Ending {
  return (entry.ending ??= { progress: null, overdue: false, retryable: true })
}

export function remember (entry: Entry, error: ErrorFacts, wall: number): void {
  const ending = endingOf(entry)
  ending.error = error
  ending.history ??= []
  ending.history.push({ attempt: entry.attemptsMade, endedAt: iso(wall), error })
  if (ending.history.length > LONGEST_HISTORY) ending.history.shift()
}

/** `wall − monotonic` turns the one into the other for the instants still to come. */
export function toRecord (entry: Entry, offset: number): JobRecord {
  const { job, ending } = entry
  const record: JobRecord = {
    id: job.id,
    name: job.name,
    queue: job.queue,
    state: entry.state,
    progress: ending === undefined ? null : ending.progress,
    attemptsMade: entry.attemptsMade,
    attempts: job.attempts,
    priority: job.priority,
    createdAt: iso(job.createdAt),
    startedAt: entry.startedAt === 0 ? null : iso(entry.startedAt),
    finishedAt: entry.finishedAt === 0 ? null : iso(entry.finishedAt),
    requestId: job.requestId,
    payload: cloneJson(job.payload)
  }
  if (entry.state === 'delayed') {
    record.delayReason = entry.delayReason ?? 'delay'
    record[record.delayReason === 'delay' ? 'runAt' : 'retryAt'] = iso(entry.notBefore + offset)
  }
  if (ending === undefined) return record
  if (ending.result !== undefined) record.result = cloneJson(ending.result)
  if (ending.resultOmitted !== undefined) record.resultOmitted = ending.resultOmitted
  if (ending.error !== undefined) record.error = ending.error
  if (ending.failure !== undefined) record.failure = ending.failure
  if (ending.reason !== undefined) record.reason = ending.reason
  if (ending.overdue) record.overdue = true
  if (ending.history !== undefined) record.history = [...ending.history]
  return record
}

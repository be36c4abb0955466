/** One job in memory: what it is, where it stands, and its place in the list of its state. */
import type { Deadline } from '../../deadlines.ts'
import { copyFacts, type ErrorFacts } from '../../describe.ts'
import {
  iso, startDelay,
  type Attempt, type CancelReason, type DelayReason, type FailedAttempt, type Failure, type JobRecord, type JobState, type Local,
  type NewJob, type OmittedResult, type Policy
} from '../../job.ts'
import { cloneJson, type Json } from '../../json.ts'
import type { Linked } from './lists.ts'
import type { Queue } from './queue.ts'

/** Failed attempts kept in a job's history. */
const LONGEST_HISTORY = 20

/** Copies what it is told of the job, so that a waiting job is one object. */
export class Entry implements NewJob, Linked<Entry> {
  readonly id: string
  readonly name: string
  readonly payload: Json
  readonly bytes: number
  readonly createdAt: number
  readonly requestId: string | null
  readonly policy: Policy
  /** Let go when the job ends. */
  local: Local | undefined

  readonly home: Queue<Entry>
  state: JobState = 'pending'
  attemptsMade = 0
  /** Whether an attempt was ever delivered: from then on it takes no room in the waiting room. */
  started = false
  // Instants are whole ms of the monotonic clock: small integers, which cost no box of their own.
  /** When the state was entered. */
  since: number
  /** Start of the last attempt; 0: none. */
  startedAt = 0
  finishedAt = 0
  /** The running attempt. Only who holds this very object may settle the job. */
  attempt: EntryAttempt | undefined
  timing: Timing | undefined
  ending: Ending | undefined
  // The list of the state.
  previous: Entry | undefined
  next: Entry | undefined

  constructor (job: NewJob, home: Queue<Entry>, now: number) {
    this.id = job.id
    this.name = job.name
    this.payload = job.payload
    this.bytes = job.bytes
    this.createdAt = job.createdAt
    this.requestId = job.requestId
    this.policy = job.policy
    this.local = job.local
    this.home = home
    this.since = Math.floor(now)
    const delay = startDelay(job)
    if (delay > 0 || job.policy.ttl > 0) this.timing = new Timing(this, now + delay, job.policy.ttl === 0 ? Infinity : now + job.policy.ttl)
  }

  get queue (): string { return this.home.name }
}

/** Of a job that has to wait for a time, or must start before one. */
export class Timing implements Deadline {
  readonly entry: Entry
  /** Monotonic ms before which it must not start. */
  notBefore: number
  /** Monotonic ms after which its first start is too late. */
  expires: number
  delayReason: DelayReason = 'delay'
  due = 0
  place = -1

  constructor (entry: Entry, notBefore: number, expires: number) {
    this.entry = entry
    this.notBefore = notBefore
    this.expires = expires
  }
}

export class EntryAttempt implements Attempt {
  readonly job: Entry
  readonly number: number
  readonly waited: number
  /** Place of its start in the queue's limiter; −1 without one. */
  readonly granted: number
  begun = false

  constructor (entry: Entry, waited: number, granted: number) {
    this.job = entry
    this.number = entry.attemptsMade
    this.waited = waited
    this.granted = granted
  }

  get payload (): Json { return cloneJson(this.job.payload) }
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

/** `offset`: wall − monotonic. `limitedUntil`: when the queue's limiter lets a waiting job start, if it is that which holds it. */
export function toRecord (entry: Entry, offset: number, limitedUntil: number | undefined): JobRecord {
  const { ending } = entry
  const record: JobRecord = {
    id: entry.id,
    name: entry.name,
    queue: entry.queue,
    state: entry.state,
    progress: ending === undefined ? null : cloneJson(ending.progress),
    attemptsMade: entry.attemptsMade,
    attempts: entry.policy.attempts,
    priority: entry.policy.priority,
    createdAt: iso(entry.createdAt),
    startedAt: entry.startedAt === 0 ? null : iso(Math.max(entry.createdAt, entry.startedAt + offset)),
    finishedAt: entry.finishedAt === 0 ? null : iso(Math.max(entry.createdAt, entry.finishedAt + offset)),
    requestId: entry.requestId,
    payload: cloneJson(entry.payload)
  }
  if (entry.state === 'delayed' && entry.timing !== undefined) {
    record.delayReason = entry.timing.delayReason
    record[record.delayReason === 'delay' ? 'runAt' : 'retryAt'] = iso(entry.timing.notBefore + offset)
  } else if (entry.state === 'waiting' && limitedUntil !== undefined) {
    record.state = 'delayed'
    record.delayReason = 'rate-limit'
    if (limitedUntil < Infinity) record.retryAt = iso(limitedUntil + offset)
  }
  return ending === undefined ? record : withEnding(record, ending)
}

function withEnding (record: JobRecord, ending: Ending): JobRecord {
  const { progress: _progress, retryable: _retryable, overdue, result, error, history, ...plain } = ending
  Object.assign(record, plain)
  if (result !== undefined) record.result = cloneJson(result)
  if (overdue) record.overdue = true
  if (error !== undefined) record.error = copyFacts(error)
  if (history !== undefined) record.history = history.map((failed) => ({ ...failed, error: copyFacts(failed.error) }))
  return record
}

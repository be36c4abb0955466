/** One job in memory: what it is, where it stands, and its place in the list of its state. */
import type { Change } from '../../backend.ts'
import type { Deadline } from '../../deadlines.ts'
import { copyFacts, type ErrorFacts } from '../../describe.ts'
import {
  isFinal, iso, startDelay,
  type Attempt, type CancelReason, type ChildRecord, type DelayReason, type FailedAttempt, type Failure, type JobRecord, type JobState, type NewJob, type OmittedResult
} from '../../job.ts'
import { cloneJson, type Json } from '../../json.ts'
import type { Start } from '../limiter.ts'
import type { Linked } from './lists.ts'
import type { Queue, Standing } from './queue.ts'

/** Failed attempts kept in a job's history. */
const LONGEST_HISTORY = 20

export class Entry implements Linked<Entry>, Change {
  readonly job: NewJob
  /** Its queue, and its state there. */
  standing: Standing<Entry>
  attemptsMade = 0
  // Instants are whole ms of the monotonic clock: small integers, which cost no box of their own.
  /** When the state was entered. */
  since: number
  /** Start of the last attempt; 0: none, and it takes room in the waiting room; −1: none, and it takes none any more. */
  startedAt = 0
  /** The running attempt. Only who holds this very object may settle the job. */
  attempt: EntryAttempt | undefined
  timing: Timing | undefined
  result: Json | undefined
  ending: Ending | undefined
  /** Place in the index. */
  at = -1
  // The list of the state.
  previous: Entry | undefined
  next: Entry | undefined

  constructor (job: NewJob, home: Queue<Entry>, now: number) {
    this.job = job
    this.standing = home.pending
    this.since = Math.floor(now)
    const { ttl } = job.policy
    const delay = startDelay(job)
    if (delay > 0 || ttl > 0) this.timing = new Timing(this, now + delay, ttl === 0 ? Infinity : now + ttl)
  }

  get id (): string { return this.job.id }
  get takesRoom (): boolean { return this.startedAt === 0 }
  get home (): Queue<Entry> { return this.standing.queue }
  get state (): JobState { return this.standing.state }
  get order (): number { return this.job.order }
  get priority (): number { return this.job.policy.priority }
  get group (): string | undefined { return this.job.policy.group }
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
  readonly entry: Entry
  readonly number: number
  readonly waited: number
  /** Its start in the queue's limiter. */
  readonly granted: Start | undefined
  begun = false
  /** Of a parent alone: others have no such field. */
  declare children?: readonly ChildRecord[]

  constructor (entry: Entry, waited: number, granted: Start | undefined) {
    this.entry = entry
    this.number = entry.attemptsMade
    this.waited = waited
    this.granted = granted
  }

  get job (): NewJob { return this.entry.job }
  get payload (): Json { return cloneJson(this.entry.job.payload) }
}

export class GroupedAttempt extends EntryAttempt {
  /** Its start in the group's limiter. */
  readonly grantedByGroup: Start | undefined

  constructor (entry: Entry, waited: number, granted: Start | undefined, grantedByGroup: Start | undefined) {
    super(entry, waited, granted)
    this.grantedByGroup = grantedByGroup
  }
}

/** What a job tells beyond its state and its result: most jobs never have one. */
export interface Ending {
  progress: Json
  overdue: boolean
  /** False for inline work that was let go. */
  retryable: boolean
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
  const { job, state, ending } = entry
  const stamp = (at: number): string => iso(Math.max(job.createdAt, at + offset))
  const record: JobRecord = {
    id: job.id,
    name: job.name,
    queue: job.queue,
    state,
    progress: ending === undefined ? null : cloneJson(ending.progress),
    attemptsMade: entry.attemptsMade,
    attempts: job.policy.attempts,
    priority: job.policy.priority,
    createdAt: iso(job.createdAt),
    startedAt: entry.startedAt <= 0 ? null : stamp(entry.startedAt),
    finishedAt: isFinal(state) ? stamp(entry.since) : null,
    requestId: job.requestId,
    payload: cloneJson(job.payload)
  }
  if (entry.state === 'delayed' && entry.timing !== undefined) {
    record.delayReason = entry.timing.delayReason
    record[record.delayReason === 'delay' ? 'runAt' : 'retryAt'] = iso(entry.timing.notBefore + offset)
  } else if (entry.state === 'waiting' && limitedUntil !== undefined) {
    record.state = 'delayed'
    record.delayReason = 'rate-limit'
    if (limitedUntil < Infinity) record.retryAt = iso(limitedUntil + offset)
  }
  if (job.carrier !== undefined) record.carrier = job.carrier
  if (entry.result !== undefined) record.result = cloneJson(entry.result)
  return ending === undefined ? record : withEnding(record, ending)
}

function withEnding (record: JobRecord, ending: Ending): JobRecord {
  const { progress: _progress, retryable: _retryable, overdue, error, history, ...plain } = ending
  Object.assign(record, plain)
  if (overdue) record.overdue = true
  if (error !== undefined) record.error = copyFacts(error)
  if (history !== undefined) record.history = history.map((failed) => ({ ...failed, error: copyFacts(failed.error) }))
  return record
}

/** Jobs as rows, and rows as jobs. */
import type { ErrorFacts } from '../../describe.ts'
import {
  iso, type Attempt, type CancelReason, type Carrier, type ChildRecord, type DelayReason, type FailedAttempt, type Failure, type JobRecord, type JobState, type NewJob,
  type OmittedResult, type Policy
} from '../../job.ts'
import type { Json } from '../../json.ts'

/** Failed attempts kept in a job's history. */
const LONGEST_HISTORY = 20

export interface Row {
  seq: number
  id: string
  name: string
  queue: string
  state: JobState
  payload: string
  bytes: number
  created_at: number
  request_id: string | null
  policy: string | null
  carrier: string | null
  attempts: number
  priority: number
  attempts_made: number
  fresh: number
  ready_at: number | null
  run_at: number | null
  delay_reason: DelayReason | null
  owner: number | null
  token: number | null
  cancel: string | null
  started_at: number | null
  finished_at: number | null
  overdue: number | null
  progress: string | null
  result: string | null
  result_omitted: OmittedResult | null
  error: string | null
  failure: Failure | null
  reason: CancelReason | null
  history: string | null
  group_id: string | null
  parent: string | null
  children_left: number | null
}

/** What is read of a job that starts. */
export type JobRow = Pick<Row, 'seq' | 'id' | 'name' | 'queue' | 'payload' | 'bytes' | 'created_at' | 'request_id' | 'policy' | 'carrier' | 'priority' | 'group_id'>
export type ClaimedRow = JobRow & Pick<Row, 'attempts_made' | 'fresh' | 'ready_at' | 'owner' | 'token' | 'history' | 'children_left'>

/** Options that a job may have other than its task. Functions cannot be kept: they are always the task's own. */
const KEPT = ['attempts', 'backoff', 'timeout', 'ttl'] as const

/** What a job's policy has of its own. */
export function ownPolicy (policy: Policy, usual: Policy): string | null {
  if (policy === usual) return null
  const own: Record<string, unknown> = {}
  for (const key of KEPT) if (policy[key] !== usual[key] && typeof policy[key] !== 'function') own[key] = policy[key]
  return Object.keys(own).length === 0 ? null : JSON.stringify(own)
}

export class StoredJob implements NewJob {
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly bytes: number
  readonly createdAt: number
  readonly requestId: string | null
  readonly policy: Policy
  readonly carrier: Carrier | undefined
  readonly local = undefined
  readonly order: number
  readonly #payload: string

  constructor (row: JobRow, usual: Policy) {
    this.id = row.id
    this.order = row.seq
    this.name = row.name
    this.queue = row.queue
    this.bytes = row.bytes
    this.createdAt = row.created_at
    this.requestId = row.request_id
    this.carrier = row.carrier === null ? undefined : JSON.parse(row.carrier) as Carrier
    const group = row.group_id ?? undefined
    const asUsual = row.policy === null && usual.queue === row.queue && usual.priority === row.priority && usual.group === group
    this.policy = asUsual ? usual : { ...usual, queue: row.queue, priority: row.priority, group, ...(row.policy === null ? undefined : JSON.parse(row.policy) as Partial<Policy>) }
    this.#payload = row.payload
  }

  get payload (): Json { return JSON.parse(this.#payload) as Json }
}

export class ClaimedAttempt implements Attempt {
  readonly job: StoredJob
  readonly number: number
  readonly waited: number
  readonly seq: number
  /** With the owner and the place: the right to settle. */
  readonly owner: number
  readonly token: number
  readonly history: string | null
  /** Place of its start in the queue's limiter; −1 without one. */
  readonly slot: number
  /** The same in that of its group. */
  readonly groupSlot: number
  /** Whether its body has begun: told where a limiter counts. */
  start: 'granted' | 'happened' | 'stored' = 'granted'
  declare children?: readonly ChildRecord[]

  constructor (row: Pick<Row, 'attempts_made' | 'seq' | 'owner' | 'token' | 'history'>, job: StoredJob, waited: number, slot: number, groupSlot: number) {
    this.job = job
    this.number = row.attempts_made
    this.waited = waited
    this.seq = row.seq
    this.owner = row.owner as number
    this.token = row.token as number
    this.history = row.history
    this.slot = slot
    this.groupSlot = groupSlot
  }

  get payload (): Json { return this.job.payload }
}

export function remember (history: string | null, attempt: number, at: number, error: ErrorFacts): string {
  const failed = history === null ? [] : JSON.parse(history) as FailedAttempt[]
  failed.push({ attempt, endedAt: iso(at), error })
  return JSON.stringify(failed.slice(-LONGEST_HISTORY))
}

/** `limitedUntil`: when the queue's limiter lets a waiting job start, if it is that which holds it. */
export function toRecord (row: Row, limitedUntil: number | undefined): JobRecord {
  const record: JobRecord = {
    id: row.id,
    name: row.name,
    queue: row.queue,
    state: row.state,
    progress: row.progress === null ? null : JSON.parse(row.progress) as Json,
    attemptsMade: row.attempts_made,
    attempts: row.attempts,
    priority: row.priority,
    createdAt: iso(row.created_at),
    startedAt: row.started_at === null ? null : iso(Math.max(row.created_at, row.started_at)),
    finishedAt: row.finished_at === null ? null : iso(Math.max(row.created_at, row.finished_at)),
    requestId: row.request_id,
    payload: JSON.parse(row.payload) as Json
  }
  if (row.state === 'delayed' && row.run_at !== null) {
    record.delayReason = row.delay_reason ?? 'delay'
    record[record.delayReason === 'delay' ? 'runAt' : 'retryAt'] = iso(row.run_at)
  } else if (row.state === 'waiting' && limitedUntil !== undefined) {
    record.state = 'delayed'
    record.delayReason = 'rate-limit'
    if (limitedUntil < Infinity) record.retryAt = iso(limitedUntil)
  }
  return withEnd(record, row)
}

function withEnd (record: JobRecord, row: Row): JobRecord {
  if (row.carrier !== null) record.carrier = JSON.parse(row.carrier) as Carrier
  if (row.parent !== null) record.parent = row.parent
  if (row.result !== null) record.result = JSON.parse(row.result) as Json
  if (row.result_omitted !== null) record.resultOmitted = row.result_omitted
  if (row.error !== null) record.error = JSON.parse(row.error) as ErrorFacts
  if (row.failure !== null) record.failure = row.failure
  if (row.reason !== null) record.reason = row.reason
  if (row.overdue === 1 && row.state === 'active') record.overdue = true
  if (row.history !== null) record.history = JSON.parse(row.history) as FailedAttempt[]
  return record
}

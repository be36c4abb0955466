/** Adding, releasing, cancelling, retrying and removing jobs. */
import { startDelay, isFinal, type CancelReason, type JobState, type NewJob, type Duplicate } from '../../job.ts'
import type { CancelAnswer } from '../../backend.ts'
import type { Copied } from '../../json.ts'
import type { Staged } from './arrivals.ts'
import { enter, mark } from './deduplication.ts'
import { begin, FIRST_TOKEN, isFree, startStaged } from './direct.ts'
import { rideOf } from './ride.ts'
import { ownPolicy, type Row, type StoredJob } from './row.ts'
import type { Transaction } from './transaction.ts'
import type { Waiting } from './waiting.ts'

const INSERT = `INSERT INTO background_jobs
  (id, name, queue, state, payload, bytes, created_at, request_id, policy, carrier, attempts, priority, ready_at, run_at, expires_at, delay_reason, owner, group_id,
  dedup, token, attempts_made, started_at, fresh) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
const RELEASE = `UPDATE background_jobs SET state = CASE WHEN run_at > ? THEN 'delayed' ELSE 'waiting' END, ready_at = ?, owner = NULL
  WHERE id = ? AND state = 'pending' RETURNING id, name, queue, state, run_at`
const RELEASE_STAGED = "UPDATE background_jobs SET state = 'waiting', ready_at = ?, owner = NULL WHERE seq = ? AND owner = ? AND state = 'pending'"
const FIND = 'SELECT * FROM background_jobs WHERE id = ?'
const ASK_TO_STOP = 'UPDATE background_jobs SET cancel = ? WHERE seq = ?'
const CANCEL = `UPDATE background_jobs SET state = 'cancelled', reason = ?, finished_at = ?, ended = ?, owner = NULL, expires_at = NULL, fresh = 0
  WHERE seq = ?`
const REVIVE = `UPDATE background_jobs SET state = ?, ready_at = ?, run_at = ?, delay_reason = 'retry', attempts_made = 0, started_at = NULL,
  finished_at = NULL, ended = NULL, failure = NULL, error = NULL, progress = NULL, cancel = NULL WHERE seq = ?`
const PROMOTE = "UPDATE background_jobs SET state = 'waiting', ready_at = ?, run_at = NULL, delay_reason = NULL WHERE seq = ?"
const REPLACE = 'UPDATE background_jobs SET payload = ?, bytes = ? WHERE seq = ?'
const REMOVE = "DELETE FROM background_jobs WHERE id = ? AND state IN ('completed', 'failed', 'cancelled') RETURNING id, name, queue, state"

export interface AddedJob {
  readonly job: NewJob
  /** Its JSON text; made before the transaction. */
  readonly payload: string
  /** Without it, the job waits to be claimed. */
  readonly queue?: Waiting
}

/** Answers the job that stands for this one, if it is a duplicate. */
export function insert (tx: Transaction, { job, payload, queue: room }: AddedJob, staged: boolean): Duplicate | undefined {
  const other = enter(tx, job)
  if (other !== undefined) {
    if (!staged) release(tx, other.id, undefined)
    return other
  }
  const { id, name, queue, bytes, createdAt, requestId, policy, carrier } = job
  const delay = startDelay(job)
  const state: JobState = staged ? 'pending' : delay > 0 ? 'delayed' : 'waiting'
  const runAt = delay > 0 ? tx.now + Math.ceil(delay) : null
  const expiresAt = policy.ttl > 0 ? tx.now + Math.ceil(policy.ttl) : null
  const starts = state === 'waiting' && room !== undefined && isFree(tx, room) ? room : undefined
  const begins = starts !== undefined
  const { priority, attempts, group = null } = policy
  const own = ownPolicy(policy, tx.policyOf(name))
  const carried = carrier === undefined ? null : JSON.stringify(carrier)
  const created = Math.floor(createdAt)
  const seq = tx.db.insert(INSERT, id, name, queue, begins ? 'active' : state, payload, bytes, created, requestId, own, carried, attempts, priority, tx.now, runAt,
    begins ? null : expiresAt, runAt === null ? null : 'delay', staged || begins ? tx.self : null, group, mark(job),
    begins ? FIRST_TOKEN : null, begins ? 1 : 0, begins ? tx.now : null, begins ? 0 : 1)
  tx.move(job, undefined, state, 'delay')
  const asStored = (): StoredJob => tx.jobOf({ seq, id, name, queue, payload, bytes, created_at: created, request_id: requestId, policy: own, carrier: carried, priority, group_id: group })
  if (starts !== undefined) {
    begin(tx, starts, asStored())
    return undefined
  }
  if (runAt !== null || expiresAt !== null) tx.wake(Math.min(runAt ?? Infinity, expiresAt ?? Infinity))
  tx.room(queue, bytes, 1)
  if (staged && runAt === null) rideOf(tx).staged.push(asStored())
  return undefined
}

/** `staged`: if it was staged here. */
export function release (tx: Transaction, id: string, staged: Staged | undefined): void {
  if (staged !== undefined) return releaseStaged(tx, staged)
  const row = tx.db.get<Pick<Row, 'id' | 'name' | 'queue' | 'state' | 'run_at'>>(RELEASE, tx.now, tx.now, id)
  if (row === undefined) return
  tx.move(row, 'pending', row.state, 'delay')
  if (row.state === 'delayed') tx.wake(row.run_at ?? tx.now)
}

/** Not delayed, or it would not be known here. */
function releaseStaged (tx: Transaction, { job, queue }: Staged): void {
  if (isFree(tx, queue)) return startStaged(tx, queue, job)
  if (tx.db.run(RELEASE_STAGED, tx.now, job.order, tx.self) > 0) tx.move(job, 'pending', 'waiting')
}

/** `stop` is called for a running job of this process. */
export function cancel (tx: Transaction, id: string, reason: CancelReason, detail: string): CancelAnswer {
  const row = tx.db.get<Row>(FIND, id)
  if (row === undefined) return undefined
  if (isFinal(row.state)) return 'final'
  if (row.state === 'active') {
    tx.db.run(ASK_TO_STOP, detail, row.seq)
    return 'cancelling'
  }
  end(tx, row, reason)
  return 'cancelled'
}

export function end (tx: Transaction, row: Pick<Row, 'seq' | 'id' | 'name' | 'queue' | 'state' | 'delay_reason' | 'fresh' | 'bytes'>, reason: CancelReason): void {
  tx.db.run(CANCEL, reason, tx.now, tx.nextEnd(), row.seq)
  tx.move(row, row.state, 'cancelled', row.delay_reason)
  if (row.fresh === 1) tx.room(row.queue, row.bytes, -1)
}

/** Answers whether it was a dead letter. */
export function retry (tx: Transaction, id: string, delay: number, payload?: Copied): boolean {
  const row = tx.db.get<Row>(FIND, id)
  if (row?.state !== 'failed') return false
  const state = delay > 0 ? 'delayed' : 'waiting'
  const due = tx.now + Math.ceil(delay)
  if (payload !== undefined) tx.db.run(REPLACE, JSON.stringify(payload.value), payload.bytes, row.seq)
  tx.db.run(REVIVE, state, due, delay > 0 ? due : null, row.seq)
  tx.move(row, 'failed', state, 'retry')
  if (delay > 0) tx.wake(due)
  return true
}

/** Answers whether it was delayed. */
export function promote (tx: Transaction, id: string): boolean {
  const row = tx.db.get<Row>(FIND, id)
  if (row?.state !== 'delayed') return false
  tx.db.run(PROMOTE, tx.now, row.seq)
  tx.move(row, 'delayed', 'waiting', row.delay_reason)
  return true
}

/** Answers whether it had ended. */
export function remove (tx: Transaction, id: string): boolean {
  const row = tx.db.get<Pick<Row, 'id' | 'name' | 'queue' | 'state'>>(REMOVE, id)
  if (row === undefined) return false
  tx.move(row, row.state, undefined)
  return true
}


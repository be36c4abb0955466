/** Adding, releasing, cancelling, retrying and removing jobs. */
import { startDelay, isFinal, type CancelReason, type JobState, type NewJob } from '../../job.ts'
import type { CancelAnswer, Duplicate } from '../../backend.ts'
import type { Copied } from '../../json.ts'
import { enter, mark } from './deduplication.ts'
import { ownPolicy, type Row } from './row.ts'
import type { Transaction } from './transaction.ts'

const INSERT = `INSERT INTO background_jobs
  (id, name, queue, state, payload, bytes, created_at, request_id, policy, carrier, attempts, priority, ready_at, run_at, expires_at, delay_reason, owner, group_id, dedup)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
const RELEASE = `UPDATE background_jobs SET state = CASE WHEN run_at > ? THEN 'delayed' ELSE 'waiting' END, ready_at = ?, owner = NULL
  WHERE id = ? AND state = 'pending' RETURNING queue, state, run_at`
const FIND = 'SELECT * FROM background_jobs WHERE id = ?'
const ASK_TO_STOP = 'UPDATE background_jobs SET cancel = ? WHERE seq = ?'
const CANCEL = `UPDATE background_jobs SET state = 'cancelled', reason = ?, finished_at = ?, ended = ?, owner = NULL, expires_at = NULL, fresh = 0
  WHERE seq = ?`
const REVIVE = `UPDATE background_jobs SET state = ?, ready_at = ?, run_at = ?, delay_reason = 'retry', attempts_made = 0, started_at = NULL,
  finished_at = NULL, ended = NULL, failure = NULL, error = NULL, progress = NULL, cancel = NULL WHERE seq = ?`
const REPLACE = 'UPDATE background_jobs SET payload = ?, bytes = ? WHERE seq = ?'
const REMOVE = "DELETE FROM background_jobs WHERE id = ? AND state IN ('completed', 'failed', 'cancelled') RETURNING queue, state"

export interface StagedJob {
  readonly job: NewJob
  /** Its JSON text; made before the transaction. */
  readonly payload: string
}

/** Answers the job that stands for this one, if it is a duplicate. */
export function insert (tx: Transaction, { job, payload }: StagedJob, staged: boolean): Duplicate | undefined {
  const other = enter(tx, job)
  if (other !== undefined) {
    if (!staged) release(tx, other.id)
    return other
  }
  const { id, name, queue, bytes, createdAt, requestId, policy, carrier } = job
  const delay = startDelay(job)
  const state: JobState = staged ? 'pending' : delay > 0 ? 'delayed' : 'waiting'
  const runAt = delay > 0 ? tx.now + Math.ceil(delay) : null
  const expiresAt = policy.ttl > 0 ? tx.now + Math.ceil(policy.ttl) : null
  tx.db.run(INSERT, id, name, queue, state, payload, bytes, Math.floor(createdAt), requestId, ownPolicy(policy, tx.policyOf(name)),
    carrier === undefined ? null : JSON.stringify(carrier), policy.attempts, policy.priority, tx.now, runAt, expiresAt, runAt === null ? null : 'delay', staged ? tx.self : null, policy.group ?? null, mark(job))
  if (runAt !== null || expiresAt !== null) tx.wake(Math.min(runAt ?? Infinity, expiresAt ?? Infinity))
  tx.move(id, queue, undefined, state, 'delay')
  tx.room(queue, bytes, 1)
  return undefined
}

export function release (tx: Transaction, id: string): void {
  const row = tx.db.get<{ queue: string, state: JobState, run_at: number | null }>(RELEASE, tx.now, tx.now, id)
  if (row === undefined) return
  tx.move(id, row.queue, 'pending', row.state, 'delay')
  if (row.state === 'delayed') tx.wake(row.run_at ?? tx.now)
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

export function end (tx: Transaction, row: Pick<Row, 'seq' | 'id' | 'queue' | 'state' | 'delay_reason' | 'fresh' | 'bytes'>, reason: CancelReason): void {
  tx.db.run(CANCEL, reason, tx.now, tx.nextEnd(), row.seq)
  tx.move(row.id, row.queue, row.state, 'cancelled', row.delay_reason)
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
  tx.move(id, row.queue, 'failed', state, 'retry')
  if (delay > 0) tx.wake(due)
  return true
}

/** Answers whether it had ended. */
export function remove (tx: Transaction, id: string): boolean {
  const row = tx.db.get<{ queue: string, state: JobState }>(REMOVE, id)
  if (row === undefined) return false
  tx.move(id, row.queue, row.state, undefined)
  return true
}


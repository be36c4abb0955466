/** Attempts: claimed in batches, told about, settled by who still owns them. */
import type { QueueSettings } from '../../backend.ts'
import type { ErrorFacts } from '../../describe.ts'
import type { ChildRecord, JobState, Outcome } from '../../job.ts'
import type { Json } from '../../json.ts'
import { shareOut, startsOf, type Share } from './groups.ts'
import { grantStarts, judgeStart } from './limits.ts'
import { ClaimedAttempt, remember, type ClaimedRow } from './row.ts'
import type { Transaction } from './transaction.ts'

const claimOf = (group: string): string => `UPDATE background_jobs SET state = 'active', owner = ?, token = ?, attempts_made = attempts_made + 1, started_at = ?,
  fresh = CASE fresh WHEN 1 THEN 2 ELSE 0 END, expires_at = NULL, overdue = NULL, cancel = NULL
  WHERE seq IN (SELECT seq FROM background_jobs WHERE queue = ? AND state = 'waiting' AND group_id ${group} ORDER BY priority DESC, ready_at, seq LIMIT ?)
  RETURNING seq, id, name, queue, payload, bytes, created_at, request_id, policy, carrier, priority, group_id, attempts_made, fresh, ready_at, owner, token, history, children_left`
const CLAIM = claimOf('IS NULL')
const CLAIM_IN_GROUP = claimOf('IS NOT NULL AND group_id = ?')
const CHILDREN = 'SELECT id, name, state, result, error FROM background_children WHERE parent = ? ORDER BY no'
const OWNED = "WHERE seq = ? AND owner = ? AND token = ? AND state = 'active'"
const COMPLETE = `UPDATE background_jobs SET state = 'completed', owner = NULL, finished_at = ?, ended = ?, result = ?, result_omitted = ?, error = NULL ${OWNED}`
const POSTPONE = `UPDATE background_jobs SET state = ?, owner = NULL, ready_at = ?, run_at = ?, delay_reason = ?, attempts_made = attempts_made - ?,
  error = coalesce(?, error), history = coalesce(?, history) ${OWNED}`
const FAIL = `UPDATE background_jobs SET state = 'failed', owner = NULL, finished_at = ?, ended = ?, failure = ?, error = ?, history = ? ${OWNED}`
const CANCELLED = `UPDATE background_jobs SET state = 'cancelled', owner = NULL, finished_at = ?, ended = ?, reason = ? ${OWNED}`
const PROGRESS = `UPDATE background_jobs SET progress = ? ${OWNED}`
const OVERDUE = `UPDATE background_jobs SET overdue = 1 ${OWNED}`

export interface Claimed {
  readonly attempts: ClaimedAttempt[]
  /** No other job waits. */
  readonly drained: boolean
  /** Others wait, and their groups hold them back: until this time, unless something of the queue changes. */
  readonly heldUntil: number | undefined
}

/** The first `limit` waiting jobs of a queue, or as many as its limiter and those of its groups let start. */
export function claim (tx: Transaction, queue: string, limit: number, token: number, { limiter, groups }: QueueSettings): Claimed {
  const slots = limiter === undefined ? undefined : grantStarts(tx, queue, limiter, limit)
  const most = slots?.length ?? limit
  if (most === 0) return { attempts: [], drained: false, heldUntil: undefined }
  const shared = shareOut(tx, queue, groups, most)
  const rows = shared === undefined ? claimRows(tx, CLAIM, token, queue, most) : shared.shares.flatMap((share) => claimShare(tx, queue, token, share))
  if (shared !== undefined) rows.sort((a, b) => a.place - b.place)
  const attempts = rows.map(({ row, groupSlot }, at) => {
    tx.move(row, 'waiting', 'active')
    if (row.fresh === 2) tx.room(queue, row.bytes, -1)
    const attempt = new ClaimedAttempt(row, tx.jobOf(row), Math.max(0, tx.now - (row.ready_at ?? tx.now)), slots?.take(at) ?? -1, groupSlot)
    if (row.children_left !== null) attempt.children = childrenOf(tx, row.id)
    return attempt
  })
  return { attempts, drained: rows.length < most && shared?.heldUntil === undefined, heldUntil: rows.length < most ? shared?.heldUntil : undefined }
}

interface Placed {
  readonly row: ClaimedRow
  readonly place: number
  readonly groupSlot: number
}

function claimRows (tx: Transaction, sql: string, token: number, ...selected: Array<string | number>): Placed[] {
  const rows = tx.db.all<ClaimedRow>(sql, tx.self, token, tx.now, ...selected)
  rows.sort((a, b) => b.priority - a.priority || (a.ready_at ?? 0) - (b.ready_at ?? 0) || a.seq - b.seq)
  return rows.map((row, place) => ({ row, place, groupSlot: -1 }))
}

function claimShare (tx: Transaction, queue: string, token: number, { group, jobs, places, take }: Share): Placed[] {
  const placed = group === undefined ? claimRows(tx, CLAIM, token, queue, jobs) : claimRows(tx, CLAIM_IN_GROUP, token, queue, group, jobs)
  return placed.map(({ row }, at) => ({ row, place: places[at] as number, groupSlot: take(at) }))
}

/** What became of the children of a parent that starts. */
function childrenOf (tx: Transaction, parent: string): ChildRecord[] {
  return tx.db.all<{ id: string, name: string, state: JobState | null, result: string | null, error: string | null }>(CHILDREN, parent).map(({ id, name, state, result, error }) => ({
    id, name,
    state: state ?? 'active',
    ...(result !== null && { result: JSON.parse(result) as Json }),
    ...(error !== null && { error: JSON.parse(error) as ErrorFacts })
  }))
}

/** The body of an attempt has begun, or never will. */
export function judgeStarts (tx: Transaction, { job, slot, groupSlot, start }: ClaimedAttempt): void {
  const happened = start !== 'granted'
  if (slot >= 0) judgeStart(tx, job.queue, slot, happened)
  if (groupSlot < 0) return
  judgeStart(tx, startsOf(job.queue, job.policy.group as string), groupSlot, happened)
  tx.count(job.queue, 'waiting', 0) // it is known now when the next may start
}

/** Ignored when the attempt does not own its job any more. */
export function settle (tx: Transaction, attempt: ClaimedAttempt, outcome: Outcome): void {
  const { seq, owner, token } = attempt
  if (attempt.start !== 'stored') judgeStarts(tx, attempt)
  switch (outcome.kind) {
    case 'completed':
      return ended(tx, attempt, 'completed', tx.db.run(COMPLETE, tx.now, tx.nextEnd(), json(outcome.result), outcome.resultOmitted ?? null, seq, owner, token))
    case 'dead':
      return ended(tx, attempt, 'failed', tx.db.run(FAIL, tx.now, tx.nextEnd(), outcome.failure, JSON.stringify(outcome.error), history(tx, attempt, outcome.error), seq, owner, token))
    case 'cancelled':
      return ended(tx, attempt, 'cancelled', tx.db.run(CANCELLED, tx.now, tx.nextEnd(), outcome.reason, seq, owner, token))
    case 'retry':
      return postpone(tx, attempt, outcome.delay, outcome.charged, outcome.error)
    case 'released':
      return postpone(tx, attempt, outcome.delay, false, undefined)
  }
}

function ended (tx: Transaction, { job }: ClaimedAttempt, state: JobState, changed: number): void {
  if (changed > 0) tx.move(job, 'active', state)
}

function postpone (tx: Transaction, attempt: ClaimedAttempt, delay: number, charged: boolean, error: ErrorFacts | undefined): void {
  const { job, seq, owner, token } = attempt
  const state = delay > 0 ? 'delayed' : 'waiting'
  const reason = error === undefined ? 'delay' : 'retry'
  const due = tx.now + Math.ceil(delay)
  const changed = tx.db.run(POSTPONE, state, due, delay > 0 ? due : null, reason, charged ? 0 : 1, json(error), error === undefined ? null : history(tx, attempt, error), seq, owner, token)
  if (changed === 0) return
  tx.move(job, 'active', state, reason)
  if (delay > 0) tx.wake(due)
}

function history (tx: Transaction, attempt: ClaimedAttempt, error: ErrorFacts): string {
  return remember(attempt.history, attempt.number, tx.now, error)
}

export function noteProgress (tx: Transaction, { seq, owner, token }: ClaimedAttempt, value: Json): void {
  tx.db.run(PROGRESS, JSON.stringify(value), seq, owner, token)
}

export function noteOverdue (tx: Transaction, { seq, owner, token }: ClaimedAttempt): void {
  tx.db.run(OVERDUE, seq, owner, token)
}

function json (value: unknown): string | null {
  return value === undefined ? null : JSON.stringify(value)
}

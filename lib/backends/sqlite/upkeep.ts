/** What time does to jobs: delays end, lives end, ended jobs are forgotten, owners are gone. */
import type { Retention } from '../../backend.ts'
import type { ErrorFacts } from '../../describe.ts'
import type { JobState } from '../../job.ts'
import { freeStartsOf } from './limits.ts'
import { remember, type Row } from './row.ts'
import { end } from './steer.ts'
import type { Connection, Transaction } from './transaction.ts'

/** Rows handled in one transaction. */
const BATCH = 1_000

const PROMOTE = `UPDATE background_jobs SET state = 'waiting', ready_at = run_at
  WHERE seq IN (SELECT seq FROM background_jobs WHERE state = 'delayed' AND run_at <= ? ORDER BY run_at LIMIT ${BATCH})
  RETURNING id, name, queue, delay_reason`
const EXPIRED = `SELECT * FROM background_jobs WHERE expires_at <= ? ORDER BY expires_at LIMIT ${BATCH}`
const EXPIRE = `UPDATE background_jobs SET state = 'failed', failure = 'expired', error = ?, finished_at = ?, ended = ?, owner = NULL,
  expires_at = NULL, fresh = 0 WHERE seq = ?`
const NEXT_DUE = "SELECT min(run_at) AS at FROM background_jobs WHERE state = 'delayed'"
const NEXT_EXPIRY = 'SELECT min(expires_at) AS at FROM background_jobs WHERE expires_at IS NOT NULL'
const KINDS = { completed: "state IN ('completed', 'cancelled')", failed: "state = 'failed'" } as const
const HOW_MANY = "SELECT coalesce(sum(n), 0) AS n FROM background_counts WHERE what IN (?, ?)"
const OLDEST = { completed: oldest(KINDS.completed), failed: oldest(KINDS.failed) }
const FORGET = 'DELETE FROM background_jobs WHERE seq = ?'
const OWNED = 'SELECT * FROM background_jobs WHERE owner = ?'
const HAND_ON = `UPDATE background_jobs SET state = ?, owner = NULL, ready_at = ?, attempts_made = attempts_made - ?, error = coalesce(?, error),
  history = coalesce(?, history) WHERE seq = ?`
const STALL = "UPDATE background_jobs SET state = 'failed', failure = 'stalled', owner = NULL, finished_at = ?, ended = ?, error = ?, history = ? WHERE seq = ?"
const LEAVE = 'DELETE FROM background_owners WHERE id = ?'

function oldest (kind: string): string {
  return `SELECT * FROM background_jobs WHERE ${kind} ORDER BY ended LIMIT ?`
}

/** Delays that are over, and jobs that are too late to start. */
export function passTime (tx: Transaction): void {
  // Timers may fire up to a millisecond early.
  const now = tx.now + 1
  for (const row of tx.db.all<Row>(EXPIRED, now)) {
    const job = tx.jobOf(row)
    const error = { name: 'ExpiredError', code: 'FST_BG_EXPIRED', message: `not started within its ttl of ${job.policy.ttl} ms` }
    tx.db.run(EXPIRE, JSON.stringify(error), tx.now, tx.nextEnd(), row.seq)
    tx.move(row, row.state, 'failed', row.delay_reason)
    if (row.fresh === 1) tx.room(row.queue, row.bytes, -1)
    tx.incidents.push({ kind: 'expired', job })
  }
  for (const row of tx.db.all<Pick<Row, 'id' | 'name' | 'queue' | 'delay_reason'>>(PROMOTE, now)) tx.move(row, 'delayed', 'waiting', row.delay_reason)
  tx.wake(nextDue(tx.db))
}

/** When the next delay or life ends; Infinity: never. */
export function nextDue (db: Connection): number {
  return Math.min(db.get<{ at: number | null }>(NEXT_DUE)?.at ?? Infinity, db.get<{ at: number | null }>(NEXT_EXPIRY)?.at ?? Infinity)
}

/** Forgets what `retention` does not cover. Answers when the next job is too old, and whether there is more to forget now. */
export function sweep (tx: Transaction, retention: Retention): { next: number, more: boolean } {
  let next = Infinity
  let more = false
  for (const kind of ['completed', 'failed'] as const) {
    const { count, age } = retention[kind]
    const kept = tx.db.get<{ n: number }>(HOW_MANY, kind, kind === 'completed' ? 'cancelled' : '')?.n ?? 0
    let excess = kept - count
    const rows = tx.db.all<Row>(OLDEST[kind], Math.max(1, Math.min(excess, BATCH)) + 10)
    let forgotten = 0
    for (const row of rows) {
      const tooOld = (row.finished_at ?? 0) + age
      if (excess <= 0 && tooOld >= tx.now) {
        next = Math.min(next, tooOld)
        break
      }
      tx.db.run(FORGET, row.seq)
      tx.move(row, row.state, undefined)
      if (kind === 'failed') tx.incidents.push({ kind: 'evicted', job: tx.jobOf(row) })
      excess--
      forgotten++
    }
    more ||= forgotten > 0 && forgotten === rows.length
  }
  return { next, more }
}

/** A process is gone: its jobs are free, and so is what it had staged. */
export function takeOver (tx: Transaction, owner: number): void {
  if (tx.db.run(LEAVE, owner) === 0) return
  for (const row of tx.db.all<Row>(OWNED, owner)) {
    if (row.state === 'pending') handOn(tx, row, 0, null)
    else {
      tx.incidents.push({ kind: 'recovered', job: tx.jobOf(row), attempt: row.attempts_made })
      interrupt(tx, row)
    }
  }
  freeStartsOf(tx, owner)
}

/** The process goes in good order: what it had begun is not charged. */
export function leave (tx: Transaction): void {
  for (const row of tx.db.all<Row>(OWNED, tx.self)) handOn(tx, row, row.state === 'active' ? 1 : 0, null)
  freeStartsOf(tx, tx.self)
  tx.db.run(LEAVE, tx.self)
}

function interrupt (tx: Transaction, row: Row): void {
  if (row.cancel !== null) return end(tx, row, 'user')
  const error: ErrorFacts = { name: 'StalledError', code: 'FST_BG_STALLED', message: `the process that ran attempt ${row.attempts_made} ended without a word` }
  const history = remember(row.history, row.attempts_made, tx.now, error)
  if (row.attempts_made < row.attempts) return handOn(tx, row, 0, error, history)
  tx.db.run(STALL, tx.now, tx.nextEnd(), JSON.stringify(error), history, row.seq)
  tx.move(row, 'active', 'failed')
  tx.incidents.push({ kind: 'stalled', job: tx.jobOf(row) })
}

function handOn (tx: Transaction, row: Row, uncharged: 0 | 1, error: ErrorFacts | null, history: string | null = null): void {
  const state: JobState = row.state === 'pending' && row.run_at !== null && row.run_at > tx.now ? 'delayed' : 'waiting'
  tx.db.run(HAND_ON, state, tx.now, uncharged, error === null ? null : JSON.stringify(error), history, row.seq)
  tx.move(row, row.state, state, row.state === 'pending' ? 'delay' : null)
  if (state === 'delayed') tx.wake(row.run_at as number)
}

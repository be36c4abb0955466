/**
 * Jobs that need no claim: where nothing waits and a slot is free, a job starts in the transaction that brings it, or that
 * releases it. Its row is active from the first, and never enters the index of those that wait.
 */
import { rideOf } from './ride.ts'
import { ClaimedAttempt, type StoredJob } from './row.ts'
import type { Transaction } from './transaction.ts'
import type { Waiting } from './waiting.ts'

const START = `UPDATE background_jobs SET state = 'active', token = ?, attempts_made = 1, started_at = ?, ready_at = ?, fresh = 0, expires_at = NULL
  WHERE seq = ? AND owner = ? AND state = 'pending'`

/** One token serves all attempts that begin without a claim: each job begins so once. */
export const FIRST_TOKEN = 0

/** Whether the next job of this queue may start now. */
export function isFree (tx: Transaction, queue: Waiting): boolean {
  if (!queue.isPlain || queue.waiting + tx.sum(queue.name, 'waiting') > 0) return false
  const { due, begun, freed } = rideOf(tx)
  return !due && queue.free + (freed.get(queue.name) ?? 0) > (begun.get(queue)?.length ?? 0)
}

/** Its row says so already. */
export function begin (tx: Transaction, queue: Waiting, job: StoredJob): void {
  tx.move(job, 'waiting', 'active')
  const attempt = new ClaimedAttempt({ attempts_made: 1, seq: job.order, owner: tx.self, token: FIRST_TOKEN, history: null }, job, 0, -1, -1)
  const { begun } = rideOf(tx)
  const attempts = begun.get(queue)
  if (attempts === undefined) begun.set(queue, [attempt])
  else attempts.push(attempt)
}

/** A staged job whose response is over. */
export function startStaged (tx: Transaction, queue: Waiting, job: StoredJob): void {
  if (tx.db.run(START, FIRST_TOKEN, tx.now, tx.now, job.order, tx.self) === 0) return
  tx.move(job, 'pending', 'waiting')
  tx.room(queue.name, job.bytes, -1)
  begin(tx, queue, job)
}

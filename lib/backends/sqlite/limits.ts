/**
 * Rate limits of queues, over all processes and restarts: one row for each of the last `max` starts. One that was
 * granted and has not happened yet stands at the end of time, so that the window begins when it really does.
 */
import type { Rate } from '../../backend.ts'
import type { Connection, Transaction } from './transaction.ts'

const NOT_YET = 8.64e15
const TAKEN = 'SELECT count(*) AS n FROM background_starts WHERE queue = ?'
const FREE = 'SELECT slot FROM background_starts WHERE queue = ? AND at <= ? ORDER BY at LIMIT ?'
const OLDEST = 'SELECT min(at) AS at FROM background_starts WHERE queue = ?'
const GRANT = 'INSERT INTO background_starts (queue, slot, at, owner) VALUES (?, ?, ?, ?) ON CONFLICT (queue, slot) DO UPDATE SET at = excluded.at, owner = excluded.owner'
const NOT_ANY_MORE = 0
const JUDGE = 'UPDATE background_starts SET at = ?, owner = NULL WHERE queue = ? AND slot = ? AND at = ?'
const SHRINK = 'DELETE FROM background_starts WHERE queue = ? AND slot >= ?'
const FREE_OF = 'UPDATE background_starts SET at = ?, owner = NULL WHERE owner = ?'

export interface Starts {
  readonly length: number
  /** Grants the n-th start. */
  take (n: number): number
}

/** At most `wanted` starts that may happen now. */
export function grantStarts (tx: Transaction, queue: string, { max, duration }: Rate, wanted: number): Starts {
  const taken = tx.db.get<{ n: number }>(TAKEN, queue)?.n ?? 0
  const slots: number[] = []
  for (let slot = taken; slot < max && slots.length < wanted; slot++) slots.push(slot)
  if (slots.length < wanted) {
    for (const { slot } of tx.db.all<{ slot: number }>(FREE, queue, tx.now - duration, wanted - slots.length)) slots.push(slot)
  }
  return {
    length: slots.length,
    take (n) {
      const slot = slots[n] as number
      tx.db.run(GRANT, queue, slot, NOT_YET, tx.self)
      return slot
    }
  }
}

/** A granted start has happened, or never will: then it does not count. Nothing changes where it was told before. */
export function judgeStart (tx: Transaction, queue: string, slot: number, happened: boolean): void {
  tx.db.run(JUDGE, happened ? tx.now : NOT_ANY_MORE, queue, slot, NOT_YET)
}

/** The starts that were granted to a process that is gone. */
export function freeStartsOf (tx: Transaction, owner: number): void {
  tx.db.run(FREE_OF, tx.now, owner)
}

/** A limit that was larger in an earlier deploy. */
export function fitStarts (tx: Transaction, queue: string, { max }: Rate): void {
  tx.db.run(SHRINK, queue, max)
}

/** When the next job may start, if that is not now; Infinity while it hangs on a granted start. */
export function limitedUntil (db: Connection, queue: string, { max, duration }: Rate, now: number): number | undefined {
  if ((db.get<{ n: number }>(TAKEN, queue)?.n ?? 0) < max) return undefined
  const oldest = db.get<{ at: number }>(OLDEST, queue)?.at ?? 0
  if (oldest === NOT_YET) return Infinity
  return oldest + duration > now ? oldest + duration : undefined
}

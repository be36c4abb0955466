/** What rides along in a transaction, beside the writes that were asked for. */
import type { Claimed } from './attempts.ts'
import type { ClaimedAttempt, StoredJob } from './row.ts'
import type { Transaction } from './transaction.ts'
import type { Waiting } from './waiting.ts'

/** It counts when the transaction is committed. */
export interface Ride {
  /** Attempts whose slot is free now, by queue. */
  readonly freed: Map<string, number>
  /** Attempts that began without a claim, by queue. */
  readonly begun: Map<Waiting, ClaimedAttempt[]>
  /** Jobs of responses that are open. */
  readonly staged: StoredJob[]
  readonly claimed: Array<Claimed & { queue: Waiting }>
  /** Something is due: it goes before what comes now. */
  due: boolean
  /** All that was due is done. */
  passed?: true
  swept?: { next: number, more: boolean }
  /** Others took this process for dead. */
  buried: boolean
}

const rides = new WeakMap<Transaction, Ride>()

export function rideOf (tx: Transaction): Ride {
  let ride = rides.get(tx)
  if (ride === undefined) rides.set(tx, ride = { freed: new Map(), begun: new Map(), staged: [], claimed: [], due: false, buried: false })
  return ride
}

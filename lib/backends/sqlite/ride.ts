/** What rides along in a transaction, beside the writes that were asked for. */
import type { Claimed } from './attempts.ts'
import type { Transaction } from './transaction.ts'
import type { Waiting } from './waiting.ts'

/** It counts when the transaction is committed. */
export interface Ride {
  /** Attempts whose slot is free now, by queue. */
  readonly freed: Map<string, number>
  readonly claimed: Array<Claimed & { queue: Waiting }>
  /** All that was due is done. */
  passed?: true
  swept?: { next: number, more: boolean }
  /** Attempts of processes that are gone. */
  cutOff: number
  /** Others took this process for dead. */
  buried: boolean
}

const rides = new WeakMap<Transaction, Ride>()

export function rideOf (tx: Transaction): Ride {
  let ride = rides.get(tx)
  if (ride === undefined) rides.set(tx, ride = { freed: new Map(), claimed: [], cutOff: 0, buried: false })
  return ride
}

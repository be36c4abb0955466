/**
 * The processes that share a file. Each beats: raises its number in the table of owners. One whose number has stood still
 * for a lease, by the watch of whoever looks, or that is gone for sure, loses its jobs.
 */
import { isGone, thisProcess, type Identity } from './owner.ts'
import type { Connection, Transaction } from './transaction.ts'
import { takeOver } from './upkeep.ts'

/** Ms between two beats. */
export const BEAT = 5_000
/** Ms without a beat after which a process has lost its jobs. */
export const LEASE = 30_000

const ENTER = 'INSERT INTO background_owners (boot, space, pid, began) VALUES (?, ?, ?, ?) RETURNING id'
const ENTERED = 'SELECT 1 AS yes FROM background_owners WHERE id = ?'
const RAISE = 'UPDATE background_owners SET beat = beat + 1 WHERE id = ?'
const OTHERS = 'SELECT * FROM background_owners WHERE id <> ?'
const VERSION = 'PRAGMA data_version'

interface Owner extends Identity {
  readonly id: number
  readonly beat: number
}

export class Processes {
  readonly #self = thisProcess()
  readonly #seen = new Map<number, { beat: number, at: number }>()
  #version = 0

  /** The number of this process, new with each entry. */
  enter (db: Connection): number {
    const { boot, space, pid, began } = this.#self
    return db.get<{ id: number }>(ENTER, boot, space, pid, began)?.id as number
  }

  /** False when others have taken this process for dead: it owns nothing any more. */
  isEntered (db: Connection, self: number): boolean {
    return db.get(ENTERED, self) !== undefined
  }

  beat (tx: Transaction): void {
    tx.db.run(RAISE, tx.self)
  }

  /** Takes over from those that are gone. `at`: monotonic ms. */
  buryTheDead (tx: Transaction, at: number): void {
    for (const other of tx.db.all<Owner>(OTHERS, tx.self)) {
      const seen = this.#seen.get(other.id)
      if (seen === undefined || seen.beat !== other.beat) this.#seen.set(other.id, { beat: other.beat, at })
      const silent = seen?.beat === other.beat ? at - seen.at : 0
      if (silent < LEASE && !isGone(other, this.#self)) continue
      takeOver(tx, other.id)
      this.#seen.delete(other.id)
    }
  }

  /** Whether another connection has written since the last call. */
  hasNews (db: Connection): boolean {
    const { data_version: version } = db.get<{ data_version: number }>(VERSION) as { data_version: number }
    const news = version !== this.#version
    this.#version = version
    return news
  }
}

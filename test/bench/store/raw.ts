/**
 * The floor for a store that keeps what ours keeps: the same rows in the same tables, in the same commits, by a program
 * that knows no more than this. One commit for the insert and the claim, one for the ends.
 */
import { randomUUID } from 'node:crypto'
import { prepareConnection } from '../../../lib/backends/sqlite/driver.ts'
import { migrate } from '../../../lib/backends/sqlite/schema.ts'
import { freshPath, open } from './file.ts'
import { payload, type StoreSettings, type StoreSubject } from './index.ts'

const INSERT = `INSERT INTO background_jobs (id, name, queue, state, payload, bytes, created_at, attempts, priority, ready_at)
  VALUES (?, 'light', 'default', 'waiting', ?, ?, ?, 5, 0, ?)`
const CLAIM = `UPDATE background_jobs SET state = 'active', owner = 1, token = ?, attempts_made = attempts_made + 1, started_at = ?, fresh = 0
  WHERE seq IN (SELECT seq FROM background_jobs WHERE queue = 'default' AND state = 'waiting' AND group_id IS NULL ORDER BY priority DESC, ready_at, seq LIMIT ?)
  RETURNING seq, payload`
const COMPLETE = "UPDATE background_jobs SET state = 'completed', owner = NULL, finished_at = ?, ended = ? WHERE seq = ? AND owner = 1 AND state = 'active'"

/** The rows of a file of their own. */
export async function openRows (synchronous: 'full' | 'normal') {
  const path = freshPath()
  const database = open(path)
  await prepareConnection(database, path, synchronous)
  migrate(database, path)
  const begin = database.prepare('BEGIN IMMEDIATE')
  const insert = database.prepare(INSERT)
  const claim = database.prepare(CLAIM)
  const complete = database.prepare(COMPLETE)
  const commit = database.prepare('COMMIT')
  let token = 0
  let ended = 0
  return {
    begin () { begin.run() },
    insertAndClaim (payloads: readonly string[]): Array<{ seq: number, payload: string }> {
      const now = Date.now()
      for (const text of payloads) insert.run(randomUUID(), text, text.length, now, now)
      return payloads.length === 0 ? [] : claim.all(++token, now, payloads.length) as Array<{ seq: number, payload: string }>
    },
    complete (seqs: readonly number[]) {
      const now = Date.now()
      for (const seq of seqs) complete.run(now, ++ended, seq)
    },
    commit () { commit.run() },
    close () { database.close() }
  }
}

export async function create ({ synchronous }: StoreSettings): Promise<StoreSubject> {
  const rows = await openRows(synchronous)
  return {
    async batch (n) {
      rows.begin()
      const claimed = rows.insertAndClaim(Array.from({ length: n }, (_, i) => JSON.stringify(payload(i))))
      rows.commit()
      for (const each of claimed) JSON.parse(each.payload)
      rows.begin()
      rows.complete(claimed.map(({ seq }) => seq))
      rows.commit()
    },
    async close () { rows.close() }
  }
}

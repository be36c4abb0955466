/**
 * Which job stands for a deduplication id. A row is made when a job comes; triggers let it go when the job ends, lives
 * again or is forgotten, and time when its `until` is over.
 */

import type { NewJob, Duplicate } from '../../job.ts'
import type { Transaction } from './transaction.ts'

const FIND = 'SELECT job AS id, print FROM background_ids WHERE key = ? AND (until IS NULL OR until > ?)'
const ENTER = 'INSERT OR REPLACE INTO background_ids (key, job, until, print) VALUES (?, ?, ?, ?)'
const OVER = 'DELETE FROM background_ids WHERE until <= ?'

/** `until`: of an id that lives by time; it is let go early by a cancel, one with a `print` also when its job is forgotten. */
export const IDS_SCHEMA = `
CREATE TABLE background_ids (
  key TEXT PRIMARY KEY,
  job TEXT NOT NULL,
  until INTEGER,
  print TEXT
) WITHOUT ROWID;
CREATE INDEX background_ids_job ON background_ids (job);
CREATE INDEX background_ids_until ON background_ids (until) WHERE until IS NOT NULL;
CREATE TRIGGER background_id_ended AFTER UPDATE OF state ON background_jobs
  WHEN NEW.dedup IS NOT NULL AND NEW.state IN ('completed', 'failed', 'cancelled')
  BEGIN DELETE FROM background_ids WHERE job = NEW.id AND (until IS NULL OR NEW.state = 'cancelled'); END;
CREATE TRIGGER background_id_revived AFTER UPDATE OF state ON background_jobs
  WHEN NEW.dedup <> '' AND OLD.state = 'failed' AND NEW.state IN ('waiting', 'delayed')
  BEGIN INSERT OR IGNORE INTO background_ids (key, job) VALUES (NEW.dedup, NEW.id); END;
CREATE TRIGGER background_id_forgotten AFTER DELETE ON background_jobs WHEN OLD.dedup IS NOT NULL
  BEGIN DELETE FROM background_ids WHERE job = OLD.id AND print IS NOT NULL; END;
`

/** The job that stands for the id of this one; if there is none, this one does from now on. */
export function enter (tx: Transaction, { id, queue, name, policy: { deduplication } }: NewJob): Duplicate | undefined {
  if (deduplication === undefined) return undefined
  const key = keyOf(queue, name, deduplication.id)
  const found = tx.db.get<{ id: string, print: string | null }>(FIND, key, tx.now)
  if (found !== undefined) return { id: found.id, print: found.print ?? undefined }
  const { ttl, print = null } = deduplication
  tx.db.run(ENTER, key, id, ttl > 0 ? tx.now + Math.ceil(ttl) : null, print)
  return undefined
}

/** What a job keeps of it: its key while that lives with the job, an empty text for one that lives by time. */
export function mark ({ queue, name, policy: { deduplication } }: NewJob): string | null {
  if (deduplication === undefined) return null
  return deduplication.ttl > 0 ? '' : keyOf(queue, name, deduplication.id)
}

export function forgetIds (tx: Transaction): void {
  tx.db.run(OVER, tx.now)
}

/** Names of queues and tasks hold no line breaks. */
function keyOf (queue: string, name: string, id: string): string {
  return `${queue}\n${name}\n${id}`
}

/**
 * Flows: what a parent hears of its children stands in rows of its own, since the children may be forgotten before it
 * starts. Triggers write it with each end, and count the children that are left: 0, the parent may start; −1, it fails.
 */
import { describe } from '../../describe.ts'
import { errors } from '../../errors.ts'
import type { CancelReason, FlowNode } from '../../job.ts'
import { rideOf } from './ride.ts'
import type { Row } from './row.ts'
import { end, insert } from './steer.ts'
import type { Transaction } from './transaction.ts'

const AWAIT = "UPDATE background_jobs SET state = 'waiting-children', owner = NULL, children_left = ? WHERE id = ?"
const BELONG = 'UPDATE background_jobs SET parent = ?, ignored = ? WHERE id = ?'
const CHILD = 'INSERT INTO background_children (parent, no, id, name) VALUES (?, ?, ?, ?)'
const OPEN = "SELECT * FROM background_jobs WHERE parent = ? AND state IN ('pending', 'waiting', 'delayed', 'waiting-children')"
const DECIDED = "SELECT * FROM background_jobs WHERE state = 'waiting-children' AND children_left <= 0"
const FAILED_CHILD = "SELECT id FROM background_children WHERE parent = ? AND state IN ('failed', 'cancelled') AND ignored = 0 LIMIT 1"
const GO_ON = 'UPDATE background_jobs SET state = ?, ready_at = ? WHERE seq = ?'
const FAIL = `UPDATE background_jobs SET state = 'failed', failure = 'unrecoverable', error = ?, finished_at = ?, ended = ?, expires_at = NULL, fresh = 0
  WHERE seq = ?`

export const FLOWS_SCHEMA = `
CREATE TABLE background_children (
  parent TEXT NOT NULL,
  no INTEGER NOT NULL,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  ignored INTEGER NOT NULL DEFAULT 0,
  state TEXT,
  result TEXT,
  error TEXT,
  PRIMARY KEY (parent, no)
) WITHOUT ROWID;
CREATE INDEX background_parents ON background_jobs (children_left) WHERE state = 'waiting-children';
CREATE INDEX background_of_parent ON background_jobs (parent) WHERE parent IS NOT NULL;
CREATE TRIGGER background_child_ended AFTER UPDATE OF state ON background_jobs
  WHEN NEW.parent IS NOT NULL AND NEW.state IN ('completed', 'failed', 'cancelled') BEGIN
  UPDATE background_jobs SET children_left = CASE WHEN NEW.state = 'completed' OR NEW.ignored = 1 THEN children_left - 1 ELSE -1 END
    WHERE id = NEW.parent AND state = 'waiting-children' AND children_left > 0
    AND EXISTS (SELECT 1 FROM background_children WHERE id = NEW.id AND state IS NULL);
  UPDATE background_children SET state = NEW.state, result = NEW.result, error = NEW.error, ignored = NEW.ignored WHERE id = NEW.id;
END;
CREATE TRIGGER background_parent_forgotten AFTER DELETE ON background_jobs WHEN OLD.children_left IS NOT NULL
  BEGIN DELETE FROM background_children WHERE parent = OLD.id; END;
`

/** A job of a flow with its JSON text, made before the transaction. */
export interface StagedNode extends FlowNode {
  readonly payload: string
  readonly children: readonly StagedNode[]
}

export function stage (node: FlowNode): StagedNode {
  return { ...node, payload: JSON.stringify(node.job.payload), children: node.children.map(stage) }
}

export function insertFlow (tx: Transaction, { job, payload, ignored, children }: StagedNode, parent?: string): void {
  const { id } = job
  insert(tx, { job, payload }, children.length > 0)
  const { staged } = rideOf(tx)
  if (staged.at(-1)?.id === id) staged.pop() // it waits for its children, not for a response
  if (parent !== undefined) tx.db.run(BELONG, parent, ignored ? 1 : 0, id)
  if (children.length === 0) return
  tx.db.run(AWAIT, children.length, id)
  tx.move(job, 'pending', 'waiting-children')
  for (const [no, child] of children.entries()) {
    tx.db.run(CHILD, id, no, child.job.id, child.job.name)
    insertFlow(tx, child, id)
  }
}

/** The children of a cancelled parent that do not run. */
export function cancelChildren (tx: Transaction, parent: string, reason: CancelReason): void {
  for (const row of tx.db.all<Row>(OPEN, parent)) {
    end(tx, row, reason)
    tx.incidents.push({ kind: 'cancelled', job: tx.jobOf(row), reason })
    if (row.children_left !== null) cancelChildren(tx, row.id, reason)
  }
}

/** Parents that may start, or fail: an end of a child in this transaction has decided it, which may decide another parent. */
export function decideParents (tx: Transaction): void {
  for (let rows = tx.db.all<Row>(DECIDED); rows.length > 0; rows = tx.db.all<Row>(DECIDED)) {
    for (const row of rows) {
      if (row.children_left === 0) goOn(tx, row)
      else fail(tx, row)
    }
  }
}

function goOn (tx: Transaction, row: Row): void {
  const { seq, run_at: runAt } = row
  const state = runAt !== null && runAt > tx.now ? 'delayed' : 'waiting'
  tx.db.run(GO_ON, state, tx.now, seq)
  tx.move(row, 'waiting-children', state, 'delay')
  if (state === 'delayed') tx.wake(runAt as number)
}

function fail (tx: Transaction, row: Row): void {
  const child = tx.db.get<{ id: string }>(FAILED_CHILD, row.id)?.id ?? ''
  const { stack: _, ...error } = describe(new errors.ChildFailed(child))
  tx.db.run(FAIL, JSON.stringify(error), tx.now, tx.nextEnd(), row.seq)
  tx.move(row, 'waiting-children', 'failed')
  if (row.fresh === 1) tx.room(row.queue, row.bytes, -1)
  tx.incidents.push({ kind: 'child-failed', job: tx.jobOf(row), child })
}

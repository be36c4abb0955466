/**
 * Groups take turns: each has a row while jobs of it wait or run, with their numbers, kept by triggers, and its turn, which
 * rises when it is served. The jobs without a group have one too, whose name is empty.
 */
import type { GroupSettings } from '../../backend.ts'
import { grantStarts, limitedUntil } from './limits.ts'
import type { Connection, Transaction } from './transaction.ts'

const NEXT_TURN = 'SELECT coalesce(max(turn), 0) + 1 AS turn FROM background_groups WHERE queue = ?'
const ANY = 'SELECT 1 AS yes FROM background_groups WHERE queue = ? AND waiting > 0 LIMIT 1'
const IN_TURN = 'SELECT id, waiting, active, turn FROM background_groups WHERE queue = ? AND waiting > 0 ORDER BY turn'
const REST = "SELECT count(*) AS n FROM (SELECT 1 FROM background_jobs WHERE queue = ? AND state = 'waiting' AND group_id IS NULL LIMIT ?)"
const REST_TURN = "SELECT turn FROM background_groups WHERE queue = ? AND id = ''"
const SERVED = 'INSERT INTO background_groups (queue, id, turn) VALUES (?, ?, ?) ON CONFLICT (queue, id) DO UPDATE SET turn = excluded.turn'
const IDLE_STARTS = 'DELETE FROM background_starts WHERE queue > ? AND queue < ? AND queue IN (SELECT queue FROM background_starts GROUP BY queue HAVING max(at) <= ?)'
const SHRINK = 'DELETE FROM background_starts WHERE queue > ? AND queue < ? AND slot >= ?'

export const GROUPS_SCHEMA = `
CREATE TABLE background_groups (
  queue TEXT NOT NULL,
  id TEXT NOT NULL,
  waiting INTEGER NOT NULL DEFAULT 0,
  active INTEGER NOT NULL DEFAULT 0,
  turn INTEGER NOT NULL,
  PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX background_turns ON background_groups (queue, turn);
CREATE INDEX background_ready_in_group ON background_jobs (queue, group_id, priority DESC, ready_at, seq) WHERE state = 'waiting' AND group_id IS NOT NULL;
CREATE TRIGGER background_group_added AFTER INSERT ON background_jobs WHEN NEW.group_id IS NOT NULL AND NEW.state = 'waiting' BEGIN
  INSERT INTO background_groups (queue, id, turn)
    VALUES (NEW.queue, NEW.group_id, (SELECT coalesce(max(turn), 0) + 1 FROM background_groups WHERE queue = NEW.queue)) ON CONFLICT DO NOTHING;
  UPDATE background_groups SET waiting = waiting + 1 WHERE queue = NEW.queue AND id = NEW.group_id;
END;
CREATE TRIGGER background_group_moved AFTER UPDATE OF state ON background_jobs WHEN NEW.group_id IS NOT NULL AND NEW.state <> OLD.state BEGIN
  INSERT INTO background_groups (queue, id, turn)
    VALUES (NEW.queue, NEW.group_id, (SELECT coalesce(max(turn), 0) + 1 FROM background_groups WHERE queue = NEW.queue)) ON CONFLICT DO NOTHING;
  UPDATE background_groups SET waiting = waiting + (NEW.state = 'waiting') - (OLD.state = 'waiting'),
    active = active + (NEW.state = 'active') - (OLD.state = 'active') WHERE queue = NEW.queue AND id = NEW.group_id;
  DELETE FROM background_groups WHERE queue = NEW.queue AND id = NEW.group_id AND waiting = 0 AND active = 0;
END;
`

/** A group's part in a claim: its jobs, in the rounds in which they are served. */
export interface Share {
  /** Undefined: of the jobs without a group. */
  readonly group: string | undefined
  readonly jobs: number
  /** For each of its jobs, its place in the order of all. */
  readonly places: readonly number[]
  /** Grants the start of the n-th. */
  readonly take: (n: number) => number
}

interface Candidate {
  readonly group: string | undefined
  most: number
  places: number[]
  take: (n: number) => number
}

/** How many jobs of which group may start, `limit` in all; nothing where no group waits. `heldUntil`: when those may that may not now. */
export function shareOut (tx: Transaction, queue: string, settings: GroupSettings | undefined, limit: number): { shares: Share[], heldUntil: number | undefined } | undefined {
  if (tx.db.get(ANY, queue) === undefined) return undefined
  const { row, heldUntil } = rowOf(tx, queue, settings, limit)
  let served = 0
  for (let left = row; served < limit && left.length > 0;) {
    for (const candidate of left) if (served < limit) candidate.places.push(served++)
    left = left.filter(({ places, most }) => places.length < most)
  }
  let turn = tx.db.get<{ turn: number }>(NEXT_TURN, queue)?.turn as number
  const shares = row.filter(({ places }) => places.length > 0)
  // Who was served last comes last again.
  for (const { group } of shares.toSorted((a, b) => (a.places.at(-1) as number) - (b.places.at(-1) as number))) tx.db.run(SERVED, queue, group ?? '', turn++)
  return { shares: shares.map(({ group, places, take }) => ({ group, places, take, jobs: places.length })), heldUntil }
}

/** Those that may start a job, in the order of their turns. */
function rowOf (tx: Transaction, queue: string, settings: GroupSettings | undefined, limit: number): { row: Candidate[], heldUntil: number | undefined } {
  const row: Candidate[] = []
  let heldUntil: number | undefined
  const rest = tx.db.get<{ n: number }>(REST, queue, limit)?.n ?? 0
  const restTurn = tx.db.get<{ turn: number }>(REST_TURN, queue)?.turn ?? 0
  let restStands = rest === 0
  const stand = (): void => {
    restStands = true
    row.push({ group: undefined, most: rest, places: [], take: () => -1 })
  }
  for (const { id, waiting, active, turn } of tx.db.all<{ id: string, waiting: number, active: number, turn: number }>(IN_TURN, queue)) {
    if (!restStands && restTurn <= turn) stand()
    if (row.length >= limit) break
    const free = Math.min(waiting, limit, (settings?.concurrency ?? Infinity) - active)
    const starts = settings?.limiter === undefined || free <= 0 ? undefined : grantStarts(tx, startsOf(queue, id), settings.limiter, free)
    const most = starts?.length ?? free
    if (most > 0) row.push({ group: id, most, places: [], take: (n) => starts?.take(n) ?? -1 })
    if (most < waiting && most < limit) heldUntil = Math.min(heldUntil ?? Infinity, heldBack(tx, queue, id, settings))
  }
  if (!restStands && row.length < limit) stand()
  return { row, heldUntil }
}

function heldBack (tx: Transaction, queue: string, id: string, settings: GroupSettings | undefined): number {
  return groupLimitedUntil(tx.db, queue, id, settings, tx.now) ?? Infinity
}

/** When a group's limiter lets its next job start, if that is not now. */
export function groupLimitedUntil (db: Connection, queue: string, id: string, settings: GroupSettings | undefined, now: number): number | undefined {
  return settings?.limiter === undefined ? undefined : limitedUntil(db, startsOf(queue, id), settings.limiter, now)
}

/** Waiting jobs that limiters of groups hold back. */
export function limitedInGroups (db: Connection, queue: string, settings: GroupSettings | undefined, now: number): number {
  if (settings?.limiter === undefined) return 0
  const groups = db.all<{ id: string, waiting: number }>(IN_TURN, queue)
  return groups.filter(({ id }) => groupLimitedUntil(db, queue, id, settings, now) !== undefined).reduce((sum, { waiting }) => sum + waiting, 0)
}

/** The name of a group's starts among those of queues, whose names hold no line breaks. */
export function startsOf (queue: string, group: string): string {
  return `${queue}\n${group}`
}

/** Starts of groups that count no more; and, once, those beyond a limit that was larger in an earlier deploy. */
export function tidyStarts (tx: Transaction, queue: string, { limiter }: GroupSettings, first: boolean): void {
  if (limiter === undefined) return
  const [from, to] = [`${queue}\n`, `${queue}\v`]
  tx.db.run(IDLE_STARTS, from, to, tx.now - limiter.duration)
  if (first) tx.db.run(SHRINK, from, to, limiter.max)
}

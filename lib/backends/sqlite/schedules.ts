/**
 * Schedules in the file. Every process looks when the next time comes; the one whose transaction is first makes the job and
 * moves the schedule on, in one step, and the others find it moved.
 */
import type { ScheduleStore } from '../../backend.ts'
import type { Clock, Timer } from '../../clock.ts'
import { isFinal, type JobState } from '../../job.ts'
import type { Json } from '../../json.ts'
import { ASK_AGAIN, timingOf, type Fire, type KeptSchedule, type Overlap, type Schedule, type ScheduleRule } from '../../schedule.ts'
import { insert } from './steer.ts'
import type { Connection, Transaction } from './transaction.ts'

export const SCHEDULES_SCHEMA = `
CREATE TABLE background_schedules (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  queue TEXT NOT NULL,
  payload TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  rule TEXT NOT NULL,
  timing TEXT NOT NULL,
  next INTEGER NOT NULL,
  count INTEGER NOT NULL DEFAULT 0,
  last_job TEXT,
  last_at INTEGER
) WITHOUT ROWID;
CREATE INDEX background_schedules_next ON background_schedules (next);
`

/** Ms between two looks at most: other processes add schedules too, and the wall clock may be set. */
const LOOK = 5_000
/** Schedules that are asked about in one transaction. */
const BATCH = 100

/** Before all times. */
const EVER = -8.64e15

const COLUMNS = 'id, name, queue, payload, bytes, rule, next, count, last_job, last_at'
const GO_ON = 'UPDATE background_schedules SET name = ?, queue = ?, payload = ?, bytes = ?, rule = ? WHERE id = ? AND timing = ?'
const REPLACE = `INSERT OR REPLACE INTO background_schedules (id, name, queue, payload, bytes, rule, timing, next) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
const REMOVE = 'DELETE FROM background_schedules WHERE id = ?'
const LIST = `SELECT ${COLUMNS} FROM background_schedules ORDER BY id`
const DUE = `SELECT ${COLUMNS}, (SELECT state FROM background_jobs WHERE background_jobs.id = last_job) AS last_state
  FROM background_schedules WHERE next <= ? AND (next, id) > (?, ?) ORDER BY next, id LIMIT ${BATCH}`
const NEXT = 'SELECT min(next) AS at FROM background_schedules WHERE next > ?'
const MOVE_ON = 'UPDATE background_schedules SET next = ?, count = count + 1, last_job = coalesce(?, last_job), last_at = coalesce(?, last_at) WHERE id = ?'

interface Row {
  id: string
  name: string
  queue: string
  payload: string
  bytes: number
  rule: string
  next: number
  count: number
  last_job: string | null
  last_at: number | null
}

/** Where a look through the due schedules has come to. */
interface Place {
  readonly next: number
  readonly id: string
}

export interface SqliteSchedulesParts {
  readonly clock: Clock
  readonly db: Connection
  readonly write: <T>(act: (tx: Transaction) => T) => Promise<T>
  readonly fire: Fire | undefined
}

export class SqliteSchedules implements ScheduleStore {
  readonly overlaps: readonly Overlap[] = ['skip', 'queue', 'allow']
  #parts: SqliteSchedulesParts | undefined
  #timer: Timer | undefined
  /** Wall time of the next look. */
  #look = Infinity

  start (parts: SqliteSchedulesParts): void {
    this.#parts = parts
    if (parts.fire !== undefined) this.#arm(this.#next(EVER))
  }

  close (): void {
    this.#disarm()
    this.#look = -Infinity
  }

  async put (schedule: Schedule, next: number | undefined): Promise<void> {
    const payload = JSON.stringify(schedule.payload)
    await this.#write((tx) => { put(tx, schedule, payload, next) })
    if (next !== undefined && next < this.#look && this.#parts?.fire !== undefined) this.#arm(next)
  }

  remove (id: string): Promise<boolean> {
    return this.#write((tx) => tx.db.run(REMOVE, id) > 0)
  }

  async list (): Promise<KeptSchedule[]> {
    return this.#parts?.db.all<Row>(LIST).map(toKept) ?? []
  }

  async #write<T> (act: (tx: Transaction) => T): Promise<T> {
    return (this.#parts as SqliteSchedulesParts).write(act)
  }

  #next (now: number): number {
    return this.#parts?.db.get<{ at: number | null }>(NEXT, now)?.at ?? Infinity
  }

  #arm (at: number): void {
    if (this.#look === -Infinity || this.#parts === undefined) return
    this.#disarm()
    const { clock } = this.#parts
    const now = clock.now()
    this.#look = Math.min(Math.max(at, now), now + LOOK)
    this.#timer = clock.setTimer(() => { void this.#ring() }, this.#look - now)
    this.#timer.unref()
  }

  #disarm (): void {
    if (this.#timer !== undefined) this.#parts?.clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  async #ring (): Promise<void> {
    const { clock } = this.#parts as SqliteSchedulesParts
    let again = Infinity
    try {
      if (this.#next(EVER) <= clock.now()) again = await this.#fireAll()
      again = Math.min(again, this.#next(clock.now()))
    } catch {
      again = clock.now() + ASK_AGAIN // the store fails, which is told by whoever wrote
    }
    this.#arm(again)
  }

  /** Answers when to ask again about those that cannot fire now. */
  async #fireAll (): Promise<number> {
    const { clock } = this.#parts as SqliteSchedulesParts
    let held = false
    for (let from: Place | undefined = { next: EVER, id: '' }; from !== undefined;) {
      const start: Place = from
      const batch = await this.#write((tx) => this.#fire(tx, start))
      held ||= batch.held
      from = batch.last
    }
    return held ? clock.now() + ASK_AGAIN : Infinity
  }

  #fire (tx: Transaction, from: Place): { held: boolean, last: Place | undefined } {
    const { clock, fire } = this.#parts as SqliteSchedulesParts
    const now = clock.now()
    const due = tx.db.all<Row & { last_state: JobState | null }>(DUE, now, from.next, from.id)
    let held = false
    for (const { last_state: last, ...row } of due) {
      const kept = toKept(row)
      const firing = fire?.(kept, last !== null && !isFinal(last))
      if (firing === undefined) {
        held = true
        continue
      }
      const { job, next, skipped } = firing
      if (job !== undefined && insert(tx, { job, payload: row.payload }, false) === undefined) tx.incidents.push({ kind: 'fired', job })
      if (next === undefined) tx.db.run(REMOVE, row.id)
      else tx.db.run(MOVE_ON, next, job?.id ?? null, job === undefined ? null : now, row.id)
      if (skipped !== undefined) tx.incidents.push({ kind: 'skipped', schedule: kept, why: skipped })
    }
    const last = due.length < BATCH ? undefined : due.at(-1)
    return { held, last: last && { next: last.next, id: last.id } }
  }
}

function put (tx: Transaction, { id, name, queue, bytes, rule }: Schedule, payload: string, next: number | undefined): void {
  const timing = timingOf(rule)
  if (tx.db.run(GO_ON, name, queue, payload, bytes, JSON.stringify(rule), id, timing) > 0) return
  if (next === undefined) tx.db.run(REMOVE, id)
  else tx.db.run(REPLACE, id, name, queue, payload, bytes, JSON.stringify(rule), timing, next)
}

function toKept ({ id, name, queue, payload, bytes, rule, next, count, last_job: lastJobId, last_at: lastAt }: Row): KeptSchedule {
  return { id, name, queue, payload: JSON.parse(payload) as Json, bytes, rule: JSON.parse(rule) as ScheduleRule, next, count, lastJobId, lastAt }
}

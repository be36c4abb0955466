/** What is read: jobs, lists, numbers. */
import type { JobQuery, QueueCounts, QueueSettings, Tally } from '../../backend.ts'
import type { JobRecord, JobState } from '../../job.ts'
import { groupLimitedUntil, limitedInGroups } from './groups.ts'
import { limitedUntil } from './limits.ts'
import { toRecord, type Row } from './row.ts'
import type { Connection } from './transaction.ts'

const FIND = 'SELECT * FROM background_jobs WHERE id = ?'
const MEANT = 'name = coalesce(?, name) AND queue = coalesce(?, queue) AND state IN (SELECT value FROM json_each(?))'
const LIST = `SELECT * FROM background_jobs WHERE id > ? AND ${MEANT} ORDER BY id LIMIT ?`
const LIST_BACK = `SELECT * FROM background_jobs WHERE id < ? AND ${MEANT} ORDER BY id DESC LIMIT ?`
/** Above all ids. */
const END = 'g'
const COUNTS = 'SELECT queue, what, sum(n) AS n FROM background_counts GROUP BY queue, what'
const TALLY = "SELECT queue, task, what AS state, n AS jobs FROM background_counts WHERE task <> '' AND n > 0"
const OLDEST_IN_GROUPS = "SELECT min(ready_at) AS at FROM background_jobs WHERE queue = ? AND state = 'waiting' AND group_id IS NOT NULL"
const LEVEL = `SELECT priority, ready_at FROM background_jobs WHERE queue = ? AND state = 'waiting' AND group_id IS NULL AND priority < ?
  ORDER BY priority DESC, ready_at LIMIT 1`
const ENDED = `SELECT id, state, ended FROM background_jobs WHERE state IN ('completed', 'cancelled') AND ended > ? AND ended <= ?
  UNION ALL SELECT id, state, ended FROM background_jobs WHERE state = 'failed' AND ended > ? AND ended <= ? ORDER BY ended`

const ALL: readonly JobState[] = ['pending', 'waiting', 'delayed', 'waiting-children', 'active', 'completed', 'failed', 'cancelled']
/** Levels of priority looked at for the oldest waiting job. */
const MOST_LEVELS = 100

export class Reads {
  readonly #db: Connection
  readonly #queues: ReadonlyMap<string, QueueSettings>
  readonly #now: () => number

  constructor (db: Connection, queues: ReadonlyMap<string, QueueSettings>, now: () => number) {
    this.#db = db
    this.#queues = queues
    this.#now = now
  }

  get (id: string): JobRecord | undefined {
    const row = this.#db.get<Row>(FIND, id)
    return row === undefined ? undefined : toRecord(row, this.#heldUntil(row))
  }

  list ({ newestFirst = false, after = newestFirst ? END : '', name, queue, states = ALL, limit }: JobQuery): JobRecord[] {
    // Waiting jobs that a limiter holds back are shown as delayed: whether they are meant is known afterwards.
    const limits = [...this.#queues.values()].some(({ limiter, groups }) => (limiter ?? groups?.limiter) !== undefined)
    const asked = limits && states.includes('delayed') ? [...states, 'waiting'] : states
    const sql = newestFirst ? LIST_BACK : LIST
    const rows = this.#db.all<Row>(sql, after, name ?? null, queue ?? null, JSON.stringify(asked), limits || limit === Infinity ? -1 : limit)
    const records = rows.map((row) => toRecord(row, this.#heldUntil(row)))
    return limits ? records.filter(({ state }) => states.includes(state)).slice(0, limit) : records
  }

  counts (): Record<string, QueueCounts> {
    const all: Record<string, QueueCounts> = Object.create(null)
    for (const queue of this.#queues.keys()) all[queue] = none()
    for (const { queue, what, n } of this.#db.all<{ queue: string, what: string, n: number }>(COUNTS)) {
      if (queue === '') continue
      const counts = (all[queue] ??= none())
      if (Object.hasOwn(counts, what)) counts[what as keyof QueueCounts] = n
    }
    for (const [queue, counts] of Object.entries(all)) {
      if (counts.waiting === 0) continue
      counts.oldestWaitingMs = Math.max(0, this.#now() - this.#oldestReady(queue))
      const inGroups = (): number => limitedInGroups(this.#db, queue, this.#queues.get(queue)?.groups, this.#now())
      counts.limited = this.limitedUntil(queue) === undefined ? inGroups() : counts.waiting
      counts.delayed += counts.limited
      counts.waiting -= counts.limited
    }
    return all
  }

  tally (): Tally[] {
    return this.#db.all<Tally>(TALLY).map(({ queue, task, state, jobs }) => ({
      queue, task, state: state === 'waiting' && this.limitedUntil(queue) !== undefined ? 'delayed' : state, jobs
    }))
  }

  /** Of a queue: fresh jobs, the bytes of their payloads, and jobs that wait. */
  room (queue: string): { jobs: number, bytes: number, waiting: number } {
    const found = new Map(this.#db.all<{ queue: string, what: string, n: number }>(COUNTS).filter((row) => row.queue === queue).map(({ what, n }) => [what, n]))
    return { jobs: found.get('fresh') ?? 0, bytes: found.get('bytes') ?? 0, waiting: found.get('waiting') ?? 0 }
  }

  /** Ended jobs, dead letters apart. */
  kept (): { done: number, dead: number } {
    const kept = { done: 0, dead: 0 }
    for (const { what, n } of this.#db.all<{ what: string, n: number }>(COUNTS)) {
      if (what === 'completed' || what === 'cancelled') kept.done += n
      if (what === 'failed') kept.dead += n
    }
    return kept
  }

  limitedUntil (queue: string): number | undefined {
    const limiter = this.#queues.get(queue)?.limiter
    return limiter === undefined ? undefined : limitedUntil(this.#db, queue, limiter, this.#now())
  }

  /** When the limiters of the queue and of its group let a waiting job start, if they hold it back. */
  #heldUntil ({ queue, state, group_id: group }: Row): number | undefined {
    const until = this.limitedUntil(queue)
    if (state !== 'waiting' || group === null) return until
    const own = groupLimitedUntil(this.#db, queue, group, this.#queues.get(queue)?.groups, this.#now())
    return until === undefined || own === undefined ? until ?? own : Math.max(until, own)
  }

  /** In the order of their ends. */
  ended (after: number, upTo: number): Array<{ id: string, state: JobState }> {
    return this.#db.all(ENDED, after, upTo, after, upTo)
  }

  #oldestReady (queue: string): number {
    let oldest = this.#db.get<{ at: number | null }>(OLDEST_IN_GROUPS, queue)?.at ?? Infinity
    let below = Number.MAX_SAFE_INTEGER
    for (let levels = 0; levels < MOST_LEVELS; levels++) {
      const head = this.#db.get<{ priority: number, ready_at: number }>(LEVEL, queue, below)
      if (head === undefined) break
      oldest = Math.min(oldest, head.ready_at)
      below = head.priority
    }
    return oldest
  }
}

function none (): QueueCounts {
  return { pending: 0, waiting: 0, delayed: 0, 'waiting-children': 0, retrying: 0, limited: 0, active: 0, completed: 0, failed: 0, cancelled: 0, oldestWaitingMs: 0 }
}

/** One transaction: what it changes is summed up as it goes, and told when it is committed. */
import type { Change, Incident } from '../../backend.ts'
import type { DelayReason, JobState, Policy } from '../../job.ts'
import type { SqliteDatabase, SqliteStatement, SqlValue } from './driver.ts'
import { StoredJob, type JobRow } from './row.ts'

const ADD_COUNT = 'INSERT INTO background_counts (queue, what, task, n) VALUES (?, ?, ?, ?) ON CONFLICT (queue, what, task) DO UPDATE SET n = n + excluded.n'
const READ_COUNT = 'SELECT n FROM background_counts WHERE queue = ? AND what = ?'

/** Statements are prepared once. */
export class Connection {
  readonly database: SqliteDatabase
  readonly #prepared = new Map<string, SqliteStatement>()

  constructor (database: SqliteDatabase) {
    this.database = database
  }

  run (sql: string, ...values: SqlValue[]): number {
    return Number(this.#prepare(sql).run(...values).changes)
  }

  /** Answers the row's number. */
  insert (sql: string, ...values: SqlValue[]): number {
    return Number(this.#prepare(sql).run(...values).lastInsertRowid)
  }

  get<T> (sql: string, ...values: SqlValue[]): T | undefined {
    return (this.#prepare(sql).get(...values) ?? undefined) as T | undefined
  }

  all<T> (sql: string, ...values: SqlValue[]): T[] {
    return this.#prepare(sql).all(...values) as T[]
  }

  #prepare (sql: string): SqliteStatement {
    let statement = this.#prepared.get(sql)
    if (statement === undefined) this.#prepared.set(sql, statement = this.database.prepare(sql))
    return statement
  }
}

/** Beside states: `retrying` and `fresh` jobs, the `bytes` of the fresh ones. */
const OF_ALL_TASKS = ['retrying', 'fresh', 'bytes'] as const
type Counted = JobState | typeof OF_ALL_TASKS[number]

/** A job of which it is told. */
type Moved = Pick<JobRow, 'id' | 'queue' | 'name'>

export class Transaction {
  readonly db: Connection
  /** Whole ms since the epoch, on a clock that does not jump while the process lives. */
  readonly now: number
  /** This process, as the owner of jobs. */
  readonly self: number
  readonly changes: Change[] = []
  readonly incidents: Incident[] = []
  /** The first of the times at which something is to be done to a job it wrote. */
  due = Infinity
  readonly #usual: (task: string) => Policy
  readonly #sums = new Map<string, Map<Counted, number>>()
  /** The same of states, by task: this is what is kept. */
  readonly #tasks = new Map<string, Map<string, Map<JobState, number>>>()
  #end: number | undefined
  #ends = 0

  /** @param end the number of the last end in the file, if it is known */
  constructor (db: Connection, now: number, self: number, usual: (task: string) => Policy, end: number | undefined) {
    this.db = db
    this.now = now
    this.self = self
    this.#usual = usual
    this.#end = end
  }

  /** Something is to be done at this time. */
  wake (at: number): void {
    this.due = Math.min(this.due, at)
  }

  /** Whether it lets jobs of the queue wait, or wait no longer. */
  touches (queue: string): boolean {
    return this.#sums.get(queue)?.has('waiting') === true
  }

  /** What was counted so far. */
  sum (queue: string, what: Counted): number {
    return this.#sums.get(queue)?.get(what) ?? 0
  }

  jobOf (row: JobRow): StoredJob {
    return new StoredJob(row, this.#usual(row.name))
  }

  policyOf (task: string): Policy {
    return this.#usual(task)
  }

  /** A job changes its state; nothing: it comes, or goes. `reason`: of the delay, before or after. */
  move ({ id, queue, name }: Moved, from: JobState | undefined, to: JobState | undefined, reason: DelayReason | null = null): void {
    if (from !== undefined) this.#count(queue, name, from, -1)
    if (to !== undefined) this.#count(queue, name, to, 1)
    if (reason === 'retry' && from === 'delayed') this.count(queue, 'retrying', -1)
    if (reason === 'retry' && to === 'delayed') this.count(queue, 'retrying', 1)
    if (to !== undefined && to !== 'pending') this.changes.push({ id, state: to })
  }

  #count (queue: string, task: string, state: JobState, more: 1 | -1): void {
    this.count(queue, state, more)
    add(of(of(this.#tasks, queue), task), state, more)
  }

  count (queue: string, what: Counted, more: number): void {
    add(of(this.#sums, queue), what, more)
  }

  /** A job that never started comes (1) or leaves the waiting room (−1). */
  room (queue: string, bytes: number, more: 1 | -1): void {
    this.count(queue, 'fresh', more)
    this.count(queue, 'bytes', more * bytes)
  }

  /** The number of an end. */
  nextEnd (): number {
    return this.lastEnd + ++this.#ends
  }

  get ends (): number { return this.#ends }

  /** Of the ends before this transaction. */
  get lastEnd (): number {
    return (this.#end ??= this.db.get<{ n: number }>(READ_COUNT, '', 'ended')?.n ?? 0)
  }

  /** Before the commit. */
  sumUp (): void {
    for (const [queue, tasks] of this.#tasks) {
      for (const [task, states] of tasks) for (const [state, n] of states) this.#keep(queue, state, task, n)
    }
    for (const [queue, sums] of this.#sums) for (const what of OF_ALL_TASKS) this.#keep(queue, what, '', sums.get(what) ?? 0)
    this.#keep('', 'ended', '', this.#ends)
  }

  #keep (queue: string, what: Counted | 'ended', task: string, n: number): void {
    if (n !== 0) this.db.run(ADD_COUNT, queue, what, task, n)
  }
}

function of<Key, Inner, Value> (maps: Map<Key, Map<Inner, Value>>, key: Key): Map<Inner, Value> {
  let map = maps.get(key)
  if (map === undefined) maps.set(key, map = new Map<Inner, Value>())
  return map
}

function add<Key> (sums: Map<Key, number>, key: Key, more: number): void {
  sums.set(key, (sums.get(key) ?? 0) + more)
}

/** The backend in a SQLite file: accepted jobs survive the process, and with `synchronous: 'full'` the power cut. */
import type { Backend, BackendSettings, CancelAnswer, Change, FlowStore, JobQuery, Load, Note, QueueCounts, Sink, Tally } from '../../backend.ts'
import * as check from '../../check.ts'
import { systemClock, type Clock } from '../../clock.ts'
import { errors } from '../../errors.ts'
import type { Attempt, CancelReason, JobRecord, NewJob, Outcome, Duplicate, Duplicates, FlowNode } from '../../job.ts'
import type { Copied } from '../../json.ts'
import { judgeStarts, noteOverdue, noteProgress, settle } from './attempts.ts'
import { openFile, prepareConnection, stopWaiting, type SqliteDatabase } from './driver.ts'
import { Engine } from './engine.ts'
import { cancelChildren, insertFlow, stage } from './flows.ts'
import { ClaimedAttempt } from './row.ts'
import { SqliteSchedules } from './schedules.ts'
import { migrate } from './schema.ts'
import { cancel, insert, promote, release, remove, retry } from './steer.ts'
import { Connection } from './transaction.ts'

export type { SqliteDatabase, SqliteStatement, SqlValue } from './driver.ts'

/** Options of `sqlite`: either a `path` or a `database`. */
export interface SqliteOptions {
  /** The file; made where there is none, beside its `-wal` and `-shm`. On a local disk: no network file system. Needs Node 22.13. Without it `database` is needed. */
  path?: string | undefined
  /** A connection made by better-sqlite3 or the like, for this backend alone. It is not closed by us. Not together with `path`. Without it `path` is needed. */
  database?: SqliteDatabase | undefined
  /**
   * `full`: an accepted job survives a power cut. `normal`: it survives the end of the process, not that of the machine;
   * commits do not wait for the disk. @default 'full'
   */
  synchronous?: 'full' | 'normal' | undefined
  /** The time to live by. For tests. @default the system's */
  clock?: Clock | undefined
}

const CHECKS: check.Checks = {
  path: (value) => typeof value === 'string' && value !== '' && !value.includes(':memory:') ? undefined : 'the path of a file',
  database: (value) => ['exec', 'prepare', 'close'].every((verb) => typeof (value as Record<string, unknown> | null)?.[verb] === 'function')
    ? undefined : 'a connection made by better-sqlite3 or the like',
  synchronous: check.oneOf('full', 'normal'),
  clock: check.anything
}

/**
 * Jobs in a file. Nothing is opened before the application is ready.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION; at `ready()`: FST_BG_STORE_UNUSABLE
 */
export function sqlite (options: SqliteOptions): Backend {
  const { path, database, synchronous = 'full', clock } = check.options<SqliteOptions>('sqlite(options)', CHECKS, options)
  if ((path === undefined) === (database === undefined)) throw new errors.BadOption('sqlite(options)', 'either path or database', path === undefined ? 'none' : 'both')
  return new Sqlite(path, database, synchronous, clock)
}

class Sqlite implements Backend {
  readonly name = 'sqlite'
  readonly durable = true
  readonly capabilities = { inline: false, delay: true, ttl: true, priority: true, limiter: true, deduplication: true, groups: true, cancelled: true, patch: true }
  readonly schedules = new SqliteSchedules()
  readonly clock?: Clock
  readonly #path: string | undefined
  readonly #database: SqliteDatabase | undefined
  readonly #synchronous: 'full' | 'normal'
  readonly flows: FlowStore = { add: (root) => this.#addFlow(root) }
  #open: SqliteDatabase | undefined
  #started: Engine | undefined

  constructor (path: string | undefined, database: SqliteDatabase | undefined, synchronous: 'full' | 'normal', clock: Clock | undefined) {
    this.#path = path
    this.#database = database
    this.#synchronous = synchronous
    if (clock !== undefined) this.clock = clock
  }

  get unreachable (): boolean { return this.#started?.failing === true }

  async start (sink: Sink, settings: BackendSettings): Promise<void> {
    if ((this.#started ?? this.#open) !== undefined) throw new errors.BadOption('options.backend', 'a sqlite() of its own', 'one that belongs to another application')
    const open = this.#open = this.#database ?? openFile(this.#path as string)
    const path = this.#path ?? 'the database'
    try {
      await prepareConnection(open, path, this.#synchronous)
      migrate(open, path)
      const clock = this.clock ?? systemClock
      const db = new Connection(open)
      const engine = this.#started = new Engine(db, clock, sink, settings)
      stopWaiting(open)
      this.schedules.start({ clock, db, write: (act) => engine.write(act), fire: settings.fire })
    } catch (error) {
      this.close()
      throw error
    }
  }

  close (): void {
    this.schedules.close()
    this.#started?.close()
    // What was passed in belongs to whoever made it.
    if (this.#database === undefined) this.#open?.close()
    this.#open = undefined
  }

  want (queue: string, n: number): void {
    this.#engine.want(queue, n)
  }

  async settle (attempt: Attempt, outcome: Outcome): Promise<void> {
    if (attempt instanceof ClaimedAttempt) await this.#engine.settle(attempt, (tx) => { settle(tx, attempt, outcome) })
  }

  async note (attempt: Attempt, note: Note): Promise<void> {
    const engine = this.#engine
    if (!(attempt instanceof ClaimedAttempt) || !engine.isOut(attempt)) return
    if ('started' in note) {
      attempt.start = 'happened'
      await engine.write((tx) => { judgeStarts(tx, attempt) }, true)
      attempt.start = 'stored'
      return
    }
    return engine.write((tx) => 'overdue' in note ? noteOverdue(tx, attempt) : noteProgress(tx, attempt, note.progress))
  }

  async enqueue (jobs: readonly NewJob[], staged: boolean): Promise<Duplicates> {
    const engine = this.#engine
    // Throws before anything has changed.
    const added = jobs.map((job) => ({ job, payload: JSON.stringify(job.payload), queue: engine.queue(job.queue) }))
    const arrive = engine.arrivals.travel(jobs, staged)
    try {
      return await engine.write((tx) => {
        const duplicates = new Map<string, Duplicate>()
        for (const each of added) {
          const other = insert(tx, each, staged)
          if (other !== undefined) duplicates.set(each.job.id, other)
        }
        return duplicates
      })
    } finally {
      arrive()
    }
  }

  async #addFlow (root: FlowNode): Promise<void> {
    const engine = this.#engine
    const jobs: NewJob[] = []
    const collect = ({ job, children }: FlowNode): void => {
      jobs.push(job)
      for (const child of children) collect(child)
    }
    collect(root)
    for (const { queue } of jobs) engine.queue(queue) // throws before anything has changed
    const staged = stage(root)
    const arrive = engine.arrivals.travel(jobs, false)
    try {
      await engine.write((tx) => { insertFlow(tx, staged) })
    } finally {
      arrive()
    }
  }

  async release (ids: readonly string[]): Promise<void> {
    const engine = this.#engine
    const staged = engine.arrivals.come(ids)
    try {
      await engine.write((tx) => { for (const id of ids) release(tx, id, staged.get(id)) }, true)
    } finally {
      engine.arrivals.gone(staged)
    }
  }

  async cancel (id: string, reason: CancelReason, detail: string): Promise<CancelAnswer> {
    const engine = this.#engine
    const answer = await engine.write((tx) => {
      const cancelled = cancel(tx, id, reason, detail)
      if (cancelled === 'cancelled') cancelChildren(tx, id, reason)
      return cancelled
    })
    if (answer === 'cancelling') engine.abort(id, detail)
    else engine.arrivals.forget(id)
    return answer
  }

  async retry (ids: readonly string[], spacing: number, payloads?: ReadonlyMap<string, Copied>): Promise<number> {
    return this.#engine.write((tx) => {
      let done = 0
      for (const id of ids) if (retry(tx, id, done * spacing, payloads?.get(id))) done++
      return done
    })
  }

  async promote (id: string): Promise<boolean> {
    return this.#engine.write((tx) => promote(tx, id))
  }

  async remove (ids: readonly string[]): Promise<number> {
    return this.#engine.write((tx) => ids.filter((id) => remove(tx, id)).length)
  }

  async get (id: string): Promise<JobRecord | undefined> {
    const engine = this.#engine
    if (engine.hasOld) await engine.sweep()
    return engine.reads.get(id)
  }

  async list (query: JobQuery): Promise<JobRecord[]> {
    if (this.#engine.hasOld) await this.#engine.sweep()
    return this.#engine.reads.list(query)
  }

  async counts (): Promise<Record<string, QueueCounts>> {
    if (this.#engine.hasOld) await this.#engine.sweep()
    return this.#engine.reads.counts()
  }

  tally (): Tally[] {
    return this.#engine.reads.tally()
  }

  load (queue: string): Load {
    return this.#engine.queue(queue).load
  }

  watch (listener: (change: Change) => void): () => void {
    return this.#engine.watch(listener)
  }

  get #engine (): Engine {
    if (this.#started === undefined) throw new errors.NotReady('a backend that is not started')
    return this.#started
  }
}

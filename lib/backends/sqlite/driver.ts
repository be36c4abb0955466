/** The database engine: Node's own where it has one, or one that the user passes. */
import { statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { systemClock } from '../../clock.ts'
import { describe } from '../../describe.ts'
import { errors } from '../../errors.ts'

/** What is bound to a statement. */
export type SqlValue = string | number | null

/** A compiled statement. Values are bound by their place. */
export interface SqliteStatement {
  /** For its effect. */
  run (...values: SqlValue[]): { changes: number | bigint, lastInsertRowid: number | bigint }
  /** Its first row. */
  get (...values: SqlValue[]): unknown
  /** All its rows. */
  all (...values: SqlValue[]): unknown[]
}

/** The part of a connection that is used: that of `node:sqlite` and of better-sqlite3. */
export interface SqliteDatabase {
  /** Runs statements without values. */
  exec (sql: string): unknown
  /** Compiles a statement. */
  prepare (sql: string): SqliteStatement
  /** Closes the file. */
  close (): unknown
}

interface NodeSqlite {
  DatabaseSync: new (path: string) => SqliteDatabase
}

const NETWORKS = new Map([[0x6969, 'NFS'], [0xff534d42, 'CIFS'], [0xfe534d42, 'SMB'], [0x517b, 'SMB'], [0x5346414f, 'AFS'], [0x73757245, 'Coda'], [0xc36400, 'Ceph']])

/** Ms to wait for other processes, while the application boots and may be blocked. */
const PATIENCE_AT_START = 5_000
/** Ms between two tries where the engine itself does not wait. */
const TRY_AGAIN = 10

/**
 * Opens the file with Node's own engine.
 * @throws FST_BG_STORE_UNUSABLE
 */
export function openFile (path: string): SqliteDatabase {
  const { getBuiltinModule } = process as { getBuiltinModule?: (name: string) => unknown }
  const engine = getBuiltinModule?.('node:sqlite') as NodeSqlite | undefined
  if (engine === undefined) {
    throw new errors.StoreUnusable(path, `Node ${process.versions.node} has no node:sqlite; pass a connection made by better-sqlite3 or the like: sqlite({ database }), or use Node 22.13 or later`)
  }
  return unlessUnusable(path, () => {
    const network = networkOf(statfsSync(dirname(path)).type)
    if (network !== undefined) throw new Error(`it is on a network file system (${network}), where processes cannot rely on each other's locks: a file on a local disk is needed`)
    return new engine.DatabaseSync(path)
  })
}

/** By the number that Linux gives to a file system; those of other systems are other numbers, and say nothing. */
export function networkOf (type: number): string | undefined {
  return NETWORKS.get(type)
}

/**
 * Sets up a connection.
 * @throws FST_BG_STORE_UNUSABLE
 */
export async function prepareConnection (database: SqliteDatabase, path: string, synchronous: 'full' | 'normal'): Promise<void> {
  unlessUnusable(path, () => database.exec(`PRAGMA busy_timeout = ${PATIENCE_AT_START}`))
  // Other processes live by the system's time, whatever the backend's clock is.
  const latest = systemClock.monotonic() + PATIENCE_AT_START
  while (!unlessUnusable(path, () => keepsWal(database, latest))) {
    await new Promise<void>((resolve) => { systemClock.setTimer(resolve, TRY_AGAIN) })
  }
  unlessUnusable(path, () => {
    database.exec(`PRAGMA synchronous = ${synchronous}`)
    database.exec('PRAGMA cache_size = -16000')
    database.exec('PRAGMA journal_size_limit = 67108864')
  })
}

/** False when another process does the same to a new file: SQLite then refuses at once, whatever its busy_timeout. */
function keepsWal (database: SqliteDatabase, latest: number): boolean {
  try {
    const row = database.prepare('PRAGMA journal_mode = WAL').get() as { journal_mode: string }
    if (row.journal_mode !== 'wal') throw new Error(`its journal cannot be WAL (it is "${row.journal_mode}"): a file on a local disk is needed`)
    return true
  } catch (error) {
    if (isBusy(error) && systemClock.monotonic() < latest) return false
    throw error
  }
}

/** From now on nobody waits inside the engine, which would block the event loop: who finds the file locked comes again. */
export function stopWaiting (database: SqliteDatabase): void {
  database.exec('PRAGMA busy_timeout = 0')
}

export function unlessUnusable<T> (path: string, act: () => T): T {
  try {
    return act()
  } catch (cause) {
    const { code, message } = describe(cause)
    if (code === 'FST_BG_STORE_UNUSABLE') throw cause
    throw Object.assign(new errors.StoreUnusable(path, message), { cause })
  }
}

/** Another process writes. Engines say so in ways of their own. */
export function isBusy (error: unknown): boolean {
  const { code, errcode, message } = error as { code?: unknown, errcode?: unknown, message?: unknown }
  // An extended code keeps the plain one in its low byte.
  return (typeof errcode === 'number' && (errcode & 0xff) === 5) || (typeof code === 'string' && code.startsWith('SQLITE_BUSY')) || message === 'database is locked'
}

/** SQLite for tests: where Node has it, and in files that are gone afterwards. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SqliteDatabase } from '../../lib/backends/sqlite/index.ts'

/** Why the tests of SQLite cannot run here; false where they can. */
export const noSqlite: string | false = (() => {
  const engine = (process as { getBuiltinModule?: (name: string) => unknown }).getBuiltinModule?.('node:sqlite')
  return engine === undefined ? `NOT TESTED HERE: Node ${process.versions.node} has no node:sqlite; Node 22 and 24 run these tests` : false
})()

/** Node 22 warns at the first use. */
export const SQLITE_WARNING = /SQLite is an experimental feature/

export interface RawDatabase {
  exec (sql: string): void
  prepare (sql: string): { run (...values: unknown[]): { changes: number, lastInsertRowid: number }, get (...values: unknown[]): Record<string, unknown> | undefined, all (...values: unknown[]): Array<Record<string, unknown>> }
  close (): void
}

/** A connection of the test's own. */
export function openRaw (path: string): RawDatabase {
  const { DatabaseSync } = createRequire(import.meta.url)('node:sqlite') as { DatabaseSync: new (path: string) => RawDatabase }
  return new DatabaseSync(path)
}

/** What users pass where Node has no engine of its own. libsql is made after better-sqlite3, whose releases without a build need Node 22. */
export const otherEngine = noSqlite === false ? 'better-sqlite3' : 'libsql'

export function openOther (path: string): SqliteDatabase {
  const Database = createRequire(import.meta.url)(otherEngine) as new (path: string) => SqliteDatabase
  return new Database(path)
}

/** The path of a file that is not there yet. */
export function freshFile (t: { teardown (run: () => void): unknown }): string {
  const folder = mkdtempSync(join(tmpdir(), 'background-tasks-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  return join(folder, 'jobs.db')
}

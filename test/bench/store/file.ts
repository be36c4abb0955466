/** A SQLite file for a process of the bench, on the disk and not in memory; and an engine to open it with. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sqlite, type SqliteDatabase } from '../../../lib/backends/sqlite/index.ts'
import type { Backend, Clock } from '../../../lib/index.ts'
import { noSqlite, openOther, openRaw, otherEngine } from '../../support/sqlite.ts'

/** Node's own, or that of its users: all of a run share one. */
export const engine = noSqlite === false ? 'node:sqlite' : otherEngine

export function freshPath (): string {
  const folder = mkdtempSync(join(tmpdir(), 'bench-store-'))
  process.on('exit', () => { rmSync(folder, { recursive: true, force: true }) })
  return join(folder, 'jobs.db')
}

export function open (path: string): SqliteDatabase {
  return noSqlite === false ? openRaw(path) : openOther(path)
}

export function openBackend (synchronous: 'full' | 'normal', path = freshPath(), clock?: Clock): Backend {
  return sqlite({ ...(noSqlite === false ? { path } : { database: open(path) }), synchronous, clock })
}

/** The tables, and how an older file becomes a newer one. */
import { errors } from '../../errors.ts'
import { IDS_SCHEMA } from './deduplication.ts'
import { FLOWS_SCHEMA } from './flows.ts'
import { GROUPS_SCHEMA } from './groups.ts'
import { unlessUnusable, type SqliteDatabase } from './driver.ts'
import { SCHEDULES_SCHEMA } from './schedules.ts'

/**
 * Instants are whole ms since the epoch. A job is `fresh` while it never started: 1; 2 as its first attempt is claimed, so
 * that the claim can tell; then 0. `owner` and `token` name the attempt that owns an active job; a pending job is owned by
 * the process whose response staged it. `ended` rises with each end, in the whole file.
 */
const FIRST = `
CREATE TABLE background_jobs (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  queue TEXT NOT NULL,
  state TEXT NOT NULL,
  payload TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  request_id TEXT,
  policy TEXT,
  carrier TEXT,
  attempts INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  attempts_made INTEGER NOT NULL DEFAULT 0,
  fresh INTEGER NOT NULL DEFAULT 1,
  ready_at INTEGER,
  run_at INTEGER,
  expires_at INTEGER,
  delay_reason TEXT,
  owner INTEGER,
  token INTEGER,
  cancel TEXT,
  started_at INTEGER,
  finished_at INTEGER,
  ended INTEGER,
  overdue INTEGER,
  progress TEXT,
  result TEXT,
  result_omitted TEXT,
  error TEXT,
  failure TEXT,
  reason TEXT,
  history TEXT,
  group_id TEXT,
  dedup TEXT,
  parent TEXT,
  ignored INTEGER,
  children_left INTEGER
);
CREATE INDEX background_ready ON background_jobs (queue, priority DESC, ready_at, seq) WHERE state = 'waiting' AND group_id IS NULL;
CREATE INDEX background_due ON background_jobs (run_at) WHERE state = 'delayed';
CREATE INDEX background_expiry ON background_jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX background_owned ON background_jobs (owner) WHERE owner IS NOT NULL;
CREATE INDEX background_done ON background_jobs (ended) WHERE state IN ('completed', 'cancelled');
CREATE INDEX background_dead ON background_jobs (ended) WHERE state = 'failed';
CREATE TABLE background_owners (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  boot TEXT NOT NULL,
  space TEXT NOT NULL,
  pid INTEGER NOT NULL,
  began TEXT NOT NULL,
  beat INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE background_counts (
  queue TEXT NOT NULL,
  what TEXT NOT NULL,
  task TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (queue, what, task)
) WITHOUT ROWID;
CREATE TABLE background_starts (
  queue TEXT NOT NULL,
  slot INTEGER NOT NULL,
  at INTEGER NOT NULL,
  owner INTEGER,
  PRIMARY KEY (queue, slot)
) WITHOUT ROWID;
CREATE INDEX background_starts_at ON background_starts (queue, at);
${IDS_SCHEMA}${GROUPS_SCHEMA}${FLOWS_SCHEMA}${SCHEDULES_SCHEMA}`

/** Each makes the next version; once released, none is changed. */
const MIGRATIONS = [FIRST]

const CREATE_META = 'CREATE TABLE IF NOT EXISTS background_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID'
const READ_VERSION = "SELECT value FROM background_meta WHERE name = 'schema'"
const WRITE_VERSION = "INSERT INTO background_meta (name, value) VALUES ('schema', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

/**
 * In one transaction, so that a file is never between two versions.
 * @throws FST_BG_STORE_UNUSABLE for a file of a newer version
 */
export function migrate (database: SqliteDatabase, path: string, migrations: readonly string[] = MIGRATIONS): void {
  unlessUnusable(path, () => {
    database.exec('BEGIN IMMEDIATE')
    try {
      database.exec(CREATE_META)
      const { value: version = 0 } = (database.prepare(READ_VERSION).get() ?? {}) as { value?: number }
      if (version > migrations.length) {
        throw new errors.StoreUnusable(path, `its schema has version ${version}, this release knows ${migrations.length}: a newer release has written it`)
      }
      for (const migration of migrations.slice(version)) database.exec(migration)
      if (version < migrations.length) database.prepare(WRITE_VERSION).run(migrations.length)
      database.exec('COMMIT')
    } catch (error) {
      database.exec('ROLLBACK')
      throw error
    }
  })
}

/** The SQLite backend: the contract, what it is given, its file. */
import t, { test } from 'tap'
import { networkOf, prepareConnection } from '../../lib/backends/sqlite/driver.ts'
import { sqlite, type SqliteDatabase } from '../../lib/backends/sqlite/index.ts'
import { migrate } from '../../lib/backends/sqlite/schema.ts'
import type { Backend } from '../../lib/backend.ts'
import { TestClock } from '../support/clock.ts'
import { backendContract, Bench } from '../support/contract.ts'
import { closeInTime, setup, type Harness } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'
import { freshFile, noSqlite, openOther, openRaw, otherEngine, SQLITE_WARNING } from '../support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

if (noSqlite === false) backendContract('sqlite', { create: (clock) => sqlite({ path: freshFile(t), clock }), allowWarnings: SQLITE_WARNING })
backendContract(`sqlite on a connection of ${otherEngine}`, {
  create (clock) {
    const database = openOther(freshFile(t))
    t.teardown(() => { database.close() })
    return sqlite({ database, clock })
  }
})

const here = { skip: noSqlite }

async function started (t: { teardown (run: () => unknown): unknown }, backend: Backend, clock: TestClock): Promise<Bench> {
  const bench = new Bench(backend, clock, 0)
  await bench.start()
  t.teardown(() => backend.close())
  return bench
}

test('options that make no sense are refused at the call', async (t) => {
  for (const options of [{}, { path: '' }, { path: ':memory:' }, { path: 5 }, { path: 'a.db', synchronous: 'off' }, { database: {} }, { file: 'a.db' }]) {
    t.throws(() => sqlite(options as never), { code: /FST_BG_(BAD|UNKNOWN)_OPTION/ }, JSON.stringify(options))
  }
})

test('where Node has no SQLite, ready() says what to do', { skip: noSqlite === false ? 'this Node has node:sqlite' : false }, async (t) => {
  const { app } = await setup(t, { backend: sqlite({ path: 'jobs.db' }) })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_STORE_UNUSABLE', message: /has no node:sqlite; pass a connection/ })
})

test('a connection of the user is used, and not closed', here, async (t) => {
  const database = openRaw(freshFile(t))
  const asked: string[] = []
  const spied = {
    exec: (sql: string) => { asked.push(sql); database.exec(sql) },
    prepare: (sql: string) => database.prepare(sql),
    close: () => { asked.push('close') }
  }
  const clock = new TestClock()
  const bench = await started(t, sqlite({ database: spied, synchronous: 'normal', clock }), clock)
  bench.backend.want('default', 1)
  await bench.add()
  await bench.settle(await bench.take(), { kind: 'completed' })
  await bench.backend.close()
  t.ok(asked.includes('PRAGMA synchronous = normal'))
  t.notOk(asked.includes('close'))
  t.equal(database.prepare('SELECT state FROM background_jobs').get()?.['state'], 'completed')
  database.close()
})

test('one sqlite() serves one application', here, async (t) => {
  const clock = new TestClock()
  const { backend } = await started(t, sqlite({ path: freshFile(t), clock }), clock)
  await t.rejects(async () => new Bench(backend, clock, 0).start(), /belongs to another application/)
})

test('what is asked for in one turn is committed once', here, async (t) => {
  const database = openRaw(freshFile(t))
  let commits = 0
  const counting = {
    exec: (sql: string) => { database.exec(sql) },
    prepare: (sql: string) => {
      const statement = database.prepare(sql)
      return sql === 'COMMIT' ? { ...statement, run: () => { commits++; return statement.run() } } : statement
    },
    close () {}
  }
  const clock = new TestClock()
  const bench = await started(t, sqlite({ database: counting, clock }), clock)
  bench.backend.want('default', 100)
  await bench.rest()
  commits = 0
  await Promise.all(Array.from({ length: 50 }, () => bench.add()))
  t.equal(commits, 1, '50 adds and their claims')
  t.equal(bench.delivered.length, 50)
  await Promise.all(bench.delivered.map((attempt) => bench.settle(attempt, { kind: 'completed' })))
  t.equal(commits, 2)
  await bench.backend.close()
  database.close()
})

test('a file that another process makes at the same moment is waited for', here, async (t) => {
  const database = openRaw(freshFile(t))
  let refusals = 3
  const contended = {
    exec: (sql: string) => { database.exec(sql) },
    prepare: (sql: string) => {
      // Of two that change the journal of one new file, SQLite refuses one at once.
      if (sql.includes('journal_mode') && refusals-- > 0) throw Object.assign(new Error('database is locked'), { errcode: 5 })
      return database.prepare(sql)
    },
    close () {}
  }
  const clock = new TestClock()
  const bench = await started(t, sqlite({ database: contended, clock }), clock)
  await bench.add()
  t.equal(refusals, -1)
  await bench.backend.close()
  database.close()
})

test('a file that is no database, or cannot be opened, is refused at ready', here, async (t) => {
  const { writeFileSync } = await import('node:fs')
  const text = freshFile(t)
  writeFileSync(text, 'this is no database, and it is long enough to have a header of one'.repeat(20))
  for (const path of [text, '/proc/none/jobs.db']) {
    const { app } = await setup(t, { backend: sqlite({ path, clock: new TestClock() }) })
    await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_STORE_UNUSABLE', message: new RegExp(path) })
  }
})

test('a network file system is refused, a local disk is not', async (t) => {
  t.strictSame([0x6969, 0xff534d42, 0xfe534d42].map(networkOf), ['NFS', 'CIFS', 'SMB'])
  t.strictSame([0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x794c7630].map(networkOf), Array(5).fill(undefined), 'ext4, XFS, Btrfs, tmpfs, overlayfs')
})

test('a file of a newer release is refused, and left as it is', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const bench = await started(t, sqlite({ path, clock }), clock)
  await bench.add()
  await bench.backend.close()
  const raw = openRaw(path)
  raw.exec("UPDATE background_meta SET value = 99 WHERE name = 'schema'")
  await t.rejects(async () => new Bench(sqlite({ path, clock }), clock, 0).start(), { code: 'FST_BG_STORE_UNUSABLE', message: /version 99, this release knows 1/ })
  t.equal(raw.prepare('SELECT count(*) AS n FROM background_jobs').get()?.['n'], 1)
  raw.close()
})

test('migrations run in order, in one transaction: one that fails leaves the file as it was', here, async (t) => {
  const raw = openRaw(freshFile(t))
  const database = raw as unknown as SqliteDatabase
  await prepareConnection(database, 'file', 'full')
  const first = 'CREATE TABLE one (a)'
  migrate(database, 'file', [first])
  t.throws(() => migrate(database, 'file', [first, 'CREATE TABLE two (a)', 'CREATE TABLE one (b)']), { code: 'FST_BG_STORE_UNUSABLE' })
  t.same(raw.prepare("SELECT name FROM sqlite_schema WHERE name IN ('one', 'two')").all(), [{ name: 'one' }])
  migrate(database, 'file', [first, 'CREATE TABLE two (a)', 'CREATE TABLE three (a)'])
  t.equal(raw.prepare("SELECT value FROM background_meta WHERE name = 'schema'").get()?.['value'], 3)
  migrate(database, 'file', [first, 'CREATE TABLE two (a)', 'CREATE TABLE three (a)'])
  raw.close()
})

test('waiting jobs are claimed by the index, whatever else is in the file', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const bench = await started(t, sqlite({ path, clock }), clock)
  await bench.rest()
  const raw = openRaw(path)
  const plan = (sql: string): string => raw.prepare(`EXPLAIN QUERY PLAN ${sql}`).all().map((row) => String(row['detail'])).join(' · ')
  const plans = [
    plan("SELECT seq FROM background_jobs WHERE queue = 'default' AND state = 'waiting' AND group_id IS NULL ORDER BY priority DESC, ready_at, seq LIMIT 5"),
    plan("SELECT seq FROM background_jobs WHERE queue = 'default' AND state = 'waiting' AND group_id IS NOT NULL AND group_id = 'a' ORDER BY priority DESC, ready_at, seq LIMIT 5"),
    plan("SELECT seq FROM background_jobs WHERE state = 'delayed' AND run_at <= 5 ORDER BY run_at LIMIT 5"),
    plan("SELECT seq FROM background_jobs WHERE state IN ('completed', 'cancelled') ORDER BY ended LIMIT 5"),
    plan('SELECT seq FROM background_jobs WHERE owner = 1')
  ]
  for (const said of plans) t.match(said, /USING (COVERING )?INDEX background_(ready|due|done|owned)/)
  for (const said of plans) t.notMatch(said, /TEMP B-TREE|SCAN background_jobs$/)
  raw.close()
})

test('of two processes that share a file, one makes the job of each time, and either can steer its schedules', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const benches = [await started(t, sqlite({ path, clock }), clock), await started(t, sqlite({ path, clock }), clock)] as const
  const [first, second] = benches
  for (const bench of benches) {
    bench.onFire = (kept) => ({ job: bench.job({ name: kept.name }), next: kept.next + 1_000, skipped: undefined })
  }
  const rule = { pattern: null, every: 1_000, tz: 'UTC', overlap: 'allow', missed: 'skip', startDate: null, endDate: null, limit: null } as const
  await first.backend.schedules?.put({ id: 'often', name: 'task', queue: 'default', payload: null, bytes: 4, rule }, clock.now() + 1_000)
  await clock.advance(60_000)
  const times = benches.flatMap(({ asked }) => asked.map(({ kept }) => kept.next))
  t.equal(times.length, 60)
  t.equal(new Set(times).size, 60)
  t.equal((await first.backend.counts()).default?.waiting, 60)
  t.match(await second.backend.schedules?.list(), [{ id: 'often', count: 60 }])
  t.equal(await second.backend.schedules?.remove('often'), true)
  await clock.advance(10_000)
  t.equal((await first.backend.counts()).default?.waiting, 60)
})

test('a schedule outlives its process, and the time it missed is made up for as it asks', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock(Date.parse('2026-01-01T00:30:00Z'))
  const open = async (): Promise<Harness> => {
    const harness = await setup(t, { backend: sqlite({ path, clock }) })
    harness.background.define('report', () => {})
    await harness.app.ready()
    return harness
  }
  const before = await open()
  await before.background.schedule('made up for', { every: 3_600_000, missed: 'once' }, 'report', 1)
  await before.background.schedule('left out', { every: 3_600_000 }, 'report', 2)
  await closeInTime(before.app, clock)
  clock.jump(5 * 3_600_000)
  const after = await open()
  await clock.advance(2_000)
  t.match(await after.background.schedules(), [{ id: 'left out', count: 1, lastJobId: null }, { id: 'made up for', count: 1, lastJobId: String, payload: 1 }])
  await after.background.schedule('made up for', { every: 3_600_000, missed: 'once' }, 'report', 1)
  t.match(await after.background.schedules(), [{}, { count: 1, next: '2026-01-01T06:00:00.000Z' }], 'put again, it goes on')
})

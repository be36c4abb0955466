/** A store that fails: what is refused, what is kept, and that it recovers. Faults are injected between us and the engine. */
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { sqlite, type SqliteDatabase } from '../../lib/backends/sqlite/index.ts'
import type { Awaitable } from '../../lib/backend.ts'
import { TestClock } from '../support/clock.ts'
import { Bench, completed, dead } from '../support/contract.ts'
import { setup, until } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'
import { freshFile, noSqlite, openRaw, SQLITE_WARNING, type RawDatabase } from '../support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })
const here = { skip: noSqlite }

const FULL = Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 })
const BUSY = Object.assign(new Error('database is locked'), { code: 'ERR_SQLITE_ERROR', errcode: 5 })
const READONLY = Object.assign(new Error('attempt to write a readonly database'), { code: 'SQLITE_READONLY' })
const CORRUPT = Object.assign(new Error('database disk image is malformed'), { code: 'ERR_SQLITE_ERROR', errcode: 11 })

/** Fails as it is told: at the nth statement that writes, or at all that match. */
class Faulty implements SqliteDatabase {
  readonly #inner: RawDatabase
  failing: { error: Error, when: RegExp } | undefined
  /** Statements that write until one fails; then none. */
  fuse = Infinity
  statements = 0

  constructor (inner: RawDatabase) { this.#inner = inner }

  exec (sql: string): void {
    this.#pass(sql)
    this.#inner.exec(sql)
  }

  prepare (sql: string): ReturnType<SqliteDatabase['prepare']> {
    const statement = this.#inner.prepare(sql)
    return {
      run: (...values) => { this.#pass(sql); return statement.run(...values) },
      get: (...values) => { this.#pass(sql); return statement.get(...values) },
      all: (...values) => { this.#pass(sql); return statement.all(...values) }
    }
  }

  close (): void { this.#inner.close() }

  #pass (sql: string): void {
    if (this.failing?.when.test(sql) === true) throw this.failing.error
    if (!/^(INSERT|UPDATE|DELETE|BEGIN|COMMIT)/.test(sql)) return
    this.statements++
    if (--this.fuse >= 0) return
    this.fuse = Infinity
    throw FULL
  }
}

async function faulty (t: { teardown (run: () => unknown): unknown }): Promise<{ bench: Bench, database: Faulty, raw: RawDatabase }> {
  const raw = openRaw(freshFile(t))
  const database = new Faulty(raw)
  const clock = new TestClock()
  const backend = sqlite({ database, clock })
  t.teardown(async () => {
    database.failing = undefined
    await backend.close()
    raw.close()
  })
  const bench = new Bench(backend, clock, 0)
  await bench.start()
  await bench.rest()
  return { bench, database, raw }
}

for (const [title, failing] of Object.entries({
  'a full disk at the write': { error: FULL, when: /^INSERT INTO background_jobs|^UPDATE background_jobs/ },
  'a full disk at the commit': { error: FULL, when: /^COMMIT/ },
  'a read-only file': { error: READONLY, when: /^BEGIN/ },
  'a corrupt file': { error: CORRUPT, when: /./ }
})) {
  t.test(`${title}: adding is refused at once, ends are kept and stored when the store is well, each is told once`, here, async (t) => {
    const { bench, database } = await faulty(t)
    bench.backend.want('default', 2)
    const [first, second] = await bench.enqueue({}, {}) as [string, string]
    const attempts = [await bench.take(), await bench.take()] as const
    const staged = await bench.add({ staged: true })
    database.failing = failing
    await t.rejects(bench.add(), { message: failing.error.message })
    await t.rejects(bench.add(), { message: failing.error.message })
    t.equal(bench.backend.unreachable, true)
    const kept = [bench.settle(attempts[0], completed), bench.settle(attempts[1], dead), Promise.resolve(bench.backend.release([staged]))]
    await bench.clock.advance(10_000)
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 1, bytes: 4 }, 'what was refused takes no room')
    database.failing = undefined
    await bench.clock.advance(2_000)
    await Promise.all(kept)
    t.equal(bench.backend.unreachable, false)
    t.strictSame(await bench.states([first, second]), ['completed', 'failed'])
    t.equal((await bench.take()).job.id, staged)
    t.strictSame(bench.told().filter((line) => /lost|back/.test(line)), ['lost ', 'back '])
    t.match(await bench.add(), String)
  })
}

t.test('wherever a statement fails, a transaction is done or not done at all', here, async (t) => {
  const { bench, database, raw } = await faulty(t)
  bench.backend.want('default', 3)
  for (let n = 0; n < 40; n++) {
    database.fuse = n
    const ids = await bench.enqueue({ payload: n }, { delay: 1_000, payload: n }).catch(() => [])
    await bench.rest()
    for (const attempt of bench.delivered.splice(0)) void Promise.resolve(bench.settle(attempt, n % 3 === 0 ? dead : completed))
    await bench.clock.advance(100)
    database.fuse = Infinity
    await bench.clock.advance(3_000)
    for (const attempt of bench.delivered.splice(0)) await bench.settle(attempt, completed)
    const counted = await bench.backend.counts()
    const rows = raw.prepare('SELECT state, count(*) AS n FROM background_jobs GROUP BY state').all()
    for (const { state, n } of rows) t.equal((counted['default'] as unknown as Record<string, number>)[String(state)], n, `${String(state)} are counted as they are`)
    t.ok(ids.length === 0 || (await bench.states(ids)).every((state) => state !== undefined))
  }
  t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
})

t.test('one write that cannot be done does not take the others with it', here, async (t) => {
  const { bench } = await faulty(t)
  const job = bench.job()
  await bench.backend.enqueue([job], false)
  const asked = [bench.add(), Promise.resolve(bench.backend.enqueue([job], false)), bench.add()]
  t.match((await Promise.allSettled<Awaitable<unknown>>(asked)).map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled'])
  t.equal(bench.backend.unreachable, false)
  t.equal((await bench.backend.counts())['default']?.waiting, 3)
})

t.test('a file that others lock is tried again without blocking, and given up after five seconds', here, async (t) => {
  const { bench, database } = await faulty(t)
  database.failing = { error: BUSY, when: /^BEGIN/ }
  const added = bench.add()
  await bench.clock.advance(1_000)
  t.equal(bench.backend.unreachable, false)
  database.failing = undefined
  await bench.clock.advance(10)
  t.match(await added, String)
  database.failing = { error: BUSY, when: /^BEGIN/ }
  const refused = t.rejects(bench.add(), { message: 'database is locked' })
  await bench.clock.advance(5_100)
  await refused
  t.equal(bench.backend.unreachable, true)
})

t.test('another connection that really holds the lock', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const bench = new Bench(sqlite({ path, clock }), clock, 0)
  t.teardown(() => bench.backend.close())
  await bench.start()
  await bench.rest()
  const other = openRaw(path)
  other.exec('BEGIN IMMEDIATE')
  const added = bench.add()
  await clock.advance(500)
  t.equal(bench.backend.unreachable, false)
  other.exec('ROLLBACK')
  await clock.advance(10)
  t.match(await added, String)
  other.close()
})

t.test('a write-ahead log that was torn off loses its last transactions, and nothing before', here, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const bench = new Bench(sqlite({ path, clock }), clock, 0)
  t.teardown(() => bench.backend.close())
  await bench.start()
  const ids: string[] = []
  const sizes: number[] = []
  for (let n = 0; n < 20; n++) {
    ids.push(await bench.add({ payload: 'x'.repeat(500) }))
    sizes.push(statSync(`${path}-wal`).size)
  }
  for (const [at, size] of sizes.entries()) {
    const copy = freshFile(t)
    copyFileSync(path, copy)
    writeFileSync(`${copy}-wal`, readFileSync(`${path}-wal`).subarray(0, size - 100))
    const after = new Bench(sqlite({ path: copy, clock }), clock, 0)
    await after.start()
    const there = (await after.states(ids)).filter((state) => state !== undefined).length
    t.ok(there >= at && there <= at + 1, `${there} of ${at + 1} after the log was cut in transaction ${at + 1}`)
    t.equal((await after.backend.counts())['default']?.waiting, there)
    await after.backend.close()
  }
})

t.test('an application lives through it: 503, degraded, and all well afterwards', here, async (t) => {
  const raw = openRaw(freshFile(t))
  const database = new Faulty(raw)
  const clock = new TestClock()
  const { app, background, said } = await setup(t, { backend: sqlite({ database, clock }) })
  t.teardown(() => { raw.close() })
  const ran: unknown[] = []
  background.define('task', (payload) => { ran.push(payload) })
  app.get('/', async (_request, reply) => reply.accepted('task', 1))
  await app.ready()
  t.equal((await app.inject('/')).statusCode, 202)
  await until(() => ran.length === 1)
  database.failing = { error: FULL, when: /^COMMIT/ }
  t.match((await app.inject('/')).json(), { statusCode: 503, code: 'FST_BG_STORE_UNAVAILABLE' })
  t.equal((await app.inject('/health/jobs')).json<{ status: string }>().status, 'degraded')
  database.failing = undefined
  await clock.advance(1_000)
  t.equal((await app.inject('/health/jobs')).json<{ status: string }>().status, 'ok')
  t.equal((await app.inject('/')).statusCode, 202)
  await until(() => ran.length === 2)
  t.equal(said('the store of the background jobs is away').length, 1)
  t.equal(said('the store of the background jobs is back').length, 1)
  await app.close()
})

t.test('jobs of a task that is not defined here are parked: told, not failed, not spun', here, async (t) => {
  const path = freshFile(t)
  const old = await setup(t, { backend: sqlite({ path, clock: new TestClock() }) })
  old.background.define('renamed', () => {})
  await old.app.ready()
  await old.background.pause()
  const { id } = await old.background.add('renamed')
  await old.app.close()
  const clock = new TestClock()
  const { app, background, said } = await setup(t, { backend: sqlite({ path, clock }) })
  await app.ready()
  await until(async () => (await background.get(id))?.state === 'delayed')
  await clock.advance(10_000)
  t.match(await background.get(id), { state: 'delayed', attemptsMade: 0 })
  t.equal(said('job parked: its task is not defined here').length, 1)
  await app.close()
})

/** Real processes on a SQLite file, killed under load. The long form is `npm run proof:sqlite`. */
import t from 'tap'
import { onFullDisk, onReadOnlyDisk } from './proof/sqlite-disk.ts'
import { killRounds } from './proof/sqlite-run.ts'
import { watchLeaks } from './support/leaks.ts'
import { noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

t.test('killed at random points, a service loses nothing that it has accepted', { skip: noSqlite }, async (t) => {
  const verdict = await killRounds({ rounds: 5, seed: 1, synchronous: 'full', broken: '', holdEvery: 3 })
  t.strictSame(verdict.faults, [])
  t.equal(verdict.kills, 5)
  t.ok(verdict.accepted > 10 && verdict.completed > 10, JSON.stringify(verdict))
})

t.test('a service that acknowledges before it writes fails the same proof', { skip: noSqlite }, async (t) => {
  const verdict = await killRounds({ rounds: 5, seed: 1, synchronous: 'full', broken: 'acknowledges before it writes', holdEvery: 9 })
  t.match(verdict.faults[0], /accepted jobs are not in the file/)
})

t.test('a service whose jobs others have taken over, and that may settle them all the same, fails it too', { skip: noSqlite }, async (t) => {
  const verdict = await killRounds({ rounds: 1, seed: 1, synchronous: 'full', broken: 'lets stale owners write', holdEvery: 1 })
  t.match(verdict.faults.join('\n'), /completed it, . owned it|ran twice/)
})

t.test('a disk that is really full: 503 and degraded, and nothing that was accepted is lost when it has room again', { skip: noSqlite }, async (t) => {
  const verdict = await onFullDisk()
  if (typeof verdict === 'string') return t.pass(verdict)
  t.strictSame([verdict.told[0], verdict.told.at(-2), verdict.told.at(-1)], ['ok', 'degraded', 'ok'])
  t.ok(verdict.refused > 0 && verdict.accepted > 1, JSON.stringify(verdict))
  t.equal(verdict.completed, verdict.accepted)
})

t.test('a file that is really read-only is refused at ready', { skip: noSqlite }, async (t) => {
  t.match(await onReadOnlyDisk(), /^FST_BG_STORE_UNUSABLE: .*readonly|NOT TESTED HERE/)
})

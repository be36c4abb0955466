/** Real processes on a SQLite file, killed under load. The long form is `npm run proof:sqlite`. */
import t from 'tap'
import { killRounds } from './proof/sqlite-run.ts'
import { watchLeaks } from './support/leaks.ts'
import { noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

t.test('killed at random points, a service loses nothing that it has accepted', { skip: noSqlite }, async (t) => {
  const verdict = await killRounds({ rounds: 5, seed: 1, synchronous: 'full', broken: '' })
  t.strictSame(verdict.faults, [])
  t.equal(verdict.kills, 5)
  t.ok(verdict.accepted > 10 && verdict.completed > 10, JSON.stringify(verdict))
})

t.test('a service that acknowledges before it writes fails the same proof', { skip: noSqlite }, async (t) => {
  const verdict = await killRounds({ rounds: 5, seed: 1, synchronous: 'full', broken: 'acknowledges before it writes' })
  t.match(verdict.faults[0], /accepted jobs are not in the file/)
})

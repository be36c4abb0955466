/** `npm run proof:sqlite [rounds] [seed] [full|normal] [broken]`: services on a SQLite file, killed under load. Needs Node 22. */
import { noSqlite } from '../support/sqlite.ts'
import { killRounds, type Plan } from './sqlite-run.ts'

const [rounds = '1000', seed = '1', synchronous = 'full', broken = ''] = process.argv.slice(2)
if (noSqlite !== false) {
  console.log(noSqlite)
  process.exit(1)
}
const verdict = await killRounds({ rounds: Number(rounds), seed: Number(seed), synchronous, broken, holdEvery: 25 } as Plan)
for (const [name, sum] of Object.entries(verdict)) if (typeof sum === 'number') console.log(`${String(sum).padStart(8)}  ${name}`)
for (const fault of verdict.faults.slice(0, 20)) console.log(fault)
console.log(`${verdict.faults.length} faults; Node ${process.version}, seed ${seed}, synchronous: ${synchronous}`)
process.exitCode = verdict.faults.length > 0 ? 1 : 0

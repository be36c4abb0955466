/**
 * `npm run proof:chaos -- [--requests=100000] [--seed=1]`: hostile clients against every way to answer, on loopback.
 * Each accepted job must end once: run after its response, or be cancelled for a reason.
 */
import { parseArgs } from 'node:util'
import { chaos } from './chaos/run.ts'
import type { Row } from './chaos/totals.ts'

const { values } = parseArgs({ options: { requests: { type: 'string', default: '100000' }, seed: { type: 'string', default: '20261122' } } })
const seed = Number(values.seed)
console.log(`chaos: ${values.requests} requests, seed ${seed}, Node ${process.version}, ${new Date().toISOString()}`)
const began = process.hrtime.bigint()
const totals = await chaos({ requests: Number(values.requests), seed, onPhase: ({ all, sum }) => { console.log(`${all.requests} requests, ${all.accepted} jobs, ${sum}`) } })
const seconds = Number(process.hrtime.bigint() - began) / 1e9

const columns = ['requests', 'accepted', 'ran', 'refused', 'dropped'] as const
function table (title: string, rows: ReadonlyMap<string, Row>): void {
  console.log(`\n${title.padEnd(36)}${columns.map((name) => name.padStart(10)).join('')}`)
  for (const [name, row] of rows) console.log(`${name.padEnd(36)}${columns.map((column) => String(row[column]).padStart(10)).join('')}`)
}
table('handler', totals.byKind)
table('client', totals.byClient)
const { all, byKind, byClient, pairs, held, searched, stuck } = totals
console.log(`\n${all.requests} requests: ${byKind.size} kinds of handlers × ${byClient.size} kinds of clients, ${pairs.size} pairs seen, ${seconds.toFixed(0)} s`)
console.log(`${all.accepted} jobs accepted = ${all.ran} ran + ${all.refused} refused by when + ${all.dropped} dropped by onAbort; ${held} of them waited for maxHold`)
console.log(`${searched} responses were searched for what was left on them; Node kept ${stuck} connections whose clients were gone`)
for (const example of totals.examples) console.log(`  ${example}`)
console.log(`${totals.clean ? 'passed' : 'failed'}: ${totals.sum}; seed ${seed}, Node ${process.version}`)
if (!totals.clean) process.exitCode = 1

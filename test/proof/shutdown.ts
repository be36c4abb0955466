/** `npm run proof:shutdown [closes] [first seed]`: so many shutdowns of a busy service, and what became of its jobs. */
import { draw, faults, findFastifyCli, run } from './shutdown-run.ts'

const [closes = '100', first = '1'] = process.argv.slice(2)
/** Ms that a busy machine may be late. */
const MARGIN = 3_000
const withCli = findFastifyCli() !== undefined
if (!withCli) console.log('fastify-cli is not installed (FASTIFY_CLI may name its cli.js): all closes go through close-with-grace')

const sums = { closes: 0, 'by fastify-cli': 0, 'over HTTP/2': 0, 'signalled twice': 0, 'with stuck jobs': 0, 'with streams': 0, 'ended by their supervisor': 0, accepted: 0, done: 0, dead: 0, named: 0 }
let longest = 0
let latest = 0
let failed = 0
for (let seed = Number(first); seed < Number(first) + Number(closes); seed++) {
  const scenario = draw(seed, withCli && seed % 4 === 0 ? 'fastify-cli' : 'close-with-grace')
  const report = await run(scenario)
  const found = faults(scenario, report, MARGIN)
  sums.closes++
  sums['by fastify-cli'] += Number(scenario.how === 'fastify-cli')
  sums['over HTTP/2'] += Number(scenario.http2)
  sums['signalled twice'] += Number(scenario.twice)
  sums['with stuck jobs'] += Number(scenario.stuck > 0)
  sums['with streams'] += Number(scenario.streams > 0)
  sums['ended by their supervisor'] += Number(report.code !== 0)
  for (const key of ['accepted', 'done', 'dead', 'named'] as const) sums[key] += report[key]
  longest = Math.max(longest, report.took - scenario.delay)
  latest = Math.max(latest, report.namedAt - scenario.drainTimeout - scenario.abortGrace)
  if (found.length === 0) continue
  failed++
  console.log(`seed ${seed}: ${found.join('; ')}\n  ${JSON.stringify(scenario)}\n${report.output.replace(/^/gm, '  | ')}`)
}
for (const [name, sum] of Object.entries(sums)) console.log(`${String(sum).padStart(8)}  ${name}`)
console.log(`latest naming after drainTimeout + abortGrace: ${Math.round(latest)} ms; latest end after the supervisor's delay: ${Math.round(longest)} ms`)
console.log(`${failed} of ${sums.closes} failed; Node ${process.version}, seeds ${first} to ${Number(first) + Number(closes) - 1}`)
process.exitCode = failed > 0 ? 1 : 0

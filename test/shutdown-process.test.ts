/** Real processes, signalled while they are busy. The long form is `npm run proof:shutdown`. */
import t, { test } from 'tap'
import type { Scenario } from './proof/shutdown-app.ts'
import { faults, run, type Report } from './proof/shutdown-run.ts'
import { watchLeaks } from './support/leaks.ts'

watchLeaks(t)

/** Ms that a busy machine may be late. */
const MARGIN = 10_000
const usual = { how: 'close-with-grace', http2: false, drainTimeout: 300, abortGrace: 100, delay: 900, twice: false, stuck: 0, streams: 0, clients: 4, answers: 60 } as const

const closes: Array<[title: string, scenario: Omit<Scenario, 'seed'>, code: 0 | 1 | 'either']> = [
  ['a service that is busy, and nothing else, ends by itself', { ...usual, drainTimeout: 1_500, delay: 20_000 }, 0],
  ['streams that never end hold the server, not the jobs', { ...usual, streams: 2 }, 1],
  // Node 24 closes sessions that are idle, Node 20 waits for them.
  ['sessions over HTTP/2 hold the server, not the jobs', { ...usual, http2: true, stuck: 1 }, 'either'],
  ['a second signal ends the process at once, and what is left is still named', { ...usual, stuck: 1, twice: true, delay: 20_000, drainTimeout: 20_000 }, 1],
  ['stuck jobs are named at the deadline, under fastify-cli', { ...usual, how: 'fastify-cli', stuck: 3, delay: 20_000 }, 0]
]

test('closes of a busy service', async (t) => {
  const reports: Report[] = []
  const left = [...closes.entries()]
  // Two at a time: most of it is waiting.
  const lane = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const [n, [title, fixed, code]] = next
      const scenario: Scenario = { ...fixed, seed: n + 1 }
      const report = await run(scenario)
      reports.push(report)
      const found = faults(scenario, report, MARGIN)
      if (found.length > 0) t.comment(report.output)
      t.strictSame(found, [], title)
      if (code !== 'either') t.equal(report.code, code)
      t.ok(report.named >= scenario.stuck, 'what is stuck is named')
    }
  }
  await Promise.all([lane(), lane()])

  // The check itself can fail.
  const [report] = reports as [Report]
  const scenario: Scenario = { ...usual, seed: 0 }
  const wrong: Array<[part: Partial<Report>, fault: RegExp]> = [
    [{ done: report.done - 1 }, /^accepted \d+, done/], [{ lost: ['x'] }, /^lost x/], [{ twice: ['x done+named'] }, /^ended twice/], [{ unknown: ['done x'] }, /^never accepted/],
    [{ unsaid: 1 }, /^1 offered/], [{ oddRefusals: ['TypeError'] }, /^refused with TypeError/], [{ counted: report.named + 1 }, /^the log counts/],
    [{ namedAt: 60_000 }, /^named after/], [{ took: 60_000 }, /^took 60000 ms/], [{ signal: 'SIGKILL', code: null }, /^killed by/], [{ answered: 1e6 }, /^clients were told/]
  ]
  for (const [part, fault] of wrong) t.match(faults(scenario, { ...report, ...part }, MARGIN)[0], fault)
})

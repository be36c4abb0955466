/** The goals, held against this run. */
import { ratio, type Range, type SummarizedRow } from './report.ts'
import { storeGoals } from './store/goals.ts'

export interface Goal {
  readonly text: string
  /** Id of the group whose profile explains a miss. */
  readonly group: string
  readonly wanted: string
  readonly measured: number | undefined
  readonly verdict: 'met' | 'MISSED' | 'not measured'
}

/** Rows by the group's id. */
export type Groups = ReadonlyMap<string, readonly SummarizedRow[]>

const SIZES = [1_000, 10_000, 100_000, 1_000_000]
const OURS = 'ours named'

/** Of the groups that were asked for. */
export function judge (groups: Groups): Goal[] {
  const row: Find = (group, name) => groups.get(group)?.find((each) => each.name === name)
  return [...costs(row), ...heap(row), ...timers(row), ...routes(row), ...turns(row), ...latencies(row), ...overload(row), ...storeGoals(row)].filter(({ group }) => groups.has(group))
}

export type Find = (group: string, name: string) => SummarizedRow | undefined

function costs (row: Find): Goal[] {
  const fifo = SIZES.map((size) => ({ size: size.toLocaleString('en'), group: `fifo-${size}`, mixed: `mixed-${size}` }))
  return [
    ...fifo.map(({ size, group }) => atLeast(group, `jobs per CPU second, of p-queue doing the same, ${size}`, 3, ratio(row(group, 'p-queue same'), row(group, OURS)))),
    ...fifo.map(({ size, group }) => atLeast(group, `stretch: the same, ${size}`, 4, ratio(row(group, 'p-queue same'), row(group, OURS)))),
    ...fifo.map(({ size, group }) => atLeast(group, `stretch: jobs per CPU second, of fastq with callbacks, ${size}`, 1, ratio(row(group, 'fastq callback'), row(group, OURS)))),
    ...fifo.map(({ size, mixed }) => atMost(mixed, `mixed priorities over FIFO, ${size}`, 1.3, ratio(row(mixed, OURS), row(mixed, `${OURS}, FIFO`)))),
    atMost('fifo-1000000', 'a job of 1,000,000 over one of 1,000', 3, quotient(row('fifo-1000000', OURS)?.values.cpu, row('fifo-1000', OURS)?.values.cpu))
  ]
}

function heap (row: Find): Goal[] {
  const worst = (key: string): number | undefined =>
    most(['no payload', 'object of three fields', 'text of 1,000 characters'].map((name) => row('heap', name)?.values[key]?.median))
  return [
    atMost('heap', 'heap of a waiting job beyond its payload, B', 300, worst('waiting')),
    atMost('heap', 'heap of a remembered job beyond its payload, B', 250, worst('remembered'))
  ]
}

function timers (row: Find): Goal[] {
  const values = row('timeouts', '100,000')?.values
  return [
    atLeast('timeouts', 'running attempts with timeouts', 100_000, values?.running?.median),
    atMost('timeouts', 'timers behind them', 1, values?.timers?.median)
  ]
}

function routes (row: Find): Goal[] {
  return ['inject', 'keep-alive'].flatMap((group) => [
    ...['inline', 'named'].map((route) => atLeast(group, `route with a background job, ${route}, of the bare one, ${group}`, 0.92, ratio(row(group, 'bare'), row(group, route)))),
    atLeast(group, `plugin loaded and unused, of the bare route, ${group}`, 0.99, ratio(row(group, 'bare'), row(group, 'unused')))
  ])
}

function turns (row: Find): Goal[] {
  return [
    atMost('turns', 'draining 100,000: p99 of the turns, ms', 2, row('turns', OURS)?.values.p99?.median),
    atMost('turns', 'draining 100,000: longest turn, ms', 15, row('turns', OURS)?.values.longest?.median),
    atMost('turns', 'draining 100,000 without any request: wall time, of foreground off', 1.03, ratio(row('turns', OURS), row('turns', 'ours, foreground off'), 'wall')),
    atLeast('turns', 'draining 100,000: throughput, of ours in one turn', 0.9, ratio(row('turns', 'ours, no turns'), row('turns', OURS), 'wall'))
  ]
}

function latencies (row: Find): Goal[] {
  const of = (group: string, name: string, key: string): number | undefined => row(`latency-${group}`, name)?.values[key]?.median
  const idle = 'no background'
  const beyond = (group: string, key: string, jobMs: number): number | undefined => difference(of(group, 'ours', key), of(group, idle, key), jobMs)
  const steady = 'one job per setImmediate'
  const gentle = (group: string, label: string, jobMs: number): Goal[] => [
    atMost(`latency-${group}`, `${label}: p50 beyond idle, in jobs`, 0.7, beyond(group, 'p50', jobMs)),
    atMost(`latency-${group}`, `${label}: p99 beyond idle, in jobs`, 3, beyond(group, 'p99', jobMs)),
    atLeast(`latency-${group}`, `${label}: throughput, of one per setImmediate`, 0.95, divided(of(group, 'ours', 'jobs'), of(group, steady, 'jobs')))
  ]
  return [
    ...['5', '1'].flatMap((job) => [
      ...gentle(job, `jobs of ${job} ms`, Number(job)),
      atMost(`latency-${job}`, `jobs of ${job} ms that yield: p99 over idle`, 1.5, divided(of(job, 'ours, yieldNow each 0.25 ms', 'p99'), of(job, idle, 'p99'))),
      atLeast(`latency-${job}`, `jobs of ${job} ms that yield: throughput`, 0.9, divided(of(job, 'ours, yieldNow each 0.25 ms', 'jobs'), of(job, steady, 'jobs')))
    ]),
    atMost('latency-5', 'jobs of 5 ms: p99, of naive p-queue', 1 / 50, divided(of('5', 'ours', 'p99'), of('5', 'naive p-queue', 'p99'))),
    ...gentle('tls', 'TLS', 5), ...gentle('http2', 'HTTP/2', 5),
    atMost('latency-new', 'new connections: p99 beyond idle, in jobs', 8, beyond('new', 'p99', 5)),
    atMost('latency-burst', '64 new connections at once: the last accept beyond idle, ms', 20, difference(of('burst', 'ours', 'accepted'), of('burst', idle, 'accepted'), 1)),
    atLeast('latency-waiting', 'requests that wait: throughput, of one per setImmediate', 0.8, divided(of('waiting', 'ours', 'jobs'), of('waiting', steady, 'jobs')))
  ]
}

function divided (a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b
}

function difference (a: number | undefined, b: number | undefined, unit: number): number | undefined {
  return a === undefined || b === undefined ? undefined : (a - b) / unit
}

function overload (row: Find): Goal[] {
  const { refusal, job } = row('overload', OURS)?.values ?? {}
  return [
    atMost('overload', 'a refusal over a job', 1, quotient(refusal, job)),
    atMost('overload-http', 'a request, nine of ten refused, over one that Fastify itself answers with 503', 1.1, ratio(row('overload-http', 'flood'), row('overload-http', 'only 503'))),
    atMost('overload-http', 'a request, nine of ten refused, over an accepted one', 1, ratio(row('overload-http', 'flood'), row('overload-http', 'calm')))
  ]
}

export function quotient (a: Range | undefined, b: Range | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a.median / b.median
}

export function beyond (a: Range | undefined, b: Range | undefined): number | undefined {
  return difference(a?.median, b?.median, 1)
}

/** Undefined if one of them is. */
function most (values: ReadonlyArray<number | undefined>): number | undefined {
  const known = values.filter((value) => value !== undefined)
  return known.length === values.length ? Math.max(...known) : undefined
}

export function atLeast (group: string, text: string, limit: number, measured: number | undefined): Goal {
  return goal(group, text, `≥ ${limit.toLocaleString('en')}`, measured, (value) => value >= limit)
}

export function atMost (group: string, text: string, limit: number, measured: number | undefined): Goal {
  return goal(group, text, `≤ ${limit.toLocaleString('en')}`, measured, (value) => value <= limit)
}

function goal (group: string, text: string, wanted: string, measured: number | undefined, met: (value: number) => boolean): Goal {
  if (measured === undefined) return { text, group, wanted, measured, verdict: 'not measured' }
  return { text, group, wanted, measured, verdict: met(measured) ? 'met' : 'MISSED' }
}

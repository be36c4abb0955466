/** The goals, held against this run. */
import { ratio, type Range, type SummarizedRow } from './report.ts'

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
  return [...costs(row), ...heap(row), ...timers(row), ...routes(row), ...turns(row), ...overload(row)].filter(({ group }) => groups.has(group))
}

type Find = (group: string, name: string) => SummarizedRow | undefined

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
    atLeast('turns', 'draining 100,000: throughput, of ours in one turn', 0.9, ratio(row('turns', 'ours, no turns'), row('turns', OURS), 'wall'))
  ]
}

function overload (row: Find): Goal[] {
  const { refusal, job } = row('overload', OURS)?.values ?? {}
  return [
    atMost('overload', 'a refusal over a job', 1, quotient(refusal, job)),
    atMost('overload-http', 'a request, nine of ten refused, over an accepted one', 1, ratio(row('overload-http', 'flood'), row('overload-http', 'calm')))
  ]
}

function quotient (a: Range | undefined, b: Range | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a.median / b.median
}

/** Undefined if one of them is. */
function most (values: ReadonlyArray<number | undefined>): number | undefined {
  const known = values.filter((value) => value !== undefined)
  return known.length === values.length ? Math.max(...known) : undefined
}

function atLeast (group: string, text: string, limit: number, measured: number | undefined): Goal {
  return goal(group, text, `≥ ${limit.toLocaleString('en')}`, measured, (value) => value >= limit)
}

function atMost (group: string, text: string, limit: number, measured: number | undefined): Goal {
  return goal(group, text, `≤ ${limit.toLocaleString('en')}`, measured, (value) => value <= limit)
}

function goal (group: string, text: string, wanted: string, measured: number | undefined, met: (value: number) => boolean): Goal {
  if (measured === undefined) return { text, group, wanted, measured, verdict: 'not measured' }
  return { text, group, wanted, measured, verdict: met(measured) ? 'met' : 'MISSED' }
}

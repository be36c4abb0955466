/** What is measured of jobs that are kept: in a SQLite file of ours, by others in theirs, and in Redis. */
import type { Entry, Form, Group, Metric } from '../plan.ts'
import type { Store } from './index.ts'
import type { RouteWay } from './route.ts'

const FORMS = {
  full: { waiting: [1_000, 10_000, 100_000, 1_000_000], rounds: 5, warmUp: 20_000, slowWarmUp: 2_000, enough: 300, requests: 30_000, delay: 2_000, few: 5 },
  quick: { waiting: [1_000, 100_000], rounds: 3, warmUp: 10_000, slowWarmUp: 500, enough: 150, requests: 15_000, delay: 800, few: 3 },
  smoke: { waiting: [1_000], rounds: 1, warmUp: 200, slowWarmUp: 100, enough: 1, requests: 10, delay: 50, few: 1 }
} as const

const JOBS: Metric[] = [
  { key: 'perSecond', label: 'jobs/s', digits: 0 }, { key: 'cpu', label: 'CPU µs/job', digits: 1 }, { key: 'main', label: 'main thread µs/job', digits: 1 }
]

/** Ways to a faster route that were not taken, each with what it would bring. */
const REJECTED: ReadonlyArray<readonly [string, RouteWay]> = [['rejected: commits wait 1 ms', 'late'], ['rejected: raw in a thread', 'thread']]

/** @param redisMissing why BullMQ is left out, if it is */
export function storeGroups (form: Form, engine: string, redisMissing: string | undefined): Group[] {
  return [jobs(form, 100, engine, redisMissing), jobs(form, 1, engine, redisMissing), routes(form, redisMissing), backlog(form), delay(form)]
}

function jobs (form: Form, inFlight: number, engine: string, redisMissing: string | undefined): Group {
  const { rounds, warmUp, slowWarmUp, enough } = FORMS[form]
  const entry = (name: string, store: Store, synchronous: 'full' | 'normal'): Entry => ({
    name, settings: { scenario: 'store/jobs', store, inFlight, synchronous, enough, warmUp: store === 'BullMQ' ? slowWarmUp : warmUp }
  })
  return {
    id: `store-${inFlight}`,
    title: `Jobs inserted, claimed and completed, all kept, ${inFlight === 1 ? 'one by one' : `${inFlight} in flight`}, in files of ${engine}`,
    rounds,
    metrics: JOBS,
    base: 'raw, normal',
    profiled: 'ours, full',
    entries: [
      entry('raw, normal', 'raw SQLite', 'normal'), entry('raw, full', 'raw SQLite', 'full'),
      entry('ours, normal', 'ours', 'normal'), entry('ours, full', 'ours', 'full'),
      entry('raw in a thread, normal', 'raw SQLite in a thread', 'normal'),
      entry('plainjob, normal', 'plainjob', 'normal'),
      ...(redisMissing === undefined ? [entry('BullMQ', 'BullMQ', 'normal')] : [])
    ],
    ...(redisMissing === undefined ? undefined : { note: `BullMQ: not measured, ${redisMissing}` })
  }
}

function routes (form: Form, redisMissing: string | undefined): Group {
  const { rounds, requests: warmUp, enough } = FORMS[form]
  return {
    id: 'store-route',
    title: 'POST over loopback, 20 connections kept alive, its job kept before the answer',
    rounds,
    metrics: [{ key: 'perSecond', label: 'requests/s', digits: 0 }, { key: 'cpu', label: 'CPU µs/request', digits: 1 }],
    base: 'bare',
    profiled: 'ours, normal',
    entries: [
      { name: 'bare', settings: { scenario: 'http/keep-alive', route: 'bare', warmUp, enough } },
      { name: 'in memory', settings: { scenario: 'http/keep-alive', route: 'named', warmUp, enough } },
      ...(['normal', 'full'] as const).map((synchronous): Entry => ({ name: `ours, ${synchronous}`, settings: { scenario: 'store/route', way: 'ours', synchronous, warmUp, enough } })),
      ...REJECTED.map(([name, way]): Entry => ({ name, settings: { scenario: 'store/route', way, synchronous: 'normal', warmUp, enough } })),
      ...(redisMissing === undefined ? [{ name: 'BullMQ', settings: { scenario: 'http/keep-alive', route: 'BullMQ', warmUp, enough } } as const] : [])
    ],
    note: 'Jobs that could not run meanwhile run after the measurement; of BullMQ only the add is measured, nobody works.'
  }
}

function backlog (form: Form): Group {
  const { waiting, few, slowWarmUp: warmUp, enough } = FORMS[form]
  const name = (n: number): string => `${n.toLocaleString('en')} waiting`
  return {
    id: 'store-backlog',
    title: 'The same jobs while others wait in the file, 100 in flight, normal',
    rounds: few,
    metrics: [...JOBS, { key: 'waiting', label: 'waiting', digits: 0 }],
    base: name(1_000),
    profiled: name(waiting.at(-1) as number),
    entries: waiting.map((n) => ({ name: name(n), settings: { scenario: 'store/backlog', waiting: n, warmUp, enough } }))
  }
}

/** The choice between committing on the loop and in a thread. */
function delay (form: Form): Group {
  const { few, delay: ms } = FORMS[form]
  const ms2 = (key: string, label: string): Metric => ({ key, label, digits: 2 })
  return {
    id: 'store-delay',
    title: '1,000 jobs a second, one after the other: what the event loop feels, and how long a transaction takes',
    rounds: few,
    metrics: [ms2('p99', 'delay p99 ms'), ms2('longest', 'longest ms'), ms2('pause50', 'transaction p50 ms'), ms2('pause99', 'p99 ms'), ms2('pauseMost', 'longest ms'),
      ...JOBS.slice(1)],
    profiled: 'ours, full',
    entries: [
      { name: 'no jobs', settings: { scenario: 'store/delay', committer: 'nobody', synchronous: 'normal', ms } },
      { name: 'ours, normal', settings: { scenario: 'store/delay', committer: 'ours', synchronous: 'normal', ms } },
      { name: 'ours, full', settings: { scenario: 'store/delay', committer: 'ours', synchronous: 'full', ms } },
      { name: 'raw in a thread, full', settings: { scenario: 'store/delay', committer: 'a thread', synchronous: 'full', ms } }
    ]
  }
}

/** What is measured, in the order of importance: when time is short, the last groups get fewer rounds. */
import type { Contender } from './contenders/index.ts'
import type { Route } from './http/app.ts'
import type { BackgroundSettings, Way } from './http/background.ts'
import type { Settings } from './scenarios/index.ts'
import type { HeapSettings } from './scenarios/heap.ts'
import { engine } from './store/file.ts'
import { storeGroups } from './store/plan.ts'

export type Form = 'full' | 'quick' | 'smoke'

export interface Metric {
  /** Of the scenario's result. */
  readonly key: string
  readonly label: string
  readonly digits: number
}

export interface Entry {
  readonly name: string
  readonly settings: Settings
  /** Folder of another build of the library. */
  readonly build?: URL
}

export interface Group {
  readonly id: string
  readonly title: string
  readonly rounds: number
  /** One round is measured also when time is over. */
  readonly atLeastOnce?: boolean
  readonly metrics: readonly Metric[]
  readonly entries: readonly Entry[]
  /** Name of the entry that the others' CPU is compared to. */
  readonly base?: string | undefined
  /** Name of the entry that a profile is made of. */
  readonly profiled: string
  readonly note?: string
}

/** The pace of each form: how often, and how long at a time. `slow`: rounds of what takes long, or hardly varies. */
const FORMS = {
  full: {
    sizes: [1_000, 100_000, 1_000_000, 10_000], jobs: 100_000, attempts: [10_000, 100_000],
    rounds: 7, slow: 5, http: 21, warmUp: 200_000, requests: 40_000, enough: 200, flood: 1_000, latency: 3_000, waiting: 1_000
  },
  quick: {
    sizes: [1_000, 100_000], jobs: 100_000, attempts: [100_000],
    rounds: 5, slow: 3, http: 7, warmUp: 100_000, requests: 30_000, enough: 150, flood: 700, latency: 1_000, waiting: 1_000
  },
  smoke: {
    sizes: [1_000], jobs: 1_000, attempts: [1_000],
    rounds: 1, slow: 1, http: 1, warmUp: 1_000, requests: 10, enough: 1, flood: 30, latency: 30, waiting: 5
  }
} as const

const ALL: Contender[] = ['microtask limit', 'fastq callback', 'fastq promise', 'p-limit', 'p-queue bare', 'p-queue same', 'ours inline', 'ours named']
const WITH_PRIORITIES: Contender[] = ['p-queue bare', 'p-queue same', 'ours inline', 'ours named']
const IN_TURNS: Contender[] = ['only the clock', 'fastq callback', 'p-queue same', 'ours inline', 'ours named', 'ours, foreground off', 'ours, no turns']
const OF_PROMISES: Contender[] = ['microtask limit', 'fastq promise', 'p-queue same', 'ours named']
const SEEN: Contender[] = ['ours named', 'ours, events heard', 'ours, logged', 'ours, metrics', 'ours, traced']
const ROUTES: Route[] = ['bare', 'setImmediate', 'unused', 'inline', 'named']
/** Mixed priorities cost p-queue the square of the backlog. */
const LONGEST_FOR_P_QUEUE = 100_000

const COST: Metric[] = [{ key: 'cpu', label: 'CPU µs/job', digits: 3 }, { key: 'wall', label: 'wall µs/job', digits: 3 }]
const REQUESTS: Metric[] = [{ key: 'cpu', label: 'CPU µs/request', digits: 2 }]
const PER_SECOND: Metric = { key: 'perSecond', label: 'requests/s', digits: 0 }

/** @param redisMissing why BullMQ is left out, if it is */
export function createPlan (form: Form, redisMissing: string | undefined): Group[] {
  const [smallest, ...larger] = FORMS[form].sizes
  return [
    ...FORMS[form].sizes.map((size) => fifo(form, size)),
    mixed(form, smallest), turns(form), heap(form), timeouts(form),
    inject(form, redisMissing), keepAlive(form, redisMissing),
    ...latencies(form),
    overload(form), overloadHttp(form),
    ...storeGroups(form, engine, redisMissing),
    ...larger.map((size) => mixed(form, size)),
    ...(form === 'quick' ? [] : [asyncContext(form, smallest), seen(form, smallest)])
  ]
}

function fifo (form: Form, backlog: number): Group {
  return {
    id: `fifo-${backlog}`,
    title: `FIFO, ${count(backlog)} added at once`,
    ...ofJobs(form, backlog),
    entries: ALL.map((contender) => cost(form, contender, { contender, backlog }))
  }
}

function mixed (form: Form, backlog: number): Group {
  const contenders = WITH_PRIORITIES.filter((name) => backlog <= LONGEST_FOR_P_QUEUE || name.startsWith('ours'))
  return {
    id: `mixed-${backlog}`,
    title: `Ten priorities, mixed, ${count(backlog)} added at once`,
    ...ofJobs(form, backlog),
    entries: [
      ...contenders.map((contender) => cost(form, contender, { contender, backlog, mixed: true })),
      cost(form, 'ours named, FIFO', { contender: 'ours named', backlog })
    ]
  }
}

function asyncContext (form: Form, backlog: number): Group {
  return {
    id: 'async-context',
    title: `FIFO, ${count(backlog)} added at once, in a process that uses an AsyncLocalStorage`,
    ...ofJobs(form, backlog),
    entries: OF_PROMISES.map((contender) => cost(form, contender, { contender, backlog, asyncContext: true }))
  }
}

function seen (form: Form, backlog: number): Group {
  return {
    id: 'seen',
    title: `What it costs to be seen: FIFO, ${count(backlog)} added at once`,
    ...ofJobs(form, backlog),
    base: 'ours named',
    entries: SEEN.map((contender) => cost(form, contender, { contender, backlog }))
  }
}

function ofJobs (form: Form, backlog: number) {
  const { rounds, slow } = FORMS[form]
  return { rounds: backlog > 100_000 ? slow : rounds, metrics: COST, base: 'p-queue same', profiled: 'ours named' }
}

function cost (form: Form, name: string, settings: { contender: Contender, backlog: number, mixed?: boolean, asyncContext?: boolean }): Entry {
  const { warmUp, enough } = FORMS[form]
  return { name, settings: { scenario: 'cost', warmUp, enough, mixed: false, asyncContext: false, ...settings } }
}

function turns (form: Form): Group {
  const { jobs: backlog, slow, warmUp } = FORMS[form]
  return {
    id: 'turns',
    title: `Turns of the event loop while ${count(backlog)} waiting jobs are drained`,
    rounds: slow,
    metrics: [{ key: 'p99', label: 'p99 ms', digits: 2 }, { key: 'longest', label: 'longest ms', digits: 1 }, { key: 'turns', label: 'turns a drain', digits: 0 }, ...COST],
    base: 'p-queue same',
    profiled: 'ours named',
    entries: IN_TURNS.map((contender) => ({ name: contender, settings: { scenario: 'turns', contender, backlog, warmUp } }))
  }
}

function heap (form: Form): Group {
  const { jobs, slow } = FORMS[form]
  const rows: Array<[string, HeapSettings['payload'], boolean]> = [
    ['no payload', 'none', false], ['object of three fields', 'object', false], ['text of 1,000 characters', 'text', false], ['no payload, handle kept', 'none', true]
  ]
  return {
    id: 'heap',
    title: `Heap of a job beyond its payload, ${count(jobs)} of them`,
    rounds: slow,
    metrics: [{ key: 'waiting', label: 'waiting B', digits: 0 }, { key: 'remembered', label: 'remembered B', digits: 0 }, { key: 'payload', label: 'payload B', digits: 0 }],
    profiled: 'no payload',
    entries: rows.map(([name, payload, keep]) => ({ name, settings: { scenario: 'heap', jobs, payload, keep } }))
  }
}

function timeouts (form: Form): Group {
  const { attempts } = FORMS[form]
  return {
    id: 'timeouts',
    title: 'Running attempts, each with a timeout of its own',
    rounds: 1, // counts, not costs
    metrics: [{ key: 'running', label: 'running', digits: 0 }, { key: 'timers', label: 'timers', digits: 0 }],
    profiled: count(attempts.at(-1) as number),
    entries: attempts.map((n) => ({ name: count(n), settings: { scenario: 'timeouts', attempts: n } }))
  }
}

function inject (form: Form, redisMissing: string | undefined): Group {
  const { requests, enough } = FORMS[form]
  return {
    id: 'inject',
    title: 'POST by inject',
    metrics: REQUESTS,
    ...ofRoutes(form, redisMissing, (route) => ({ scenario: 'http/inject', route, warmUp: requests, enough }))
  }
}

function keepAlive (form: Form, redisMissing: string | undefined): Group {
  const { requests, enough } = FORMS[form]
  return {
    id: 'keep-alive',
    title: 'POST over loopback, 20 connections kept alive',
    metrics: [...REQUESTS, PER_SECOND],
    ...ofRoutes(form, redisMissing, (route) => ({ scenario: 'http/keep-alive', route, warmUp: requests, enough }))
  }
}

function ofRoutes (form: Form, redisMissing: string | undefined, settings: (route: Route) => Settings) {
  const routes: Route[] = redisMissing === undefined ? [...ROUTES, 'BullMQ'] : ROUTES
  return {
    rounds: FORMS[form].http, // many: one percent is asked for
    base: 'bare',
    profiled: 'named',
    entries: routes.map((route) => ({ name: route, settings: settings(route) })),
    ...(redisMissing === undefined ? undefined : { note: `BullMQ, its add awaited: not measured, ${redisMissing}` })
  }
}

/** What requests feel while 1 000 CPU jobs always wait. */
function latencies (form: Form): Group[] {
  const ALL_WAYS: Way[] = ['no background', 'naive p-queue', 'one job per setImmediate', 'throttled by utilization', 'ours, foreground off', 'ours',
    'ours, yieldNow each 0.25 ms', 'ours, in threads']
  const FEW_WAYS: Way[] = ['no background', 'one job per setImmediate', 'ours, foreground off', 'ours']
  const usual = { jobMs: 5, rate: 200, burst: 1, protocol: 'http', keepAlive: true, database: 0 } as const
  const { latency, slow, waiting } = FORMS[form]
  const group = (id: string, title: string, ways: Way[], special: Partial<BackgroundSettings> = {}): Group => ({
    id: `latency-${id}`,
    title,
    rounds: Math.min(slow, 3),
    metrics: [{ key: 'p50', label: 'p50 ms', digits: 1 }, { key: 'p90', label: 'p90 ms', digits: 1 }, { key: 'p99', label: 'p99 ms', digits: 1 },
      ...(special.burst === undefined ? [] : [{ key: 'accepted', label: 'last accept after ms', digits: 1 }]), { key: 'jobs', label: 'jobs/s', digits: 0 }],
    profiled: 'ours',
    entries: ways.map((way) => ({ name: way, settings: { scenario: 'http/background', way, ms: latency, waiting, ...usual, ...special } }))
  })
  return [
    group('5', 'Latency of 200 requests/s on kept connections, with jobs of 5 ms', ALL_WAYS),
    group('1', 'The same, with jobs of 1 ms', ALL_WAYS, { jobMs: 1 }),
    group('new', 'A new connection for each of 200 requests/s, with jobs of 5 ms', FEW_WAYS, { keepAlive: false }),
    group('burst', 'Two times a second 64 new connections at once, with jobs of 5 ms', FEW_WAYS, { keepAlive: false, burst: 64, rate: 128 }),
    group('waiting', 'Of 500 requests/s that wait 50 ms for a database, with jobs of 1 ms', FEW_WAYS, { jobMs: 1, rate: 500, database: 50 }),
    group('tls', 'Latency of 200 requests/s over TLS, with jobs of 5 ms', FEW_WAYS, { protocol: 'https' }),
    group('http2', 'Latency of 200 requests/s over HTTP/2, with jobs of 5 ms', FEW_WAYS, { protocol: 'http2' })
  ]
}

function overload (form: Form): Group {
  const { slow, warmUp, enough } = FORMS[form]
  return {
    id: 'overload',
    title: 'Ten times more adds than fit: a refusal beside a job',
    rounds: slow,
    metrics: [{ key: 'job', label: 'CPU µs/job', digits: 2 }, { key: 'busyJob', label: 'µs/job meanwhile', digits: 2 },
      { key: 'refusal', label: 'CPU µs/refusal', digits: 2 }],
    profiled: 'ours named',
    entries: [{ name: 'ours named', settings: { scenario: 'overload', room: 1_000, warmUp, enough } }]
  }
}

function overloadHttp (form: Form): Group {
  const { slow, requests, flood } = FORMS[form]
  return {
    id: 'overload-http',
    title: 'The same over HTTP: room for 1,000 jobs, ten times the requests that there is work for',
    rounds: slow,
    metrics: [...REQUESTS, PER_SECOND, { key: 'refused', label: 'refused', digits: 3 },
      { key: 'heap', label: 'heap peak MiB', digits: 0 }, { key: 'rss', label: 'rss MiB', digits: 0 }],
    base: 'calm',
    profiled: 'flood',
    entries: (['calm', 'flood', 'only 503'] as const).map((kind) => ({
      name: kind, settings: { scenario: 'http/overload', form: kind, warmUp: requests, enough: flood }
    }))
  }
}

function count (n: number): string {
  return n.toLocaleString('en')
}

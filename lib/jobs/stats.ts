/** All numbers at one moment: what gauges are made of. */
import { tallyOf, type Backend, type Tally } from '../backend.ts'
import type { Settings } from '../options.ts'
import type { Dispatch } from './dispatch.ts'
import type { Registry } from './registry.ts'

/** Numbers of one queue in this process: jobs, bytes, slots for attempts. */
export interface QueueStats {
  /** Ms since the oldest waiting job may start; 0 without one. */
  oldestWaitingMs: number
  /** Jobs that never started, as far as this process knows, and the bytes of their payloads' JSON: what `maxQueueSize` and `maxQueueBytes` limit. */
  fresh: number
  bytes: number
  /** Slots of this process. */
  concurrency: number
  /** Bodies in these slots, those that ignore their signal included. */
  running: number
  paused: boolean
}

/** Bodies of jobs that go on although their signal has aborted. */
export interface LeakedBodies {
  queue: string
  task: string
  bodies: number
}

/** Numbers for metrics: counts of jobs, and limits in jobs and bytes. */
export interface Stats {
  /** Those defined in this process, with their queues. */
  tasks: Array<{ name: string, queue: string }>
  /** Kept jobs by task and state; `task` is empty where the backend cannot tell: on BullMQ, of the jobs of a state beyond 10 000. */
  jobs: Tally[]
  queues: Record<string, QueueStats>
  /** Bodies that go on although their signal has aborted. */
  leaked: LeakedBodies[]
  maxQueueSize: number
  maxQueueBytes: number
  /** False: a store is away or takes nothing. If it cannot be asked either, `jobs` is empty, and no age is known. */
  reachable: boolean
}

export class StatsReader {
  readonly #settings: Settings
  readonly #backend: Backend
  readonly #registry: Registry
  readonly #dispatch: Dispatch

  constructor (settings: Settings, backend: Backend, registry: Registry, dispatch: Dispatch) {
    this.#settings = settings
    this.#backend = backend
    this.#registry = registry
    this.#dispatch = dispatch
  }

  async read (): Promise<Stats> {
    const { maxQueueSize, maxQueueBytes } = this.#settings
    const stats: Stats = {
      tasks: [...this.#registry.tasks].map(({ name, policy: { queue } }) => ({ name, queue })),
      jobs: [],
      queues: {},
      leaked: leakedBodies(this.#dispatch.runner.leakers()),
      maxQueueSize,
      maxQueueBytes,
      reachable: this.#backend.unreachable !== true
    }
    const queues = new Map<string, QueueStats>()
    for (const [name, { concurrency, running, paused }] of this.#dispatch.pools) {
      const { jobs: fresh, bytes } = this.#backend.load(name)
      queues.set(name, { oldestWaitingMs: 0, fresh, bytes, concurrency, running, paused })
    }
    try {
      stats.jobs = await tallyOf(this.#backend)
      for (const [name, { oldestWaitingMs }] of Object.entries(await this.#backend.counts())) {
        const queue = queues.get(name)
        if (queue !== undefined) queue.oldestWaitingMs = oldestWaitingMs
      }
    } catch {
      stats.reachable = false
    }
    // A queue may be named `__proto__`.
    stats.queues = Object.fromEntries(queues)
    return stats
  }
}

function leakedBodies (jobs: ReadonlyArray<{ queue: string, name: string }>): LeakedBodies[] {
  const sums: LeakedBodies[] = []
  for (const { queue, name: task } of jobs) {
    const sum = sums.find((each) => each.queue === queue && each.task === task)
    if (sum === undefined) sums.push({ queue, task, bodies: 1 })
    else sum.bodies++
  }
  return sums
}

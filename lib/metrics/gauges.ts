/** What is, read at each scrape: once for all gauges. */
import type { GaugeLike } from './client.ts'
import type { Maker } from './counters.ts'
import type { Stats } from '../index.ts'

type Labels = Record<string, string>

const sum = (a: number, b: number): number => a + b

/** Joins what has the same labels, and sets to 0 what was there at the last scrape and is not any more; to NaN, where that is not known. */
class Series {
  readonly #gauge: GaugeLike
  #last = new Map<string, Labels>()

  constructor (gauge: GaugeLike) {
    this.#gauge = gauge
  }

  show (rows: ReadonlyArray<readonly [labels: Labels, value: number]>, known = true, join = sum): void {
    const sums = new Map<string, { labels: Labels, value: number }>()
    for (const labels of this.#last.values()) sums.set(JSON.stringify(labels), { labels, value: known ? 0 : NaN })
    for (const [labels, value] of rows) {
      const key = JSON.stringify(labels)
      sums.set(key, { labels, value: known ? join(value, sums.get(key)?.value ?? 0) : NaN })
    }
    this.#last = new Map([...sums].map(([key, { labels }]) => [key, labels]))
    for (const { labels, value } of sums.values()) this.#gauge.set(labels, value)
  }
}

export function createGauges ({ client, prefix, registers, names }: Maker, read: () => Promise<Stats>): void {
  let scrape: Promise<void> | undefined
  // Gauges are collected side by side: the first that is asked reads for all.
  const collect = (): Promise<void> => (scrape ??= read().then(show).finally(() => { scrape = undefined }))
  const gauge = (name: string, help: string, ...labelNames: string[]) => new Series(new client.Gauge({ name: prefix + name, help, labelNames, ...registers, collect }))

  const jobs = gauge('jobs', 'Jobs kept, by task and state; on BullMQ, those of a state beyond 10 000 have no task. Of a shared store, each process tells the same.', 'queue', 'task', 'state')
  const oldest = gauge('oldest_waiting_seconds', 'Since when the oldest waiting job could start.', 'queue')
  const fresh = gauge('queue_jobs', 'Jobs that never started, which maxQueueSize limits.', 'queue')
  const maxFresh = gauge('queue_limit_jobs', 'The plugin\'s maxQueueSize.', 'queue')
  const bytes = gauge('queue_bytes', 'Payloads of these jobs, which maxQueueBytes limits.', 'queue')
  const maxBytes = gauge('queue_limit_bytes', 'The plugin\'s maxQueueBytes.', 'queue')
  const slots = gauge('slots', 'Attempts that may run at once in this process.', 'queue')
  const running = gauge('slots_taken', 'Bodies that run in this process, those that ignore their signal included.', 'queue')
  const paused = gauge('queue_paused', '1 while this process starts nothing of the queue.', 'queue')
  const leaked = gauge('leaked_bodies', 'Bodies that go on although their signal has aborted.', 'queue', 'task')
  const reachable = gauge('store_reachable', '0 while the store cannot be asked.')

  function show (stats: Stats): void {
    // A store that only refuses writes still tells.
    const known = stats.reachable || stats.jobs.length > 0
    const queues = Object.entries(stats.queues).map(([name, numbers]) => [{ queue: names.queue.of(name) }, numbers] as const)
    jobs.show(stats.jobs.map(({ queue, task, state, jobs: n }) => [{ queue: names.queue.of(queue), task: task === '' ? '' : names.task.of(task), state }, n]), known)
    oldest.show(queues.map(([labels, { oldestWaitingMs }]) => [labels, oldestWaitingMs / 1_000]), known, Math.max)
    fresh.show(queues.map(([labels, queue]) => [labels, queue.fresh]))
    maxFresh.show(queues.map(([labels]) => [labels, stats.maxQueueSize]))
    bytes.show(queues.map(([labels, queue]) => [labels, queue.bytes]))
    maxBytes.show(queues.map(([labels]) => [labels, stats.maxQueueBytes]))
    slots.show(queues.map(([labels, { concurrency }]) => [labels, concurrency]))
    running.show(queues.map(([labels, queue]) => [labels, queue.running]))
    paused.show(queues.map(([labels, queue]) => [labels, Number(queue.paused)]), true, Math.max)
    leaked.show([
      ...stats.tasks.map(({ name, queue }) => [{ queue: names.queue.of(queue), task: names.task.of(name) }, 0] as const),
      ...stats.leaked.map(({ queue, task, bodies }) => [{ queue: names.queue.of(queue), task: names.task.of(task) }, bodies] as const)
    ])
    reachable.show([[{}, Number(stats.reachable)]])
  }
}

/** What happened, counted from events. No ids in labels: what names a single job stands in the log and in traces. */
import type { BackgroundEvents } from '../events.ts'
import type { MetricsClient, MetricConfig, Names } from './client.ts'

/** All that a metric is made with. */
export interface Maker {
  readonly client: MetricsClient
  readonly prefix: string
  readonly registers: Pick<MetricConfig, 'registers'>
  readonly names: { readonly task: Names, readonly queue: Names }
}

type Counting = { readonly [Name in keyof BackgroundEvents]?: (event: BackgroundEvents[Name]) => void }

export interface Counters {
  readonly on: Counting
  /** From now on these tasks are known. */
  readonly begin: (tasks: ReadonlyArray<{ name: string, queue: string }>) => void
}

function makeMetrics ({ client, prefix, registers }: Maker, buckets: readonly number[]) {
  const config = (name: string, help: string, labelNames: string[]): MetricConfig => ({ name: prefix + name, help, labelNames, ...registers })
  const counter = (name: string, help: string, ...labels: string[]) => new client.Counter(config(name, help, labels))
  const histogram = (name: string, help: string, ...labels: string[]) => new client.Histogram({ ...config(name, help, labels), buckets: [...buckets] })
  return {
    added: counter('jobs_added_total', 'Jobs accepted.', 'queue', 'task'),
    ended: counter('jobs_ended_total', 'Jobs that completed, failed (became dead letters) or were cancelled.', 'queue', 'task', 'outcome'),
    dead: counter('dead_letters_total', 'Jobs that became dead letters, by cause.', 'queue', 'task', 'failure'),
    replayed: counter('dead_letters_replayed_total', 'Dead letters that started again.', 'queue', 'task'),
    evicted: counter('dead_letters_dropped_total', 'Dead letters dropped by retention.', 'queue', 'task'),
    refused: counter('jobs_refused_total', 'Jobs not taken because their queue was full.', 'queue'),
    unstored: counter('jobs_unstored_total', 'Jobs that their store could not take.', 'queue', 'task'),
    held: counter('responses_held_total', 'Responses that did not end within maxHold.'),
    floating: counter('floating_errors_total', 'Rejections and exceptions that jobs let escape.', 'queue', 'task'),
    blocked: counter('loop_blocked_seconds_total', 'Time that jobs held the event loop for longer than maxBlock at a time.', 'queue', 'task'),
    waits: histogram('job_wait_seconds', 'From when a job could start until an attempt began.', 'queue', 'task'),
    durations: histogram('attempt_duration_seconds', 'How long attempts took, by how they ended.', 'queue', 'task', 'outcome')
  }
}

export function createCounters (maker: Maker, buckets: readonly number[]): Counters {
  const { names } = maker
  const {
    added, ended, dead, replayed, evicted, refused, unstored, held, floating, blocked, waits, durations
  } = makeMetrics(maker, buckets)
  const seen = new Set<string>()
  /** The labels of a task. What is counted of it begins at 0: an increase from nothing is none to Prometheus. */
  const of = ({ queue, task }: { queue: string, task: string }) => {
    const labels = { queue: names.queue.of(queue), task: names.task.of(task) }
    const key = `${labels.queue}\n${labels.task}`
    if (!seen.has(key)) {
      seen.add(key)
      begin(labels)
    }
    return labels
  }

  function begin (labels: { queue: string, task: string }): void {
    for (const metric of [added, replayed, evicted, unstored, floating, blocked]) metric.inc(labels, 0)
    for (const outcome of ['completed', 'failed', 'cancelled']) ended.inc({ ...labels, outcome }, 0)
    for (const failure of ['exhausted', 'unrecoverable', 'timeout', 'expired', 'stalled']) dead.inc({ ...labels, failure }, 0)
    refused.inc({ queue: labels.queue }, 0)
    waits.zero?.(labels)
    for (const outcome of ['completed', 'retry', 'dead']) durations.zero?.({ ...labels, outcome })
  }

  held.inc({}, 0)
  return {
    begin (tasks) { for (const { name: task, queue } of tasks) of({ queue, task }) },
    on: {
      added: (event) => { added.inc(of(event), 1) },
      started: (event) => { waits.observe(of(event), event.waitMs / 1_000) },
      ended: (event) => {
        durations.observe({ ...of(event), outcome: event.outcome }, event.durationMs / 1_000)
        if (event.outcome === 'completed') ended.inc({ ...of(event), outcome: 'completed' }, 1)
      },
      dead: (event) => {
        ended.inc({ ...of(event), outcome: 'failed' }, 1)
        dead.inc({ ...of(event), failure: event.failure }, 1)
      },
      cancelled: (event) => { ended.inc({ ...of(event), outcome: 'cancelled' }, 1) },
      replayed: (event) => { replayed.inc(of(event), 1) },
      evicted: (event) => { evicted.inc(of(event), 1) },
      refused: ({ queue, jobs }) => { refused.inc({ queue: names.queue.of(queue) }, jobs) },
      unstored: (event) => { unstored.inc(of(event), event.jobs) },
      held: () => { held.inc({}, 1) },
      floating: (event) => { floating.inc(of(event), 1) },
      blocked: (event) => { blocked.inc(of(event), event.blockedMs / 1_000) }
    }
  }
}

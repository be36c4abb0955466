/** The numbers of one queue. */
import type { QueueCounts, Tally } from '../../backend.ts'
import type { JobState } from '../../job.ts'
import type { StoreQueue } from './connections.ts'
import { withTimes } from './facts.ts'
import { namesIn, nextDelayed, type Place } from './glance.ts'
import { delayedState, readySince } from './stored.ts'

/** Delayed jobs that are looked at, the next ones first: BullMQ counts them all as one. */
const LOOKED_AT = 1_000
/** Jobs of a state whose names are counted: what the limits of a queue are by default. */
const NAMED = 10_000

const PLACES: Readonly<Record<Place, JobState>> = {
  waiting: 'waiting', prioritized: 'waiting', delayed: 'delayed', 'waiting-children': 'waiting-children', active: 'active', completed: 'completed', failed: 'failed'
}

export async function countsOf (queue: StoreQueue, limited: boolean, now: number): Promise<QueueCounts> {
  const stored = await queue.getJobCounts('waiting', 'prioritized', 'active', 'delayed', 'waiting-children', 'completed', 'failed')
  const number = (state: string): number => stored[state] ?? 0
  const counts: QueueCounts = {
    pending: 0,
    'waiting-children': number('waiting-children'),
    waiting: number('waiting') + number('prioritized'),
    delayed: number('delayed'),
    retrying: 0,
    limited: 0,
    active: number('active'),
    completed: number('completed'),
    failed: number('failed'),
    cancelled: 0, // they are not kept
    oldestWaitingMs: 0
  }
  if (counts.delayed > 0) {
    for (const job of await nextDelayed(queue, LOOKED_AT)) {
      const state = delayedState(job, job.due, now)
      if (state === 'delayed') counts.retrying += job.attemptsStarted > 0 && job.hasFailed ? 1 : 0
      else {
        counts[state]++
        counts.delayed--
      }
      if (state === 'waiting') counts.oldestWaitingMs = Math.max(counts.oldestWaitingMs, now - job.due)
    }
  }
  if (counts.waiting > 0) {
    for (const state of ['prioritized', 'waiting'] as const) {
      for (const job of await queue.getJobs([state], 0, 0, true)) counts.oldestWaitingMs = Math.max(counts.oldestWaitingMs, now - readySince(withTimes(job, now)))
    }
  }
  if (limited && counts.waiting > 0 && await queue.getRateLimitTtl() > 0) {
    counts.limited = counts.waiting
    counts.delayed += counts.waiting
    counts.waiting = 0
  }
  return counts
}

/** As far as counts tell: what waits for a retry is among the delayed beyond those that were looked at. */
export async function neverStarted (queue: StoreQueue, now: number): Promise<number> {
  const { pending, waiting, delayed, retrying, limited, 'waiting-children': parents } = await countsOf(queue, false, now)
  return pending + waiting + delayed + limited + parents - retrying
}

/** By task. Jobs of a state beyond `NAMED` have none. `limited`: of the queue's own counts. */
export async function tallyOf (queue: StoreQueue, name: string, { limited }: Pick<QueueCounts, 'limited'>, now: number): Promise<Tally[]> {
  const sums = new Map<string, Tally>()
  const tell = (task: string, state: JobState, jobs: number): void => {
    const shown = state === 'waiting' && limited > 0 ? 'delayed' : state
    const sum = sums.get(`${shown} ${task}`)?.jobs ?? 0
    sums.set(`${shown} ${task}`, { queue: name, task, state: shown, jobs: sum + jobs })
  }
  const places = Object.keys(PLACES) as Place[]
  const stored = await queue.getJobCounts(...places)
  for (const place of places) {
    const jobs = stored[place] ?? 0
    if (jobs === 0) continue
    const looked = place === 'delayed' ? await nextDelayed(queue, LOOKED_AT) : []
    for (const job of looked) tell(job.name, delayedState(job, job.due, now), 1)
    let left = jobs - looked.length
    for (const [task, named] of left > 0 ? await namesIn(queue, place, looked.length, NAMED - looked.length) : []) {
      tell(task, PLACES[place], named)
      left -= named
    }
    if (left > 0) tell('', PLACES[place], left)
  }
  return [...sums.values()]
}

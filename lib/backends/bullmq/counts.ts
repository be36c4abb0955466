/** The numbers of one queue. */
import type { Job } from 'bullmq'
import type { QueueCounts, Tally } from '../../backend.ts'
import type { JobState } from '../../job.ts'
import type { StoreQueue } from './connections.ts'
import { delayedState, isRetrying, readySince } from './stored.ts'

/** Delayed jobs that are looked at, the next ones first: BullMQ counts them all as one. */
const LOOKED_AT = 1_000
/** Jobs of a state whose tasks are looked up: BullMQ counts no names, and gives a name only with all that the job has. */
const NAMED = 100

const PLACES = { waiting: 'waiting', prioritized: 'waiting', delayed: 'delayed', 'waiting-children': 'waiting-children', active: 'active', completed: 'completed', failed: 'failed' } as const

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
    for (const job of await jobsOf(queue, 'delayed', LOOKED_AT)) {
      const state = delayedState(job, now)
      if (state === 'delayed') counts.retrying += isRetrying(job) ? 1 : 0
      else {
        counts[state]++
        counts.delayed--
      }
      if (state === 'waiting') counts.oldestWaitingMs = Math.max(counts.oldestWaitingMs, now - readySince(job))
    }
  }
  if (counts.waiting > 0) {
    for (const state of ['prioritized', 'waiting'] as const) {
      for (const job of await jobsOf(queue, state, 1)) counts.oldestWaitingMs = Math.max(counts.oldestWaitingMs, now - readySince(job))
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

/** By task, of each state that has no more than so many jobs. `counts`: the queue's own. */
export async function tallyOf (queue: StoreQueue, name: string, { pending, limited }: QueueCounts, now: number): Promise<Tally[]> {
  const sums = new Map<string, Tally>()
  const tell = (task: string, state: JobState, jobs: number): void => {
    const shown = state === 'waiting' && limited > 0 ? 'delayed' : state
    const sum = sums.get(`${shown} ${task}`)?.jobs ?? 0
    sums.set(`${shown} ${task}`, { queue: name, task, state: shown, jobs: sum + jobs })
  }
  const places = Object.keys(PLACES) as Array<keyof typeof PLACES>
  const stored = await queue.getJobCounts(...places)
  for (const place of places) {
    const jobs = stored[place] ?? 0
    if (jobs > NAMED) tell('', PLACES[place], place === 'delayed' ? jobs - pending : jobs)
    else if (jobs > 0) for (const job of await jobsOf(queue, place, NAMED)) tell(job.name, place === 'delayed' ? delayedState(job, now) : PLACES[place], 1)
  }
  if ((stored['delayed'] ?? 0) > NAMED && pending > 0) tell('', 'pending', pending)
  return [...sums.values()]
}

async function jobsOf (queue: StoreQueue, state: keyof typeof PLACES, most: number): Promise<Job[]> {
  return queue.getJobs([state], 0, most - 1, true)
}

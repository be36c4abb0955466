/** Groups in the model: those that have jobs waiting stand in a row, and the jobs without a group as if they were one. */
import type { Job, Queue } from './parts.ts'
import { SETTINGS } from './plan.ts'

const groupOf = ({ spec }: Job): string => spec.group ?? ''

export function comes (queue: Queue, job: Job): void {
  const group = groupOf(job)
  if (queue.row === undefined && group === '') return
  queue.row ??= ['']
  if (!queue.row.includes(group)) queue.row.push(group)
}

/** It ended before it started. `waiting`: those that still wait. */
export function leaves (queue: Queue, job: Job, waiting: readonly Job[]): void {
  const group = groupOf(job)
  if (group !== '' && !waiting.some((other) => groupOf(other) === group)) queue.row = queue.row?.filter((other) => other !== group) ?? []
}

/** The limiter of its group holds the job back. */
export function isLimited (queue: Queue, { spec: { group } }: Job, now: number, granted = queue.coming.filter(({ spec }) => spec.group === group).length): boolean {
  if (queue.name !== 'mail' || group === null) return false
  const { max, duration } = SETTINGS.queues.mail.groups.limiter
  return queue.groupStarts.filter((start) => start.group === group && start.at > now - duration).length + granted >= max
}

/** Its group has all the jobs running that it may have. */
export function isFull (queue: Queue, { spec: { group } }: Job, jobs: readonly Job[]): boolean {
  if (queue.name !== 'mail' || group === null) return false
  return jobs.filter(({ spec, state }) => spec.queue === queue.name && spec.group === group && state === 'active').length >= SETTINGS.queues.mail.groups.concurrency
}

/** Whose turn it is. Among groups with limits the order is open: one that was held back comes last, whenever that ends. */
export function firstInTurn (queue: Queue, job: Job, waiting: readonly Job[]): Job | undefined {
  return queue.name === 'mail' ? first(waiting.filter((other) => groupOf(other) === groupOf(job))) : next(queue, waiting)
}

/** Whose turn it is, which goes to the end of the row if it has more. */
function next (queue: Queue, waiting: readonly Job[]): Job | undefined {
  if (queue.row === undefined) return first(waiting)
  for (let group = queue.row.shift(); group !== undefined; group = queue.row.shift()) {
    const own = waiting.filter((job) => groupOf(job) === group)
    if (own.length === 0) continue
    if (group === '' || own.length > 1) queue.row.push(group)
    return first(own)
  }
  return undefined
}

function first (waiting: readonly Job[]): Job | undefined {
  return waiting.toSorted((a, b) => b.spec.priority - a.spec.priority || a.ready - b.ready)[0]
}

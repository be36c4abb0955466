/** Groups in the model: those that have jobs waiting stand in a row, and the jobs without a group as if they were one. */
import type { Job, Queue } from './parts.ts'

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

/** Whose turn it is, which goes to the end of the row if it has more. */
export function next (queue: Queue, waiting: readonly Job[]): Job | undefined {
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

/** BullMQ's own flows, configured: what a parent knows of its children is what BullMQ hands it, in the order they were given. */
import type { FlowJob, Job } from 'bullmq'
import type { Incident } from '../../backend.ts'
import { errors } from '../../errors.ts'
import type { ChildRecord, JobRecord, NewJob, FlowNode } from '../../job.ts'
import type { Coder } from './codec.ts'
import type { StoreQueue } from './connections.ts'
import { factsOf, type ChildRef } from './facts.ts'
import { resultFrom, type ToAdd } from './stored.ts'

/** What BullMQ says of a parent whose child failed. */
const CHILD_FAILED = /^child (\S+) failed$/

/** `toAdd`: of one job. The failure of a child fails its parent, unless that ignores it. */
export function toFlow ({ job, ignored, children }: FlowNode, toAdd: (job: NewJob) => ToAdd, isRoot = true): FlowJob {
  const { name, data, opts } = toAdd(job)
  if (!isRoot) Object.assign(opts, ignored ? { ignoreDependencyOnFailure: true } : { failParentOnFailure: true })
  if (children.length === 0) return { name, data, opts, queueName: job.queue }
  const refs = children.map(({ job: child }): ChildRef => [child.queue, child.id, child.name])
  Object.assign(opts.background ?? {}, { children: refs })
  return { name, data, opts, queueName: job.queue, children: children.map((child) => toFlow(child, toAdd, false)) }
}

export function jobsOf ({ job, children }: FlowNode): NewJob[] {
  return [job, ...children.flatMap(jobsOf)]
}

export function childrenIn (job: Job | undefined): readonly ChildRef[] {
  return factsOf(job)?.children ?? []
}

export async function childrenOf (job: Job, coder: Coder): Promise<ChildRecord[]> {
  const [values, failures] = [await job.getChildrenValues(), await job.getIgnoredChildrenFailures()]
  // Of one that is started again, although a child failed.
  const { failed: others = [] } = await job.getDependencies({ failed: { count: childrenIn(job).length } })
  const by = <T>(found: Record<string, T> | undefined): Map<string, T> =>
    new Map(Object.entries(found ?? {}).map(([key, value]) => [key.slice(key.lastIndexOf(':') + 1), value]))
  const [completed, failed] = [by(values), by(failures)]
  return childrenIn(job).map(([, id, name]): ChildRecord => {
    if (completed.has(id)) return { id, name, state: 'completed', ...resultFrom(completed.get(id), coder) }
    const message = failed.get(id) ?? (others.some((key) => key.endsWith(id)) ? 'it failed' : undefined)
    // BullMQ knows nothing any more of one that was taken out.
    return message === undefined ? { id, name, state: 'cancelled' } : { id, name, state: 'failed', error: { name: 'Error', code: null, message } }
  })
}

/** The id of the child for which a parent failed. */
function failedChildOf (reason: string | undefined): string | undefined {
  const key = CHILD_FAILED.exec(reason ?? '')?.[1]
  return key?.slice(key.lastIndexOf(':') + 1)
}

/** Why BullMQ let a job fail by itself. */
export function gaveUp (stored: Job, job: NewJob): Incident {
  const child = failedChildOf(stored.deferredFailure)
  return child === undefined ? { kind: 'stalled', job } : { kind: 'child-failed', job, child }
}

/** BullMQ would take its children along, also those that wait or ran. Answers whether it was there, and did not run itself. */
export async function removeAlone (store: StoreQueue, id: string): Promise<boolean> {
  return await store.remove(id, { removeChildren: false }) > 0
}

/** What its place in a flow adds to a record. */
export function asKin (record: JobRecord, job: Job): JobRecord {
  if (job.parent?.id !== undefined) record.parent = job.parent.id
  const child = record.state === 'failed' ? failedChildOf(job.failedReason) : undefined
  if (child === undefined) return record
  const { name, code, message } = new errors.ChildFailed(child)
  const { history: _, ...rest } = record
  // BullMQ starts such a parent to let it fail: it was no attempt.
  return { ...rest, attemptsMade: 0, startedAt: null, failure: 'unrecoverable', error: { name, code, message } }
}

/** BullMQ's own deduplication, configured: its ids are those of a queue, ours those of a task in it. */
import type { Job, JobsOptions } from 'bullmq'

import type { NewJob, Duplicate, Duplicates } from '../../job.ts'
import type { StoreQueue } from './connections.ts'
import { factsOf } from './facts.ts'

export function deduplicationOf ({ name, policy: { deduplication } }: NewJob): Pick<JobsOptions, 'deduplication'> {
  if (deduplication === undefined) return {}
  const { id, ttl } = deduplication
  return { deduplication: { id: `${encodeURIComponent(name)}:${id}`, ...(ttl > 0 ? { ttl: Math.ceil(ttl) } : undefined) } }
}

export type JobId = Pick<Job, 'id'>

/** BullMQ answers with the job that stands for the id. */
export async function duplicatesOf (jobs: readonly NewJob[], added: readonly JobId[], store: StoreQueue): Promise<Duplicates> {
  const duplicates = new Map<string, Duplicate>()
  for (const [at, job] of jobs.entries()) {
    const id = added[at]?.id ?? job.id
    if (id !== job.id) duplicates.set(job.id, { id, print: job.policy.deduplication?.print && await printOf(store, id) })
  }
  return duplicates
}

async function printOf (store: StoreQueue, id: string): Promise<string | undefined> {
  const job = await store.getJob(id) as Job | undefined
  return factsOf(job)?.print
}

/** A cancelled job lets its id go; BullMQ would keep one that lives by time. */
export async function letGo (job: Job, store: StoreQueue): Promise<void> {
  if (job.deduplicationId !== undefined) await store.getBackend().removeDeduplicationKey(job.deduplicationId, job.id as string)
}

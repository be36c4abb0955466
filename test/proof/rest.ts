/** The questions asked whenever everything has come to rest: is anything forgotten, and do all who ask see the same? */
import { isFinal, type JobRecord, type JobState } from '../../lib/job.ts'
import type { QueueStatus } from '../../lib/jobs/control.ts'
import { forgotten } from './families.ts'
import type { Model } from './model.ts'
import type { Job } from './parts.ts'

/** What had to happen by now and has not. */
export function findForgotten (model: Model, now: number): void {
  model.sweep()
  for (const response of model.responses) model.isOver(response, now)
  for (const job of model.jobs) {
    if (job.gone || isFinal(job.state)) continue
    if (job.neverStarted && job.expires <= now) model.fault(`its time to live was over at ${job.expires}`, job)
    if (job.state === 'pending' && (job.response === undefined || model.isOver(job.response, now))) model.fault('its response is over, and it still waits for it', job)
    if (job.state === 'delayed' && job.until <= now) model.fault(`its delay was over at ${job.until}`, job)
    const waits = forgotten(job)
    if (waits !== undefined) model.fault(waits, job)
    if (job.state === 'active') findForgottenBody(model, job, now)
  }
  for (const queue of model.queues.values()) {
    const waits = model.jobs.some((job) => job.spec.queue === queue.name && model.mayStart(job, now))
    const mayStart = !queue.paused && !model.stopped
    if (waits && mayStart && model.freeSlots(queue) > 0) model.fault(`a job of ${queue.name} waits beside a free slot`)
  }
}

function findForgottenBody (model: Model, job: Job, now: number): void {
  const { body, spec: { timeout } } = job
  if (body === undefined) return model.fault('its body has not begun', job)
  if (body.settled !== undefined) model.fault('its body has ended, and its verdict is not stored', job)
  if (timeout === 0) return
  if (body.aborted === undefined && now >= body.startedAt + timeout) model.fault('its attempt has no end and was not aborted', job)
  if (now >= body.startedAt + 10 * timeout) model.fault('its body should have been given up', job)
}

/** The numbers of a queue as everybody may see them. */
export function compareCounts (model: Model, now: number, counts: Record<string, QueueStatus>): void {
  for (const queue of model.queues.values()) {
    const expected: Record<string, number | boolean> = {
      pending: 0, waiting: 0, delayed: 0, 'waiting-children': 0, active: 0, completed: 0, failed: 0, cancelled: 0, concurrency: queue.concurrency, paused: queue.paused
    }
    for (const job of model.jobs) {
      if (job.spec.queue !== queue.name || job.gone) continue
      const state = shownState(model, job, now)
      expected[state] = (expected[state] as number) + 1
    }
    for (const [name, value] of Object.entries(expected)) {
      const seen = (counts[queue.name] as unknown as Record<string, unknown>)[name]
      if (seen !== value) model.fault(`counts say ${queue.name}.${name} = ${String(seen)}, not ${value}`)
    }
  }
}

/** A waiting job that only the limiter holds back is shown as delayed. */
function shownState (model: Model, job: Job, now: number): JobState {
  return job.state === 'waiting' && model.isHeldBack(job, now) ? 'delayed' : job.state
}

/** One job, as `get` shows it. */
export function compareRecord (model: Model, job: Job, now: number, record: JobRecord | undefined): void {
  if (job.gone !== (record === undefined)) return model.fault(job.gone ? 'it should have been let go' : 'it is not known any more', job)
  if (record === undefined) return
  const limited = job.state === 'waiting' && shownState(model, job, now) === 'delayed'
  const expected: Partial<Record<keyof JobRecord, unknown>> = {
    state: shownState(model, job, now),
    queue: job.spec.queue,
    priority: job.spec.priority,
    attempts: job.spec.attempts,
    attemptsMade: job.attemptsMade,
    failure: job.verdict.state === 'failed' ? job.verdict.failure : undefined,
    reason: job.verdict.reason,
    overdue: job.state === 'active' && job.body?.aborted === 'timeout' ? true : undefined,
    delayReason: limited ? 'rate-limit' : job.state === 'delayed' ? job.delayReason : undefined
  }
  for (const [name, value] of Object.entries(expected)) {
    const seen = record[name as keyof JobRecord]
    if (seen !== value) model.fault(`its ${name} is shown as ${JSON.stringify(seen)}, not ${String(value)}`, job)
  }
  if (isFinal(job.state) !== (record.finishedAt !== null)) model.fault(`finishedAt is ${record.finishedAt}`, job)
}

/**
 * What we know of a job beside what BullMQ knows: it stands in the job's options, under `background`. Whoever reaches the
 * store can write there, another version of this library too: what cannot be understood counts as absent.
 */
import type { Job, JobsOptions } from 'bullmq'
import * as check from '../../check.ts'
import { peek } from '../../describe.ts'
import { JOB_CHECKS, type JobOptions } from '../../job-options.ts'
import type { Carrier } from '../../job.ts'

export type ChildRef = readonly [queue: string, id: string, name: string]

/** What is not there has its default. */
export interface Facts {
  bytes: number
  requestId?: string
  carrier?: Carrier
  /** Of the policy, what is not the task's. */
  own?: Pick<JobOptions, typeof OWN[number]>
  /** Ms from the job's making to its first start, as the caller asked. */
  delay?: number
  /** Added for a response: its delay is that of the hold, until somebody changes it. */
  held?: true
  /** Of a client's key. */
  print?: string
  children?: readonly ChildRef[]
}

export type Options = JobsOptions & { background?: Facts }

/** What of a policy is the job's own. The rest, and all functions, are those of the task where it runs. */
export const OWN = ['attempts', 'backoff', 'timeout', 'ttl'] as const

const fits = (is: (value: unknown) => boolean): check.Check => (value) => is(value) ? undefined : 'something else'
const isText = (value: unknown): boolean => typeof value === 'string'
const text = fits(isText)

const CHECKS: ReadonlyMap<string, check.Check> = new Map<keyof Facts, check.Check>([
  ['bytes', check.integer(0, Number.MAX_SAFE_INTEGER)],
  ['requestId', text],
  ['carrier', fits((value) => check.entriesOf(value)?.every(([, each]) => isText(each)) === true)],
  ['own', check.object],
  ['delay', check.duration],
  ['held', check.oneOf(true)],
  ['print', text],
  ['children', fits((value) => check.isArray(value) && value.every((child) => check.isArray(child) && child.length === 3 && child.every(isText)))]
])

/** Undefined for a job that plain BullMQ added. */
export function factsOf (job: Pick<Job, 'opts'> | undefined): Facts | undefined {
  const given = peek(job?.opts, 'background')
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return undefined
  const facts: Facts & Record<string, unknown> = { bytes: 0 }
  // Read several times for each job: it costs as much as there is.
  for (const key in given) {
    const value = (given as Record<string, unknown>)[key]
    const fault = CHECKS.get(key)
    if (fault !== undefined && fault(value) === undefined) facts[key] = value
  }
  if (facts.own !== undefined) facts.own = Object.fromEntries(OWN.map((key) => [key, facts.own?.[key]]).filter(([key, value]) => isOption(key as string, value)))
  return facts
}

/** Functions are never stored. */
function isOption (key: string, value: unknown): boolean {
  return value !== undefined && JOB_CHECKS[key]?.(value) === undefined
}

/** Epoch ms, if a Date can be made of it. */
export function instantOf (value: unknown): number | undefined {
  return typeof value === 'number' && value >= 0 && !Number.isNaN(check.toEpoch(value)) ? value : undefined
}

/** The job itself. Plain BullMQ takes any number for its times, and keeps what is none. */
export function withTimes (job: Job, now: number): Job {
  const processedOn = instantOf(job.processedOn)
  if (processedOn === undefined) delete job.processedOn
  if (instantOf(job.finishedOn) === undefined) delete job.finishedOn
  job.timestamp = instantOf(job.timestamp) ?? processedOn ?? now
  if (check.duration(job.delay) !== undefined) job.delay = 0
  return job
}

/**
 * A job as BullMQ keeps it, and back. The payload is `job.data`, as every BullMQ worker expects; what else we know stands
 * in the job's options under `background`, and what changes in fields that BullMQ writes with each move: a failed
 * attempt is an entry of `stacktrace`, the text for people and in its last line the facts.
 */
import type { Job } from 'bullmq'
import * as check from '../../check.ts'
import { peek, type ErrorFacts } from '../../describe.ts'
import { LONGEST_MS } from '../../errors.ts'
import { layPolicy } from '../../job-options.ts'
import { iso, startDelay, type Carrier, type FailedAttempt, type Failure, type JobRecord, type JobState, type NewJob, type OmittedResult, type Policy } from '../../job.ts'
import { cloneJson, type Json } from '../../json.ts'
import { plainText, type Coder } from './codec.ts'
import { deduplicationOf } from './deduplication.ts'
import { factsOf, instantOf, OWN, type Facts, type Options } from './facts.ts'

/** BullMQ starts the lowest number first and takes 1 to 2 097 151; ours start the highest first, from −1 000 000. */
const MIDDLE = 1_048_576
/** Failed attempts kept in a job's history. */
export const LONGEST_HISTORY = 20
/** Begins the last line of an entry of `stacktrace`. */
const FACTS = '\n# '
const STALLED = /^job (stalled more|started more) than allowable limit/

const FAILURES: readonly unknown[] = ['exhausted', 'unrecoverable', 'timeout', 'expired', 'stalled'] satisfies Failure[]

/** A failed attempt, as stored. */
interface Entry {
  attempt: number
  at: number
  error: ErrorFacts
  failure?: Failure
  /** Epoch ms of the next attempt. */
  retryAt?: number
}

export interface ToAdd {
  name: string
  data: unknown
  opts: Options
}

/** `hold`: ms that a staged job waits for its release; 0 for one that may start. `usual`: the policy of its task. */
export function toAdd (job: NewJob, hold: number, coder: Coder, usual: Policy): ToAdd {
  const { policy } = job
  const asked = startDelay(job)
  const own = ownPolicy(policy, usual)
  const facts: Facts = { bytes: job.bytes }
  if (job.requestId !== null) facts.requestId = job.requestId
  if (job.carrier !== undefined) facts.carrier = job.carrier
  if (own !== undefined) facts.own = own
  if (asked > 0) facts.delay = asked
  if (hold > 0) facts.held = true
  if (policy.deduplication?.print !== undefined) facts.print = policy.deduplication.print
  // Attempts and backoff are for workers of plain BullMQ, as near as BullMQ can.
  const opts: Options = { jobId: job.id, timestamp: job.createdAt, priority: MIDDLE - policy.priority, attempts: policy.attempts, background: facts, ...deduplicationOf(job) }
  if (typeof policy.backoff === 'object') opts.backoff = { type: policy.backoff.type, delay: policy.backoff.delay, jitter: policy.backoff.jitter }
  const delay = delayWith(job, hold)
  if (delay > 0) opts.delay = delay
  return { name: job.name, data: coder.encode(job.payload), opts }
}

/** Ms that BullMQ is asked to wait. A job that expires is taken out when it does, not when it would have started. */
function delayWith (job: NewJob, hold: number): number {
  return Math.ceil(Math.min(Math.max(startDelay(job), hold), job.policy.ttl > 0 ? job.policy.ttl : Infinity))
}

/** As BullMQ counts. */
export function wholeMs (ms: number): number {
  return Math.ceil(Math.min(ms, LONGEST_MS))
}

/** Also of a job that somebody else added with a queue of plain BullMQ. */
export class StoredJob implements NewJob {
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly bytes: number
  readonly createdAt: number
  readonly requestId: string | null
  readonly carrier: Carrier | undefined
  readonly policy: Policy
  readonly local = undefined
  readonly order = 0
  readonly #data: unknown
  readonly #coder: Coder

  constructor (job: Job, queue: string, coder: Coder, usual: Policy) {
    const facts = factsOf(job)
    this.id = job.id as string
    this.name = job.name
    this.queue = queue
    this.bytes = facts?.bytes ?? 0
    this.createdAt = job.timestamp
    this.requestId = facts?.requestId ?? null
    this.carrier = facts?.carrier
    this.policy = policyOf(job, facts, queue, usual)
    this.#data = job.data
    this.#coder = coder
  }

  /** @throws UnrecoverableError when it cannot be decoded */
  get payload (): Json {
    // PostgreSQL gives an empty object for a payload that was null.
    if (this.bytes === 4 && isEmptyObject(this.#data)) return null
    return cloneJson(this.#coder.decode(this.#data))
  }
}

/** Ms from its making to its first start, as it was asked. */
function delayOf (job: Job): number {
  const facts = factsOf(job)
  const { delay } = facts ?? job.opts
  return check.duration(delay) === undefined ? delay as number : 0
}

/** Without what stands in BullMQ's own options. Of a job that plain BullMQ added, what it says of itself counts too. */
function policyOf (job: Job, facts: Facts | undefined, queue: string, usual: Policy): Policy {
  const { attempts = 0, priority = 0 } = job.opts
  const isCount = (value: number): boolean => Number.isInteger(value) && value > 0
  const asUsual = facts !== undefined && facts.own === undefined && facts.delay === undefined && priority === MIDDLE - usual.priority && queue === usual.queue
  if (asUsual) return usual
  return {
    ...(facts?.own === undefined ? usual : layPolicy('job', usual, facts.own)),
    ...(facts === undefined && isCount(attempts) ? { attempts } : undefined),
    queue,
    priority: isCount(priority) ? MIDDLE - priority : 0,
    delay: delayOf(job),
    runAt: NaN
  }
}

function ownPolicy (policy: Policy, usual: Policy): Facts['own'] {
  if (policy === usual) return undefined
  const own: Record<string, unknown> = {}
  for (const key of OWN) if (policy[key] !== usual[key] && typeof policy[key] !== 'function') own[key] = policy[key]
  return Object.keys(own).length === 0 ? undefined : own
}

/** Epoch ms since when a job that waits could have started. */
export function readySince (job: Job): number {
  return lastEntry(job)?.retryAt ?? job.timestamp + delayOf(job)
}

/** Ms until the asked delay of a held job is over; never the number that says that it is held. */
export function delayAfterHold (job: NewJob, hold: number, now: number): number {
  const left = Math.max(0, Math.ceil(job.createdAt + delayWith(job, 0) - now))
  return left === delayWith(job, hold) ? left - 1 : left
}

/** Added for a response, and neither released nor started by itself. */
function isHeld (job: Pick<Job, 'opts' | 'attemptsStarted' | 'delay'>): boolean {
  return factsOf(job)?.held === true && job.attemptsStarted === 0 && job.delay > 0 && job.delay === job.opts.delay
}

export function isExpired (job: Job, { ttl }: Policy): boolean {
  // BullMQ counts the start that is being judged. A dead letter that was retried has started before, and has no `ttl`.
  return ttl > 0 && job.attemptsStarted <= 1 && job.stalledCounter === 0 && (job.processedOn ?? 0) >= job.timestamp + ttl
}

/** Waits for a retry, not for the delay it was given. */
function isRetrying (job: Job): boolean {
  return job.attemptsStarted > 0 && typeof job.failedReason === 'string' && job.failedReason !== ''
}

/** What BullMQ writes when an attempt has failed: the fields of `fieldsToUpdate`. */
export function failureFields (job: Job, entry: Entry): { failedReason: string, stacktrace: string } {
  const { stack, ...error } = entry.error
  const text = plainText(stack ?? `${error.name}: ${error.message}`) + FACTS + JSON.stringify({ ...entry, error })
  return {
    failedReason: plainText(error.message === '' ? error.name : error.message),
    stacktrace: JSON.stringify([...job.stacktrace ?? [], text].slice(-LONGEST_HISTORY))
  }
}

function lastEntry (job: Job): Partial<Entry> | undefined {
  const text = job.stacktrace?.at(-1)
  return text === undefined ? undefined : readEntry(text)
}

/** Undefined for what another worker wrote. */
function readEntry (text: string): Entry | undefined {
  const at = text.lastIndexOf(FACTS)
  if (at === -1) return undefined
  try {
    const { attempt, at: ended, error, failure, retryAt } = JSON.parse(text.slice(at + FACTS.length)) as Entry
    const { name, message, code, cause } = error
    if (!Number.isInteger(attempt) || instantOf(ended) === undefined || typeof name !== 'string' || typeof message !== 'string') return undefined
    return {
      attempt,
      at: ended,
      error: { name, code: typeof code === 'string' ? code : null, message, ...(check.object(cause) === undefined && { cause }), stack: text.slice(0, at) },
      ...(FAILURES.includes(failure) && { failure }),
      ...(instantOf(retryAt) !== undefined && { retryAt })
    }
  } catch {
    return undefined
  }
}

function historyOf (job: Job): FailedAttempt[] {
  return (job.stacktrace ?? []).flatMap((text, i): FailedAttempt | FailedAttempt[] => {
    const entry = readEntry(text)
    if (entry?.failure === 'expired') return [] // there was no attempt
    if (entry !== undefined) return { attempt: entry.attempt, endedAt: iso(entry.at), error: entry.error }
    const [message = ''] = text.split('\n')
    return { attempt: i + 1, endedAt: iso(job.finishedOn ?? job.processedOn ?? job.timestamp), error: { name: 'Error', code: null, message, stack: text } }
  })
}

/** Results stand for themselves; only what is told instead of one is wrapped. */
const INSTEAD = 'fastify-background-tasks'

export function toReturnValue (result: Json | undefined, resultOmitted: OmittedResult | undefined, coder: Coder): unknown {
  if (resultOmitted !== undefined) return { [INSTEAD]: { resultOmitted } }
  return result === undefined ? null : coder.encode(result)
}

/** What BullMQ keeps as a return value. */
export function resultFrom (value: unknown, coder: Coder): Pick<JobRecord, 'result' | 'resultOmitted'> {
  if (value === null || value === undefined) return {}
  const resultOmitted = peek(peek(value, INSTEAD), 'resultOmitted')
  return resultOmitted === 'unserializable' || resultOmitted === 'too-large' ? { resultOmitted } : { result: coder.read(value) }
}

/** `state`: read before the job, so that it was reached for sure. */
export function toRecord (stored: StoredJob, job: Job, told: JobState, coder: Coder, now: number): JobRecord {
  const state = told === 'delayed' ? delayedState(job, dueAt(job), now) : told
  const final = state === 'completed' || state === 'failed'
  const last = lastEntry(job)
  const failure = state !== 'failed' ? undefined : last?.failure ?? (STALLED.test(job.failedReason ?? '') ? 'stalled' : 'exhausted')
  const expired = failure === 'expired'
  const record: JobRecord = {
    id: stored.id,
    name: stored.name,
    queue: stored.queue,
    state,
    // BullMQ's own value before the first is 0.
    progress: job.progress === 0 ? null : coder.read(job.progress),
    attemptsMade: expired ? 0 : state === 'active' ? job.attemptsMade + 1 : job.attemptsMade,
    attempts: stored.policy.attempts,
    priority: stored.policy.priority,
    createdAt: iso(job.timestamp),
    startedAt: job.processedOn === undefined || expired ? null : iso(job.processedOn),
    finishedAt: final ? iso(job.finishedOn ?? job.processedOn ?? job.timestamp) : null,
    requestId: stored.requestId,
    payload: coder.read(stored.bytes === 4 && isEmptyObject(job.data) ? null : job.data)
  }
  if (stored.carrier !== undefined) record.carrier = stored.carrier
  if (state === 'completed') Object.assign(record, resultFrom(job.returnvalue, coder))
  if (failure !== undefined) record.failure = failure
  const history = historyOf(job)
  if (history.length > 0) record.history = history
  if (state !== 'completed' && (job.failedReason ?? '') !== '') {
    record.error = last?.error ?? history.at(-1)?.error ?? { name: 'Error', code: null, message: job.failedReason }
  }
  if (state === 'delayed') {
    record.delayReason = isRetrying(job) ? 'retry' : 'delay'
    record[record.delayReason === 'retry' ? 'retryAt' : 'runAt'] = iso(dueAt(job))
  }
  return record
}

/** What BullMQ calls delayed: a job waits also when its time has come and no worker has looked. */
export function delayedState (job: Pick<Job, 'opts' | 'attemptsStarted' | 'delay'>, due: number, now: number): 'pending' | 'waiting' | 'delayed' {
  if (now >= due) return 'waiting'
  return isHeld(job) ? 'pending' : 'delayed'
}

/** Epoch ms at which a delayed job may start. */
function dueAt (job: Job): number {
  const retryAt = isRetrying(job) ? lastEntry(job)?.retryAt : undefined
  if (retryAt !== undefined) return retryAt
  return job.attemptsStarted > 0 ? (job.processedOn ?? job.timestamp) + job.delay : job.timestamp + (isHeld(job) ? job.delay : delayOf(job))
}

/** Where nobody notes that an attempt is overdue, its start and its timeout say so. */
export function isOverdue (job: Job, { timeout }: Policy, now: number): boolean {
  return timeout > 0 && job.processedOn !== undefined && now > job.processedOn + timeout
}

function isEmptyObject (value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0 && !Array.isArray(value)
}

/** Jobs and health as HTTP shows them: bodies, and a JSON schema for each status code. */
import type { ErrorFacts } from '../describe.ts'
import { isFinal, type JobRecord } from '../job.ts'

/** Seconds; a poller gains nothing from waiting longer than this at once. */
const LONGEST_RETRY_AFTER = 3_600

export interface StatusBody extends Omit<JobRecord, 'id' | 'payload' | 'error' | 'history' | 'requestId' | 'priority'> {
  jobId: string
  error?: { name: string, code: string | null, message?: string }
}

/** No payload, no stack; the text of an error only for readers who were let in by `authorize`. */
export function statusBody (record: JobRecord, authorized: boolean): StatusBody {
  const { id, payload: _payload, history: _history, requestId: _requestId, priority: _priority, error, ...shown } = record
  return { jobId: id, ...shown, ...(error !== undefined ? { error: errorBody(error, authorized) } : undefined) }
}

function errorBody ({ name, code, message }: ErrorFacts, authorized: boolean): NonNullable<StatusBody['error']> {
  return authorized ? { name, code, message } : { name, code }
}

/** Seconds until polling again makes sense; nothing for a job that has ended. */
export function retryAfter (record: JobRecord, now: number): string | undefined {
  if (isFinal(record.state)) return undefined
  const due = record.retryAt ?? record.runAt
  const seconds = due === undefined ? 1 : Math.ceil((Date.parse(due) - now) / 1_000)
  return String(Math.min(Math.max(seconds, 1), LONGEST_RETRY_AFTER))
}

const text = { type: 'string' } as const
const number = { type: 'number' } as const
const integer = { type: 'integer' } as const
const instant = { type: 'string', format: 'date-time' } as const
const maybe = (schema: object): object => ({ ...schema, nullable: true })

/** Nothing is required: an error handler of the application may have a shape of its own. */
export const errorSchema = {
  type: 'object',
  additionalProperties: true,
  properties: { statusCode: integer, code: text, error: text, message: text }
} as const

export const statusSchema = {
  type: 'object',
  required: ['jobId', 'name', 'queue', 'state', 'progress', 'attemptsMade', 'attempts', 'createdAt', 'startedAt', 'finishedAt'],
  properties: {
    jobId: { ...text, format: 'uuid' },
    name: text,
    queue: text,
    state: { ...text, enum: ['pending', 'waiting', 'delayed', 'waiting-children', 'active', 'completed', 'failed', 'cancelled'] },
    progress: {},
    attemptsMade: integer,
    attempts: integer,
    createdAt: instant,
    startedAt: maybe(instant),
    finishedAt: maybe(instant),
    result: {},
    resultOmitted: { ...text, enum: ['unserializable', 'too-large'] },
    error: { type: 'object', required: ['name', 'code'], properties: { name: text, code: maybe(text), message: text } },
    failure: { ...text, enum: ['exhausted', 'unrecoverable', 'timeout', 'expired', 'stalled'] },
    delayReason: { ...text, enum: ['delay', 'retry', 'rate-limit'] },
    reason: { ...text, enum: ['user', 'response', 'client-abort', 'shutdown'] },
    overdue: { type: 'boolean' },
    retryAt: instant,
    runAt: instant
  }
} as const

const counted = (...names: string[]): object => ({
  type: 'object', required: names, properties: Object.fromEntries(names.map((name) => [name, integer]))
})
const states = ['pending', 'waiting', 'delayed', 'active', 'completed', 'failed', 'cancelled', 'concurrency'] as const

export const healthSchema = {
  type: 'object',
  required: ['status', 'queues', 'totals', 'leaked', 'oldestWaitingMs', 'eventLoopDelayMs', 'backend'],
  properties: {
    status: { ...text, enum: ['ok', 'degraded', 'overloaded', 'draining'] },
    queues: {
      type: 'object',
      additionalProperties: {
        type: 'object',
        required: [...states, 'paused'],
        properties: { ...Object.fromEntries(states.map((name) => [name, integer])), paused: { type: 'boolean' } }
      }
    },
    totals: counted('completed', 'cancelled', 'failedAttempts', 'deadLettered'),
    incidents: counted('refused', 'evicted', 'held', 'floating', 'unstored', 'blocked'),
    leaked: integer,
    oldestWaitingMs: number,
    eventLoopDelayMs: number,
    backend: { type: 'object', required: ['name', 'durable'], properties: { name: text, durable: { type: 'boolean' } } }
  }
} as const

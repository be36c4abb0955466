/** What comes in and what goes out, as JSON schemas: they check requests, and describe the routes for OpenAPI. */

const text = { type: 'string' } as const
const number = { type: 'number' } as const
const integer = { type: 'integer' } as const
const instant = { type: 'string', format: 'date-time' } as const
const uuid = { type: 'string', format: 'uuid' } as const
const title = { type: 'string', minLength: 1, maxLength: 128 } as const
const fingerprint = { type: 'string', pattern: '^[0-9a-f]{16}$' } as const
const state = { type: 'string', enum: ['pending', 'waiting', 'delayed', 'waiting-children', 'active', 'completed', 'failed', 'cancelled'] } as const
const maybe = (schema: object): object => ({ ...schema, nullable: true })

/** Nothing is required: an error handler of the application may have a shape of its own. */
export const errorSchema = {
  type: 'object',
  additionalProperties: true,
  properties: { statusCode: integer, code: text, error: text, message: text }
} as const

/** The results of tasks that say what theirs are like. */
export function describeResults (schemas: ReadonlyArray<readonly [task: string, schema: object]>): object {
  if (schemas.length === 0) return {}
  return { anyOf: [...schemas.map(([task, schema]) => ({ title: `of ${task}`, ...schema })), { title: 'of other tasks' }] }
}

/** Whatever else it is, an unknown id is unknown. */
export const idParams = { type: 'object', required: ['id'], properties: { id: text } } as const

export const statusSchema = {
  type: 'object',
  required: ['jobId', 'name', 'queue', 'state', 'progress', 'attemptsMade', 'attempts', 'createdAt', 'startedAt', 'finishedAt'],
  properties: {
    jobId: uuid,
    name: text,
    queue: text,
    state,
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

export const eventsSchema = {
  description: 'A status document at each change; comments in between',
  content: { 'text/event-stream': { schema: text } }
} as const
export const silence = { type: 'null', description: 'It has ended, and `Last-Event-ID` says that this is known' } as const

const counted = (...names: string[]): object => ({
  type: 'object', required: names, properties: Object.fromEntries(names.map((name) => [name, integer]))
})
const states = ['pending', 'waiting', 'delayed', 'waiting-children', 'active', 'completed', 'failed', 'cancelled', 'concurrency'] as const

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
    incidents: counted('refused', 'evicted', 'held', 'floating', 'unstored', 'blocked', 'skipped'),
    leaked: integer,
    oldestWaitingMs: number,
    eventLoopDelayMs: number,
    backend: { type: 'object', required: ['name', 'durable'], properties: { name: text, durable: { type: 'boolean' } } }
  }
} as const

const failedAttempt = {
  type: 'object',
  required: ['attempt', 'endedAt', 'error'],
  properties: {
    attempt: integer,
    endedAt: instant,
    error: {
      type: 'object',
      description: 'With the stack, and the cause in the same shape',
      required: ['name', 'code', 'message'],
      properties: { name: text, code: maybe(text), message: text, stack: text, cause: { type: 'object', additionalProperties: true } }
    }
  }
} as const

const listedSchema = {
  type: 'object',
  required: [...statusSchema.required, 'priority', 'requestId', 'history'],
  properties: {
    ...statusSchema.properties,
    priority: integer,
    requestId: maybe(text),
    history: { type: 'array', description: 'The failed attempts, the oldest first, at most 20', items: failedAttempt },
    payload: { description: 'Only where `redact` is configured' }
  }
} as const

const page = (job: object): object => ({
  type: 'object',
  required: ['jobs', 'next'],
  properties: { jobs: { type: 'array', items: job }, next: { ...maybe(uuid), description: 'For `after`; null on the last page' } }
})
export const listSchema = page(listedSchema)
export const deadSchema = page({
  ...listedSchema,
  required: [...listedSchema.required, 'fingerprint'],
  properties: { ...listedSchema.properties, fingerprint: { ...fingerprint, description: 'Of the last error: equal for errors of one kind' } }
})

const limit = { type: 'integer', minimum: 1, maximum: 1_000, default: 100 } as const
const after = { ...uuid, description: 'The `next` of the page before' } as const

export const listQuery = {
  type: 'object',
  additionalProperties: false,
  properties: {
    state: { type: 'array', minItems: 1, maxItems: 8, items: state, description: 'One or several; without it, all' },
    task: title,
    queue: title,
    order: { type: 'string', enum: ['oldest', 'newest'], default: 'oldest', description: 'Of making' },
    after,
    limit
  }
} as const

const deadFilter = {
  task: title,
  fingerprint,
  since: { ...instant, description: 'Failed at this instant or later' },
  until: { ...instant, description: 'Failed before this instant' }
} as const
export const deadQuery = { type: 'object', additionalProperties: false, properties: { ...deadFilter, after, limit } } as const
export const groupsQuery = { type: 'object', additionalProperties: false, properties: { ...deadFilter, limit } } as const

export const groupsSchema = {
  type: 'object',
  required: ['groups', 'matched'],
  properties: {
    matched: { type: 'integer', description: 'Dead letters, in all groups' },
    groups: {
      type: 'array',
      items: {
        type: 'object',
        required: ['fingerprint', 'count', 'tasks', 'error', 'firstFailedAt', 'lastFailedAt', 'latest'],
        properties: {
          fingerprint,
          count: integer,
          tasks: { type: 'array', items: text },
          error: maybe({ type: 'object', description: 'Of the latest', required: ['name', 'code', 'message'], properties: { name: text, code: maybe(text), message: text } }),
          firstFailedAt: instant,
          lastFailedAt: instant,
          latest: uuid
        }
      }
    }
  }
} as const

const replay = {
  dryRun: { type: 'boolean', description: 'Only count, and check the patch' },
  ratePerSecond: { type: 'number', minimum: 0.001, maximum: 1_000_000, description: 'Starts a second; without it, all at once' },
  canary: { type: 'boolean', description: 'The oldest goes ahead; the others follow when it has completed' },
  canaryTimeout: { type: 'integer', minimum: 1, maximum: 600_000, description: 'Ms to wait for it; 60000 without it' },
  patch: { type: 'object', additionalProperties: true, description: 'Laid over each payload as a JSON Merge Patch (RFC 7396)' }
} as const
// Without a body, nothing is left out and nothing is changed.
export const replayBody = { type: 'object', nullable: true, additionalProperties: false, properties: { ...deadFilter, ...replay } } as const
export const retryBody = { type: 'object', nullable: true, additionalProperties: false, properties: { dryRun: replay.dryRun, patch: replay.patch } } as const
export const noBody = { type: 'object', nullable: true, additionalProperties: false, properties: {} } as const

export const replaySchema = {
  type: 'object',
  required: ['matched', 'done'],
  properties: {
    matched: integer,
    done: { type: 'integer', description: 'Retried, or about to be, at the rate asked for' },
    canary: {
      type: 'object',
      description: 'Unless it completed, the others stay dead letters',
      required: ['jobId', 'state'],
      properties: { jobId: uuid, state }
    }
  }
} as const

export const cancelSchema = {
  type: 'object',
  required: ['jobId', 'state'],
  properties: { jobId: uuid, state: { type: 'string', enum: ['cancelled', 'active'], description: 'active: its signal has aborted, it ends when its body settles' } }
} as const

export const queueParams = { type: 'object', required: ['name'], properties: { name: title } } as const
export const queueSchema = {
  type: 'object',
  required: ['queue', 'paused'],
  properties: { queue: text, paused: { type: 'boolean', description: 'In the process that answers' } }
} as const

export const schedulesSchema = {
  type: 'object',
  required: ['schedules'],
  properties: {
    schedules: {
      type: 'array',
      items: {
        type: 'object',
        required: ['id', 'name', 'queue', 'overlap', 'missed', 'next', 'count', 'lastJobId', 'lastAt'],
        properties: {
          id: text,
          name: { type: 'string', description: 'Of the task' },
          queue: text,
          pattern: text,
          tz: text,
          every: { type: 'integer', description: 'Ms' },
          overlap: { type: 'string', enum: ['skip', 'queue', 'allow'] },
          missed: { type: 'string', enum: ['skip', 'once'] },
          startDate: instant,
          endDate: instant,
          limit: integer,
          next: maybe(instant),
          count: { type: 'integer', description: 'Times that have come' },
          lastJobId: maybe(uuid),
          lastAt: maybe(instant)
        }
      }
    }
  }
} as const

export const acceptedSchema = {
  type: 'object',
  required: ['jobId', 'name', 'state', 'statusUrl'],
  properties: { jobId: uuid, name: text, state, statusUrl: maybe(text) }
} as const

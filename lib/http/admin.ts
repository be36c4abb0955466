/** The routes that list jobs and steer them: for those whom `authorize` lets in, asked at each request. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import type { JobRecord } from '../job.ts'
import type { Control, JobsQuery } from '../jobs/control.ts'
import type { DeadLetter } from '../jobs/dead-letter-groups.ts'
import type { DeadLetterAnswer, DeadLetterRetryOptions } from '../jobs/dead-letter-replay.ts'
import type { DeadLetterFilter, DeadLetterQuery, DeadLetters } from '../jobs/dead-letters.ts'
import type { Action } from '../options.ts'
import type { RouteSettings } from '../route-options.ts'
import { fromHere, type Access } from './access.ts'
import { addRoute } from './route.ts'
import * as schemas from './schemas.ts'
import { listedBody, type ListedBody } from './views.ts'

export interface AdminParts {
  readonly control: Control
  readonly deadLetters: DeadLetters
  readonly access: Access
  /** Hides in a record what is not to be shown; without it, no payload is. */
  readonly redact: ((job: JobRecord) => void) | undefined
}

const { errorSchema } = schemas
const refused = { 403: errorSchema }
/** Of routes that change something. */
const guarded = { 403: errorSchema, 415: errorSchema }

export function addAdminRoutes (app: FastifyInstance, routes: RouteSettings, parts: AdminParts): void {
  addListRoute(app, routes, parts)
  addDeadRoutes(app, routes, parts)
  addReplayRoute(app, routes, parts)
  addJobRoutes(app, routes, parts)
  addQueueRoute(app, routes, parts, 'pause')
  addQueueRoute(app, routes, parts, 'resume')
}

function addListRoute (app: FastifyInstance, routes: RouteSettings, { control, access, redact }: AdminParts): void {
  addRoute<{ Querystring: JobsQuery }>(app, routes, {
    method: 'GET',
    path: '/jobs',
    summary: 'Background jobs, a page of them',
    schema: { querystring: schemas.listQuery, response: { 200: schemas.listSchema, ...refused } },
    handler: async (request, reply) => {
      await access.ask(request, 'list')
      const { jobs, next } = await ofClient(() => control.page(request.query))
      const shown: ListedBody[] = []
      // What a reader may not read is left out, so a page may be shorter than its limit.
      for (const job of jobs) if (await access.may(request, 'read', job)) shown.push(listedBody(job, redact))
      reply.header('cache-control', 'no-store')
      return { jobs: shown, next }
    }
  })
}

function addDeadRoutes (app: FastifyInstance, routes: RouteSettings, { deadLetters, access, redact }: AdminParts): void {
  const readable = (request: FastifyRequest) => (job: DeadLetter): Promise<boolean> => access.may(request, 'read', job)
  addRoute<{ Querystring: DeadLetterQuery }>(app, routes, {
    method: 'GET',
    path: '/jobs/dead',
    summary: 'Dead letters, a page of them, with the history of their attempts',
    schema: { querystring: schemas.deadQuery, response: { 200: schemas.deadSchema, ...refused } },
    handler: async (request, reply) => {
      await access.ask(request, 'list')
      const { jobs, next } = await ofClient(() => deadLetters.list({ ...request.query, where: readable(request) }))
      reply.header('cache-control', 'no-store')
      return { jobs: jobs.map((job) => ({ ...listedBody(job, redact), fingerprint: job.fingerprint })), next }
    }
  })
  addRoute<{ Querystring: DeadLetterFilter & { limit: number } }>(app, routes, {
    method: 'GET',
    path: '/jobs/dead/groups',
    summary: 'Dead letters by the kind of their last error, the largest group first',
    schema: { querystring: schemas.groupsQuery, response: { 200: schemas.groupsSchema, ...refused } },
    handler: async (request, reply) => {
      await access.ask(request, 'list')
      reply.header('cache-control', 'no-store')
      return ofClient(() => deadLetters.groups({ ...request.query, where: readable(request) }))
    }
  })
}

function addReplayRoute (app: FastifyInstance, routes: RouteSettings, { deadLetters, access }: AdminParts): void {
  addRoute<{ Body: (DeadLetterFilter & DeadLetterRetryOptions) | null }>(app, routes, {
    method: 'POST',
    path: '/jobs/dead/retry',
    summary: 'Retry dead letters: those that match, or all of them',
    onRequest: fromHere,
    schema: { body: schemas.replayBody, response: { 200: schemas.replaySchema, ...guarded, 409: errorSchema } },
    handler: async (request) => {
      await access.ask(request, 'retry')
      const { task, fingerprint, since, until, ...options } = request.body ?? {}
      const where = (job: DeadLetter): Promise<boolean> => access.may(request, 'retry', job)
      return answerBody(await ofClient(() => deadLetters.retry({ task, fingerprint, since, until, where }, options)))
    }
  })
}

function addJobRoutes (app: FastifyInstance, routes: RouteSettings, { control, deadLetters, access }: AdminParts): void {
  const response = { ...guarded, 404: errorSchema, 409: errorSchema }
  addRoute<{ Params: { id: string }, Body: DeadLetterRetryOptions | null }>(app, routes, {
    method: 'POST',
    path: '/jobs/:id/retry',
    summary: 'Retry a dead letter',
    onRequest: fromHere,
    schema: { params: schemas.idParams, body: schemas.retryBody, response: { 200: schemas.replaySchema, ...response } },
    handler: async (request) => {
      const { id, state } = await access.to(request, 'retry', await control.get(request.params.id))
      return ofClient(async () => {
        if (state !== 'failed') throw new errors.NotRetryable(id, `it is ${state}, no dead letter`)
        return answerBody(await deadLetters.retry(id, request.body ?? {}))
      })
    }
  })
  addRoute<{ Params: { id: string } }>(app, routes, {
    method: 'DELETE',
    path: '/jobs/:id',
    summary: 'Cancel a job: at once, or by its signal where it runs',
    onRequest: fromHere,
    schema: { params: schemas.idParams, response: { 200: schemas.cancelSchema, 202: schemas.cancelSchema, 403: errorSchema, 404: errorSchema, 409: errorSchema } },
    handler: async (request, reply) => {
      const { id } = await access.to(request, 'cancel', await control.get(request.params.id))
      const answer = await control.cancel(id)
      if (answer === undefined) throw new errors.JobNotFound()
      if (answer === 'final') throw new errors.NotCancellable(id)
      return reply.code(answer === 'cancelled' ? 200 : 202).send({ jobId: id, state: answer === 'cancelled' ? 'cancelled' : 'active' })
    }
  })
}

function addQueueRoute (app: FastifyInstance, routes: RouteSettings, { control, access }: AdminParts, action: Action & ('pause' | 'resume')): void {
  addRoute<{ Params: { name: string } }>(app, routes, {
    method: 'POST',
    path: `/queues/:name/${action}`,
    summary: action === 'pause' ? 'Start nothing more of a queue in this process' : 'Go on with a queue in this process',
    onRequest: fromHere,
    schema: { params: schemas.queueParams, body: schemas.noBody, response: { 200: schemas.queueSchema, ...guarded, 404: errorSchema } },
    handler: async (request) => {
      await access.ask(request, action)
      const queue = request.params.name
      await ofClient(() => control[action](queue))
      return { queue, paused: action === 'pause' }
    }
  })
}

function answerBody ({ canary, ...answer }: DeadLetterAnswer): object {
  return canary === undefined ? answer : { ...answer, canary: { jobId: canary.id, state: canary.state } }
}

/** What a call in the code answers with a 500 is here the client's mistake. */
const STATUS: Readonly<Record<string, number>> = {
  FST_BG_BAD_OPTION: 400,
  FST_BG_BAD_PAYLOAD: 400,
  FST_BG_PAYLOAD_TOO_LARGE: 400,
  FST_BG_UNKNOWN_QUEUE: 404,
  FST_BG_UNKNOWN_TASK: 409,
  FST_BG_NOT_SUPPORTED: 409,
  FST_BG_NOT_RETRYABLE: 409
}

async function ofClient<T> (call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    const { code = '' } = error as { code?: string }
    throw Object.hasOwn(STATUS, code) ? Object.assign(error as Error, { statusCode: STATUS[code] }) : error
  }
}

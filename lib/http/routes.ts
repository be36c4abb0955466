/** The routes that show jobs and health. */
import type { FastifyInstance, FastifyRequest, FastifySchema } from 'fastify'
import { watchLoopDelay, type Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import type { JobRecord } from '../job.ts'
import type { Control } from '../jobs/control.ts'
import type { HealthCheck } from '../jobs/health.ts'
import type { Authorize, RouteSettings } from '../options.ts'
import { errorSchema, healthSchema, retryAfter, statusBody, statusSchema } from './views.ts'

export interface RouteParts {
  readonly clock: Clock
  readonly control: Control
  readonly health: HealthCheck
  readonly authorize: Authorize | undefined
  readonly onClosed: (close: () => void) => void
}

/** Adds the routes to the application's own instance, so that its hooks and error handler are theirs, whenever they are set. */
export function addRoutes (app: FastifyInstance, routes: RouteSettings, parts: RouteParts): void {
  if (routes.status !== false) addStatusRoute(app, routes.status, routes, parts)
  if (routes.health !== false) addHealthRoute(app, routes.health, routes, parts)
}

function addStatusRoute (app: FastifyInstance, path: string, routes: RouteSettings, { control, clock, authorize }: RouteParts): void {
  const url = join(routes.prefix, path)
  const [before, after] = join(app.prefix, url).split(/:id(?=\/|$)/) as [string, string]
  control.statusPath = [before, after]
  app.get<{ Params: { id: string } }>(url, {
    errorHandler: laterErrorHandler(app),
    ...routes.passed,
    schema: describeRoute('State of a background job', routes, {
      params: { type: 'object', required: ['id'], properties: { id: { type: 'string' } } },
      response: { 200: statusSchema, 404: errorSchema }
    })
  }, async (request, reply) => {
    const record = await control.get(request.params.id)
    if (record === undefined || !await mayRead(authorize, request, record)) throw new errors.JobNotFound()
    const wait = retryAfter(record, clock.now())
    if (wait !== undefined) reply.header('retry-after', wait)
    reply.header('cache-control', 'no-store')
    return statusBody(record, authorize !== undefined)
  })
}

async function mayRead (authorize: Authorize | undefined, request: FastifyRequest, job: JobRecord): Promise<boolean> {
  return authorize === undefined || await authorize(request, 'read', job) === true
}

function addHealthRoute (app: FastifyInstance, path: string, routes: RouteSettings, { clock, health, onClosed }: RouteParts): void {
  const loopDelay = watchLoopDelay(clock)
  onClosed(() => { loopDelay.stop() })
  app.get<{ Querystring: { strict?: string } }>(join(routes.prefix, path), {
    errorHandler: laterErrorHandler(app),
    ...routes.passed,
    schema: describeRoute('Health of the background jobs', routes, {
      querystring: { type: 'object', properties: { strict: { type: 'string' } } },
      response: { 200: healthSchema, 503: healthSchema }
    })
  }, async (request, reply) => {
    const body = await health.read(loopDelay.read())
    reply.header('cache-control', 'no-store')
    if (request.query.strict === '1' && body.status !== 'ok') reply.code(503)
    return body
  })
}

/** `summary` and the user's `tags` are no part of Fastify's own type: @fastify/swagger adds them. */
function describeRoute (summary: string, routes: RouteSettings, own: FastifySchema): FastifySchema {
  const schema = { summary, ...routes.schema, ...own }
  return schema
}

/** As Fastify joins a prefix and a path. */
function join (prefix: string, path: string): string {
  return prefix.endsWith('/') && path.startsWith('/') ? prefix + path.slice(1) : prefix + path
}

/** A route keeps the error handler of the time it was added. Ours come first in most applications, and take a later one too. */
function laterErrorHandler (app: FastifyInstance): FastifyInstance['errorHandler'] {
  const first = app.errorHandler
  return (error, request, reply) => {
    // What is thrown may be anything; sent, only an error passes for one.
    if (app.errorHandler !== first || !(error instanceof Error)) return app.errorHandler(error, request, reply)
    reply.send(error) // on to where it would have gone
    return undefined
  }
}

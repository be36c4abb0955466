/** The routes of the application: a job's state and health here, the others in files of their own. */
import type { FastifyInstance } from 'fastify'
import { watchLoopDelay, type Clock } from '../clock.ts'
import type { Control } from '../jobs/control.ts'
import type { DeadLetters } from '../jobs/dead-letters.ts'
import type { Drain } from '../jobs/drain.ts'
import type { HealthCheck } from '../jobs/health.ts'
import type { Registry } from '../jobs/registry.ts'
import type { Schedules } from '../jobs/schedule.ts'
import type { Settings } from '../options.ts'
import type { RouteSettings } from '../route-options.ts'
import { createRedactor } from '../redact.ts'
import { Access } from './access.ts'
import { addAdminRoutes } from './admin.ts'
import { addEventsRoute } from './events.ts'
import { addRoute, join } from './route.ts'
import { addTaskRoutes } from './tasks.ts'
import { describeResults, errorSchema, healthSchema, idParams, statusSchema } from './schemas.ts'
import { retryAfter, statusBody } from './views.ts'

export interface RouteParts {
  readonly registry: Registry
  readonly clock: Clock
  readonly control: Control
  readonly deadLetters: DeadLetters
  readonly schedules: Schedules
  readonly health: HealthCheck
  readonly drain: Drain
}

export function addRoutes (app: FastifyInstance, { routes, authorize, redact }: Settings, parts: RouteParts): void {
  const access = new Access(authorize)
  if (routes.status !== false) addStatusRoute(app, routes.status, routes, { ...parts, access })
  if (routes.health !== false) addHealthRoute(app, routes.health, routes, parts)
  if (routes.events !== false) addEventsRoute(app, routes.events, routes, { ...parts, access })
  if (!routes.admin) return
  addAdminRoutes(app, routes, { ...parts, access, redact: redact && createRedactor(redact) })
  addTaskRoutes(app, routes, { ...parts, access })
}

function addStatusRoute (app: FastifyInstance, path: string, routes: RouteSettings, { control, clock, registry, access }: RouteParts & { access: Access }): void {
  const [before, after] = join(app.prefix, join(routes.prefix, path)).split(/:id(?=\/|$)/) as [string, string]
  control.statusPath = [before, after]
  const result = {}
  const schema = { ...statusSchema, properties: { ...statusSchema.properties, result } }
  // Tasks are defined later than this. Until the application is ready, nobody has read what it describes.
  app.addHook('onReady', async () => { Object.assign(result, describeResults(registry.resultSchemas)) })
  addRoute<{ Params: { id: string } }>(app, routes, {
    method: 'GET',
    path,
    summary: 'State of a background job',
    schema: { params: idParams, response: { 200: schema, 404: errorSchema } },
    handler: async (request, reply) => {
      const record = await access.to(request, 'read', await control.get(request.params.id))
      const wait = retryAfter(record, clock.now())
      if (wait !== undefined) reply.header('retry-after', wait)
      reply.header('cache-control', 'no-store')
      return statusBody(record, access.guarded)
    }
  })
}

function addHealthRoute (app: FastifyInstance, path: string, routes: RouteSettings, { clock, health, drain }: RouteParts): void {
  const loopDelay = watchLoopDelay(clock)
  drain.onClosed(() => { loopDelay.stop() })
  addRoute<{ Querystring: { strict?: string | string[] } }>(app, routes, {
    method: 'GET',
    path,
    summary: 'Health of the background jobs',
    schema: {
      // Of other parameters, which probes and proxies add, nothing is said.
      querystring: { type: 'object', properties: { strict: { type: 'string', description: '1: 503 unless `status` is `ok`' } } },
      response: { 200: healthSchema, 503: healthSchema }
    },
    handler: async (request, reply) => {
      const body = await health.read(loopDelay.read())
      reply.header('cache-control', 'no-store')
      if (request.query.strict === '1' && body.status !== 'ok') reply.code(503)
      return body
    }
  })
}

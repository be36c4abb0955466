/** Routes for those who keep time: which schedules there are, and a task triggered from outside, by a Kubernetes CronJob for instance. */
import type { FastifyInstance } from 'fastify'
import type { ScheduleRecord, Schedules } from '../jobs/schedule.ts'
import type { TaskName } from '../jobs/task.ts'
import type { RouteSettings } from '../route-options.ts'
import { fromHere, type Access } from './access.ts'
import { addRoute } from './route.ts'
import { acceptedSchema, errorSchema, queueParams, schedulesSchema, statusSchema } from './schemas.ts'

export interface TaskRouteParts {
  readonly schedules: Schedules
  readonly access: Access
}

export function addTaskRoutes (app: FastifyInstance, routes: RouteSettings, { schedules, access }: TaskRouteParts): void {
  addRoute(app, routes, {
    method: 'GET',
    path: '/jobs/schedules',
    summary: 'Schedules, with their next times',
    schema: { response: { 200: schedulesSchema, 403: errorSchema } },
    handler: async (request, reply) => {
      await access.ask(request, 'list')
      reply.header('cache-control', 'no-store')
      return { schedules: (await schedules.list()).map(withoutPayload) }
    }
  })
  addRoute<{ Params: { name: TaskName }, Body: unknown }>(app, routes, {
    method: 'POST',
    path: '/jobs/tasks/:name',
    summary: 'Trigger a task: the body is its payload',
    onRequest: fromHere,
    schema: {
      params: queueParams,
      body: { description: 'The payload; null without one' },
      response: { 200: statusSchema, 202: acceptedSchema, 403: errorSchema, 404: errorSchema, 413: errorSchema, 415: errorSchema, 503: errorSchema }
    },
    handler: async (request, reply) => {
      await access.ask(request, 'trigger')
      return ofClient(() => reply.accepted(request.params.name, request.body as never))
    }
  })
}

function withoutPayload (schedule: ScheduleRecord): Omit<ScheduleRecord, 'payload'> {
  const { payload: _payload, ...shown } = schedule
  return shown
}

/** What a call in the code answers with a 500 is here the client's mistake. */
const STATUS: Readonly<Record<string, number>> = { FST_BG_UNKNOWN_TASK: 404, FST_BG_BAD_PAYLOAD: 400, FST_BG_PAYLOAD_TOO_LARGE: 413 }

function ofClient<T> (call: () => T): T {
  try {
    return call()
  } catch (error) {
    const { code = '' } = error as { code?: string }
    throw Object.hasOwn(STATUS, code) ? Object.assign(error as Error, { statusCode: STATUS[code] }) : error
  }
}

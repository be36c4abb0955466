/** The routes that are compared: each answers the same, and hands over the same little job, or none. */
import Fastify, { type FastifyInstance, type RouteHandlerMethod } from 'fastify'
import backgroundTasks, { errors, type BackgroundTasksOptions } from '../../../lib/index.ts'

export type Route = 'bare' | 'bare, 503' | 'setImmediate' | 'unused' | 'inline' | 'named' | 'BullMQ'

export const PATH = '/order'
export const BODY = JSON.stringify({ item: 'tea', count: 3 })

type Order = { item: string, count: number }

const light = async (): Promise<void> => {}
const answer = (): object => ({ ok: true })

const handlers: Record<Exclude<Route, 'BullMQ'>, RouteHandlerMethod> = {
  bare: async () => answer(),
  'bare, 503': async () => { throw new errors.QueueFull('default', 'as every request finds it') },
  unused: async () => answer(),
  setImmediate: async () => {
    setImmediate(() => { void light() })
    return answer()
  },
  inline: async (_request, reply) => {
    reply.background(light)
    return answer()
  },
  named: async (request, reply) => {
    reply.background('light', { item: (request.body as Order).item })
    return answer()
  }
}

/**
 * A route that nobody asks, as every service has one: V8 treats the fields that no route of an application uses as
 * constants, and the first schema for an input, whosever it is, costs each request of all routes a tenth.
 */
function addOther (app: FastifyInstance): void {
  app.get('/order/:id', { schema: { params: { type: 'object', properties: { id: { type: 'string' } } } } }, async () => answer())
}

/** @param work of the job of `named` */
export async function createApp (route: Route, options: BackgroundTasksOptions = {}, work: () => Promise<void> = light): Promise<FastifyInstance> {
  const app = Fastify()
  addOther(app)
  if (route === 'BullMQ') {
    const { openQueue } = await import('./bullmq.ts') // not into the heap of the others
    const queue = openQueue()
    app.addHook('onClose', () => queue.close())
    app.post(PATH, async (request) => {
      await queue.add('light', { item: (request.body as Order).item })
      return answer()
    })
    return app
  }
  if (route !== 'bare' && route !== 'bare, 503' && route !== 'setImmediate') {
    await app.register(backgroundTasks, options)
    app.background.define('light', { attempts: 5 }, work)
  }
  app.post(PATH, handlers[route])
  return app
}

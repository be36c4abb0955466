import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import backgroundTasks, { type BackgroundTasksOptions } from '../../../lib/index.ts'

/** An application, without a logger if none is asked for, whose default queue has room for everything. */
export async function createApp (options: BackgroundTasksOptions = {}, define: (app: FastifyInstance) => void = () => {}, server: FastifyServerOptions = {}): Promise<FastifyInstance> {
  const app = Fastify(server)
  await app.register(backgroundTasks, { maxQueueSize: 100_000_000, maxQueueBytes: Number.MAX_SAFE_INTEGER, ...options })
  define(app)
  await app.ready()
  return app
}

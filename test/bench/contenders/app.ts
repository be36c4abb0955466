import Fastify, { type FastifyInstance } from 'fastify'
import backgroundTasks, { type BackgroundTasksOptions } from '../../../lib/index.ts'

/** An application without a logger, whose default queue has room for everything. */
export async function createApp (options: BackgroundTasksOptions = {}, define: (app: FastifyInstance) => void = () => {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(backgroundTasks, { maxQueueSize: 100_000_000, maxQueueBytes: Number.MAX_SAFE_INTEGER, ...options })
  define(app)
  await app.ready()
  return app
}

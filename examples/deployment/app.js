// @ts-check
/**
 * One code base, deployed twice: `ROLE=producer` serves the web and adds jobs, `ROLE=worker` does them. Without ROLE it
 * does both, for a single process. `STORE` is the URL of Redis or PostgreSQL; without it jobs live in memory.
 */
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'
import { bullmq } from 'fastify-background-tasks/bullmq'

const { STORE, ROLE = 'both', PORT = '3000' } = process.env
const app = Fastify({ logger: true })

await app.register(backgroundTasks, {
  queues: { reports: { concurrency: 2 } },
  drainTimeout: 20_000,
  ...(STORE === undefined ? {} : { backend: bullmq({ connection: STORE }), role: /** @type {'both' | 'producer' | 'worker'} */ (ROLE) })
})

const report = app.background.define('report', {
  queue: 'reports',
  schema: { type: 'object', required: ['month'], properties: { month: { type: 'string' } } },
  attempts: 5
}, async (/** @type {{ month: string }} */ { month }, { job, signal, progress }) => {
  for (let part = 1; part <= 10; part++) {
    signal.throwIfAborted()
    await new Promise((resolve) => { setTimeout(resolve, 100) })
    progress({ part, of: 10 })
  }
  // The id is the same in every attempt: whoever gets the report can tell a second one from the first.
  return { report: `${month}.pdf`, key: job.id }
})

// Workers answer for their health and for the state of jobs; they take none.
if (ROLE !== 'worker') {
  app.post('/reports', async (request, reply) => reply.accepted(report, /** @type {{ month: string }} */ (request.body)))
}

process.once('SIGTERM', () => { void app.close() })
await app.listen({ port: Number(PORT), host: '0.0.0.0' })

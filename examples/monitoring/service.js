// @ts-check
/** A service with a /metrics route: node examples/monitoring/service.js, then prometheus --config.file=examples/monitoring/prometheus.yml */
import backgroundTasks from 'fastify-background-tasks'
import { metrics } from 'fastify-background-tasks/metrics'
import Fastify from 'fastify'
import promClient from 'prom-client'

const app = Fastify({ logger: true })
await app.register(backgroundTasks)
await app.register(metrics, { client: promClient })

const work = app.background.define('work', { attempts: 2, backoff: 500 }, async () => {
  if (Math.random() < 0.1) throw new Error('one in ten')
})

app.get('/', async (request, reply) => reply.accepted(work, null))
app.get('/metrics', async (request, reply) => {
  reply.type(promClient.register.contentType)
  return promClient.register.metrics()
})
await app.listen({ port: Number(process.env.PORT ?? 3000) })

/** The service as a program of its own, closed by close-with-grace. */
import closeWithGrace from 'close-with-grace'
import Fastify, { type FastifyInstance } from 'fastify'
import service, { type Scenario } from './shutdown-app.ts'

const scenario = JSON.parse(process.env['SCENARIO'] ?? '{}') as Scenario
const app = Fastify({ logger: { level: 'warn' }, ...(scenario.http2 ? { http2: true } : {}) } as object) as unknown as FastifyInstance
closeWithGrace({ delay: scenario.delay }, async () => { await app.close() })
await app.register(service)
await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening at ${app.listeningOrigin}`)

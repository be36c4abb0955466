// In a folder of its own, with nothing installed but Fastify and the package.
import { readdirSync } from 'node:fs'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'
import { bullmq } from 'fastify-background-tasks/bullmq'
import { inline } from 'fastify-background-tasks/testing'
import 'fastify-background-tasks/sqlite'

const app = Fastify()
await app.register(backgroundTasks, { backend: inline() })
await app.ready()
console.log(await (await app.background.add(() => 'ran')).finished())
await app.close()

const other = Fastify()
await other.register(backgroundTasks, { backend: bullmq({ connection: 'redis://127.0.0.1:1' }) })
await other.ready().then(() => {}, ({ code }) => { console.log(code) })
await other.close().catch(() => {})
console.log(readdirSync('node_modules').filter((name) => ['bullmq', 'piscina', 'pino-pretty'].includes(name)))

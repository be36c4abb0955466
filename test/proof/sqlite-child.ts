/** A service on a SQLite file, to be killed. Each attempt that begins is a line in a file of its own, which outlives it. */
import { openSync, writeSync } from 'node:fs'
import Fastify from 'fastify'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { backgroundTasks, type Backend } from '../../lib/index.ts'
import type { SqliteDatabase } from '../../lib/backends/sqlite/index.ts'
import { openRaw } from '../support/sqlite.ts'

const { FILE = '', RUNS = '', SYNCHRONOUS = 'full', BROKEN = '' } = process.env
const runs = openSync(RUNS, 'a')

/** Whoever once had an attempt may settle it, whoever has the job now. */
function unfenced (database: SqliteDatabase): SqliteDatabase {
  return {
    exec: (sql) => database.exec(sql),
    prepare: (sql) => database.prepare(sql.replace("AND owner = ? AND token = ? AND state = 'active'", 'AND ? IS NOT NULL AND ? IS NOT NULL')),
    close: () => database.close()
  }
}

const stale = BROKEN === 'lets stale owners write'
const backend: Backend = sqlite({ ...(stale ? { database: unfenced(openRaw(FILE)) } : { path: FILE }), synchronous: SYNCHRONOUS as 'full' })
if (BROKEN === 'acknowledges before it writes') {
  const enqueue = backend.enqueue.bind(backend)
  backend.enqueue = (jobs, staged) => { Promise.resolve(enqueue(jobs, staged)).catch(() => {}) }
}

const app = Fastify({ logger: { level: 'error' } })
const everything = { count: 1_000_000, age: 86_400_000 }
await app.register(backgroundTasks, { backend, concurrency: 20, maxQueueSize: 1_000_000, retention: { completed: everything, failed: everything }, drainTimeout: 1_000 })
app.background.define('work', { attempts: 50, backoff: 1 }, async (payload: { n: number, pause: number }, { job }) => {
  writeSync(runs, `${job.id} ${job.attempt}\n`)
  await new Promise((resolve) => { setTimeout(resolve, payload.pause) })
  if (payload.n % 5 === 0 && job.attempt === 1) throw new Error('the first attempt fails')
  return { attempt: job.attempt }
})
app.background.define('once', { attempts: 1 }, async (_payload: { n: number, pause: number }, { job }) => {
  writeSync(runs, `${job.id} ${job.attempt}\n`)
  return { attempt: job.attempt }
})
app.post<{ Body: { n: number, pause: number } }>('/one', async (request, reply) => reply.accepted('work', request.body))
app.post<{ Body: { n: number, pause: number } }>('/three', async (request, reply) => ({
  ids: ['work', 'once', 'work'].map((name) => reply.background(name, request.body).id)
}))
app.post<{ Body: { n: number, pause: number } }>('/added', async (request) => ({ ids: [(await app.background.add('work', request.body)).id] }))
await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening at ${app.listeningOrigin}`)

/**
 * What our add and our work cost over bare BullMQ that does the same round trips: the same jobs, options, concurrency and
 * retention, in turns in one process. `node .proof/test/proof/bullmq-cost.js [jobs]`
 */
import Fastify from 'fastify'
import { randomUUID } from 'node:crypto'
import { createPostgresBackend, createRedisBackend, Queue, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import { backgroundTasks } from '../../lib/index.ts'
import { storeAt, type Store } from '../backends/bullmq/store.ts'
import { startServer } from '../support/servers/find.ts'
import { postgres } from '../support/servers/postgres.ts'
import { redis } from '../support/servers/redis.ts'

const JOBS = Number(process.argv[2] ?? 3_000)
const ROUNDS = 5
const CONCURRENCY = 10

interface Times { add: number, work: number, response: number }

/** Ms for all of them, so many at once. */
async function atOnce (count: number, each: (i: number) => Promise<unknown>): Promise<number> {
  const start = performance.now()
  let next = 0
  await Promise.all(Array.from({ length: CONCURRENCY }, async () => { while (next < count) await each(next++) }))
  return performance.now() - start
}

async function bare (store: Store): Promise<Times> {
  const { connection, prefix = 'bull' } = store.options()
  const factory = (store.kind.name === 'redis' ? createRedisBackend : createPostgresBackend) as unknown as BackendFactory<IQueueBackend>
  const given = { connection: typeof connection === 'string' ? { url: connection } : { migrate: true, ...connection }, prefix }
  const queue = new Queue('default', given, factory)
  await queue.waitUntilReady()
  const options = { priority: 1_048_576, attempts: 3, backoff: { type: 'exponential', delay: 1_000, jitter: 0.5 } }
  // An id of its own and the time of its making: what a job here cannot do without.
  const add = await atOnce(JOBS, (i) => queue.add('work', { i }, { ...options, jobId: randomUUID(), timestamp: Date.now() }))
  let done = 0
  let end: () => void = () => {}
  const all = new Promise<void>((resolve) => { end = resolve })
  const worker = new Worker('default', async () => { if (++done === JOBS) end() }, {
    ...given, concurrency: CONCURRENCY, autorun: false, removeOnComplete: { count: 10_000, age: 3_600 }
  }, factory)
  await worker.waitUntilReady()
  const start = performance.now()
  void worker.run()
  await all
  const work = performance.now() - start
  await worker.close()
  await queue.close()
  return { add, work, response: NaN }
}

async function ours (store: Store): Promise<Times> {
  const app = Fastify()
  await app.register(backgroundTasks, { backend: store.create(), concurrency: CONCURRENCY, maxQueueSize: 10 * JOBS })
  let done = 0
  let end: () => void = () => {}
  const task = app.background.define<{ i: number }>('work', async () => { if (++done === JOBS) end() })
  app.post('/', async (_request, reply) => reply.accepted(task, { i: 0 }))
  await app.ready()
  // The worker is connected before anything is measured, as that of bare BullMQ is.
  done = -1
  await app.background.add(task, { i: 0 })
  while (done < 0) await new Promise((resolve) => { setTimeout(resolve, 5) })
  await app.background.pause()
  const add = await atOnce(JOBS, (i) => app.background.add(task, { i }))
  const all = new Promise<void>((resolve) => { end = resolve })
  const start = performance.now()
  await app.background.resume()
  await all
  const work = performance.now() - start
  done = -Infinity
  const response = await atOnce(JOBS / 3, () => app.inject({ method: 'POST', url: '/' })) * 3
  await app.close()
  return { add, work, response }
}

for (const kind of [redis, postgres]) {
  const found = await startServer(kind)
  if (typeof found === 'string') continue
  const store = storeAt(kind, found.url)
  const times: Array<[Times, Times]> = []
  for (let round = 0; round < ROUNDS; round++) {
    const first = await (round % 2 === 0 ? bare : ours)(store)
    const second = await (round % 2 === 0 ? ours : bare)(store)
    times.push(round % 2 === 0 ? [first, second] : [second, first])
  }
  const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] as number
  const rate = (ms: number): number => Math.round(JOBS / ms * 1_000)
  for (const part of ['add', 'work'] as const) {
    const [theirs, own] = [median(times.map(([t]) => t[part])), median(times.map(([, o]) => o[part]))]
    console.log(`${kind.name} ${part}: bare BullMQ ${rate(theirs)}/s, ours ${rate(own)}/s, ratio ${(theirs / own).toFixed(3)}`)
  }
  console.log(`${kind.name} response-bound, by inject: ${rate(median(times.map(([, o]) => o.response)))}/s`)
  await found.release()
}
process.exit()

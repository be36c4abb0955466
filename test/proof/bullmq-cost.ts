/**
 * What our add and our work cost over bare BullMQ that does the same round trips: the same jobs, options, concurrency and
 * retention, in turns in one process. Of the turns that stand beside each other the ratio is taken, and the median of these
 * ratios counts: the machine is not equally fast all the time. `node .proof/test/proof/bullmq-cost.js [rounds]`
 */
import Fastify, { type FastifyInstance } from 'fastify'
import { randomUUID } from 'node:crypto'
import { createPostgresBackend, createRedisBackend, Queue, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import { backgroundTasks, type BackgroundTasksOptions } from '../../lib/index.ts'
import type { BullmqOptions } from '../../lib/backends/bullmq/index.ts'
import { storeAt, type Store } from '../backends/bullmq/store.ts'
import { startServer } from '../support/servers/find.ts'
import { postgres } from '../support/servers/postgres.ts'
import { redis } from '../support/servers/redis.ts'

const ROUNDS = Number(process.argv[2] ?? 10)
/** Times that jobs are added in a round, before they are done: what they take in Redis is short against what else the machine does. */
const TURNS = { redis: 20, postgres: 2 }
/** Added each time. */
const JOBS = 500
const CONCURRENCY = 10

/** A way to add jobs and to do them; what it answers is µs a job. */
interface Way {
  add (): Promise<number>
  /** All that was added, from the first job's end to the last one's. */
  work (): Promise<number>
  close (): Promise<void>
}

/** So many at once. */
async function timed (each: (i: number) => Promise<unknown>): Promise<number> {
  const start = performance.now()
  let next = 0
  await Promise.all(Array.from({ length: CONCURRENCY }, async () => { while (next < JOBS) await each(next++) }))
  return (performance.now() - start) * 1_000 / JOBS
}

class Countdown {
  readonly #jobs: number
  #done = 0
  #first = 0
  #over: (us: number) => void = () => {}

  constructor (jobs: number) {
    this.#jobs = jobs
  }

  start (): Promise<number> {
    this.#done = 0
    return new Promise((resolve) => { this.#over = resolve })
  }

  done (): void {
    if (++this.#done === 1) this.#first = performance.now()
    if (this.#done === this.#jobs) this.#over((performance.now() - this.#first) * 1_000 / (this.#jobs - 1))
  }
}

async function bare (store: Store): Promise<Way> {
  const { connection, prefix = 'bull' } = store.options()
  const factory = (store.kind.name === 'redis' ? createRedisBackend : createPostgresBackend) as unknown as BackendFactory<IQueueBackend>
  const given = { connection: typeof connection === 'string' ? { url: connection } : { migrate: true, ...connection }, prefix }
  const queue = new Queue('default', given, factory)
  await queue.waitUntilReady()
  const countdown = new Countdown(TURNS[store.kind.name] * JOBS)
  const options = { priority: 1_048_576, attempts: 3, backoff: { type: 'exponential', delay: 1_000, jitter: 0.5 } }
  return {
    // An id of its own and the time of its making: what a job here cannot do without.
    add: () => timed((i) => queue.add('work', { i }, { ...options, jobId: randomUUID(), timestamp: Date.now() })),
    async work () {
      const over = countdown.start()
      const worker = new Worker('default', async () => { countdown.done() }, {
        ...given, concurrency: CONCURRENCY, removeOnComplete: { count: 10_000, age: 3_600 }
      }, factory)
      const us = await over
      await worker.close()
      return us
    },
    close: () => queue.close()
  }
}

async function ours (store: Store): Promise<Way & { response (): Promise<number> }> {
  const place = store.options()
  const countdown = new Countdown(TURNS[store.kind.name] * JOBS)
  const producer = await appOn(store, place, { role: 'producer' }, countdown)
  return {
    add: () => timed((i) => producer.background.add('work', { i })),
    async work () {
      const over = countdown.start()
      const worker = await appOn(store, place, { role: 'worker' }, countdown)
      const us = await over
      await worker.close()
      return us
    },
    response: () => timed(() => producer.inject({ method: 'POST', url: '/' })),
    close: () => producer.close()
  }
}

async function appOn (store: Store, place: BullmqOptions, options: BackgroundTasksOptions, countdown: Countdown): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(backgroundTasks, { backend: store.create(place), concurrency: CONCURRENCY, maxQueueSize: 1_000_000, ...options })
  const task = app.background.define<{ i: number }>('work', async () => { countdown.done() })
  app.post('/', async (_request, reply) => reply.accepted(task, { i: 0 }))
  await app.ready()
  return app
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number
const rate = (us: number): string => `${Math.round(1e6 / us)}/s`

for (const kind of [redis, postgres]) {
  const found = await startServer(kind)
  if (typeof found === 'string') continue
  const store = storeAt(kind, found.url)
  const turns = TURNS[kind.name]
  const own = await ours(store)
  const measured = [{ way: await bare(store), add: [] as number[], work: [] as number[] }, { way: own, add: [] as number[], work: [] as number[] }]
  const [theirs, mine] = measured as [typeof measured[0], typeof measured[0]]
  const responses: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    for (let turn = 0; turn < turns; turn++) for (const one of measured.reverse()) one.add.push(await one.way.add())
    for (const one of measured.reverse()) one.work.push(await one.way.work())
  }
  for (let turn = 0; turn < turns; turn++) responses.push(await own.response())
  for (const part of ['add', 'work'] as const) {
    const ratios = theirs[part].map((us, i) => us / (mine[part][i] as number))
    console.log(`${kind.name} ${part}: bare BullMQ ${rate(median(theirs[part]))}, ours ${rate(median(mine[part]))}, ratio ${median(ratios).toFixed(2)}`)
  }
  console.log(`${kind.name} response-bound, by inject: ${rate(median(responses))}`)
  for (const { way } of measured) await way.close()
  await found.release()
}
process.exit()

/** A server whose process always has CPU work waiting, done in one way or another: what its requests feel of it. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import PQueue from 'p-queue'
import backgroundTasks, { type JobContext } from '../../../lib/index.ts'
import { tls } from '../../support/tls.ts'
import { burn } from './burn.ts'
import type { Latencies, Pace, Protocol } from './open-loop.ts'

export type Way = 'no background' | 'naive p-queue' | 'one job per setImmediate' | 'throttled by utilization' | 'ours' | 'ours, foreground off' |
  'ours, yieldNow each 0.25 ms' | 'ours, in threads'

export interface BackgroundSettings {
  readonly way: Way
  /** CPU of a job. */
  readonly jobMs: number
  /** Jobs that always wait. */
  readonly waiting: number
  readonly rate: number
  /** Requests that come at once. */
  readonly burst: number
  readonly protocol: Protocol
  readonly keepAlive: boolean
  /** Ms that each request waits for something else. */
  readonly database: number
  readonly ms: number
}

/** Utilization of the loop beyond which the throttled one waits. */
const BUSY = 0.7

export async function prepare ({ way, jobMs, waiting, database, ms, ...pace }: BackgroundSettings) {
  const app = createServer(pace.protocol)
  const accepted = watchAccepts(app, pace.burst)
  app.get('/', async () => {
    if (database > 0) await sleep(database)
    return { ok: true }
  })
  let done = 0
  const { start, stop } = await ways[way]({
    app, jobMs, waiting,
    job: () => {
      burn(jobMs)
      done++
    },
    ended: () => { done++ }
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const client = fork(new URL('open-loop.js', import.meta.url), [], { execArgv: [] })
  return {
    measure: async () => {
      start()
      const before = { done, at: performance.now() }
      client.send({ port, path: '/', ms, ...pace } satisfies Pace)
      const [found] = await once(client, 'message') as [Latencies]
      stop() // the others are measured meanwhile
      return { ...found, accepted: accepted(), jobs: (done - before.done) / (performance.now() - before.at) * 1_000 }
    }
  }
}

function createServer (protocol: Protocol): FastifyInstance {
  if (protocol === 'http') return Fastify()
  return (protocol === 'https' ? Fastify({ https: tls }) : Fastify({ https: tls, http2: true })) as unknown as FastifyInstance
}

/** Ms from the first to the last accept of a burst of new connections: the longest since it was last asked. */
function watchAccepts (app: FastifyInstance, burst: number): () => number {
  let longest = 0
  let first = 0
  let n = 0
  app.server.on('connection', () => {
    if (n++ % burst === 0) first = performance.now()
    longest = Math.max(longest, performance.now() - first)
  })
  return () => {
    const found = longest
    longest = 0
    return found
  }
}

interface Parts {
  readonly app: FastifyInstance
  readonly jobMs: number
  readonly waiting: number
  readonly job: () => void
  readonly ended: () => void
}
/** What stopped can be started again. */
type SetUp = (parts: Parts) => Promise<{ start: () => void, stop: () => void }>

const ours = (options: { foreground?: boolean }, burnIn?: (parts: Parts, context: JobContext) => Promise<void>): SetUp => async (parts) => {
  const { app, job, waiting } = parts
  await app.register(backgroundTasks, options)
  app.background.define('burn', async (_payload, context) => {
    if (burnIn === undefined) job()
    else await burnIn(parts, context)
    await app.background.add('burn')
  })
  await app.ready()
  await app.background.pause()
  await app.background.addBulk(Array.from({ length: waiting }, () => ({ name: 'burn' })))
  return { start: () => { void app.background.resume() }, stop: () => { void app.background.pause() } }
}

/** Calls itself until it is stopped. */
function loop (turn: (again: () => void) => void): { start: () => void, stop: () => void } {
  let going = false
  const again = (): void => { if (going) turn(again) }
  return {
    start: () => {
      going = true
      again()
    },
    stop: () => { going = false }
  }
}

const ways: Record<Way, SetUp> = {
  'no background': async () => ({ start () {}, stop () {} }),
  'naive p-queue': async ({ job, waiting }) => {
    const queue = new PQueue({ concurrency: 10 })
    // All that wait run in one turn of the loop.
    return loop((again) => {
      while (queue.size < waiting) void queue.add(async () => { job() })
      setImmediate(again)
    })
  },
  'one job per setImmediate': async ({ job }) => loop((again) => {
    job()
    setImmediate(again)
  }),
  'throttled by utilization': async ({ job }) => {
    let last = performance.eventLoopUtilization()
    return loop((again) => {
      if (performance.eventLoopUtilization(last).utilization > BUSY) return void setTimeout(again, 1)
      last = performance.eventLoopUtilization()
      job()
      setImmediate(again)
    })
  },
  ours: ours({}),
  'ours, foreground off': ours({ foreground: false }),
  'ours, in threads': async ({ app, jobMs, waiting, ended }) => {
    await app.register(backgroundTasks)
    app.background.define('burn', { worker: new URL('burn.js', import.meta.url) })
    await app.ready()
    await app.background.pause()
    const again = async (): Promise<void> => {
      const job = await app.background.add('burn', jobMs)
      await job.finished()
      ended()
      await again()
    }
    for (let i = 0; i < waiting; i++) void again()
    return { start: () => { void app.background.resume() }, stop: () => { void app.background.pause() } }
  },
  'ours, yieldNow each 0.25 ms': ours({}, async ({ jobMs, ended }, { yieldNow }) => {
    for (let spent = 0; spent < jobMs; spent += 0.25) {
      burn(0.25)
      await yieldNow()
    }
    ended()
  })
}

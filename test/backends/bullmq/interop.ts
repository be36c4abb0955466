/** What plain BullMQ sees of our jobs, and we of its; for both stores. */
import { createPostgresBackend, createRedisBackend, Queue, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import t from 'tap'
import { backgroundTasks, type Background, type JobRecord } from '../../../lib/index.ts'
import type { Kind } from '../../support/servers/find.ts'
import { deferred } from '../../support/harness.ts'
import { appOn, type Line } from './cluster.ts'
import { onStore } from './on.ts'
import { newSpace, type Store } from './store.ts'

type Plain = Queue<unknown, unknown, string, unknown, unknown, string, IQueueBackend>

function plain ({ kind, options }: Store, space: string) {
  const { connection, prefix = 'bull' } = options(space)
  const factory = (kind.name === 'redis' ? createRedisBackend : createPostgresBackend) as unknown as BackendFactory<IQueueBackend>
  const given = { connection: typeof connection === 'string' ? { url: connection } : connection, prefix }
  return {
    queue: (): Plain => new Queue('default', given, factory) as Plain,
    worker: (work: (data: unknown) => Promise<unknown>) => new Worker('default', (job) => work(job.data), given, factory)
  }
}

export async function interopOn (kind: Kind): Promise<void> {
  const store = await onStore(kind)
  if (store === undefined) return
  const where = (space: string) => ({ kind: kind.name, url: store.url, space })

  t.test('a queue of plain BullMQ adds our tasks: they run by the policy of the task', async (t) => {
    const space = newSpace()
    const { app } = await appOn(where(space))
    const ran: unknown[] = []
    const over = deferred()
    app.background.define('greet', { attempts: 2, backoff: 10 }, async (payload, { job }) => {
      ran.push(payload, job.attempt)
      if (job.attempt === 1) throw new Error('once')
      over.resolve()
    })
    await app.ready()
    t.teardown(() => app.close())
    const queue = plain(store, space).queue()
    t.teardown(() => queue.close())
    const { id } = await queue.add('greet', { name: 'Ada' })
    await over.promise
    t.strictSame(ran, [{ name: 'Ada' }, 1, { name: 'Ada' }, 2])
    for (let tries = 0; tries < 100 && await queue.getJobState(id as string) !== 'completed'; tries++) await new Promise((resolve) => { setTimeout(resolve, 20) })
    t.equal(await queue.getJobState(id as string), 'completed')
  })

  t.test('a worker of plain BullMQ takes our jobs: the payload is its data, what it returns our result', async (t) => {
    const space = newSpace()
    const { app } = await appOn(where(space), { role: 'producer' })
    const greet = app.background.define<{ name: string }>('greet', { attempts: 1 }, async () => {})
    await app.ready()
    t.teardown(() => app.close())
    const worker = plain(store, space).worker(async (data) => {
      const { name } = data as { name: string }
      if (name === 'nobody') throw new Error('no such person')
      return `Hello ${name}`
    })
    t.teardown(() => worker.close())
    t.equal(await (await app.background.add(greet, { name: 'Ada' })).finished({ timeout: 10_000 }), 'Hello Ada')
    const failed = await app.background.add(greet, { name: 'nobody' })
    await t.rejects(failed.finished({ timeout: 10_000 }), { code: 'FST_BG_JOB_FAILED', message: /no such person/ })
    t.match(await app.background.deadLetters.get(failed.id), { state: 'failed', failure: 'exhausted', error: { message: 'no such person' } })
  })

  t.test('payloads, results and progress go through the codec; a payload that it cannot read is a dead letter', async (t) => {
    const space = newSpace()
    const key = randomBytes(32)
    const codec = {
      encode (text: string) {
        const nonce = randomBytes(12)
        const cipher = createCipheriv('aes-256-gcm', key, nonce)
        const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
        return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64')
      },
      decode (text: string) {
        const bytes = Buffer.from(text, 'base64')
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12)).setAuthTag(bytes.subarray(12, 28))
        return decipher.update(bytes.subarray(28), undefined, 'utf8') + decipher.final('utf8')
      }
    }
    const app = Fastify()
    await app.register(backgroundTasks, { backend: store.create(space, { codec }) })
    const task = app.background.define<{ secret: string }, { secret: string }>('work', async (payload, { progress }) => {
      progress({ secret: 'half' })
      return { secret: `${payload.secret} done` }
    })
    await app.ready()
    t.teardown(() => app.close())
    const handle = await app.background.add(task, { secret: 'payload' })
    t.strictSame(await handle.finished({ timeout: 10_000 }), { secret: 'payload done' })
    t.match(await app.background.get(handle.id), { payload: { secret: 'payload' }, progress: { secret: 'half' }, result: { secret: 'payload done' } })
    const queue = plain(store, space).queue()
    t.teardown(() => queue.close())
    const stored = JSON.stringify((await queue.getJob(handle.id))?.asJSON())
    t.notMatch(stored, /secret|payload"|half|done/)
    const foreign = await queue.add('work', { secret: 'in the clear' }, { jobId: '01900000-0000-7000-8000-000000000000' })
    t.match(await untilFailed(app.background, foreign.id as string), { failure: 'unrecoverable', error: { message: /codec cannot read/ } })
  })

  t.test('credentials stay out of logs, health and errors', async (t) => {
    const url = new URL(store.url)
    url.username = 'somebody'
    url.password = 'sesame-open'
    const lines: Line[] = []
    const app = Fastify({ logger: { level: 'trace', stream: { write (line: string) { lines.push(JSON.parse(line) as Line) } } } })
    url.port = '1' // nobody listens there
    await app.register(backgroundTasks, { backend: store.create(undefined, { connection: url.href, callTimeout: 500 }) })
    const refused = await Promise.resolve(app.ready()).then(() => undefined, (error: Error) => error)
    t.match(refused, { code: 'FST_BG_STORE_UNAVAILABLE' })
    await app.close()
    t.notMatch(JSON.stringify(lines) + String(refused?.stack) + JSON.stringify((refused as { cause?: unknown }).cause), /sesame/)
  })

  t.test('a queue whose name BullMQ does not take is refused at ready', async (t) => {
    const { app } = await appOn(where(newSpace()), { queues: { 'a:b': {} } })
    await t.rejects(Promise.resolve(app.ready()), { code: 'FST_BG_BAD_OPTION', message: /without ":"/ })
    await app.close()
  })
}

async function untilFailed (background: Background, id: string): Promise<JobRecord | undefined> {
  for (let tries = 0; tries < 200 && (await background.get(id))?.state !== 'failed'; tries++) await new Promise((resolve) => { setTimeout(resolve, 20) })
  return background.get(id)
}

/** What plain BullMQ sees of our jobs, and we of its; for both stores. */
import { createPostgresBackend, createRedisBackend, Queue, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import type { BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import { deferred } from '../../support/harness.ts'
import { eventually } from '../../support/real-time.ts'
import { appOn } from './cluster.ts'
import type { Store } from './store.ts'

type Plain = Queue<unknown, unknown, string, unknown, unknown, string, IQueueBackend>

/** BullMQ's own classes on the place that the options of ours lead to. */
function plain (t: Test, { kind }: Store, { connection, prefix = 'bull' }: BullmqOptions) {
  const factory = (kind.name === 'redis' ? createRedisBackend : createPostgresBackend) as unknown as BackendFactory<IQueueBackend>
  const given = { connection: typeof connection === 'string' ? { url: connection } : connection, prefix }
  return {
    queue (): Plain {
      const queue = new Queue('default', given, factory) as Plain
      t.teardown(() => queue.close())
      return queue
    },
    work (body: (data: unknown) => Promise<unknown>): void {
      const worker = new Worker('default', (job) => body(job.data), given, factory)
      t.teardown(() => worker.close())
    }
  }
}

export function interopOn (store: Store): Promise<unknown> {
  const { kind } = store
  return t.test(`beside plain BullMQ on ${kind.name}`, { buffered: true }, async (t) => {
    t.test('a queue of plain BullMQ adds our tasks: they run by the policy of the task', async (t) => {
      const options = store.options()
      const { app } = await appOn(store.create(options))
      const ran: unknown[] = []
      const over = deferred()
      app.background.define('greet', { attempts: 2, backoff: 10 }, async (payload, { job }) => {
        ran.push(payload, job.attempt)
        if (job.attempt === 1) throw new Error('once')
        over.resolve()
      })
      await app.ready()
      t.teardown(() => app.close())
      const queue = plain(t, store, options).queue()
      const { id } = await queue.add('greet', { name: 'Ada' })
      await over.promise
      t.strictSame(ran, [{ name: 'Ada' }, 1, { name: 'Ada' }, 2])
      await eventually(async () => await queue.getJobState(id as string) === 'completed', 'the job to be completed')
    })

    t.test('a worker of plain BullMQ takes our jobs: the payload is its data, what it returns our result', async (t) => {
      const options = store.options()
      const { app } = await appOn(store.create(options), { role: 'producer' })
      const greet = app.background.define<{ name: string }>('greet', { attempts: 1 }, async () => {})
      await app.ready()
      t.teardown(() => app.close())
      plain(t, store, options).work(async (data) => {
        const { name } = data as { name: string }
        if (name === 'nobody') throw new Error('no such person')
        return `Hello ${name}`
      })
      t.equal(await (await app.background.add(greet, { name: 'Ada' })).finished({ timeout: 10_000 }), 'Hello Ada')
      const failed = await app.background.add(greet, { name: 'nobody' })
      await t.rejects(failed.finished({ timeout: 10_000 }), { code: 'FST_BG_JOB_FAILED', message: /no such person/ })
      t.match(await app.background.deadLetters.get(failed.id), { state: 'failed', failure: 'exhausted', error: { message: 'no such person' } })
    })

    t.test('payloads, results and progress go through the codec; a payload that it cannot read is a dead letter', async (t) => {
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
      const options = store.options()
      const { app } = await appOn(store.create({ ...options, codec }))
      const task = app.background.define<{ secret: string }, { secret: string }>('work', async (payload, { progress }) => {
        progress({ secret: 'half' })
        return { secret: `${payload.secret} done` }
      })
      await app.ready()
      t.teardown(() => app.close())
      const handle = await app.background.add(task, { secret: 'payload' })
      t.strictSame(await handle.finished({ timeout: 10_000 }), { secret: 'payload done' })
      t.match(await app.background.get(handle.id), { payload: { secret: 'payload' }, progress: { secret: 'half' }, result: { secret: 'payload done' } })
      const queue = plain(t, store, options).queue()
      const stored = JSON.stringify((await queue.getJob(handle.id))?.asJSON())
      t.notMatch(stored, /secret|payload"|half|done/)
      const { id } = await queue.add('work', { secret: 'in the clear' }, { jobId: '01900000-0000-7000-8000-000000000000' })
      await eventually(async () => (await app.background.get(id as string))?.state === 'failed', 'the job to fail')
      t.match(await app.background.get(id as string), { failure: 'unrecoverable', error: { message: /codec cannot read/ } })
    })

    t.test('what the store cannot keep is refused as a fault of the job; results and errors lose it', async (t) => {
      const { app } = await appOn(store.create())
      const odd = 'a\0b\ud800c'
      const echo = app.background.define<string, string>('echo', async (payload) => payload === 'odd' ? odd : payload)
      const fail = app.background.define('fail', { attempts: 1 }, async () => { throw new Error(odd) })
      app.post('/', async (_request, reply) => reply.accepted(echo, odd))
      await app.ready()
      t.teardown(() => app.close())
      if (kind.name === 'redis') t.equal(await (await app.background.add(echo, odd)).finished({ timeout: 10_000 }), odd)
      else {
        await t.rejects(app.background.add(echo, odd), { code: 'FST_BG_NOT_STORABLE', statusCode: 500, message: /unsupported Unicode escape sequence/ })
        t.match((await app.inject({ method: 'POST', url: '/' })).json(), { statusCode: 500, code: 'FST_BG_NOT_STORABLE' })
        const handle = await app.background.add(echo, 'odd')
        await handle.finished({ timeout: 10_000 })
        t.match(await app.background.get(handle.id), { state: 'completed', resultOmitted: 'unserializable' })
      }
      const failed = await app.background.add(fail)
      await t.rejects(failed.finished({ timeout: 10_000 }), { code: 'FST_BG_JOB_FAILED' })
      t.match(await app.background.get(failed.id), { state: 'failed', failure: 'exhausted', error: { message: odd, stack: /a\uFFFDb/ } })
      t.equal((await app.inject('/health/jobs')).json().status, 'ok')
    })

    t.test('ready() says that there is no store, and not with which password it was asked for', async (t) => {
      const url = new URL(store.url)
      const there = { host: url.hostname, port: 1, user: 'somebody', username: 'somebody', password: 'sesame-open' } // nobody listens there
      const { app, lines } = await appOn(store.create({ store: kind.name, connection: { ...there, retryStrategy: () => null } }))
      const refused = await Promise.resolve(app.ready()).then(() => undefined, (error: Error) => error)
      t.match(refused, { code: 'FST_BG_STORE_UNAVAILABLE' })
      await app.close()
      t.notMatch(JSON.stringify([lines, String(refused?.stack), refused?.cause]), /sesame/)
    })

    t.test('a queue whose name BullMQ does not take is refused at ready', async (t) => {
      const { app } = await appOn(store.create(), { queues: { 'a:b': {} } })
      await t.rejects(Promise.resolve(app.ready()), { code: 'FST_BG_BAD_OPTION', message: /without ":"/ })
      await app.close()
    })
  })
}

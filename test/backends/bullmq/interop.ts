/** What plain BullMQ sees of our jobs, and we of its; for both stores. */
import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { FastifyAdapter } from '@bull-board/fastify'
import { createPostgresBackend, createRedisBackend, Queue, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import t, { type Test } from 'tap'
import type { BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import { TestClock } from '../../support/clock.ts'
import { Bench } from '../../support/contract.ts'
import { deferred } from '../../support/harness.ts'
import { eventually } from '../../support/real-time.ts'
import { appOn } from './cluster.ts'
import type { Store } from './store.ts'

type Plain = Queue<unknown, unknown, string, unknown, unknown, string, IQueueBackend>

/** BullMQ's own classes on the place that the options of ours lead to. */
export function plain (t: Test, { kind }: Store, { connection, prefix = 'bull' }: BullmqOptions) {
  const factory = (kind.name === 'redis' ? createRedisBackend : createPostgresBackend) as unknown as BackendFactory<IQueueBackend>
  const given = { connection: typeof connection === 'string' ? { url: connection } : { migrate: true, ...connection }, prefix }
  return {
    queue (name = 'default'): Plain {
      const queue = new Queue(name, given, factory) as Plain
      t.teardown(() => queue.close())
      return queue
    },
    work (body: (data: unknown) => Promise<unknown>): void {
      const worker = new Worker('default', (job) => body(job.data), given, factory)
      t.teardown(() => worker.close())
    }
  }
}

/** Options that the queue of plain BullMQ takes, and that are none of ours. */
const ODD: readonly object[] = [
  { timestamp: 1e18 }, { timestamp: -1 }, { delay: 1, background: { held: true, delay: 'x' } },
  ...[null, 5, 'x', []].map((background) => ({ background })),
  ...([
    ['bytes', 'x', -1e15], ['requestId', 5, {}], ['carrier', 5, [1], { traceparent: 5 }], ['delay', 'x', -1, 1e20], ['held', 'x'], ['print', 5],
    ['children', 5, 'ab', [5, null, ['x']]], ['own', 'x', 5, { timeout: 'x' }, { timeout: -5 }, { ttl: 'x' }, { queue: 'nowhere', group: 7, deduplication: 5 }]
  ] as const).flatMap(([key, ...values]) => values.map((value) => ({ background: { [key]: value } })))
]
/** The same for jobs that fail, with two attempts each. */
const DYING: readonly object[] = [
  { attempts: -5 }, { backoff: { type: 'weird', delay: 'x' } },
  ...[{ attempts: 'x' }, { attempts: null }, { backoff: 'x' }, { backoff: { type: 'x', delay: 'y', jitter: {} } }, { retryIf: 'x' }].map((own) => ({ background: { own } }))
]

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

    t.test('whatever stands in the options of a job, it runs and is shown, and the store is not away', async (t) => {
      const options = store.options()
      const { app, lines } = await appOn(store.create(options), { routes: { admin: true }, authorize: () => true })
      const runs = new Map<string, number>()
      const over = deferred()
      app.background.define('greet', { attempts: 2, backoff: 1 }, async (payload, { job }) => {
        runs.set(job.id, (runs.get(job.id) ?? 0) + 1)
        if ([...runs.values()].reduce((sum, count) => sum + count, 0) === ODD.length + DYING.length * 2) over.resolve()
        if (payload === 'no') throw new Error('no')
      })
      await app.ready()
      t.teardown(() => app.close())
      const queue = plain(t, store, options).queue()
      const added = await Promise.all([...ODD.map((opts) => queue.add('greet', 5, opts)), ...DYING.map((opts) => queue.add('greet', 'no', opts))])
      await over.promise
      const shown = async (): Promise<string[]> => (await app.inject('/jobs?limit=1000')).json().jobs.map(({ state }: { state: string }) => state)
      await eventually(async () => (await shown()).every((state) => state === 'completed' || state === 'failed'), 'all to have ended')
      t.equal((await shown()).length, added.length)
      t.equal((await app.inject('/jobs/dead')).json().jobs.length, DYING.length)
      t.match((await app.inject('/health/jobs')).json(), { status: 'ok', queues: { default: { completed: ODD.length, failed: DYING.length } } })
      t.strictSame(lines.filter(({ level }) => level >= 50).map(({ msg }) => msg).filter((msg) => msg !== 'job failed'), [])
    })

    t.test('of a job that another version added, what is known is obeyed', async (t) => {
      const options = store.options()
      const bench = new Bench(store.create(options), new TestClock(), 100)
      await bench.start()
      t.teardown(() => bench.backend.close())
      const background = { bytes: 5, requestId: 'r1', carrier: { traceparent: 'x' }, later: { a: 1 }, own: { attempts: 7, timeout: 9, later: true, retryIf: 'x' } }
      await plain(t, store, options).queue().add('greet', 'Ada', { background } as object)
      bench.backend.want('default', 1)
      const { job } = await bench.take()
      t.match(job, { bytes: 5, requestId: 'r1', carrier: { traceparent: 'x' }, policy: { attempts: 7, timeout: 9, retryIf: undefined } })
      t.notOk('later' in job.policy)
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
      t.equal(await (await app.background.add(greet, { name: 'Ada' })).finished({ timeout: 30_000 }), 'Hello Ada')
      const failed = await app.background.add(greet, { name: 'nobody' })
      await t.rejects(failed.finished({ timeout: 30_000 }), { code: 'FST_BG_JOB_FAILED', message: /no such person/ })
      t.match(await app.background.deadLetters.get(failed.id), { state: 'failed', failure: 'exhausted', error: { message: 'no such person' } })
    })

    t.test('bull-board shows our jobs with its own adapter for BullMQ', async (t) => {
      const options = store.options()
      const { app } = await appOn(store.create(options))
      const greet = app.background.define<{ name: string }>('greet', { attempts: 1 }, async ({ name }) => {
        if (name === 'nobody') throw new Error('no such person')
        return `Hello ${name}`
      })
      const serverAdapter = new FastifyAdapter()
      serverAdapter.setBasePath('/board')
      createBullBoard({ queues: [new BullMQAdapter(plain(t, store, options).queue() as unknown as Queue)], serverAdapter: serverAdapter as never })
      await app.register(serverAdapter.registerPlugin(), { prefix: '/board' })
      await app.ready()
      t.teardown(() => app.close())
      await (await app.background.add(greet, { name: 'Ada' })).finished({ timeout: 30_000 })
      await (await app.background.add(greet, { name: 'nobody' })).finished({ timeout: 30_000 }).catch(() => {})
      const shown = async (status: string): Promise<unknown> => (await app.inject(`/board/api/queues?activeQueue=default&status=${status}`)).json().queues[0].jobs
      t.match(await shown('completed'), [{ name: 'greet', data: { name: 'Ada' }, returnValue: 'Hello Ada' }])
      t.match(await shown('failed'), [{ name: 'greet', data: { name: 'nobody' }, failedReason: 'no such person', stacktrace: [/no such person/] }])
    })

    t.test('what the store cannot keep is refused as a fault of the job; results and errors lose it', async (t) => {
      const { app } = await appOn(store.create())
      const odd = 'a\0b\ud800c'
      const echo = app.background.define<string, string>('echo', async (payload) => payload === 'odd' ? odd : payload)
      const fail = app.background.define('fail', { attempts: 1 }, async () => { throw new Error(odd) })
      app.post('/', async (_request, reply) => reply.accepted(echo, odd))
      await app.ready()
      t.teardown(() => app.close())
      if (kind.name === 'redis') t.equal(await (await app.background.add(echo, odd)).finished({ timeout: 30_000 }), odd)
      else {
        await t.rejects(app.background.add(echo, odd), { code: 'FST_BG_NOT_STORABLE', statusCode: 500, message: /unsupported Unicode escape sequence/ })
        t.match((await app.inject({ method: 'POST', url: '/' })).json(), { statusCode: 500, code: 'FST_BG_NOT_STORABLE' })
        const handle = await app.background.add(echo, 'odd')
        await handle.finished({ timeout: 30_000 })
        t.match(await app.background.get(handle.id), { state: 'completed', resultOmitted: 'unserializable' })
      }
      const failed = await app.background.add(fail)
      await t.rejects(failed.finished({ timeout: 30_000 }), { code: 'FST_BG_JOB_FAILED' })
      t.match(await app.background.get(failed.id), { state: 'failed', failure: 'exhausted', error: { message: odd, stack: /a\uFFFDb/ } })
      t.equal((await app.inject('/health/jobs')).json().status, 'ok')
    })

    t.test('a queue whose name BullMQ does not take is refused at ready', async (t) => {
      const { app } = await appOn(store.create(), { queues: { 'a:b': {} } })
      await t.rejects(Promise.resolve(app.ready()), { code: 'FST_BG_BAD_OPTION', message: /without ":"/ })
      await app.close()
    })
  })
}

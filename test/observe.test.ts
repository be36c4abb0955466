import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import Fastify, { type FastifyBaseLogger, type FastifyServerOptions } from 'fastify'
import pino from 'pino'
import t from 'tap'
import { backgroundTasks, memory, type JobHandle } from '../lib/index.ts'
import { TestClock } from './support/clock.ts'
import { DurableBackend } from './support/durable.ts'
import { closeInTime, deferred, setup, until, type Harness, type HarnessOptions, type Line } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'

watchLeaks(t)

const nothing = () => {}
const THEN = ['th', 'en'].join('')
type TestLike = Parameters<typeof setup>[0]

/** With a pino logger that writes into an array. */
async function ready (t: TestLike, { server, ...options }: HarnessOptions = {}): Promise<Harness> {
  const lines: Line[] = []
  const loggerInstance = pino({ level: 'trace' }, { write: (line: string) => { lines.push(JSON.parse(line) as Line) } })
  const harness = await setup(t, { ...options, server: { logger: undefined, loggerInstance, ...server } as FastifyServerOptions })
  harness.app.background.define('task', (payload) => payload)
  harness.app.background.define('bad', { attempts: 2, backoff: 1_000 }, () => { throw Object.assign(new TypeError('no'), { code: 'E_NO' }) })
  harness.app.get('/', async (_request, reply) => ({ id: reply.background('task', { secret: 'hunter2' }).id }))
  await harness.app.ready()
  const fastifysOwn = /^(incoming request|request completed|Server )/
  return {
    ...harness,
    lines,
    get background () { return harness.app.background },
    said: (text) => lines.filter(({ msg }) => text === undefined ? !fastifysOwn.test(msg) : msg === text)
  }
}

/** Keys of a line that are not pino's own. */
function keysOf (line: Line | undefined): string[] {
  return Object.keys(line ?? {}).filter((key) => !['level', 'time', 'pid', 'hostname', 'msg'].includes(key)).sort()
}

t.test('the life of a job', async (t) => {
  t.test('a job that completes is one info line', async (t) => {
    const { background, clock, said } = await ready(t)
    const end = deferred()
    await background.pause()
    const job = await background.add(function work () { return end.promise })
    await clock.advance(250)
    await background.resume()
    await clock.advance(1_500)
    end.resolve()
    await job.finished()
    await clock.settle()
    t.equal(said().length, 1)
    t.match(said(), [{ level: 30, jobId: job.id, task: 'work', queue: 'default', attempt: 1, waitMs: 250, durationMs: 1_500 }])
  })

  t.test('its reqId is that of the request that staged it', async (t) => {
    const { app, background, said } = await ready(t)
    const { id } = (await app.inject('/')).json()
    await background.onIdle()
    t.equal(said().length, 1)
    t.match(said(), [{ level: 30, jobId: id, reqId: 'req-1' }])
    t.strictSame(keysOf(said()[0]), ['attempt', 'durationMs', 'jobId', 'queue', 'reqId', 'task', 'waitMs'])
  })

  t.test('without a request there is no reqId', async (t) => {
    const { background, said } = await ready(t)
    await (await background.add('task')).finished()
    t.strictSame(keysOf(said()[0]), ['attempt', 'durationMs', 'jobId', 'queue', 'task', 'waitMs'])
  })

  t.test('an attempt that will be retried is one warn line, a death one error line', async (t) => {
    const { background, clock, said } = await ready(t)
    const job = await background.add('bad', { secret: 'hunter2' })
    await clock.settle()
    t.equal(said().length, 1)
    t.match(said(), [{
      level: 40, jobId: job.id, task: 'bad', queue: 'default', attempt: 1, waitMs: 0, durationMs: 0, retryInMs: 1_000,
      err: { message: 'no', code: 'E_NO', stack: /TypeError: no/ }
    }])
    await clock.advance(1_000)
    t.equal(said().length, 2)
    t.match(said()[1], { level: 50, jobId: job.id, task: 'bad', attempt: 2, failure: 'exhausted', err: { message: 'no', type: 'TypeError' } })
  })

  t.test('an expired job is one error line', async (t) => {
    const { background, clock, said } = await ready(t)
    await background.pause()
    const job = await background.add('task', { secret: 'hunter2' }, { ttl: 100 })
    await clock.advance(100)
    t.equal(said().length, 1)
    t.match(said(), [{ level: 50, jobId: job.id, task: 'task', queue: 'default', failure: 'expired' }])
  })

  t.test('a timeout that is retried is one warn line, when the body has settled', async (t) => {
    const { background, clock, said } = await ready(t)
    const end = deferred()
    await background.add(() => end.promise, { timeout: 100, attempts: 2, backoff: 50_000 })
    await clock.advance(500)
    t.strictSame(said(), [])
    end.resolve()
    await clock.settle()
    t.equal(said().length, 1)
    t.match(said(), [{ level: 40, attempt: 1, durationMs: 500, err: { code: 'FST_BG_TIMEOUT' } }])
  })

  t.test('a body that leaks is named once, and once more when it ends', async (t) => {
    const { background, clock, said } = await ready(t, { abortGrace: 50 })
    const end = deferred()
    const job = await background.add(function deaf () { return end.promise }, { timeout: 100 })
    await clock.advance(900)
    t.match(said(), [{ level: 40, jobId: job.id, task: 'deaf', durationMs: 150 }])
    t.equal(said().length, 1)
    await clock.advance(100)
    t.match(said()[1], { level: 50, failure: 'timeout' })
    end.resolve()
    await clock.settle()
    t.equal(said().length, 3)
    t.match(said()[2], { level: 30, jobId: job.id })
  })

  t.test('a job that its response refused is one line', async (t) => {
    const { app, clock, said } = await setup(t)
    app.get('/', async (_request, reply) => { reply.background(nothing, { when: 'error' }); return 'ok' })
    await app.inject('/')
    await clock.settle()
    t.match(said('job cancelled'), [{ level: 30, reason: 'response', reqId: 'req-1' }])
    t.equal(said().length, 1)
  })

  t.test('no line holds anything of a payload or a result', async (t) => {
    const { app, background, clock, lines } = await ready(t, { maxQueueSize: 3, retention: { failed: { count: 0 } } })
    const secret = { secret: 'hunter2' }
    await app.inject('/')
    await background.onIdle()
    await background.add('bad', secret)
    await clock.advance(1_000)
    await background.add('task', secret, { ttl: 1, delay: 10 })
    await clock.advance(10)
    await background.cancel((await background.add('task', secret, { delay: 10 })).id)
    await background.add('task', secret, { delay: 10_000 })
    for (let i = 0; i < 5; i++) await background.add('task', secret, { delay: 10_000 }).catch(nothing)
    await app.close()
    t.ok(lines.length >= 8)
    t.notMatch(JSON.stringify(lines), /hunter2|secret/)
  })

  t.test('handlers have a logger with the same fields', async (t) => {
    const { background, said } = await ready(t)
    const job = await background.add(({ log }) => { log.info({ own: 1 }, 'from the job') })
    await job.finished()
    t.match(said('from the job'), [{ jobId: job.id, task: 'inline', attempt: 1, own: 1 }])
  })

  t.test('the logger of a handler knows the request', async (t) => {
    const harness = await setup(t)
    harness.app.get('/', async (_request, reply) => { reply.background(({ log }) => { log.info('from the job') }); return 'ok' })
    await harness.app.inject('/')
    await harness.background.onIdle()
    t.match(harness.said('from the job'), [{ reqId: 'req-1', task: 'inline', attempt: 1 }])
  })
})

t.test('floods', async (t) => {
  t.test('what fails for one cause again and again is one line a second, with a count and the first ids', async (t) => {
    const { background, clock, said } = await ready(t, { concurrency: 100 })
    const ids: string[] = []
    const add = async (code: string): Promise<void> => {
      ids.push((await background.add(function calls () { throw Object.assign(new Error(`no answer to ${ids.length}`), { code }) })).id)
    }
    for (let n = 0; n < 50; n++) await add('ECONNREFUSED')
    await add('E_OTHER')
    await clock.settle()
    t.strictSame(said('job failed').map(({ jobId, count }) => [jobId, count]), [[ids[0], undefined], [ids[50], undefined]])
    await clock.advance(1_000)
    t.equal(said('job failed').length, 3)
    t.match(said('job failed')[2], { level: 50, task: 'calls', jobId: ids[49], count: 49, jobIds: ids.slice(1, 21), err: { code: 'ECONNREFUSED' } })
    await clock.advance(5_000)
    t.equal(said('job failed').length, 3)
    await add('ECONNREFUSED')
    await clock.settle()
    t.match(said('job failed')[3], { jobId: ids[51], count: undefined })
  })

  t.test('a store that fails is one line a second too', async (t) => {
    const backend = new DurableBackend()
    const { app, said } = await setup(t, { backend })
    const end = deferred()
    app.background.define('task', () => end.promise)
    await app.ready()
    await app.background.addBulk(Array.from({ length: 10 }, () => ({ name: 'task' })))
    backend.failure = Object.assign(new Error('disk full'), { code: 'ENOSPC' })
    end.resolve()
    await until(() => said('job completed').length === 10 && said('the backend failed to store the end of an attempt').length > 0)
    t.match(said('the backend failed to store the end of an attempt'), [{ err: { code: 'ENOSPC' } }])
    await app.close()
    t.equal(said('the backend failed to store the end of an attempt').reduce((sum, { count = 1 }) => sum + (count as number), 0), 10)
  })

  t.test('a job that floods the log is cut short, its children too, and the rest is counted', async (t) => {
    const { background, clock, lines } = await ready(t)
    const end = deferred()
    const job = await background.add(async ({ log }) => {
      const child = log.child({ part: 'child' })
      for (let n = 0; n < 3_000; n++) child.info('flood')
      log.error({ n: 1 }, 'one more')
      await end.promise
      log.info('after a while')
    })
    await clock.advance(1_000)
    t.equal(lines.filter(({ msg }) => msg === 'flood').length, 1_000)
    t.match(lines.find(({ msg }) => msg === 'flood'), { jobId: job.id, part: 'child' })
    end.resolve()
    await clock.settle()
    t.equal(lines.filter(({ msg }) => msg === 'after a while').length, 1)
    t.strictSame(lines.filter(({ msg }) => /left out/.test(msg)).map(({ jobId, level, count }) => [jobId, level, count]), [[job.id, 40, 2_001]])
  })

  t.test('what a job left unsaid is counted at its end', async (t) => {
    const { background, clock, lines } = await ready(t)
    await background.add(({ log }) => { for (let n = 0; n < 1_500; n++) log.info('flood') })
    await clock.settle()
    t.match(lines.filter(({ msg }) => /left out/.test(msg)), [{ count: 500 }])
  })

  t.test('the logger of a job is the application\'s in all else', async (t) => {
    const { background, clock, lines } = await ready(t)
    let bindings: unknown
    await background.add(({ log }) => {
      bindings = (log as unknown as { bindings (): object }).bindings()
      log.level = 'error'
      log.info('not heard')
      log.error('heard')
      log.silent('not heard')
    })
    await clock.settle()
    t.match(bindings, { task: 'inline', attempt: 1 })
    t.strictSame(lines.filter(({ msg }) => / ?heard/.test(msg)).map(({ msg }) => msg), ['heard'])
  })

  t.test('a frozen logger serves too', async (t) => {
    const { app, background, clock } = await setup(t)
    await app.ready()
    const said: unknown[] = []
    const frozen = Object.freeze({ ...Object.fromEntries(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map((level) => [level, (...values: unknown[]) => { said.push(values) }])), level: 'info', child: () => frozen }) as unknown as FastifyBaseLogger
    app.log.child = () => frozen
    await background.add(({ log }) => { log.info('heard') })
    await clock.settle()
    t.strictSame(said, [['heard']])
  })
})

t.test('events', async (t) => {
  const NAMES = ['added', 'started', 'ended', 'dead', 'cancelled', 'replayed', 'refused', 'unstored', 'evicted', 'held', 'blocked', 'leaked', 'returned', 'floating', 'store'] as const

  /** Told until the test ends. */
  function hear (t: TestLike): Array<{ name: string, event: Record<string, unknown> }> {
    const told: Array<{ name: string, event: Record<string, unknown> }> = []
    for (const name of NAMES) {
      const listen = (event: unknown): void => { told.push({ name, event: event as Record<string, unknown> }) }
      subscribe(`fastify-background-tasks:${name}`, listen)
      t.teardown(() => unsubscribe(`fastify-background-tasks:${name}`, listen))
    }
    return told
  }

  t.test('tell the whole life of a job, with what was thrown and without its payload', async (t) => {
    const told = hear(t)
    const { app, background, clock } = await ready(t)
    const job = await background.add('bad', { secret: 'hunter2' })
    await clock.advance(1_000)
    await background.deadLetters.retry(job.id)
    await clock.settle()
    await background.cancel(job.id)
    t.strictSame(told.map(({ name, event: { outcome, attempt } }) => [name, attempt, outcome]), [
      ['added', undefined, undefined], ['started', 1, undefined], ['ended', 1, 'retry'], ['started', 2, undefined], ['ended', 2, 'dead'], ['dead', 2, undefined],
      ['replayed', undefined, undefined], ['started', 1, undefined], ['ended', 1, 'retry'], ['cancelled', undefined, undefined]
    ])
    for (const { event } of told) t.match(event, { app, jobId: job.id, task: 'bad', queue: 'default' })
    t.match(told[5]?.event, { failure: 'exhausted', error: TypeError })
    t.match(told[2]?.event, { waitMs: 0, durationMs: 0, retryInMs: 1_000, error: TypeError })
    t.notMatch(JSON.stringify(told.map(({ event }) => ({ ...event, app: undefined }))), /hunter2/)
  })

  t.test('tell what goes wrong around jobs', async (t) => {
    const told = hear(t)
    const { background, clock } = await ready(t, { maxQueueSize: 2, abortGrace: 10, retention: { failed: { count: 0 } } })
    const end = deferred()
    await background.add(function deaf () { return end.promise }, { timeout: 100 })
    await background.add('task', null, { ttl: 50, delay: 60 })
    await clock.advance(200)
    end.resolve()
    await clock.settle()
    await background.pause()
    for (let n = 0; n < 3; n++) await background.add('task').catch(nothing)
    t.strictSame(told.map(({ name }) => name).filter((name) => !['added', 'started', 'ended'].includes(name)).sort(), ['dead', 'dead', 'evicted', 'evicted', 'leaked', 'refused'])
    t.match(told.find(({ name, event: { failure } }) => name === 'dead' && failure === 'expired')?.event, { attempt: 0, error: { code: 'FST_BG_EXPIRED' } })
    t.match(told.find(({ name }) => name === 'refused')?.event, { queue: 'default', task: 'task', jobs: 1 })
  })

  t.test('are not even made while nobody listens', async (t) => {
    const { background, clock } = await ready(t, { maxQueueSize: 1 })
    let made = 0
    for (const name of NAMES) Object.assign(channel(`fastify-background-tasks:${name}`), { publish: () => { made++ } })
    t.teardown(() => { for (const name of NAMES) delete (channel(`fastify-background-tasks:${name}`) as { publish?: unknown }).publish })
    await background.add('bad')
    await clock.advance(1_000)
    await background.pause()
    for (let n = 0; n < 2; n++) await background.add('task').catch(nothing)
    t.equal(made, 0)
  })
})

t.test('refusals', async (t) => {
  t.test('are one line a second, with a count', async (t) => {
    const { background, clock, said } = await ready(t, { maxQueueSize: 0 })
    const refuse = async (times: number) => { for (let i = 0; i < times; i++) await background.add('task').catch(nothing) }
    await refuse(100)
    t.equal(said().length, 1)
    t.match(said(), [{ level: 40, queue: 'default', task: 'task', count: 1 }])
    await clock.advance(1_000)
    t.equal(said().length, 2)
    t.match(said()[1], { count: 99 })
    await clock.advance(60_000)
    t.equal(said().length, 2)
    await refuse(2)
    t.equal(said().length, 3)
    t.equal(clock.pendingTimers > 0, true)
  })

  t.test('that were not told yet are told at close', async (t) => {
    const { app, background, clock, said } = await ready(t, { maxQueueSize: 0 })
    for (let i = 0; i < 10; i++) await background.add('task').catch(nothing)
    await app.close()
    t.equal(said().reduce((sum, { count }) => sum + (count as number), 0), 10)
    t.equal(clock.pendingTimers, 0)
  })

  t.test('count the jobs of a bulk', async (t) => {
    const { background, said } = await ready(t, { maxQueueSize: 2 })
    await background.addBulk([{ name: 'task' }, { name: 'task' }, { name: 'task' }]).catch(nothing)
    t.match(said(), [{ level: 40, count: 3 }])
  })
})

t.test('hostile thrown values', async (t) => {
  const deep = () => {
    let error = new Error('deepest')
    for (let i = 0; i < 10_000; i++) error = new Error('deep', { cause: error })
    return error
  }
  const cyclic = () => {
    const error: Error & { self?: unknown } = new Error('cyclic')
    error.cause = error
    error.self = error
    return error
  }
  const hostile: Array<[title: string, make: () => unknown, message: unknown]> = [
    ['a frozen error', () => Object.freeze(new Error('frozen')), 'frozen'],
    ['a proxy that throws at every touch', () => new Proxy({}, { get () { throw new Error('trap') }, getPrototypeOf () { throw new Error('trap') }, ownKeys () { throw new Error('trap') }, has () { throw new Error('trap') } }), String],
    ['a revoked proxy', () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy }, String],
    ['an error with throwing getters', () => Object.defineProperties(new Error('x'), {
      message: { get () { throw new Error('getter') } }, stack: { get () { throw new Error('getter') } }, name: { get () { throw new Error('getter') } }, code: { get () { throw new Error('getter') } }
    }), String],
    ['an error with a message that is no string', () => Object.assign(new Error('x'), { message: { toString () { throw new Error('no') } }, name: Symbol('s'), stack: 5 }), String],
    ['a very deep chain of causes', deep, 'deep'],
    ['an error that causes itself', cyclic, 'cyclic'],
    ['a huge message', () => new Error('x'.repeat(5_000_000)), (value: string) => value.length < 10_000],
    ['a string', () => 'just text', 'just text'],
    ['undefined', () => undefined, 'undefined'],
    ['null', () => null, 'null'],
    ['a symbol', () => Symbol('s'), String],
    ['a BigInt', () => 5n, '5'],
    ['a function', () => nothing, String],
    ['an object without a prototype', () => Object.assign(Object.create(null) as object, { message: 'bare' }), 'bare'],
    ['an error that thinks it is a promise', () => Object.assign(new Error('thenable'), { [THEN] () { throw new Error('then') } }), 'thenable'],
    ['an error with toJSON', () => Object.assign(new Error('json'), { toJSON () { throw new Error('toJSON') } }), 'json']
  ]
  for (const [title, make, message] of hostile) {
    t.test(`${title} is logged without a crash, and stored`, async (t) => {
      const { background, clock, said, app } = await ready(t)
      const job = await background.add(() => { throw make() }, { attempts: 2, backoff: 10 })
      await clock.advance(10)
      t.strictSame(said().map(({ level, jobId }) => [level, jobId]), [[40, job.id], [50, job.id]])
      for (const { err } of said() as unknown as Array<{ err: { message: string } }>) {
        if (typeof message === 'function' && message !== String) t.ok((message as (value: string) => boolean)(err.message))
        else t.match(err.message, message)
      }
      t.match(await background.get(job.id), { state: 'failed', failure: 'exhausted', error: { name: String, message: String } })
      t.equal((await app.inject(job.statusUrl as string)).statusCode, 200)
      t.ok(JSON.stringify(said()).length < 100_000)
      t.match(await background.counts(), { default: { active: 0 } })
    })
  }

  t.test('secrets on an error object stay out of the log', async (t) => {
    const { background, clock, said } = await ready(t)
    await background.add(() => {
      throw Object.assign(new Error('401'), { config: { headers: { authorization: 'hunter2' } }, response: { data: 'hunter2' } })
    })
    await clock.settle()
    t.notMatch(JSON.stringify(said()), /hunter2/)
  })

  t.test('a rejection of a body with a hostile value is not unhandled', async (t) => {
    const { background, clock, said } = await ready(t)
    await background.add(() => Promise.reject(new Proxy({}, { get () { throw new Error('trap') } })))
    await clock.settle()
    t.equal(said().length, 1)
  })
})

t.test('the options of register', async (t) => {
  t.test('logLevel holds for our lines', async (t) => {
    const { background, clock, said } = await ready(t, { logLevel: 'error' })
    const job: JobHandle = await background.add('bad')
    await (await background.add('task')).finished()
    await clock.advance(1_000)
    t.strictSame(said().map(({ level, jobId }) => [level, jobId]), [[50, job.id]])
  })

  t.test('logLevel silent silences us, and not the application', async (t) => {
    const { app, background, clock, said } = await ready(t, { logLevel: 'silent' })
    await background.add('bad')
    await clock.advance(1_000)
    t.strictSame(said(), [])
    app.log.info('still here')
    t.equal(said().length, 1)
  })

  t.test('logLevel below the application\'s tells more', async (t) => {
    const lines: Line[] = []
    const app = Fastify({ loggerInstance: pino({ level: 'error' }, { write: (line: string) => { lines.push(JSON.parse(line) as Line) } }) })
    t.teardown(() => app.close())
    await app.register(backgroundTasks, { logLevel: 'info' })
    await app.ready()
    await (await app.background.add(nothing)).finished()
    t.match(lines, [{ level: 30, msg: 'job completed' }])
  })

  t.test('logLevel holds for the log lines of our routes too', async (t) => {
    const { app, lines } = await ready(t, { logLevel: 'error' })
    await app.inject('/health/jobs')
    t.strictSame(lines, [])
  })

  t.test('logSerializers change our fields', async (t) => {
    const { background, said } = await ready(t, { logSerializers: { jobId: (id) => `job ${String(id)}`, err: () => 'an error' } })
    const job = await background.add(() => { throw new Error('no') })
    await job.finished().catch(nothing)
    t.match(said(), [{ jobId: `job ${job.id}`, err: 'an error' }])
  })

  t.test('the application\'s own serializers hold', async (t) => {
    const lines: Line[] = []
    const app = Fastify({
      loggerInstance: pino({ serializers: { task: (task: unknown) => `task ${String(task)}` } }, { write: (line: string) => { lines.push(JSON.parse(line) as Line) } })
    })
    t.teardown(() => app.close())
    await app.register(backgroundTasks)
    await app.ready()
    await (await app.background.add(nothing)).finished()
    t.match(lines, [{ task: 'task nothing' }])
  })

  t.test('logger false works', async (t) => {
    const clock = new TestClock()
    const app = Fastify({ logger: false })
    t.teardown(() => app.close())
    await app.register(backgroundTasks, { backend: memory({ clock }), maxQueueSize: 1, logLevel: 'info' })
    app.background.define('bad', { attempts: 2, backoff: 5 }, (_payload, { log }) => { log.info('x'); throw new Error('no') })
    await app.ready()
    const job = await app.background.add('bad', {})
    await clock.advance(5)
    t.match(await app.background.get(job.id), { state: 'failed', error: { message: 'no' } })
    await app.background.add(nothing, { delay: 5 })
    await t.rejects(app.background.add(nothing), { code: 'FST_BG_QUEUE_FULL' })
  })

  t.test('a logger that is not pino works', async (t) => {
    const lines: unknown[][] = []
    const say = (level: string) => (...args: unknown[]) => { lines.push([level, ...args]) }
    const logger = { info: say('info'), warn: say('warn'), error: say('error'), debug: nothing, trace: nothing, fatal: nothing, silent: nothing, level: 'info', child: () => logger }
    const app = Fastify({ loggerInstance: logger as never })
    t.teardown(() => app.close())
    await app.register(backgroundTasks)
    await app.ready()
    await (await app.background.add(nothing)).finished()
    t.match(lines, [['info', { task: 'nothing' }, 'job completed']])
  })

  t.test('a logger that throws breaks no job', async (t) => {
    let broken = false
    const say = () => { if (broken) throw new Error('disk full') }
    const logger = { info: say, warn: say, error: say, debug: nothing, trace: nothing, fatal: nothing, silent: nothing, level: 'info', child: () => logger }
    const clock = new TestClock()
    const app = Fastify({ loggerInstance: logger as unknown as FastifyBaseLogger })
    t.teardown(() => closeInTime(app, clock))
    await app.register(backgroundTasks, { backend: memory({ clock }), concurrency: 1 })
    await app.ready()
    broken = true
    const jobs = [await app.background.add(() => 1), await app.background.add(() => { throw new Error('no') }), await app.background.add(() => 2)]
    await clock.settle()
    broken = false
    t.strictSame(await Promise.all(jobs.map(async ({ id }) => (await app.background.get(id))?.state)), ['completed', 'failed', 'completed'])
  })
})

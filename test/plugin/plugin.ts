import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import * as door from '../../lib/index.ts'
import { backgroundTasks, memory } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { deferred, setup } from '../support/harness.ts'

const nothing = () => {}

t.test('a job starts after its handler has answered, and its status can be polled', async (t) => {
  const { app } = await setup(t)
  const order: string[] = []
  app.background.define('greet', async (payload: { name: string }) => {
    order.push('job')
    return { greeting: `hello ${payload.name}` }
  })
  app.post('/', async (_request, reply) => {
    const job = reply.background('greet', { name: 'Ada' })
    order.push('handler')
    return reply.code(202).send({ statusUrl: job.statusUrl })
  })
  const response = await app.inject({ method: 'POST', url: '/' })
  await app.background.onIdle()
  const status = await app.inject(response.json().statusUrl)
  t.same(order, ['handler', 'job'])
  t.equal(response.statusCode, 202)
  t.match(status.json(), { state: 'completed', result: { greeting: 'hello Ada' }, attemptsMade: 1 })
})

t.test('the door shows the plugin by name and by default, and what goes with it', async (t) => {
  t.equal(door.default, door.backgroundTasks)
  t.strictSame(Object.keys(door).sort(), ['JobAbortedError', 'RetryLaterError', 'UnrecoverableError', 'backgroundTasks', 'default', 'errors', 'memory'])
})

t.test('every error of the package has a code FST_BG_*, and the status code of the contract', async (t) => {
  const status: Record<string, number> = { FST_BG_QUEUE_FULL: 503, FST_BG_CLOSING: 503, FST_BG_STORE_UNAVAILABLE: 503, FST_BG_JOB_NOT_FOUND: 404, FST_BG_FORBIDDEN: 403, FST_BG_CROSS_SITE: 403, FST_BG_NOT_JSON: 415, FST_BG_NOT_CANCELLABLE: 409, FST_BG_TOO_MANY_STREAMS: 503,
    FST_BG_BAD_IDEMPOTENCY_KEY: 400, FST_BG_IDEMPOTENCY_KEY_IN_FLIGHT: 409, FST_BG_IDEMPOTENCY_KEY_REUSED: 422 }
  for (const Coded of Object.values(door.errors)) {
    const error = new (Coded as unknown as new (...args: unknown[]) => Error & { code: string, statusCode: number })('a', 'b', 'c')
    t.match(error.code, /^FST_BG_[A-Z_]+$/)
    t.equal(error.statusCode, status[error.code] ?? 500, error.code)
  }
})

t.test('registering', async (t) => {
  t.test('decorates the application, its children and replies', async (t) => {
    const { app } = await setup(t)
    t.ok(app.hasDecorator('background'))
    t.ok(app.hasReplyDecorator('background'))
    t.ok(app.hasReplyDecorator('accepted'))
    await app.register(async (child) => { t.ok(child.hasDecorator('background')) })
    await app.ready()
  })

  t.test('says its name, so that other plugins can depend on it', async (t) => {
    const { app } = await setup(t)
    t.ok(app.hasPlugin('fastify-background-tasks'))
    await app.ready()
  })

  t.test('twice on one instance is an error', async (t) => {
    const { app } = await setup(t)
    await t.rejects(async () => { await app.register(backgroundTasks) }, { code: 'FST_BG_ALREADY_REGISTERED', statusCode: 500, message: /once/ })
    await app.ready().then(nothing, nothing)
  })

  t.test('again in a child is an error', async (t) => {
    const { app } = await setup(t)
    await t.rejects(async () => { await app.register(async (child) => { await child.register(backgroundTasks) }) }, { code: 'FST_BG_ALREADY_REGISTERED' })
    await app.ready().then(nothing, nothing)
  })

  t.test('in a child leaves the parent without it', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(async (child) => {
      await child.register(backgroundTasks)
      t.ok(child.hasDecorator('background'))
    })
    await app.ready()
    t.notOk(app.hasDecorator('background'))
  })

  t.test('on an application with a decorator of that name is refused by Fastify or by us', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    app.decorate('background', {} as never)
    await t.rejects(async () => { await app.register(backgroundTasks) }, { code: /^FST_/ })
  })

  t.test('needs no await', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    const done = deferred<string>()
    app.register(backgroundTasks)
    app.register(async (child) => {
      child.background.define('task', (payload: string) => { done.resolve(payload) })
      child.get('/', async (_request, reply) => { reply.background('task', 'payload'); return 'ok' })
    })
    await app.inject('/')
    t.equal(await done.promise, 'payload')
  })

  t.test('two applications in one process do not see each other', async (t) => {
    const [one, two] = [await setup(t), await setup(t)]
    one.app.background.define('task', () => 'one')
    two.app.background.define('task', () => 'two')
    await one.app.ready()
    await two.app.ready()
    const job = await one.app.background.add('task')
    t.equal(await job.finished(), 'one')
    t.equal(await two.app.background.get(job.id), undefined)
    t.match(await two.background.counts(), { default: { completed: 0 } })
  })

  t.test('an application needs no job and no task', async (t) => {
    const app = Fastify()
    await app.register(backgroundTasks)
    await app.ready()
    await t.resolves(app.close())
  })
})

t.test('app.background', async (t) => {
  t.test('is the same object each time one instance is asked', async (t) => {
    const { app } = await setup(t)
    t.equal(app.background, app.background)
    await app.register(async (child) => { t.not(child.background, app.background) })
    await app.ready()
  })

  t.test('stands over one core: a job of a child is seen by the parent', async (t) => {
    const { app } = await setup(t)
    let child!: FastifyInstance
    await app.register(async (instance) => { child = instance })
    await app.ready()
    const job = await child.background.add(() => 'from the child')
    t.equal(await job.finished(), 'from the child')
    t.match(await app.background.get(job.id), { state: 'completed' })
  })

  t.test('can be taken apart from its instance', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    const { background } = app
    t.equal(await (await background.add(() => 1)).finished(), 1)
  })

  t.test('everything but define returns a promise', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    const { background } = app
    const answers = [
      background.add(nothing), background.addBulk([]), background.get('x'), background.counts(), background.cancel('x'), background.pause(),
      background.resume(), background.onIdle(), background.deadLetters.list(), background.deadLetters.get('x'), background.deadLetters.retry('x'), background.deadLetters.remove('x')
    ]
    for (const answer of answers) t.ok(answer instanceof Promise)
    await Promise.all(answers)
  })
})

t.test('routes that never use it', async (t) => {
  t.test('answer as ever', async (t) => {
    const { app } = await setup(t)
    app.get('/', async () => 'plain')
    app.get('/broken', async () => { throw new Error('no') })
    t.equal((await app.inject('/')).body, 'plain')
    t.equal((await app.inject('/broken')).statusCode, 500)
    t.equal((await app.inject('/nowhere')).statusCode, 404)
  })
})

t.test('reply.background works in every hook that has a reply, and in error and 404 handlers', async (t) => {
  const { app } = await setup(t)
  const ran: string[] = []
  const stage = (reply: { background: FastifyInstance['background']['add'] | ((...args: never[]) => unknown) }, name: string) => {
    (reply.background as (work: () => void, options: object) => unknown)(() => { ran.push(name) }, { when: 'always' })
  }
  app.addHook('onRequest', async (_request, reply) => { stage(reply, 'onRequest') })
  app.addHook('preHandler', async (_request, reply) => { stage(reply, 'preHandler') })
  app.addHook('onSend', async (_request, reply) => { stage(reply, 'onSend') })
  app.addHook('onResponse', async (_request, reply) => { stage(reply, 'onResponse') })
  app.addHook('onError', async (_request, reply) => { stage(reply, 'onError') })
  app.setErrorHandler((_error, _request, reply) => { stage(reply, 'errorHandler'); return reply.code(400).send('no') })
  app.setNotFoundHandler((_request, reply) => { stage(reply, 'notFound'); return reply.code(404).send('no') })
  app.get('/', async () => { throw new Error('no') })
  await app.inject('/')
  await app.background.onIdle()
  t.strictSame(ran.splice(0).sort(), ['errorHandler', 'onError', 'onRequest', 'onResponse', 'onSend', 'preHandler'])
  await app.inject('/nowhere')
  await app.background.onIdle()
  t.strictSame(ran.sort(), ['notFound', 'onRequest', 'onResponse', 'onSend', 'preHandler'])
})

t.test('memory() takes nothing but a clock', async (t) => {
  const backend = memory({ clock: new TestClock() })
  t.match(backend, { name: 'memory', durable: false })
  t.doesNotThrow(() => memory())
})

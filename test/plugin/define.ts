import Fastify from 'fastify'
import t from 'tap'
import { backgroundTasks, type JobContext, type Task } from '../../lib/index.ts'
import { deferred, jobsKept, record, setup } from '../support/harness.ts'

const nothing = () => {}

/** What was thrown at once, or by the promise. */
async function thrownBy (call: () => unknown): Promise<Error & { code: string, statusCode: number }> {
  try {
    await call()
  } catch (error) {
    return error as Error & { code: string, statusCode: number }
  }
  throw new Error('nothing was thrown')
}

t.test('wrong definitions', async (t) => {
  const wrong: Array<[title: string, args: unknown[], code: string, text: RegExp]> = [
    ['a misspelt option', ['task', { atempts: 5 }, nothing], 'FST_BG_UNKNOWN_OPTION', /define\("task"\).*unknown option "atempts".*attempts/],
    ['a handler beside a worker', ['task', { worker: new URL(import.meta.url) }, nothing], 'FST_BG_BAD_OPTION', /either a handler or the option worker, got both/],
    ['a worker that is not there', ['task', { worker: new URL('file:///gone/x.js') }], 'FST_BG_BAD_OPTION', /worker: expected a file: URL.*got \/gone\/x\.js/],
    ['a worker that is a folder', ['task', { worker: new URL('.', import.meta.url) }], 'FST_BG_BAD_OPTION', /worker: expected .*which is none/],
    ['a worker by a relative path', ['task', { worker: './resize.js' }], 'FST_BG_BAD_OPTION', /worker: expected .*"\.\/resize\.js"/],
    ['a worker on another host', ['task', { worker: new URL('https://example.org/x.js') }], 'FST_BG_BAD_OPTION', /worker: expected a file: URL/],
    ['a worker that is a function', ['task', { worker: nothing }], 'FST_BG_BAD_OPTION', /worker: expected .*a function/],
    ['deduplication without an id', ['task', { deduplication: { ttl: 5 } }, nothing], 'FST_BG_BAD_OPTION', /deduplication: expected an object with an id/],
    ['a group without an id', ['task', { group: {} }, nothing], 'FST_BG_BAD_OPTION', /group: expected an object with an id/],
    ['attempts out of range', ['task', { attempts: 0 }, nothing], 'FST_BG_BAD_OPTION', /attempts: expected an integer from 1 to 1000, got 0/],
    ['a timeout that is no number', ['task', { timeout: '30s' }, nothing], 'FST_BG_BAD_OPTION', /timeout: expected a number of ms.*"30s" \(string\)/],
    ['a backoff of an unknown type', ['task', { backoff: { type: 'linear' } }, nothing], 'FST_BG_BAD_OPTION', /backoff.*"fixed" or "exponential".*"linear"/],
    ['a backoff with a misspelt key', ['task', { backoff: { maxdelay: 5 } }, nothing], 'FST_BG_BAD_OPTION', /backoff.*maxdelay/],
    ['a jitter above 1', ['task', { backoff: { jitter: 2 } }, nothing], 'FST_BG_BAD_OPTION', /jitter to be a number from 0 to 1.*2/],
    ['a negative backoff', ['task', { backoff: -1 }, nothing], 'FST_BG_BAD_OPTION', /backoff: expected a number of ms.*-1/],
    ['a retryIf that is no function', ['task', { retryIf: true }, nothing], 'FST_BG_BAD_OPTION', /retryIf: expected a function, got true/],
    ['a priority beyond a million', ['task', { priority: 1_000_001 }, nothing], 'FST_BG_BAD_OPTION', /priority: expected an integer from -1000000 to 1000000/],
    ['a priority by name', ['task', { priority: 'high' }, nothing], 'FST_BG_BAD_OPTION', /priority: expected an integer.*"high"/],
    ['an unknown when', ['task', { when: 'ok' }, nothing], 'FST_BG_BAD_OPTION', /when: expected "handled" or "success" or "error" or "always".*"ok"/],
    ['an unknown onAbort', ['task', { onAbort: 'keep' }, nothing], 'FST_BG_BAD_OPTION', /onAbort: expected "run" or "drop".*"keep"/],
    ['a callerContext that is no boolean', ['task', { callerContext: 1 }, nothing], 'FST_BG_BAD_OPTION', /callerContext: expected true or false/],
    ['delay and runAt together', ['task', { delay: 1, runAt: 1 }, nothing], 'FST_BG_BAD_OPTION', /expected either delay or runAt, got both/],
    ['a schema that is no object', ['task', { schema: 'string' }, nothing], 'FST_BG_BAD_OPTION', /schema: expected a schema/],
    ['a queue that does not exist', ['task', { queue: 'mail' }, nothing], 'FST_BG_UNKNOWN_QUEUE', /"mail".*default/],
    ['options that are no object', ['task', 5, nothing], 'FST_BG_BAD_OPTION', /expected an object of options, got 5/],
    ['no handler', ['task'], 'FST_BG_BAD_HANDLER', /expected a function, got undefined/],
    ['options without a handler', ['task', { attempts: 1 }], 'FST_BG_BAD_HANDLER', /expected a function, got undefined/],
    ['a handler that is no function', ['task', {}, {}], 'FST_BG_BAD_HANDLER', /expected a function, got an object/],
    ['an empty name', ['', nothing], 'FST_BG_BAD_OPTION', /define\(name\): expected a string of 1 to 128 characters/],
    ['a name that is no string', [Symbol('task'), nothing], 'FST_BG_BAD_OPTION', /define\(name\): expected a string/],
    ['a name with a line break', ['a\nb', nothing], 'FST_BG_BAD_OPTION', /control character/]
  ]
  for (const [title, args, code, text] of wrong) {
    t.test(`${title} is refused at once, and the name stays free`, async (t) => {
      const { app } = await setup(t)
      const define = app.background.define.bind(app.background) as (...args: unknown[]) => unknown
      t.throws(() => define(...args), { code, statusCode: 500, message: text })
      t.doesNotThrow(() => define('task', nothing))
      await app.ready()
    })
  }

  t.test('options that are undefined are not given', async (t) => {
    const { app } = await setup(t)
    const define = app.background.define.bind(app.background) as (...args: unknown[]) => unknown
    t.doesNotThrow(() => define('task', { attempts: undefined, schema: undefined, concurrency: undefined }, nothing))
    await app.ready()
    await t.resolves(app.background.add('task', { any: 'payload' }))
  })

  t.test('a name is taken once in the whole application', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', nothing)
    await app.register(async (child) => {
      t.throws(() => child.background.define('task', nothing), { code: 'FST_BG_DUPLICATE_TASK', statusCode: 500, message: /"task"/ })
    })
    t.throws(() => app.background.define('task', nothing), { code: 'FST_BG_DUPLICATE_TASK' })
    await app.ready()
  })

  t.test('the first definition of a name stays', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', () => 'first')
    t.throws(() => app.background.define('task', () => 'second'))
    await app.ready()
    t.equal(await (await app.background.add('task')).finished(), 'first')
  })

  t.test('define after ready is an error', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    t.throws(() => app.background.define('late', nothing), { code: 'FST_BG_DEFINE_AFTER_READY', statusCode: 500, message: /"late"/ })
    await t.rejects(app.background.add('late'), { code: 'FST_BG_UNKNOWN_TASK' })
  })

  t.test('a schema that does not compile fails ready, and the text names the task', async (t) => {
    const { app } = await setup(t)
    app.background.define('broken', { schema: { type: 'objekt' } }, nothing)
    await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_BAD_SCHEMA', statusCode: 500, message: /"broken"/ })
  })

  t.test('a $ref that leads nowhere fails ready', async (t) => {
    const { app } = await setup(t)
    app.background.define('broken', { schema: { $ref: 'nowhere#' } }, nothing)
    await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_BAD_SCHEMA', message: /"broken".*nowhere/ })
  })
})

t.test('what define gives', async (t) => {
  t.test('a task carries its name, and calls take it instead of the name', async (t) => {
    const { app } = await setup(t)
    const task = app.background.define('greet', (payload: { name: string }) => `hello ${payload.name}`)
    await app.ready()
    const job = await app.background.add(task, { name: 'Ada' })
    t.equal(task.name, 'greet')
    t.equal(job.name, 'greet')
    t.equal(await job.finished(), 'hello Ada')
  })

  t.test('the task of another application is unknown here', async (t) => {
    const [{ app: one }, { app: two }] = [await setup(t), await setup(t)]
    const task = one.background.define('task', nothing)
    two.background.define('task', nothing)
    await one.ready()
    await two.ready()
    await t.rejects(two.background.add(task as Task), { code: 'FST_BG_UNKNOWN_TASK' })
    t.equal(await jobsKept(two.background), 0)
  })

  t.test('an object that looks like a task is no task', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', nothing)
    await app.ready()
    await t.rejects(app.background.add({ name: 'task' } as Task, null), { code: 'FST_BG_UNKNOWN_TASK', message: /an object.*defined: task/ })
  })

  t.test('names of Object.prototype are unknown until they are defined', async (t) => {
    const { app } = await setup(t)
    app.background.define('constructor', () => 'mine')
    await app.ready()
    await t.rejects(app.background.add('toString'), { code: 'FST_BG_UNKNOWN_TASK', message: /"toString"/ })
    t.equal(await (await app.background.add('constructor')).finished(), 'mine')
  })
})

t.test('the handler', async (t) => {
  t.test('its app is the instance that defined the task', async (t) => {
    const { app } = await setup(t)
    const seen: unknown[] = []
    let definer: unknown
    await app.register(async (child) => {
      definer = child
      child.decorate('pool', 'of the child')
      child.background.define('task', (_payload, context) => { seen.push(context.app, (context.app as unknown as { pool: string }).pool) })
    })
    app.get('/', async (_request, reply) => { reply.background('task'); return 'ok' })
    await app.ready()
    await app.inject('/')
    await (await app.background.add('task')).finished()
    await app.background.onIdle()
    t.strictSame(seen.map((value) => value === definer ? 'definer' : value), ['definer', 'of the child', 'definer', 'of the child'])
  })

  t.test('the app of an inline function is the instance of its route', async (t) => {
    const { app } = await setup(t)
    const seen = deferred<unknown>()
    await app.register(async (child) => {
      child.decorate('pool', 'of the child')
      child.get('/', async (_request, reply) => {
        reply.background(({ app }) => { seen.resolve((app as unknown as { pool: string }).pool) })
        return 'ok'
      })
    })
    await app.inject('/')
    t.equal(await seen.promise, 'of the child')
  })

  t.test('the app of an inline function is the instance whose background was asked', async (t) => {
    const { app } = await setup(t)
    let child!: typeof app
    await app.register(async (instance) => { child = instance })
    await app.ready()
    const job = await child.background.add((context) => context.app === child)
    t.equal(await job.finished(), true)
  })

  t.test('the context tells of its job', async (t) => {
    const { app } = await setup(t)
    let seen: JobContext | undefined
    app.background.define('task', { attempts: 4 }, (_payload, context) => { seen = context })
    app.get('/', async (_request, reply) => { reply.background('task'); return 'ok' })
    await app.inject({ url: '/', headers: {} })
    await app.background.onIdle()
    t.match(seen?.job, { name: 'task', attempt: 1, attempts: 4, queue: 'default', createdAt: '2026-01-01T00:00:00.000Z', requestId: 'req-1' })
    t.match(seen?.job.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/)
  })

  t.test('a job added outside a request has no request id', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    t.equal(await (await app.background.add(({ job }) => job.requestId)).finished(), null)
  })

  t.test('the signal is the job\'s own, and quiet while nothing happens', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    t.equal(await (await app.background.add(({ signal }) => signal instanceof AbortSignal && !signal.aborted)).finished(), true)
  })

  t.test('what the context holds may be taken apart', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    const job = await app.background.add(async ({ progress, yieldNow, log, signal, job, app }) => {
      progress(1)
      await yieldNow()
      log.info('here')
      return [typeof signal, typeof job.id, typeof app.inject]
    })
    t.strictSame(await job.finished(), ['object', 'string', 'function'])
  })

  t.test('progress shows in the record, as a copy', async (t) => {
    const { app, clock } = await setup(t)
    await app.ready()
    const value = { done: 1 }
    const end = deferred()
    const job = await app.background.add(async ({ progress }) => { progress(value); value.done = 2; await end.promise })
    await clock.settle()
    t.same((await record(app.background, job.id)).progress, { done: 1 })
    end.resolve()
    await job.finished()
    t.same((await record(app.background, job.id)).progress, { done: 1 })
  })

  t.test('a progress that is no JSON is refused with what came', async (t) => {
    const { app } = await setup(t)
    await app.ready()
    const job = await app.background.add(({ progress }) => { progress(nothing) })
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', cause: { code: 'FST_BG_BAD_OPTION', message: /progress: expected.*JSON.*a function/ } })
  })

  t.test('each attempt has a payload of its own', async (t) => {
    const { app, clock } = await setup(t)
    const seen: unknown[] = []
    app.background.define('task', { attempts: 2, backoff: 10 }, (payload: { list: number[] }) => {
      seen.push([...payload.list])
      payload.list.push(99)
      throw new Error('again')
    })
    await app.ready()
    const job = await app.background.add('task', { list: [1] })
    await clock.advance(10)
    t.strictSame(seen, [[1], [1]])
    t.same((await record(app.background, job.id)).payload, { list: [1] })
  })
})

t.test('payload schemas', async (t) => {
  const schema = {
    type: 'object',
    required: ['count'],
    additionalProperties: false,
    properties: { count: { type: 'integer' }, unit: { type: 'string', default: 'piece' }, to: { type: 'string', format: 'email' } }
  }

  t.test('the job\'s copy is coerced, filled and stripped; the caller\'s object is not touched', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', { schema }, (payload) => payload)
    await app.ready()
    const payload = Object.freeze({ count: '3', secret: 'x' })
    const job = await app.background.add('task', payload)
    t.same((await record(app.background, job.id)).payload, { count: 3, unit: 'piece' })
    t.same(await job.finished(), { count: 3, unit: 'piece' })
    t.same(payload, { count: '3', secret: 'x' })
  })

  t.test('what does not fit is refused with its path and not its value', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', { schema }, nothing)
    await app.ready()
    const error = await thrownBy(() => app.background.add('task', { count: 1, to: 'hunter2' }))
    t.match(error, { code: 'FST_BG_BAD_PAYLOAD', statusCode: 500, message: /"task".*payload\/to must match format "email"/ })
    t.notMatch(error.message, /hunter2/)
    t.equal(await jobsKept(app.background), 0)
  })

  t.test('an omitted payload is null for the schema too', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', { schema: { type: 'object' } }, nothing)
    await app.ready()
    await t.rejects(app.background.add('task'), { code: 'FST_BG_BAD_PAYLOAD', message: /payload must be object/ })
  })

  t.test('a payload is checked by JSON\'s rules: toJSON is called, undefined is dropped', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', { schema: { type: 'object', required: ['at'], properties: { at: { type: 'string' } } } }, nothing)
    await app.ready()
    const job = await app.background.add('task', { at: new Date(0), gone: undefined })
    t.same((await record(app.background, job.id)).payload, { at: '1970-01-01T00:00:00.000Z' })
    await t.rejects(app.background.add('task', { at: undefined }), { code: 'FST_BG_BAD_PAYLOAD' })
  })

  t.test('defaults that make a payload too large are refused', async (t) => {
    const { app } = await setup(t, { maxPayloadBytes: 100 })
    app.background.define('task', { schema: { type: 'object', properties: { text: { type: 'string', default: 'x'.repeat(200) } } } }, nothing)
    await app.ready()
    await t.rejects(app.background.add('task', {}), { code: 'FST_BG_PAYLOAD_TOO_LARGE', message: /at most 100 bytes.*got 211/ })
  })

  t.test('a schema may refer to one that its instance shares, when no route has a schema', async (t) => {
    const { app } = await setup(t, { routes: false })
    app.addSchema({ $id: 'address', type: 'object', required: ['to'], properties: { to: { type: 'string' } } })
    app.background.define('task', { schema: { $ref: 'address#' } }, nothing)
    await app.ready()
    await t.resolves(app.background.add('task', { to: 'x' }))
    await t.rejects(app.background.add('task', {}), { code: 'FST_BG_BAD_PAYLOAD', message: /required property 'to'/ })
  })

  t.test('a schema may refer to one that a child plugin shares, when no route has a schema', async (t) => {
    const { app } = await setup(t, { routes: false })
    await app.register(async (child) => {
      child.addSchema({ $id: 'address', type: 'object', required: ['to'], properties: { to: { type: 'string' } } })
      child.background.define('task', { schema: { type: 'array', items: { $ref: 'address#' } } }, nothing)
    })
    await app.ready()
    await t.resolves(app.background.add('task', [{ to: 'x' }]))
    await t.rejects(app.background.add('task', [{}]), { code: 'FST_BG_BAD_PAYLOAD', message: /payload\/0 / })
  })

  t.test('a schema may refer to one that a child plugin shares, when only the parent has routes with schemas', async (t) => {
    const { app } = await setup(t)
    app.post('/', { schema: { body: { type: 'object' } } }, async () => 'ok')
    await app.register(async (child) => {
      child.addSchema({ $id: 'address', type: 'object', required: ['to'], properties: { to: { type: 'string' } } })
      child.background.define('task', { schema: { $ref: 'address#' } }, nothing)
    })
    await t.resolves(async () => { await app.ready() })
    await t.rejects(app.background.add('task', {}), { code: 'FST_BG_BAD_PAYLOAD' })
  })

  t.test('two children may share different schemas under one id', async (t) => {
    const { app } = await setup(t)
    for (const [name, type] of [['numbers', 'number'], ['texts', 'string']] as const) {
      await app.register(async (child) => {
        child.addSchema({ $id: 'item', type })
        child.background.define(name, { schema: { type: 'object', properties: { item: { $ref: 'item#' } } } }, nothing)
        child.post(`/${name}`, { schema: { body: { $ref: 'item#' } } }, async () => 'ok')
      })
    }
    await app.ready()
    await t.resolves(app.background.add('texts', { item: 'x' }))
    await t.rejects(app.background.add('numbers', { item: 'x' }), { code: 'FST_BG_BAD_PAYLOAD', message: /payload\/item must be number/ })
  })

  t.test('the server\'s ajv options hold, when a route has a schema', async (t) => {
    const { app } = await setup(t, { server: { ajv: { customOptions: { coerceTypes: false } } } })
    app.background.define('task', { schema }, nothing)
    app.post('/', { schema: { body: schema } }, async () => 'ok')
    await app.ready()
    await t.rejects(app.background.add('task', { count: '3' }), { code: 'FST_BG_BAD_PAYLOAD', message: /must be integer/ })
  })

  t.test('the validator compiler of the child that defines is used, and no other', async (t) => {
    const { app } = await setup(t)
    const compiled: unknown[] = []
    await app.register(async (child) => {
      child.setValidatorCompiler(({ schema, httpPart }) => {
        compiled.push(schema, httpPart)
        return (value: unknown) => (value as { ok?: boolean }).ok === true ? { value: { seen: true } } : { error: new Error('not ok') }
      })
      child.background.define('own', { schema: { kind: 'of the child' } }, (payload) => payload)
    })
    app.background.define('other', { schema: { type: 'object' } }, (payload) => payload)
    await app.ready()
    t.same(await (await app.background.add('own', { ok: true })).finished(), { seen: true })
    t.same(await (await app.background.add('other', { ok: false })).finished(), { ok: false })
    await t.rejects(app.background.add('own', { ok: false }), { code: 'FST_BG_BAD_PAYLOAD', message: /not ok/ })
    t.same(compiled, [{ kind: 'of the child' }, 'body'])
  })

  t.test('a validator compiler that gives no JSON back is refused', async (t) => {
    const { app } = await setup(t)
    app.setValidatorCompiler(() => () => ({ value: { big: 1n } }))
    app.background.define('task', { schema: {} }, nothing)
    await app.ready()
    await t.rejects(app.background.add('task', {}), { code: 'FST_BG_PAYLOAD_NOT_JSON' })
    t.equal(await jobsKept(app.background), 0)
  })

  t.test('a TypeBox-like schema with symbols compiles', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', { schema: { type: 'string', [Symbol('kind')]: 'String' } }, nothing)
    await app.ready()
    await t.resolves(app.background.add('task', 'x'))
  })

  t.test('a payload with __proto__ as its own key changes no prototype', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', (payload: object) => [Object.getPrototypeOf(payload) === Object.prototype, Object.keys(payload)])
    await app.ready()
    const job = await app.background.add('task', JSON.parse('{ "__proto__": { "admin": true } }'))
    t.same(await job.finished(), [true, ['__proto__']])
    t.equal((await record(app.background, job.id)).payload?.['admin' as never], undefined)
  })
})

t.test('define in a plugin that registers later than a route reaches the route', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks)
  const done = deferred<string>()
  app.get('/', async (_request, reply) => { reply.background('late', 'payload'); return 'ok' })
  app.register(async (child) => { child.background.define('late', (payload: string) => { done.resolve(payload) }) })
  await app.inject('/')
  t.equal(await done.promise, 'payload')
})

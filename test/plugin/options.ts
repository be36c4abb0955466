import Fastify, { type FastifyRegisterOptions } from 'fastify'
import t from 'tap'
import { backgroundTasks, memory, type Backoff, type BackgroundTasksOptions } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { setup } from '../support/harness.ts'

async function register (t: { teardown (end: () => unknown): void }, options: unknown): Promise<void> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks, options as FastifyRegisterOptions<BackgroundTasksOptions>)
  await app.ready()
}

const nothing = () => {}

t.test('unknown options', async (t) => {
  const misspelt: Array<[options: object, where: string]> = [
    [{ concurency: 5 }, 'options: unknown option "concurency"'],
    [{ maxqueuesize: 5 }, 'options: unknown option "maxqueuesize"'],
    [{ defaults: { atempts: 5 } }, 'options.defaults: unknown option "atempts"'],
    [{ routes: { helth: '/h' } }, 'options.routes: unknown option "helth"'],
    [{ retention: { complete: { count: 1 } } }, 'complete'],
    [{ retention: { failed: { size: 1 } } }, 'size'],
    [{ health: { maxage: 1 } }, 'maxage'],
    [{ defaults: { backoff: { dealy: 1 } } }, 'dealy']
  ]
  for (const [options, text] of misspelt) {
    t.test(`${JSON.stringify(options)} is refused, and the text shows what is known`, async (t) => {
      const error = await register(t, options).then(() => undefined, (error: unknown) => error as Error & { code: string, statusCode: number })
      t.match(error?.code, /^FST_BG_(UNKNOWN|BAD)_OPTION$/)
      t.equal(error?.statusCode, 500)
      t.match(error?.message, text)
    })
  }

  t.test('the text of a misspelt option lists the known ones', async (t) => {
    await t.rejects(register(t, { concurency: 5 }), { code: 'FST_BG_UNKNOWN_OPTION', message: /known here: .*concurrency/ })
  })

  const notBuilt: Array<[name: string, options: object]> = [
    ['defaults.limiter', { defaults: { limiter: { max: 1, duration: 1 } } }]
  ]
  for (const [name, options] of notBuilt) {
    t.test(`${name} is refused like a misspelt one while it is not built`, async (t) => {
      await t.rejects(register(t, options), { code: 'FST_BG_UNKNOWN_OPTION', statusCode: 500 })
    })
  }

  t.test('a key of Object.prototype is no option', async (t) => {
    await t.rejects(register(t, { toString: nothing }), { code: 'FST_BG_UNKNOWN_OPTION' })
    await t.rejects(register(t, JSON.parse('{ "__proto__": { "concurrency": 1 } }')), { code: 'FST_BG_UNKNOWN_OPTION' })
  })
})

t.test('wrong values', async (t) => {
  const wrong: Array<[options: Record<string, unknown>, expected: RegExp, came: RegExp]> = [
    [{ concurrency: 0 }, /options\.concurrency: expected an integer from 1 to 10000/, /got 0/],
    [{ concurrency: 1.5 }, /options\.concurrency: expected an integer/, /got 1\.5/],
    [{ concurrency: '10' }, /options\.concurrency: expected an integer/, /"10" \(string\)/],
    [{ concurrency: Infinity }, /options\.concurrency/, /Infinity/],
    [{ concurrency: null }, /options\.concurrency/, /null/],
    [{ maxQueueSize: -1 }, /options\.maxQueueSize: expected an integer/, /-1/],
    [{ maxQueueBytes: '1MB' }, /options\.maxQueueBytes: expected an integer/, /"1MB" \(string\)/],
    [{ maxPayloadBytes: NaN }, /options\.maxPayloadBytes: expected an integer/, /NaN/],
    [{ defaults: 5 }, /options\.defaults: expected an object/, /got 5/],
    [{ defaults: { attempts: 0 } }, /options\.defaults\.attempts: expected an integer from 1/, /got 0/],
    [{ defaults: { timeout: -1 } }, /options\.defaults\.timeout: expected a number of ms/, /-1/],
    [{ defaults: { delay: 5, runAt: 5 } }, /options\.defaults\.runAt: expected either delay or runAt/, /both/],
    [{ retention: [] }, /options\.retention: expected an object/, /an array/],
    [{ retention: { completed: 5 } }, /options\.retention: .*completed/, /5/],
    [{ retention: { failed: { count: -5 } } }, /options\.retention: .*count to be an integer/, /-5/],
    [{ retention: { failed: { age: 'a day' } } }, /options\.retention: .*age to be a number of ms/, /"a day"/],
    [{ drainTimeout: '8s' }, /options\.drainTimeout: expected a number of ms/, /"8s" \(string\)/],
    [{ abortGrace: -1 }, /options\.abortGrace: expected a number of ms/, /-1/],
    [{ onUnfinished: true }, /options\.onUnfinished: expected a function/, /true \(boolean\)/],
    [{ maxHold: 0 }, /options\.maxHold: expected a number of ms above 0/, /got 0/],
    [{ backend: 'redis' }, /options\.backend: expected a backend, such as memory\(\)/, /"redis" \(string\)/],
    [{ backend: {} }, /options\.backend: expected a backend/, /an object/],
    [{ routes: true }, /options\.routes: expected false, or an object/, /true \(boolean\)/],
    [{ routes: { health: 'health' } }, /options\.routes\.health: expected a path that starts with "\/", or false/, /"health"/],
    [{ routes: { status: '/jobs/status' } }, /options\.routes\.status: expected a path with the part ":id"/, /"\/jobs\/status"/],
    [{ routes: { status: '/jobs/:id/of/:other' } }, /options\.routes\.status: expected a path with the part ":id"/, /"\/jobs\/:id\/of\/:other"/],
    [{ routes: { status: '/jobs/:id/*' } }, /options\.routes\.status: expected a path with the part ":id"/, /"\/jobs\/:id\/\*"/],
    [{ routes: { onRequest: 'auth' } }, /options\.routes\.onRequest: expected a function, or an array of functions/, /"auth"/],
    [{ routes: { schema: 'tags' } }, /options\.routes\.schema: expected an object/, /"tags"/],
    [{ health: 5 }, /options\.health: expected an object of maxAge/, /5/],
    [{ health: { maxAge: '1m' } }, /options\.health: .*maxAge to be a number of ms/, /"1m"/],
    [{ authorize: 'admin' }, /options\.authorize: expected a function/, /"admin"/],
    [{ logLevel: 5 }, /options\.logLevel: expected a string/, /5/],
    [{ logSerializers: 'x' }, /options\.logSerializers: expected an object/, /"x"/]
  ]
  for (const [options, expected, came] of wrong) {
    t.test(`${Object.keys(options).join()}: ${String(expected).slice(1, -1)} is said of a value like ${String(came).slice(1, -1)}`, async (t) => {
      await t.rejects(register(t, options), { code: 'FST_BG_BAD_OPTION', statusCode: 500, message: expected })
      await t.rejects(register(t, options), { message: came })
    })
  }

  t.test('a queue other than default is refused by name, as there is no other yet', async (t) => {
    await t.rejects(register(t, { defaults: { queue: 'mail' } }), { code: 'FST_BG_UNKNOWN_QUEUE', statusCode: 500, message: /"mail".*default/ })
  })
})

t.test('what counts as not given', async (t) => {
  t.test('every option may be undefined', async (t) => {
    const { app } = await setup(t, {
      concurrency: undefined, maxQueueSize: undefined, maxQueueBytes: undefined, maxPayloadBytes: undefined, defaults: undefined,
      retention: undefined, drainTimeout: undefined, abortGrace: undefined, onUnfinished: undefined, maxHold: undefined,
      routes: undefined, health: undefined, authorize: undefined, ...({ prefix: undefined, logLevel: undefined, logSerializers: undefined } as object)
    })
    await app.ready()
    t.equal((await app.background.counts())['default']?.concurrency, 10)
  })

  t.test('an undefined inside a group of options leaves its default', async (t) => {
    const { app } = await setup(t, {
      defaults: { attempts: undefined, backoff: { delay: undefined } as unknown as Backoff },
      retention: { completed: { count: undefined }, failed: undefined },
      routes: { health: undefined, status: undefined, onRequest: undefined } as never,
      health: { maxAge: undefined }
    })
    app.background.define('task', nothing)
    await app.ready()
    t.ok(app.hasRoute({ method: 'GET', url: '/health/jobs' }))
    t.ok(app.hasRoute({ method: 'GET', url: '/jobs/:id/status' }))
    const job = await app.background.add('task')
    t.equal((await app.background.get(job.id))?.attempts, 3)
  })

  t.test('an undefined unknown option is no option', async (t) => {
    await t.resolves(register(t, { concurency: undefined }))
  })
})

t.test('defaults', async (t) => {
  t.test('a task is attempted three times, an inline function once', async (t) => {
    const { app } = await setup(t)
    app.background.define('task', nothing)
    await app.ready()
    const task = await app.background.add('task')
    const inline = await app.background.add(nothing)
    t.equal((await app.background.get(task.id))?.attempts, 3)
    t.equal((await app.background.get(inline.id))?.attempts, 1)
  })

  t.test('options.defaults hold for tasks and for inline functions', async (t) => {
    const { app } = await setup(t, { defaults: { attempts: 7, priority: 5 } })
    app.background.define('task', nothing)
    await app.ready()
    for (const job of [await app.background.add('task'), await app.background.add(nothing)]) {
      t.match(await app.background.get(job.id), { attempts: 7, priority: 5 })
    }
  })

  t.test('define is nearer than defaults, and the call is nearer than define', async (t) => {
    const { app } = await setup(t, { defaults: { attempts: 7, priority: 5, ttl: 1_000 } })
    app.background.define('task', { attempts: 6, priority: 4 }, nothing)
    await app.ready()
    const job = await app.background.add('task', null, { priority: 3 })
    t.match(await app.background.get(job.id), { attempts: 6, priority: 3 })
  })

  t.test('an undefined in a nearer place does not hide a farther value', async (t) => {
    const { app } = await setup(t, { defaults: { attempts: 7 } })
    app.background.define('task', { attempts: undefined }, nothing)
    await app.ready()
    const job = await app.background.add('task', null, { attempts: undefined })
    t.equal((await app.background.get(job.id))?.attempts, 7)
  })

  t.test('a nearer delay replaces a farther runAt, and the other way round', async (t) => {
    const { app, clock } = await setup(t, { defaults: { runAt: new Date(Date.UTC(2030, 0, 1)) } })
    app.background.define('delayed', { delay: 1_000 }, nothing)
    app.background.define('task', nothing)
    await app.ready()
    const delayed = await app.background.add('delayed')
    const task = await app.background.add('task')
    const back = await app.background.add('delayed', null, { runAt: clock.now() + 5_000 })
    t.equal((await app.background.get(delayed.id))?.runAt, new Date(clock.now() + 1_000).toISOString())
    t.equal((await app.background.get(task.id))?.runAt, '2030-01-01T00:00:00.000Z')
    t.equal((await app.background.get(back.id))?.runAt, new Date(clock.now() + 5_000).toISOString())
  })

  t.test('ten attempts run at once', async (t) => {
    const { app, clock } = await setup(t)
    app.background.define('stuck', (_payload, { signal }) => new Promise((resolve) => { signal.addEventListener('abort', resolve) }))
    await app.ready()
    for (let i = 0; i < 12; i++) await app.background.add('stuck')
    await clock.settle()
    t.match(await app.background.counts(), { default: { active: 10, waiting: 2, concurrency: 10 } })
  })

  t.test('concurrency is the number of attempts alive at once', async (t) => {
    const { app, clock } = await setup(t, { concurrency: 2 })
    app.background.define('stuck', (_payload, { signal }) => new Promise((resolve) => { signal.addEventListener('abort', resolve) }))
    await app.ready()
    for (let i = 0; i < 3; i++) await app.background.add('stuck')
    await clock.settle()
    t.match(await app.background.counts(), { default: { active: 2, waiting: 1, concurrency: 2 } })
  })

  t.test('the options object of the user is not changed and may be frozen', async (t) => {
    const options = Object.freeze({ concurrency: 2, routes: Object.freeze({ health: '/h' }), retention: Object.freeze({ failed: Object.freeze({ count: 1 }) }) })
    await t.resolves(register(t, options))
  })

  t.test('options may come from a function, as for every plugin', async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(backgroundTasks, () => ({ concurrency: 3 }))
    await app.ready()
    t.equal((await app.background.counts())['default']?.concurrency, 3)
  })
})

t.test('a memory() that belongs to another application is refused with a code', async (t) => {
  const backend = memory({ clock: new TestClock() })
  const [one, two] = [Fastify(), Fastify()]
  t.teardown(() => Promise.allSettled([one.close(), two.close()]))
  await one.register(backgroundTasks, { backend })
  await two.register(backgroundTasks, { backend })
  await one.ready()
  await t.rejects(async () => { await two.ready() }, { code: /^FST_BG_/ })
})

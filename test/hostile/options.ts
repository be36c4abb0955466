/** Whatever is given as an option, a name, a filter: it is taken, or refused with a code; nothing breaks inside. */
import Fastify, { type FastifyRegisterOptions } from 'fastify'
import fc from 'fast-check'
import t, { test, type Test } from 'tap'
import { backgroundTasks, memory, type BackgroundTasksOptions } from '../../lib/index.ts'
import { resolveOptions } from '../../lib/options.ts'
import { closeInTime, jobsKept, setup, type Harness } from '../support/harness.ts'
import { anyText, anyValue, isCoded, nastyTexts, nastyValues, runs, watchPrototypes } from '../support/hostile.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

const prototypes = watchPrototypes()
t.afterEach(() => {
  if (prototypes().length > 0) throw new Error(`prototypes were changed: ${prototypes().join(', ')}`)
})

const nothing = (): void => {}
type Call = (...args: any[]) => unknown

/** Throws unless the call is taken, or refused with a code. */
async function takenOrRefused (call: () => unknown): Promise<'taken' | 'refused'> {
  try {
    await call()
    return 'taken'
  } catch (error) {
    if (isCoded(error)) return 'refused'
    throw error
  }
}

const pluginOptions = [
  'concurrency', 'queues', 'maxQueueSize', 'maxQueueBytes', 'maxPayloadBytes', 'defaults', 'retention', 'drainTimeout', 'abortGrace', 'onUnfinished',
  'maxHold', 'maxWait', 'backend', 'prefix', 'routes', 'health', 'authorize', 'logLevel', 'logSerializers', 'foreground', 'maxBlock', '__proto__', 'constructor', 'x\ny'
]
const jobOptions = [
  'attempts', 'backoff', 'timeout', 'retryIf', 'delay', 'runAt', 'ttl', 'priority', 'queue', 'when', 'onAbort', 'callerContext',
  'deduplication', 'group', '__proto__', 'constructor', 'x\u2028y'
]
const groups: Record<string, string[]> = {
  retention: ['completed', 'failed', 'x'], health: ['maxAge', 'maxDead', '__proto__'], routes: ['health', 'status', 'schema', 'onRequest', 'config', 'exposeHeadRoute', 'admin'],
  queues: ['mail', '__proto__', 'default', 'a\nb', ''], defaults: jobOptions, backoff: ['type', 'delay', 'maxDelay', 'jitter', '__proto__']
}
const inGroups = Object.entries(groups).flatMap(([group, keys]) => keys.map((key) => [group, key] as const))

/** An own key, whatever its name. */
function having (key: string, value: unknown): object {
  return Object.defineProperty({}, key, { value, enumerable: true, configurable: true, writable: true })
}

async function register (options: unknown): Promise<void> {
  const app = Fastify({ logger: { level: 'trace', stream: { write: nothing } } })
  try {
    await app.register(backgroundTasks, options as FastifyRegisterOptions<BackgroundTasksOptions>)
    await app.ready()
  } finally {
    await app.close()
  }
}

/** Tries each of the values in its place, and tells those that broke something. */
async function tryAll (t: Test, title: string, call: Call): Promise<void> {
  for (const make of nastyValues) {
    const value = make()
    await takenOrRefused(() => call(value)).catch((error: unknown) => {
      const { name, message, stack = '' } = error as Error
      t.fail(`${title}: ${show(value)} broke something: ${name} ${message} ${stack.split('\n').find((line) => line.includes('/lib/'))?.trim() ?? ''}`)
    })
  }
  t.pass(title.replace(/[^ -~]/g, '?')) // tap's own lines can be broken
}

function show (value: unknown): string {
  try {
    return `${typeof value} ${String(value).slice(0, 40)}`
  } catch {
    return `a hostile ${typeof value}`
  }
}

test('options of the plugin', async (t) => {
  for (const key of pluginOptions) await tryAll(t, key, (value) => resolveOptions(having(key, value)))
  for (const [group, key] of inGroups) {
    if (group !== 'backoff') await tryAll(t, `${group}.${key}`, (value) => resolveOptions({ [group]: having(key, value) }))
  }
  // These go on to Fastify and its logger.
  for (const key of ['prefix', 'logLevel', 'logSerializers', 'routes']) await tryAll(t, key, (value) => register(having(key, value)))
  for (const key of ['health', 'status', 'schema']) await tryAll(t, `routes.${key}`, (value) => register({ routes: having(key, value) }))
})

test('half a backend is refused', async (t) => {
  const whole = memory()
  const keys = ['start', 'want', 'settle', 'note', 'enqueue', 'release', 'cancel', 'retry', 'remove', 'get', 'list', 'counts', 'load', 'watch', 'close', 'name', 'durable', 'capabilities']
  for (const key of keys) {
    for (const broken of [undefined, null, 5]) {
      const backend = new Proxy(whole, { get: (target, name) => name === key ? broken : Reflect.get(target, name) as unknown })
      await t.rejects(register({ backend }), { code: 'FST_BG_BAD_OPTION', message: /options\.backend: expected a backend/ }, `${key}: ${String(broken)}`)
    }
  }
})

test('define', async (t) => {
  const { app } = await setup(t)
  const define = app.background.define.bind(app.background) as Call
  await tryAll(t, 'name', (value) => define(value, nothing))
  await tryAll(t, 'handler', (value) => define('a', {}, value))
  await tryAll(t, 'options', (value) => define('a', value, nothing))
  for (const key of [...jobOptions, 'schema', 'concurrency']) await tryAll(t, key, (value) => define('a', having(key, value), nothing))
  for (const [group, key] of inGroups) if (group === 'backoff') await tryAll(t, `backoff.${key}`, (value) => define('a', { backoff: having(key, value) }, nothing))
  await tryAll(t, 'addHook', (value) => (app.background.addHook as Call)(value, nothing))
  await tryAll(t, 'addHook', (value) => (app.background.addHook as Call)('onTaskStart', value))
})

/** An application whose jobs wait for a pool that is paused. */
async function still (t: Test): Promise<Harness> {
  const harness = await setup(t, { queues: JSON.parse('{ "__proto__": {}, "constructor": {}, "mail": {} }'), maxQueueSize: 1_000_000 })
  harness.app.background.define('task', nothing)
  harness.app.background.define('strict', { schema: { type: 'object', required: ['a'], properties: { a: { type: 'string' } } } }, nothing)
  harness.app.get('/', async (_request, reply) => { await todo(reply); return reply.sent ? reply : 'ok' })
  let todo: Call = nothing
  Object.assign(harness, { within: (work: Call) => { todo = work; return harness.app.inject('/') } })
  await harness.app.ready()
  await harness.app.background.pause()
  return harness
}

test('per call, through every door', async (t) => {
  const harness = await still(t)
  const { app } = harness
  const add = app.background.add.bind(app.background) as Call
  const doors: Record<string, Call> = {
    add,
    addBulk: (name, payload, options) => app.background.addBulk([{ name, payload, options }]),
    background: (...args) => inReply(harness, (reply) => (reply.background as Call)(...args)),
    accepted: (...args) => inReply(harness, (reply) => (reply.accepted as Call)(...args))
  }
  for (const [door, call] of Object.entries(doors)) {
    await tryAll(t, `${door} target`, (value) => call(value))
    await tryAll(t, `${door} payload`, (value) => call('task', value))
    await tryAll(t, `${door} payload of a task with a schema`, (value) => call('strict', value))
    await tryAll(t, `${door} options`, (value) => call('task', null, value))
    for (const key of jobOptions) await tryAll(t, `${door} ${key}`, (value) => call('task', null, having(key, value)))
  }
  await tryAll(t, 'options of an inline function', (value) => add(nothing, value))
  await tryAll(t, 'a third argument of an inline function', (value) => add(nothing, {}, value))
  await tryAll(t, 'a function with a hostile name', (value) => add(Object.defineProperty(() => {}, 'name', { value })))
  await tryAll(t, 'addBulk', (value) => (app.background.addBulk as Call)(value))
  await tryAll(t, 'addBulk of', (value) => (app.background.addBulk as Call)([{ name: 'task' }, value]))
  for (const key of ['name', 'payload', 'options', '__proto__', 'other']) {
    await tryAll(t, `addBulk of ${key}`, (value) => (app.background.addBulk as Call)([Object.assign(having(key, value), key === 'name' ? {} : { name: 'task' })]))
  }
  t.match((await app.inject('/health/jobs')).json(), { status: 'ok' })
})

async function inReply (harness: Harness, work: (reply: Record<string, unknown>) => unknown): Promise<void> {
  let thrown: { error: unknown } | undefined
  await (harness as unknown as { within: Call }).within((reply: Record<string, unknown>) => {
    try {
      work(reply)
    } catch (error) {
      thrown = { error }
    }
  })
  if (thrown !== undefined) throw thrown.error
}

test('reading and steering', async (t) => {
  const { app } = await still(t)
  const { background } = app
  const job = await background.add('task')
  const calls: Record<string, Call> = {
    get: (value) => background.get(value),
    'cancel id': (value) => background.cancel(value),
    'cancel reason': (value) => background.cancel('x', value),
    pause: (value) => background.pause(value),
    'deadLetters.get': (value) => background.deadLetters.get(value),
    'deadLetters.list': (value) => background.deadLetters.list(value),
    'deadLetters.retry': (value) => background.deadLetters.retry(value),
    'deadLetters.retry options': (value) => background.deadLetters.retry({}, value),
    'deadLetters.remove': (value) => background.deadLetters.remove(value),
    ...Object.fromEntries(['task', 'after', 'limit', '__proto__'].map((key) => [`deadLetters.list ${key}`, (value: unknown) => background.deadLetters.list(having(key, value))])),
    ...Object.fromEntries(['dryRun', 'ratePerSecond'].map((key) => [`deadLetters.retry ${key}`, (value: unknown) => background.deadLetters.retry({}, having(key, value))])),
    'onIdle options': (value) => typeof value === 'object' && value !== null && isBroken(value) ? background.onIdle(value) : background.onIdle({ timeout: value as never, other: 1 } as never),
    'finished signal': (value) => job.finished({ signal: value as never, timeout: -1 })
  }
  for (const [title, call] of Object.entries(calls)) await tryAll(t, title, call)
  await background.resume()
  for (const title of ['resume', 'pause']) await tryAll(t, title, (value) => (background[title as 'pause'] as Call)(value))
})

/** Whether it cannot even be looked at: then it is refused at once. */
function isBroken (value: object): boolean {
  try {
    return Object.entries(value).length < 0
  } catch {
    return true
  }
}

test('names of queues and tasks that every object knows are names like any other', async (t) => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype']
  const { app, background, clock } = await setup(t, { queues: Object.fromEntries(names.map((name) => [name, { concurrency: 2 }])) })
  for (const name of names) {
    background.define(name, { queue: name, attempts: 1 }, () => { throw new Error(name) })
    background.define(`own ${name}`, { concurrency: 1 }, nothing)
  }
  await app.ready()
  for (const name of names) {
    const [job] = await background.addBulk([{ name }, { name: `own ${name}` }])
    await clock.settle()
    t.match(await background.get(job?.id ?? ''), { name, queue: name, state: 'failed' })
    t.match((await background.deadLetters.list({ task: name })).jobs.map(({ id }) => id), [job?.id])
  }
  const health = (await app.inject('/health/jobs')).body
  const counts = await background.counts()
  for (const name of names) {
    t.ok(Object.hasOwn(counts, name), `counts() has an own ${name}`)
    t.equal(counts[name]?.failed, 1)
    t.ok(health.includes(`"${name}":{`), `health shows ${name}`)
  }
})

test('anything, anywhere, at random', async (t) => {
  const harness = await still(t)
  const { background } = harness.app
  await fc.assert(fc.asyncProperty(fc.constantFrom(...jobOptions), anyValue, anyText, anyValue, async (key, make, name, makePayload) => {
    const [value, payload] = [make(), makePayload()]
    for (const call of [
      () => (background.add as Call)('task', payload, having(key, value)),
      () => (background.add as Call)(name, payload),
      () => (background.addBulk as Call)([{ name: 'task', payload, options: having(key, value) }]),
      () => (background.deadLetters.list as Call)(having(key, value)),
      () => background.cancel(name, name)
    ]) await takenOrRefused(call)
  }), runs(300))
  t.ok(await jobsKept(background) > 0, 'some were taken')
  await closeInTime(harness.app, harness.clock)
  t.ok(harness.lines.every((line) => typeof line.msg === 'string'))
})

test('names and reasons with characters that break lines are refused', async (t) => {
  const { app, background } = await setup(t)
  const bad = nastyTexts.filter((text) => /[\p{Cc}\u2028\u2029]/u.test(text))
  t.ok(bad.length > 8)
  for (const name of bad) t.throws(() => background.define(name, nothing), { code: 'FST_BG_BAD_OPTION' })
  for (const name of bad) await t.rejects(register({ queues: { [name]: {} } }), { code: 'FST_BG_BAD_OPTION' })
  await app.ready()
  const job = await background.add(nothing, { delay: 1_000 })
  for (const reason of bad) await t.rejects(background.cancel(job.id, reason), { code: 'FST_BG_BAD_OPTION' })
})

/** Several backends under one application. */
import t from 'tap'
import type { Backend } from '../../lib/backend.ts'
import { combine } from '../../lib/backends/composite.ts'
import { Lane } from '../../lib/backends/lane.ts'
import { memory } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { DurableBackend } from '../support/durable.ts'
import { closeInTime, deferred, setup, until, type Harness, type HarnessOptions } from '../support/harness.ts'

/** An application whose queue `mail` stands on a durable backend, the others in memory. */
async function mixed (t: Parameters<typeof setup>[0], options: HarnessOptions = {}): Promise<Harness & { store: DurableBackend }> {
  const clock = new TestClock()
  const store = new DurableBackend({ clock })
  const made = await setup(t, { backend: memory({ clock }), queues: { mail: { backend: store, concurrency: 2 } }, ...options })
  return { ...made, clock, store, background: made.app.background }
}

t.test('one backend for all is used as it is', async (t) => {
  const only = memory()
  const backends = combine(only, new Map([['mail', only]]))
  t.equal(backends.all, only)
  t.equal(backends.volatile, only)
})

t.test('tasks go to the backend of their queue, functions to memory', async (t) => {
  const { app, background, store } = await mixed(t)
  const ran: string[] = []
  background.define('here', () => { ran.push('here') })
  background.define('there', { queue: 'mail' }, () => { ran.push('there') })
  await app.ready()
  await background.add('here')
  await background.add('there')
  await background.add(() => { ran.push('function') }, { queue: 'mail' })
  await background.onIdle()
  t.strictSame(ran.toSorted(), ['function', 'here', 'there'])
  t.strictSame(store.calls, ['enqueue there', 'stored', 'settle there completed'])
  t.match(await background.counts(), { default: { completed: 1 }, mail: { completed: 2 } })
})

t.test('jobs are read, cancelled, listed, retried and removed wherever they are', async (t) => {
  const { app, background } = await mixed(t)
  for (const [name, queue] of [['here', 'default'], ['there', 'mail']] as const) {
    background.define(name, { queue, attempts: 1 }, () => { throw new Error('broken') })
  }
  await app.ready()
  const later = [await background.add('here', null, { delay: 50 }), await background.add('there', null, { delay: 50 })]
  for (const { id } of later) {
    t.equal((await background.get(id))?.state, 'delayed')
    t.equal(await background.cancel(id), 'cancelled')
    t.equal(await background.cancel(id), 'final')
  }
  t.equal(await background.cancel('01900000-0000-7000-8000-000000000000'), undefined)
  const jobs = await background.addBulk([{ name: 'here' }, { name: 'there' }, { name: 'here' }])
  for (const job of jobs) await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED' })
  const { deadLetters } = background
  t.strictSame((await deadLetters.list()).jobs.map(({ id }) => id), jobs.map(({ id }) => id))
  t.strictSame((await deadLetters.list({ limit: 2 })).next, jobs[1]?.id)
  t.strictSame(await deadLetters.retry({}), { matched: 3, done: 3 })
  await background.onIdle()
  t.strictSame(await deadLetters.remove({}), { matched: 3, done: 3 })
  t.strictSame((await deadLetters.list()).jobs, [])
})

t.test('a bulk over several backends is stored by all of them or by none', async (t) => {
  const { app, background, store } = await mixed(t)
  const ran: string[] = []
  for (const [name, queue] of [['here', 'default'], ['there', 'mail']] as const) background.define(name, { queue }, () => { ran.push(name) })
  await app.ready()
  store.failure = new Error('down')
  await t.rejects(background.addBulk([{ name: 'here' }, { name: 'there' }]), { code: 'FST_BG_STORE_UNAVAILABLE' })
  await background.onIdle()
  t.strictSame(ran, [])
  t.match((await background.counts())['default'], { pending: 0, waiting: 0, cancelled: 0 })
  store.failure = undefined
  await background.addBulk([{ name: 'here' }, { name: 'there' }])
  await background.onIdle()
  t.strictSame(ran.toSorted(), ['here', 'there'])
})

t.test('functions and tasks of one queue never run on more than its slots, and neither starves the other', async (t) => {
  const { app, background } = await mixed(t)
  let alive = 0
  let most = 0
  const ran: string[] = []
  const body = (name: string) => async (): Promise<void> => {
    most = Math.max(most, ++alive)
    await new Promise((resolve) => { setImmediate(resolve) })
    alive--
    ran.push(name)
  }
  background.define('task', { queue: 'mail' }, body('task'))
  await app.ready()
  for (let n = 0; n < 20; n++) await background.add(body('function'), { queue: 'mail' })
  await background.addBulk(Array.from({ length: 20 }, () => ({ name: 'task' })))
  await background.onIdle()
  t.equal(most, 2)
  t.equal(ran.length, 40)
  t.ok(ran.indexOf('task') < 30 && ran.lastIndexOf('function') > 5, ran.join(' '))
})

t.test('a lane gives each backend what the other leaves, and half in any case', async (t) => {
  const said: Record<string, number> = {}
  const fake = (name: string, durable: boolean): Backend => ({ name, durable, want: (_queue: string, n: number) => { said[name] = n } }) as unknown as Backend
  const [a, b] = [fake('a', false), fake('b', true)]
  const lane = new Lane('q', [a, b])
  lane.want(5)
  t.strictSame(said, { a: 5, b: 5 })
  lane.count(a, 5)
  lane.share()
  t.strictSame(said, { a: 5, b: 3 })
  lane.count(b, 3)
  lane.share()
  t.strictSame(said, { a: 3, b: 3 })
  lane.want(1)
  t.strictSame(said, { a: 1, b: 1 })
  lane.want(0)
  t.strictSame(said, { a: 0, b: 0 })
  lane.want(4)
  lane.retire()
  t.equal(said['b'], 0)
})

t.test('a shutdown gives durable jobs back, uncharged, and cancels and names those in memory', async (t) => {
  const left: string[] = []
  const { app, background, clock, lines, store } = await mixed(t, { onUnfinished: (jobs) => { left.push(...jobs.map(({ name }) => name)) } })
  const started = deferred()
  const forever = new Promise(() => {})
  background.define('there', { queue: 'mail' }, async (_payload, { signal }) => {
    started.resolve()
    await new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error) }) })
  })
  await app.ready()
  await background.addBulk(Array.from({ length: 3 }, () => ({ name: 'there' })))
  const inline = await background.add(async function inMemory () { await forever }, { queue: 'mail' })
  await started.promise
  await until(async () => (await background.get(inline.id))?.state === 'active')
  await closeInTime(app, clock)
  t.strictSame(left, ['inMemory'])
  t.equal(store.calls.filter((call) => call === 'settle there released').length, 2)
  t.equal(store.calls.at(-1), 'close')
  t.equal(lines.filter(({ msg }) => msg === 'job given back').length, 2)
})

t.test('a shutdown waits for what runs, not for what a durable backend still has waiting', async (t) => {
  const { app, background, clock, store } = await mixed(t)
  const go = deferred()
  let started = 0
  background.define('there', { queue: 'mail' }, async () => {
    started++
    await go.promise
  })
  await app.ready()
  await background.addBulk(Array.from({ length: 3 }, () => ({ name: 'there' })))
  await until(() => started === 2)
  const before = clock.monotonic()
  const closing = app.close()
  go.resolve()
  await closing
  t.equal(clock.monotonic(), before, 'no time had to pass')
  t.equal(started, 2)
  t.strictSame(store.calls.slice(-3), ['settle there completed', 'settle there completed', 'close'])
})

import { test } from 'tap'
import { closeInTime, deferred, record, setup, until } from '../support/harness.ts'

test('each queue has its own concurrency, and an unset one takes the plugin\'s', async (t) => {
  const { app, background } = await setup(t, { concurrency: 3, queues: { mail: { concurrency: 1 }, slow: {} } })
  const gate = deferred()
  const alive = { default: 0, mail: 0, slow: 0 }
  await app.ready()
  for (const queue of ['default', 'mail', 'slow'] as const) {
    for (let n = 0; n < 5; n++) await background.add(async () => { alive[queue]++; await gate.promise }, { queue })
  }
  await until(() => alive.slow === 3)
  t.same(alive, { default: 3, mail: 1, slow: 3 })
  const counts = await background.counts()
  t.match(counts, { default: { active: 3, waiting: 2, concurrency: 3 }, mail: { active: 1, waiting: 4, concurrency: 1 }, slow: { active: 3, concurrency: 3 } })
  gate.resolve()
  await background.onIdle()
})

test('settings of the default queue can be given by its name', async (t) => {
  const { app, background } = await setup(t, { concurrency: 3, queues: { default: { concurrency: 7 } } })
  await app.ready()
  t.equal((await background.counts()).default?.concurrency, 7)
})

test('a queue that nobody named is an error: in defaults, in define and at the call', async (t) => {
  await t.rejects(setup(t, { defaults: { queue: 'mial' } }), { code: 'FST_BG_UNKNOWN_QUEUE' })
  const defining = await setup(t)
  t.throws(() => defining.background.define('x', { queue: 'mial' }, () => {}), { code: 'FST_BG_UNKNOWN_QUEUE', message: /"mial".*default/ })
  const { app, background } = await setup(t)
  await app.ready()
  await t.rejects(background.add(() => {}, { queue: 'mial' }), { code: 'FST_BG_UNKNOWN_QUEUE', statusCode: 500 })
  await t.rejects(background.pause('mial'), { code: 'FST_BG_UNKNOWN_QUEUE' })
})

test('a wrong setting of a queue is refused by its path', async (t) => {
  await t.rejects(setup(t, { queues: { mail: { concurrency: 0 } } }), { code: 'FST_BG_BAD_OPTION', message: /options\.queues\.mail\.concurrency/ })
  await t.rejects(setup(t, { queues: { mail: { limiter: { max: 1 } as never } } }), { code: 'FST_BG_BAD_OPTION', message: /limiter\.duration/ })
  await t.rejects(setup(t, { queues: { mail: { limit: 1 } as never } }), { code: 'FST_BG_UNKNOWN_OPTION', message: /"limit"/ })
})

test('define with concurrency gives the task a private queue under its name', async (t) => {
  const { app, background } = await setup(t)
  const gate = deferred()
  let alive = 0
  const resize = background.define('resize', { concurrency: 2 }, async () => { alive++; await gate.promise })
  await app.ready()
  for (let n = 0; n < 4; n++) await background.add(resize)
  await until(() => alive === 2)
  t.match(await background.counts(), { resize: { active: 2, waiting: 2, concurrency: 2 }, default: { active: 0 } })
  gate.resolve()
  await background.onIdle()
})

test('a private queue needs a free name and no other queue', async (t) => {
  const { background } = await setup(t, { queues: { mail: {} } })
  t.throws(() => background.define('mail', { concurrency: 2 }, () => {}), { code: 'FST_BG_BAD_OPTION', message: /"mail"/ })
  t.throws(() => background.define('x', { concurrency: 2, queue: 'mail' }, () => {}), { code: 'FST_BG_BAD_OPTION', message: /either/ })
  t.throws(() => background.define('y', { concurrency: 0 }, () => {}), { code: 'FST_BG_BAD_OPTION' })
})

test('one queue can be paused and resumed without the others', async (t) => {
  const { app, background } = await setup(t, { queues: { mail: {} } })
  await app.ready()
  await background.pause('mail')
  const held = await background.add(() => {}, { queue: 'mail' })
  const free = await background.add(() => {})
  await free.finished()
  t.equal((await record(background, held.id)).state, 'waiting')
  t.match(await background.counts(), { mail: { paused: true }, default: { paused: false } })
  await background.resume('mail')
  await held.finished()
  t.match(await background.counts(), { mail: { paused: false, completed: 1 } })
})

test('the room of one queue does not fill the other', async (t) => {
  const { app, background } = await setup(t, { maxQueueSize: 1, queues: { mail: {} } })
  await app.ready()
  await background.pause()
  await background.add(() => {})
  await t.rejects(background.add(() => {}), { code: 'FST_BG_QUEUE_FULL' })
  await background.add(() => {}, { queue: 'mail' })
  const health = await app.inject('/health/jobs')
  t.match(health.json(), { status: 'overloaded', queues: { default: { waiting: 1 }, mail: { waiting: 1 } } })
  await background.resume()
})

test('a limiter starts at most max jobs in any window of its duration', async (t) => {
  const { app, background, clock } = await setup(t, { concurrency: 50, queues: { api: { limiter: { max: 3, duration: 1_000 } } } })
  await app.ready()
  const starts: number[] = []
  const add = () => background.add(() => { starts.push(clock.monotonic()) }, { queue: 'api' })
  await add()
  await clock.advance(700)
  for (let n = 0; n < 9; n++) await add()
  for (let n = 0; n < 40; n++) await clock.advance(100)
  t.equal(starts.length, 10)
  for (let n = 3; n < starts.length; n++) {
    const window = (starts[n] as number) - (starts[n - 3] as number)
    t.ok(window >= 1_000, `four starts take at least the duration: ${window} ms`)
  }
  t.same(starts.map((at) => at - (starts[0] as number)), [0, 700, 700, 1_000, 1_700, 1_700, 2_000, 2_700, 2_700, 3_000], 'and no longer')
})

test('a job that only the limiter holds back is shown as delayed, with the instant of its turn', async (t) => {
  const { app, background, clock } = await setup(t, { queues: { api: { limiter: { max: 1, duration: 60_000 } } } })
  await app.ready()
  await (await background.add(() => {}, { queue: 'api' })).finished()
  const start = clock.now()
  const second = await background.add(() => {}, { queue: 'api' })
  t.match(await record(background, second.id), { state: 'delayed', delayReason: 'rate-limit', retryAt: new Date(start + 60_000).toISOString() })
  t.match(await background.counts(), { api: { waiting: 0, delayed: 1 } })
  t.equal((await app.inject(second.statusUrl as string)).headers['retry-after'], '60')
  const idle = background.onIdle()
  await clock.advance(60_000)
  await idle
  t.equal((await record(background, second.id)).state, 'completed')
})

test('a limited job can be cancelled, and takes no start with it', async (t) => {
  const { app, background, clock } = await setup(t, { queues: { api: { limiter: { max: 1, duration: 1_000 } } } })
  await app.ready()
  const ran: string[] = []
  await background.add(() => { ran.push('first') }, { queue: 'api' })
  const second = await background.add(() => { ran.push('second') }, { queue: 'api' })
  await background.add(() => { ran.push('third') }, { queue: 'api' })
  await clock.settle()
  t.equal(await background.cancel(second.id), 'cancelled')
  await clock.advance(1_000)
  t.same(ran, ['first', 'third'])
})

test('a wall clock that goes back does not stall a limiter', async (t) => {
  const { app, background, clock } = await setup(t, { queues: { api: { limiter: { max: 1, duration: 1_000 } } } })
  await app.ready()
  let ran = 0
  for (let n = 0; n < 2; n++) await background.add(() => { ran++ }, { queue: 'api' })
  await clock.settle()
  clock.jump(-3_600_000)
  await clock.advance(1_000)
  t.equal(ran, 2)
})

test('a shutdown still runs what a limiter lets through in time', async (t) => {
  const { app, background, clock } = await setup(t, { drainTimeout: 8_000, queues: { api: { limiter: { max: 1, duration: 1_000 } } } })
  await app.ready()
  let ran = 0
  for (let n = 0; n < 4; n++) await background.add(() => { ran++ }, { queue: 'api' })
  await closeInTime(app, clock)
  t.equal(ran, 4)
})

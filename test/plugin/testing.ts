import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { backgroundTasks, UnrecoverableError, type Backend, type BackgroundTasksOptions } from '../../lib/index.ts'
import { inline, manual, TestClock } from '../../lib/testing/index.ts'
import { deferred, until } from '../support/harness.ts'

const DAY = 86_400_000

async function appOn (t: Test, backend: Backend, define: (app: FastifyInstance) => unknown, options: BackgroundTasksOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks, { ...options, backend })
  await define(app)
  await app.ready()
  return app
}

/** Each runs and writes itself down. */
function mails (sent: unknown[]): (app: FastifyInstance) => void {
  return (app) => {
    app.background.define('mail', (payload: unknown) => { sent.push(payload) })
    app.post('/', async (_request, reply) => {
      reply.background('mail', { to: 'ada', copies: 2 })
      return { ok: true }
    })
  }
}

t.test('manual: a request leaves its job in the queue, and the test runs it', async (t) => {
  const jobs = manual()
  const sent: unknown[] = []
  const app = await appOn(t, jobs, mails(sent))
  await app.inject({ method: 'POST', url: '/' })
  const [job, ...others] = await jobs.enqueued('mail')
  t.match(job, { name: 'mail', state: 'waiting', payload: { to: 'ada' } })
  t.equal(others.length, 0)
  t.same(sent, [])
  t.match(await jobs.run(job?.id ?? ''), { state: 'completed', attemptsMade: 1 })
  t.same(sent, [{ to: 'ada', copies: 2 }])
  t.same(await jobs.enqueued(), [])
})

t.test('enqueued: by task, and by a part of the payload', async (t) => {
  const jobs = manual()
  const app = await appOn(t, jobs, (app) => { for (const name of ['a', 'b']) app.background.define(name, () => {}) })
  await app.background.add('a', { to: 'ada', tags: ['x', 'y'] })
  await app.background.add('b', { to: 'ada' }, { delay: 1_000 })
  t.same((await jobs.enqueued()).map(({ name, state }) => [name, state]), [['a', 'waiting'], ['b', 'delayed']])
  t.equal((await jobs.enqueued('a', { to: 'ada' })).length, 1)
  t.equal((await jobs.enqueued('a', { tags: ['x', 'y'] })).length, 1)
  for (const match of [{ to: 'bob' }, { tags: ['x'] }, { tags: { 0: 'x', 1: 'y' } }, { to: { ada: 1 } }, { gone: undefined }, 'ada', null]) {
    t.same(await jobs.enqueued('a', match), [], JSON.stringify(match))
  }
})

t.test('run by name: the payload is validated, the job is made and run, what it throws is in the record', async (t) => {
  const jobs = manual()
  await appOn(t, jobs, (app) => app.background.define('half', {
    schema: { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } }
  }, ({ n }: { n: number }) => {
    if (n % 2 === 1) throw new Error('odd')
    return n / 2
  }))
  t.match(await jobs.run('half', { n: '4' }), { state: 'completed', result: 2 })
  t.match(await jobs.run('half', { n: 5 }), { state: 'delayed', delayReason: 'retry', error: { message: 'odd' }, attemptsMade: 1 })
  await t.rejects(jobs.run('half', { n: 'x' }), { code: 'FST_BG_BAD_PAYLOAD' })
  await t.rejects(jobs.run('hlaf', { n: 4 }), { code: 'FST_BG_UNKNOWN_TASK' })
})

t.test('run by id: a delayed job runs at once, one that ended not again', async (t) => {
  const jobs = manual()
  const app = await appOn(t, jobs, (app) => app.background.define('later', () => 'done'))
  const { id } = await app.background.add('later', null, { delay: DAY })
  t.match(await jobs.run(id), { state: 'completed', result: 'done' })
  await t.rejects(jobs.run(id), { code: 'FST_BG_BAD_OPTION', message: /one that is completed/ })
  await jobs.clock.advance(2 * DAY)
  t.same(await jobs.runAll(), [], 'its delay, over by now, starts nothing')
})

t.test('runAll: by priority, with what the jobs add, without what is delayed or paused', async (t) => {
  const jobs = manual()
  const order: unknown[] = []
  const app = await appOn(t, jobs, (app) => {
    app.background.define('note', async (payload: unknown) => {
      order.push(payload)
      if (payload === 'first') await app.background.add('note', 'added')
    })
  }, { queues: { other: {} } })
  await app.background.add('note', 'second')
  await app.background.add('note', 'first', { priority: 1 })
  await app.background.add('note', 'tomorrow', { delay: DAY })
  await app.background.add('note', 'elsewhere', { queue: 'other' })
  await app.background.pause('other')
  t.same((await jobs.runAll()).map(({ payload }) => payload), ['first', 'second', 'added'])
  t.same(order, ['first', 'second', 'added'])
  await app.background.resume('other')
  await jobs.clock.advance(DAY)
  t.same((await jobs.enqueued()).map(({ payload, state }) => [payload, state]), [['tomorrow', 'waiting'], ['elsewhere', 'waiting']])
})

t.test('runAll: a job that waits for another one gets it', async (t) => {
  const jobs = manual()
  const app = await appOn(t, jobs, (app) => {
    app.background.define('inner', () => 1)
    app.background.define('outer', async () => (await app.background.add('inner')).finished())
  })
  const outer = await app.background.add('outer')
  await jobs.runAll()
  t.equal(await outer.finished(), 1)
})

t.test('runAll waits for work that takes real time, and takes jobs that come meanwhile', async (t) => {
  const jobs = manual()
  const sent: unknown[] = []
  const app = await appOn(t, jobs, (app) => {
    mails(sent)(app)
    app.background.define('by-http', async () => { await app.inject({ method: 'POST', url: '/' }) })
  })
  await app.background.add('by-http')
  const [one, two] = await Promise.all([jobs.runAll(), jobs.runAll()])
  t.same(one.map(({ name }) => name), ['by-http', 'mail'])
  t.same(two, one)
  t.equal(sent.length, 1)
})

t.test('waitFor: before, while and after it happens, by task and by predicate', async (t) => {
  const jobs = manual()
  const app = await appOn(t, jobs, (app) => app.background.define('mail', (payload: unknown) => payload), { retention: { completed: { count: 0 } } })
  const before = jobs.waitFor('mail', 'completed')
  const bob = jobs.waitFor(({ payload }) => payload === 'bob', 'completed')
  await app.background.add('mail', 'ada')
  await jobs.runAll()
  t.match(await before, { state: 'completed', result: 'ada' })
  t.match(await jobs.waitFor('mail', 'completed'), { result: 'ada' }, 'kept by nobody else any more')
  t.match(await jobs.waitFor('mail', 'active'), { attemptsMade: 1 }, 'also what it has left')
  t.match(await jobs.run('mail', 'bob'), { result: 'bob' })
  t.match(await bob, { result: 'bob' })
  const fails = jobs.waitFor(() => { throw new Error('in the test') }, 'completed')
  await Promise.all([t.rejects(fails, { message: 'in the test' }), jobs.run('mail', 'eve')])
})

t.test('clock.advance: thirty days of retries, and no timer of Node is set', async (t) => {
  const jobs = manual()
  const retried: number[] = []
  const timers = (): number => process.getActiveResourcesInfo().filter((type) => type === 'Timeout').length
  const before = timers()
  let more = 0
  const app = await appOn(t, jobs, (app) => app.background.define('sync', {
    attempts: 800, backoff: { type: 'exponential', delay: 1_000, maxDelay: 3_600_000, jitter: 0 }
  }, (_payload, { job }) => {
    retried.push(job.attempt)
    more += timers() - before
    throw new Error('still away')
  }))
  const { id } = await app.background.add('sync')
  const began = performance.now()
  for (const end = jobs.clock.now() + 30 * DAY; jobs.clock.now() < end;) {
    const { retryAt } = await jobs.run(id)
    await jobs.clock.advance(Date.parse(retryAt ?? '') - jobs.clock.now())
  }
  t.comment(`${retried.length} attempts, ${Math.round(performance.now() - began)} ms`)
  t.ok(retried.length > 720)
  t.equal(more, 0)
  t.match(await app.background.get(id), { state: 'waiting', attemptsMade: retried.length })
})

t.test('clock.advance: cron', async (t) => {
  const jobs = inline({ now: '2026-03-28T12:00:00Z' })
  const ran: string[] = []
  const app = await appOn(t, jobs, (app) => app.background.define('report', (_payload, { job }) => { ran.push(job.createdAt) }))
  await app.background.schedule('monthly', { pattern: '0 3 * * *', tz: 'Europe/Berlin' }, 'report')
  const began = performance.now()
  await jobs.clock.advance(30 * DAY)
  t.comment(`${Math.round(performance.now() - began)} ms`)
  t.equal(ran.length, 30)
  t.same(ran.slice(0, 2), ['2026-03-29T01:00:00.000Z', '2026-03-30T01:00:00.000Z'], 'at three, whatever becomes of the clocks')
})

t.test('clock.advance: timeouts and times to live are over when the test says so', async (t) => {
  const jobs = manual({ now: '2026-03-01T12:00:00Z' })
  const app = await appOn(t, jobs, (app) => {
    app.background.define('hangs', { attempts: 1, timeout: 30_000 }, (_payload, { signal }) => new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => { reject(signal.reason as Error) })
    }))
    app.background.define('late', { ttl: 60_000 }, () => {})
  })
  const { id } = await app.background.add('late')
  const running = jobs.run('hangs')
  await jobs.clock.advance(29_999)
  t.match(await jobs.waitFor('hangs', 'active'), { state: 'active', startedAt: '2026-03-01T12:00:00.000Z' })
  await jobs.clock.advance(1)
  t.match(await running, { state: 'failed', failure: 'timeout', finishedAt: '2026-03-01T12:00:30.000Z' })
  await jobs.clock.advance(30_000)
  t.match(await app.background.get(id), { state: 'failed', failure: 'expired' })
})

t.test('what waits, and what runs and listens to its signal, does not hold up a close', async (t) => {
  const jobs = manual()
  let unfinished: string[] = []
  const end = deferred()
  const app = await appOn(t, jobs, (app) => {
    app.background.define('never', () => {})
    app.background.define('ignores', () => end.promise)
  }, { onUnfinished: (left) => { unfinished = left.map(({ name, state }) => `${name} ${state}`) } })
  await app.background.add('never')
  const running = jobs.run('ignores')
  await jobs.waitFor('ignores', 'active')
  const closing = app.close()
  await new Promise((resolve) => { setImmediate(resolve) })
  end.resolve()
  await closing
  t.match(await running, { state: 'completed' })
  t.same(unfinished, ['never cancelled'])
})

t.test('an application that never got ready closes', async (t) => {
  const app = Fastify()
  await app.register(backgroundTasks, { backend: manual() })
  await t.resolves(app.close())
})

t.test('inline: jobs run at once, over delays, retries and rate limits, to their end', async (t) => {
  const jobs = inline()
  const seen: unknown[] = []
  const app = await appOn(t, jobs, (app) => app.background.define('mail', { queue: 'mail', attempts: 4 }, (payload: unknown, { job }) => {
    seen.push([payload, job.attempt])
    if (job.attempt < 3) throw new Error('not yet')
    return 'sent'
  }), { queues: { mail: { limiter: { max: 1, duration: DAY } } } })
  const job = await app.background.add('mail', 'a', { delay: DAY })
  t.equal(await job.finished(), 'sent')
  t.match(await jobs.run('mail', 'b'), { state: 'completed', result: 'sent' })
  t.same(seen, [['a', 1], ['a', 2], ['a', 3], ['b', 1], ['b', 2], ['b', 3]])
  t.ok(jobs.clock.now() >= Date.UTC(2026, 0, 6), 'five days passed')
  await t.resolves(app.background.onIdle())
  t.same(await jobs.enqueued(), [])
})

t.test('inline: after a request, onIdle rejects with what failed, once', async (t) => {
  const jobs = inline()
  const app = await appOn(t, jobs, (app) => {
    app.background.define('fails', () => { throw new UnrecoverableError('no such partner') })
    app.post('/:n', async (request, reply) => {
      for (let n = Number((request.params as { n: string }).n); n > 0; n--) reply.background('fails')
      return 'ok'
    })
  })
  await app.inject({ method: 'POST', url: '/1' })
  await t.rejects(app.background.onIdle(), { code: 'FST_BG_JOB_FAILED', failure: 'unrecoverable', cause: { message: 'no such partner' } })
  await t.resolves(app.background.onIdle())
  await app.inject({ method: 'POST', url: '/2' })
  await t.rejects(app.background.onIdle(), { name: 'AggregateError', message: '2 jobs failed' })
})

t.test('inline: what expired is an error too, also beside another backend', async (t) => {
  const jobs = inline()
  const app = await appOn(t, jobs, (app) => app.background.define('late', { ttl: 1_000 }, () => {}), { queues: { other: { backend: manual() } } })
  await app.background.pause()
  await app.background.add('late')
  await jobs.clock.advance(1_000)
  await app.background.resume()
  await t.rejects(app.background.onIdle(), { code: 'FST_BG_JOB_FAILED', failure: 'expired' })
})

t.test('checkIdempotent finds the call after which a repetition does harm', async (t) => {
  const jobs = manual()
  class Bank {
    readonly done: Array<{ key: string, amount: number }> = []
    async charge (amount: number, key: string): Promise<void> {
      if (!this.done.some((charge) => charge.key === key)) this.done.push({ key, amount })
    }

    log (text: string): void { this.done.push({ key: text, amount: 0 }) }
    read (): number { return this.done.length }
  }
  const bank = new Bank()
  await appOn(t, jobs, (app) => {
    app.background.define('careful', { attempts: 1 }, async (amount: number, { job }) => {
      await bank.charge(amount, job.id)
      await bank.charge(amount, `${job.id}, fee`)
      return bank.read()
    })
    app.background.define('careless', async (amount: number, { job }) => {
      await bank.charge(amount, job.id)
      await bank.charge(1, `fee ${bank.read()}`)
      bank.log('told')
    })
    app.background.define('swallows', async (amount: number) => {
      await bank.charge(amount, 'same').catch(() => {})
      await bank.charge(amount, 'other').catch(() => {})
    })
    app.background.define('fails', () => { throw new Error('always') })
  })
  const fake = { methods: bank, effects: () => bank.done, reset: () => { bank.done.length = 0 } }
  t.same(await jobs.checkIdempotent('careful', 5, fake), [])
  t.same(await jobs.checkIdempotent('swallows', 5, fake), [])
  const expected = [{ key: 'id of the job', amount: 5 }, { key: 'fee 1', amount: 1 }, { key: 'told', amount: 0 }]
  const [first, second, third] = expected
  t.same(await jobs.checkIdempotent('careless', 5, fake), [
    { after: 'charge, call 2', expected, effects: [first, second, { key: 'fee 2', amount: 1 }, third] },
    { after: 'log', expected, effects: [first, second, third, { key: 'fee 3', amount: 1 }, third] }
  ])
  t.strictSame(Object.getOwnPropertyNames(bank), ['done'], 'nothing is left on the fake')
  await t.rejects(jobs.checkIdempotent('fails', 5, fake), { code: 'FST_BG_BAD_OPTION', message: /fails: always/ })
})

t.test('checkIdempotent: a task that fails when it is run again is a fault', async (t) => {
  const jobs = manual()
  const made: string[] = []
  const files = { async make (name: string) { if (made.includes(name)) throw new Error('exists'); made.push(name) } }
  await appOn(t, jobs, (app) => app.background.define('make', async (name: string) => { await files.make(name) }))
  t.match(await jobs.checkIdempotent('make', 'a', { methods: files, effects: () => made, reset: () => { made.length = 0 } }), [{ after: 'make', error: 'exists' }])
})

t.test('options are checked, a backend belongs to one application', async (t) => {
  t.throws(() => manual({ nwo: 1 } as object), { code: 'FST_BG_UNKNOWN_OPTION' })
  t.throws(() => inline({ now: 'soon' }), { code: 'FST_BG_BAD_OPTION', message: /inline\(options\).now/ })
  const jobs = manual()
  await t.rejects(jobs.run('any'), { code: 'FST_BG_NOT_READY' })
  await appOn(t, jobs, () => {})
  await t.rejects(appOn(t, jobs, () => {}), { code: 'FST_BG_BAD_OPTION' })
})

t.test('the clock: timers in their order, the wall clock jumps alone', async (t) => {
  const clock = new TestClock(0)
  const fired: number[] = []
  for (const ms of [30, 10, 20]) clock.setTimer(() => { fired.push(ms, clock.now()) }, ms)
  clock.jump(-1_000)
  await Promise.all([clock.advance(15), clock.advance(20)])
  t.same(fired, [10, -990, 20, -980])
  t.equal(clock.pendingTimers, 1)
  t.equal(clock.monotonic(), 1_020)
  await until(() => clock.random() === 0.5)
})

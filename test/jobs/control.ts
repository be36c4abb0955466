import t from 'tap'
import { memory, type JobHandle, type JobRecord } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { closeInTime, deferred, jobsKept, record, setup, type Harness, type HarnessOptions } from '../support/harness.ts'

const nothing = () => {}
const unknownId = '01890000-0000-7000-8000-000000000000'
type TestLike = Parameters<typeof setup>[0]

/** Tasks: `task` succeeds, `bad` is dead after one attempt, as long as `broken` holds. */
async function ready (t: TestLike, options?: HarnessOptions): Promise<Harness & { world: { broken: boolean } }> {
  const harness = await setup(t, options)
  const world = { broken: true }
  harness.app.background.define('task', (payload) => payload)
  for (const name of ['bad', 'worse']) {
    harness.app.background.define(name, { attempts: 1 }, (payload) => {
      if (world.broken) throw new Error(`${name} ${JSON.stringify(payload)}`)
      return 'repaired'
    })
  }
  await harness.app.ready()
  return Object.assign(harness, { world })
}

/** A job that is staged in a request whose response is open until `answer` is called. */
async function stage ({ app }: Harness, work: () => unknown = nothing): Promise<{ job: JobHandle, answer: () => Promise<void> }> {
  const open = deferred()
  const staged = deferred<JobHandle>()
  staging = async (background) => { staged.resolve(background(work)); await open.promise }
  const response = app.inject('/stage')
  return { job: await staged.promise, answer: async () => { open.resolve(); await response } }
}
let staging: (background: (work: () => unknown) => JobHandle) => Promise<void>

async function withStaging (t: TestLike, options?: HarnessOptions): Promise<Harness> {
  const harness = await setup(t, options)
  harness.app.get('/stage', async (_request, reply) => {
    await staging((work) => reply.background(work))
    return 'ok'
  })
  await harness.app.ready()
  return harness
}

t.test('get', async (t) => {
  t.test('gives the record of a job, with its payload', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    const job = await app.background.add('task', { to: 'x' }, { attempts: 2, priority: 3 })
    t.same(await background.get(job.id), {
      id: job.id, name: 'task', queue: 'default', state: 'waiting', progress: null, attemptsMade: 0, attempts: 2, priority: 3,
      createdAt: '2026-01-01T00:00:00.000Z', startedAt: null, finishedAt: null, requestId: null, payload: { to: 'x' }
    })
  })

  t.test('knows nothing of ids that are unknown or malformed', async (t) => {
    const { background } = await ready(t)
    for (const id of [unknownId, '', 'x', '../..', '__proto__', unknownId.toUpperCase(), null, undefined, 5, {}]) {
      t.equal(await background.get(id as string), undefined)
    }
  })

  t.test('shows what an attempt left: times, the error, the history', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('bad', 1, { attempts: 2, backoff: 1_000 })
    await clock.advance(1_000)
    t.match(await background.get(job.id), {
      state: 'failed', failure: 'exhausted', attemptsMade: 2, error: { name: 'Error', message: 'bad 1', code: null },
      createdAt: '2026-01-01T00:00:00.000Z', startedAt: '2026-01-01T00:00:01.000Z', finishedAt: '2026-01-01T00:00:01.000Z',
      history: [{ attempt: 1, endedAt: '2026-01-01T00:00:00.000Z' }, { attempt: 2, endedAt: '2026-01-01T00:00:01.000Z' }]
    })
  })

  t.test('gives a copy', async (t) => {
    const { app, background } = await ready(t)
    const job = await app.background.add('task', { list: [1] })
    await job.finished()
    const seen = await record(background, job.id)
    ;(seen.result as { list: number[] }).list.push(2)
    seen.state = 'failed'
    t.match(await background.get(job.id), { state: 'completed', result: { list: [1] } })
  })
})

t.test('counts', async (t) => {
  t.test('shows each queue with its states, its concurrency and whether it is paused', async (t) => {
    const { background } = await ready(t, { concurrency: 3 })
    t.strictSame(await background.counts(), {
      default: { pending: 0, waiting: 0, delayed: 0, active: 0, 'waiting-children': 0, completed: 0, failed: 0, cancelled: 0, concurrency: 3, paused: false }
    })
  })

  t.test('counts a job in exactly one state', async (t) => {
    const harness = await withStaging(t, { concurrency: 1 })
    const { background, clock } = harness
    const end = deferred()
    await background.add(nothing)
    await background.add(() => { throw new Error('no') })
    await background.cancel((await background.add(nothing, { delay: 1 })).id)
    await clock.settle()
    await background.add(() => end.promise)
    await clock.settle()
    await background.add(nothing)
    await background.add(nothing, { delay: 1_000 })
    const { answer } = await stage(harness)
    t.match(await background.counts(), { default: { pending: 1, waiting: 1, delayed: 1, active: 1, completed: 1, failed: 1, cancelled: 1 } })
    end.resolve()
    await answer()
  })
})

t.test('cancel', async (t) => {
  t.test('of a waiting job answers cancelled', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    const job = await app.background.add('task')
    t.equal(await background.cancel(job.id), 'cancelled')
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'user', attemptsMade: 0, startedAt: null })
  })

  t.test('of a delayed job answers cancelled, and it never starts', async (t) => {
    const { app, background, clock } = await ready(t)
    let runs = 0
    const job = await app.background.add(() => { runs++ }, { delay: 1_000 })
    t.equal(await background.cancel(job.id), 'cancelled')
    await clock.advance(2_000)
    t.equal(runs, 0)
    const seen = await record(background, job.id)
    t.match(seen, { state: 'cancelled', reason: 'user' })
    t.notOk('runAt' in seen || 'delayReason' in seen)
  })

  t.test('of a job that waits for a retry answers cancelled', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('bad', null, { attempts: 2, backoff: 1_000 })
    await clock.settle()
    t.equal(await background.cancel(job.id), 'cancelled')
    await clock.advance(2_000)
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'user', attemptsMade: 1 })
  })

  t.test('of a pending job answers cancelled, and the end of its response changes nothing', async (t) => {
    const harness = await withStaging(t)
    let runs = 0
    const { job, answer } = await stage(harness, () => { runs++ })
    t.equal(await harness.background.cancel(job.id), 'cancelled')
    await answer()
    await harness.clock.settle()
    t.equal(runs, 0)
    t.match(await harness.background.get(job.id), { state: 'cancelled', reason: 'user' })
  })

  t.test('of an active job answers cancelling; its signal aborts, and it ends when its body settles', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    let signal: AbortSignal | undefined
    const job = await app.background.add((context) => { signal = context.signal; return end.promise }, { attempts: 3 })
    await clock.settle()
    t.equal(await background.cancel(job.id, 'the customer called'), 'cancelling')
    t.match(signal?.reason, { name: 'AbortError', reason: 'cancel', message: 'the customer called' })
    t.match(await background.get(job.id), { state: 'active' })
    t.equal(await background.cancel(job.id), 'cancelling')
    end.resolve()
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_CANCELLED' })
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'user' })
  })

  t.test('of an active job wins over what its body throws then', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add(({ signal }) => new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => { reject(signal.reason as Error) })
    }), { attempts: 3, backoff: 0 })
    await clock.settle()
    await background.cancel(job.id)
    await clock.settle()
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'user', attemptsMade: 1 })
  })

  t.test('of an overdue job that was told cancelling is not retried', async (t) => {
    const { app, background, clock } = await ready(t)
    const end = deferred()
    let runs = 0
    const job = await app.background.add(() => { runs++; return end.promise }, { attempts: 3, timeout: 100, backoff: 0 })
    await clock.advance(100)
    t.equal(await background.cancel(job.id), 'cancelling')
    end.resolve()
    await clock.settle()
    t.match(await background.get(job.id), { state: 'cancelled', reason: 'user' })
    t.equal(runs, 1)
  })

  t.test('of a job that has ended answers final', async (t) => {
    const { app, background, clock } = await ready(t)
    const jobs = [await app.background.add('task'), await app.background.add('bad')]
    await clock.settle()
    for (const { id } of jobs) {
      const before = await background.get(id)
      t.equal(await background.cancel(id), 'final')
      t.same(await background.get(id), before)
    }
  })

  t.test('of an unknown or malformed id answers undefined', async (t) => {
    const { background } = await ready(t)
    for (const id of [unknownId, 'x', '', undefined]) t.equal(await background.cancel(id as string), undefined)
  })

  t.test('frees the slot only when the body has settled', async (t) => {
    const { app, background, clock } = await ready(t, { concurrency: 1 })
    const end = deferred()
    const job = await app.background.add(() => end.promise)
    const next = await app.background.add('task')
    await clock.settle()
    await background.cancel(job.id)
    await clock.advance(10_000)
    t.equal((await record(background, next.id)).state, 'waiting')
    end.resolve()
    await next.finished()
  })

  t.test('is logged once, with its reason', async (t) => {
    const { app, background, said } = await ready(t)
    await background.pause()
    const job = await app.background.add('task')
    await background.cancel(job.id, 'the customer called')
    t.match(said('job cancelled'), [{ level: 30, jobId: job.id, task: 'task', reason: 'user', detail: 'the customer called' }])
    t.equal(said('job cancelled').length, 1)
  })
})

t.test('list, promote and remove', async (t) => {
  t.test('list gives pages of jobs in all states, in both orders', async (t) => {
    const { background, clock } = await ready(t, { queues: { mail: {} } })
    const all: string[] = []
    for (let n = 0; n < 3; n++) all.push((await background.add('task', n, n === 2 ? { delay: 1_000, queue: 'mail' } : {})).id)
    await clock.settle()
    const ids = async (query?: object): Promise<string[]> => (await background.list(query)).jobs.map(({ id }) => id)
    t.same(await ids(), all)
    t.same(await ids({ order: 'newest' }), [...all].reverse())
    t.same(await ids({ state: 'completed' }), all.slice(0, 2))
    t.same(await ids({ state: ['completed', 'delayed'], task: 'task', queue: 'mail' }), all.slice(2))
    const first = await background.list({ limit: 2 })
    t.equal(first.next, all[1])
    t.match(await background.list({ limit: 2, after: first.next as string }), { jobs: [{ id: all[2] }], next: null })
    for (const query of [{ limit: 0 }, { state: 'gone' }, { state: ['failed', 5] }, { order: 'up' }, { after: 'x' }]) await t.rejects(background.list(query as never), { code: 'FST_BG_BAD_OPTION' })
    await t.rejects(background.list({ name: 'task' } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
  })

  t.test('promote starts a delayed job now, and no other', async (t) => {
    const { background, clock } = await ready(t)
    const { id } = await background.add('task', 'x', { delay: 60_000 })
    t.equal(await background.promote(id), true)
    await clock.settle()
    t.equal((await background.get(id))?.state, 'completed')
    for (const other of [id, unknownId, 'x']) t.equal(await background.promote(other), false)
  })

  t.test('remove forgets a job that has ended, and no other', async (t) => {
    const { background, clock } = await ready(t)
    const { id: done } = await background.add('task')
    const { id: later } = await background.add('task', null, { delay: 1_000 })
    await clock.settle()
    t.equal(await background.remove(later), false)
    t.equal(await background.remove(done), true)
    t.equal(await background.get(done), undefined)
    for (const other of [done, unknownId, 'x']) t.equal(await background.remove(other), false)
  })
})

t.test('pause and resume', async (t) => {
  t.test('a paused queue starts nothing more, and what runs goes on', async (t) => {
    const { app, background, clock } = await ready(t, { concurrency: 2 })
    const end = deferred()
    const running = await app.background.add(() => end.promise)
    await clock.settle()
    await background.pause('default')
    const next = await app.background.add('task')
    await clock.settle()
    t.match(await background.counts(), { default: { active: 1, waiting: 1, paused: true } })
    end.resolve()
    await running.finished()
    await clock.settle()
    t.equal((await record(background, next.id)).state, 'waiting')
    await background.resume('default')
    await next.finished()
    t.match(await background.counts(), { default: { waiting: 0, paused: false } })
  })

  t.test('without a name all queues are meant', async (t) => {
    const { background } = await ready(t)
    await background.pause()
    t.match(await background.counts(), { default: { paused: true } })
    await background.resume()
    t.match(await background.counts(), { default: { paused: false } })
  })

  t.test('a delayed job that is due waits in a paused queue', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('task', null, { delay: 100 })
    await background.pause()
    await clock.advance(200)
    t.equal((await record(background, job.id)).state, 'waiting')
    await background.resume()
    await job.finished()
  })

  t.test('pausing twice needs one resume', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    await background.pause()
    await background.resume()
    await t.resolves((await app.background.add('task')).finished())
  })

  t.test('a queue that does not exist is an error', async (t) => {
    const { background } = await ready(t)
    for (const method of ['pause', 'resume'] as const) {
      await t.rejects(background[method]('mail'), { code: 'FST_BG_UNKNOWN_QUEUE', statusCode: 500, message: /"mail".*default/ })
      await t.rejects(background[method](5 as never), { code: 'FST_BG_UNKNOWN_QUEUE' })
    }
    t.match(await background.counts(), { default: { paused: false } })
  })
})

t.test('before ready', async (t) => {
  for (const [name, call] of Object.entries({
    get: (b) => b.get(unknownId),
    counts: (b) => b.counts(),
    cancel: (b) => b.cancel(unknownId),
    pause: (b) => b.pause(),
    onIdle: (b) => b.onIdle(),
    'deadLetters.list': (b) => b.deadLetters.list()
  } as Record<string, (background: Harness['background']) => Promise<unknown>>)) {
    t.test(`${name} answers, or says with a code that it is too early`, async (t) => {
      const { app, background } = await setup(t)
      const error = await call(background).then(() => undefined, (error: unknown) => error as { code?: string })
      if (error !== undefined) t.match(error, { code: 'FST_BG_NOT_READY' })
      await app.ready()
      if (error !== undefined) t.match(await background.counts(), { default: { paused: false } })
    })
  }
})

t.test('onIdle', async (t) => {
  t.test('resolves at once when there is nothing', async (t) => {
    const { background } = await ready(t)
    await t.resolves(background.onIdle())
  })

  t.test('waits for waiting and active jobs', async (t) => {
    const { app, background, clock } = await ready(t, { concurrency: 1 })
    const end = deferred()
    let idle = false
    await app.background.add(() => end.promise)
    await app.background.add('task')
    const waiting = background.onIdle().then(() => { idle = true })
    await clock.settle()
    t.notOk(idle)
    end.resolve()
    await waiting
    t.match(await background.counts(), { default: { completed: 2 } })
  })

  t.test('waits for pending jobs', async (t) => {
    const harness = await withStaging(t)
    const { answer } = await stage(harness)
    let idle = false
    const waiting = harness.background.onIdle().then(() => { idle = true })
    await harness.clock.settle()
    t.notOk(idle)
    await answer()
    await waiting
    t.match(await harness.background.counts(), { default: { completed: 1 } })
  })

  t.test('waits for retries', async (t) => {
    const { app, background, clock } = await ready(t)
    let idle = false
    await app.background.add('bad', null, { attempts: 2, backoff: 60_000 })
    const waiting = background.onIdle().then(() => { idle = true })
    await clock.advance(59_000)
    t.notOk(idle)
    await clock.advance(1_000)
    await waiting
    t.match(await background.counts(), { default: { failed: 1 } })
  })

  t.test('does not wait for jobs with a delay or a runAt', async (t) => {
    const { app, background, clock } = await ready(t)
    await app.background.add('task', null, { delay: 1_000 })
    await app.background.add('task', null, { runAt: clock.now() + 1_000 })
    await t.resolves(background.onIdle())
    t.match(await background.counts(), { default: { delayed: 2 } })
  })

  t.test('waits no longer when the last job is cancelled', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    const job = await app.background.add('task')
    const waiting = background.onIdle()
    await background.cancel(job.id)
    await t.resolves(waiting)
  })

  t.test('rejects after its timeout, and leaves nothing behind', async (t) => {
    const { app, background, clock } = await ready(t)
    const timers = clock.pendingTimers
    await background.pause()
    await app.background.add('task')
    const waiting = background.onIdle({ timeout: 500 })
    const rejected = t.rejects(waiting, { code: 'FST_BG_TIMEOUT', message: /onIdle.*500 ms/ })
    await clock.advance(500)
    await rejected
    t.equal(clock.pendingTimers, timers)
  })

  t.test('a timeout of 0 waits for ever', async (t) => {
    const { app, background, clock } = await ready(t)
    await background.pause()
    await app.background.add('task')
    const waiting = background.onIdle({ timeout: 0 })
    await clock.advance(1e9)
    await background.resume()
    await t.resolves(waiting)
  })

  t.test('refuses wrong options', async (t) => {
    const { background } = await ready(t)
    await t.rejects(background.onIdle({ timeuot: 5 } as never), { code: 'FST_BG_UNKNOWN_OPTION', message: /"timeuot"/ })
    await t.rejects(background.onIdle({ timeout: '5' } as never), { code: 'FST_BG_BAD_OPTION', message: /timeout: expected a number of ms/ })
    await t.resolves(background.onIdle({ timeout: undefined }))
  })
})

t.test('finished', async (t) => {
  t.test('gives the result, also when the job has ended before', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('task', { n: 1 })
    t.same(await job.finished(), { n: 1 })
    t.same(await job.finished(), { n: 1 })
    t.same(await Promise.all([job.finished(), job.finished()]), [{ n: 1 }, { n: 1 }])
  })

  t.test('throws when the job has failed, with the cause', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('bad', 'x')
    await t.rejects(job.finished(), {
      code: 'FST_BG_JOB_FAILED', statusCode: 500, failure: 'exhausted', message: new RegExp(job.id), cause: { name: 'Error', message: 'bad "x"' }
    })
  })

  t.test('waits over retries', async (t) => {
    const { app, clock, world } = await ready(t)
    const job = await app.background.add('bad', null, { attempts: 2, backoff: 1_000 })
    const end = job.finished()
    await clock.settle()
    world.broken = false
    await clock.advance(1_000)
    t.equal(await end, 'repaired')
  })

  t.test('throws when the job is cancelled', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    const job = await app.background.add('task')
    const end = job.finished()
    await background.cancel(job.id)
    await t.rejects(end, { code: 'FST_BG_JOB_CANCELLED', message: /user/ })
  })

  t.test('throws after its timeout; the job goes on', async (t) => {
    const { app, background, clock } = await ready(t)
    await background.pause()
    const job = await app.background.add('task', 'x')
    const rejected = t.rejects(job.finished({ timeout: 500 }), { code: 'FST_BG_TIMEOUT', message: new RegExp(`${job.id}.*500 ms`) })
    await clock.advance(500)
    await rejected
    await background.resume()
    t.equal(await job.finished({ timeout: 500 }), 'x')
  })

  t.test('throws the reason of its signal; the job goes on', async (t) => {
    const { app, background } = await ready(t)
    await background.pause()
    const job = await app.background.add('task', 'x')
    const controller = new AbortController()
    const end = job.finished({ signal: controller.signal })
    controller.abort(new Error('enough'))
    await t.rejects(end, { message: 'enough' })
    await t.rejects(job.finished({ signal: AbortSignal.abort(new Error('before')) }), { message: 'before' })
    await background.resume()
    t.equal(await job.finished(), 'x')
  })

  t.test('leaves no listener on its signal', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('task')
    const { signal } = new AbortController()
    let listeners = 0
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
    signal.addEventListener = (...args: Parameters<typeof add>) => { listeners++; add(...args) }
    signal.removeEventListener = (...args: Parameters<typeof remove>) => { listeners--; remove(...args) }
    await job.finished({ signal })
    t.equal(listeners, 0)
  })

  t.test('would deadlock while the response that staged the job is open', async (t) => {
    const harness = await withStaging(t)
    const { job, answer } = await stage(harness, () => 'later')
    await t.rejects(job.finished(), { code: 'FST_BG_WOULD_DEADLOCK', statusCode: 500, message: new RegExp(job.id) })
    await answer()
    await harness.clock.settle()
    t.equal(await job.finished(), 'later')
  })

  t.test('says that a job is no longer kept', async (t) => {
    const { app, background } = await ready(t, { retention: { completed: { count: 0 } } })
    const job = await app.background.add('task')
    await background.onIdle()
    await t.rejects(job.finished(), { code: 'FST_BG_JOB_NOT_FOUND', statusCode: 404 })
  })

  t.test('refuses wrong options', async (t) => {
    const { app } = await ready(t)
    const job = await app.background.add('task')
    await t.rejects(job.finished({ timeuot: 5 } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
    await t.rejects(job.finished({ timeout: -5 }), { code: 'FST_BG_BAD_OPTION' })
    await t.rejects(job.finished({ signal: {} as AbortSignal }), { code: 'FST_BG_BAD_OPTION', message: /an AbortSignal/ })
  })
})

t.test('dead letters', async (t) => {
  /** So many dead letters of `bad`, one of `worse`, and a job that is none. */
  async function withDead (t: TestLike, count = 3, options?: HarnessOptions) {
    const harness = await ready(t, options)
    const dead: JobHandle[] = []
    for (let i = 0; i < count; i++) dead.push(await harness.app.background.add('bad', { i }))
    dead.push(await harness.app.background.add('worse'))
    await harness.app.background.add('task')
    await harness.clock.settle()
    return { ...harness, dead, ids: dead.map((job) => job.id) }
  }
  const idsOf = (jobs: JobRecord[]) => jobs.map((job) => job.id)

  t.test('list gives failed jobs in the order of making, with payloads', async (t) => {
    const { background, ids } = await withDead(t)
    const { jobs, next } = await background.deadLetters.list()
    t.strictSame(idsOf(jobs), ids)
    t.equal(next, null)
    t.match(jobs[0], { state: 'failed', failure: 'exhausted', payload: { i: 0 }, error: { message: 'bad {"i":0}' } })
  })

  t.test('list takes a task', async (t) => {
    const { background, ids } = await withDead(t)
    t.strictSame(idsOf((await background.deadLetters.list({ task: 'worse' })).jobs), ids.slice(3))
    t.strictSame((await background.deadLetters.list({ task: 'unknown' })), { jobs: [], next: null })
  })

  t.test('list gives pages; next leads from one to the other', async (t) => {
    const { background, ids } = await withDead(t, 5)
    const seen: string[][] = []
    let after: string | undefined
    do {
      const page = await background.deadLetters.list({ limit: 2, after })
      seen.push(idsOf(page.jobs))
      after = page.next ?? undefined
    } while (after !== undefined)
    t.strictSame(seen, [ids.slice(0, 2), ids.slice(2, 4), ids.slice(4)])
  })

  t.test('a cursor survives that its job was removed', async (t) => {
    const { background, ids } = await withDead(t)
    const { next } = await background.deadLetters.list({ limit: 1 })
    await background.deadLetters.remove(next as string)
    t.strictSame(idsOf((await background.deadLetters.list({ after: next as string })).jobs), ids.slice(1))
  })

  t.test('list gives 100 by default', async (t) => {
    const { background } = await withDead(t, 101)
    const { jobs, next } = await background.deadLetters.list()
    t.equal(jobs.length, 100)
    t.equal(next, jobs.at(-1)?.id)
  })

  t.test('list refuses wrong queries', async (t) => {
    const { background } = await ready(t)
    for (const [query, code] of [
      [{ tsak: 'bad' }, 'FST_BG_UNKNOWN_OPTION'], [{ limit: 0 }, 'FST_BG_BAD_OPTION'], [{ limit: 1e9 }, 'FST_BG_BAD_OPTION'],
      [{ limit: '5' }, 'FST_BG_BAD_OPTION'], [{ after: 'x' }, 'FST_BG_BAD_OPTION'], [{ task: 5 }, 'FST_BG_BAD_OPTION'], [null, 'FST_BG_BAD_OPTION']
    ] as const) await t.rejects(background.deadLetters.list(query as never), { code, statusCode: 500 })
  })

  t.test('get gives a dead letter, and nothing for other jobs', async (t) => {
    const { app, background, ids } = await withDead(t)
    const alive = await app.background.add('task', null, { delay: 1_000 })
    t.match(await background.deadLetters.get(ids[0] as string), { id: ids[0], state: 'failed' })
    for (const id of [alive.id, unknownId, 'x', undefined]) t.equal(await background.deadLetters.get(id as string), undefined)
  })

  t.test('retry by id starts the job again, at attempt 0 with its history', async (t) => {
    const { background, clock, ids, world } = await withDead(t)
    world.broken = false
    t.same(await background.deadLetters.retry(ids[0] as string), { matched: 1, done: 1 })
    const before = await record(background, ids[0] as string)
    t.match(before, { state: 'waiting', attemptsMade: 0, finishedAt: null, history: [{ attempt: 1 }] })
    t.notOk('error' in before || 'failure' in before)
    await clock.settle()
    const after = await record(background, ids[0] as string)
    t.match(after, { state: 'completed', attemptsMade: 1, result: 'repaired', history: [{ attempt: 1, error: { message: 'bad {"i":0}' } }] })
    t.match(await background.counts(), { default: { failed: 3, completed: 2 } })
  })

  t.test('a retried job has not started', async (t) => {
    const { background, ids } = await withDead(t)
    await background.pause()
    await background.deadLetters.retry(ids[0] as string)
    t.match(await background.get(ids[0] as string), { state: 'waiting', attemptsMade: 0, startedAt: null })
  })

  t.test('a retried job has all its attempts again, and may die again', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add('bad', null, { attempts: 2, backoff: 10 })
    await clock.advance(10)
    await background.deadLetters.retry(job.id)
    await clock.settle()
    t.match(await background.get(job.id), { state: 'delayed', attemptsMade: 1 })
    await clock.advance(10)
    t.match(await background.get(job.id), { state: 'failed', attemptsMade: 2, history: { length: 4 } })
  })

  t.test('retry by task takes all of it', async (t) => {
    const { background, clock, world } = await withDead(t)
    world.broken = false
    t.same(await background.deadLetters.retry({ task: 'bad' }), { matched: 3, done: 3 })
    await clock.settle()
    t.match(await background.counts(), { default: { failed: 1, completed: 4 } })
  })

  t.test('retry of everything', async (t) => {
    const { background, clock, world } = await withDead(t)
    world.broken = false
    t.same(await background.deadLetters.retry({}), { matched: 4, done: 4 })
    await clock.settle()
    t.match(await background.counts(), { default: { failed: 0, completed: 5 } })
  })

  t.test('dryRun only counts', async (t) => {
    const { background, ids } = await withDead(t)
    t.same(await background.deadLetters.retry({ task: 'bad' }, { dryRun: true }), { matched: 3, done: 0 })
    t.same(await background.deadLetters.retry(ids[0] as string, { dryRun: true }), { matched: 1, done: 0 })
    t.match(await background.counts(), { default: { failed: 4 } })
  })

  t.test('ratePerSecond spreads the starts', async (t) => {
    const { background, clock, world } = await withDead(t)
    world.broken = false
    t.same(await background.deadLetters.retry({ task: 'bad' }, { ratePerSecond: 2 }), { matched: 3, done: 3 })
    await clock.settle()
    t.match(await background.counts(), { default: { completed: 2, delayed: 2 } })
    await clock.advance(500)
    t.match(await background.counts(), { default: { completed: 3, delayed: 1 } })
    await clock.advance(500)
    t.match(await background.counts(), { default: { completed: 4, delayed: 0 } })
  })

  t.test('onIdle waits for retries that are spread', async (t) => {
    const { background, clock, world } = await withDead(t)
    world.broken = false
    await background.deadLetters.retry({ task: 'bad' }, { ratePerSecond: 1 })
    let idle = false
    const waiting = background.onIdle().then(() => { idle = true })
    await clock.advance(1_000)
    t.notOk(idle)
    await clock.advance(1_000)
    await waiting
  })

  t.test('retry of an unknown id matches nothing', async (t) => {
    const { app, background } = await withDead(t)
    const alive = await app.background.add('task', null, { delay: 1_000 })
    for (const id of [unknownId, 'x', alive.id]) t.same(await background.deadLetters.retry(id), { matched: 0, done: 0 })
  })

  t.test('an inline function is released at its end: it cannot be retried', async (t) => {
    const { app, background, clock } = await ready(t)
    const job = await app.background.add(() => { throw new Error('no') })
    await clock.settle()
    await t.rejects(background.deadLetters.retry(job.id), { code: 'FST_BG_NOT_RETRYABLE', statusCode: 500, message: new RegExp(job.id) })
    t.equal((await record(background, job.id)).state, 'failed')
  })

  t.test('retry by a filter leaves inline functions where they are, and says so in numbers', async (t) => {
    const { app, background, clock, world } = await withDead(t)
    await app.background.add(() => { throw new Error('no') })
    await clock.settle()
    world.broken = false
    t.same(await background.deadLetters.retry({}), { matched: 5, done: 4 })
  })

  t.test('a job that expired can be retried', async (t) => {
    const { app, background, clock } = await ready(t)
    await background.pause()
    const job = await app.background.add('task', 'x', { ttl: 100 })
    await clock.advance(100)
    await background.resume()
    await background.deadLetters.retry(job.id)
    t.equal(await job.finished(), 'x')
  })

  t.test('remove by id and by filter forgets', async (t) => {
    const { background, ids } = await withDead(t)
    t.same(await background.deadLetters.remove(ids[0] as string), { matched: 1, done: 1 })
    t.equal(await background.get(ids[0] as string), undefined)
    t.same(await background.deadLetters.remove(ids[0] as string), { matched: 0, done: 0 })
    t.same(await background.deadLetters.remove({ task: 'bad' }), { matched: 2, done: 2 })
    t.strictSame(idsOf((await background.deadLetters.list()).jobs), ids.slice(3))
    t.same(await background.deadLetters.remove({}), { matched: 1, done: 1 })
    t.match(await background.counts(), { default: { failed: 0, completed: 1 } })
  })

  t.test('remove touches no other job', async (t) => {
    const { app, background, clock } = await ready(t)
    const done = await app.background.add('task')
    await clock.settle()
    t.same(await background.deadLetters.remove(done.id), { matched: 0, done: 0 })
    t.ok(await background.get(done.id))
  })

  t.test('wrong filters and options are refused, and nothing changes', async (t) => {
    const { background } = await withDead(t)
    const { deadLetters } = background
    await t.rejects(deadLetters.retry({ tsak: 'bad' } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
    await t.rejects(deadLetters.remove({ tsak: 'bad' } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
    for (const which of [undefined, null, 5, ['x']]) {
      await t.rejects(deadLetters.retry(which as never), { code: 'FST_BG_BAD_OPTION' })
      await t.rejects(deadLetters.remove(which as never), { code: 'FST_BG_BAD_OPTION' })
    }
    await t.rejects(deadLetters.retry({}, { dryrun: true } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
    await t.rejects(deadLetters.retry({}, { dryRun: 'yes' } as never), { code: 'FST_BG_BAD_OPTION' })
    for (const ratePerSecond of [0, -1, NaN, Infinity, '5']) {
      await t.rejects(deadLetters.retry({}, { ratePerSecond } as never), { code: 'FST_BG_BAD_OPTION', message: /a number above 0/ })
    }
    t.match(await background.counts(), { default: { failed: 4 } })
    await t.resolves(deadLetters.retry({ task: undefined }, { dryRun: undefined, ratePerSecond: undefined }))
  })

  t.test('a very low rate leaves the jobs readable', async (t) => {
    const { background, ids } = await withDead(t)
    await background.deadLetters.retry({}, { ratePerSecond: 1e-15 })
    await t.resolves(background.get(ids[1] as string))
    await t.resolves(background.deadLetters.list())
    t.equal(await jobsKept(background), 5)
  })

  t.test('errors of one kind have one fingerprint, whatever ids and numbers they hold', async (t) => {
    const { app, background, clock } = await setup(t)
    const texts = new Map<string, string[]>([
      ['same', ['order 17 of ada@example.org', 'order 4242 of b.c@example.net', `order ${1e6} of x@y`]],
      ['ids', [`no ${unknownId}`, 'no 5e9a1c00-0000-4000-8000-00000000abcd']],
      ['hashes', ['commit 5e9a1c00f', 'commit 00ff00ff00ff']],
      ['words', ['order refused', 'orders refused', 'deadbeefcafe']]
    ])
    for (const name of texts.keys()) background.define(name, { attempts: 1 }, (text) => { throw Object.assign(new RangeError(String(text)), { code: name }) })
    await app.ready()
    for (const [name, all] of texts) for (const text of all) await background.add(name, text)
    await clock.settle()
    const kinds = async (task: string) => new Set((await background.deadLetters.list({ task })).jobs.map((job) => job.fingerprint)).size
    t.strictSame(await Promise.all([...texts.keys()].map(kinds)), [1, 1, 1, 3])
  })

  t.test('groups tell how many there are of a kind, since when, of which tasks, and the latest', async (t) => {
    const { app, background, clock } = await setup(t)
    for (const name of ['mail', 'bill']) background.define(name, { attempts: 1 }, (payload) => { throw new Error(payload === null ? 'other' : `gone ${payload as number}`) })
    await app.ready()
    const made = []
    for (const [name, payload] of [['mail', 1], ['bill', 2], ['mail', null], ['mail', 3]] as const) {
      made.push((await background.add(name, payload)).id)
      await clock.advance(1_000)
    }
    const { groups, matched } = await background.deadLetters.groups()
    t.equal(matched, 4)
    t.match(groups, [
      { count: 3, tasks: ['bill', 'mail'], error: { name: 'Error', code: null, message: 'gone 3' }, firstFailedAt: '2026-01-01T00:00:00.000Z', lastFailedAt: '2026-01-01T00:00:03.000Z', latest: made[3] },
      { count: 1, tasks: ['mail'], error: { message: 'other' }, latest: made[2] }
    ])
    t.notOk('stack' in (groups[0]?.error ?? {}))
    t.match(await background.deadLetters.groups({ limit: 1 }), { matched: 4, groups: { length: 1 } })
    t.match(await background.deadLetters.groups({ task: 'bill' }), { matched: 1 })
  })

  t.test('filters take a fingerprint, a time and a function', async (t) => {
    const { app, background, clock } = await ready(t)
    const first = await app.background.add('bad', { i: 1 })
    await clock.advance(1_000)
    const second = await app.background.add('worse', 'x')
    await clock.settle()
    const { deadLetters } = background
    const list = async (filter: object): Promise<string[]> => idsOf((await deadLetters.list(filter)).jobs)
    const [one, two] = (await deadLetters.list()).jobs.map((job) => job.fingerprint)
    t.not(one, two)
    t.strictSame(await list({ fingerprint: two }), [second.id])
    t.strictSame(await list({ since: '2026-01-01T00:00:01Z' }), [second.id])
    t.strictSame(await list({ until: new Date('2026-01-01T00:00:01Z') }), [first.id])
    t.strictSame(await list({ since: Date.UTC(2026, 0, 1), until: Date.UTC(2026, 0, 2) }), [first.id, second.id])
    t.strictSame(await list({ where: async (job: JobRecord) => job.payload === 'x' }), [second.id])
    t.strictSame(await list({ where: () => 'yes' as unknown as boolean }), [])
    t.same(await deadLetters.remove({ fingerprint: one }), { matched: 1, done: 1 })
    t.same(await deadLetters.retry({ where: () => true }, { dryRun: true }), { matched: 1, done: 0 })
    for (const filter of [{ fingerprint: 'x' }, { since: 'yesterday' }, { until: NaN }, { where: true }]) {
      await t.rejects(deadLetters.retry(filter as never), { code: 'FST_BG_BAD_OPTION' })
    }
  })

  t.test('a limit counts what matches, over all pages of the store', async (t) => {
    const { background, ids } = await withDead(t, 1_001)
    const page = await background.deadLetters.list({ limit: 1, where: ({ payload }) => (payload as { i: number } | null)?.i === 1_000 })
    t.strictSame(idsOf(page.jobs), [ids[1_000]])
    t.equal(page.next, null)
  })

  t.test('a canary that completes is followed by the others, at their rate', async (t) => {
    const { background, clock, ids, world } = await withDead(t)
    world.broken = false
    const replay = background.deadLetters.retry({ task: 'bad' }, { canary: true, ratePerSecond: 1 })
    await clock.settle()
    t.same(await replay, { matched: 3, done: 3, canary: { id: ids[0], state: 'completed' } })
    await clock.settle()
    t.match(await background.counts(), { default: { completed: 3, delayed: 1, failed: 1 } })
  })

  t.test('a canary that dies, or is cancelled, leaves the others where they are', async (t) => {
    const { background, clock, ids } = await withDead(t)
    const replay = background.deadLetters.retry({ task: 'bad' }, { canary: true })
    await clock.settle()
    t.same(await replay, { matched: 3, done: 1, canary: { id: ids[0], state: 'failed' } })
    await background.pause()
    const second = background.deadLetters.retry({ task: 'bad' }, { canary: true })
    await clock.settle()
    await background.cancel(ids[0] as string)
    t.match(await second, { done: 1, canary: { state: 'cancelled' } })
    t.match(await background.counts(), { default: { failed: 3 } })
  })

  t.test('a canary that takes longer than its timeout, or than the application lives, is not followed', async (t) => {
    const { app, background, clock, ids } = await withDead(t)
    await background.pause()
    const replay = background.deadLetters.retry({ task: 'bad' }, { canary: true, canaryTimeout: 500 })
    await clock.advance(499)
    t.equal((await background.get(ids[0] as string))?.state, 'waiting')
    await clock.advance(1)
    t.same(await replay, { matched: 3, done: 1, canary: { id: ids[0], state: 'waiting' } })
    const cut = background.deadLetters.retry({ task: 'bad' }, { canary: true, canaryTimeout: 600_000 })
    await clock.settle()
    const closing = closeInTime(app, clock)
    t.match(await cut, { matched: 2, done: 1 })
    await closing
  })

  t.test('the canary is the first that can be retried; without one, nothing is', async (t) => {
    const { app, background, clock, world } = await ready(t)
    await app.background.add(() => { throw new Error('no') })
    await clock.settle()
    t.same(await background.deadLetters.retry({}, { canary: true }), { matched: 1, done: 0 })
    const job = await app.background.add('bad')
    await clock.settle()
    world.broken = false
    const replay = background.deadLetters.retry({}, { canary: true })
    await clock.settle()
    t.match(await replay, { matched: 2, done: 1, canary: { id: job.id, state: 'completed' } })
  })

  t.test('a patch is merged into each payload, which must fit its schema', async (t) => {
    const { app, background, clock } = await setup(t)
    let broken = true
    const schema = { type: 'object', required: ['n'], additionalProperties: false, properties: { n: { type: 'integer' }, gone: {}, deep: {}, list: {} } }
    const handler = (payload: unknown): unknown => { if (broken) throw new Error('x'); return payload }
    background.define('strict', { attempts: 1, schema }, handler)
    background.define('free', { attempts: 1 }, handler)
    await app.ready()
    const first = await background.add('strict', { n: 1, gone: 1, deep: { a: 1, b: { c: 1 } }, list: [1, 2] })
    const second = await background.add('free', 'text')
    await clock.settle()
    const { deadLetters } = background
    const before = await deadLetters.list()
    for (const dryRun of [true, false]) {
      await t.rejects(deadLetters.retry({}, { patch: { n: 'x' }, dryRun }), { code: 'FST_BG_BAD_PAYLOAD' })
      await t.rejects(deadLetters.retry({}, { patch: { list: 'x'.repeat(300_000) }, dryRun }), { code: 'FST_BG_PAYLOAD_TOO_LARGE' })
    }
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    for (const patch of [cycle, [], null, 'x', { n: 1n }]) await t.rejects(deadLetters.retry({}, { patch: patch as never }), { code: 'FST_BG_BAD_OPTION' })
    t.same(await deadLetters.list(), before, 'nothing has changed')
    t.same(await deadLetters.retry({}, { patch: { n: 5, gone: null, deep: { a: null, b: { d: 2 } }, list: [3] }, dryRun: true }), { matched: 2, done: 0 })
    t.same(await deadLetters.list(), before)
    broken = false
    await deadLetters.retry({}, { patch: { n: '5', gone: null, deep: { a: null, b: { d: 2 } }, list: [3] } })
    t.same(await first.finished(), { n: 5, deep: { b: { c: 1, d: 2 } }, list: [3] }, 'coerced, as at the call')
    t.same(await second.finished(), { n: '5', deep: { b: { d: 2 } }, list: [3] })
    t.same(({} as Record<string, unknown>)['n'], undefined)
  })

  t.test('a patch that names __proto__ makes an own key of it', async (t) => {
    const { background, clock, ids, world } = await withDead(t, 1)
    world.broken = false
    await background.deadLetters.retry(ids[0] as string, { patch: JSON.parse('{"__proto__":{"admin":true}}') as Record<string, unknown> })
    await clock.settle()
    const { payload } = await record(background, ids[0] as string)
    t.ok(Object.hasOwn(payload as object, '__proto__'))
    t.equal((payload as { admin?: boolean }).admin, undefined)
  })

  t.test('a backend that cannot change payloads refuses a patch by name, before anything is retried', async (t) => {
    const real = memory({ clock: new TestClock() })
    const { patch: _, ...capabilities } = real.capabilities
    const backend = new Proxy(real, { get: (target, key) => key === 'capabilities' ? capabilities : typeof Reflect.get(target, key) === 'function' ? (Reflect.get(target, key) as () => unknown).bind(target) : Reflect.get(target, key) })
    const { app, background } = await setup(t, { backend })
    background.define('bad', { attempts: 1 }, () => { throw new Error('x') })
    await app.ready()
    const job = await background.add('bad')
    await t.rejects(job.finished())
    await t.rejects(background.deadLetters.retry({}, { patch: { a: 1 } }), { code: 'FST_BG_NOT_SUPPORTED', message: /another payload is not supported by the backend "memory"/ })
    t.equal((await background.get(job.id))?.state, 'failed')
  })
})

t.test('totals count since the start, counts what is kept', async (t) => {
  const { app, background, clock } = await ready(t, { retention: { completed: { count: 1 }, failed: { count: 1 } } })
  for (let i = 0; i < 3; i++) await app.background.add('task')
  for (let i = 0; i < 2; i++) await app.background.add('bad', null, { attempts: 2, backoff: 0 })
  await clock.settle()
  const job = await app.background.add('task', null, { delay: 1_000 })
  await background.cancel(job.id)
  const running = await app.background.add(({ signal }) => new Promise((resolve) => { signal.addEventListener('abort', resolve) }))
  await clock.settle()
  await background.cancel(running.id)
  await clock.settle()
  const health = (await app.inject('/health/jobs')).json()
  t.same(health.totals, { completed: 3, cancelled: 2, failedAttempts: 4, deadLettered: 2 })
  t.match(health.queues.default, { completed: 0, cancelled: 1, failed: 1 })
})

/** Functions that the user gives beside his jobs, and jobs that change what they are given: each has one outcome. */
import { test } from 'tap'
import type { FastifyReply } from 'fastify'
import type { JobContext, JobFacts, JobOptions, JobRecord } from '../../lib/index.ts'
import { closeInTime, record, setup, type Harness, type HarnessOptions } from '../support/harness.ts'

type TestLike = Parameters<typeof setup>[0]

function revoked (): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

/** What a function that should answer something does instead. */
const nonsense: Record<string, () => unknown> = {
  'throws an error': () => { throw new Error('policy') },
  'throws undefined': () => { throw undefined },
  'throws a revoked proxy': () => { throw revoked() },
  'throws a frozen error': () => { throw Object.freeze(new Error('cold')) },
  'answers nothing': () => {},
  'answers a text': () => 'yes',
  'answers a symbol': () => Symbol('s'),
  'answers a BigInt': () => 1n,
  'answers NaN': () => NaN,
  'answers a negative number': () => -1,
  'answers Infinity': () => Infinity,
  'answers a revoked proxy': revoked,
  'answers a promise': async () => true,
  'answers a promise that rejects': async () => { throw new Error('later') },
  'answers a number that throws': () => ({ valueOf () { throw new Error('valueOf') } }),
  // oxlint-disable-next-line unicorn/no-thenable -- one that throws
  'answers a thenable that throws': () => ({ then () { throw new Error('then') } })
}

for (const [title, answer] of Object.entries(nonsense)) {
  test(`a policy that ${title}`, async (t) => {
    t.test('when: the job is cancelled, as for false, and the response is not touched', async (t) => {
      const { app, clock } = await setup(t)
      const jobs: string[] = []
      app.get('/', async (_request, reply) => {
        jobs.push(reply.background(() => 1, { when: answer as never }).id, reply.background(() => 2, { when: () => true }).id)
        return 'ok'
      })
      t.equal((await app.inject('/')).body, 'ok')
      await clock.settle()
      t.match(await app.background.get(jobs[0] ?? ''), { state: 'cancelled', reason: 'response', attemptsMade: 0 })
      t.match(await app.background.get(jobs[1] ?? ''), { state: 'completed' })
    })

    t.test('backoff: the default is taken, and it is logged', async (t) => {
      const { background, clock, id, said } = await fails(t, { attempts: 2, backoff: answer as never })
      t.match(await record(background, id), { state: 'delayed', delayReason: 'retry' })
      t.match(said('backoff failed'), [{ jobId: id, option: 'backoff' }])
      await clock.advance(1_000)
      t.match(await record(background, id), { state: 'failed', attemptsMade: 2 })
    })

    t.test('retryIf: anything but false retries', async (t) => {
      const { background, clock, id } = await fails(t, { attempts: 2, backoff: 0, retryIf: answer as never })
      await clock.advance(1)
      t.match(await record(background, id), { state: 'failed', failure: 'exhausted', attemptsMade: 2 })
    })

    t.test('hooks: nobody is hurt, and what is thrown is logged', async (t) => {
      const { app, background, clock, said } = await setup(t)
      for (const name of ['onTaskStart', 'onTaskEnd', 'onTaskError', 'onTaskDead'] as const) background.addHook(name, answer)
      await app.ready()
      const [good, bad] = [await background.add(() => 1), await background.add(() => { throw new Error('x') })]
      await clock.settle()
      t.match(await record(background, good.id), { state: 'completed', result: 1 })
      t.match(await record(background, bad.id), { state: 'failed' })
      const loud = /throws|rejects/.test(title) && !/number/.test(title)
      for (const name of ['onTaskStart', 'onTaskEnd', 'onTaskError', 'onTaskDead']) t.equal(said(`${name} failed`).length > 0, loud || title === 'answers a revoked proxy', name)
    })

    t.test('authorize: nobody is let in, and no text of a job gets out', async (t) => {
      const { app, background, clock } = await setup(t, { authorize: answer as never })
      await app.ready()
      const job = await background.add(() => { throw new Error('hunter2') })
      await clock.settle()
      const response = await app.inject(job.statusUrl as string)
      if (title === 'answers a promise') t.equal(response.statusCode, 200) // it is asked like any async function
      else t.ok(response.statusCode === 404 || response.statusCode === 500, String(response.statusCode))
      if (title !== 'answers a promise') t.notMatch(response.body, /hunter2/)
    })

    t.test('onUnfinished: the shutdown ends, and names the job', async (t) => {
      const { app, background, clock, said } = await setup(t, { onUnfinished: answer })
      await app.ready()
      const job = await background.add(() => 1, { delay: 60_000 })
      await closeInTime(app, clock)
      t.match(said('shutdown left jobs undone'), [{ count: 1, jobs: [{ jobId: job.id }] }])
      const loud = /throws|rejects/.test(title) && !/number/.test(title)
      t.equal(said('onUnfinished failed').length, loud || title === 'answers a revoked proxy' ? 1 : 0)
    })
  })
}

/** An application with one job that has failed once. */
async function fails (t: TestLike, options: JobOptions, plugin: HarnessOptions = {}): Promise<Harness & { id: string }> {
  const harness = await setup(t, plugin)
  const { app, clock } = harness
  await app.ready()
  const { id } = await app.background.add(() => { throw new Error('x') }, options)
  await clock.settle()
  return { ...harness, background: app.background, id }
}

test('a when that changes the outcome it is given changes it for itself alone', async (t) => {
  const { app, clock } = await setup(t)
  const seen: unknown[] = []
  app.get('/', async (_request, reply: FastifyReply) => {
    reply.background(() => {}, { when: (outcome) => { outcome.statusCode = 500; outcome.aborted = true; return true } })
    reply.background(() => {}, { when: (outcome) => { seen.push({ ...outcome }); return true }, onAbort: 'drop' })
    return 'ok'
  })
  await app.inject('/')
  await clock.settle()
  t.strictSame(seen, [{ statusCode: 200, error: undefined, aborted: false }])
})

test('policies and hooks cannot change the facts of a job, and see them frozen', async (t) => {
  const facts: JobFacts[] = []
  const spoil = (job: JobFacts): void => {
    facts.push(job)
    Reflect.set(job, 'id', 'other')
    Reflect.set(job, 'attempt', 1_000)
  }
  const { app, background, clock } = await setup(t)
  background.addHook('onTaskStart', spoil)
  background.addHook('onTaskError', spoil)
  await app.ready()
  const { id } = await background.add(() => { throw new Error('x') }, {
    attempts: 2, retryIf: (_error, job) => { spoil(job); return true }, backoff: (_attempt, _error, job) => { spoil(job); return 1 }
  })
  await clock.advance(10)
  t.match(await record(background, id), { id, state: 'failed', attemptsMade: 2 })
  t.ok(facts.length >= 6 && facts.every((job) => job.id === id && Object.isFrozen(job)))
})

test('a body may take its context apart in every way: its timeout and its end still work', async (t) => {
  const { app, background, clock } = await setup(t, { abortGrace: 50 })
  await app.ready()
  const boom = (): never => { throw new Error('boom') }
  const breakings: Array<(context: JobContext) => unknown> = [
    (context) => { for (const key of ['abort', 'signal', 'job', 'log', 'progress', 'app']) Reflect.defineProperty(context, key, { value: boom }) },
    (context) => { for (const key of ['abort', 'signal', 'job', 'log', 'progress', 'app']) Reflect.defineProperty(context, key, { get: boom }) },
    (context) => { Reflect.setPrototypeOf(context, null) },
    (context) => { Object.freeze(context) },
    ({ signal }) => { Reflect.setPrototypeOf(signal, null); Object.freeze(signal) },
    ({ job }) => { Reflect.set(job, 'id', 'x'); Reflect.setPrototypeOf(job, null) }
  ]
  for (const [n, breaking] of breakings.entries()) {
    let signal: AbortSignal | undefined
    const job = await background.add((context) => { signal = context.signal; breaking(context); return new Promise(() => {}) }, { timeout: 100 })
    await clock.advance(1_000)
    t.match(await record(background, job.id), { state: 'failed', failure: 'timeout' }, `number ${n}`)
    if (n !== 4) t.equal(signal?.aborted, true, `the signal of number ${n} aborts`)
  }
})

test('what a body, a hook or a reader changes is not changed for anybody else', async (t) => {
  const { app, background, clock } = await setup(t, {
    authorize: (_request, _action, job) => { spoil(job); return true }
  })
  function spoil (found: JobRecord | undefined): void {
    if (found === undefined) throw new Error('no record')
    Object.assign(found, { id: 'x', state: 'active' })
    for (const value of [found.payload, found.progress, found.result, found.error, ...found.history ?? []]) {
      if (typeof value === 'object' && value !== null) Reflect.set(value, 'spoilt', true)
    }
    for (const { error } of found.history ?? []) Reflect.set(error, 'message', 'spoilt')
  }
  const ends: unknown[] = []
  background.addHook('onTaskEnd', (_job, result) => { Reflect.set(result as object, 'spoilt', true) })
  background.addHook('onTaskEnd', (_job, result) => { ends.push(result) })
  background.define('spoil', { attempts: 2, backoff: 10 }, (payload: { n: number[] }, { job, progress }) => {
    t.strictSame(payload, { n: [1] }, 'each attempt has its own payload')
    payload.n.push(2)
    const value = { at: job.attempt }
    progress(value)
    value.at = 1_000
    if (job.attempt === 1) throw new Error('again')
    return payload
  })
  await app.ready()
  const given = { n: [1] }
  const job = await background.add('spoil', given)
  given.n.push(3)
  await clock.advance(100)
  for (let round = 0; round < 2; round++) {
    const found = await record(background, job.id)
    t.match(found, { state: 'completed', progress: { at: 2 }, history: [{ error: { message: 'again' } }] })
    t.strictSame([found.payload, found.result], [{ n: [1] }, { n: [1, 2] }])
    spoil(found)
    t.match((await app.inject(job.statusUrl as string)).json(), { state: 'completed' }, 'what authorize changes shows in no answer')
    Reflect.set(await job.finished() as object, 'spoilt', true)
  }
  t.strictSame(ends, [{ n: [1, 2] }], 'each hook has its own result')
})

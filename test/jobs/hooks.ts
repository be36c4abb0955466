import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { test } from 'tap'
import { JobAbortedError, UnrecoverableError } from '../../lib/index.ts'
import { deferred, setup } from '../support/harness.ts'

function listen (app: FastifyInstance, into: unknown[], tag = ''): void {
  app.background.addHook('onTaskStart', (job) => { into.push(`${tag}start ${job.name} ${job.attempt}`) })
  app.background.addHook('onTaskEnd', (job, result) => { into.push(`${tag}end ${job.name} ${JSON.stringify(result)}`) })
  app.background.addHook('onTaskError', (job, error) => { into.push(`${tag}error ${job.name} ${(error as Error).message}`) })
  app.background.addHook('onTaskDead', (job, error, failure) => { into.push(`${tag}dead ${job.name} ${(error as Error).message} ${failure}`) })
}

test('hooks follow a job through its attempts to its end', async (t) => {
  const { app, background, clock } = await setup(t)
  const seen: unknown[] = []
  listen(app, seen)
  const flaky = background.define('flaky', { backoff: 10 }, (_payload, { job }) => {
    if (job.attempt < 2) throw new Error('not yet')
    return { ok: true }
  })
  await app.ready()
  await background.add(flaky)
  await clock.advance(10)
  t.same(seen, ['start flaky 1', 'error flaky not yet', 'start flaky 2', 'end flaky {"ok":true}'])
})

test('a dead letter is told with its cause, and the thrown value itself', async (t) => {
  const { app, background } = await setup(t)
  const cause = new UnrecoverableError('never', { cause: 'why' })
  const seen: unknown[] = []
  background.addHook('onTaskDead', (_job, error, failure) => { seen.push(error, failure) })
  const task = background.define('bad', () => { throw cause })
  await app.ready()
  await background.add(task)
  await background.onIdle()
  t.equal(seen[0], cause)
  t.equal(seen[1], 'unrecoverable')
})

test('a timeout is told as the reason of the signal, an expiry as its own error', async (t) => {
  const { app, background, clock } = await setup(t)
  const errors: unknown[] = []
  background.addHook('onTaskDead', (_job, error) => { errors.push(error) })
  const slow = background.define('slow', { timeout: 50, attempts: 1 }, (_payload, { signal }) => new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => { resolve() })
  }))
  const late = background.define('late', { ttl: 10 }, () => {})
  await app.ready()
  await background.add(slow)
  await clock.advance(50)
  await background.pause()
  await background.add(late)
  await clock.advance(10)
  t.ok(errors[0] instanceof JobAbortedError && errors[0].reason === 'timeout')
  t.match(errors[1], { code: 'FST_BG_EXPIRED' })
})

test('hooks see the tasks of their instance and its children, not those of a sibling or a parent', async (t) => {
  const { app, background } = await setup(t)
  const seen: unknown[] = []
  listen(app, seen, 'root ')
  background.define('of-root', () => 1)
  app.register(async (left) => {
    listen(left, seen, 'left ')
    left.background.define('of-left', () => 1)
    left.register(async (leaf) => { leaf.background.define('of-leaf', () => 1) })
    // A plugin without encapsulation is its parent.
    left.register(fp(async (shared) => { shared.background.define('of-shared', () => 1) }))
  })
  app.register(async (right) => { right.background.define('of-right', () => 1) })
  await app.ready()
  const whoSaw = async (name: string): Promise<string[]> => {
    seen.length = 0
    await background.add(name)
    await background.onIdle()
    return (seen as string[]).filter((line) => line.includes('start')).map((line) => line.split(' ')[0] as string)
  }
  t.same(await whoSaw('of-root'), ['root'])
  t.same(await whoSaw('of-left'), ['root', 'left'])
  t.same(await whoSaw('of-leaf'), ['root', 'left'])
  t.same(await whoSaw('of-shared'), ['root', 'left'])
  t.same(await whoSaw('of-right'), ['root'])
})

test('an inline function counts to the instance that handed it over', async (t) => {
  const { app, background } = await setup(t)
  const seen: unknown[] = []
  app.register(async (child) => {
    listen(child, seen)
    child.get('/', async (_request, reply) => {
      reply.background(function tidy () {})
      return {}
    })
  })
  await app.ready()
  await app.inject('/')
  await background.onIdle()
  await background.add(function elsewhere () {})
  await background.onIdle()
  t.same(seen, ['start tidy 1', 'end tidy undefined'])
})

test('a hook that throws, rejects or never ends does not hurt the job, and is logged', async (t) => {
  const { app, background, said } = await setup(t)
  background.addHook('onTaskStart', () => { throw new Error('hook down') })
  background.addHook('onTaskEnd', () => Promise.reject(new Error('hook down later')))
  background.addHook('onTaskEnd', () => new Promise(() => {}))
  const task = background.define('fine', () => 'done')
  await app.ready()
  const job = await background.add(task)
  t.equal(await job.finished(), 'done')
  await background.onIdle()
  t.match(said('onTaskStart failed'), [{ jobId: job.id, task: 'fine', err: { message: 'hook down' } }])
  t.match(said('onTaskEnd failed'), [{ jobId: job.id, err: { message: 'hook down later' } }])
})

test('a slow hook does not hold the job\'s slot', async (t) => {
  const { app, background } = await setup(t, { concurrency: 1 })
  const gate = deferred()
  background.addHook('onTaskStart', () => gate.promise)
  background.addHook('onTaskEnd', () => gate.promise)
  await app.ready()
  await background.add(() => {})
  await background.add(() => {})
  await background.onIdle()
  t.equal((await background.counts()).default?.completed, 2)
  gate.resolve()
})

test('an unknown hook, no function, and a hook after ready are refused', async (t) => {
  const { app, background } = await setup(t)
  t.throws(() => background.addHook('onTaskFinish' as 'onTaskEnd', () => {}), { code: 'FST_BG_BAD_OPTION', message: /onTaskStart.*onTaskFinish/ })
  t.throws(() => background.addHook('onTaskEnd', 'no' as never), { code: 'FST_BG_BAD_HANDLER' })
  await app.ready()
  t.throws(() => background.addHook('onTaskEnd', () => {}), { code: 'FST_BG_HOOK_AFTER_READY' })
})

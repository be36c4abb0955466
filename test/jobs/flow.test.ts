/** Flows, as an application sees them. */
import t, { test } from 'tap'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { memory, type ChildRecord, type FlowJob } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { DurableBackend } from '../support/durable.ts'
import { deferred, LEVELS, record, setup, until } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'
import { freshFile, noSqlite, SQLITE_WARNING } from '../support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

/** Tasks that write down what they saw. */
async function service (t: Parameters<typeof setup>[0], options: Parameters<typeof setup>[1] = {}) {
  const harness = await setup(t, options)
  const ran: Array<[string, readonly ChildRecord[]]> = []
  for (const name of ['parent', 'a', 'b', 'c']) {
    harness.background.define(name, { attempts: 1 }, (payload, { children, job }) => {
      ran.push([job.name, children])
      if (payload === 'fails') throw new Error('broken on purpose')
      return `of ${name}`
    })
  }
  return { ...harness, ran }
}

test('children first, then their parent with what they returned', async (t) => {
  const { app, background, ran } = await service(t)
  await app.ready()
  const { job, children } = await background.flow({ name: 'parent', children: [{ name: 'a', children: [{ name: 'b' }] }, { name: 'c' }] })
  t.equal(await job.finished(), 'of parent')
  t.strictSame(ran.map(([name]) => name).sort(), ['a', 'b', 'c', 'parent'])
  t.equal(ran.at(-1)?.[0], 'parent')
  t.match(ran.at(-1)?.[1], [{ name: 'a', state: 'completed', result: 'of a', id: children[0]?.job.id }, { name: 'c', result: 'of c' }])
  t.strictSame(ran.find(([name]) => name === 'c')?.[1], [])
  t.equal(await children[0]?.children[0]?.job.finished(), 'of b')
  t.equal((await record(background, children[1]?.job.id as string)).parent, job.id)
})

test('a status shows that a job waits for its children, and not whose child a job is', async (t) => {
  const { app, background } = await service(t)
  await app.ready()
  await background.pause()
  const { job, children } = await background.flow({ name: 'parent', children: [{ name: 'a' }] })
  const status = async (url: string | null) => (await app.inject(url as string)).json<Record<string, unknown>>()
  t.match(await status(job.statusUrl), { state: 'waiting-children' })
  t.notOk('parent' in await status(children[0]?.job.statusUrl as string))
  t.match((await app.inject('/health/jobs')).json(), { queues: { default: { 'waiting-children': 1, waiting: 1 } } })
  t.match(await background.counts(), { default: { 'waiting-children': 1 } })
})

test('a child that fails fails its parent, which is told to hooks, log and waiters', async (t) => {
  const { app, background, said } = await service(t)
  const told: Array<{ name: string, code: unknown, failure: string }> = []
  background.addHook('onTaskDead', (job, error, failure) => { told.push({ name: job.name, code: (error as { code?: string }).code, failure }) })
  await app.ready()
  const { job } = await background.flow({ name: 'parent', children: [{ name: 'a', payload: 'fails' }, { name: 'b' }] })
  await t.rejects(job.finished(), { code: 'FST_BG_JOB_FAILED', failure: 'unrecoverable' })
  await background.onIdle()
  t.strictSame(told.map(({ name }) => name).sort(), ['a', 'parent'])
  t.match(told.find(({ name }) => name === 'parent'), { code: 'FST_BG_CHILD_FAILED', failure: 'unrecoverable' })
  t.ok(said().some(({ level, task, msg }) => level === LEVELS.error && task === 'parent' && msg.includes('did not complete')))
})

test('a failure that is ignored is shown to the parent', async (t) => {
  const { app, background, ran } = await service(t)
  await app.ready()
  const { job } = await background.flow({ name: 'parent', children: [{ name: 'a', payload: 'fails', options: { ignoreDependencyOnFailure: true } }] })
  await job.finished()
  t.match(ran.at(-1)?.[1], [{ name: 'a', state: 'failed', error: { message: 'broken on purpose' } }])
})

test('the cancel of a parent cancels the children that do not run', async (t) => {
  const { app, background, said } = await service(t, { concurrency: 1 })
  const body = deferred()
  background.define('slow', () => body.promise)
  await app.ready()
  const { job, children } = await background.flow({ name: 'parent', children: [{ name: 'slow' }, { name: 'a' }] })
  while ((await background.counts()).default?.active !== 1) await new Promise((resolve) => { setImmediate(resolve) })
  t.equal(await background.cancel(job.id), 'cancelled')
  body.resolve()
  await background.onIdle()
  t.strictSame(await Promise.all(children.map(async (child) => (await record(background, child.job.id)).state)), ['completed', 'cancelled'])
  t.equal(said('job cancelled').length, 2)
})

test('a shutdown names the parents that it cancels', async (t) => {
  const unfinished: string[] = []
  const { app, background } = await service(t, { onUnfinished: (jobs) => { for (const { name } of jobs) unfinished.push(name) } })
  await app.ready()
  await background.flow({ name: 'parent', children: [{ name: 'a', options: { delay: 60_000 } }] })
  await app.close()
  t.strictSame(unfinished.sort(), ['a', 'parent'])
})

test('a flow that is wrong is refused as a whole', async (t) => {
  const { app, background } = await service(t, { maxQueueSize: 5, queues: { mail: { backend: memory({ clock: new TestClock() }) } } })
  await app.ready()
  const deep = (levels: number): FlowJob => levels === 1 ? { name: 'a' } : { name: 'a', children: [deep(levels - 1)] }
  const wrong: Array<[flow: unknown, code: string, message: RegExp]> = [
    [undefined, 'FST_BG_BAD_OPTION', /^flow: expected an object/],
    [{ name: 'parent', children: [{ name: 'nobody' }] }, 'FST_BG_UNKNOWN_TASK', /nobody/],
    [{ name: () => {} }, 'FST_BG_BAD_OPTION', /^flow\.name/],
    [{ name: 'parent', children: 'a' }, 'FST_BG_BAD_OPTION', /^flow\.children/],
    [{ name: 'parent', children: [{ name: 'a', parent: 'x' }] }, 'FST_BG_UNKNOWN_OPTION', /^flow\.children\[0\]/],
    [{ name: 'parent', options: { ignoreDependencyOnFailure: 1 } }, 'FST_BG_BAD_OPTION', /ignoreDependencyOnFailure/],
    [{ name: 'parent', children: [{ name: 'a', options: { deduplication: { id: 'x' } } }] }, 'FST_BG_BAD_OPTION', /^flow\.children\[0\]\.options\.deduplication/],
    [{ name: 'parent', children: [{ name: 'a', options: { queue: 'mail' } }] }, 'FST_BG_NOT_SUPPORTED', /several backends/],
    [{ name: 'parent', children: Array.from({ length: 1_000 }, () => ({ name: 'a' })) }, 'FST_BG_BAD_OPTION', /at most 1000 jobs/],
    [deep(101), 'FST_BG_BAD_OPTION', /at most 100 levels/],
    [{ name: 'parent', children: Array.from({ length: 5 }, () => ({ name: 'a' })) }, 'FST_BG_QUEUE_FULL', /full/]
  ]
  for (const [flow, code, message] of wrong) await t.rejects(background.flow(flow as FlowJob), { code, message })
  t.match(await background.counts(), { default: { waiting: 0, 'waiting-children': 0 } })
  await t.rejects(background.add('a', null, { ignoreDependencyOnFailure: true } as never), { code: 'FST_BG_UNKNOWN_OPTION' })
})

test('where a backend has no flows they are refused by name', async (t) => {
  const { app, background } = await service(t, { backend: new DurableBackend() })
  await app.ready()
  await t.rejects(background.flow({ name: 'parent', children: [{ name: 'a' }] }), { code: 'FST_BG_NOT_SUPPORTED', message: /^flow\(\)/ })
})

test('a flow in a file goes on after a restart, and hands over what was returned before it', { skip: noSqlite }, async (t) => {
  const path = freshFile(t)
  const clock = new TestClock()
  const first = await service(t, { backend: sqlite({ path, clock }) })
  await first.app.ready()
  const { job, children } = await first.background.flow({ name: 'parent', children: [{ name: 'a' }, { name: 'b', options: { delay: 1_000 } }] })
  await children[0]?.job.finished()
  await first.app.close()
  const second = await service(t, { backend: sqlite({ path, clock }) })
  await second.app.ready()
  t.equal((await record(second.background, job.id)).state, 'waiting-children')
  await clock.advance(1_000)
  await until(async () => (await record(second.background, job.id)).finishedAt !== null)
  t.strictSame(second.ran.map(([name]) => name), ['b', 'parent'])
  t.match(second.ran.at(-1)?.[1], [{ name: 'a', result: 'of a' }, { name: 'b', result: 'of b' }])
})

/** Several processes on one store; for both stores. */
import t from 'tap'
import type { JobRecord } from '../../../lib/index.ts'
import { eventually } from '../../support/real-time.ts'
import { appOn, dieAnswering, Workers } from './cluster.ts'
import type { Store } from './store.ts'

export function processesOn (store: Store): Promise<unknown> {
  return t.test(`three workers and a producer on ${store.kind.name}`, { buffered: true }, async (t) => {
    const options = { ...store.options(), lockDuration: 2_000 }
    const { app } = await appOn(store.create(options), { role: 'producer' })
    const work = app.background.define<{ gate?: string }, { by: number }>('work', async () => { throw new Error('a producer does not work') })
    await app.ready()
    const workers = new Workers(options, 3)
    t.teardown(async () => {
      await workers.close()
      await app.close()
    })
    await workers.ready()

    t.test('the workers share the jobs, each job is done once, and any process answers', async (t) => {
      const handles = await app.background.addBulk(Array.from({ length: 60 }, () => ({ name: work, payload: { gate: 'all' } })))
      await workers.count('started', 9) // as many as there are slots: each worker has its three
      workers.letGo('all')
      const results = await Promise.all(handles.map((handle) => handle.finished({ timeout: 30_000 }) as Promise<{ by: number }>))
      t.equal(new Set(results.map(({ by }) => by)).size, 3, 'each worker did some')
      const started = workers.told.filter(({ what }) => what === 'started').map(({ id }) => id)
      t.strictSame(started.sort(), handles.map(({ id }) => id).sort(), 'each job started once')
      t.match((await app.inject(`/jobs/${handles[0]?.id}/status`)).json(), { state: 'completed', result: { by: Number } })
    })

    t.test('a job that runs in another process can be cancelled', async (t) => {
      const handle = await app.background.add(work, {})
      await workers.until('started', handle.id)
      t.equal((await app.inject(`/jobs/${handle.id}/status`)).json().state, 'active')
      t.equal(await app.background.cancel(handle.id), 'cancelling')
      await workers.until('aborted', handle.id)
      await t.rejects(handle.finished({ timeout: 30_000 }), { code: 'FST_BG_JOB_NOT_FOUND' }, 'cancelled jobs are not kept')
    })

    t.test('a worker that slept through its lock does not end the job that another one has', async (t) => {
      const handle = await app.background.add(work, {})
      const first = await workers.until('started', handle.id)
      workers.signal(first, 'SIGSTOP')
      const second = await workers.until('started', handle.id, first)
      workers.signal(first, 'SIGCONT')
      workers.letGo(handle.id, first)
      await workers.until('ended', handle.id, second)
      workers.letGo(handle.id, second)
      t.strictSame(await handle.finished({ timeout: 30_000 }), { by: second }, 'the result is that of who had the lock')
      t.match(await app.background.get(handle.id), { state: 'completed', result: { by: second } })
    })

    t.test('the job of a response whose process was killed before it went out starts by itself, and not before the hold is over', async (t) => {
      workers.letGo('killed')
      await dieAnswering(options, 1_000)
      const find = async (): Promise<JobRecord | undefined> =>
        (await app.background.list()).jobs.find(({ payload }) => (payload as { gate?: string }).gate === 'killed')
      await eventually(async () => (await find())?.state === 'completed', 'the job of the killed process', 30_000)
      const { createdAt, startedAt } = await find() as JobRecord
      t.ok(Date.parse(startedAt as string) - Date.parse(createdAt) >= 11_000, `made ${createdAt}, started ${startedAt}`)
    })

    t.test('the job of a worker that was killed is done by another one', async (t) => {
      const handle = await app.background.add(work, {})
      const first = await workers.until('started', handle.id)
      workers.signal(first, 'SIGKILL')
      workers.letGo(handle.id, await workers.until('started', handle.id, first))
      const { by } = await handle.finished({ timeout: 30_000 })
      t.not(by, first)
      t.equal((await app.background.get(handle.id))?.state, 'completed')
    })
  })
}
